"""Weights that make a one-light-at-a-time stack look as in an environment, and its true light.

A lamp stands for the part of the sphere that is nearer to it than to any other lamp, and shines
with the power that an environment sends from there: sum over lamps of weight * picture, in linear
light. Where a stage has no lamps, as behind many, an environment's light is left out: a lamp's
part reaches no further than its third nearest neighbour.

What is stored as the light is what the lamps emit, not the map. Under a full sphere of lamps the
two agree to half a percent; where a part of the sphere has no lamps only the first explains the
picture. On an exactly Lambertian ball in the 14 environments that are shipped, the usual residual
is 0.3 % of the picture under the lamps' light and 0.5 % under the map's, with 150 lamps all
around; with 144 in front, 0.9 % and 16 %.

A lamp of strength 1 shades a surface that faces it to 1; it has the power pi (relightx.sh). So the
power P in a lamp's part gives the weight P / pi, and a white environment of radiance 1 around a
full sphere of lamps gives the ambient picture, albedo times 1.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float

from relightx.environment import read_map
from relightx.sh import directional_light, environment_directions, radiance
from shards.rendering.environments import environment_files, shipped_environments
from shards.rendering.lights import rotation

MAP_HEIGHT = 128
"""Rows of a map as it is used: 1.4 degrees each. Stages have lamps every 10 degrees or so."""
NEIGHBOUR = 3
BALANCE = 0.7


class Environment(NamedTuple):
    """Radiance from all around, red, green and blue, in the orientation of relightx.sh."""

    name: str
    radiance: Float[np.ndarray, "3 height width"]


def lamp_power(
    environment: Environment, direction: Float[np.ndarray, "lamps 3"], turn_deg: int
) -> Float[np.ndarray, "lamps 3"]:
    """Radiance integrated over each lamp's part of the sphere (radiance times steradian).

    The environment is turned about the vertical as in `relightx.light.Light.from_environment`.
    """
    toward, solid_angle = _map_directions(*environment.radiance.shape[1:])
    turned = toward @ rotation(float(np.radians(turn_deg)), 0.0, 0.0).T.astype(np.float32)
    cosine = turned @ direction.T.astype(np.float32)
    nearest = cosine.argmax(axis=1)
    reached = (
        np.take_along_axis(cosine, nearest[:, None], axis=1)[:, 0] >= _reach(direction)[nearest]
    )
    light = environment.radiance.reshape(3, -1) * (solid_angle * reached)
    return np.stack([np.bincount(nearest, c, minlength=len(direction)) for c in light], axis=1)


def white_balance(
    power: Float[np.ndarray, "num lamps 3"], direction: Float[np.ndarray, "lamps 3"]
) -> Float[np.ndarray, "num 1 3"]:
    """What to multiply each light's colours with so that its cast is weak, as in photographs.

    The cast is that of a surface facing the camera; BALANCE of it, in logarithms, is taken away.
    """
    ahead = np.maximum(direction[:, 2], 0) + 0.01  # where all lamps are behind, they all count
    colour = np.einsum("nlc,l->nc", power, ahead)[:, None]
    colour = np.maximum(colour / np.maximum(colour.mean(axis=2, keepdims=True), 1e-12), 1e-3)
    gain = colour**-BALANCE
    return gain / (gain * colour).mean(axis=2, keepdims=True)


def emitted_light(
    power: Float[np.ndarray, "lamps 3"], direction: Float[np.ndarray, "lamps 3"]
) -> Float[np.ndarray, "3 9"]:
    """Coefficients of lamps of these powers."""
    single = directional_light(torch.from_numpy(direction)).numpy()  # of power pi
    return (power.T @ single / np.pi).astype(np.float32)


def environment_names(folder: Path | None) -> list[str]:
    """Names of the maps of a folder, or of the environments that are shipped, in their order.

    Raises ValueError for a folder that is missing or holds none.
    """
    if folder is None:
        return sorted(shipped_environments())
    return [file.name for file in environment_files(folder)]


@functools.lru_cache(maxsize=64)
def environment(folder: Path | None, name: str) -> Environment:
    """A map of a folder, no finer than lamps need, or a shipped environment.

    Of those that are shipped only second-order coefficients are known; they become a map of the
    radiance that these describe, without the negative part. Raises ValueError for what is no map.
    """
    if folder is None:
        sh = torch.from_numpy(shipped_environments()[name])
        toward, _ = _map_directions(MAP_HEIGHT, 2 * MAP_HEIGHT)
        smooth = radiance(sh, torch.from_numpy(toward)).clamp_min(0).numpy()
        return Environment(name, smooth.reshape(3, MAP_HEIGHT, 2 * MAP_HEIGHT))
    picture = read_map(folder / name).transpose(1, 2, 0)
    if len(picture) > MAP_HEIGHT:
        picture = cv2.resize(picture, (2 * MAP_HEIGHT, MAP_HEIGHT), interpolation=cv2.INTER_AREA)
    return Environment(Path(name).stem, np.ascontiguousarray(picture.transpose(2, 0, 1)))


@functools.lru_cache(maxsize=8)
def _map_directions(
    height: int, width: int
) -> tuple[Float[np.ndarray, "num 3"], Float[np.ndarray, " num"]]:
    """Unit direction and solid angle of each pixel of a map, row by row."""
    toward, solid_angle = environment_directions(height, width)
    return toward.reshape(-1, 3).float().numpy(), solid_angle.reshape(-1).float().numpy()


def _reach(direction: Float[np.ndarray, "lamps 3"]) -> Float[np.ndarray, " lamps"]:
    """Cosine of how far each lamp's part goes: the distance of its third nearest neighbour."""
    if len(direction) <= NEIGHBOUR:
        return np.zeros(len(direction), np.float32)
    cosine = np.sort(direction @ direction.T, axis=1)[:, ::-1]
    return cosine[:, NEIGHBOUR]
