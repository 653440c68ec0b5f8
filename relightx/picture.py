"""Read a picture file as the integers it holds, bounded before any pixel is decoded."""

import warnings
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer
from PIL import Image, ImageOps, UnidentifiedImageError

from relightx.sample import MAX_SIDE_PX

_PNG = b"\x89PNG\r\n\x1a\n"


def read_picture(file: Path) -> Integer[np.ndarray, "height width channels"]:
    """Pixels of a picture, uint8 or uint16 with 1 (gray) or 3 channels, turned as EXIF says.

    An alpha channel is dropped; a palette becomes RGB. Raises ValueError naming the file when it
    is not a whole picture or larger than 8192 pixels on a side.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(file)
        with picture:
            if max(picture.size) > MAX_SIDE_PX:
                raise ValueError(
                    f"{file}: is {picture.width}x{picture.height};"
                    f" at most {MAX_SIDE_PX} pixels on a side are read"
                )
            if _is_16_bit_png(file):
                return _read_16_bit(file, picture.getexif().get(0x0112, 1))
            return _pixels(file, ImageOps.exif_transpose(picture))
    except UnidentifiedImageError:
        raise ValueError(f"{file}: is not a picture that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file}: is too large: {error}") from None
    except (OSError, SyntaxError) as error:  # what Pillow raises for broken content
        raise ValueError(f"{file}: the picture cannot be read: {error}") from None


def _pixels(file: Path, picture: Image.Image) -> Integer[np.ndarray, "height width channels"]:
    if picture.mode in ("1", "L", "LA"):
        return np.asarray(picture.convert("L"))[..., None]
    if picture.mode in ("RGB", "RGBA", "RGBX", "P", "PA"):
        return np.asarray(picture.convert("RGB"))
    raise ValueError(f"{file}: has colour mode {picture.mode}; gray or RGB needed")


def _is_16_bit_png(file: Path) -> bool:
    with open(file, "rb") as stream:
        head = stream.read(25)
    return head[:8] == _PNG and len(head) == 25 and head[24] == 16


def _read_16_bit(file: Path, orientation: int) -> Integer[np.ndarray, "height width channels"]:
    """Through OpenCV: Pillow reads 16-bit colour as 8-bit."""
    if orientation != 1:
        raise ValueError(f"{file}: a 16-bit PNG turned by EXIF ({orientation}); store it upright")
    pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"{file}: the picture cannot be decoded")
    if pixels.ndim == 2:
        return pixels[..., None]
    return np.ascontiguousarray(pixels[..., 2::-1])  # BGR or BGRA
