import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch

from relightx.codec import encode_png
from relightx.picture import read_picture
from relightx.sample import check
from relightx.sh import ambient_light, directional_light, from_dpr, shade, to_dpr
from shards.group import Group
from shards.sources.dpr import dpr, in_linear_light, lightness

SIZE = 48
# Of the authors' sample imgHQ00000: light_00 and the light of the photograph.
PUBLISHED = torch.tensor(
    [
        [
            0.729373,
            0.237406,
            0.110394,
            -0.115524,
            -0.128753,
            0.061882,
            -0.105890,
            0.029715,
            -0.019675,
        ],
        [
            0.770186,
            -0.299219,
            -0.243112,
            0.270104,
            0.244485,
            -0.558437,
            0.003505,
            -0.045865,
            -0.553490,
        ],
    ],
    dtype=torch.float64,
)


class Relit(NamedTuple):
    """What one face was made of: L of the surface, normals, the lights."""

    albedo: np.ndarray
    normal: np.ndarray
    sh: torch.Tensor


def lights(count: int) -> torch.Tensor:
    """Gray lights that shade no normal below 0."""
    toward = torch.randn(count, 3, generator=torch.Generator().manual_seed(1)).double()
    toward[:, 2] = toward[:, 2].abs() + 0.5
    return 0.5 * directional_light(toward) + ambient_light(0.35).double()


def shading_of(normal: np.ndarray, sh: torch.Tensor) -> np.ndarray:
    planes = torch.from_numpy(normal).permute(2, 0, 1).double()
    return shade(planes, sh[:, None].expand(-1, 3, -1))[:, 0].numpy()


def relight(
    directory: Path, normal: np.ndarray, count: int = 5, *, with_normal: bool = True
) -> Relit:
    """A face as the authors' code makes it: L times new shading over old, a and b kept."""
    directory.mkdir(parents=True)
    name, generator = directory.name, np.random.default_rng(2)
    sh = lights(count)
    shading = shading_of(normal, sh)
    coarse = generator.uniform(0.5, 0.7, (4, 4)).astype(np.float32)
    albedo = cv2.resize(coarse, normal.shape[1::-1])
    for index in range(count):
        lab = np.full((*normal.shape[:2], 3), 128, np.uint8)
        lab[..., 1:] = (134, 138)
        lab[..., 0] = (255 * np.clip(albedo * shading[index], 1e-6, 1 - 1e-6)).astype(np.uint8)
        bgr = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
        assert cv2.imwrite(str(directory / f"{name}_{index:02d}.png"), bgr)
        np.savetxt(directory / f"{name}_light_{index:02d}.txt", to_dpr(sh[index]).numpy()[:, None])
        cv2.imwrite(str(directory / f"shading_{name}_{index:02d}.png"), bgr[..., 0])
    np.savetxt(directory / "ori_sh.txt", np.ones(9))
    (directory / f"{name}_log.txt").write_text("name face_64553 scale 0.677820 angle 2.237847\n")
    if with_normal:
        theirs = normal * (1, -1, -1)  # x right, y down, z into the scene, as B, G, R
        stored = ((theirs + 1) / 2 * 255).astype(np.uint8)
        assert cv2.imwrite(str(directory / "full_normal.png"), stored)
    return Relit(albedo, normal, sh)


def keys(groups: Iterable[Group]) -> list[str]:
    return [group.key for group in groups]


@pytest.fixture
def normal(make_portrait: Callable) -> np.ndarray:
    return make_portrait(size=SIZE).normal


@pytest.fixture
def face(tmp_path: Path, normal: np.ndarray) -> Path:
    """ROOT/imgHQ00000 with pictures, lights and normals; ROOT is its parent."""
    relight(tmp_path / "root" / "imgHQ00000", normal)
    return tmp_path / "root" / "imgHQ00000"


