"""How surfaces shine: roughness and reflectance of each place, and the light they mirror.

The model is that of Cook and Torrance with the distribution of Trowbridge and Reitz (GGX), Smith's
shadowing of light and view together (Heitz 2014), and Schlick's Fresnel term. Skin reflects 2.8 %
when looked at straight on (refractive index 1.4), the tear film on an eye 2.5 %; hair, 4.6 % on a
single one, less where they shade each other.
"""

import numpy as np
from jaxtyping import Bool, Float

from shards.rendering.skin import Appearance, clothed

SKIN, HAIR, EYE, CLOTH = 0.028, 0.03, 0.025, 0.02  # reflectance
# Where skin is oilier: centre (|x|, y, z) on the undeformed head, radius in decimetres.
_OILY = (((0.0, 7.7, 1.5), 0.4), ((0.0, 7.0, 1.66), 0.22), ((0.0, 6.3, 1.48), 0.16))


def gloss(
    template: Float[np.ndarray, "num 3"],
    lips: Float[np.ndarray, "num"],
    hair: Float[np.ndarray, "num"],
    on_eye: Bool[np.ndarray, "num"],
    appearance: Appearance,
) -> Float[np.ndarray, "num 4"]:
    """Roughness, reflectance, share of skin and share of eye at places of the undeformed head."""
    folded = np.abs(template) * (1, 0, 0) + template * (0, 1, 1)
    oily = np.zeros(len(template), np.float32)
    for centre, radius in _OILY:
        offset = (folded - np.array(centre)) / radius
        oily += np.exp(-np.einsum("nk,nk->n", offset, offset)).astype(np.float32)
    oil = appearance.oil * (0.6 + 0.6 * np.minimum(oily, 1))
    cloth = clothed(template, appearance) * (1 - hair)
    shares = (cloth, hair, (1 - hair) * (1 - cloth) * np.clip(lips, 0, 1))
    roughness, reflectance = 0.54 - 0.14 * oil, SKIN * (0.5 + 0.5 * oil)
    for share, rough, bright in zip(shares, (0.85, 0.5, 0.32), (CLOTH, HAIR, SKIN), strict=True):
        roughness = roughness + (rough - roughness) * share
        reflectance = reflectance + (bright - reflectance) * share
    skin = (1 - cloth) * (1 - hair)
    values = np.stack((roughness, reflectance, skin, np.zeros_like(skin)), axis=1)
    values[on_eye] = 0.12, EYE, 0, 1
    return values.astype(np.float32)


def fresnel(
    reflectance: Float[np.ndarray, "..."], cosine: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Share of light that is mirrored; cosine: to the half vector, or to the normal.

    What reflects less than anything does (2 %) has no surface: it reflects less at the rim too.
    """
    rest = 1 - np.clip(cosine, 0, 1)
    square = rest * rest
    rim = np.minimum(50 * reflectance, 1)
    return reflectance + (rim - reflectance) * (square * square * rest)


def mirrored(
    to_light: Float[np.ndarray, "..."],
    to_view: Float[np.ndarray, "..."],
    apart: Float[np.ndarray, "..."],
    roughness: Float[np.ndarray, "..."],
    reflectance: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    """Radiance toward the viewer for an irradiance of pi on a surface that faces a distant lamp.

    So it adds to albedo times shading, for the same lamp. to_light, to_view: cosines between the
    normal and each; apart: the cosine between light and view. Their shapes broadcast.
    """
    to_light, to_view = np.clip(to_light, 1e-4, 1), np.clip(to_view, 1e-4, 1)
    length = np.sqrt(np.maximum(2 + 2 * apart, 1e-6))  # of light + view
    to_half = np.minimum((to_light + to_view) / length, 1)
    square = np.maximum(roughness, 0.03) ** 4  # of GGX's alpha
    rest = 1 - square
    spread = 1 - rest * to_half * to_half
    hidden = to_view * np.sqrt(to_light * to_light * rest + square)
    hidden += to_light * np.sqrt(to_view * to_view * rest + square)
    return 0.5 * square * fresnel(reflectance, length / 2) * to_light / (spread * spread * hidden)
