"""Fine relief: one surface of heights, seen alike by shading and labels, gone where too fine."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.color import LUMINANCE
from relightx.sh import shade
from shards.rendering.chart import Chart
from shards.rendering.creases import random_creases
from shards.rendering.hair import AXIS_Z, UNROLLED_RADIUS
from shards.rendering.heads import Person, random_person
from shards.rendering.relief import heights, random_relief, tilt
from shards.rendering.synthetic import synthetic_one


@pytest.fixture(scope="module")
def person() -> Person:
    return replace(random_person(np.random.default_rng(2)), age=70.0)


@pytest.fixture(scope="module")
def relief(person):
    return random_relief(np.random.default_rng(5), person)


def on_cylinder(around: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of a cylinder that unrolls without stretching, and its normals."""
    angle = around / UNROLLED_RADIUS
    normal = np.stack((np.sin(angle), 0 * angle, np.cos(angle)), axis=-1)
    place = normal * UNROLLED_RADIUS + np.stack((0 * angle, height, AXIS_Z + 0 * angle), axis=-1)
    return place.reshape(-1, 3).astype(np.float32), normal.reshape(-1, 3).astype(np.float32)


def slopes(relief, spacing: float) -> np.ndarray:
    """Tilts on a grid over the face, two components."""
    around, height = np.meshgrid(np.arange(-0.5, 0.5, 0.004), np.arange(6.3, 7.9, 0.004))
    place, normal = on_cylinder(around, height)
    chart = Chart.of_spacing(spacing)
    found = tilt(heights(relief, chart), chart, place, normal)
    east = np.stack((normal[:, 2], 0 * normal[:, 0], -normal[:, 0]), axis=-1)
    return np.stack(((found * east).sum(axis=1), found[:, 1])).reshape(2, *around.shape)


def test_tilt_is_minus_the_slope_of_the_heights(relief):
    """Summed along a way it gives how much lower its end lies; so around a loop, nothing."""
    chart = Chart.of_spacing(0.002)
    # Of pores as small as a cell, slopes between cells are a guess.
    height = cv2.GaussianBlur(heights(relief, chart), (0, 0), 2)
    along = np.linspace(0, 1, 4000)
    for start, end in (
        ((-0.4, 7.7), (0.35, 7.85)),
        ((0.1, 6.5), (0.45, 7.2)),
        ((0.3, 7.3), (0.3, 6.4)),
    ):
        way = np.array(start) + along[:, None] * (np.array(end) - start)
        place, normal = on_cylinder(way[:, 0], way[:, 1])
        step = np.diff(place, axis=0)
        slope = -tilt(height, chart, place, normal)
        climbed = np.concatenate(([0], np.cumsum((slope[1:] * step).sum(axis=1))))
        known = chart.look_up(height, way)
        np.testing.assert_allclose(climbed, known - known[0], atol=0.02 * np.ptp(known))
        assert np.ptp(known) > 5e-4


def test_tilt_lies_in_the_surface(relief):
    chart = Chart.of_spacing(0.004)
    rng = np.random.default_rng(0)
    place, _ = on_cylinder(rng.uniform(-0.5, 0.5, 500), rng.uniform(6.3, 7.9, 500))
    normal = rng.normal(size=(500, 3)).astype(np.float32)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    found = tilt(heights(relief, chart), chart, place, normal)
    assert np.abs((found * normal).sum(axis=1)).max() < 1e-5 and np.abs(found).max() > 0.05


def test_what_is_finer_than_the_samples_fades_out(relief):
    spread = [float(slopes(relief, spacing).std()) for spacing in (0.002, 0.008, 0.03, 0.12)]
    assert spread[0] > 1.3 * spread[1] > 1.3**2 * spread[2]
    assert spread[0] > 0.03 and spread[3] < 0.01


def test_a_far_camera_sees_the_mean_of_what_a_near_one_sees(relief):
    """Not other, coarser noise: that would be aliasing."""
    fine, coarse = Chart(0.005), Chart(0.02)
    near, far = heights(relief, fine), heights(relief, coarse)
    rows, columns = (side // 4 * 4 for side in near.shape)
    mean = near[:rows, :columns].reshape(rows // 4, 4, columns // 4, 4).mean(axis=(1, 3))
    mean, far = (values[20:100, 20:100] for values in (mean, far))
    assert np.corrcoef(mean.ravel(), far.ravel())[0, 1] > 0.95


def depth(person: Person, group: slice = slice(None)) -> float:
    creases = random_creases(np.random.default_rng(3), person)[group]
    return sum(float(crease.depth.mean()) for crease in creases)


def test_wrinkles_grow_with_age_and_with_the_expression(person):
    still = replace(person, features={})
    by_age = [depth(replace(still, age=age)) for age in (10.0, 25.0, 50.0, 75.0)]
    assert by_age[0] < by_age[1] < 0.3 * by_age[2] < 0.3 * by_age[3]
    raised = {"expression/units/asian/eyebrows-left-up": 0.5}
    for age in (25.0, 60.0):
        usual = replace(still, age=age)
        forehead = slice(4)  # drawn first
        assert depth(replace(usual, features=raised), forehead) > 1.2 * depth(usual, forehead)


def fine(picture: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What changes within a few pixels, there."""
    weight = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 2)
    picture = picture.reshape(inside.shape)
    slow = cv2.GaussianBlur((picture * inside).astype(np.float32), (0, 0), 2)
    return (picture - slow / np.maximum(weight, 1e-3))[inside]


def test_labels_have_the_relief_that_is_seen():
    """The fine part of shading is that of the label normals, and not that of the smooth head's."""
    settings = {"size": 192, "seed": 3, "framing": "face"}
    portrait = synthetic_one(3, lights=6, light="traced", layers=True, **settings)
    simple = synthetic_one(3, lights=1, **settings)
    inside = portrait.mask & (portrait.layers["skin"][..., 0] > 0.99)
    weight = np.array(LUMINANCE)
    alike = []
    for number, sh in enumerate(portrait.sh):
        seen = portrait.layers[f"light{number:03d}.bare"] @ weight
        pair = torch.from_numpy(np.stack((portrait.normal, simple.normal)).transpose(0, 3, 1, 2))
        known = shade(pair, torch.from_numpy(sh)[None].expand(2, 3, 9)).clamp_min(0).numpy()
        label, smooth = (fine(weight @ picture.reshape(3, -1), inside) for picture in known)
        alike.append(np.corrcoef(fine(seen, inside) - smooth, label - smooth)[0, 1])
    assert np.median(alike) > 0.7
