"""Pictures as bytes: PNG and JPEG, whose size is known before any memory is spent on pixels."""

import io

import cv2
import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, UnidentifiedImageError

_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"


def encode_png(pixels: Integer[np.ndarray, "height width channels"]) -> bytes:
    """A PNG, without loss, of uint8 or uint16 with 1 or 3 channels."""
    return _encoded(".png", pixels)


def encode_jpeg(pixels: UInt8[np.ndarray, "height width channels"], quality: int) -> bytes:
    """A JPEG of quality 1 to 100, its colour not subsampled. Raises ValueError for another."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality is {quality}; 1 to 100 needed")
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    return _encoded(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality, *full))


def decode_picture(
    data: bytes, size: tuple[int, int]
) -> Integer[np.ndarray, "height width channels"]:
    """Pixels of a PNG or JPEG of this height and width, 1 (gray) or 3 channels.

    Raises ValueError, without the picture's name, for another size, another format, a picture that
    is cut short or broken.
    """
    is_jpeg = data[:2] == b"\xff\xd8"
    found = _jpeg_size(data) if is_jpeg else _png_size(data)
    if found != size:
        raise ValueError(
            f"is not a {'JPEG' if is_jpeg else 'PNG'} of {size[1]}x{size[0]} (found"
            f" {found[1]}x{found[0]})"
        )
    if not data.endswith(_JPEG_END if is_jpeg else _PNG_END):
        raise ValueError("is cut short")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("cannot be decoded")
    return pixels[..., None] if pixels.ndim == 2 else pixels[..., ::-1]


def _encoded(ending: str, pixels: np.ndarray, options: tuple[int, ...] = ()) -> bytes:
    stored = pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels  # OpenCV's order is BGR
    done, buffer = cv2.imencode(ending, np.ascontiguousarray(stored), options)
    if not done:
        raise ValueError(f"{pixels.dtype} {pixels.shape} failed to encode as {ending}")
    return buffer.tobytes()


def _png_size(data: bytes) -> tuple[int, int]:
    """Height and width; zeros when it is no PNG."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return 0, 0
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width; zeros when its header is broken."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            return picture.height, picture.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
