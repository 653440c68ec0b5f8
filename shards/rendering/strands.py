"""Strands of hair over the unrolled head: from afar one pattern, from near locks and hairs.

What is finer than a picture's samples fades out, so that hair does not glitter.
"""

import numpy as np
from jaxtyping import Float

from shards.rendering.grain import grain_at
from shards.rendering.noise import field

_WANDER = 0.05  # decimetres that locks leave the vertical by
_LOCKS, _HAIRS = 0.35, 0.75  # shares of the pattern
_SHORT = 2.0  # hairs of a brow are so many times shorter and closer
_LEAN = np.radians(25)  # of the hairs of a brow: outward and up


def strands(
    place: Float[np.ndarray, "num 2"], offset: float, spacing: float | None = None
) -> Float[np.ndarray, "num"]:
    """Noise of mean 0 that runs down the head; `offset` gives another.

    place: of `hair.surface_place`. spacing: of the samples, decimetres; as from afar if None.
    """
    if spacing is None:
        return field(place, "strands", offset)
    combed = place.copy()
    combed[:, 0] += np.float32(_WANDER) * field(place, "broad", offset + 11)
    locks = grain_at(combed, spacing, "locks", offset)
    return np.float32(_LOCKS) * locks + np.float32(_HAIRS) * grain_at(
        combed, spacing, "hairs", offset
    )


def single_hairs(
    place: Float[np.ndarray, "num 2"], offset: float, spacing: float
) -> Float[np.ndarray, "num"]:
    """Noise as wide as hairs seen from near: which of them grow farther than others."""
    return grain_at(place, spacing, "hairs", offset)


def brow_hairs(
    place: Float[np.ndarray, "num 2"], offset: float, spacing: float
) -> Float[np.ndarray, "num"]:
    """Such noise for brows, whose hairs are short and lean outward."""
    out, up = _SHORT * np.abs(place[:, 0]), _SHORT * place[:, 1]
    sine, cosine = np.sin(_LEAN), np.cos(_LEAN)
    across, along = cosine * up - sine * out, sine * up + cosine * out
    leaning = np.stack((across, along), axis=1).astype(np.float32)
    return grain_at(leaning, _SHORT * spacing, "hairs", offset)
