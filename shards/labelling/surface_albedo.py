"""Albedo of each colour of a surface whose normals are known, from images under known lamps.

Robust as photometric stereo is: which lamps light a pixel without shadow or highlight is told from
luminance, for all colours alike, so that a highlight tints none of them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from relightx.color import LUMINANCE
from shards.labelling.photometric_stereo import CAST_SHADOW, LIT_COSINE, NOISE, SPREADS

SATURATION = 0.98
"""A pixel of which a colour is as bright is not used."""
START_QUANTILE = 0.6
"""Of the albedos that lit lamps say; cast shadows, more usual than highlights, say too little."""
ROUNDS = 6
BLOCK_ROWS = 8


class Lamps(NamedTuple):
    """Light of each image: shading = strength * max(0, normal . direction) + ambient.

    direction: unit vectors; +x right in the image, +y up, +z to the camera.
    """

    direction: Float[np.ndarray, "lights 3"]
    strength: Float[np.ndarray, "lights channels"]
    ambient: Float[np.ndarray, "lights channels"]


def channel_weights(channels: int) -> Float[np.ndarray, " channels"]:
    """Share of each channel in luminance: of R, G, B, or of gray alone."""
    return np.array(LUMINANCE if channels == 3 else (1,), np.float32)


def luminance(
    image: Float[np.ndarray, "lights height width channels"],
    colour: Float[np.ndarray, "lights channels"],
    less: Float[np.ndarray, "lights height width channels"] | None = None,
) -> Float[np.ndarray, "lights height width"]:
    """Luminance of images, freed of lamps' colours and of `less`; 1 where any colour is saturated.

    Other pixels stay below SATURATION.
    """
    weight = channel_weights(image.shape[3])
    kept = image if less is None else image - less
    gray = np.einsum("lhwc,lc->lhw", kept, weight / colour, optimize=True)
    burnt = image.max(axis=3) >= SATURATION
    return np.where(burnt, 1, np.clip(gray, 0, SATURATION - 1e-3)).astype(np.float32)


def fit_albedo(
    image: Float[np.ndarray, "lights height width channels"],
    normal: Float[np.ndarray, "height width 3"],
    lamps: Lamps,
) -> Float[np.ndarray, "height width channels"]:
    """Albedo, at least 0 and not clipped at 1; 0 where no lamp reaches the surface unsaturated.

    image: linear light in [0, 1]. normal: unit length.
    """
    rows = range(0, image.shape[1], BLOCK_ROWS)
    blocks = [
        _fit_block(image[:, row : row + BLOCK_ROWS], normal[row : row + BLOCK_ROWS], lamps)
        for row in rows
    ]
    return np.concatenate(blocks)


def _fit_block(
    image: Float[np.ndarray, "lights rows width channels"],
    normal: Float[np.ndarray, "rows width 3"],
    lamps: Lamps,
) -> Float[np.ndarray, "rows width channels"]:
    seen = image.reshape(len(image), -1, image.shape[3])
    weight = channel_weights(image.shape[3])
    facing = lamps.direction @ normal.reshape(-1, 3).T
    shading = np.maximum(facing, 0)[..., None] * lamps.strength[:, None] + lamps.ambient[:, None]
    usable = (facing > LIT_COSINE) & (seen.max(axis=2) < SATURATION)
    trust = _trust(seen @ weight, shading @ weight, usable)[..., None]
    over, under = (trust * seen * shading).sum(axis=0), (trust * shading * shading).sum(axis=0)
    albedo = np.where(under > 0, over / np.maximum(under, 1e-12), 0)
    return np.maximum(albedo, 0).astype(np.float32).reshape(*image.shape[1:3], -1)


def _trust(
    seen: Float[np.ndarray, "lights num"],
    shading: Float[np.ndarray, "lights num"],
    usable: np.ndarray,
) -> Float[np.ndarray, "lights num"]:
    """How far each light can be used at each pixel, when all agree on one albedo."""
    said = np.where(usable, seen / np.maximum(shading, 1e-6), np.inf)
    rank = (START_QUANTILE * np.maximum(usable.sum(axis=0) - 1, 0)).astype(int)
    albedo = np.take_along_axis(np.sort(said, axis=0), rank[None], axis=0)[0]
    albedo = np.where(np.isfinite(albedo), albedo, 0)
    weight = usable.astype(np.float32)
    for _ in range(ROUNDS):
        expected = albedo * shading
        trusted = usable & (seen > CAST_SHADOW * expected)
        error = (seen - expected) ** 2
        total = np.maximum((weight * trusted).sum(axis=0), 1e-6)
        spread = np.maximum((weight * trusted * error).sum(axis=0) / total, NOISE**2)
        weight = trusted / (1 + error / (SPREADS**2 * spread))
        under = (weight * shading * shading).sum(axis=0)
        over = (weight * shading * seen).sum(axis=0)
        albedo = np.where(under > 0, over / np.maximum(under, 1e-12), albedo)
    return weight.astype(np.float32)
