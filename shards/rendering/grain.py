"""Fine random patterns over the plane that fade out where they are finer than a picture's samples.

Each is a tile of 1.6 decimetres, kept in smaller and smaller means of itself.
"""

import functools
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float

from shards.rendering.chart import Chart, looked_up

Grain = Literal["pores", "dots", "micro", "uneven", "crepe", "furrows", "locks", "hairs"]
_TILE_PX = 1024
_PX_PER_UNIT = 640
# Of smoothed noise: decimetres over which it is smoothed, across and along, and its lean.
_NOISE = {
    "micro": ((0.0026, 0.0026, 0.0),),
    "uneven": ((0.009, 0.009, 0.0),),
    "crepe": ((0.0032, 0.02, 0.7), (0.0032, 0.02, -0.7)),
    "furrows": ((0.0055, 0.045, 0.0),),
    "locks": ((0.016, 0.3, 0.0),),
    "hairs": ((0.0045, 0.14, 0.0),),
}
# Of scattered points: decimetres from one to the next, and the sigma of each.
_POINTS = {"pores": (0.0105, 0.0019), "dots": (0.0085, 0.0014)}


def grain(chart: Chart, name: Grain, offset: float = 0.0) -> Float[np.ndarray, "rows columns"]:
    """A pattern on a chart, as the chart's cells see it.

    pores, dots: up to 1 at scattered points, 0 between. The others: noise of mean 0 and standard
    deviation 1 where cells are small. `offset` gives another part of the pattern.
    """
    finer, coarser, share = _tiles(name, chart.texel)
    fine = _on(chart, finer, offset)
    return fine + share * (_on(chart, coarser, offset) - fine)


def grain_at(
    place: Float[np.ndarray, "num 2"], spacing: float, name: Grain, offset: float = 0.0
) -> Float[np.ndarray, "num"]:
    """A pattern at single places, decimetres, as samples see it that lie `spacing` apart."""
    finer, coarser, share = _tiles(name, spacing)
    fine = _at(place, finer, offset)
    return fine + share * (_at(place, coarser, offset) - fine)


def mean_cover(name: Grain) -> float:
    """The mean of a pattern: what is left of it where cells are large."""
    return float(_levels(name)[-1].mean())


def _tiles(name: Grain, spacing: float) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """The two of a pattern's tiles between which the spacing lies, and how far it is beyond the
    finer."""
    tiles = _levels(name)
    level = float(np.clip(np.log2(max(spacing * _PX_PER_UNIT, 1)), 0, len(tiles) - 1.001))
    return tiles[int(level)], tiles[int(level) + 1], np.float32(level % 1)


def _at(
    place: Float[np.ndarray, "num 2"], tile: Float[np.ndarray, "side side"], offset: float
) -> Float[np.ndarray, "num"]:
    side = len(tile)
    shift = np.array([offset, offset * 1.618]) * side - 0.5
    where = np.mod(place * np.float32(_PX_PER_UNIT * side / _TILE_PX) + shift, side)
    return looked_up(tile, where.astype(np.float32), cv2.BORDER_WRAP)


def _on(
    chart: Chart, tile: Float[np.ndarray, "side side"], offset: float
) -> Float[np.ndarray, "rows columns"]:
    side = len(tile)
    step = chart.texel * _PX_PER_UNIT * side / _TILE_PX  # pixels of this tile
    # The middle of the first cell, as if the chart's corner were the tile's.
    column, row = np.mod(np.array([offset, offset * 1.618]) * side, side) + step / 2 - 0.5
    return chart.sampled(tile, step, float(column), float(row), wrapped=True)


@functools.cache
def _levels(name: str) -> tuple[Float[np.ndarray, "_ _"], ...]:
    """The tile, and means of it over 2, 4, 8 ... pixels."""
    rng = np.random.default_rng([17, (*_NOISE, *_POINTS).index(name)])
    levels = [_scattered(rng, *_POINTS[name]) if name in _POINTS else _noise(rng, _NOISE[name])]
    while len(levels[-1]) > 2:
        half = len(levels[-1]) // 2
        levels.append(levels[-1].reshape(half, 2, half, 2).mean(axis=(1, 3)))
    return tuple(levels)


def _noise(
    rng: np.random.Generator, parts: tuple[tuple[float, float, float], ...]
) -> Float[np.ndarray, "tile tile"]:
    tile = np.zeros((_TILE_PX, _TILE_PX))
    for across, along, lean in parts:
        tile += _smoothed(rng.standard_normal(tile.shape), across, along, lean)
    return ((tile - tile.mean()) / tile.std()).astype(np.float32)


def _scattered(
    rng: np.random.Generator, apart: float, sigma: float
) -> Float[np.ndarray, "tile tile"]:
    count = round(_TILE_PX / (apart * _PX_PER_UNIT))
    row, column = np.indices((count, count)) + rng.uniform(-0.42, 0.42, (2, count, count))
    cell = (np.stack((row, column)).reshape(2, -1) * _TILE_PX / count).astype(np.int64) % _TILE_PX
    tile = np.zeros((_TILE_PX, _TILE_PX))
    np.maximum.at(tile, tuple(cell), rng.uniform(0.3, 1, cell.shape[1]))
    tile = _smoothed(tile, sigma, sigma, 0.0) * 2 * np.pi * (sigma * _PX_PER_UNIT) ** 2
    return np.clip(tile, 0, 1).astype(np.float32)


def _smoothed(tile: np.ndarray, across: float, along: float, lean: float) -> np.ndarray:
    """By a Gaussian that goes on at the opposite side; lean: of its long axis, radians."""
    turn = 2 * np.pi * _PX_PER_UNIT
    down, right = np.fft.fftfreq(_TILE_PX)[:, None] * turn, np.fft.rfftfreq(_TILE_PX) * turn
    first = np.cos(lean) * right + np.sin(lean) * down
    second = -np.sin(lean) * right + np.cos(lean) * down
    kept = np.exp(-0.5 * ((across * first) ** 2 + (along * second) ** 2))
    return np.fft.irfft2(np.fft.rfft2(tile) * kept, tile.shape)
