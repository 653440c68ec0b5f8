"""Bring a portrait to the square size the model is trained at.

The picture keeps its shape: it is scaled until the longer side fits and centred, the rest lies
outside the mask. Averaging happens in linear light; normals are averaged and made unit again.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped

from relightx.color import from_integer
from relightx.sample import Portrait, unit


@dataclass(frozen=True)
class Views:
    """A portrait's pixels at training size, float32 and linear; labels that it has not are None.

    sh belongs to the images, the others to the portrait. confidence: [0, 1], None being 1
    everywhere; it belongs to the labels and goes wherever their pixels go.
    """

    image: Float[np.ndarray, "lights size size 3"]
    mask: Bool[np.ndarray, "size size"]
    albedo: Float[np.ndarray, "size size 3"] | None
    normal: Float[np.ndarray, "size size 3"] | None
    confidence: Float[np.ndarray, "size size"] | None
    sh: Float[np.ndarray, "lights 3 9"] | None

    def of_lights(self, lights: list[int]) -> "Views":
        """The same portrait under some of these lights."""
        sh = None if self.sh is None else self.sh[lights]
        return replace(self, image=self.image[lights], sh=sh)

    @property
    def bytes(self) -> int:
        arrays = (self.image, self.mask, self.albedo, self.normal, self.confidence, self.sh)
        return sum(array.nbytes for array in arrays if array is not None)


def fit(portrait: Portrait, size: int) -> Views:
    """All of a portrait's arrays on a square of `size` pixels."""
    confidence = None
    if portrait.confidence is not None:
        confidence = letterbox(portrait.confidence, size)
    return Views(
        image=_images(portrait, size),
        mask=_mask(portrait, size),
        albedo=None if portrait.albedo is None else letterbox(portrait.albedo, size),
        normal=None if portrait.normal is None else _normal(portrait.normal, size),
        confidence=confidence,
        sh=None if portrait.sh is None else portrait.sh.astype(np.float32),
    )


def _images(portrait: Portrait, size: int) -> Float[np.ndarray, "lights {size} {size} 3"]:
    """The images in linear RGB; gray is repeated once it is small."""
    linear = from_integer(portrait.image, portrait.provenance.transfer)
    if linear.shape[3] == 1:
        pictures = (letterbox(picture[..., 0], size) for picture in linear)
        return np.stack([cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) for picture in pictures])
    if linear.shape[1:3] == (size, size):
        return linear
    return np.stack([letterbox(picture, size) for picture in linear])


def _normal(
    normal: Float[np.ndarray, "height width 3"], size: int
) -> Float[np.ndarray, "{size} {size} 3"]:
    """A portrait's are unit already: only averaged ones are made so again."""
    square = letterbox(normal, size)
    return square if normal.shape[:2] == (size, size) else unit(square)


def _mask(portrait: Portrait, size: int) -> Bool[np.ndarray, "{size} {size}"]:
    shape = portrait.image.shape[1:3]
    mask = np.ones(shape, bool) if portrait.mask is None else portrait.mask
    return mask if shape == (size, size) else letterbox(mask, size) > 0.5


def letterbox(
    values: Shaped[np.ndarray, "height width *channels"], size: int
) -> Float[np.ndarray, "{size} {size} *channels"]:
    """Scale until the longer side is `size`, centre, fill with zeros; float32."""
    height, width = values.shape[:2]
    if (height, width) == (size, size):
        return np.ascontiguousarray(values, np.float32)
    rows, columns = _inside(height, width, size)
    inner = (rows.stop - rows.start, columns.stop - columns.start)
    if inner == (size, size):
        return _resized(values, inner)
    square = np.zeros((size, size, *values.shape[2:]), np.float32)
    square[rows, columns] = _resized(values, inner)
    return square


def unletterbox(
    values: Float[np.ndarray, "size size *channels"], height: int, width: int
) -> Float[np.ndarray, "{height} {width} *channels"]:
    """The way back: what lies on a letterboxed picture, at the picture's own height and width."""
    rows, columns = _inside(height, width, len(values))
    return _resized(values[rows, columns], (height, width))


def _inside(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of the square that a letterboxed picture takes up."""
    scale = size / max(height, width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    return slice(top, top + inner_height), slice(left, left + inner_width)


def _resized(
    values: Shaped[np.ndarray, "height width *channels"], shape: tuple[int, int]
) -> Float[np.ndarray, "height2 width2 *channels"]:
    way = cv2.INTER_AREA if max(shape) < max(values.shape[:2]) else cv2.INTER_LINEAR
    if values.shape[:2] == (2 * shape[0], 2 * shape[1]):
        way = cv2.INTER_LINEAR  # the mean of four pixels too, in a third of the time
    return cv2.resize(np.ascontiguousarray(values, np.float32), shape[::-1], interpolation=way)
