"""Equirectangular HDR maps from files, as second-order lights."""

import os
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float

from relightx.color import LUMINANCE
from relightx.sh import ambient_light, environment_light

MAX_MAP_BYTES = 512 << 20


def read_environment(file: Path) -> Float[np.ndarray, "3 9"]:
    """The light of one .hdr or .exr map of linear radiance, scaled to mean luminance 1.

    Orientation as in `relightx.sh.environment_light`: the left and right edges light the face.
    Raises ValueError naming a file that is missing, no such map, not 2:1, not finite or dark.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file; an .hdr or .exr environment map is needed")
    if file.stat().st_size > MAX_MAP_BYTES:
        raise ValueError(f"{file}: larger than {MAX_MAP_BYTES >> 20} MiB; use a smaller map")
    # Some builds of OpenCV read the variable at import, others at each call.
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    try:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ValueError(f"{file}: cannot be decoded: {error}") from None
    if picture is None or picture.dtype != np.float32:
        found = "no picture" if picture is None else f"{picture.dtype} values"
        raise ValueError(f"{file}: {found} found; a map of floating-point radiance is needed")
    height, width = picture.shape[:2]
    if width != 2 * height:
        raise ValueError(f"{file}: is {width}x{height}; an equirectangular map is 2:1")
    if not np.isfinite(picture).all():
        raise ValueError(f"{file}: has values that are not finite")
    radiance = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)))
    return of_mean_luminance_1(environment_light(radiance).numpy(), str(file))


def of_mean_luminance_1(sh: Float[np.ndarray, "3 9"], name: str) -> Float[np.ndarray, "3 9"]:
    """The light scaled to mean luminance 1 over all directions; ValueError when it is dark."""
    luminance = float(np.array(LUMINANCE) @ sh[:, 0]) / float(ambient_light(1.0)[0])
    if not luminance > 0:
        raise ValueError(f"{name}: its mean luminance is {luminance:g}; light is needed")
    return (sh / luminance).astype(np.float32)
