import json
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relightx.codec import encode_jpeg, encode_png
from relightx.sample import Portrait, check, encode
from shards.group import Group
from shards.sources.celeba import celeba

ALIGNED = "Img/img_align_celeba"


def photograph(seed: int = 0, size: tuple[int, int] = (22, 18)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write(file: Path, pixels: np.ndarray | None = None) -> Path:
    """A picture, or an array, as the set has it."""
    pixels = photograph() if pixels is None else pixels
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, pixels.transpose(2, 0, 1)[None])
    else:
        encoded = encode_jpeg(pixels, 95) if file.suffix == ".jpg" else encode_png(pixels)
        file.write_bytes(encoded)
    return file


def write_all(directory: Path, names: Iterable[str]) -> None:
    for name in names:
        write(directory / name)


def keys(groups: Iterable[Group]) -> list[str]:
    return [group.key for group in groups]


def fault(group: Group) -> str:
    """What is reported when a group is read."""
    with pytest.raises(ValueError) as caught:
        group.read()
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CelebA as released: three pictures, two of one person."""
    write_all(tmp_path / ALIGNED, ["000001.jpg", "000002.jpg", "000010.jpg"])
    for place, content in {
        "Anno/identity_CelebA.txt": "000001.jpg 2880\n000002.jpg 2937\n000010.jpg 2880\n",
        "Anno/list_attr_celeba.txt": "3\nBald\n000001.jpg -1\n",
        "Eval/list_eval_partition.txt": "000001.jpg 0\n000002.jpg 1\n000010.jpg 0\n",
    }.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(content)
    return tmp_path


def test_each_photograph_is_a_portrait_under_one_light(root):
    groups = list(celeba(root))
    assert keys(groups) == ["celeba_000001", "celeba_000002", "celeba_000010"]
    assert [group.subject for group in groups] == [
        *("celeba-person2880", "celeba-person2937", "celeba-person2880")
    ]
    assert {group.lights for group in groups} == {1}
    for group in groups:
        found = group.read()
        check(found)
        assert (found.key, found.subject) == (group.key, group.subject)
        assert found.image.shape == (1, 22, 18, 3)
        assert found.provenance.transfer == "srgb"
        assert {found.provenance.albedo, found.provenance.light} == {"absent"}
        assert found.albedo is found.normal is found.mask is found.sh is None


def test_the_official_part_is_in_the_provenance(root):
    parts = [group.read().provenance.source for group in celeba(root)]
    assert parts == [
        "CelebA (img_align_celeba, official train)",
        "CelebA (img_align_celeba, official val)",
        "CelebA (img_align_celeba, official train)",
    ]
    (root / "Eval/list_eval_partition.txt").unlink()
    assert next(celeba(root)).read().provenance.source == "CelebA (img_align_celeba)"


def test_pixels_are_those_of_the_file(tmp_path):
    pixels = photograph(3)
    write(tmp_path / "000007.png", pixels)
    (group,) = celeba(tmp_path)
    np.testing.assert_array_equal(group.read().image[0], pixels)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("000001.jpg", "celeba_000001"),
        ("img_align_celeba/000001.jpg", "celeba_000001"),
        ("img_align_celeba/img_align_celeba/000001.jpg", "celeba_000001"),
        ("Img/img_align_celeba_png/000001.png", "celeba_000001"),
        ("Img/img_celeba/000001.jpg", "celeba_000001"),
        ("CelebA-HQ-img/0.jpg", "celebahq_00000"),
        ("CelebAMask-HQ/CelebA-HQ-img/29999.jpg", "celebahq_29999"),
        ("imgHQ00012.png", "celebahq_00012"),
        ("imgHQ00012.npy", "celebahq_00012"),
        ("00012.jpg", "celebahq_00012"),
    ],
)
def test_the_layouts_that_people_have_are_found(tmp_path, place, key):
    write(tmp_path / place)
    (group,) = celeba(tmp_path)
    found = group.read()
    assert group.key == found.key == key
    assert found.image.shape == (1, 22, 18, 3)
    assert found.provenance.source.startswith("CelebA-HQ" if "hq" in key else "CelebA (")


def test_several_sets_in_one_root_are_refused_by_name(root):
    write(root / "Img/img_celeba/000001.jpg")
    with pytest.raises(ValueError, match=r"several sets .*img_align_celeba, Img/img_celeba"):
        next(celeba(root))
    assert len(list(celeba(root / ALIGNED))) == 3


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    write_all(tmp_path / "CelebA-HQ-img", ["10.jpg", "9.jpg", "100.jpg", "0.jpg"])
    found = keys(celeba(tmp_path))
    assert found == ["celebahq_00000", "celebahq_00009", "celebahq_00010", "celebahq_00100"]
    assert keys(celeba(tmp_path)) == found


def test_people_of_hq_come_through_its_mapping(tmp_path):
    write_all(tmp_path / "CelebA-HQ-img", ["0.jpg", "1.jpg", "2.jpg"])
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx orig_idx orig_file\n0 119613 119614.jpg\n1 99094 099095.jpg\n"
    )
    identities, partition = tmp_path / "who.txt", tmp_path / "part.txt"
    identities.write_text("119614.jpg 5\n")
    partition.write_text("119614.jpg 2\n099095.jpg 0\n")
    groups = list(celeba(tmp_path, identities=identities, partition=partition))
    assert [group.subject for group in groups] == [
        *("celeba-person5", "celeba-picture099095", "celebahq-picture00002")
    ]
    sources = [group.read().provenance.source for group in groups]
    assert sources[0] == "CelebA-HQ (CelebA-HQ-img, official test)"
    assert sources[2] == "CelebA-HQ (CelebA-HQ-img)"


def test_nobody_is_looked_up_by_the_number_of_a_resized_copy(tmp_path):
    write_all(tmp_path, ["00000.jpg", "10000.jpg"])
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("0 119613 119614.jpg\n")
    subjects = [group.subject for group in celeba(tmp_path)]
    assert subjects == ["celebahq-copy00000", "celebahq-copy10000"]


def test_a_picture_that_nobody_knows_is_a_subject_of_its_own(root):
    (root / "Anno/identity_CelebA.txt").write_text("000001.jpg 2880\n")
    subjects = [group.subject for group in celeba(root)]
    assert subjects == ["celeba-person2880", "celeba-picture000002", "celeba-picture000010"]


def test_other_files_are_passed_over_and_other_pictures_reported(root):
    directory = root / ALIGNED
    (directory / ".DS_Store").write_bytes(b"\0")
    (directory / "._000001.txt").write_bytes(b"\0")
    write(directory / "000001 (copy).jpg")
    stranger, *groups = celeba(root)
    assert len(groups) == 3
    assert "000001 (copy).jpg: a picture that is not named like those" in fault(stranger)


def test_a_picture_that_is_there_twice_is_read_once_and_reported(tmp_path):
    write_all(tmp_path, ["000001.jpg", "000001.png", "000002.jpg"])
    first, second, third = celeba(tmp_path)
    assert (first.key, third.key) == ("celeba_000001", "celeba_000002")
    assert "000001.png: the same picture is there as 000001.jpg" in fault(second)


@pytest.mark.parametrize("kept", [0, 60])
def test_a_broken_picture_is_reported_by_its_file_and_no_other(root, kept):
    file = root / ALIGNED / "000002.jpg"
    file.write_bytes(file.read_bytes()[:kept])
    first, broken, last = celeba(root)
    assert "000002.jpg: " in fault(broken)
    assert first.read().key, last.read().key


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3, 4, 4), np.float32), r"is float32 \(1, 3, 4, 4\); uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"is uint8 \(4, 4, 3\)"),
        (np.zeros((1, 3, 0, 4), np.uint8), "is 4x0"),
        (np.array([{"a": 1}], object), "cannot be read as an array"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(tmp_path, array, message):
    np.save(tmp_path / "imgHQ00000.npy", array, allow_pickle=True)
    (group,) = celeba(tmp_path)
    with pytest.raises(ValueError, match=rf"imgHQ00000.npy: {message}"):
        group.read()


def test_an_array_that_claims_to_be_huge_takes_no_memory(tmp_path):
    file = tmp_path / "imgHQ00000.npy"
    with open(file, "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": (1, 3, 100_000, 100_000)}
        )
        stream.truncate(30_000_000_200)  # a sparse file
    (group,) = celeba(tmp_path)
    assert "is 100000x100000; 1 to 8192 pixels" in fault(group)


# --- Pseudo-labels


@pytest.fixture
def labels(root: Path, make_portrait: Callable[..., Portrait]) -> Path:
    """Finished pseudo-labels of the second picture alone."""
    directory = root / "labels"
    directory.mkdir()
    truth = replace(make_portrait(lights=1, size=24), key="celeba_000002")
    write(root / ALIGNED / "000002.jpg", photograph(size=(24, 24)))
    for ending, data in encode(truth).items():
        if not ending.startswith(("light", "meta")):
            (directory / f"celeba_000002.{ending}").write_bytes(data)
    light = {"sh": truth.sh[0].tolist(), "confidence": 0.5}
    (directory / "celeba_000002.light.json").write_text(json.dumps(light))
    summary = {"version": 1, "model": "net", "portraits": 1}
    (directory / "pseudolabels.json").write_text(json.dumps(summary))
    return directory


def test_pseudolabels_are_attached_and_called_so(root, labels):
    bare, labelled, other = (group.read() for group in celeba(root, pseudolabels=labels))
    check(labelled)
    assert bare.sh is other.sh is None
    assert labelled.sh.shape == (1, 3, 9) and labelled.normal.shape == (24, 24, 3)
    assert (labelled.confidence == 0.5).all()
    given = labelled.provenance
    assert (given.albedo, given.normal, given.light) == ("pseudo",) * 3
    assert bare.provenance.albedo == "absent"


def test_pictures_without_pseudolabels_can_be_passed_over(root, labels):
    assert keys(celeba(root, pseudolabels=labels, unlabelled="skip")) == ["celeba_000002"]


def test_a_fault_of_one_portraits_labels_is_reported_and_no_other(root, labels):
    (labels / "celeba_000002.normal.png").unlink()
    first, broken, last = celeba(root, pseudolabels=labels)
    assert "celeba_000002.normal.png: is missing" in fault(broken)
    assert first.read().key, last.read().key


def test_unfinished_pseudolabels_are_refused_whole(root, labels):
    (labels / "pseudolabels.json").unlink()
    with pytest.raises(ValueError, match="interrupted"):
        next(celeba(root, pseudolabels=labels))


def test_pseudolabels_of_another_set_are_refused_whole(tmp_path, labels):
    write(tmp_path / "hq/imgHQ00000.png")
    with pytest.raises(ValueError, match="none of the portraits"):
        next(celeba(tmp_path / "hq", pseudolabels=labels))


# --- Size and faults of the whole set


def test_finding_looks_at_no_picture(root):
    for file in (root / ALIGNED).iterdir():
        file.unlink()
        file.symlink_to("nowhere")  # whoever looks at it fails
    assert len(list(celeba(root))) == 3


def test_a_group_travels_to_another_process(root, labels):
    for group in celeba(root, pseudolabels=labels):
        assert len(pickle.dumps(group)) < 1500
        assert pickle.loads(pickle.dumps(group)).read().key == group.key


def test_a_wrong_root_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        next(celeba(tmp_path / "absent"))
    with pytest.raises(ValueError, match="no pictures of CelebA or CelebA-HQ"):
        next(celeba(tmp_path))


def test_a_broken_table_is_refused_before_any_group(root):
    (root / "Anno/identity_CelebA.txt").write_text("000001.jpg somebody\n")
    with pytest.raises(ValueError, match=r"identity_CelebA.txt, line 1: 'somebody'"):
        next(celeba(root))
