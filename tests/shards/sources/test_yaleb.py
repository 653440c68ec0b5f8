import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relightx.sample import Portrait, check
from relightx.sh import shade
from shards.labelling.photometric_stereo import photometric_stereo, residual
from shards.sources.yaleb import EXPOSURE, MISALIGNED, STRENGTH, is_frontal, light_direction, yaleb
from shards.splits import file_split

REPOSITORY = Path(__file__).parents[3]
PHOTOGRAPHS = REPOSITORY.parent / "shared" / "data" / "yaleb"
HEIGHT, WIDTH = 48, 42
SIDE_LIGHTS = ("A+070E+00", "A-085E+20", "A+000E+90")


def ball() -> tuple[np.ndarray, np.ndarray]:
    """Normals of a shallow ball that fills the picture, and a smooth albedo."""
    y, x = np.meshgrid(np.linspace(0.6, -0.6, HEIGHT), np.linspace(-0.6, 0.6, WIDTH), indexing="ij")
    normal = np.stack((x, y, np.sqrt(1 - x * x - y * y)), -1)
    return normal, 0.45 + 0.1 * np.cos(3 * x)


def photograph(light: str, strength: float) -> np.ndarray:
    normal, albedo = ball()
    shading = np.maximum(normal @ light_direction(light).astype(float), 0) * strength * EXPOSURE
    return np.rint(albedo * shading * 255).astype(np.uint8)


def write_subject(root: Path, subject: str, suffix: str = ".pgm") -> Path:
    """A folder as the release has it: 37 frontal lights, side lights and what is not a frame."""
    folder = root / subject
    folder.mkdir(parents=True)
    for light in (*STRENGTH, *SIDE_LIGHTS):
        pixels = photograph(light, STRENGTH.get(light, 0.8))
        Image.fromarray(pixels).save(folder / f"{subject}_P00{light}{suffix}")
    Image.fromarray(np.zeros((480, 640), np.uint8)).save(folder / f"{subject}_P00_Ambient.pgm")
    (folder / f"{subject}_P00A+130E+20.pgm.bad").write_bytes(b"P5 not whole")
    (folder / f"{subject}_P00.info").write_text("a list of files")
    return folder


def read(root: Path, **options: str) -> Portrait:
    """The first portrait of a root."""
    return next(iter(yaleb(root, **options))).read()


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))


@pytest.mark.parametrize(
    ("light", "toward"),
    [("A+000E+00", (0, 0, 1)), ("A+090E+00", (-1, 0, 0)), ("A+000E+90", (0, 1, 0))],
)
def test_azimuth_turns_to_the_images_left_and_elevation_up(light, toward):
    np.testing.assert_allclose(light_direction(light), toward, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(light_direction("A-035E+40")), 1, atol=1e-6)


@pytest.mark.parametrize("suffix", [".pgm", ".png"])
def test_the_released_layout_becomes_portraits_with_all_labels(tmp_path, suffix):
    for subject in ("yaleB12", "yaleB11"):
        write_subject(tmp_path, subject, suffix)
    portraits = [group.read() for group in yaleb(tmp_path)]
    assert [portrait.key for portrait in portraits] == ["yaleB11", "yaleB12"]
    for portrait in portraits:
        check(portrait)
        assert portrait.subject == portrait.key
        assert portrait.image.shape == (37, HEIGHT, WIDTH, 1)
        assert sorted(portrait.light_name) == sorted(STRENGTH)
        assert "1 marked .bad" in portrait.provenance.crop
        assert {portrait.provenance.albedo, portrait.provenance.light} == {"real"}


def test_images_are_kept_as_stored(tmp_path):
    folder = write_subject(tmp_path, "yaleB11")
    portrait = read(tmp_path)
    for pixels, light in zip(portrait.image, portrait.light_name, strict=True):
        stored = np.asarray(Image.open(folder / f"yaleB11_P00{light}.pgm"))
        np.testing.assert_array_equal(pixels[..., 0], stored)


def test_the_labels_are_those_of_the_surface_that_was_photographed(tmp_path):
    write_subject(tmp_path, "yaleB11")
    portrait = read(tmp_path)
    normal, albedo = ball()
    assert angle_deg(portrait.normal, normal).mean() < 0.5
    np.testing.assert_allclose(portrait.albedo[..., 1], albedo, atol=0.01)
    assert portrait.mask.mean() > 0.95


def test_albedo_times_shading_under_the_stored_light_gives_the_image(tmp_path):
    write_subject(tmp_path, "yaleB11")
    portrait = read(tmp_path)
    normal = torch.from_numpy(portrait.normal).permute(2, 0, 1)
    shading = shade(normal.expand(37, -1, -1, -1), torch.from_numpy(portrait.sh))
    image = portrait.albedo * shading.permute(0, 2, 3, 1).numpy()
    # At the horizon second-order harmonics are 3/32 of a lamp off the clamped cosine.
    assert np.abs(image - portrait.linear_image()).mean() < 0.02
    assert np.abs(image - portrait.linear_image()).max() < 3 / 32 * 1.14 * EXPOSURE * 0.57


