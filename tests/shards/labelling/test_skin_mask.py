from pathlib import Path

import cv2
import numpy as np
import pytest

import relightx
from relightx.color import LUMINANCE, from_integer
from relightx.face import (
    BROWS,
    EYES,
    LIPS,
    Face,
    crop,
    crop_transform,
    face_mask,
    find_face,
    moved,
)
from relightx.picture import read_picture
from shards.labelling.skin_mask import skin_mask
from shards.rendering import scene, synthetic

SIZE = 256
PHOTOGRAPH = Path(relightx.__file__).parent / "photos" / "astronaut.jpg"
# In the photograph, read off an enlargement: cheeks, tip of the nose, chin; then the fringe, the
# teeth and an iris.
SKIN = [(200, 125), (250, 128), (225, 128), (222, 165)]
NOT_SKIN = [(215, 76), (253, 80), (222, 143), (204, 102)]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return from_integer(read_picture(PHOTOGRAPH), "srgb")


@pytest.fixture(scope="module")
def face(photograph) -> Face:
    return find_face(photograph)


@pytest.fixture(scope="module")
def skin(photograph, face) -> np.ndarray:
    return mask_of(photograph, face)


def mask_of(image: np.ndarray, face: Face, size: int = SIZE) -> np.ndarray:
    return skin_mask(image, face, crop_transform(face, size), size)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def gray(image: np.ndarray) -> np.ndarray:
    return np.repeat((image @ np.float32(LUMINANCE))[..., None], 3, axis=2)


def oval_of(face: Face, size: int = SIZE) -> np.ndarray:
    return face_mask(moved(face, crop_transform(face, size)), (size, size)) > 0.5


def test_cheeks_nose_and_chin_are_skin_and_fringe_teeth_and_eyes_are_not(face, skin):
    affine = crop_transform(face, SIZE)
    for points, expected in ((SKIN, True), (NOT_SKIN, False)):
        columns, rows = (np.array(points) @ affine[:, :2].T + affine[:, 2]).astype(int).T
        assert (skin[rows, columns] == expected).all()
    assert (skin <= oval_of(face)).all()


def test_no_point_of_eyes_brows_and_lips_is_skin(face, skin):
    inside = moved(face, crop_transform(face, SIZE)).mesh
    columns, rows = inside[[index for part in (*EYES, *BROWS, LIPS) for index in part]].T
    assert not skin[rows.astype(int), columns.astype(int)].any()


@pytest.mark.parametrize(
    "light",
    [(0.05, 0.05, 0.05), (1, 0.8, 0.55), (0.6, 0.8, 1)],
    ids=["weak", "warm", "cold"],
)
def test_strength_and_colour_of_the_light_do_not_matter(photograph, face, skin, light):
    assert overlap(mask_of(photograph * np.float32(light), face), skin) > 0.98


def test_a_darker_skin_gives_the_same_mask(photograph, face, skin):
    darker = photograph * np.exp(-1.2 * np.float32([0.6, 1.0, 1.3]))
    assert overlap(mask_of(darker, face), skin) > 0.98


@pytest.mark.parametrize("channel", [0, 1])
def test_light_from_one_side_leaves_skin_in_its_shade(photograph, face, skin, channel):
    along = np.linspace(-1, 1, 512, dtype=np.float32)
    field = np.exp(1.5 * along)[:, None] if channel else np.exp(1.5 * along)[None]
    lit = photograph * field[..., None] / field.max()
    assert overlap(mask_of(lit, face), skin) > 0.93


def test_a_gray_picture_gives_nearly_the_same_mask(photograph, face, skin):
    assert overlap(mask_of(gray(photograph), face), skin) > 0.85


@pytest.mark.parametrize("size", [64, 100, 512])
def test_the_mask_is_the_same_at_every_size(photograph, face, skin, size):
    scaled = cv2.resize(skin.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) > 0.5
    assert overlap(mask_of(photograph, face, size), scaled) > 0.95


def test_glasses_a_sleeve_and_a_cloth_are_not_skin(photograph, face, skin):
    covered = photograph.copy()
    left, right = face.box[[0, 2]].astype(int)
    covered[95:112, 190:215] = 0.005  # dark glass over the right eye and the cheek below it
    covered[150:185, left:right] = (0.05, 0.12, 0.4)  # blue over the chin
    cover = (covered != photograph).any(axis=-1).astype(np.float32)
    mask = mask_of(covered, face)
    hidden = crop(cover, crop_transform(face, SIZE), SIZE) > 0.99
    hidden = cv2.erode(hidden.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not mask[hidden].any()
    assert mask.sum() > 0.4 * skin.sum()


def test_there_are_no_specks_and_no_pinholes(photograph, face):
    noise = np.random.default_rng(0).normal(0, 0.04, photograph.shape).astype(np.float32)
    freckled = np.clip(photograph * (1 + noise), 0, 1)
    rows, columns = np.random.default_rng(1).integers(80, 170, (2, 60))
    freckled[rows, columns] *= 0.2
    mask, oval = mask_of(freckled, face), oval_of(face)
    for region in (mask, oval & ~mask):
        _, _, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
        assert statistics[1:, cv2.CC_STAT_AREA].min() > 20


def test_a_black_picture_and_an_even_one_are_no_trouble(photograph, face):
    for level in (0.0, 0.5):
        mask = mask_of(np.full_like(photograph, level), face)
        assert mask.dtype == bool and mask.shape == (SIZE, SIZE)


@pytest.mark.parametrize("head", [0, 3, 10, 17, 20])
@pytest.mark.parametrize("colour", [True, False], ids=["colour", "gray"])
def test_hair_and_beard_of_rendered_heads_are_left_out_and_their_skin_is_kept(
    monkeypatch, head, colour
):
    """Heads 3 and 17 have beards, 10 and 20 dark skin under black and under white hair."""
    portrait = synthetic.synthetic_one(head, lights=4, size=256, seed=5)
    surface_albedo = scene.surface_albedo

    def hair_as_albedo(*surface):
        hair = surface_albedo(*surface)[1]
        return np.repeat(hair[:, None], 3, axis=1), hair

    monkeypatch.setattr(scene, "surface_albedo", hair_as_albedo)
    hair = synthetic.synthetic_one(head, lights=1, size=256, seed=5).albedo[..., 1]
    image = portrait.linear_image().mean(axis=0)
    image = image / np.float32(np.percentile(image, 99))
    face = find_face(np.minimum(image, 1))
    affine = crop_transform(face, SIZE)
    mask = mask_of(image if colour else gray(image), face)
    covered = crop(hair, affine, SIZE)
    on_head = crop(portrait.mask.astype(np.float32), affine, SIZE) > 0.99
    expected = oval_of(face) & on_head & (covered < 0.1)
    # Of head 17's beard some processors leave 2 %, others 2.6.
    assert (mask & (covered > 0.5)).sum() < (0.03 if colour else 0.2) * mask.sum()
    assert (mask & expected).sum() > 0.65 * expected.sum()