def test_a_face_is_one_portrait_under_five_lights(face):
    (group,) = dpr(face.parent)
    found = group.read()
    check(found)
    assert (group.key, group.lights) == ("dpr_imgHQ00000", 5)
    assert group.subject == found.subject == "celebahq-picture00000"
    assert found.light_name == ("00", "01", "02", "03", "04")
    np.testing.assert_array_equal(found.image[1], read_picture(face / "imgHQ00000_01.png"))
    given = found.provenance
    assert (given.transfer, given.light, given.normal) == ("srgb", "pseudo", "pseudo")
    assert given.albedo == "absent" and found.mask is None


def test_in_luminance_the_published_lights_are_exact(tmp_path, normal):
    truth = relight(tmp_path / "imgHQ00000", normal)
    (group,) = dpr(tmp_path, store="luminance")
    found = group.read()
    check(found)
    assert found.image.shape == (5, SIZE, SIZE, 1)
    assert (found.provenance.transfer, found.provenance.light) == ("linear", "real")
    np.testing.assert_allclose(found.sh[:, 0], truth.sh.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.sh[:, 0], found.sh[:, 2])
    shading = shading_of(found.normal, torch.from_numpy(found.sh[:, 0]).double())
    off = found.linear_image()[..., 0] - np.clip(truth.albedo * shading, 0, 1)
    assert np.abs(off).mean() < 0.01


def test_in_colour_the_light_explains_linear_light_and_the_published_one_does_not(face, normal):
    (group,) = dpr(face.parent)
    found = group.read()
    linear = found.linear_image().mean(axis=-1)
    published = torch.from_numpy(np.stack([np.loadtxt(f) for f in sorted(face.glob("*_light_*"))]))

    def unexplained(sh: torch.Tensor) -> float:
        """Relative spread, over the lights, of linear light / shading."""
        albedo = linear / shading_of(normal, sh)
        return float(np.median(albedo.std(axis=0) / albedo.mean(axis=0)))

    assert unexplained(torch.from_numpy(found.sh[:, 0]).double()) < 0.05
    assert unexplained(from_dpr(published)) > 0.2


@pytest.mark.parametrize("level", [0.4, 0.65, 0.8])
def test_lights_of_the_set_are_brought_to_linear_light_within_5_percent(level, normal):
    sh = from_dpr(PUBLISHED)
    dark_to_light = level * shading_of(normal, sh)
    wanted = ((dark_to_light * 100 + 16) / 116) ** 3  # CIE 1976
    shaded = shading_of(normal, in_linear_light(sh, 0.65))
    fitted = shaded * ((wanted * shaded).sum((1, 2)) / (shaded**2).sum((1, 2)))[:, None, None]
    assert (np.abs(fitted - wanted).mean((1, 2)) / wanted.mean((1, 2)) < 0.05).all()


def test_a_light_that_shades_all_to_one_stays_as_it_is():
    white = ambient_light(1.0).double()[None]
    torch.testing.assert_close(in_linear_light(white, 0.65), white, atol=1e-6, rtol=0)


def test_lightness_is_what_the_set_was_made_with():
    gray = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    level = lightness(gray)
    assert level.min() == 0 and level.max() == 255
    assert (np.diff(level.ravel().astype(int)) >= 0).all()


