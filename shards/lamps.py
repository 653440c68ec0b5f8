"""A lamp found from a picture of a surface that is known: its strength, or its direction as well.

Lambert's law is linear in the lamp where the surface faces it, so a lamp is a least-squares fit;
what needs care is to leave out cast shadows and highlights.
"""

import numpy as np
from jaxtyping import Bool, Float

from shards.photometric_stereo import NOISE, Surface

MIN_SHARE = 0.01
"""Share of the face that a lamp must reach to be found."""
SATURATION = 0.98
SHADOW = 0.6
"""A pixel darker than this share of what is expected is in shadow."""
ROUNDS = 6


def fit_strength(
    image: Float[np.ndarray, "height width"],
    surface: Surface,
    direction: Float[np.ndarray, "3"],
    mask: Bool[np.ndarray, "height width"],
) -> float | None:
    """Strength with which a light explains an image, on pixels that face it and are not shadowed.

    It is None where the light reaches under a hundredth of the face.
    """
    cosine = surface.normal @ direction
    reached = mask & (cosine > 0.3) & (image < SATURATION) & (surface.albedo > 0.05)
    if reached.sum() < MIN_SHARE * mask.sum():
        return None
    observed, shaded = image[reached], surface.albedo[reached] * cosine[reached]
    ratio = observed / shaded
    # Cast shadows are far below the rest; what is left decides.
    lit = ratio > SHADOW * np.percentile(ratio, 75)
    observed, shaded = observed[lit], shaded[lit]
    return float((observed * shaded).sum() / (shaded * shaded).sum())


def fit_lamp(
    image: Float[np.ndarray, "height width"],
    surface: Surface,
    mask: Bool[np.ndarray, "height width"],
) -> Float[np.ndarray, "3"] | None:
    """Direction times strength of the lamp that explains an image best; None where none does.

    The fit begins on the half of the face that is brightest for its albedo and then takes what the
    lamp found so far lights.
    """
    usable = mask & (image < SATURATION) & (surface.albedo > 0.05)
    if usable.sum() < 3:
        return None
    observed = image[usable]
    scaled = (surface.normal * surface.albedo[..., None])[usable]
    shading = observed / surface.albedo[usable]
    lit = shading >= np.median(shading)
    for _ in range(ROUNDS):
        if lit.sum() < max(3, MIN_SHARE * mask.sum()):
            return None
        lamp = np.linalg.lstsq(scaled[lit], observed[lit], rcond=None)[0]
        expected = scaled @ lamp
        error = np.abs(observed - expected)
        usual = max(float(np.median(error[lit])), NOISE)
        lit = (expected > 0) & (observed > SHADOW * expected) & (error < 3 * usual)
    return lamp.astype(np.float32) if np.linalg.norm(lamp) > 1e-6 else None
