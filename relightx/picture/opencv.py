"""OpenCV's decoders, without the lines they print about broken files: the caller raises instead."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

_BROKEN = "cannot be decoded: it is cut short, broken or stored in a rare way; export it again"


def decode_as(dtype: type, data: bytes) -> np.ndarray:
    """Pixels of a picture in memory, height x width x (1 or 3), without alpha, which are of a type.

    Raises ValueError without the file's name.
    """
    buffer = np.frombuffer(data, np.uint8)
    return _pixels(dtype, lambda: cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED))


def read_radiance(file: Path) -> np.ndarray:
    """Pixels of an .exr or .hdr file, height x width x (1 or 3), float32, without alpha.

    Raises ValueError without the file's name.
    """
    # Some builds of OpenCV read the variable at import, others at each call.
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    # Not IMREAD_COLOR: it leaves the colours of a gray EXR as they were in memory.
    return _pixels(np.float32, lambda: cv2.imread(str(file), cv2.IMREAD_UNCHANGED))


def _pixels(dtype: type, decode: Callable[[], np.ndarray | None]) -> np.ndarray:
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = decode()
    except cv2.error as error:
        raise ValueError(f"{_BROKEN} ({error.err})") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None or pixels.dtype != dtype:
        raise ValueError(_BROKEN)
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] == 2:  # gray and alpha
        return np.ascontiguousarray(pixels[..., :1])
    return np.ascontiguousarray(pixels[..., 2::-1])  # of BGR or BGRA
