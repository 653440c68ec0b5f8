"""sRGB and linear light: the only place where the transfer function is written.

Every `image` and `albedo` inside relightx is linear. Files and pictures for people are
sRGB-encoded (IEC 61966-2-1); they are converted here, where they enter and where they leave.
All functions take NumPy arrays or torch tensors and return the same kind.
"""

from typing import TypeVar

import cv2
import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)

TRANSFERS = ("srgb", "linear")
"""Transfer functions that stored integers may have."""

LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear RGB with BT.709 primaries


def srgb_to_linear(encoded: Array) -> Array:
    """Linear light in [0, 1] of sRGB values in [0, 1], any shape; values outside are clipped."""
    xp = torch if isinstance(encoded, torch.Tensor) else np
    clipped = xp.clip(encoded, 0.0, 1.0)
    return xp.where(clipped <= 0.04045, clipped / 12.92, ((clipped + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Array) -> Array:
    """sRGB values in [0, 1] of linear light, any shape; light outside [0, 1] is clipped."""
    xp = torch if isinstance(linear, torch.Tensor) else np
    clipped = xp.clip(linear, 0.0, 1.0)
    # The curved branch is evaluated for every pixel; below its knee it must stay finite and
    # differentiable, hence the floor.
    curved = 1.055 * xp.clip(clipped, 0.0031308, 1.0) ** (1 / 2.4) - 0.055
    return xp.where(clipped <= 0.0031308, clipped * 12.92, curved)


def to_srgb8(linear: np.ndarray) -> np.ndarray:
    """8-bit sRGB of linear light, rounded to nearest, any shape."""
    return np.rint(linear_to_srgb(np.asarray(linear, np.float32)) * 255).astype(np.uint8)


def from_integer(stored: np.ndarray, transfer: str) -> np.ndarray:
    """Linear float32 in [0, 1] of stored uint8 or uint16 values.

    transfer: 'srgb' (encoded values) or 'linear' (values proportional to light).
    Raises ValueError for another type or transfer.
    """
    if stored.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels have type {stored.dtype}; uint8 or uint16 needed")
    if transfer not in TRANSFERS:
        raise ValueError(f"transfer function {transfer!r} is unknown; 'srgb' or 'linear' needed")
    if stored.dtype == np.uint16 and transfer == "linear":
        linear = stored.astype(np.float32)
        linear /= np.float32(65535)
        return linear
    table = _linear_table(stored.dtype.name, transfer)
    if stored.dtype == np.uint16 or not stored.size:
        return table.take(stored)
    # OpenCV looks 8-bit values up in half of NumPy's time, but knows no empty arrays.
    return cv2.LUT(stored.reshape(1, -1), table).reshape(stored.shape)


_TABLES: dict[tuple[str, str], np.ndarray] = {}


def _linear_table(dtype: str, transfer: str) -> np.ndarray:
    """Linear light of every integer of a type: a look-up is ten times faster than the power."""
    if (dtype, transfer) not in _TABLES:
        top = np.iinfo(dtype).max
        values = np.arange(top + 1) / top
        table = srgb_to_linear(values) if transfer == "srgb" else values
        _TABLES[dtype, transfer] = table.astype(np.float32)
    return _TABLES[dtype, transfer]
