from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from relightx.color import from_integer
from relightx.face import (
    MIN_FACE_PX,
    Face,
    crop,
    crop_transform,
    face_mask,
    find_face,
    find_faces,
    moved,
    turn_to_photograph,
    uncrop,
)

PHOTOGRAPH = Path(__file__).parents[3] / "shared" / "data" / "photos" / "astronaut.png"
# Right eye, left eye, tip of the nose, right and left mouth corner, read off a fourfold
# enlargement by eye.
LANDMARKS = np.array([(203.8, 101.3), (247.4, 103.2), (223.2, 128), (200.5, 140), (247.2, 141.9)])
SWAPPED = [1, 0, 2, 4, 3]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    if not PHOTOGRAPH.exists():
        pytest.skip("needs the portrait in ../shared/data/photos")
    return from_integer(cv2.imread(str(PHOTOGRAPH))[..., ::-1], "srgb")


@pytest.fixture(scope="module")
def face(photograph) -> Face:
    return find_face(photograph)


def drawn_face(height: float = 120.0, tilt: float = 0.0) -> Face:
    """A face of plain proportions around (200, 150), turned by `tilt` radians in the picture."""
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    around = np.linspace(0, 2 * np.pi, 37)[:-1]
    oval = np.column_stack((0.4 * np.sin(around), -0.5 * np.cos(around))) * height
    landmarks = (
        np.array([(-0.2, -0.1), (0.2, -0.1), (0, 0.1), (-0.15, 0.25), (0.15, 0.25)]) * height
    )
    oval, landmarks = oval @ turn + (200, 150), landmarks @ turn + (200, 150)
    return Face(np.concatenate((oval.min(0), oval.max(0))), landmarks, oval, 1.0)


def test_eyes_nose_and_mouth_are_where_a_person_sees_them(face):
    assert np.linalg.norm(face.landmarks - LANDMARKS, axis=1).max() < 3
    assert face.score > 0.9


def test_a_mirrored_photograph_gives_mirrored_landmarks(photograph, face):
    mirrored = find_face(np.ascontiguousarray(photograph[:, ::-1]))
    expected = (face.landmarks * (-1, 1) + (photograph.shape[1], 0))[SWAPPED]
    assert np.linalg.norm(mirrored.landmarks - expected, axis=1).max() < 3


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_a_scaled_photograph_gives_scaled_landmarks(photograph, face, zoom):
    scaled = find_face(cv2.resize(photograph, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA))
    assert np.linalg.norm(scaled.landmarks / zoom - face.landmarks, axis=1).max() < 2


@pytest.mark.parametrize("degrees", [-15, 15, 40])
def test_a_turned_photograph_gives_the_same_crop(photograph, face, degrees):
    turn = cv2.getRotationMatrix2D((225, 125), degrees, 1)
    turned = np.clip(cv2.warpAffine(photograph, turn, photograph.shape[1::-1]), 0, 1)
    affine = crop_transform(find_face(turned), 128)
    upright = crop_transform(face, 128)
    eyes, mouth = LANDMARKS[:2], LANDMARKS[3:]
    for points in (eyes, mouth):
        moved = points @ turn[:, :2].T + turn[:, 2]
        in_crop = moved @ affine[:, :2].T + affine[:, 2]
        expected = points @ upright[:, :2].T + upright[:, 2]
        assert np.abs(in_crop - expected).max() < 3


def test_a_face_that_fills_the_picture_is_found(photograph, face):
    left, top, right, bottom = face.box.astype(int)
    filled = find_face(np.ascontiguousarray(photograph[top : bottom + 1, left : right + 1]))
    assert np.linalg.norm(filled.landmarks - (face.landmarks - (left, top)), axis=1).max() < 5


def test_the_larger_of_two_faces_is_chosen(photograph, face):
    half = cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((512, 768, 3), np.float32)
    canvas[:, 256:] = photograph
    canvas[:256, :256] = half
    assert np.linalg.norm(find_face(canvas).landmarks - (256, 0) - face.landmarks, axis=1).max() < 5


def test_every_face_is_found_once_the_largest_first(photograph, face):
    half = cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((512, 768, 3), np.float32)
    canvas[:, 256:] = photograph
    canvas[256:, :256] = half
    large, small = find_faces(canvas)
    assert np.linalg.norm(large.landmarks - (256, 0) - face.landmarks, axis=1).max() < 1
    assert np.linalg.norm(small.landmarks - (0, 256) - face.landmarks / 2, axis=1).max() < 1


@pytest.mark.parametrize("corner", [0, 1])
def test_a_small_face_in_a_large_photograph_is_found_in_its_place(photograph, face, corner):
    canvas = np.full((2400, 4000, 3), 0.2, np.float32)
    left, top = corner * (4000 - 512), corner * (2400 - 512)
    canvas[top : top + 512, left : left + 512] = photograph
    found = find_face(canvas)
    assert found is not None
    assert np.linalg.norm(found.landmarks - (left, top) - face.landmarks, axis=1).max() < 2


