"""Smooth random fields over the plane, for mottled skin, freckles and strands of hair."""

import functools
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float

Grain = Literal["broad", "medium", "fine", "strands", "curls"]
# Pixels of the tile over which each field is smoothed, across and along.
_BLUR: dict[str, tuple[float, float]] = {
    "broad": (24, 24),
    "medium": (7, 7),
    "fine": (1.6, 1.6),
    "strands": (1.5, 22),
    "curls": (4, 4),
}
_TILE_PX = 512
_PX_PER_UNIT = 160  # a decimetre of skin; the tile repeats after 3.2 decimetres


def field(
    place: Float[np.ndarray, "num 2"], grain: Grain, offset: float = 0.0
) -> Float[np.ndarray, "num"]:
    """Noise of mean 0 and standard deviation 1 at places in decimetres; `offset` gives another."""
    shift = np.mod(np.array([offset, offset * 1.618]) * _PX_PER_UNIT, _TILE_PX)
    # remap wants a picture of places; its sides may not exceed 32767.
    columns = 1024
    rows = -(-len(place) // columns)
    padded = np.zeros((rows * columns, 2), np.float32)
    padded[: len(place)] = place * _PX_PER_UNIT + shift
    sampled = cv2.remap(
        _tile(grain),
        padded.reshape(rows, columns, 2),
        None,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return sampled.ravel()[: len(place)]


@functools.cache
def _tile(grain: str) -> Float[np.ndarray, "tile tile"]:
    rng = np.random.default_rng(list(_BLUR).index(grain))
    white = rng.standard_normal((_TILE_PX, _TILE_PX)).astype(np.float32)
    across, along = _BLUR[grain]
    margin = int(4 * max(across, along))
    wrapped = np.pad(white, margin, mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), sigmaX=across, sigmaY=along)
    tile = smooth[margin:-margin, margin:-margin]
    return np.ascontiguousarray((tile - tile.mean()) / tile.std())
