"""Strands of hair: finer from near, gone where samples would miss them, and their label."""

import numpy as np
import pytest

from relightx.layers import PARTS
from shards.rendering.grain import grain_at
from shards.rendering.noise import field
from shards.rendering.strands import brow_hairs, single_hairs, strands
from shards.rendering.synthetic import synthetic_one


def line(step: float, count: int = 4000) -> np.ndarray:
    """Places along a line across the hairs."""
    around = np.arange(count) * step
    return np.stack((around, np.full(count, 7.9)), axis=1).astype(np.float32)


def test_from_afar_strands_are_the_one_pattern_of_simple_heads() -> None:
    place = line(0.001)
    assert np.array_equal(strands(place, 3.0), field(place, "strands", 3.0))


def test_from_near_strands_hold_finer_hairs_than_from_afar() -> None:
    place = line(0.001)
    near, afar = strands(place, 3.0, 0.002), strands(place, 3.0)
    turns = [np.count_nonzero(np.diff(np.sign(np.diff(values)))) for values in (near, afar)]
    assert turns[0] > 1.5 * turns[1]


@pytest.mark.parametrize("hairs", [single_hairs, brow_hairs])
def test_hairs_fade_where_samples_would_miss_them(hairs) -> None:
    spread = [hairs(line(0.003), 1.0, spacing).std() for spacing in (0.002, 0.02, 0.2)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 0.25 * spread[0]


def test_a_coarse_pattern_is_the_mean_of_the_fine_one() -> None:
    cell = 8 / 640  # a level of the pattern's means
    fine = (np.arange(8) + 0.5) * cell / 8
    corners = np.random.default_rng(0).integers(0, 120, (50, 2)) * cell
    around, up = np.meshgrid(fine, fine)
    within = np.stack((around.ravel(), up.ravel()), axis=1)
    every = (corners[:, None] + within).reshape(-1, 2).astype(np.float32)
    mean = grain_at(every, 1 / 640, "hairs").reshape(50, 64).mean(axis=1)
    coarse = grain_at((corners + cell / 2).astype(np.float32), cell, "hairs")
    assert np.abs(mean - coarse).max() < 0.05


def test_the_label_of_a_beard_follows_its_single_hairs() -> None:
    """Along its edge, what is labelled beard is darker than the skin beside it."""
    portrait = synthetic_one(11, lights=1, size=256, light="traced", layers=True)
    part, bright = portrait.layers["parts"][..., 0], portrait.albedo.mean(axis=2)
    beard, skin = (part == PARTS.index(name) for name in ("beard", "skin"))
    beside = beard[:, 1:] & skin[:, :-1], beard[:, :-1] & skin[:, 1:]
    assert sum(pairs.sum() for pairs in beside) > 150
    darker = [bright[:, 1:] < bright[:, :-1], bright[:, :-1] < bright[:, 1:]]
    right = sum((pairs & dark).sum() for pairs, dark in zip(beside, darker, strict=True))
    assert right > 0.97 * sum(pairs.sum() for pairs in beside)
