"""Portraits of any shape come to the training size whole, in linear light, with unit normals."""

from dataclasses import replace

import numpy as np
import pytest

from relightx.color import from_integer
from relightx.data.fit import fit, letterbox, unit, unletterbox


def test_a_portrait_of_the_right_size_is_left_as_it_is(portrait):
    views = fit(portrait, 32)
    np.testing.assert_array_equal(views.image, portrait.linear_image())
    np.testing.assert_array_equal(views.mask, portrait.mask)
    np.testing.assert_array_equal(views.albedo, portrait.albedo)
    np.testing.assert_allclose(views.normal, portrait.normal, atol=1e-6)


@pytest.mark.parametrize("size", [16, 48])
def test_normals_stay_unit_and_maps_stay_in_range(portrait, size):
    views = fit(portrait, size)
    assert views.image.shape == (3, size, size, 3)
    np.testing.assert_allclose(np.linalg.norm(views.normal, axis=-1), 1, atol=1e-5)
    assert views.albedo.min() > 0.19 and views.albedo.max() < 0.81


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (33, 50)])
def test_a_picture_keeps_its_shape_and_the_rest_is_outside_the_mask(portrait, height, width):
    image = np.full((1, height, width, 3), 65535, np.uint16)
    whole = replace(
        portrait,
        image=image,
        light_name=("lamp",),
        albedo=None,
        normal=None,
        mask=None,
        sh=None,
        direction=None,
    )
    views = fit(whole, 16)
    rows, columns = np.flatnonzero(views.mask.any(1)), np.flatnonzero(views.mask.any(0))
    assert len(rows) == round(16 * height / max(height, width))
    assert len(columns) == round(16 * width / max(height, width))
    assert abs(rows[0] - (15 - rows[-1])) <= 1 and abs(columns[0] - (15 - columns[-1])) <= 1
    assert (views.image[0, ~views.mask] == 0).all()
    np.testing.assert_allclose(views.image[0, views.mask], 1, atol=1e-6)
    assert views.albedo is views.normal is views.sh is None


def test_confidence_is_averaged_over_the_pixels_that_become_one(portrait):
    checkers = (np.indices((32, 32)).sum(0) % 2).astype(np.float32)
    doubted = replace(portrait, confidence=checkers)
    np.testing.assert_array_equal(fit(doubted, 32).confidence, checkers)
    np.testing.assert_allclose(fit(doubted, 16).confidence, 0.5, atol=1e-6)
    assert fit(portrait, 16).confidence is None


def test_memory_of_all_maps_is_counted(portrait):
    pixels = 32 * 32
    views = fit(replace(portrait, confidence=np.ones((32, 32), np.float32)), 32)
    floats = 3 * pixels * 3 + pixels * 3 + pixels * 3 + pixels + 3 * 27
    assert views.bytes == 4 * floats + pixels


def test_pixels_are_averaged_in_linear_light(portrait):
    checkers = (np.indices((32, 32)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = np.broadcast_to(checkers[None, ..., None], (3, 32, 32, 1)).copy()
    encoded = replace(portrait, image=pixels)
    encoded = replace(encoded, provenance=replace(portrait.provenance, transfer="srgb"))
    # Half of the light; half of the code value, 128, would be 0.22 of it.
    np.testing.assert_allclose(fit(encoded, 16).image, 0.5, atol=1e-6)
    assert from_integer(np.array([128], np.uint8), "srgb")[0] < 0.25


def test_some_lights_keep_their_own_coefficients(portrait):
    views = fit(portrait, 32)
    chosen = views.of_lights([2, 0])
    np.testing.assert_array_equal(chosen.image, views.image[[2, 0]])
    np.testing.assert_array_equal(chosen.sh, portrait.sh[[2, 0]])
    assert chosen.albedo is views.albedo


@pytest.mark.parametrize(("height", "width"), [(24, 24), (48, 48), (30, 24), (50, 70)])
def test_gray_images_are_those_of_three_equal_channels(portrait, height, width):
    gray = np.random.default_rng(0).integers(0, 256, (3, height, width, 1), np.uint8)
    bare = replace(portrait, image=gray, albedo=None, normal=None, mask=None)
    repeated = replace(bare, image=np.repeat(gray, 3, axis=3))
    views = fit(bare, 24)
    assert (views.image == views.image[..., :1]).all()
    np.testing.assert_array_equal(views.image, fit(repeated, 24).image)


def test_a_picture_twice_as_large_is_averaged_over_each_four_pixels():
    picture = np.random.default_rng(0).random((48, 36, 3)).astype(np.float32)
    mean = picture.reshape(24, 2, 18, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(letterbox(picture, 24)[:, 3:21], mean, atol=2**-22)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (9, 7, 3), (2, 4, 6, 3)])
def test_unit_is_the_norm_of_numpy_bit_by_bit(shape):
    vectors = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    vectors.flat[:2] = 0
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    expected = vectors / np.maximum(length, 1e-6)
    for given in (vectors, np.asfortranarray(vectors), vectors.astype(np.float64)):
        found = unit(given)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_unit_keeps_directions_and_zero():
    vectors = np.float32([[0, 0, 0], [0, 3, 4], [-2, 0, 0]])
    np.testing.assert_allclose(unit(vectors), [[0, 0, 0], [0, 0.6, 0.8], [-1, 0, 0]], atol=1e-6)


def test_a_very_long_picture_keeps_a_pixel():
    row = letterbox(np.ones((1, 1000, 3), np.float32), 16)
    assert row.sum() == pytest.approx(16 * 3)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 24), (24, 13), (7, 24), (24, 1)])
def test_a_letterboxed_picture_of_its_own_size_comes_back_as_it_was(height, width):
    picture = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
    np.testing.assert_array_equal(unletterbox(letterbox(picture, 24), height, width), picture)


@pytest.mark.parametrize("size", [16, 48, 200])
@pytest.mark.parametrize(("height", "width"), [(109, 89), (64, 128), (218, 178)])
def test_a_map_comes_back_to_its_place_at_any_size(size, height, width):
    row, column = np.mgrid[:height, :width].astype(np.float32)
    place = np.stack((row / height, column / width), axis=-1)
    back = unletterbox(letterbox(place, size), height, width)
    pixel = max(1, max(height, width) / size)
    rim = int(2 * pixel)
    error = np.abs(back - place)[rim:-rim, rim:-rim] * (height, width)
    assert error.max() < 0.75 * pixel  # of the coarser picture: the sides are rounded to whole ones


def test_a_map_without_channels_comes_back_without():
    assert unletterbox(letterbox(np.ones((10, 20), np.float32), 16), 10, 20).shape == (10, 20)
