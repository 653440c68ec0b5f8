"""Pictures as bytes: PNG and JPEG, whose size is known before any memory is spent on pixels.

PNG is decoded by kornia-rs (image-rs's png crate) and JPEG by simplejpeg (libjpeg-turbo): they give
the pixels of libpng and of libjpeg-turbo's default method bit by bit, and sooner than any other
kept wheel (tests/benchmarks/decoding.py). Until its pixels lie as RGB, OpenCV takes 2.2 to 3.7
times as long for a PNG and 1.2 times for a JPEG; imagecodecs, whose wheel has 28 MB to their 5.2
and 0.4, 1.8 to 3.2 times and 1.1 times. imgread is as fast for RGB of 8 bits and reads no other;
own code over libdeflate is slower. They are the stricter too: a wrong checksum, another size, depth
or colour type is an error to the one, a JPEG cut anywhere to the other, of which OpenCV makes
pixels. kornia-rs keeps Python's lock while it decodes: to decode side by side takes processes.

PNG rows are stored as differences from the row above, in runs: against OpenCV's default
(from the left) they take 2 to 6 % fewer bytes, decoded 4 to 18 % sooner, and no longer to encode;
masks 30 % and 30 to 45 %. Paeth's filter saves as much again and takes a third to twice as long.
"""

import cv2
import numpy as np
from jaxtyping import Integer, UInt8
from kornia_rs import io as kornia_io
from simplejpeg import decode_jpeg

_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8"
_PNG_END, _JPEG_END = b"\0\0\0\0IEND\xaeB`\x82", b"\xff\xd9"
_PNG_CHANNELS = {0: 1, 2: 3}
"""By colour type: gray and RGB, all that `encode_png` writes."""
_PNG_OPTIONS = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the header that gives a JPEG's size."""
_JPEG_SCAN = 0xDA


def encode_png(pixels: Integer[np.ndarray, "height width channels"]) -> bytes:
    """A PNG, without loss, of uint8 or uint16 with 1 or 3 channels."""
    return _encoded(".png", pixels, _PNG_OPTIONS)


def encode_jpeg(pixels: UInt8[np.ndarray, "height width channels"], quality: int) -> bytes:
    """A JPEG of quality 1 to 100, its colour not subsampled. Raises ValueError for another."""
    if not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality is {quality}; 1 to 100 needed")
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    return _encoded(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality, *full))


def decode_picture(
    data: bytes, size: tuple[int, int]
) -> Integer[np.ndarray, "height width channels"]:
    """Pixels of a PNG or JPEG of this height and width, 1 (gray) or 3 channels; a new array.

    Raises ValueError, without the picture's name, for another size, another format, a picture that
    is cut short or broken, colours that are neither gray nor RGB of 8 or 16 bits.
    """
    is_jpeg = data[:2] == _JPEG_START
    height, width, channels = _jpeg_shape(data) if is_jpeg else _png_shape(data)
    if (height, width) != size:
        raise ValueError(
            f"is not a {'JPEG' if is_jpeg else 'PNG'} of {size[1]}x{size[0]} (found"
            f" {width}x{height})"
        )
    if not data.endswith(_JPEG_END if is_jpeg else _PNG_END):
        raise ValueError("is cut short")
    return _jpeg_pixels(data, channels) if is_jpeg else _png_pixels(data, size, channels)


def _png_pixels(
    data: bytes, size: tuple[int, int], channels: int
) -> Integer[np.ndarray, "height width channels"]:
    depth = data[24]
    if depth not in (8, 16) or not channels:
        raise ValueError(
            f"is a PNG of {depth} bits and colour type {data[25]};"
            " 8 or 16 bits of gray (0) or RGB (2) needed"
        )
    decode = kornia_io.decode_image_png_u8 if depth == 8 else kornia_io.decode_image_png_u16
    try:
        return decode(data, size, "rgb" if channels == 3 else "mono")
    except Exception as error:  # kornia-rs raises nothing narrower
        raise ValueError(f"cannot be decoded: {error}") from None


def _jpeg_pixels(data: bytes, channels: int) -> UInt8[np.ndarray, "height width channels"]:
    if channels not in (1, 3):
        raise ValueError(f"is a JPEG of {channels} channels; gray or RGB needed")
    try:
        return decode_jpeg(data, "RGB" if channels == 3 else "GRAY")
    except ValueError as error:
        raise ValueError(f"cannot be decoded: {error}") from None


def _encoded(ending: str, pixels: np.ndarray, options: tuple[int, ...]) -> bytes:
    stored = np.ascontiguousarray(pixels)
    if pixels.shape[-1] == 3:
        stored = cv2.cvtColor(stored, cv2.COLOR_RGB2BGR)  # OpenCV's order is BGR
    done, buffer = cv2.imencode(ending, stored, options)
    if not done:
        raise ValueError(f"{pixels.dtype} {pixels.shape} failed to encode as {ending}")
    return buffer.tobytes()


def _png_shape(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels; zeros when it is no PNG, 0 channels in colours we do not read."""
    if len(data) < 26 or not data.startswith(_PNG_START):
        return 0, 0, 0
    height, width = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    return height, width, _PNG_CHANNELS.get(data[25], 0)


def _jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels; all zero when its header is broken."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF and data[place + 1] != _JPEG_SCAN:
        marker = data[place + 1]
        if marker in _JPEG_FRAMES:
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            return height, int.from_bytes(data[place + 7 : place + 9], "big"), data[place + 9]
        # Before another marker there may be any number of bytes 255 to fill.
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        place += 1 if marker == 0xFF else 2 + length
    return 0, 0, 0
