"""Lamps of a surface that is known: found from pictures, strength or direction as well, and judged.

Lambert's law is linear in the lamp where the surface faces it, so a lamp is a least-squares fit;
what needs care is to leave out cast shadows and highlights.
"""

import numpy as np
from jaxtyping import Bool, Float

from shards.labelling.photometric_stereo import GOOD_FIT, NOISE, Surface, residual

MIN_SHARE = 0.01
"""Share of the face that a lamp must reach to be found."""
SATURATION = 0.98
SHADOW = 0.6
"""A pixel darker than this share of what is expected is in shadow."""
ROUNDS = 6
MIN_AGREEMENT = 0.8
"""Least correlation of the images' changes over the lights with those of the shading.

On faces of Extended Yale B, made into captures, it is 0.98, and 0.7 or less with two lights of four
exchanged. (A cyclic change of the four is no other than azimuths from another zero.)
"""


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


def goodness(
    image: Float[np.ndarray, "lights height width"],
    surface: Surface,
    lamp: Float[np.ndarray, "lights 3"],
) -> Float[np.ndarray, "height width"]:
    """1 where surface and lamps give the images, one half where they are GOOD_FIT of albedo off."""
    error = np.sqrt((residual(image, surface, lamp) ** 2).mean(axis=0))
    relative = error / np.maximum(surface.albedo, 1e-4)
    return (1 / (1 + (relative / GOOD_FIT) ** 2)).astype(np.float32)


def check_agreement(
    image: Float[np.ndarray, "lights height width"],
    surface: Surface,
    mask: Bool[np.ndarray, "height width"],
    lamp: Float[np.ndarray, "lights 3"],
) -> None:
    """Refuse a surface and lamps under which the face would look otherwise, with ValueError.

    Over the lights, a pixel's brightness changes as its shading does, whatever its albedo.
    """
    seen = image[:, mask]
    shading = np.maximum(lamp @ surface.normal[mask].T, 0)
    seen, shading = (values / np.maximum(values.mean(axis=0), 1e-3) for values in (seen, shading))
    with np.errstate(invalid="ignore"):
        agreement = float(np.corrcoef(seen.ravel(), shading.ravel())[0, 1])
    if not agreement > MIN_AGREEMENT:
        raise ValueError(
            f"brightness follows normal . direction with a correlation of {agreement:.2f},"
            f" {MIN_AGREEMENT} needed; are the lights in another order?"
        )
