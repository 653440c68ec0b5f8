"""Traced light against what is known of it: furnace, sphere, shadows' places, brute force."""

import math

import numpy as np
import pytest
import torch
from mesh_scene import ball, scene_of, sheet

from relightx.sh import radiance, shade, spread_directions
from shards.rendering.heads import random_person
from shards.rendering.lamps import Lamp, bare_lamp_shading, lamp_light
from shards.rendering.points import Points, Shaded
from shards.rendering.scene import Scene, random_scene
from shards.rendering.skin import random_appearance
from shards.rendering.transport import bare_shading, finished, trace

EYE = np.eye(3)


@pytest.fixture(scope="module")
def head() -> Scene:
    """One head at 64 px."""
    rng = np.random.default_rng(5)
    person = random_person(rng)
    return random_scene(person, random_appearance(rng, person), rng, 64)


@pytest.fixture(scope="module")
def points(head) -> Points:
    return Points(head)


@pytest.fixture(scope="module")
def transport(points):
    return trace(points, EYE)


def painted(scene: Scene, **changed: float) -> Scene:
    """The scene with one value of a map everywhere."""
    maps = {name: np.full_like(getattr(scene, name), value) for name, value in changed.items()}
    return Scene(**{**vars(scene), **maps})


def even(points: Points, transport) -> Shaded:
    return lit(transport, np.ones((3, len(transport.direction)), np.float32))


def lit(transport, radiance: np.ndarray) -> Shaded:
    return transport.lights(np.ascontiguousarray(radiance)[None])[0]


def test_a_white_head_in_a_white_furnace_is_white(head):
    points = Points(painted(head, albedo=1, gloss=0))
    transport = trace(points, EYE)
    image, _ = finished(points, transport, even(points, transport))
    assert transport.openness.min() < 0.5  # much is in the way
    np.testing.assert_allclose(image, 1, atol=2e-4)
    ones = np.ones((3, len(transport.direction)), np.float32)
    np.testing.assert_allclose(bare_shading(points, transport.direction, ones), 1, atol=1e-5)


@pytest.mark.parametrize("roughness", [0.3, 0.5, 0.8])
def test_gloss_gives_back_what_it_takes(head, roughness):
    points = Points(painted(head, albedo=1, gloss=0.04, roughness=roughness))
    transport = trace(points, EYE)
    image, light = finished(points, transport, even(points, transport))
    assert transport.mirrored.min() > 0.01 and transport.mirrored.max() < 0.7
    np.testing.assert_allclose(image, 1, atol=2e-4)
    assert light.specular.min() > 0


def test_a_lamp_on_a_ball_shades_by_the_cosine():
    points = Points(scene_of(*ball()))
    direction = np.array([0.6, 0.5, 0.62449980])
    colour = np.array([1.0, 0.7, 0.4])
    lamp = Lamp((0.6, 0.5, 0.62449980), (1.0, 0.7, 0.4), radius=0.0)
    exact = np.maximum(points.normal @ direction, 0) * colour[:, None]
    np.testing.assert_allclose(bare_lamp_shading(points, lamp), exact, atol=1e-6)
    # A ball throws no shadow on itself; its facets do, where light grazes them.
    clear = np.abs(points.normal @ direction) > 0.06
    np.testing.assert_allclose(
        lamp_light(points, lamp).shading[:, clear], exact[:, clear], atol=1e-6
    )


def test_surroundings_on_a_ball_shade_as_their_harmonics_say():
    rng = np.random.default_rng(1)
    sh = torch.tensor(rng.normal(0, 0.25, (3, 9)), dtype=torch.float32)
    sh[:, 0] = 2.5
    points = Points(scene_of(*ball()))
    transport = trace(points, EYE)
    direction = torch.from_numpy(transport.direction)
    glow = radiance(sh, direction).numpy()
    assert glow.min() > 0
    normal = torch.from_numpy(points.normal.T[None, :, :, None].copy())
    exact = shade(normal, sh[None])[0, ..., 0].numpy()
    bare = bare_shading(points, transport.direction, np.ascontiguousarray(glow))
    np.testing.assert_allclose(bare, exact, rtol=0.012)
    facing = points.normal[:, 2] > 0.3
    np.testing.assert_allclose(lit(transport, glow).shading[:, facing], exact[:, facing], rtol=0.02)


