"""Random light for traced scenes, and the coefficients that it is labelled with."""

import math

import numpy as np
import torch

from relightx.sh import dominant_direction, sh_basis, spread_directions
from shards.rendering.illumination import Illumination, Part, random_illumination
from shards.rendering.lamps import Lamp
from shards.rendering.lights import rotation
from shards.rendering.surroundings import shipped_surroundings

NONE = np.zeros(3)


def projected(radiance: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Coefficients of what comes from cells of directions."""
    basis = sh_basis(torch.from_numpy(direction)).numpy()
    return radiance @ basis * 4 * math.pi / len(direction)


def test_a_turned_map_is_labelled_with_the_light_that_comes_from_it():
    direction = spread_directions(256).numpy().astype(np.float32)
    gain = np.array([0.5, 1.0, 2.0])
    for name, surroundings in shipped_surroundings().items():
        part = Part(surroundings, rotation(1.0, 0.3, -0.2), gain)
        light = Illumination(name, NONE, (part,), ())
        sh = projected(light.radiance(direction), direction)
        suns = Illumination(name, NONE, (), light.all_lamps())
        np.testing.assert_allclose(sh + suns.sh, light.sh, atol=0.06 * np.abs(light.sh).max())


def test_even_light_and_lamps_are_labelled_as_they_are():
    lamp = Lamp((0.6, 0.0, 0.8), (1.0, 0.5, 0.25))
    light = Illumination("lamps 1", np.full(3, 0.5), (), (lamp,))
    toward = dominant_direction(torch.from_numpy(light.sh))
    np.testing.assert_allclose(toward.numpy(), lamp.direction, atol=1e-6)
    cells = spread_directions(64).numpy().astype(np.float32)
    np.testing.assert_allclose(light.radiance(cells), 0.5)
    # Shading of what faces the lamp: 1.0625 of its colour to second order, and the even light.
    first = light.sh[:, 0] / math.sqrt(math.pi * 4)
    np.testing.assert_allclose(first, 0.5 + np.array(lamp.colour) / 4, rtol=1e-5)


def test_light_is_of_every_kind_and_never_from_behind_alone():
    rng = np.random.default_rng(0)
    maps = shipped_surroundings()
    lights = [random_illumination(rng, maps, 12.0) for _ in range(400)]
    kinds = [light.name.split()[0] for light in lights]
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    assert set(shares) == {"environment", "lamps", "flash"}
    assert 0.4 < shares["environment"] < 0.6 and 0.05 < shares["flash"] < 0.16
    sh = torch.from_numpy(np.stack([light.sh for light in lights]))
    assert (dominant_direction(sh)[:, 2] > -0.7).all()
    lamps = [lamp for light in lights for lamp in light.all_lamps()]
    assert min(lamp.distance for lamp in lamps) >= 7
    assert all(0 < lamp.radius < 0.5 for lamp in lamps)
    assert all(np.linalg.norm(lamp.direction) - 1 < 1e-5 for lamp in lamps)
    assert all(min(lamp.colour) >= 0 for lamp in lamps)


def test_a_light_is_a_function_of_the_seed():
    maps = shipped_surroundings()
    one, two = (
        [random_illumination(np.random.default_rng(3), maps, 12.0).sh for _ in range(2)]
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)


def test_without_maps_there_are_lamps():
    rng = np.random.default_rng(0)
    names = {random_illumination(rng, {}, 12.0).name.split()[0] for _ in range(60)}
    assert names == {"lamps", "flash"}
