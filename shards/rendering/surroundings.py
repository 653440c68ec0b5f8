"""Environment maps as light for traced scenes: what glows all around, and suns apart from it.

A sun's shadow has an edge, which cells of directions would lose: so small and bright parts of a map
are taken out of it and become lamps.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float

from relightx.color import LUMINANCE
from relightx.environment import read_map
from relightx.sh import ambient_light, directional_light, environment_directions, environment_light
from shards.rendering.environments import environment_files

_SHIPPED = Path(__file__).with_name("environments.npz")
_HEIGHT = 64  # pixels of a map, which is twice as wide
_SUN_RADIUS = math.radians(9)
_SUN_SHARE = 0.08  # of all light, that a sun has at least
_MOST_SUNS = 3
# Of its luminance: no lamp or sun is bluer than the sky. Compression has left two of the shipped
# maps (park and sunrise) with a sun in the blue alone.
_SUN_COLOUR = np.array([2.5, 1.3, 1.5], np.float32)


@dataclass(frozen=True)
class Sun:
    """A small bright part of a map: unit direction, shading of what faces it, half its angle."""

    direction: Float[np.ndarray, "3"]
    colour: Float[np.ndarray, "3"]
    radius: float


@dataclass(frozen=True)
class Surroundings:
    """A map of mean luminance 1, frame as in `relightx.sh.environment_light`.

    direction, weight: of each pixel; weight is its solid angle / (4 pi). radiance: without the
    suns. sh: of all of it.
    """

    name: str
    direction: Float[np.ndarray, "pixels 3"]
    weight: Float[np.ndarray, "pixels"]
    radiance: Float[np.ndarray, "pixels 3"]
    suns: tuple[Sun, ...]
    sh: Float[np.ndarray, "3 9"]


@functools.cache
def shipped_surroundings() -> dict[str, Surroundings]:
    """The 14 CC0 maps of environments.npz, by name."""
    with np.load(_SHIPPED) as content:
        maps = zip(content["names"], content["radiance"].astype(np.float32), strict=True)
        return {str(name): surroundings(str(name), radiance) for name, radiance in maps}


def read_surroundings(directory: Path) -> dict[str, Surroundings]:
    """The equirectangular .hdr and .exr maps of a folder, by file name.

    Raises ValueError for a folder without maps, and for a map that cannot be read or is dark.
    """
    found = {}
    for file in environment_files(directory):
        picture = np.ascontiguousarray(read_map(file).transpose(1, 2, 0))
        small = cv2.resize(picture, (2 * _HEIGHT, _HEIGHT), interpolation=cv2.INTER_AREA)
        found[file.stem] = surroundings(file.stem, small)
    return found


def surroundings(name: str, radiance: Float[np.ndarray, "height width 3"]) -> Surroundings:
    """A map as light. Raises ValueError when it is dark."""
    direction, solid_angle = environment_directions(*radiance.shape[:2])
    d = direction.numpy().reshape(-1, 3).astype(np.float32)
    weight = (solid_angle.numpy().ravel() / (4 * math.pi)).astype(np.float32)
    # Compression leaves rings below zero around what is bright.
    glow = np.maximum(radiance.reshape(-1, 3), 0).astype(np.float32)
    mean = float(weight @ glow @ np.array(LUMINANCE, np.float32))
    if not mean > 0:
        raise ValueError(f"{name}: its mean luminance is {mean:g}; light is needed")
    glow /= mean
    rest, suns = _parted(d, weight, glow)
    picture = torch.from_numpy(rest.reshape(radiance.shape).transpose(2, 0, 1).copy())
    sh = environment_light(picture).numpy()
    for sun in suns:
        sh = sh + sun.colour[:, None] * directional_light(torch.from_numpy(sun.direction)).numpy()
    return Surroundings(name, d, weight, rest, tuple(suns), sh.astype(np.float32))


def _parted(
    direction: np.ndarray, weight: np.ndarray, radiance: np.ndarray
) -> tuple[np.ndarray, list[Sun]]:
    """A map without its suns, and those."""
    rest, suns = radiance.copy(), []
    luminance = np.array(LUMINANCE, np.float32)
    for _ in range(_MOST_SUNS):
        bright = rest @ luminance
        peak = direction[int(np.argmax(bright))]
        for _ in range(2):  # the brightest pixel may lie at the sun's rim
            inside = direction @ peak > math.cos(_SUN_RADIUS)
            peak = (bright * weight * inside) @ direction
            peak /= np.linalg.norm(peak)
        inside = direction @ peak > math.cos(_SUN_RADIUS)
        around = (direction @ peak > math.cos(2 * _SUN_RADIUS)) & ~inside
        sky = np.median(rest[around], axis=0)
        excess = np.maximum(rest[inside] - sky, 0) * weight[inside, None]
        if excess.sum(axis=0) @ luminance < _SUN_SHARE:
            break
        share = excess @ luminance
        middle = share @ direction[inside]
        middle /= np.linalg.norm(middle)
        away = np.arccos(np.clip(direction[inside] @ middle, -1, 1))
        radius = math.sqrt(2 * float(share @ away**2 / share.sum()))  # of an even disc
        colour = 4 * excess.sum(axis=0)
        colour = np.minimum(colour, (colour @ luminance) * _SUN_COLOUR)
        suns.append(Sun(middle.astype(np.float32), colour, max(radius, 0.005)))
        rest[inside] -= excess / weight[inside, None]
    return rest, suns


def even_light(shading: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 9"]:
    """The coefficients of light from everywhere."""
    return shading[:, None] * ambient_light(1.0).numpy()