def test_threads_find_the_same_faces(photograph, face):
    shifted = [np.roll(photograph, 8 * place, axis=1) for place in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(find_face, shifted))
    for place, other in enumerate(found):
        np.testing.assert_array_equal(other.mesh, find_face(shifted[place]).mesh)
    np.testing.assert_array_equal(found[0].mesh, face.mesh)


def test_a_face_moved_into_its_crop_stands_there_by_the_rule(face):
    inside = moved(face, crop_transform(face, 128))
    np.testing.assert_allclose(inside.landmarks[:2].mean(0)[0], 64)
    np.testing.assert_allclose(inside.landmarks[0, 1], inside.landmarks[1, 1])
    assert inside.mesh.min() > 0 and inside.mesh.max() < 128
    np.testing.assert_allclose(inside.box, [*inside.oval.min(0), *inside.oval.max(0)])


@pytest.mark.parametrize("shape", [(300, 400, 3), (40, 900, 3), (1, 1, 3)])
def test_noise_and_darkness_hold_no_face(shape):
    noise = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    assert find_face(noise) is None
    assert find_face(np.zeros(shape, np.float32)) is None


def test_the_crop_shows_forehead_and_chin_with_room_around(face):
    affine = crop_transform(face, 128)
    oval = face.oval @ affine[:, :2].T + affine[:, 2]
    forehead, chin = oval[0, 1], oval[18, 1]
    assert 20 < forehead < 50 and 90 < chin < 118


def test_too_small_a_face_is_refused_with_its_size_and_place():
    with pytest.raises(ValueError, match=rf"30 pixels high; at least {MIN_FACE_PX} are needed"):
        crop_transform(drawn_face(height=30), 128)


def test_the_smallest_size_can_be_chosen():
    assert crop_transform(drawn_face(height=30), 128, min_face_px=20).shape == (2, 3)
    with pytest.raises(ValueError, match="120 pixels high; at least 200 are needed"):
        crop_transform(drawn_face(), 128, min_face_px=200)


@pytest.mark.parametrize("tilt", [0.0, 0.4, -2.0])
def test_eyes_are_level_and_centred_in_the_crop(tilt):
    affine = crop_transform(drawn_face(tilt=tilt), 128)
    eyes = drawn_face(tilt=tilt).landmarks[:2] @ affine[:, :2].T + affine[:, 2]
    assert eyes[0, 1] == pytest.approx(eyes[1, 1])
    assert eyes[:, 0].mean() == pytest.approx(64)
    assert eyes[0, 0] < eyes[1, 0]


@pytest.mark.parametrize("size", [64, 128, 400])
def test_uncrop_puts_a_crop_back_where_it_was(size):
    rows, columns = np.mgrid[:300, :400] / np.float32(400)
    image = np.stack((rows, columns, (rows + columns) / 2), axis=-1).astype(np.float32)
    affine = crop_transform(drawn_face(tilt=0.3), size)
    back = uncrop(crop(image, affine, size), affine, (300, 400))
    inside = uncrop(np.ones((size, size), np.float32), affine, (300, 400)) > 0.999
    assert inside.sum() > 10_000
    assert np.abs(back - image)[inside].max() < 2 / 400
    assert (back[:40, :40] == 0).all()


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.broadcast_to((np.arange(400) % 2)[None, :, None], (300, 400, 3)).astype(np.float32)
    small = crop(np.ascontiguousarray(stripes), crop_transform(drawn_face(), 32), 32)
    assert np.abs(small - 0.5).max() < 0.15


@pytest.mark.parametrize("tilt", [0.0, 0.5, -1.2])
def test_directions_turn_back_as_pixels_do(tilt):
    affine = crop_transform(drawn_face(tilt=tilt), 128)
    turn = turn_to_photograph(affine)
    to_photograph = np.linalg.inv(affine[:, :2])
    for column, row in ((1, 0), (0, 1)):
        moved = to_photograph @ (column, row)
        moved /= np.linalg.norm(moved)
        np.testing.assert_allclose(turn @ (column, -row, 0), (moved[0], -moved[1], 0), atol=1e-6)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_the_mask_is_one_on_the_face_zero_around_it_and_soft_between():
    face = drawn_face()
    mask = face_mask(face, (300, 400))
    points = face.landmarks.astype(int)
    assert mask[points[:, 1], points[:, 0]].min() > 0.99
    left, top, right, bottom = face.box.astype(int)
    outside = np.ones_like(mask, bool)
    outside[top - 1 : bottom + 2, left - 1 : right + 2] = False
    assert mask[outside].max() == 0
    assert np.abs(np.diff(mask, axis=1)).max() < 0.35


def test_the_mask_of_a_face_cut_by_the_edge_stays_one_at_the_edge():
    whole = face_mask(drawn_face(), (300, 400))
    np.testing.assert_allclose(face_mask(drawn_face(), (160, 210)), whole[:160, :210], atol=5e-3)
    assert face_mask(drawn_face(), (50, 60)).max() == 0
