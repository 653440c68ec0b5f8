"""Which part of a head is seen at a place, and in a pixel: numbers of `relightx.layers.PARTS`."""

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from relightx.layers import PARTS
from shards.rendering.hair import beard_weight, hair_weight
from shards.rendering.render import coarse_pixel
from shards.rendering.skin import Appearance, brow_weight, clothed

SKIN, LIPS, BROW, EYE, MOUTH, HAIR, BEARD, CLOTH, GLASSES = range(1, len(PARTS))
_UNDER_BROWS = 7.2  # height, decimetres


def head_parts(
    template: Float[np.ndarray, "num 3"],
    weights: Float[np.ndarray, "num 3"],
    cover: Float[np.ndarray, "num"],
    on_eye: Bool[np.ndarray, "num"],
    appearance: Appearance,
) -> UInt8[np.ndarray, "num"]:
    """The part at places of the undeformed head: what covers more than half, if anything does.

    weights: lips, ears and mouth cavity. cover: by hair and beard. Hair counts where it grows,
    however short it is shaved; a beard where it hides the skin: stubble is skin.
    """
    hair, (lips, ears, cavity) = appearance.hair, weights.T
    scalp = cover > 0.5 * hair.density
    if hair.beard:  # the cover may be its
        beard = beard_weight(template, lips, hair)
        scalp &= hair_weight(template, ears, hair, softness=0.12) > beard
    part = np.full(len(template), SKIN, np.uint8)
    part[lips > 0.5] = LIPS
    upper = np.flatnonzero(~scalp & (template[:, 1] > _UNDER_BROWS))
    part[upper[brow_weight(template[upper], appearance) > 0.5]] = BROW
    if hair.beard > 0.5:
        part[cover > 0.5] = BEARD
    part[scalp] = HAIR
    part[cavity > 0.5] = MOUTH
    part[(clothed(template, appearance) > 0.5) & ~scalp] = CLOTH
    part[on_eye] = EYE
    return part


def most_seen(
    part: UInt8[np.ndarray, "num"],
    pixel: Integer[np.ndarray, "num"],
    mask: Bool[np.ndarray, "size size"],
    samples: int,
) -> UInt8[np.ndarray, "size size"]:
    """The part with the largest share of each pixel's samples, of two with the same the later.

    pixel: of the picture with `samples` times as many along a side. Background is outside the mask.
    """
    size = len(mask)
    coarse = coarse_pixel(pixel, size, samples)
    counts = np.bincount(coarse * len(PARTS) + part, minlength=size * size * len(PARTS))
    last = counts.reshape(size, size, len(PARTS))[..., ::-1].argmax(axis=-1)
    return (mask * (len(PARTS) - 1 - last)).astype(np.uint8)
