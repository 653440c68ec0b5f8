"""Real environments as second-order spherical harmonics: those shipped, or a folder of maps."""

import functools
import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float

from relightx.sh import ambient_light, environment_light

_SHIPPED = Path(__file__).with_name("environments.json")
_ENDINGS = (".hdr", ".exr", ".pic")


@functools.cache
def shipped_environments() -> dict[str, Float[np.ndarray, "3 9"]]:
    """The 14 CC0 environments of environments.json, of mean luminance 1, by name."""
    content = json.loads(_SHIPPED.read_text(encoding="utf-8"))
    return {name: np.array(sh, np.float32) for name, sh in content["environments"].items()}


def read_environments(directory: Path) -> dict[str, Float[np.ndarray, "3 9"]]:
    """The equirectangular .hdr and .exr maps of a folder, of mean luminance 1, by file name.

    Orientation as in `relightx.sh.environment_light`: the left and right edges light the face.
    Raises ValueError for a folder without maps, and for a map that cannot be read or is dark.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such folder; one with .hdr or .exr maps is needed")
    files = sorted(file for file in directory.iterdir() if file.suffix.lower() in _ENDINGS)
    if not files:
        raise ValueError(
            f"{directory}: holds no .hdr or .exr map; add some or leave the option out"
        )
    return {file.stem: read_environment(file) for file in files}


def read_environment(file: Path) -> Float[np.ndarray, "3 9"]:
    """One equirectangular map of linear radiance; raises ValueError naming the file."""
    # OpenCV asks for it before the first EXR file.
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
    return normalised(environment_light(radiance).numpy(), str(file))


def normalised(sh: Float[np.ndarray, "3 9"], name: str) -> Float[np.ndarray, "3 9"]:
    """The light scaled to mean luminance 1 over all directions; ValueError when it is dark."""
    luminance = float(np.array([0.2126, 0.7152, 0.0722]) @ sh[:, 0]) / float(ambient_light(1.0)[0])
    if not luminance > 0:
        raise ValueError(f"{name}: its mean luminance is {luminance:g}; light is needed")
    return (sh / luminance).astype(np.float32)
