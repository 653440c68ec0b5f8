"""A software rasteriser for meshes of small triangles, vectorised over all of them at once.

Pictures have row 0 at the top; a pixel's centre is at (column + 0.5, row + 0.5). The camera looks
along -z from (0, 0, distance) at the origin, so that the frame is the one of relightx: +x right,
+y up, +z to the camera.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

_SEAM = -1e-5  # barycentric slack, so that no pixel falls between two triangles


@dataclass(frozen=True)
class Camera:
    """A perspective camera on the z axis.

    distance: from the camera to the origin, in the unit of the vertices.
    scale: pixels per unit length at the origin.
    centre: (column, row) in pixels where the origin is seen.
    """

    distance: float
    scale: float
    centre: tuple[float, float]


class Fragments(NamedTuple):
    """What is seen: one entry for each covered pixel, in order of the pixels.

    pixel: row * width + column.
    triangle: the nearest triangle there.
    weight: perspective-correct weights of its three corners, summing to 1.
    """

    pixel: Integer[np.ndarray, "num"]
    triangle: Integer[np.ndarray, "num"]
    weight: Float[np.ndarray, "num 3"]

    def interpolate(
        self, values: Float[np.ndarray, "vertices channels"], corners: Integer[np.ndarray, "all 3"]
    ) -> Float[np.ndarray, "num channels"]:
        """Values given at vertices, at the fragments; `corners` are the triangles' vertices."""
        corner = corners[self.triangle]
        result = values[corner[:, 0]] * self.weight[:, :1]
        result += values[corner[:, 1]] * self.weight[:, 1:2]
        result += values[corner[:, 2]] * self.weight[:, 2:]
        return result


def project(
    vertices: Float[np.ndarray, "vertices 3"], camera: Camera
) -> Float[np.ndarray, "vertices 3"]:
    """Column, row and nearness (1 / distance along the view axis) of vertices.

    Raises ValueError when a vertex is not in front of the camera.
    """
    depth = camera.distance - vertices[:, 2]
    if not (depth > 0).all():
        raise ValueError(
            f"the nearest vertex lies {depth.min():g} before the camera; all need a positive depth"
        )
    zoom = camera.scale * camera.distance / depth
    column = camera.centre[0] + zoom * vertices[:, 0]
    row = camera.centre[1] - zoom * vertices[:, 1]
    return np.stack((column, row, 1 / depth), axis=1)


def rasterise(
    screen: Float[np.ndarray, "vertices 3"],
    triangles: Integer[np.ndarray, "triangles 3"],
    height: int,
    width: int,
) -> Fragments:
    """The nearest front-facing triangle at each pixel of a height x width picture.

    screen: from `project`. Triangles are front-facing when counter-clockwise as seen.
    """
    column_of, row_of = (
        np.ascontiguousarray(screen[:, k])[triangles.T].astype(np.float64) for k in range(2)
    )
    edge_b, edge_c = ((column_of[k] - column_of[0], row_of[k] - row_of[0]) for k in (1, 2))
    area = edge_b[1] * edge_c[0] - edge_b[0] * edge_c[1]
    left, columns = _span(column_of, width)
    top, rows = _span(row_of, height)
    kept = np.flatnonzero((area > 1e-9) & (columns > 0) & (rows > 0))
    left, columns, top, rows = left[kept], columns[kept], top[kept], rows[kept]

    count = columns * rows
    owner = np.repeat(np.arange(len(kept), dtype=np.int32), count)
    offset = np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(offset.astype(np.int32), columns.astype(np.int32)[owner])

    # Barycentric weights are affine in the pixel: at the first one, and a step right or down.
    scale = 1 / area[kept]
    x, y = left + 0.5 - column_of[0, kept], top + 0.5 - row_of[0, kept]
    right_b, down_b = -edge_c[1][kept] * scale, edge_c[0][kept] * scale
    right_c, down_c = edge_b[1][kept] * scale, -edge_b[0][kept] * scale
    weight_b = (right_b * x + down_b * y)[owner] + right_b[owner] * column + down_b[owner] * row
    weight_c = (right_c * x + down_c * y)[owner] + right_c[owner] * column + down_c[owner] * row
    inside = np.flatnonzero(
        (weight_b >= _SEAM) & (weight_c >= _SEAM) & (weight_b + weight_c <= 1 - _SEAM)
    )

    owner = owner[inside]
    weight_b, weight_c = weight_b[inside], weight_c[inside]
    weight = np.stack((1 - weight_b - weight_c, weight_b, weight_c), axis=1)
    triangle = kept[owner]
    weight *= screen[:, 2][triangles[triangle]]  # perspective: weights of value / depth
    nearness = weight.sum(axis=1)
    pixel = (row[inside] + top[owner]) * width + column[inside] + left[owner]
    # Far to near, so that the nearest is written last; NumPy keeps the last of equal indices.
    order = np.argsort(nearness, kind="stable")
    nearest = np.full(height * width, -1)
    nearest[pixel[order]] = order
    seen = nearest[nearest >= 0]
    unit = (weight[seen] / nearness[seen, None]).astype(np.float32)
    return Fragments(pixel[seen], triangle[seen], unit)


