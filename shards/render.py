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
    first, second, third = (screen[triangles[:, k]] for k in range(3))
    edge_b, edge_c = second - first, third - first
    area = edge_b[:, 1] * edge_c[:, 0] - edge_b[:, 0] * edge_c[:, 1]
    lowest = np.minimum(np.minimum(first, second), third)
    highest = np.maximum(np.maximum(first, second), third)
    # Pixel centres within the bounding box: ceil(low - 0.5) .. floor(high - 0.5).
    left = np.maximum(np.ceil(lowest[:, 0] - 0.5), 0).astype(np.int64)
    top = np.maximum(np.ceil(lowest[:, 1] - 0.5), 0).astype(np.int64)
    columns = np.minimum(np.floor(highest[:, 0] - 0.5), width - 1).astype(np.int64) - left + 1
    rows = np.minimum(np.floor(highest[:, 1] - 0.5), height - 1).astype(np.int64) - top + 1
    kept = np.flatnonzero((area > 1e-9) & (columns > 0) & (rows > 0))

    count = (columns * rows)[kept]
    owner = np.repeat(np.arange(len(kept)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(offset, columns[kept][owner])
    row += top[kept][owner]
    column += left[kept][owner]

    # Barycentric weights are affine in the pixel: weight = slope . (pixel - first corner).
    scale = 1 / area[kept]
    slope_b = np.stack((-edge_c[kept, 1], edge_c[kept, 0])) * scale
    slope_c = np.stack((edge_b[kept, 1], -edge_b[kept, 0])) * scale
    dx = column + 0.5 - first[kept, 0][owner]
    dy = row + 0.5 - first[kept, 1][owner]
    weight_b = slope_b[0][owner] * dx + slope_b[1][owner] * dy
    weight_c = slope_c[0][owner] * dx + slope_c[1][owner] * dy
    inside = np.flatnonzero(
        (weight_b >= _SEAM) & (weight_c >= _SEAM) & (weight_b + weight_c <= 1 - _SEAM)
    )

    owner = owner[inside]
    weight_b, weight_c = weight_b[inside], weight_c[inside]
    weight = np.stack((1 - weight_b - weight_c, weight_b, weight_c), axis=1)
    triangle = kept[owner]
    weight *= screen[:, 2][triangles[triangle]]  # perspective: weights of value / depth
    nearness = weight.sum(axis=1)
    pixel = row[inside] * width + column[inside]
    # Far to near, so that the nearest is written last; NumPy keeps the last of equal indices.
    order = np.argsort(nearness, kind="stable")
    nearest = np.full(height * width, -1)
    nearest[pixel[order]] = order
    seen = nearest[nearest >= 0]
    unit = (weight[seen] / nearness[seen, None]).astype(np.float32)
    return Fragments(pixel[seen], triangle[seen], unit)


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
