"""What a preview shows of a portrait, as pictures: 8-bit sRGB of what is light, plain codes of what
is not, an even gray outside the mask."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from relightx.color import to_srgb8
from relightx.sample import Portrait
from relightx.sh import shade

EMPTY = (236, 236, 233)
_TOO_BRIGHT, _TOO_DARK = np.float32([194, 65, 12]), np.float32([29, 78, 137])
_BALL_PX = 48

Pixels = UInt8[np.ndarray, "height width 3"]


def inside_of(portrait: Portrait) -> Bool[np.ndarray, "height width"]:
    """The mask, everywhere when there is none."""
    return np.ones(portrait.image.shape[1:3], bool) if portrait.mask is None else portrait.mask


def shading_of(portrait: Portrait, light: int) -> Float[np.ndarray, "height width 3"] | None:
    """Shading under one light; None without normals or light."""
    if portrait.normal is None or portrait.sh is None:
        return None
    normal = torch.from_numpy(np.ascontiguousarray(portrait.normal)).permute(2, 0, 1)
    return shade(normal, torch.from_numpy(portrait.sh[light])).permute(1, 2, 0).numpy()


def relit_of(portrait: Portrait, light: int) -> Float[np.ndarray, "height width 3"] | None:
    """Albedo times shading; None when either is missing."""
    shading = shading_of(portrait, light)
    return None if shading is None or portrait.albedo is None else portrait.albedo * shading


def show(linear: np.ndarray | None, inside: Bool[np.ndarray, "height width"]) -> Pixels | None:
    """Linear light as it looks."""
    return None if linear is None else within(to_srgb8(linear), inside)


def coded(
    values: np.ndarray | None, inside: Bool[np.ndarray, "height width"] | None
) -> Pixels | None:
    """Values in [0, 1] that are no light: stored as they are, without the sRGB curve."""
    if values is None:
        return None
    stored = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return stored if inside is None else within(stored, inside)


def normal_code(portrait: Portrait) -> Pixels | None:
    """Normals as colours: x, y and z from -1 to 1 are red, green and blue."""
    return coded(
        None if portrait.normal is None else (portrait.normal + 1) / 2, inside_of(portrait)
    )


def gray_code(
    values: np.ndarray | None, inside: Bool[np.ndarray, "height width"] | None
) -> Pixels | None:
    """A map of one channel in [0, 1] as gray."""
    return coded(None if values is None else np.repeat(values[..., None], 3, -1), inside)


def difference_code(
    relit: np.ndarray, image: np.ndarray, inside: Bool[np.ndarray, "height width"], full: float
) -> Pixels:
    """Where `relit` is brighter than the image, orange, and where it is darker, blue.

    full: difference in linear light of the full colour; white is none.
    """
    signed = np.clip((np.clip(relit, 0, 1) - image).mean(-1, keepdims=True) / full, -1, 1)
    colour = np.where(signed > 0, _TOO_BRIGHT, _TOO_DARK)
    pixels = 255 + np.abs(signed) * (colour - 255)
    return within(np.rint(pixels).astype(np.uint8), inside)


def ball_under(sh: Float[np.ndarray, "3 9"]) -> UInt8[np.ndarray, "height width 4"]:
    """A white ball under a light, its brightest point white; RGBA, clear around it."""
    place = (np.arange(_BALL_PX) + 0.5) / _BALL_PX * 2 - 1
    x, y = np.meshgrid(place, -place)
    distance = np.hypot(x, y)
    z = np.sqrt(np.clip(1 - distance**2, 0, None))
    normal = torch.from_numpy(np.stack([x, y, z]).astype(np.float32))
    shading = shade(normal, torch.from_numpy(sh)).permute(1, 2, 0).numpy()
    on_ball = distance < 1
    white = max(float(shading[on_ball].max()), 1e-6)
    edge = np.clip((1 - distance) * _BALL_PX / 2 + 0.5, 0, 1)
    alpha = np.rint(edge * 255).astype(np.uint8)[..., None]
    return np.concatenate([to_srgb8(shading / white), alpha], axis=-1)


def within(pixels: Pixels, inside: Bool[np.ndarray, "height width"]) -> Pixels:
    """The pixels of the mask on an even gray."""
    return np.where(inside[..., None], pixels, np.array(EMPTY, np.uint8))