def test_normals_come_in_our_frame(face, normal):
    (group,) = dpr(face.parent)
    cosine = (group.read().normal * normal).sum(axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1.5


@pytest.mark.parametrize("sign", [(1, -1, 1), (-1, 1, 1), (1, 1, -1)])
def test_normals_that_do_not_explain_the_lights_are_refused(face, normal, sign):
    stored = np.rint((normal[..., ::-1] * (-1, -1, 1) * sign + 1) / 2 * 255).astype(np.uint8)
    (face / "full_normal.png").write_bytes(encode_png(stored))
    (group,) = dpr(face.parent)
    with pytest.raises(
        ValueError, match=r"full_normal.png: L / shading differs by \d+%.*--no-norm"
    ):
        group.read()
    (group,) = dpr(face.parent, normals=False)
    assert group.read().normal is None


def test_normals_are_optional_and_have_two_names(tmp_path, face, normal):
    (face / "full_normal.png").rename(face / "full_normal_faceRegion_faceBoundary_extend.png")
    assert next(dpr(face.parent)).read().normal is not None
    relight(tmp_path / "bare" / "imgHQ00001", normal, with_normal=False)
    found = next(dpr(tmp_path / "bare")).read()
    assert found.normal is None and found.provenance.normal == "absent"


def test_a_person_is_known_through_both_tables(tmp_path, face):
    mapping, identities = tmp_path / "mapping.txt", tmp_path / "identities.txt"
    mapping.write_text("idx orig_idx orig_file\n0 119613 119614.jpg\n")
    identities.write_text("119614.jpg 7\n")
    (group,) = dpr(face.parent, identities=identities, mapping=mapping)
    assert group.subject == "celeba-person7"
    with pytest.raises(ValueError, match="identities and mapping are needed together"):
        next(dpr(face.parent, mapping=mapping))


def test_a_picture_and_a_light_without_the_other_are_left_out_and_told(face):
    (face / "imgHQ00000_light_02.txt").unlink()
    (face / "imgHQ00000_04.png").unlink()
    (group,) = dpr(face.parent)
    found = group.read()
    assert group.lights == found.num_lights == 3
    assert found.light_name == ("00", "01", "03")
    assert "left out: 02 without its light, 04 without its picture" in found.provenance.crop


def test_a_face_without_pictures_is_a_faulty_group_and_no_other(face, normal):
    (face.parent / "imgHQ00003").mkdir()
    (face.parent / "imgHQ00004").write_text("")
    relight(face.parent / "imgHQ00005", normal, 2)
    groups = list(dpr(face.parent))
    assert keys(groups) == [f"dpr_imgHQ0000{number}" for number in (0, 3, 4, 5)]
    with pytest.raises(ValueError, match=r"imgHQ00003: holds no picture such as imgHQ00003_00.png"):
        groups[1].read()
    with pytest.raises(ValueError, match="imgHQ00004: cannot be listed: Not a directory"):
        groups[2].read()
    assert groups[3].read().num_lights == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.7\n" * 8, "holds 8 numbers, 9 needed"),
        ("0.7\n" * 8 + "nan\n", "'nan' is not a finite number"),
        ("", "holds 0 numbers"),
    ],
)
def test_a_broken_light_refuses_the_face(face, content, message):
    (face / "imgHQ00000_light_02.txt").write_text(content)
    (group,) = dpr(face.parent)
    with pytest.raises(ValueError, match=f"imgHQ00000_light_02.txt: {message}"):
        group.read()


def test_pictures_that_are_broken_or_of_another_kind_refuse_the_face(face):
    (group,) = dpr(face.parent)
    file = face / "imgHQ00000_02.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"imgHQ00000_02.png"):
        group.read()
    file.write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"imgHQ00000_02.png: is 8x8 8-bit colour"):
        group.read()
    for picture in face.glob("imgHQ00000_0?.png"):
        picture.write_bytes(encode_png(np.zeros((8, 8, 3), np.uint16)))
    with pytest.raises(ValueError, match=r"imgHQ00000_00.png: is 8x8 16-bit .*8-bit RGB needed"):
        group.read()


def test_normals_of_another_size_refuse_the_face(face):
    (face / "full_normal.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    (group,) = dpr(face.parent)
    with pytest.raises(ValueError, match=r"full_normal.png: is 8x8 .*, the pictures are 48x48"):
        group.read()


def test_a_group_travels_to_another_process(face):
    (group,) = dpr(face.parent, store="luminance")
    assert len(pickle.dumps(group)) < 1000
    assert pickle.loads(pickle.dumps(group)).read().key == "dpr_imgHQ00000"


def test_a_wrong_root_is_refused(tmp_path, face):
    with pytest.raises(ValueError, match="does not exist; the folder that holds imgHQ00000"):
        next(dpr(tmp_path / "absent"))
    with pytest.raises(ValueError, match="no faces in it"):
        next(dpr(face))
