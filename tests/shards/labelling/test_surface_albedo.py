import numpy as np
import pytest
from lit_scene import face, four_lamps, lamps

from shards.labelling.surface_albedo import Lamps, fit_albedo, luminance

DIRECTION = lamps(16)
EVEN = np.ones((16, 3), np.float32)
DARK = np.zeros((16, 3), np.float32)


@pytest.fixture(scope="module")
def scene():
    return face()


def error(albedo, scene):
    return np.abs(albedo - scene.albedo)[scene.mask]


def test_the_colours_of_a_lambertian_surface_are_exact(scene):
    albedo = fit_albedo(scene.lambert(DIRECTION), scene.normal, Lamps(DIRECTION, EVEN, DARK))
    assert error(albedo, scene).max() < 1e-4


def test_shadows_and_white_highlights_do_not_tint_the_skin(scene):
    image = scene.photograph(DIRECTION)
    albedo = fit_albedo(image, scene.normal, Lamps(DIRECTION, EVEN, DARK))
    plain = image.sum(axis=0) / scene.lambert(DIRECTION).sum(axis=0) * scene.albedo
    assert error(albedo, scene).mean() < 0.02
    assert error(albedo, scene).mean() < 0.3 * error(plain, scene).mean()


def test_coloured_lamps_and_the_light_of_the_room_are_no_part_of_the_albedo(scene):
    generator = np.random.default_rng(0)
    colour = generator.uniform(0.4, 0.9, (16, 3)).astype(np.float32)
    room = generator.uniform(0, 0.1, (16, 3)).astype(np.float32)
    shading = np.maximum(np.einsum("hwk,lk->lhw", scene.normal, DIRECTION), 0)[..., None]
    image = scene.albedo * (shading * colour[:, None, None] + room[:, None, None])
    albedo = fit_albedo(image.astype(np.float32), scene.normal, Lamps(DIRECTION, colour, room))
    assert error(albedo, scene).max() < 1e-4


def test_gray_images_give_one_channel(scene):
    image, direction = scene.lambert(four_lamps()).mean(axis=3, keepdims=True), four_lamps()
    known = Lamps(direction, EVEN[:4, :1], DARK[:4, :1])
    albedo = fit_albedo(image, scene.normal, known)
    lit = scene.mask & ((scene.normal @ direction.T).max(axis=2) > 0.1)
    np.testing.assert_allclose(
        albedo[lit], scene.albedo.mean(axis=2, keepdims=True)[lit], rtol=1e-4
    )


def test_what_no_lamp_shows_is_black_and_finite(scene):
    image = scene.lambert(DIRECTION)
    image[:, :5] = 1
    image[:, 5:10] = 0
    albedo = fit_albedo(image, scene.normal, Lamps(DIRECTION, EVEN, DARK))
    assert albedo[:10].max() == 0
    assert np.isfinite(albedo).all()


def test_luminance_is_saturated_where_one_colour_is():
    image = np.full((1, 1, 3, 3), 0.5, np.float32)
    image[0, 0, 0, 0] = 1
    gray = luminance(image, EVEN[:1])
    np.testing.assert_allclose(gray, [[[1, 0.5, 0.5]]], atol=1e-6)


def test_luminance_is_free_of_the_lamps_colour():
    albedo = np.array((0.6, 0.4, 0.3), np.float32)
    colour = np.array([(1, 1, 1), (0.5, 0.8, 1.4)], np.float32)
    gray = luminance(colour[:, None, None] * albedo, colour)
    np.testing.assert_allclose(gray[0], gray[1], atol=1e-6)
