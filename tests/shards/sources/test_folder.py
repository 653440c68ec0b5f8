import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest

from relightx.sample import check, encode
from shards.sources.folder import folder


def write_group(directory, portrait, about=None):
    """Lay a portrait out as a folder: lights, labels and group.json."""
    directory.mkdir(parents=True)
    for name, data in encode(portrait).items():
        if name != "meta.json":
            (directory / name).write_bytes(data)
    lights = [
        {
            "file": f"light{i:03d}.png",
            "name": portrait.light_name[i],
            "sh": portrait.sh[i].tolist(),
            "direction": portrait.direction[i].tolist(),
        }
        for i in range(portrait.num_lights)
    ]
    default = {
        "lights": lights,
        "transfer": portrait.provenance.transfer,
        "licence": portrait.provenance.licence,
        "labels": {"albedo": "real", "normal": "real", "light": "real"},
    }
    (directory / "group.json").write_text(json.dumps(default | (about or {})))


def read(root, **options):
    """Every portrait of a folder."""
    return [group.read() for group in folder(root, **options)]


@pytest.fixture
def anna(portrait, tmp_path):
    """ROOT/anna as a folder with everything; ROOT is its parent."""
    write_group(tmp_path / "root" / "anna", portrait)
    return tmp_path / "root" / "anna"


def edit(directory, **changes):
    file = directory / "group.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_gives_the_portrait_it_was_made_of(anna, portrait):
    (found,) = read(anna.parent)
    check(found)
    np.testing.assert_array_equal(found.image, portrait.image)
    np.testing.assert_array_equal(found.mask, portrait.mask)
    np.testing.assert_allclose(found.albedo, portrait.albedo, atol=1e-5)
    np.testing.assert_allclose(found.normal, portrait.normal, atol=5e-5)
    np.testing.assert_allclose(found.sh, portrait.sh, rtol=1e-6)
    np.testing.assert_allclose(found.direction, portrait.direction, atol=1e-6)
    assert (found.key, found.subject) == ("anna", "anna")
    assert found.light_name == portrait.light_name
    assert found.provenance == replace(
        portrait.provenance, source="root", crop="as given", licence="CC0"
    )


def test_pictures_alone_are_lights_in_the_order_of_their_names(anna, portrait):
    for file in anna.iterdir():
        if "light" not in file.name:
            file.unlink()
    (found,) = read(anna.parent, transfer="linear", licence="mine")
    assert found.light_name == ("light000", "light001", "light002")
    np.testing.assert_array_equal(found.image, portrait.image)
    assert found.albedo is found.normal is found.mask is found.sh is found.direction is None
    assert found.provenance.transfer == "linear" and found.provenance.licence == "mine"
    assert {found.provenance.albedo, found.provenance.light} == {"absent"}


def test_labels_are_pseudo_unless_the_group_says_real(anna):
    edit(anna, labels={"normal": "real"})
    (found,) = read(anna.parent)
    made = found.provenance
    assert (made.albedo, made.normal, made.light) == ("pseudo", "real", "pseudo")


def test_a_subject_may_have_several_groups(anna, make_portrait):
    write_group(anna.parent / "ben" / "smile.1", make_portrait())
    write_group(anna.parent / "ben" / "neutral", make_portrait())
    found = read(anna.parent)
    assert [(p.key, p.subject) for p in found] == [
        ("anna", "anna"),
        ("ben_neutral", "ben"),
        ("ben_smile-1", "ben"),
    ]


def test_files_that_desktops_leave_are_passed_over(anna):
    (anna / ".DS_Store").write_bytes(b"x")
    (anna.parent / ".hidden").write_bytes(b"x")
    (anna / "Thumbs.db").write_bytes(b"x")
    assert len(read(anna.parent)) == 1


def test_gray_and_colour_lights_of_one_group_become_colour(anna, portrait):
    shutil.copy(anna / "mask.png", anna / "light000.png")  # 8-bit gray
    with pytest.raises(ValueError, match=r"light001\.png.*uint16.*one bit depth"):
        read(anna.parent)
    gray = replace(portrait, image=portrait.image[..., :1])
    (anna / "light000.png").write_bytes(encode(gray)["light000.png"])
    (found,) = read(anna.parent)
    assert found.image.shape == portrait.image.shape
    np.testing.assert_array_equal(found.image[0, ..., 2], portrait.image[0, ..., 0])


def test_a_missing_light_is_refused(anna):
    (anna / "light001.png").unlink()
    with pytest.raises(ValueError, match=r"group\.json.*'light001\.png'.*not in the folder"):
        read(anna.parent)


def test_a_picture_that_is_not_listed_is_refused(anna):
    shutil.copy(anna / "light001.png", anna / "light007.png")
    with pytest.raises(ValueError, match=r"lists 3 lights.*'light007\.png'"):
        read(anna.parent)


