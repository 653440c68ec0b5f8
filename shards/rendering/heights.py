"""How far a mesh rises toward a side of the box, at any place: what must be kept clear of it."""

import cv2
import numpy as np
from jaxtyping import Float, Integer

from shards.rendering.render import rasterise

_STEP = 0.01  # decimetres between places that are known
_FAR = 100.0  # from where the mesh is looked at: its lines of sight are parallel
_NOTHING = -9.0


class Heights:
    """The largest third coordinate of a mesh over the first two, within a rectangle.

    middle, half: of the rectangle, and half its sides. Where the mesh is not, it lies 9 decimetres
    low.
    """

    def __init__(
        self,
        vertices: Float[np.ndarray, "vertices 3"],
        triangles: Integer[np.ndarray, "triangles 3"],
        middle: Float[np.ndarray, "2"],
        half: tuple[float, float],
    ) -> None:
        self._left, self._top = middle[0] - half[0], middle[1] + half[1]
        width, height = (int(2 * reach / _STEP) + 1 for reach in half)
        columns = (vertices[:, 0] - self._left) / _STEP
        rows = (self._top - vertices[:, 1]) / _STEP
        screen = np.stack((columns, rows, 1 / (_FAR - vertices[:, 2])), axis=1)
        seen = rasterise(screen, triangles, height, width)
        flat = np.full(height * width, _NOTHING, np.float32)
        flat[seen.pixel] = seen.interpolate(vertices[:, 2:].astype(np.float32), triangles)[:, 0]
        # The highest around: between the middles of two cells a steep side rises far.
        self._heights = cv2.dilate(flat.reshape(height, width), np.ones((3, 3), np.uint8))

    def at(self, places: Float[np.ndarray, "num 2"]) -> Float[np.ndarray, "num"]:
        """Its height at places; outside of the rectangle, that of its rim."""
        height, width = self._heights.shape
        column = np.clip(((places[:, 0] - self._left) / _STEP).astype(np.int64), 0, width - 1)
        row = np.clip(((self._top - places[:, 1]) / _STEP).astype(np.int64), 0, height - 1)
        return self._heights[row, column]