def test_all_lights_adds_the_side_lights_with_a_fitted_strength(tmp_path):
    write_subject(tmp_path, "yaleB11")
    portrait = read(tmp_path, lights="all")
    assert sorted(portrait.light_name) == sorted((*STRENGTH, *SIDE_LIGHTS))
    assert portrait.provenance.light == "pseudo"
    power = dict(zip(portrait.light_name, portrait.sh[:, 0, 0], strict=True))
    known = power["A+000E+00"] / STRENGTH["A+000E+00"]
    for light in SIDE_LIGHTS:
        assert power[light] / known == pytest.approx(0.8, abs=0.03)


def test_groups_are_found_without_pixels_and_read_in_another_process(tmp_path):
    for subject in ("yaleB12", "yaleB11"):
        write_subject(tmp_path, subject)
    for file in (tmp_path / "yaleB12").glob("*.pgm"):
        file.write_bytes(b"")
    first, second = yaleb(tmp_path)
    assert [first.lights, second.lights] == [37, 37]
    assert [first.key, first.subject] == ["yaleB11", "yaleB11"]
    assert next(iter(yaleb(tmp_path, lights="all"))).lights == 40
    check(pickle.loads(pickle.dumps(first.read))())
    with pytest.raises(ValueError, match=r"yaleB12_P00A.*\.pgm: "):
        second.read()


def test_confidence_is_that_of_the_fit(tmp_path):
    folder = write_subject(tmp_path, "yaleB11")
    for number, light in enumerate(STRENGTH):
        pixels = photograph(light, STRENGTH[light])
        pixels[20:28, 20:28] = 40 * (number % 5)  # as no lit surface looks
        Image.fromarray(pixels).save(folder / f"yaleB11_P00{light}.pgm")
    confidence = read(tmp_path).confidence
    assert confidence[22:26, 22:26].max() < 0.5
    assert np.median(confidence) > 0.95


def with_room(folder: Path, room: np.ndarray) -> None:
    """Adds the light of a room to a subject's photographs, and its ambient frame."""
    for light in STRENGTH:
        pixels = photograph(light, STRENGTH[light]) + room
        Image.fromarray(pixels).save(folder / f"yaleB11_P00{light}.pgm")
    Image.fromarray(room).save(folder / "yaleB11_P00_Ambient.pgm")


def test_an_ambient_frame_of_the_same_size_is_subtracted(tmp_path):
    folder = write_subject(tmp_path / "dark", "yaleB11")
    room = np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))
    with_room(write_subject(tmp_path / "lit", "yaleB11"), room)
    dark, lit, kept = (
        read(tmp_path / "dark"),
        read(tmp_path / "lit"),
        read(tmp_path / "lit", ambient="ignore"),
    )
    np.testing.assert_array_equal(lit.image, dark.image)
    np.testing.assert_array_equal(lit.normal, dark.normal)
    np.testing.assert_array_equal(kept.image, dark.image + room[None, ..., None])
    assert "The ambient frame was subtracted" in lit.provenance.crop
    assert "left out: 1 ambient, 1 marked .bad" in kept.provenance.crop
    assert "left out: 1 ambient of another size, 1 marked" in dark.provenance.crop

    (folder / "yaleB11_P00_Ambient.pgm").unlink()
    assert "left out: 1 marked .bad." in read(tmp_path / "dark").provenance.crop


def test_an_ambient_frame_that_cannot_be_read_is_named(tmp_path):
    file = write_subject(tmp_path, "yaleB11") / "yaleB11_P00_Ambient.pgm"
    file.write_bytes(b"P5\n42 48\n255\nshort")
    with pytest.raises(ValueError, match=r"yaleB11_P00_Ambient\.pgm: "):
        read(tmp_path)
    assert read(tmp_path, ambient="ignore").num_lights == 37


def test_a_wrong_subject_does_not_hide_the_others(tmp_path):
    (tmp_path / "yaleB11").mkdir()
    write_subject(tmp_path, "yaleB12")
    (tmp_path / "yaleB12" / "._yaleB12_P00A+000E+00.pgm").write_bytes(b"left by a desktop")
    empty, whole = yaleb(tmp_path)
    with pytest.raises(ValueError, match="yaleB11: no photographs found"):
        empty.read()
    assert whole.read().key == "yaleB12"


def test_black_and_misaligned_frames_are_left_out_and_counted(tmp_path):
    subject, lights = "yaleB23", MISALIGNED["yaleB23"]
    folder = write_subject(tmp_path, subject)
    black = np.zeros((HEIGHT, WIDTH), np.uint8)
    Image.fromarray(black).save(folder / f"{subject}_P00A+000E+00.pgm")
    portrait = read(tmp_path)
    assert not {*lights, "A+000E+00"} & set(portrait.light_name)
    assert portrait.num_lights == 37 - len(lights) - 1
    assert f"1 black, 1 marked .bad, {len(lights)} misaligned" in portrait.provenance.crop


