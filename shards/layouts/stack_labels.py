"""Labels of a one-light-at-a-time stack: normals, colour albedo and exposure by photometric stereo.

Before a fit is believed, pictures and directions must agree: which side each lamp lights
(shards.layouts.lamp_axes), and how each pixel's brightness changes from lamp to lamp
(shards.labelling.lamps).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from relightx.color import LUMINANCE
from shards.labelling.lamps import check_agreement
from shards.labelling.photometric_stereo import MIN_LIGHTS, Surface, photometric_stereo
from shards.layouts.lamp_axes import check_axes
from shards.layouts.stack import SATURATION, Stack

WHITE_ALBEDO = 0.8
"""Albedo of the brightest percent of a surface, where no exposure is given."""
TRUSTED = 0.3
"""Confidence from which on a pixel takes part in finding the exposure."""
_LIT_COSINE, _CAST_SHADOW = 0.1, 0.6
_JUDGED_SIDE = 128  # pixels along a side that are enough to judge the order of lights


class Labels(NamedTuple):
    """What photometric stereo finds.

    normal: unit length; +x right in the image, +y up, +z to the camera.
    albedo: linear RGB in [0, 1].
    confidence: [0, 1]; 0 outside the mask.
    exposure: shading, in the stack's linear light, of a surface that faces a lamp of strength 1.
    """

    normal: Float[np.ndarray, "height width 3"]
    albedo: Float[np.ndarray, "height width 3"]
    confidence: Float[np.ndarray, "height width"]
    exposure: float


def label(
    stack: Stack,
    direction: Float[np.ndarray, "lights 3"],
    strength: Float[np.ndarray, "lights 3"],
    mask: Bool[np.ndarray, "height width"] | None,
    exposure: float | None,
    axes: Float[np.ndarray, "3 3"],
) -> Labels:
    """Fit the surface that a stack shows.

    direction: unit vectors; of a table's after `axes`. strength: of each lamp's colours.
    exposure: value of a white surface that faces a lamp of strength 1, full scale being 1 (or in
    the units of floating-point pictures); None: see WHITE_ALBEDO.
    Raises ValueError for fewer than 4 lights or lights in one plane, and for directions that the
    pictures contradict.
    """
    if len(direction) < MIN_LIGHTS:
        raise ValueError(f"{len(direction)} lights found; {MIN_LIGHTS} or more are needed")
    gray = stack.gray(strength)
    check_axes(gray, direction, axes)
    luminance = strength @ np.array(LUMINANCE, np.float32)
    surface = photometric_stereo(gray, direction, luminance)
    inside = np.ones(surface.albedo.shape, bool) if mask is None else mask
    confidence = surface.confidence * inside
    trusted = confidence > TRUSTED
    if not trusted.any():
        raise ValueError("photometric stereo can trust no pixel; are the light directions right?")
    step = -(-max(trusted.shape) // _JUDGED_SIDE)
    thin = (slice(None, None, step),) * 2
    lit = inside & (surface.albedo > 0.1 * np.quantile(surface.albedo[trusted], 0.99))
    thinned = Surface(
        *(getattr(surface, name)[thin] for name in ("normal", "albedo", "confidence"))
    )
    check_agreement(gray[:, *thin], thinned, lit[thin], direction * luminance[:, None])
    albedo = _colored(stack, surface, gray, direction, strength)
    if exposure is None:
        shading = float(np.quantile(albedo[trusted].max(axis=-1), 0.99)) / WHITE_ALBEDO
    else:
        shading = exposure / (stack.white or 1.0)
    return Labels(surface.normal, np.clip(albedo / shading, 0, 1), confidence, shading)


def _colored(
    stack: Stack,
    surface: Surface,
    gray: Float[np.ndarray, "lights height width"],
    direction: Float[np.ndarray, "lights 3"],
    strength: Float[np.ndarray, "lights 3"],
) -> Float[np.ndarray, "height width 3"]:
    """Albedo of each colour: its share from the lamps that light a pixel, its luminance given."""
    over, under = (np.zeros((*surface.albedo.shape, 3), np.float32) for _ in range(2))
    for index, picture in enumerate(stack.linear()):
        cosine = surface.normal @ direction[index]
        expected = cosine * surface.albedo * (strength[index] @ np.array(LUMINANCE, np.float32))
        lit = (cosine > _LIT_COSINE) & (gray[index] > _CAST_SHADOW * expected)
        lit &= picture.max(axis=2) < SATURATION
        shading = (lit * cosine)[..., None] * strength[index]
        over += shading * picture
        under += shading * shading
    albedo = over / np.maximum(under, 1e-12)
    luminance = albedo @ np.array(LUMINANCE, np.float32)
    known = luminance > 1e-6
    scale = np.where(known, surface.albedo / np.where(known, luminance, 1), 0)[..., None]
    return np.where(known[..., None], albedo * scale, surface.albedo[..., None])
