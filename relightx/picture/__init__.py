"""Read a picture file: as the integers it holds, or as linear radiance in floating point.

This is the one reader of pictures from outside. Their content decides what they are, not their
name, and their size is known before memory is spent on pixels. Whatever is wrong with a file is a
ValueError that names it, what was found and what to do.

What no reader can see: JPEG, BMP, PGM, WebP and most TIFF files carry no checksum, so bytes changed
inside their pixel data give other pixels. PNG is checked throughout. An alpha channel is dropped;
where a file's colours were multiplied with it (EXR by convention), its edges stay dark.
"""

import io
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (it enters itself)

from relightx.picture.opencv import decode_as
from relightx.picture.radiance import decode_exr, decode_hdr, is_exr, is_hdr
from relightx.picture.size import check_size
from relightx.picture.tiff import (
    decode_float_tiff,
    decode_tiff,
    gray_or_rgb,
    is_float_tiff,
    is_tiff,
)

MAX_FILE_BYTES = 1 << 30
"""The largest picture, 8192 x 8192 of four floats, uncompressed."""
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")
"""What Pillow may take a file for; of its others, EPS starts a program."""
_READABLE = "PNG, JPEG, TIFF, BMP, GIF, WebP, PGM and PPM are"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY = (0, 4)  # colour types, without and with alpha
_PNM_NUMBER = re.compile(rb"(?:\s|#[^\n]*\n)+(\d{1,5})")
_ORIENTATION = 0x0112
_BROKEN = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError),
    *(struct.error, zlib.error),
)
"""What Pillow's code trips over in a broken file, besides OSError and ValueError."""


def read_picture(file: Path) -> Integer[np.ndarray, "height width channels"]:
    """Pixels of a picture, uint8 or uint16 with 1 (gray) or 3 channels, turned as EXIF says.

    PNG, JPEG, TIFF, BMP, GIF, WebP, PGM and PPM. An alpha channel is dropped, a palette becomes
    RGB, black and white become 0 and 255. Raises ValueError naming the file when it is not a whole
    picture, larger than 8192 pixels on a side, one of several in its file, or not gray or RGB.
    """
    with _faults_of(file):
        data = _content(file)
        if is_tiff(data):
            return decode_tiff(data)
        if is_exr(data) or is_hdr(data):
            raise ValueError(
                "holds radiance in floating point; a picture of 8 or 16 bits is needed here: save"
                " it as 16-bit PNG"
            )
        if data[:2] in (b"P5", b"P6"):
            return _decode_pnm(data)
        if data[:8] == _PNG and data[24:25] == b"\x10":
            return _decode_16_bit_png(data)
        return _decode(data)


def read_linear_picture(file: Path) -> Float[np.ndarray, "height width channels"]:
    """Linear radiance of an .exr, .hdr or floating-point TIFF, float32, 1 (gray) or 3 channels.

    Finite and at least 0: negative values, which only noise and ringing leave in radiance, become
    0. An EXR is read over its display window, black where it holds nothing; the EXPOSURE of an
    .hdr is undone. Raises ValueError naming the file when it is not a whole picture of this kind,
    larger than 8192 pixels on a side or not finite.
    """
    with _faults_of(file):
        head = _content(file, 1 << 20)
        if is_exr(head):
            radiance = decode_exr(file, head)
        elif is_hdr(head):
            radiance = decode_hdr(file, head)
        elif is_tiff(head):
            radiance = decode_float_tiff(_content(file))
        else:
            raise ValueError(
                "no .exr, .hdr or floating-point TIFF found; linear radiance is needed"
            )
        wrong = radiance.size - int(np.isfinite(radiance).sum())
        if wrong:
            raise ValueError(
                f"has {wrong} values that are not finite; save it without NaN and as 32-bit floats"
            )
        return np.maximum(radiance, 0, dtype=np.float32)


def is_linear_picture(file: Path) -> bool:
    """Whether a file is one for `read_linear_picture`. Raises ValueError for an unreadable one."""
    with _faults_of(file):
        head = _content(file, 1 << 20)
        if is_tiff(head):
            return is_float_tiff(_content(file))
        return is_exr(head) or is_hdr(head)


