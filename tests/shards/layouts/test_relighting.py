"""Lamps stand for the parts of an environment, and what they emit explains what they light."""

import math
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from balls import sphere

from relightx.light import Light
from relightx.sh import (
    ambient_light,
    directional_light,
    environment_directions,
    environment_light,
    radiance,
    rotate,
    shade,
)
from shards.layouts.relighting import (
    Environment,
    emitted_light,
    environment,
    environment_names,
    lamp_power,
    white_balance,
)
from shards.rendering.lights import rotation


def all_around(count: int) -> np.ndarray:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count)
    y = 1 - 2 * (index + 0.5) / count
    turn, ring = index * math.pi * (3 - math.sqrt(5)), np.sqrt(1 - y * y)
    return np.stack((ring * np.cos(turn), y, ring * np.sin(turn)), axis=1).astype(np.float32)


def in_front(count: int) -> np.ndarray:
    direction = all_around(2 * count)
    return direction[direction[:, 2] > 0]


@pytest.fixture
def white() -> Environment:
    return Environment("white", np.ones((3, 64, 128), np.float32))


@pytest.fixture
def room() -> Environment:
    """A smooth environment: red from +x, green from above, blue from the camera."""
    sh = 0.5 * directional_light(torch.eye(3)) + ambient_light(0.5)
    toward, _ = environment_directions(64, 128)
    light = radiance(sh, toward.reshape(-1, 3).float()).clamp_min(0)
    return Environment("room", light.reshape(3, 64, 128).numpy())


def map_light(environment: Environment, turn_deg: int) -> np.ndarray:
    """Coefficients of a whole environment, turned about the vertical."""
    turn = torch.from_numpy(rotation(math.radians(turn_deg), 0.0, 0.0)).float()
    return rotate(environment_light(torch.from_numpy(environment.radiance)), turn).numpy()


def write_map(file: Path, picture: np.ndarray) -> None:
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    with OpenEXR.File(header, {"RGB": np.ascontiguousarray(picture)}) as written:
        written.write(str(file))


def test_a_white_environment_gives_all_lamps_the_power_of_the_sphere(white):
    power = lamp_power(white, all_around(150), 37)
    np.testing.assert_allclose(power.sum(axis=0), 4 * np.pi, rtol=1e-6)
    assert power.std() < 0.05 * power.mean()


def test_a_white_environment_around_a_full_sphere_of_lamps_shades_to_one(white):
    direction = all_around(150)
    power = lamp_power(white, direction, 0)
    normal, _ = sphere(16)
    cosine = np.maximum(np.einsum("chw,lc->lhw", normal.numpy(), direction), 0)
    # A lamp of strength 1 shades what faces it to 1.
    shading = np.einsum("lc,lhw->chw", power / np.pi, cosine)
    np.testing.assert_allclose(shading, 1, atol=0.02)
    sh = emitted_light(power, direction)
    np.testing.assert_allclose(sh, np.tile(ambient_light(1.0).numpy(), (3, 1)), atol=0.02)


def test_what_many_lamps_all_around_emit_is_the_environment(room):
    direction = all_around(300)
    for turn in (0, 90, 211):
        emitted = emitted_light(lamp_power(room, direction, turn), direction)
        expected = map_light(room, turn)
        np.testing.assert_allclose(emitted, expected, atol=0.03 * np.abs(expected).max())


def test_environments_turn_as_lights_on_the_command_line_do(tmp_path, room):
    write_map(tmp_path / "room.exr", room.radiance.transpose(1, 2, 0))
    direction = all_around(300)
    emitted = emitted_light(lamp_power(environment(tmp_path, "room.exr"), direction, 70), direction)
    expected = Light.from_environment(tmp_path / "room.exr", turn_deg=70.0).sh
    scale = expected[:, 0].sum() / emitted[:, 0].sum()  # maps there have mean luminance 1
    np.testing.assert_allclose(emitted * scale, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize("lamps", [all_around(150), in_front(150)], ids=["around", "front"])
def test_the_lamps_light_explains_the_picture_better_than_the_map_s(room, lamps):
    """The choice of what is stored: with lamps in front alone, the map's light is far off."""
    normal, mask = sphere(24)
    power = lamp_power(room, lamps, 20)
    cosine = np.maximum(np.einsum("chw,lc->lhw", normal.numpy(), lamps), 0)
    seen = np.einsum("lc,lhw->chw", power / np.pi, cosine)[:, mask.numpy()]

    def residual(sh: np.ndarray) -> float:
        shading = shade(normal, torch.from_numpy(sh)).numpy()[:, mask.numpy()]
        return float(np.abs(shading - seen).mean() / seen.mean())

    of_map = residual(map_light(room, 20))
    emitted = residual(emitted_light(power, lamps))
    assert emitted < 0.02
    assert emitted < of_map
    if (lamps[:, 2] > 0).all():
        assert of_map > 5 * emitted


def test_light_from_where_no_lamp_is_is_left_out(white):
    power = lamp_power(white, in_front(100), 0)
    # Half the sphere and one lamp's distance (about 14 degrees) beyond its edge.
    assert 2 * np.pi < power[:, 0].sum() < 2 * np.pi * (1 + 1.8 * math.sin(math.radians(14)))


def test_a_lamp_in_the_map_lights_the_lamp_nearest_to_it():
    bright = np.zeros((3, 64, 128), np.float32)
    bright[:, 32, 96] = 50  # the middle of the right half: +x
    direction = all_around(100)
    power = lamp_power(Environment("lamp", bright), direction, 0)
    nearest = int(np.argmax(direction @ [1, 0, 0]))
    assert power[nearest, 0] == pytest.approx(power.sum() / 3)


def test_balance_takes_most_of_a_cast_away_and_keeps_the_brightness():
    direction = in_front(20)
    power = np.ones((2, len(direction), 3)) * [0.2, 0.6, 2.2]
    power[1] = 1
    balanced = power * white_balance(power, direction)
    spread = [np.ptp(np.log(light.sum(axis=0))) for light in (power[0], balanced[0])]
    assert spread[1] == pytest.approx(0.3 * spread[0])
    np.testing.assert_allclose(balanced.mean(axis=(1, 2)), power.mean(axis=(1, 2)))
    np.testing.assert_allclose(balanced[1], 1)


def test_shipped_environments_need_no_folder():
    names = environment_names(None)
    assert len(names) == 14
    map_ = environment(None, names[0])
    assert map_.radiance.shape == (3, 128, 256) and map_.radiance.min() >= 0


def test_a_large_map_keeps_its_light_when_it_is_made_smaller(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.gamma(0.1, 5, (512, 1024, 3)).astype(np.float32)
    write_map(tmp_path / "big.exr", picture)
    small = environment(tmp_path, "big.exr").radiance
    assert small.shape == (3, 128, 256)
    whole = environment_light(torch.from_numpy(picture.transpose(2, 0, 1).copy())).numpy()
    made = environment_light(torch.from_numpy(small)).numpy()
    np.testing.assert_allclose(made, whole, atol=0.002 * np.abs(whole).max())


def test_a_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no .hdr or .exr map"):
        environment_names(tmp_path)
