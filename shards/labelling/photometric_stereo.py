"""Normals and albedo of a still surface from images under known distant lights.

Lambert's law, image = albedo * strength * max(0, normal . direction), is solved at each pixel for
albedo * normal by weighted least squares (Woodham 1980). Faces break the law: cast shadows and
highlights are as large as the signal, and a robust weight alone settles on them. So the fit
begins with the lights that are bright at the pixel, and only then takes back each light that the
fitted surface says is lit. On Extended Yale B this second step lowers the error on held-out
lights and the curl of the normals against dropping dark lights for good.

Each pixel has three unknowns, so three lights fit any pixel and nothing checks them; with four, one
doubt can be settled: a light in shadow is recognised by its darkness and left out, a highlight is
only noticed. Confidence says so: it halves its distance to 1 with each light beyond three.

All pixels are solved at once: the normal equations of every pixel are one matrix product of the
weights with the six products of light components, and the 3 x 3 systems are solved by cofactors.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

UNKNOWNS = 3
"""Lights that determine a pixel, unchecked; fewer are refused."""
MIN_LIGHTS = UNKNOWNS + 1
"""Lights from which on a pixel's fit can be checked; sources with many lights ask for as many."""
UNCHECKED = 0.25
"""Largest confidence of a pixel that no light checks."""
DARKEST_SHARE = 0.35
"""Share of the lights left out at each pixel at first, the darkest; shadows are among them."""
WARM_UP, ITERATIONS = 4, 10
"""Robust steps on the bright lights, and in all."""
LIT_COSINE = 0.05
"""A light within 3 degrees of the surface's horizon is not trusted."""
CAST_SHADOW = 0.6
"""A pixel darker than this share of its prediction is in cast shadow."""
SPREADS = 1.5
"""Residual, in standard deviations, whose Cauchy weight is one half."""
NOISE = 0.01
"""Smallest standard deviation assumed, of images in [0, 1]."""
GOOD_FIT = 0.1
"""Residual, relative to albedo, at which confidence is one half."""
BLOCK = 640  # pixels solved together: in the cache, and too few for BLAS to wait on more threads


@dataclass(frozen=True)
class Surface:
    """What photometric stereo finds at each pixel.

    normal: unit length; +x right in the image, +y up, +z to the camera.
    albedo: at least 0, in the images' units under a light of strength 1; not clipped at 1.
    confidence: [0, 1]; one half where many lights were used and disagree by a tenth of the albedo,
        at most 0.25 where 3 lights were used, 0.62 with 4, 0.81 with 5 and so on; zero where
        fewer are usable or the surface is black.
    """

    normal: Float[np.ndarray, "height width 3"]
    albedo: Float[np.ndarray, "height width"]
    confidence: Float[np.ndarray, "height width"]


def photometric_stereo(
    image: Float[np.ndarray, "lights height width"],
    direction: Float[np.ndarray, "lights 3"],
    strength: Float[np.ndarray, " lights"] | None = None,
    saturation: float = 0.98,
) -> Surface:
    """Fit a Lambertian surface; robust to shadows, highlights and saturated pixels.

    image: linear light in [0, 1], one picture per light, aligned.
    direction: unit vector toward each light; +x right in the image, +y up, +z to the camera.
    strength: positive, relative strength of each light; all 1 when None.
    saturation: pixels at or above it are not used.
    Raises ValueError for fewer than 3 lights, directions that are not unit vectors or lie in one
    plane, strengths that are not positive, and images that are not finite.
    """
    lamp = _lamp(direction, strength)
    if not np.isfinite(image).all():
        raise ValueError("the images have values that are not finite; linear light needed")
    height, width = image.shape[1:]
    pixel = image.reshape(len(image), -1)
    scaled = np.empty((3, height * width), np.float32)
    confidence = np.empty(height * width, np.float32)
    for start in range(0, height * width, BLOCK):
        part = slice(start, start + BLOCK)
        scaled[:, part], confidence[part], _ = _fit_block(pixel[:, part], lamp, saturation)
    albedo = np.sqrt((scaled * scaled).sum(axis=0))
    black = albedo < 1e-4
    normal = np.where(black, np.float32([[0], [0], [1]]), scaled / np.maximum(albedo, 1e-4))
    confidence[black] = 0
    return Surface(
        normal=normal.T.reshape(height, width, 3),
        albedo=albedo.reshape(height, width),
        confidence=confidence.reshape(height, width),
    )


