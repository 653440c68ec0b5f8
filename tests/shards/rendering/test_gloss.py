"""The gloss of surfaces: reciprocity, and what it may mirror at most."""

import numpy as np
import pytest

from relightx.sh import spread_directions
from shards.rendering.gloss import fresnel, mirrored


def many(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit directions above the surface."""
    found = rng.normal(size=(count, 3))
    found[:, 2] = np.abs(found[:, 2]) + 0.05
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def on_a_floor(light: np.ndarray, view: np.ndarray, rough: object, bright: object) -> np.ndarray:
    """What a surface that looks up mirrors, for unit vectors to lamp and viewer."""
    along = np.asarray(np.einsum("nk,nk->n", light, np.broadcast_to(view, light.shape)))
    return mirrored(light[:, 2], view[..., 2], along, np.asarray(rough), np.asarray(bright))


def test_viewer_and_lamp_can_change_places():
    rng = np.random.default_rng(0)
    view, light = many(rng, 500), many(rng, 500)
    rough, bright = rng.uniform(0.1, 1, 500), rng.uniform(0, 1, 500)
    there = on_a_floor(light, view, rough, bright) / light[:, 2]
    back = on_a_floor(view, light, rough, bright) / view[:, 2]
    np.testing.assert_allclose(there, back, rtol=1e-9)


@pytest.mark.parametrize("roughness", [0.2, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("slant", [0.0, 0.5, 0.9])
def test_a_perfect_mirror_gives_back_no_more_than_it_gets(roughness, slant):
    light = spread_directions(40000).numpy()
    light = light[light[:, 2] > 0]
    view = np.array([[slant, 0, np.sqrt(1 - slant**2)]])
    given = on_a_floor(light, view, roughness, 1.0).sum() * 4 / 40000
    assert given < 1.02
    # What is scattered twice is lost in this model.
    assert given > {0.2: 0.99, 0.4: 0.91, 0.6: 0.78, 1.0: 0.3}[roughness]


def test_fresnel_runs_from_the_reflectance_to_one():
    at = fresnel(np.full(2, 0.028), np.array([1.0, 0.0]))
    np.testing.assert_allclose(at, [0.028, 1], atol=1e-12)
    assert not fresnel(np.zeros(2), np.array([1.0, 0.0])).any()


def test_a_highlight_lies_where_a_mirror_would_show_the_lamp():
    light = spread_directions(20000).numpy()
    light = light[light[:, 2] > 0]
    view = np.array([[0.5, 0.0, np.sqrt(0.75)]])
    brightest = light[np.argmax(on_a_floor(light, view, 0.2, 0.04))]
    assert brightest @ np.array([-0.5, 0, np.sqrt(0.75)]) > np.cos(np.radians(2))