def test_a_light_listed_twice_is_refused(anna):
    lights = json.loads((anna / "group.json").read_text())["lights"]
    edit(anna, lights=[*lights, lights[0]])
    with pytest.raises(ValueError, match="twice"):
        read(anna.parent)


@pytest.mark.parametrize("name", ["light002.png", "albedo.png", "normal.png", "mask.png"])
def test_another_size_is_refused_by_the_name_of_the_file(anna, make_portrait, name):
    (anna / name).write_bytes(encode(make_portrait(size=16))[name])
    with pytest.raises(ValueError, match=rf"{name}.*16x16.*32x32"):
        read(anna.parent)


def test_a_file_that_is_no_picture_is_refused(anna):
    (anna / "light001.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"light001\.png: is not a picture"):
        read(anna.parent)
    (anna / "readme.txt").write_text("about these pictures")
    with pytest.raises(ValueError, match=r"readme\.txt: is not a picture"):
        read(anna.parent)


def test_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        read(tmp_path)
    (tmp_path / "anna").mkdir()
    with pytest.raises(ValueError, match="anna: has no pictures"):
        read(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read(tmp_path / "none")


def test_pictures_beside_the_subjects_are_refused(anna):
    shutil.copy(anna / "light001.png", anna.parent / "photo.png")
    with pytest.raises(ValueError, match=r"photo\.png.*one folder per subject"):
        read(anna.parent)


def test_a_group_that_is_wrong_does_not_stop_the_others_from_being_found(anna, make_portrait):
    write_group(anna.parent / "ben", make_portrait())
    (anna / "light001.png").unlink()
    wrong, right = folder(anna.parent)
    with pytest.raises(ValueError, match=r"'light001\.png', which is not in the folder"):
        wrong.read()
    assert (wrong.key, wrong.lights) == ("anna", 0)
    assert (right.key, right.lights, right.read().key) == ("ben", 3, "ben")


def test_a_found_group_travels_to_another_process(anna):
    (group,) = folder(anna.parent)
    assert pickle.loads(pickle.dumps(group)).read().key == "anna"


def test_confidence_and_the_subject_of_a_group_are_read(anna, portrait):
    shutil.copy(anna / "mask.png", anna / "confidence.png")
    edit(anna, subject="person 7")
    (found,) = read(anna.parent)
    np.testing.assert_array_equal(found.confidence, portrait.mask)
    assert (found.key, found.subject) == ("anna", "person 7")


def test_normals_of_another_encoding_are_refused(anna):
    shutil.copy(anna / "albedo.png", anna / "normal.png")
    with pytest.raises(ValueError, match=r"normal\.png.*usual length"):
        read(anna.parent)


def test_normals_that_look_away_are_refused(anna, portrait):
    away = replace(portrait, normal=portrait.normal * [1, 1, -1])
    (anna / "normal.png").write_bytes(encode(away)["normal.png"])
    with pytest.raises(ValueError, match=r"normal\.png.*\+z to the camera"):
        read(anna.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licens": "CC0"}, "'licens' is unknown; did you mean 'licence'"),
        ({"transfer": "gamma"}, "'gamma' is not"),
        ({"licence": 4}, "a text is needed"),
        ({"labels": {"albedo": "perfect"}}, "'perfect'"),
        ({"labels": ["albedo"]}, "not a JSON object"),
        ({"lights": {"file": "a.png"}}, "not a list"),
        ({"lights": [{"name": "left"}]}, "'file' is no text"),
        ({"lights": [{"file": "light000.png", "dirction": [0, 0, 1]}]}, "did you mean 'direction'"),
    ],
)
def test_a_group_file_that_is_not_understood_is_refused(anna, changes, message):
    edit(anna, **changes)
    with pytest.raises(ValueError, match=rf"group\.json.*{message}"):
        read(anna.parent)


def test_a_group_file_that_is_not_json_is_refused(anna):
    (anna / "group.json").write_text("{lights:")
    with pytest.raises(ValueError, match=r"group\.json.*JSON"):
        read(anna.parent)


@pytest.mark.parametrize(
    ("index", "light", "message"),
    [
        (0, {"sh": None}, "sh is given for 2 of 3 lights"),
        (1, {"sh": [[1] * 9] * 2}, "sh is not 3 x 9 numbers"),
        (1, {"direction": [0, 1]}, "direction is not 3 numbers"),
        (1, {"direction": "left"}, "direction is not 3 numbers"),
        (1, {"direction": [0, 0, float("nan")]}, "direction is not 3 numbers"),
        (1, {"direction": [0, 0, 0]}, "length zero"),
    ],
)
def test_an_impossible_light_is_refused(anna, index, light, message):
    lights = json.loads((anna / "group.json").read_text())["lights"]
    lights[index] |= light
    edit(anna, lights=lights)
    with pytest.raises(ValueError, match=message):
        read(anna.parent)