def test_a_shadow_falls_where_it_must():
    # A small square 1 before a wall, lit from the upper left at 45 degrees: its shadow is 1 lower
    # and 1 to the right.
    screen = sheet(0.6, 1.0)
    points = Points(scene_of(*sheet(4.0, 0.0), screen, size=96, scale=24.0))
    lamp = Lamp(
        (-1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)), (1.0, 1.0, 1.0), radius=0.0
    )
    light = lamp_light(points, lamp)
    dark = light.shading[0] == 0
    x, y = points.place[:, 0], points.place[:, 1]
    inside = (np.abs(x - 1) < 0.3) & (np.abs(y + 1) < 0.3)
    near_edge = np.abs(np.maximum(np.abs(x - 1), np.abs(y + 1)) - 0.3) < 0.02
    assert (dark == inside)[~near_edge].all() and dark.sum() > 100


def test_a_large_lamp_has_a_soft_shadow_of_the_right_width():
    # Half a plane before a wall: how much of the disc is seen follows from geometry.
    screen = (sheet(6.0, 0.5)[0] + (3.0, 0, 0), sheet(6.0, 0.5)[1])
    radius = 0.25
    points = Points(scene_of(*sheet(3.0, 0.0), screen, size=128, scale=40.0))
    light = lamp_light(points, Lamp((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), radius=radius), samples=64)
    edge = -points.place[:, 0] / (0.5 * math.tan(radius))  # 1: the whole lamp, -1: nothing of it
    inside = np.clip(edge, -1, 1)
    exact = 0.5 + (inside * np.sqrt(1 - inside**2) + np.arcsin(inside)) / math.pi
    kept = np.abs(points.place[:, 1]) < 1
    error = np.abs(light.shading[0] - exact)[kept]
    assert error.mean() < 0.01 and error.max() < 0.12
    near = lamp_light(points, Lamp((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), radius=radius))
    assert np.abs(near.shading[0] - exact)[kept].mean() < 0.02


def test_a_near_lamp_fades_with_the_square_of_its_distance():
    points = Points(scene_of(*sheet(3.0, 0.0), size=64, scale=20.0))
    lamp = Lamp((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), radius=0.0, distance=2.0)
    light = lamp_light(points, lamp)
    away = points.place[:, 0] ** 2 + points.place[:, 1] ** 2 + 4
    np.testing.assert_allclose(light.shading[0], 4 / away * 2 / np.sqrt(away), rtol=1e-5)


def test_composed_light_is_light_traced_by_itself(points, transport):
    """The cells' sum against 4,096 rays from each pixel that know of no cell."""
    sh = torch.zeros(3, 9)
    sh[:, 0], sh[:, 1], sh[:, 3] = 2.0, 0.8, torch.tensor([0.6, -0.2, 0.1])
    cells = torch.from_numpy(transport.direction)
    glow = radiance(sh, cells).numpy()
    composed = lit(transport, glow).shading
    rays = spread_directions(4096).numpy().astype(np.float32)
    fine = radiance(sh, torch.from_numpy(rays)).T.numpy()
    traced = np.zeros_like(composed)
    for toward, bright in zip(rays, fine, strict=True):
        cosine = np.maximum(points.normal @ toward, 0)
        cosine *= points.lit(toward, cosine)
        traced += cosine * bright[:, None] * 4 / len(rays)
    error = np.abs(composed - traced)
    assert np.sqrt((error**2).mean()) < 0.012 * traced.mean() / 0.5
    assert np.median(error / np.maximum(traced, 0.05)) < 0.01


def test_a_large_picture_is_traced_as_if_every_pixel_were(monkeypatch):
    rng = np.random.default_rng(5)
    person = random_person(rng)
    large = Points(random_scene(person, random_appearance(rng, person), rng, 256))
    wrong, asked = [], spread_directions(12).numpy().astype(np.float32)
    for toward in asked[asked[:, 2] > -0.5]:
        cosine = large.normal @ toward
        seen = large.lit(toward, cosine)
        monkeypatch.setattr("shards.rendering.points._LARGE", 1000)
        wrong.append((seen != large.lit(toward, cosine)).mean())
        monkeypatch.undo()
    assert max(wrong) < 0.002


def test_light_adds_up(points, transport):
    rng = np.random.default_rng(2)
    one, two = rng.uniform(0, 1, (2, 3, len(transport.direction))).astype(np.float32)
    both, first, second = transport.lights(np.stack((one + two, one, two)))
    apart = first + second
    for name in ("shading", "specular"):
        np.testing.assert_allclose(getattr(both, name), getattr(apart, name), rtol=1e-4, atol=1e-6)


def test_another_turn_of_the_cells_gives_the_same_light(points, transport):
    quarter = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], float)
    other = trace(points, quarter)
    difference = np.abs(even(points, other).shading - even(points, transport).shading)
    assert difference.mean() < 0.006
