from pathlib import Path

import numpy as np
import pytest
from lit_scene import angle_deg, face, four_lamps, lamps

from relightx.picture import read_picture
from shards.labelling.light_estimation import (
    FEWEST_LIGHTS,
    MEMBER,
    estimate_lights,
    estimate_strengths,
)
from shards.labelling.photometric_stereo import photometric_stereo
from shards.sources.yaleb import is_frontal, light_direction

PHOTOGRAPHS = Path(__file__).parents[4] / "shared" / "data" / "yaleb"
DIRECTION = lamps(24)


@pytest.fixture(scope="module")
def scene():
    return face()


def gray(image):
    return image.mean(axis=3)


def best_member(found, direction):
    """The bas-relief transformation of the lights found that brings them nearest to the true ones.

    Lights turn by rows (k, 0, 0), (0, k, 0), (m, n, l), known here because the truth is.
    """
    power = np.ones(len(direction))
    for _ in range(100):
        target = direction * power[:, None]
        scale = (found[:, :2] * target[:, :2]).sum() / (found[:, :2] ** 2).sum()
        row = np.linalg.lstsq(found, target[:, 2], rcond=None)[0]
        matrix = np.array([(scale, 0, 0), (0, scale, 0), row])
        power = (found @ matrix.T * direction).sum(axis=1)
        power /= power.mean()
    return matrix


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_a_lambertian_face_is_found_up_to_its_bas_relief(scene):
    image = gray(scene.lambert(DIRECTION))
    lights = estimate_lights(image, scene.mask)
    surface = photometric_stereo(image, lights.direction, lights.strength)
    matrix = best_member(lights.direction * lights.strength[:, None], DIRECTION)
    assert angle_deg(unit(lights.direction @ matrix.T), DIRECTION).max() < 1
    normal = unit(surface.normal @ np.linalg.inv(matrix))
    assert np.median(angle_deg(normal, scene.normal)[scene.mask]) < 0.5
    # Without that knowledge the usual member is near, and no nearer than skin is of one colour.
    assert np.median(angle_deg(lights.direction, DIRECTION)) < 2
    assert np.median(angle_deg(surface.normal, scene.normal)[scene.mask]) < 2
    assert lights.member == MEMBER


@pytest.mark.parametrize("masked", [True, False])
def test_shadows_highlights_and_unequal_lamps_move_the_lights_little(scene, masked):
    power = np.random.default_rng(4).uniform(0.8, 1.3, 24).astype(np.float32)
    image = gray(scene.photograph(DIRECTION, power))
    lights = estimate_lights(image, scene.mask if masked else None)
    matrix = best_member(lights.direction * lights.strength[:, None], DIRECTION)
    assert angle_deg(unit(lights.direction @ matrix.T), DIRECTION).max() < 4
    assert np.median(angle_deg(lights.direction, DIRECTION)) < 4
    np.testing.assert_allclose(lights.strength, power / np.median(power), rtol=0.15)


def test_the_answer_is_a_face_and_not_its_hollow_mould(scene):
    for seed in range(3):
        direction = lamps(16, seed, tilt_deg=40)
        lights = estimate_lights(gray(scene.photograph(direction)), scene.mask)
        assert (lights.direction[:, 2] > 0).all()
        assert (lights.direction[:, :2] * direction[:, :2]).sum(axis=1).min() > 0


def test_a_mirrored_portrait_has_mirrored_lights(scene):
    image = gray(scene.photograph(DIRECTION))
    lights = estimate_lights(image, scene.mask)
    mirrored = estimate_lights(image[:, :, ::-1].copy(), scene.mask[:, ::-1].copy())
    flipped = mirrored.direction * np.float32((-1, 1, 1))
    assert angle_deg(flipped, lights.direction).max() < 1


def test_exposure_and_size_of_the_pictures_change_nothing(scene):
    image = gray(scene.lambert(DIRECTION))
    lights = estimate_lights(image, scene.mask)
    darker = estimate_lights(image / 2, scene.mask)
    doubled = image.repeat(2, axis=1).repeat(2, axis=2)
    large = estimate_lights(doubled, scene.mask.repeat(2, axis=0).repeat(2, axis=1))
    assert angle_deg(darker.direction, lights.direction).max() < 1
    assert angle_deg(large.direction, lights.direction).max() < 1


@pytest.mark.parametrize("count", [4, 5, 9, 24])
def test_strengths_of_lamps_with_known_directions_are_found(scene, count):
    direction = four_lamps() if count == 4 else lamps(count, 3)
    power = np.random.default_rng(0).uniform(0.5, 1.1, count).astype(np.float32)
    found = estimate_strengths(gray(scene.lambert(direction, power)), direction, scene.mask)
    np.testing.assert_allclose(found, power / np.median(power), rtol=0.02)


def test_normals_gain_by_the_strengths_that_are_found(scene):
    direction = lamps(24, 3)
    power = np.random.default_rng(0).uniform(0.5, 1.1, 24).astype(np.float32)
    image = gray(scene.photograph(direction, power))
    error = [
        np.median(angle_deg(photometric_stereo(image, direction, s).normal, scene.normal))
        for s in (None, estimate_strengths(image, direction, scene.mask))
    ]
    assert error[1] < 0.4 * error[0]


def test_three_lights_do_not_tell_their_strengths(scene):
    image = gray(scene.lambert(four_lamps()[:3]))
    assert estimate_strengths(image, four_lamps()[:3], scene.mask).tolist() == [1, 1, 1]


def test_what_does_not_tell_lights_is_refused(scene):
    image = gray(scene.lambert(DIRECTION))
    with pytest.raises(ValueError, match=f"9 lights; {FEWEST_LIGHTS} needed to estimate"):
        estimate_lights(image[:9], scene.mask)
    with pytest.raises(ValueError, match="0 pixels of 80x96 are on the portrait and not black"):
        estimate_lights(np.zeros_like(image), scene.mask)
    with pytest.raises(ValueError, match="0 pixels"):
        estimate_lights(image, np.zeros_like(scene.mask))
    with pytest.raises(ValueError, match="different directions do not explain"):
        estimate_lights(np.repeat(image[:1], 12, axis=0), scene.mask)
    image[3, 40, 40] = np.nan
    for estimate in (estimate_lights, lambda i, m: estimate_strengths(i, DIRECTION, m)):
        with pytest.raises(ValueError, match="not finite"):
            estimate(image, scene.mask)


@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="the Extended Yale B photographs are not beside the checkout"
)
def test_lights_of_real_faces_are_found_to_some_degrees():
    error = []
    for subject in ("yaleB19", "yaleB24", "yaleB31", "yaleB36"):
        files = {file.stem[11:]: file for file in sorted((PHOTOGRAPHS / subject).glob("*.png"))}
        names = [name for name in files if is_frontal(name)]
        image = np.stack([read_picture(files[name])[..., 0] / np.float32(255) for name in names])
        lights = estimate_lights(image)
        direction = np.stack([light_direction(name) for name in names])
        error.append(np.median(angle_deg(lights.direction, direction)))
    assert np.median(error) < 5 and max(error) < 7
