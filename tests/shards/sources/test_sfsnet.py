import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from relightx.codec import encode_png
from relightx.picture import read_picture
from relightx.sample import Portrait, check
from relightx.sh import rotate, shade, to_sfsnet
from shards.sources.sfsnet import AXES, sfsnet, twist

LIGHTS = 3
SIZE = 48


def write_view(
    directory: Path,
    portrait: Portrait,
    *,
    identity: str = "000041",
    view: int = 1,
    normals: int = 0,
    lights: int = 0,
    decimals: int = 6,
) -> None:
    """A portrait in the set's names and encodings: 8-bit PNG and tab-separated numbers.

    normals, lights: which of AXES the files' vectors, and the frame of their light, are meant in.
    """
    directory.mkdir(parents=True, exist_ok=True)
    to_ours, to_light = (np.array(AXES[way], np.float64) for way in (normals, lights))
    turn = torch.from_numpy(to_light @ to_ours.T)
    numbers = to_sfsnet(rotate(torch.from_numpy(portrait.sh), turn)).numpy()
    normal = np.where(portrait.mask[..., None], portrait.normal @ to_ours, -1)
    mask = portrait.mask[..., None]
    for number, image in enumerate(portrait.linear_image(), 1):
        pictures = {
            "face": to_8_bits(image),
            "albedo": to_8_bits(np.where(mask, portrait.albedo, 0)),
            "normal": to_8_bits((normal + 1) / 2),
            "mask": mask.astype(np.uint8) * 255,
            "depth": mask.astype(np.uint8) * 100,
        }
        for part, pixels in pictures.items():
            file = directory / f"{identity}_{part}_{view}_{number}.png"
            file.write_bytes(encode_png(pixels))
        text = "\t".join(f"{value:.{decimals}f}" for value in numbers[number - 1].ravel())
        (directory / f"{identity}_light_{view}_{number}.txt").write_text(text + "\n")


def to_8_bits(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def repaint(file: Path, pixels: np.ndarray) -> None:
    file.write_bytes(encode_png(pixels))


def explained(portrait: Portrait) -> np.ndarray:
    """albedo * shading by the portrait's own labels."""
    normal = torch.from_numpy(portrait.normal).permute(2, 0, 1)
    shading = shade(normal.double(), torch.from_numpy(portrait.sh).double())
    return portrait.albedo * shading.permute(0, 2, 3, 1).numpy()


def degrees(one: Portrait, two: Portrait) -> float:
    """Largest angle between the normals of two portraits on the second's mask."""
    cosine = (one.normal * two.normal).sum(axis=-1)[two.mask & one.mask]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).max())


@pytest.fixture
def truth(make_portrait: Callable[..., Portrait]) -> Portrait:
    return make_portrait(lights=LIGHTS, size=SIZE, seed=3)


@pytest.fixture
def view(tmp_path: Path, truth: Portrait) -> Path:
    """ROOT/0003 with one view of identity 000041; ROOT is its parent."""
    write_view(tmp_path / "root" / "0003", truth)
    return tmp_path / "root" / "0003"


def only(root: Path) -> Portrait | list[Portrait]:
    (group,) = sfsnet(root)
    return group.read()


def test_pictures_that_share_albedo_and_normals_are_one_portrait(view, truth):
    (group,) = sfsnet(view.parent)
    found = group.read()
    check(found)
    assert (group.key, group.subject, group.lights) == ("000041_1", "000041", LIGHTS)
    assert (found.key, found.subject) == ("000041_1", "000041")
    assert found.light_name == ("000041_1_1", "000041_1_2", "000041_1_3")
    np.testing.assert_array_equal(found.image, to_8_bits(truth.linear_image()))
    np.testing.assert_allclose(found.sh, truth.sh, atol=1e-4)
    assert degrees(found, truth) < 1
    assert {found.provenance.albedo, found.provenance.light} == {"real"}
    assert found.provenance.transfer == "linear"


def test_the_labels_explain_the_image(view):
    found = only(view.parent)
    off = np.abs(found.linear_image() - explained(found))[:, found.mask]
    assert off.mean() < 0.005


@pytest.mark.parametrize("normals", range(8))
@pytest.mark.parametrize("lights", range(8))
def test_any_frame_of_normals_and_light_is_found(tmp_path, truth, normals, lights):
    write_view(tmp_path / "0001", truth, normals=normals, lights=lights)
    found = only(tmp_path)
    assert degrees(found, truth) < 1
    np.testing.assert_allclose(found.sh, truth.sh, atol=1e-3)