def _span(
    corners: Float[np.ndarray, "3 triangles"], end: int
) -> tuple[Integer[np.ndarray, "triangles"], Integer[np.ndarray, "triangles"]]:
    """First pixel, and number of pixels, whose centres lie between the corners and in 0 .. end."""
    low = np.minimum(np.minimum(corners[0], corners[1]), corners[2])
    high = np.maximum(np.maximum(corners[0], corners[1]), corners[2])
    first = np.maximum(np.ceil(low - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(high - 0.5), end - 1).astype(np.int64)
    return first, last - first + 1


def view_directions(
    camera: Camera, side: int, samples: int = 1
) -> Float[np.ndarray, "size size 3"]:
    """Unit vectors toward the camera from what is seen at each pixel.

    camera: of a square picture with `side` pixels, which are averaged by `samples` along a side.
    """
    centre = np.arange(side // samples) * samples + samples / 2
    x = (camera.centre[0] - centre) / (camera.scale * camera.distance)
    y = (centre - camera.centre[1]) / (camera.scale * camera.distance)
    x, y = np.meshgrid(x, y)
    view = np.stack((x, y, np.ones_like(x)), axis=-1)
    return view / np.linalg.norm(view, axis=-1, keepdims=True)


def vertex_normals(
    vertices: Float[np.ndarray, "vertices 3"], triangles: Integer[np.ndarray, "triangles 3"]
) -> Float[np.ndarray, "vertices 3"]:
    """Unit normals, averages of the triangles around each vertex weighted by area."""
    first = vertices[triangles[:, 0]]
    face = np.cross(vertices[triangles[:, 1]] - first, vertices[triangles[:, 2]] - first)
    corner = triangles.T.ravel()
    total = np.stack(
        [np.bincount(corner, np.tile(face[:, k], 3), len(vertices)) for k in range(3)], axis=1
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.maximum(length, 1e-12)


def coarse_pixel(
    pixel: Integer[np.ndarray, "num"], size: int, samples: int
) -> Integer[np.ndarray, "num"]:
    """Numbers (row * size + column) of the pixels that those of a finer picture belong to."""
    row, column = np.divmod(pixel, size * samples)
    return row // samples * size + column // samples


def average_samples(
    values: Float[np.ndarray, "num channels"],
    pixel: Integer[np.ndarray, "num"],
    size: int,
    samples: int,
) -> tuple[Float[np.ndarray, "{size} {size} channels"], Bool[np.ndarray, "{size} {size}"]]:
    """Mean over the covered samples of each pixel, and which pixels are at least half covered.

    pixel: of the picture with size * samples pixels a side in which the values were taken.
    """
    channels = values.shape[1]
    side = size * samples
    fine = np.zeros((side * side, channels + 1), np.float32)
    fine[pixel, :channels] = values
    fine[pixel, channels] = 1
    picture = fine.reshape(side, side, channels + 1)
    # Adding strided pictures is several times faster than a sum over two short axes.
    coarse = np.zeros((size, size, channels + 1), np.float32)
    for row in range(samples):
        for column in range(samples):
            coarse += picture[row::samples, column::samples]
    covered = coarse[..., channels]
    mean = coarse[..., :channels] / np.maximum(covered, 1)[..., None]
    return mean, covered * 2 >= samples * samples
