"""Equirectangular HDR maps from files, as second-order lights."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from relightx.color import LUMINANCE
from relightx.picture import read_linear_picture
from relightx.sh import ambient_light, environment_light


def read_map(file: Path) -> Float[np.ndarray, "3 height width"]:
    """One equirectangular .hdr or .exr map of linear radiance, height x 2 height.

    Raises ValueError naming a file that is missing, no such map, not 2:1 or not finite.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file; an .hdr or .exr environment map is needed")
    picture = read_linear_picture(file)
    height, width = picture.shape[:2]
    if width != 2 * height:
        raise ValueError(f"{file}: is {width}x{height}; an equirectangular map is 2:1")
    return np.ascontiguousarray(np.broadcast_to(picture, (height, width, 3)).transpose(2, 0, 1))


def read_environment(file: Path) -> Float[np.ndarray, "3 9"]:
    """The light of one .hdr or .exr map of linear radiance, scaled to mean luminance 1.

    Orientation as in `relightx.sh.environment_light`: the left and right edges light the face.
    Raises ValueError naming a file that is missing, no such map, not 2:1, not finite or dark.
    """
    radiance = torch.from_numpy(read_map(file))
    return of_mean_luminance_1(environment_light(radiance).numpy(), str(file))


def of_mean_luminance_1(sh: Float[np.ndarray, "3 9"], name: str) -> Float[np.ndarray, "3 9"]:
    """The light scaled to mean luminance 1 over all directions; ValueError when it is dark."""
    luminance = float(np.array(LUMINANCE) @ sh[:, 0]) / float(ambient_light(1.0)[0])
    if not luminance > 0:
        raise ValueError(f"{name}: its mean luminance is {luminance:g}; light is needed")
    return (sh / luminance).astype(np.float32)