def test_the_provenance_tells_a_frame_that_is_not_ours(tmp_path, view, truth):
    write_view(tmp_path / "down" / "0001", truth, normals=1)
    assert "turned" not in only(view.parent).provenance.crop
    assert "normals turned by [[1, 0, 0], [0, -1, 0], [0, 0, 1]]" in (
        only(tmp_path / "down").provenance.crop
    )


def test_slopes_of_a_surface_have_no_twist_and_others_have(truth):
    mirrored = truth.normal * np.array((1, -1, 1), np.float32)
    assert twist(truth.normal, truth.mask) < 0.2
    assert twist(mirrored, truth.mask) > 0.8


@pytest.mark.parametrize("part", ["albedo", "normal", "mask", "depth"])
def test_pictures_that_differ_in_more_than_light_are_portraits_of_their_own(view, truth, part):
    held = to_8_bits(truth.albedo if part == "albedo" else (truth.normal + 1) / 2)
    changed = held if part in ("albedo", "normal") else held[..., :1]
    changed[20:26, 20:26] = np.clip(changed[20:26, 20:26].astype(int) + 4, 0, 255)
    if part == "mask":
        changed = truth.mask[..., None].astype(np.uint8) * 255
        changed[:, : SIZE // 2] = 0
    repaint(view / f"000041_{part}_1_2.png", changed)
    found = only(view.parent)
    assert [portrait.key for portrait in found] == ["000041_1_1", "000041_1_2", "000041_1_3"]
    assert {portrait.subject for portrait in found} == {"000041"}
    assert {portrait.num_lights for portrait in found} == {1}
    for portrait in found:
        check(portrait)
        assert f"single-lit, because {part} of 000041_1_2 differs" in portrait.provenance.crop


def test_a_difference_of_two_levels_is_rounding(view):
    file = view / "000041_albedo_1_2.png"
    repaint(file, read_picture(file) + np.uint8(2))
    assert only(view.parent).num_lights == LIGHTS


def test_pictures_of_two_sizes_are_portraits_of_their_own(tmp_path, view, make_portrait):
    write_view(tmp_path / "smaller", make_portrait(lights=LIGHTS, size=32, seed=3))
    for file in (tmp_path / "smaller").glob("*_1_3.*"):
        file.replace(view / file.name)
    found = only(view.parent)
    assert [portrait.image.shape[1] for portrait in found] == [SIZE, SIZE, 32]
    assert "32x32" in found[0].provenance.crop


def test_mask_and_depth_are_optional(view, truth):
    for file in [*view.glob("*_mask_*"), *view.glob("*_depth_1_2.png")]:
        file.unlink()
    found = only(view.parent)
    assert found.num_lights == LIGHTS
    assert (found.mask == truth.mask).mean() > 0.98  # where normals are of unit length


@pytest.mark.parametrize("part", ["face", "albedo", "normal", "light"])
def test_a_picture_without_one_of_its_files_is_left_out_and_told(view, part):
    (file,) = view.glob(f"*_{part}_1_2.*")
    file.unlink()
    (group,) = sfsnet(view.parent)
    found = group.read()
    assert group.lights == found.num_lights == 2
    assert f"left out: 1_2 without {part}" in found.provenance.crop


def test_a_view_without_a_whole_picture_is_a_faulty_group(view):
    for file in view.glob("*_light_*"):
        file.unlink()
    (group,) = sfsnet(view.parent)
    with pytest.raises(ValueError, match=r"000041_\*_1_\*: no picture has all.*1_1 without light"):
        group.read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds 0 numbers, 27 needed; it may be cut short"),
        ("0.5\t" * 26, "holds 26 numbers"),
        ("0.5\t" * 26 + "nan", "'nan' is not a finite number"),
        ("0.5\t" * 26 + "1e99", "'1e99' is not a finite number"),
        ("0.5\t" * 26 + "0.5x", "'0.5x' is not a number"),
        ("0.5 " * 30_000, "is longer than 65536 bytes"),
    ],
)
def test_a_broken_light_refuses_the_group(view, content, message):
    file = view / "000041_light_1_2.txt"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"{file.name}: {message}"):
        only(view.parent)


@pytest.mark.parametrize("part", ["face", "albedo", "normal", "mask", "depth"])
def test_a_picture_cut_short_refuses_the_group(view, part):
    file = view / f"000041_{part}_1_2.png"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=file.name):
        only(view.parent)


