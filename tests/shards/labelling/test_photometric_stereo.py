from dataclasses import dataclass

import lit_scene
import numpy as np
import pytest

from shards.labelling.photometric_stereo import UNCHECKED, photometric_stereo, residual

SIZE = 64


@dataclass(frozen=True)
class Scene:
    normal: np.ndarray
    albedo: np.ndarray
    direction: np.ndarray
    mask: np.ndarray

    def lambert(self, strength: np.ndarray | None = None) -> np.ndarray:
        cosine = np.einsum("hwk,lk->lhw", self.normal, self.direction)
        power = np.ones(len(self.direction)) if strength is None else strength
        return (self.albedo * np.maximum(cosine, 0) * power[:, None, None]).astype(np.float32)


@pytest.fixture
def scene() -> Scene:
    """A ball with bumps and blotches under 37 lights within 55 degrees of the camera."""
    generator = np.random.default_rng(3)
    place = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) / 0.95
    y, x = np.meshgrid(-place, place, indexing="ij")
    mask = x * x + y * y < 0.9
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0.05))
    bumps = 0.12 * np.stack((np.sin(14 * x + 3 * y), np.cos(11 * y - x), np.zeros_like(x)), -1)
    normal = np.stack((x, y, z), -1) + bumps
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    albedo = 0.55 + 0.25 * np.sin(5 * x) * np.cos(7 * y)
    tilt, turn = np.radians(55) * generator.random(37) ** 0.5, 2 * np.pi * generator.random(37)
    direction = np.stack(
        (np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)), -1
    )
    return Scene(
        normal.astype(np.float32), albedo.astype(np.float32), direction.astype(np.float32), mask
    )


def photograph(scene: Scene, image: np.ndarray) -> np.ndarray:
    """A fifth brighter, with cast shadows, highlights and noise; clipped at 1, kept in 8 bits."""
    place = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = np.meshgrid(-place, place, indexing="ij")
    spoilt = 1.2 * image
    for index, toward in enumerate(scene.direction):
        # A post in the middle throws its shadow away from the light.
        along = -(x * toward[0] + y * toward[1])
        across = x * toward[1] - y * toward[0]
        tilt = np.hypot(toward[0], toward[1])
        spoilt[index][(along > 0) & (along < tilt * tilt) & (np.abs(across) < 0.15 * tilt)] *= 0.05
        half = toward + np.array((0, 0, 1))
        half /= np.linalg.norm(half)
        spoilt[index] += 0.4 * np.maximum(scene.normal @ half, 0) ** 80
    spoilt += np.random.default_rng(5).normal(0, 0.005, spoilt.shape)
    return (np.rint(np.clip(spoilt, 0, 1) * 255) / 255).astype(np.float32)


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))


def least_squares_normal(image: np.ndarray, direction: np.ndarray) -> np.ndarray:
    scaled = np.linalg.lstsq(direction, image.reshape(len(image), -1), rcond=None)[0].T
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled.reshape(*image.shape[1:], 3)


def test_a_lambertian_surface_is_found_exactly(scene):
    surface = photometric_stereo(scene.lambert(), scene.direction)
    assert angle_deg(surface.normal, scene.normal)[scene.mask].max() < 0.1
    assert np.abs(surface.albedo - scene.albedo)[scene.mask].max() < 1e-3
    assert surface.confidence[scene.mask].min() > 0.99


def test_shadows_highlights_and_saturation_hardly_turn_the_normals(scene):
    image = photograph(scene, scene.lambert())
    surface = photometric_stereo(image, scene.direction)
    error = angle_deg(surface.normal, scene.normal)[scene.mask]
    plain = angle_deg(least_squares_normal(image, scene.direction), scene.normal)[scene.mask]
    assert (image >= 0.98).mean() > 0.002
    assert np.median(error) < 0.5
    assert error.mean() < 1.6
    assert error.mean() < 0.2 * plain.mean()
    assert np.abs(surface.albedo / 1.2 - scene.albedo)[scene.mask].mean() < 0.02


def test_a_mirrored_scene_has_mirrored_normals(scene):
    image = photograph(scene, scene.lambert())
    flip = np.array((-1, 1, 1), np.float32)
    surface = photometric_stereo(image, scene.direction)
    mirrored = photometric_stereo(image[:, :, ::-1].copy(), scene.direction * flip)
    np.testing.assert_allclose(mirrored.normal[:, ::-1] * flip, surface.normal, atol=2e-3)
    np.testing.assert_allclose(mirrored.albedo[:, ::-1], surface.albedo, atol=2e-3)


def test_changing_the_order_of_the_lights_changes_nothing(scene):
    image = photograph(scene, scene.lambert())
    order = np.random.default_rng(1).permutation(len(image))
    surface = photometric_stereo(image, scene.direction)
    shuffled = photometric_stereo(image[order], scene.direction[order])
    assert np.median(angle_deg(shuffled.normal, surface.normal)) < 0.05


