import numpy as np
import pytest
from relief import relief

from shards.layouts.axes import axes, described

NAMES = ("right", "left", "up", "down")


def pointing(normal: np.ndarray, name: str) -> np.ndarray:
    """The part of our normals along a direction of the picture."""
    return {
        "right": normal[..., 0],
        "left": -normal[..., 0],
        "up": normal[..., 1],
        "down": -normal[..., 1],
    }[name].astype(np.float32)


WAYS = [
    (first, second)
    for first in NAMES
    for second in NAMES
    if (first in NAMES[:2]) != (second in NAMES[:2])
]


@pytest.mark.parametrize(("first", "second"), WAYS)
def test_any_of_the_eight_ways_is_told_from_a_head(first, second):
    normal, _, mask = relief()
    way = axes(pointing(normal, first), pointing(normal, second), mask)
    assert described(way) == (first, second)
    parts = np.stack((pointing(normal, first), pointing(normal, second)), axis=-1)
    np.testing.assert_allclose((parts @ way.T)[mask], normal[mask][:, :2], atol=1e-6)


@pytest.mark.parametrize("turn", [-60, 60])
def test_a_head_that_looks_aside_is_told_as_well(turn):
    """Seen from the side, the normals' part to the right does not become part to the left."""
    normal, _, mask = relief()
    angle = np.radians(turn)
    x = np.cos(angle) * normal[..., 0] + np.sin(angle) * normal[..., 2]
    seen = mask & (np.cos(angle) * normal[..., 2] - np.sin(angle) * normal[..., 0] > 0.1)
    way = axes(x.astype(np.float32), pointing(normal, "down"), seen)
    assert described(way) == ("right", "down")


def test_normals_that_are_no_surfaces_are_refused():
    _, _, mask = relief()
    noise = np.random.default_rng(0).normal(size=(2, *mask.shape)).astype(np.float32)
    with pytest.raises(ValueError, match="are not those of a face"):
        axes(noise[0], noise[1], mask)
    flat = np.zeros(mask.shape, np.float32)
    with pytest.raises(ValueError, match="are not those of a face"):
        axes(flat, flat, mask)
    with pytest.raises(ValueError, match="no normals to tell the axes from"):
        axes(noise[0], noise[1], np.zeros_like(mask))