def test_a_folder_without_subjects_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: does not exist; a folder with yaleB11"):
        yaleb(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="the folder is empty"):
        yaleb(tmp_path / "a")
    with pytest.raises(ValueError, match=r"no subject folders among its 1 \(a\)"):
        yaleb(tmp_path)
    (tmp_path / "yaleB11").mkdir()
    with pytest.raises(ValueError, match="yaleB11: no photographs found"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("yaleB11_P00A+000E+00.pgm", b"no picture at all", r"E\+00\.pgm: "),
        ("yaleB11_P00A+000E+00.pgm", b"P5\n42 48\n255\nshort", r"E\+00\.pgm: "),
        ("yaleB12_P00A+000E+00.pgm", b"", "not a photograph of this set"),
        ("yaleB11_P00A+001E+00.pgm", b"", "no strobe"),
        ("holiday.png", b"", "not a photograph of this set"),
    ],
)
def test_a_file_that_is_no_photograph_of_the_set_is_named(tmp_path, name, content, message):
    file = write_subject(tmp_path, "yaleB11") / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path)
    assert str(file) in str(caught.value)


def test_photographs_of_another_size_colour_or_twice_are_refused(tmp_path):
    folder = write_subject(tmp_path, "yaleB11")
    file = folder / "yaleB11_P00A+010E+00.pgm"
    kept = file.read_bytes()
    Image.fromarray(np.full((20, 30), 99, np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"A\+010E\+00.pgm: is 30x20, .* is 42x48"):
        read(tmp_path)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 99, np.uint8)).save(file, format="PPM")
    with pytest.raises(ValueError, match="3 channels of uint8; 8-bit gray needed"):
        read(tmp_path)
    file.write_bytes(kept)
    Image.fromarray(np.full((HEIGHT, WIDTH), 99, np.uint8)).save(file.with_suffix(".png"))
    with pytest.raises(ValueError, match=r"light A\+010E\+00 is also in"):
        read(tmp_path)


def test_fewer_than_four_usable_lights_are_refused(tmp_path):
    folder = write_subject(tmp_path, "yaleB11")
    for light in list(STRENGTH)[3:]:
        (folder / f"yaleB11_P00{light}.pgm").unlink()
    for lights in ("frontal", "all"):
        with pytest.raises(ValueError, match="yaleB11: 3 usable frontal lights found"):
            read(tmp_path, lights=lights)


def test_the_strobes_are_the_37_frontal_ones():
    assert len(STRENGTH) == 37
    assert all(is_frontal(light) for light in STRENGTH)
    assert np.median(list(STRENGTH.values())) == pytest.approx(1, abs=0.01)
    assert {light for lights in MISALIGNED.values() for light in lights} <= set(STRENGTH)


def test_the_fixed_split_follows_its_rule_and_covers_the_subjects_once():
    path = REPOSITORY / "configs" / "splits" / "yaleb.json"
    subjects = [f"yaleB{number}" for number in range(11, 40) if number != 14]
    split_of = file_split(path)
    assert {subject: split_of(subject) for subject in subjects}["yaleB13"] == "train"
    content = json.loads(path.read_text())
    assert sorted(content["train"] + content["val"] + content["test"]) == subjects
    others = sorted(
        (subject for subject in subjects if subject != "yaleB13"),
        key=lambda subject: hashlib.sha256(subject.encode()).hexdigest(),
    )
    assert sorted(others[:5]) == content["test"]
    assert sorted(others[5:8]) == content["val"]


@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="the Extended Yale B photographs are not beside the checkout"
)
def test_real_photographs_agree_with_the_surface_found_from_them(tmp_path):
    for subject in ("yaleB24", "yaleB31"):
        (tmp_path / subject).symlink_to(PHOTOGRAPHS / subject)
    for portrait in (group.read() for group in yaleb(tmp_path)):
        image, mask = portrait.linear_image()[..., 0], portrait.mask
        strength = np.array([STRENGTH[name] * EXPOSURE for name in portrait.light_name], np.float32)
        surface = photometric_stereo(image.astype(np.float32), portrait.direction, strength)
        error = residual(image.astype(np.float32), surface, portrait.direction, strength)
        assert np.abs(error[:, mask]).mean() * 255 < 8

        half = portrait.normal.shape[1] // 2
        left, right = portrait.normal[:, :half][mask[:, :half]], portrait.normal[:, half:]
        assert left[:, 0].mean() < -0.3
        assert right[mask[:, half:]][:, 0].mean() > 0.3
        assert 0.85 < mask.mean() <= 1

        scaled = (surface.normal * surface.albedo[..., None])[mask]
        found = [_light_of(pixels[mask], scaled) for pixels in image]
        assert np.median(angle_deg(np.stack(found), portrait.direction)) < 3


def _light_of(pixel: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """The light that explains the lit pixels of a surface best."""
    lit = (pixel > 0.08) & (pixel < 0.98)
    for _ in range(3):
        light = np.linalg.lstsq(scaled[lit], pixel[lit], rcond=None)[0]
        predicted = scaled @ light
        lit = (predicted > 0.08) & (pixel < 0.98) & (np.abs(pixel - predicted) < 0.15)
    return light / np.linalg.norm(light)