def residual(
    image: Float[np.ndarray, "lights height width"],
    surface: Surface,
    direction: Float[np.ndarray, "lights 3"],
    strength: Float[np.ndarray, " lights"] | None = None,
) -> Float[np.ndarray, "lights height width"]:
    """Image less albedo * strength * max(0, normal . direction): how far Lambert's law holds."""
    lamp = direction if strength is None else direction * strength[:, None]
    scaled = (surface.normal * surface.albedo[..., None]).reshape(-1, 3)
    predicted = np.maximum(lamp.astype(np.float32) @ scaled.T, 0)
    return image - predicted.reshape(image.shape)


def _lamp(
    direction: Float[np.ndarray, "lights 3"], strength: Float[np.ndarray, " lights"] | None
) -> Float[np.ndarray, "lights 3"]:
    """Direction times strength of each light, once they are known to be fit for use."""
    if len(direction) < UNKNOWNS:
        raise ValueError(f"{len(direction)} lights given; photometric stereo needs {UNKNOWNS}")
    length = np.linalg.norm(direction, axis=1)
    if not np.allclose(length, 1, atol=1e-3):
        worst = int(np.argmax(np.abs(length - 1)))
        raise ValueError(f"direction of light {worst} has length {length[worst]:.3g}; 1 needed")
    if np.linalg.svd(direction, compute_uv=False)[2] < 0.05:
        raise ValueError(
            "the light directions lie in one plane; lights that surround the camera are needed"
        )
    if strength is None:
        return direction.astype(np.float32)
    if not (np.isfinite(strength).all() and (strength > 0).all()):
        raise ValueError(f"light strengths {strength.tolist()} are not all positive")
    return (direction * strength[:, None]).astype(np.float32)


class PixelFit(NamedTuple):
    """Albedo * normal, confidence, and the weight with which each light was used."""

    scaled: Float[np.ndarray, "3 num"]
    confidence: Float[np.ndarray, " num"]
    weight: Float[np.ndarray, "lights num"]


def fit_pixels(
    pixel: Float[np.ndarray, "lights num"], lamp: Float[np.ndarray, "lights 3"], saturation: float
) -> PixelFit:
    """Fit each pixel on its own, as `photometric_stereo`; `lamp` is direction times strength."""
    blocks = [
        _fit_block(pixel[:, start : start + BLOCK], lamp, saturation)
        for start in range(0, pixel.shape[1], BLOCK)
    ]
    return PixelFit(*(np.concatenate(part, axis=-1) for part in zip(*blocks, strict=True)))


