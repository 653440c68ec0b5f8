"""Environment maps for traced light: their suns are taken out, and no light is lost by it."""

import math

import cv2
import numpy as np
import pytest
import torch

from relightx.environment import of_mean_luminance_1
from relightx.sh import environment_directions, environment_light
from shards.rendering.environments import shipped_environments
from shards.rendering.surroundings import read_surroundings, shipped_surroundings, surroundings


def with_a_sun(direction: np.ndarray, radius: float, bright: float) -> np.ndarray:
    """A map of a gray sky with a disc in it."""
    toward = environment_directions(64, 128)[0].numpy()
    inside = toward @ direction > math.cos(radius)
    return np.where(inside[..., None], bright, 1.0).astype(np.float32) * np.ones(3, np.float32)


def test_the_shipped_maps_have_the_light_of_the_shipped_harmonics():
    harmonics = shipped_environments()
    found = shipped_surroundings()
    assert list(found) == list(harmonics) and len(found) == 14
    for name in set(found) - {"park", "sunrise"}:
        light = found[name]
        # What is not on the sun's middle moves there: a twentieth of the largest coefficient.
        error = np.abs(light.sh - harmonics[name]).max()
        assert error < 0.05 * np.abs(harmonics[name]).max() / 2, name
    for name in ("park", "sunrise"):  # whose suns were blue
        np.testing.assert_allclose(found[name].sh[:2], harmonics[name][:2], atol=0.15)
        assert found[name].sh[2, 0] < 0.8 * harmonics[name][2, 0]
    assert len(found["esplanade"].suns) == 2 and not found["apartment"].suns


def test_a_sun_is_found_where_and_as_strong_as_it_is():
    direction = np.array([0.48, 0.6, 0.64])
    radius = math.radians(5)
    light = surroundings("sunny", with_a_sun(direction, radius, 400.0))
    (sun,) = light.suns
    assert sun.direction @ direction > math.cos(math.radians(0.5))
    assert sun.radius == pytest.approx(radius, rel=0.15)
    disc = (1 - math.cos(radius)) / 2  # of the sphere
    mean = 1 + 399 * disc
    np.testing.assert_allclose(sun.colour, 4 * 399 * disc / mean, rtol=0.1)
    np.testing.assert_allclose(light.radiance, 1 / mean, rtol=0.02)


def test_a_sky_without_a_sun_has_none():
    assert not surroundings("even", np.ones((64, 128, 3), np.float32)).suns


def test_taking_suns_out_keeps_the_light():
    picture = with_a_sun(np.array([0.0, 0.6, 0.8]), 0.12, 200.0)
    light = surroundings("sunny", picture)
    assert light.suns
    whole = environment_light(torch.from_numpy(picture.transpose(2, 0, 1).copy())).numpy()
    whole = of_mean_luminance_1(whole, "whole")
    np.testing.assert_allclose(light.sh, whole, atol=0.02 * whole.max())


def test_a_dark_map_is_refused():
    with pytest.raises(ValueError, match=r"night: its mean luminance is 0; light is needed"):
        surroundings("night", np.zeros((64, 128, 3), np.float32))


def test_a_folder_of_maps_is_read(tmp_path):
    picture = with_a_sun(np.array([0.0, 0.6, 0.8]), 0.12, 200.0)
    large = cv2.resize(picture, (512, 256), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(tmp_path / "day.hdr"), large)
    (light,) = read_surroundings(tmp_path).values()
    assert light.name == "day" and len(light.suns) == 1
    with pytest.raises(ValueError, match=r"holds no \.hdr or \.exr map"):
        read_surroundings(tmp_path.parent / tmp_path.name / "..")
