"""Directions that the pictures contradict are refused, with the axes that fit."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from balls import sphere

from shards.layouts.lamp_axes import check_axes, described
from shards.layouts.light_tables import axes_matrix

WAYS = [
    np.diag(signs)[list(order)].astype(float)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


@pytest.fixture(scope="module")
def lit():
    """A ball under 20 lamps, two thirds of them in front, and their directions."""
    rng = np.random.default_rng(0)
    direction = rng.normal((0, 0, 0.5), 1, (20, 3))
    direction = (direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)
    normal, mask = sphere(24)
    image = (
        torch.einsum("chw,lc->lhw", normal, torch.from_numpy(direction)).clamp(min=0) * mask
    ).numpy()
    return image, direction


def test_the_right_axes_pass(lit):
    image, direction = lit
    check_axes(image, direction, np.eye(3))


@pytest.mark.parametrize("way", WAYS[1:], ids=described)
def test_any_other_way_is_refused_and_the_right_one_named(lit, way):
    """A table in some frame, read without --axes: the message says what --axes must be."""
    image, direction = lit
    theirs = (direction @ way.T).astype(np.float32)
    with pytest.raises(ValueError, match=r"axes '(.+)' in place of 'x,y,z' would fit") as error:
        check_axes(image, theirs, np.eye(3))
    advised = axes_matrix(str(error.value).split("'")[1])
    np.testing.assert_allclose(theirs @ advised.T, direction, atol=1e-6)


def test_advice_takes_the_axes_into_account_that_were_given(lit):
    image, direction = lit
    given = axes_matrix("x,-y,-z")
    theirs = direction @ axes_matrix("-x,-y,-z").T
    with pytest.raises(ValueError, match="axes '-x,-y,-z' in place of 'x,-y,-z' would fit"):
        check_axes(image, (theirs @ given.T).astype(np.float32), given)


def test_few_lights_are_not_judged(lit):
    image, direction = lit
    check_axes(image[:5], -direction[:5], np.eye(3))


def test_patches_of_albedo_change_nothing(lit):
    image, direction = lit
    albedo = np.linspace(0.05, 1, 24)[None, None] ** 2
    check_axes((image * albedo).astype(np.float32), direction, np.eye(3))