def test_parts_of_another_size_or_without_colour_refuse_the_group(view):
    repaint(view / "000041_albedo_1_2.png", np.full((8, 8, 3), 9, np.uint8))
    with pytest.raises(ValueError, match=r"albedo_1_2.png: is 8x8 8-bit colour, its face 48x48"):
        only(view.parent)
    repaint(view / "000041_albedo_1_2.png", np.full((SIZE, SIZE, 1), 9, np.uint8))
    with pytest.raises(ValueError, match=r"albedo_1_2.png: is 48x48 8-bit gray; RGB needed"):
        only(view.parent)


def test_images_that_labels_do_not_explain_refuse_the_group(view, truth):
    for number, image in enumerate(truth.linear_image(), 1):
        repaint(view / f"000041_face_1_{number}.png", to_8_bits(image ** (1 / 2.2)))
    with pytest.raises(
        ValueError, match=r"no frame of light and normals explains .* 0\.\d+ \(of 1"
    ):
        only(view.parent)


def test_a_difference_from_the_labels_is_noted(view, truth):
    for number, image in enumerate(truth.linear_image(), 1):
        repaint(view / f"000041_face_1_{number}.png", to_8_bits(image * 0.95))
    assert "image - albedo * shading is 0.0" in only(view.parent).provenance.crop


def test_normals_of_no_surface_refuse_the_group(view, truth):
    generator = np.random.default_rng(0)
    noise = generator.normal(size=truth.normal.shape)
    noise[..., 2] = np.abs(noise[..., 2])
    noise /= np.linalg.norm(noise, axis=-1, keepdims=True)
    for number in range(1, LIGHTS + 1):
        repaint(view / f"000041_normal_1_{number}.png", to_8_bits((noise + 1) / 2))
    with pytest.raises(ValueError, match="normals are those of no surface"):
        only(view.parent)


def test_normals_that_face_away_and_an_empty_mask_refuse_the_group(view, truth):
    for number in range(1, LIGHTS + 1):
        repaint(view / f"000041_normal_1_{number}.png", to_8_bits((1 - truth.normal) / 2))
    with pytest.raises(ValueError, match="face away from the camera"):
        only(view.parent)
    for number in range(1, LIGHTS + 1):
        repaint(view / f"000041_mask_1_{number}.png", np.zeros((SIZE, SIZE, 1), np.uint8))
    with pytest.raises(ValueError, match="leave 0 pixels; 100 needed"):
        only(view.parent)


def test_black_faces_refuse_the_group(view):
    for number in range(1, LIGHTS + 1):
        repaint(view / f"000041_face_1_{number}.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match="black or saturated throughout"):
        only(view.parent)


def test_groups_come_by_folder_identity_and_view_as_numbers(tmp_path, truth):
    for folder, identity, view in (
        ("0002", "000022", 1),
        ("0001", "000003", 10),
        ("0001", "000003", 2),
        ("0001", "000020", 1),
    ):
        write_view(tmp_path / folder, truth, identity=identity, view=view)
    found = [group.key for group in sfsnet(tmp_path)]
    assert found == ["000003_2", "000003_10", "000020_1", "000022_1"]
    assert [group.key for group in sfsnet(tmp_path)] == found
    assert [group.key for group in sfsnet(tmp_path / "0002")] == ["000022_1"]


def test_other_files_are_passed_over(view):
    (view / ".DS_Store").write_bytes(b"\0" * 64)
    (view.parent / "train.csv").write_text(",albedo,normal\n0,0003/000041_albedo_1_1.png,\n")
    (view / "000041_face_1_1.txt").write_text("")
    (view / "000041_light_1_1.png").write_bytes(b"")
    (view.parent / "celeba").mkdir()
    assert only(view.parent).num_lights == LIGHTS


def test_a_group_travels_to_another_process(view):
    (group,) = sfsnet(view.parent)
    assert len(pickle.dumps(group)) < 1000
    assert pickle.loads(pickle.dumps(group)).read().key == "000041_1"


def test_a_wrong_root_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist; a folder with 0001"):
        list(sfsnet(tmp_path / "absent"))
    (tmp_path / "0001").mkdir()
    with pytest.raises(ValueError, match="no files of the SfSNet set"):
        list(sfsnet(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a folder"):
        list(sfsnet(tmp_path / "file"))
