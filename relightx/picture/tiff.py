"""TIFF pictures: what their header says is checked before a decoder sees them.

Pillow reads 8 bits of them and turns them as their orientation says; OpenCV reads 16 bits and
floating point, and turns them too. What either would read wrongly without a word (16-bit planes
one after another, white stored as zero, gray with alpha, several pages) is put right or refused
here.
"""

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image, TiffImagePlugin  # noqa: F401 (the format enters itself)

from relightx.picture.opencv import decode_as
from relightx.picture.size import check_size
from relightx.sample import MAX_SIDE_PX

_MAX_PAGES = 64
_NUMBER = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT and LONG, for struct
_WHITE_IS_ZERO, _PALETTE = 0, 3
_KNOWN = (_WHITE_IS_ZERO, 1, 2, _PALETTE, 6)  # and black is zero, RGB, YCbCr of JPEG
_UNSIGNED, _FLOAT = 1, 3  # SampleFormat; an unsigned integer where nothing is said


class Page(NamedTuple):
    """The tags of a picture that decide how it is read."""

    width: int
    height: int
    bits: int
    channels: int
    photometric: int
    sample_format: int
    planar: bool
    """Channels one after another instead of side by side."""
    reduced: bool
    """A smaller copy of another page."""


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as a TIFF does (BigTIFF included)."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_float_tiff(data: bytes) -> bool:
    """Whether a TIFF holds floating point. Raises ValueError for a broken one."""
    return _page(data).sample_format == _FLOAT


def decode_tiff(data: bytes) -> Integer[np.ndarray, "height width channels"]:
    """The upright picture, uint8 or uint16, 1 (gray) or 3 channels; alpha is dropped.

    Raises ValueError, without the file's name, for what is broken or not such a picture.
    """
    page = _page(data)
    if page.sample_format == _FLOAT:
        raise ValueError(
            "holds radiance in floating point; a picture of 8 or 16 bits is needed here: save it"
            " with 16"
        )
    if page.sample_format != _UNSIGNED or page.bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"has {page.bits}-bit samples, or signed ones; save it with 8 or 16 bits")
    if page.bits < 16:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
            return gray_or_rgb(picture)
    if page.photometric == _PALETTE or (page.channels == 2):
        raise ValueError("has a 16-bit palette or gray with alpha; save it as 16-bit gray or RGB")
    pixels = _decode_wide(data, page, np.uint16)
    return 65535 - pixels if page.photometric == _WHITE_IS_ZERO else pixels


def decode_float_tiff(data: bytes) -> Float[np.ndarray, "height width channels"]:
    """The upright picture, float32, 1 (gray) or 3 channels; alpha is dropped.

    Raises ValueError, without the file's name, for what is broken or no 32-bit floating point.
    """
    page = _page(data)
    if page.sample_format != _FLOAT or page.bits != 32:
        kind = "floating point" if page.sample_format == _FLOAT else "integer"
        raise ValueError(f"has {page.bits}-bit {kind} samples; 32-bit floating point is needed")
    return _decode_wide(data, page, np.float32)


def gray_or_rgb(picture: Image.Image) -> Integer[np.ndarray, "height width channels"]:
    """8-bit pixels of a picture of Pillow, without alpha; a palette becomes RGB."""
    wanted = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    # Converting to the same mode would copy.
    pixels = np.asarray(picture if picture.mode == wanted else picture.convert(wanted))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode_wide(data: bytes, page: Page, dtype: type) -> np.ndarray:
    if page.planar and page.channels > 1:
        raise ValueError("stores its channels one after another; save it interleaved")
    return decode_as(dtype, data)


def _page(data: bytes) -> Page:
    """The one page of a file that is not a smaller copy, once its size is known to be fit."""
    pages = [page for page in map(_as_page, _directories(data)) if not page.reduced]
    if len(pages) != 1:
        raise ValueError(f"holds {len(pages)} pictures; one is needed: save each as its own file")
    (page,) = pages
    check_size(page.width, page.height)
    if page.photometric not in _KNOWN or page.channels not in (1, 2, 3, 4):
        raise ValueError(
            f"has {page.channels} channels of colour space {page.photometric} (in TIFF's numbers: 5"
            " is printing inks, 32803 a raw photograph); gray or RGB needed: convert it"
        )
    return page


def _as_page(tags: dict[int, tuple[int, ...]]) -> Page:
    def one(tag: int, default: int) -> int:
        return tags.get(tag, (default,))[0]

    bits, sample_format = set(tags.get(258, (1,))), set(tags.get(339, (_UNSIGNED,)))
    if len(bits) > 1 or len(sample_format) > 1:
        raise ValueError("has channels of several types; save it with 8 or 16 bits in all")
    if max(one(322, 0), one(323, 0)) > MAX_SIDE_PX:
        raise ValueError("is broken: its tiles are larger than any picture; export it again")
    return Page(
        width=one(256, 0),
        height=one(257, 0),
        bits=bits.pop(),
        channels=one(277, 1),
        photometric=one(262, -1),
        sample_format=sample_format.pop(),
        planar=one(284, 1) == 2,
        reduced=one(254, 0) & 1 == 1,
    )


def _directories(data: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """The whole numbers among the tags of each page, those of up to eight values."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        version, place = struct.unpack_from(f"{order}2xHI", data)
        if version != 42:
            raise ValueError("is a BigTIFF; save it as a plain TIFF")
        for _ in range(_MAX_PAGES):
            (count,) = struct.unpack_from(f"{order}H", data, place)
            entries = (place + 2 + 12 * index for index in range(count))
            yield dict(filter(None, (_entry(data, order, entry) for entry in entries)))
            (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)
            if place == 0:
                return
    except struct.error:
        raise ValueError("is cut short or broken: its tags lie outside the file") from None
    raise ValueError(f"holds more than {_MAX_PAGES} pictures; one is needed")


def _entry(data: bytes, order: str, place: int) -> tuple[int, tuple[int, ...]] | None:
    tag, kind, count = struct.unpack_from(f"{order}HHI", data, place)
    if kind not in _NUMBER or not 1 <= count <= 8:
        return None
    numbers = struct.Struct(f"{order}{count}{_NUMBER[kind]}")
    at = place + 8
    if numbers.size > 4:
        (at,) = struct.unpack_from(f"{order}I", data, at)
    return tag, numbers.unpack_from(data, at)
