import json
import re

import numpy as np
import pytest
from lit_scene import angle_deg, face, four_lamps, lamps

from relightx.codec import encode_jpeg, encode_png
from relightx.color import linear_to_srgb
from relightx.sample import check
from shards.labelling.stereo_folder import stereo_folder
from shards.sources.folder import folder

SCENE = face()
DIRECTION = lamps(12)


def write_photographs(directory, direction, about=None, transfer="srgb"):
    """A group of the source `folder` that shows the scene, its lights listed."""
    directory.mkdir(parents=True)
    lights = []
    for index, picture in enumerate(SCENE.lambert(direction)):
        encoded = linear_to_srgb(picture) if transfer == "srgb" else picture
        name = f"flash {index:02d}.png"
        pixels = np.rint(np.clip(encoded, 0, 1) * 65535).astype(np.uint16)
        (directory / name).write_bytes(encode_png(pixels))
        lights.append({"file": name, "direction": (3 * direction[index]).tolist()})
    group = {"lights": lights, "transfer": transfer, "licence": "mine"} | (about or {})
    (directory / "group.json").write_text(json.dumps(group))
    mask = SCENE.mask.astype(np.uint8)[..., None] * 255
    (directory / "mask.png").write_bytes(encode_png(mask))
    return directory


def read(directory):
    """The portrait of the only group in a folder beside no other."""
    (group,) = [group for group in folder(directory.parent) if group.key == directory.name]
    return group.read()


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
def test_the_folder_comes_back_with_labels_that_its_source_reads(tmp_path, transfer):
    given = write_photographs(tmp_path / "in" / "anna", DIRECTION, transfer=transfer)
    out = stereo_folder(given, tmp_path / "out" / "anna")
    assert out == tmp_path / "out" / "anna"
    before, portrait = read(given), read(out)
    check(portrait)
    np.testing.assert_array_equal(portrait.image, before.image)
    np.testing.assert_array_equal(portrait.mask, before.mask)
    assert np.median(angle_deg(portrait.normal, SCENE.normal)[SCENE.mask]) < 0.2
    scale = np.median((portrait.albedo / SCENE.albedo)[SCENE.mask])
    np.testing.assert_allclose(
        portrait.albedo[SCENE.mask], scale * SCENE.albedo[SCENE.mask], atol=0.01
    )
    assert np.median(portrait.confidence[SCENE.mask]) > 0.95
    assert angle_deg(portrait.direction, DIRECTION).max() < 0.1
    made = portrait.provenance
    assert (made.albedo, made.normal, made.light) == ("pseudo", "pseudo", "pseudo")
    assert made.crop.endswith("from 12 lights (directions given)")
    assert (made.licence, made.transfer) == ("mine", transfer)


def test_photographs_keep_their_bytes(tmp_path):
    given = write_photographs(tmp_path / "in" / "anna", DIRECTION)
    out = stereo_folder(given, tmp_path / "out")
    for file in given.glob("flash*"):
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in out.iterdir()} - {file.name for file in given.iterdir()} == {
        "albedo.png",
        "normal.png",
        "confidence.png",
    }


def test_lights_can_be_estimated_from_jpegs_without_any_group_file(tmp_path):
    given = tmp_path / "in" / "anna"
    given.mkdir(parents=True)
    for index, picture in enumerate(SCENE.photograph(DIRECTION)):
        pixels = np.rint(linear_to_srgb(picture) * 255).astype(np.uint8)
        (given / f"{index:02d}.jpg").write_bytes(encode_jpeg(pixels, 95))
    portrait = read(stereo_folder(given, tmp_path / "out" / "anna", "estimated"))
    assert np.median(angle_deg(portrait.direction, DIRECTION)) < 5
    assert "up to the bas-relief ambiguity" in portrait.provenance.crop


def test_labels_that_are_there_are_kept_and_stay_real(tmp_path):
    about = {"labels": {"normal": "real"}, "subject": "Anna K", "crop": "by hand"}
    given = write_photographs(tmp_path / "in" / "anna", DIRECTION, about)
    normal = np.rint((SCENE.normal + 1) / 2 * 65535).astype(np.uint16)
    (given / "normal.png").write_bytes(encode_png(normal))
    portrait = read(stereo_folder(given, tmp_path / "out" / "anna"))
    np.testing.assert_allclose(portrait.normal, read(given).normal)
    assert (portrait.provenance.normal, portrait.provenance.albedo) == ("real", "pseudo")
    assert portrait.subject == "Anna K"
    assert portrait.provenance.crop.startswith("by hand. Albedo and light by photometric stereo")
    with pytest.raises(ValueError, match="there is nothing to add"):
        stereo_folder(tmp_path / "out" / "anna", tmp_path / "again")


def test_a_folder_that_cannot_be_solved_leaves_nothing(tmp_path):
    given = write_photographs(tmp_path / "in" / "anna", four_lamps()[:2])
    out = tmp_path / "out" / "anna"
    with pytest.raises(ValueError, match=f"{re.escape(str(given))}: .*2 lights; 3 needed"):
        stereo_folder(given, out)
    (given / "flash 00.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(ValueError, match=r"flash 00\.png"):
        stereo_folder(given, out)
    assert not (tmp_path / "out").exists()


def test_a_destination_that_holds_something_is_not_touched(tmp_path):
    given = write_photographs(tmp_path / "in" / "anna", DIRECTION)
    before = sorted(file.read_bytes() for file in given.iterdir())
    with pytest.raises(ValueError, match="already exists and is not empty"):
        stereo_folder(given, given)
    assert sorted(file.read_bytes() for file in given.iterdir()) == before
    for wrong, fault in ((given / "mask.png", "is not a folder"), (given / "no", "does not exist")):
        with pytest.raises(ValueError, match=f"{fault}; a folder with the photographs"):
            stereo_folder(wrong, tmp_path / "out")
