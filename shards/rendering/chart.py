"""The front of the head unrolled onto a plane, as a grid that fine detail is drawn on.

Coordinates are those of `hair.surface_place`: way around the vertical axis, and height, in
decimetres of the undeformed head. A grid is as fine as the picture's samples, so that what is drawn
on it holds nothing that they would miss.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

_LEFT, _RIGHT, _LOW, _HIGH = -1.2, 1.2, 5.4, 8.35
_FINEST = 0.0015  # of pores, half the radius
_COLUMNS = 1024  # remap wants a picture of places; its sides may not exceed 32767


def looked_up(
    picture: Float[np.ndarray, "rows columns"] | Float[np.ndarray, "rows columns channels"],
    where: Float[np.ndarray, "num 2"],
    border: int,
) -> Float[np.ndarray, "num"] | Float[np.ndarray, "num channels"]:
    """What a picture has at (column, row), between its pixels; border: OpenCV's, outside."""
    padded = np.zeros((-(-len(where) // _COLUMNS) * _COLUMNS, 2), np.float32)
    padded[: len(where)] = where
    places = padded.reshape(-1, _COLUMNS, 2)
    found = cv2.remap(picture, places, None, cv2.INTER_LINEAR, borderMode=border)
    return found.reshape(len(padded), *picture.shape[2:])[: len(where)]


@dataclass(frozen=True)
class Chart:
    """A grid of cells with sides of `texel` decimetres; row 0 is the highest."""

    texel: float

    @classmethod
    def of_spacing(cls, spacing: float) -> "Chart":
        """The grid for a picture whose samples lie so many decimetres apart."""
        return cls(max(spacing, _FINEST))

    def empty(self) -> Float[np.ndarray, "rows columns"]:
        """A picture on the grid."""
        rows = int(np.ceil((_HIGH - _LOW) / self.texel))
        columns = int(np.ceil((_RIGHT - _LEFT) / self.texel))
        return np.zeros((rows, columns), np.float32)

    def places(self) -> Float[np.ndarray, "rows columns 2"]:
        """The middle of each cell."""
        rows, columns = self.empty().shape
        around = _LEFT + (np.arange(columns, dtype=np.float32) + 0.5) * np.float32(self.texel)
        height = _HIGH - (np.arange(rows, dtype=np.float32) + 0.5) * np.float32(self.texel)
        return np.stack(np.meshgrid(around, height), axis=-1).astype(np.float32)

    def look_up(
        self,
        picture: Float[np.ndarray, "rows columns"] | Float[np.ndarray, "rows columns channels"],
        place: Float[np.ndarray, "num 2"],
    ) -> Float[np.ndarray, "num"] | Float[np.ndarray, "num channels"]:
        """What a picture on the grid has at places; 0 outside."""
        return looked_up(picture, np.stack(self._cells(place), axis=1), cv2.BORDER_CONSTANT)

    def refined(
        self, coarse: "Chart", picture: Float[np.ndarray, "_ _"]
    ) -> Float[np.ndarray, "rows columns"]:
        """A picture on a coarser grid brought to this one, its slope steady."""
        if coarse.texel == self.texel:
            return picture
        step = self.texel / coarse.texel
        return self.sampled(picture, step, step / 2 - 0.5, step / 2 - 0.5)

    def sampled(
        self,
        picture: Float[np.ndarray, "_ _"],
        step: float,
        column: float,
        row: float,
        wrapped: bool = False,
    ) -> Float[np.ndarray, "rows columns"]:
        """Pixels of a picture that lie `step` apart, the first at (column, row).

        wrapped: the picture goes on at its other side, instead of being 0 outside.
        """
        size = self.empty().shape[::-1]
        kind = cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if wrapped else cv2.INTER_CUBIC)
        border = cv2.BORDER_WRAP if wrapped else cv2.BORDER_CONSTANT
        move = np.array([[step, 0, column], [0, step, row]])
        return cv2.warpAffine(picture, move, size, flags=kind, borderMode=border)

    def add_points(
        self,
        picture: Float[np.ndarray, "rows columns"],
        place: Float[np.ndarray, "num 2"],
        amount: Float[np.ndarray, "num"],
    ) -> None:
        """Divide amounts among the four cells around each place."""
        rows, columns = picture.shape
        column, row = self._cells(place)
        left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
        across, down = column - left, row - top
        for right, low in ((0, 0), (1, 0), (0, 1), (1, 1)):
            share = (across if right else 1 - across) * (down if low else 1 - down)
            x, y = left + right, top + low
            inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
            np.add.at(picture, (y[inside], x[inside]), (amount * share)[inside])

    def add_blob(
        self,
        picture: Float[np.ndarray, "rows columns"],
        place: tuple[float, float],
        radii: tuple[float, float],
        angle: float,
        amount: float,
    ) -> None:
        """A soft ellipse; one that is smaller than a cell is spread over it and grows faint."""
        sides = np.hypot(radii, 0.8 * self.texel)
        amount *= radii[0] * radii[1] / float(sides[0] * sides[1])
        (column,), (row,) = self._cells(np.array([place]))
        reach = 2 * float(sides.max()) / self.texel + 1
        rows = slice(max(int(row - reach), 0), max(int(row + reach) + 2, 0))
        columns = slice(max(int(column - reach), 0), max(int(column + reach) + 2, 0))
        part = picture[rows, columns]
        y = (rows.start + np.arange(part.shape[0])[:, None] - row) * self.texel
        x = (columns.start + np.arange(part.shape[1])[None, :] - column) * self.texel
        along, across = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
        # Flatter in the middle and steeper at the rim than a bell.
        part += amount * np.exp(-(((along / sides[0]) ** 2 + (across / sides[1]) ** 2) ** 1.5))

    def _cells(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (place[:, 0] - _LEFT) / self.texel - 0.5, (_HIGH - place[:, 1]) / self.texel - 0.5