def _fit_block(
    pixel: Float[np.ndarray, "lights num"], lamp: Float[np.ndarray, "lights 3"], saturation: float
) -> PixelFit:
    pixel = np.ascontiguousarray(pixel, np.float32)
    usable = pixel < saturation
    enough = usable.sum(axis=0) >= UNKNOWNS
    bright = usable & _not_darkest(pixel, lamp)
    bright = np.where(bright.sum(axis=0) >= UNKNOWNS, bright, usable)
    bright |= ~enough  # a guess from saturated pixels, marked by confidence zero
    trusted = bright
    weight = trusted.astype(np.float32)
    product = _products(lamp)
    for iteration in range(ITERATIONS):
        scaled = _solve(product, lamp, weight, pixel)
        predicted = lamp @ scaled
        if iteration >= WARM_UP:
            trusted = _lit(pixel, predicted, lamp, scaled, usable, bright)
        error = (pixel - predicted) ** 2
        total = np.maximum((weight * trusted).sum(axis=0), 1e-6)
        spread = np.maximum((weight * trusted * error).sum(axis=0) / total, NOISE**2)
        weight = trusted / (1 + error / (SPREADS**2 * spread))
    scaled = _solve(product, lamp, weight, pixel)
    count = trusted.sum(axis=0)
    error = ((pixel - lamp @ scaled) ** 2 * trusted).sum(axis=0) / count
    albedo_squared = np.maximum((scaled * scaled).sum(axis=0), 1e-8)
    checked = 1 - (1 - UNCHECKED) * np.float32(0.5) ** np.maximum(count - UNKNOWNS, 0)
    confidence = enough * checked / (1 + error / (GOOD_FIT**2 * albedo_squared))
    return PixelFit(scaled, confidence, weight)


def _not_darkest(
    pixel: Float[np.ndarray, "lights num"], lamp: Float[np.ndarray, "lights 3"]
) -> np.ndarray:
    """False on the darkest share of the lights of each pixel, at equal strength.

    Four are kept, or three of four: they need not be well placed, and are a beginning.
    """
    level = pixel / np.linalg.norm(lamp, axis=1, keepdims=True)
    kept = MIN_LIGHTS if len(level) > MIN_LIGHTS else UNKNOWNS
    dropped = min(round(DARKEST_SHARE * len(level)), len(level) - kept)
    return level >= np.partition(level, dropped, axis=0)[dropped]


def _lit(
    pixel: Float[np.ndarray, "lights num"],
    predicted: Float[np.ndarray, "lights num"],
    lamp: Float[np.ndarray, "lights 3"],
    scaled: Float[np.ndarray, "3 num"],
    usable: np.ndarray,
    bright: np.ndarray,
) -> np.ndarray:
    """The lights that the surface found so far faces and that no shadow hides.

    Where fewer than a quarter of the lights are left, the bright ones stay.
    """
    albedo = np.sqrt((scaled * scaled).sum(axis=0))
    horizon = LIT_COSINE * np.linalg.norm(lamp, axis=1, keepdims=True) * albedo
    lit = usable & (predicted > horizon) & (pixel > CAST_SHADOW * predicted)
    return np.where(lit.sum(axis=0) >= max(UNKNOWNS, len(lamp) // 4), lit, bright)


def _products(lamp: Float[np.ndarray, "lights 3"]) -> Float[np.ndarray, "6 lights"]:
    x, y, z = lamp.T
    return np.stack((x * x, x * y, x * z, y * y, y * z, z * z))


def _solve(
    product: Float[np.ndarray, "6 lights"],
    lamp: Float[np.ndarray, "lights 3"],
    weight: Float[np.ndarray, "lights num"],
    pixel: Float[np.ndarray, "lights num"],
) -> Float[np.ndarray, "3 num"]:
    """Weighted least squares of every pixel by cofactors; zero where lights are in one plane."""
    xx, xy, xz, yy, yz, zz = product @ weight
    x, y, z = lamp.T @ (weight * pixel)
    cofactor_xx, cofactor_xy, cofactor_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    cofactor_yy, cofactor_yz, cofactor_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * cofactor_xx + xy * cofactor_xy + xz * cofactor_xz
    solvable = determinant > 1e-6 * ((xx + yy + zz) / 3) ** 3
    scaled = np.stack(
        (
            cofactor_xx * x + cofactor_xy * y + cofactor_xz * z,
            cofactor_xy * x + cofactor_yy * y + cofactor_yz * z,
            cofactor_xz * x + cofactor_yz * y + cofactor_zz * z,
        )
    )
    return np.where(solvable, scaled / np.where(solvable, determinant, 1), 0)
