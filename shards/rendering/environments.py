"""Real environments as second-order spherical harmonics: those shipped, or a folder of maps."""

import functools
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from relightx.environment import read_environment

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
    return {file.stem: read_environment(file) for file in environment_files(directory)}


def environment_files(directory: Path) -> list[Path]:
    """The maps of a folder in the order of their names. Raises ValueError when it has none."""
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such folder; one with .hdr or .exr maps is needed")
    files = sorted(file for file in directory.iterdir() if file.suffix.lower() in _ENDINGS)
    if not files:
        raise ValueError(
            f"{directory}: holds no .hdr or .exr map; add some or leave the option out"
        )
    return files