def test_stronger_lights_mean_a_darker_surface(scene):
    image, one = scene.lambert(), np.ones(37, np.float32)
    single = photometric_stereo(image, scene.direction, one)
    double = photometric_stereo(image, scene.direction, 2 * one)
    np.testing.assert_allclose(double.albedo, single.albedo / 2, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(double.normal[scene.mask], single.normal[scene.mask], atol=1e-3)


def test_unequal_strengths_must_be_told(scene):
    strength = np.random.default_rng(2).uniform(0.6, 1.4, 37).astype(np.float32)
    image = scene.lambert(strength) / 1.4
    told = photometric_stereo(image, scene.direction, strength)
    untold = photometric_stereo(image, scene.direction)
    assert angle_deg(told.normal, scene.normal)[scene.mask].max() < 0.1
    assert angle_deg(untold.normal, scene.normal)[scene.mask].mean() > 1


def test_the_residual_shows_where_a_highlight_lies(scene):
    image = scene.lambert()
    image[4, 30:34, 30:34] += 0.2
    surface = photometric_stereo(image, scene.direction)
    error = residual(image, surface, scene.direction)
    np.testing.assert_allclose(error[4, 30:34, 30:34], 0.2, atol=0.02)
    assert np.abs(error[:, scene.mask]).mean() < 1e-3


def test_pixels_without_information_have_no_confidence_and_a_finite_normal(scene):
    image = scene.lambert()
    image[:, :8] = 0
    image[:, -8:] = 1
    surface = photometric_stereo(image, scene.direction)
    assert surface.confidence[:8].max() == 0
    assert surface.confidence[-8:].max() == 0
    np.testing.assert_allclose(np.linalg.norm(surface.normal, axis=-1), 1, atol=1e-5)
    assert np.isfinite(surface.albedo).all()


def test_a_pixel_that_is_saturated_under_most_lights_is_still_found(scene):
    image = scene.lambert()
    image[5:, 32, 32] = 1
    surface = photometric_stereo(image, scene.direction)
    assert angle_deg(surface.normal[32, 32], scene.normal[32, 32]) < 1
    assert surface.confidence[32, 32] > 0.5


@pytest.mark.parametrize("count", [4, 5, 9])
def test_few_lights_are_enough_for_an_unspoilt_surface(scene, count):
    near = np.argsort(-scene.direction[:, 2])[:count]
    normal_ahead = scene.mask & (scene.normal[..., 2] > 0.7)
    surface = photometric_stereo(scene.lambert()[near], scene.direction[near])
    assert angle_deg(surface.normal, scene.normal)[normal_ahead].mean() < 0.5


def test_three_lights_are_solved_and_trusted_little():
    face, direction = lit_scene.face(), lit_scene.four_lamps()[:3]
    surface = photometric_stereo(face.lambert(direction).mean(axis=3), direction)
    lit = face.mask & (face.normal @ direction.T > 0.05).all(axis=2)
    assert angle_deg(surface.normal, face.normal)[lit].max() < 0.1
    assert surface.confidence.max() <= UNCHECKED


def test_each_further_light_halves_the_doubt():
    face = lit_scene.face()
    ahead = np.unravel_index(np.argmax(face.normal[..., 2]), face.mask.shape)
    found = []
    for count in (3, 4, 5, 12):
        turn = 2 * np.pi * np.arange(count) / count
        ring = np.stack((np.cos(turn), np.sin(turn), np.full(count, 2)), -1).astype(np.float32)
        direction = ring / np.sqrt(np.float32(5))
        surface = photometric_stereo(face.lambert(direction).mean(axis=3), direction)
        found.append(surface.confidence[ahead])
    np.testing.assert_allclose(found, (0.25, 0.625, 0.8125, 1), atol=0.01)


def test_of_four_lights_one_in_shadow_is_left_out_and_a_highlight_is_noticed():
    face, direction = lit_scene.face(), lit_scene.four_lamps()
    image = face.lambert(direction).mean(axis=3)
    shadow, highlight = np.s_[30:40, 20:30], np.s_[50:60, 50:60]
    image[1][shadow] *= 0.1
    image[2][highlight] += 0.3
    surface = photometric_stereo(image, direction)
    assert angle_deg(surface.normal, face.normal)[shadow].max() < 0.1
    assert surface.confidence[shadow].max() <= UNCHECKED
    assert angle_deg(surface.normal, face.normal)[highlight].min() > 5
    assert surface.confidence[highlight].max() < 0.3
    elsewhere = surface.confidence[70:80, 30:50]
    assert elsewhere.min() > 0.6


@pytest.mark.parametrize(("count", "usual", "mean"), [(4, 3, 9), (9, 1.2, 5), (24, 0.7, 1.5)])
def test_real_shadows_and_highlights_turn_normals_less_with_more_lights(count, usual, mean):
    face = lit_scene.face()
    direction = lit_scene.four_lamps() if count == 4 else lit_scene.lamps(count)
    surface = photometric_stereo(face.photograph(direction).mean(axis=3), direction)
    error = angle_deg(surface.normal, face.normal)[face.mask]
    assert np.median(error) < usual
    assert error.mean() < mean
    # Confidence knows where: the pixels it calls better are better.
    confidence = surface.confidence[face.mask]
    better = confidence > np.median(confidence)
    assert error[better].mean() < 0.6 * error[~better].mean()


def test_impossible_input_is_refused_with_the_reason(scene):
    image, direction = scene.lambert(), scene.direction
    with pytest.raises(ValueError, match="2 lights given; photometric stereo needs 3"):
        photometric_stereo(image[:2], direction[:2])
    with pytest.raises(ValueError, match="light 2 has length 2"):
        photometric_stereo(image, direction * np.where(np.arange(37) == 2, 2, 1)[:, None])
    flat = np.stack((np.linspace(-0.6, 0.6, 37), np.zeros(37), np.zeros(37)), -1)
    flat[:, 2] = np.sqrt(1 - flat[:, 0] ** 2)
    with pytest.raises(ValueError, match="lie in one plane"):
        photometric_stereo(image, flat)
    with pytest.raises(ValueError, match="not all positive"):
        photometric_stereo(image, direction, np.zeros(37))
    image[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        photometric_stereo(image, direction)
