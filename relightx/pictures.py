"""Results written as picture files: sRGB outside, whole or not at all."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from relightx.color import to_srgb8
from relightx.index import write_atomically
from relightx.light import Light
from relightx.portrait import PortraitDecomposition

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def check_picture_name(path: Path) -> None:
    """Refuse, before any work, a file that could not be written: ValueError."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path}: ends in {path.suffix!r}; .png or .jpg needed")
    if path.is_dir():
        raise ValueError(f"{path}: is a directory; a file name is needed")


def refuse_used_directory(path: Path) -> None:
    """Refuse a directory that holds something, or a file: ValueError."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path}: already there and not empty; choose a new directory")


def write_picture(image: Float[np.ndarray, "height width 3"], path: Path) -> None:
    """Write linear RGB as an 8-bit sRGB PNG or JPEG, by the file's ending."""
    check_picture_name(path)
    _write(to_srgb8(image), path)


def write_decomposition(result: PortraitDecomposition, directory: Path) -> None:
    """Write albedo, normal, shading, mask, a sheet of all, and the light as JSON, all or none.

    Raises ValueError for a directory that holds something.
    """
    refuse_used_directory(directory)
    staged = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _write(to_srgb8(result.albedo), staged / "albedo.png")
        _write(_normal8(result), staged / "normal.png")
        _write(to_srgb8(result.shading), staged / "shading.png")
        _write(result.mask.astype(np.uint8) * 255, staged / "mask.png")
        _write(decomposition_sheet(result), staged / "sheet.png")
        write_atomically(staged / "light.json", _light_json(result.light))
        os.replace(staged, directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _light_json(light: Light) -> bytes:
    content = {
        "convention": "relightx: radiance, orthonormal, order 00 1-1 10 11 2-2 2-1 20 21 22",
        "sh": np.round(light.sh.astype(float), 6).tolist(),
        "direction": np.round(light.direction.astype(float), 6).tolist(),
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def decomposition_sheet(result: PortraitDecomposition) -> np.ndarray:
    """Photograph, albedo, normals, shading and the image rebuilt, side by side; 8-bit sRGB."""
    weight = result.weight[..., None]
    rebuilt = weight * result.albedo * result.shading + (1 - weight) * result.image
    columns = [
        to_srgb8(result.image),
        to_srgb8(result.albedo),
        _normal8(result),
        to_srgb8(result.shading),
        to_srgb8(rebuilt),
    ]
    return np.concatenate(columns, axis=1)


def _normal8(result: PortraitDecomposition) -> np.ndarray:
    encoded = (result.normal + 1) / 2 * (result.weight[..., None] > 0)
    return np.rint(encoded * 255).astype(np.uint8)


def _write(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, _FORMATS[path.suffix.lower()], quality=95)
    write_atomically(path, buffer.getvalue())