@contextmanager
def _faults_of(file: Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file into a ValueError that begins with its name."""
    try:
        with warnings.catch_warnings():  # of odd metadata, which nobody can act upon
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise ValueError(f"{file}: is not a picture that can be read; {_READABLE}") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file}: is too large: {error}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    except (OSError, *_BROKEN) as error:
        if isinstance(error, OSError) and error.strerror:  # of the system, not of a decoder
            raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
        raise ValueError(f"{file}: is broken ({error!r}); export or copy it again") from None


def _content(file: Path, limit: int | None = None) -> bytes:
    """The file's bytes, or the first `limit`; a pipe or device is refused before it can block."""
    found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise ValueError(f"is {kind}; a picture file is needed")
    if found.st_size > MAX_FILE_BYTES:
        raise ValueError(f"is larger than {MAX_FILE_BYTES >> 20} MiB; save a smaller picture")
    if found.st_size == 0:
        raise ValueError("is empty; copy it again from where it came")
    with open(file, "rb") as stream:
        return stream.read(min(found.st_size, limit or MAX_FILE_BYTES))


def _decode(data: bytes) -> Integer[np.ndarray, "height width channels"]:
    """All 8-bit formats but TIFF."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
        check_size(*picture.size)
        # The further pictures of MPO, which cameras write, are views or a gain of the first.
        count = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
        if count > 1:
            raise ValueError(f"holds {count} pictures; one is needed: save each as its own file")
        if picture.mode not in ("1", "L", "LA", "RGB", "RGBA", "RGBX", "P", "PA"):
            ink = " (printing inks)" if picture.mode == "CMYK" else ""
            raise ValueError(
                f"has colour mode {picture.mode}{ink}; gray or RGB needed: convert it to sRGB with"
                " its colour profile"
            )
        pixels = gray_or_rgb(picture)
        # After the pixels: a PNG may say it behind them.
        return _upright(pixels, picture.getexif().get(_ORIENTATION, 1))


def _decode_16_bit_png(data: bytes) -> Integer[np.ndarray, "height width channels"]:
    """Through OpenCV: Pillow reads 16-bit colour as 8-bit."""
    width, height, _, color_type = struct.unpack_from(">IIBB", data.ljust(26), 16)
    check_size(width, height)
    exif = _check_png(data)
    pixels = decode_as(np.uint16, data)
    if color_type in _PNG_GRAY:
        pixels = pixels[..., :1]
    return np.ascontiguousarray(_upright(pixels, exif.get(_ORIENTATION, 1)))


def _check_png(data: bytes) -> Image.Exif:
    """What the picture says about itself. Raises ValueError for a chunk that is cut or changed."""
    exif, place, kind = Image.Exif(), 8, b""
    while kind != b"IEND":
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 8 + size
        if end + 4 > len(data):
            raise ValueError("is cut short; copy it again from where it came")
        checksum = int.from_bytes(data[end : end + 4], "big")
        if zlib.crc32(memoryview(data)[place + 4 : end]) != checksum:
            raise ValueError(f"is broken: its part {kind!r} fails its checksum; copy it again")
        if kind == b"eXIf":
            exif.load(b"Exif\0\0" + data[place + 8 : end])
        place = end + 4
    return exif


def _decode_pnm(data: bytes) -> Integer[np.ndarray, "height width channels"]:
    """Binary PGM or PPM; Pillow reads 16-bit colour as 8-bit."""
    place, numbers = 2, []
    for _ in range(3):
        number = _PNM_NUMBER.match(data, place)
        if not number:
            raise ValueError("is broken: a PGM or PPM begins with width, height and largest value")
        numbers.append(int(number[1]))
        place = number.end()
    width, height, top = numbers
    check_size(width, height)
    if not 1 <= top <= 65535:
        raise ValueError(f"is broken: its largest value is {top}; 1 to 65535 is possible")
    channels = 1 if data[:2] == b"P5" else 3
    stored = np.dtype(np.uint8 if top < 256 else ">u2")
    count = height * width * channels
    if len(data) < place + 1 + count * stored.itemsize:
        raise ValueError("is cut short; copy it again from where it came")
    pixels = np.frombuffer(data, stored, count, place + 1).reshape(height, width, channels)
    kind = stored.newbyteorder("=")
    full = np.iinfo(kind).max
    if top == full:
        return pixels.astype(kind)
    return np.rint(np.minimum(pixels, top) * (full / top)).astype(kind)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The picture turned and mirrored as its EXIF orientation, 1 to 8, asks for."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
