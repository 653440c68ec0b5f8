"""A one-light-at-a-time stack: pictures of one still subject, one lamp lit in each.

Pictures of 8 or 16 bits are kept as they are. Floating-point pictures, which have no white, and
pictures that are made smaller become 16-bit linear. Floats are divided by one number for the whole
stack, below which 99.99 % of its values lie: the rest, mirror images of lamps in the eyes, is
clipped and would otherwise cost the skin its precision.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Integer

from relightx.color import LUMINANCE, from_integer
from relightx.picture import is_linear_picture, read_linear_picture, read_picture

WHITE_QUANTILE = 0.9999
SATURATION = 0.98
_QUANTILE_VALUES = 4_000_000  # of which the quantile is taken; all of them would need a sort


class Stack(NamedTuple):
    """The pictures of a stack.

    image: as stored. transfer: of these integers, 'srgb' or 'linear'.
    white: value of floating-point pictures that became 1; None where they were integers.
    source_size: width and height of the files' pictures.
    """

    image: Integer[np.ndarray, "lights height width channels"]
    transfer: str
    white: float | None
    source_size: tuple[int, int]

    def linear(self) -> Iterator[Float[np.ndarray, "height width channels"]]:
        """Each picture in linear light, [0, 1], one at a time."""
        return (from_integer(picture, self.transfer) for picture in self.image)

    def gray(
        self, strength: Float[np.ndarray, "lights 3"]
    ) -> Float[np.ndarray, "lights height width"]:
        """Luminance of each picture in linear light, as under lamps of white light.

        strength: of each lamp's red, green and blue; the luminance of each lamp stays. Where one
        channel is saturated, the pixel is.
        """
        weight = np.array(LUMINANCE) * (strength @ LUMINANCE)[:, None] / strength
        gray = np.empty(self.image.shape[:3], np.float32)
        for index, picture in enumerate(self.linear()):
            colored = picture.shape[2] == 3
            gray[index] = picture @ weight[index].astype(np.float32) if colored else picture[..., 0]
            gray[index][picture.max(axis=2) >= SATURATION] = 1
        return gray


def read_stack(files: Sequence[Path], transfer: str, size: int | None) -> Stack:
    """Read the pictures of a stack, one at a time.

    transfer: of pictures of 8 or 16 bits. size: longest side that pictures are made smaller to, by
    averaging areas in linear light; None keeps them. Memory is needed for one whole picture, and
    for the stack at its smaller size: 6 bytes a value in floating point, else what is stored.
    Raises ValueError naming the file for what cannot be read or differs from the first picture.
    """
    linear = is_linear_picture(files[0])
    first = (read_linear_picture if linear else read_picture)(files[0])
    shape = first.shape if size is None else smaller_shape(first.shape, size)
    made_smaller = shape != first.shape
    dtype = np.float32 if linear else np.uint16 if made_smaller else first.dtype
    # Reading floats, they wait for the white of all; integers have one, and need no more memory.
    image = np.empty((len(files), *shape), dtype)
    for index, file in enumerate(files):
        picture = (read_linear_picture if linear else read_picture)(file)
        if (picture.shape, picture.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"{file}: is {_described(picture)}, {files[0].name} beside it {_described(first)};"
                " the pictures of a stack are of one kind"
            )
        if made_smaller:
            picture = averaged(picture if linear else from_integer(picture, transfer), shape)
        image[index] = picture if linear or not made_smaller else to_uint16(picture)
    source_size = first.shape[1], first.shape[0]
    if not linear:
        return Stack(image, "linear" if made_smaller else transfer, None, source_size)
    white = _white(files[0].parent, image)
    stored = np.empty(image.shape, np.uint16)
    for index, picture in enumerate(image):
        stored[index] = to_uint16(picture / np.float32(white))
    return Stack(stored, "linear", white, source_size)


def smaller_shape(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The shape of a picture whose longest side is made `size`, unless it is no longer anyway."""
    scale = min(1.0, size / max(shape[:2]))
    return (*(max(1, round(side * scale)) for side in shape[:2]), *shape[2:])


def averaged(
    picture: Float[np.ndarray, "height width channels"], shape: tuple[int, ...]
) -> Float[np.ndarray, "smaller_height smaller_width channels"]:
    """The picture at a smaller shape, each pixel the mean of the area it covers."""
    return cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA).reshape(shape)


def to_uint16(linear: np.ndarray) -> np.ndarray:
    """Linear light of any shape as 16-bit integers; light outside [0, 1] is clipped."""
    return np.rint(np.clip(linear, 0, 1) * 65535).astype(np.uint16)


def _white(folder: Path, image: Float[np.ndarray, "lights height width channels"]) -> float:
    values = image.reshape(-1)[:: -(-image.size // _QUANTILE_VALUES)]
    white = float(np.quantile(values, WHITE_QUANTILE))
    if not white > 0:
        raise ValueError(f"{folder}: its pictures are black; radiance is needed")
    return white


def _described(picture: np.ndarray) -> str:
    height, width, channels = picture.shape
    return f"{width}x{height} with {channels} channels of {picture.dtype}"
