"""How light and how brown the skin of a portrait is, read off its albedo.

L* and b* are those of CIE 1976 for the white of sRGB (D65). The individual typology angle,
atan((L* - 50) / b*), is what dermatologists sort skin by (Chardon 1991; Del Bino 2013).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from relightx.layers import decode_layer
from relightx.sample import Portrait

LAYER = "skin"
"""The layer that says which pixels are skin, where a portrait has it."""
GROUPS = ("dark", "brown", "tan", "intermediate", "light", "very light")
BOUNDS_DEG = (-30.0, 10.0, 28.0, 41.0, 55.0)
"""Of the typology angle, between the groups."""

_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float64
)
_WHITE = _XYZ.sum(axis=1)
_LEAST_B = 1.0  # of what is gray, or bluish, the angle means nothing


class SkinTone(NamedTuple):
    """lightness: CIE L*, 0 to 100. ita_deg: individual typology angle; None of a gray albedo."""

    lightness: float
    ita_deg: float | None


def skin_tone(portrait: Portrait, members: dict[str, bytes]) -> SkinTone | None:
    """Of the median albedo of the portrait's skin; None without albedo, or without skin in sight.

    members: of the portrait. Skin is what its layer `skin` says; without one, the middle third of
    the picture's width and height, where a face's cheeks and nose are, within the mask.
    An estimated albedo is only as light as its estimate.
    """
    if portrait.albedo is None:
        return None
    skin = _middle(*portrait.albedo.shape[:2])
    if f"{LAYER}.png" in members:
        skin = decode_layer(members, LAYER)[..., 0] > 0.5
    if portrait.mask is not None:
        skin = skin & portrait.mask
    if not skin.any():
        return None
    return tone_of(np.median(portrait.albedo[skin], axis=0).astype(np.float64))


def tone_of(albedo: Float[np.ndarray, "3"]) -> SkinTone:
    """The tone of one linear RGB."""
    _, lightness, blue = _curved(np.einsum("jk,k->j", _XYZ, albedo) / _WHITE)
    b = 200 * (lightness - blue)
    level = 116 * lightness - 16
    ita = float(np.degrees(np.arctan2(level - 50, b))) if b >= _LEAST_B else None
    return SkinTone(float(level), ita)


def groups_of(ita_deg: list[float]) -> dict[str, int]:
    """How many of these angles are in each of GROUPS, the darkest first; those that have none
    are left out."""
    counts = np.bincount(np.digitize(ita_deg, BOUNDS_DEG), minlength=len(GROUPS)).tolist()
    return {name: count for name, count in zip(GROUPS, counts, strict=True) if count}


def _curved(share: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """CIE's cube root, straight near black."""
    return np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)


def _middle(height: int, width: int) -> Bool[np.ndarray, "{height} {width}"]:
    inside = np.zeros((height, width), bool)
    inside[height // 3 : -(-2 * height // 3), width // 3 : -(-2 * width // 3)] = True
    return inside
