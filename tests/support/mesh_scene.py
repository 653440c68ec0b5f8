"""Scenes of plain meshes for the tests of traced light."""

import numpy as np

from shards.rendering.render import Camera, project, rasterise, vertex_normals, view_directions
from shards.rendering.scene import Scene
from shards.rendering.subdivision import Subdivision


def ball(steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere from a refined cube: vertices and triangles."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = np.array(
        [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    )
    for _ in range(steps):
        refine = Subdivision(quads, len(corners))
        corners, quads = refine(corners), refine.quads
    corners = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    return corners, quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)


def sheet(width: float, z: float, cuts: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A square that faces the camera, at a height above the origin."""
    line = np.linspace(-width / 2, width / 2, cuts + 1)
    x, y = np.meshgrid(line, line)
    vertices = np.stack((x.ravel(), y.ravel(), np.full(x.size, z)), axis=1)
    first = (np.arange(cuts)[:, None] * (cuts + 1) + np.arange(cuts)).ravel()
    right, up = first + 1, first + cuts + 1
    triangles = np.concatenate(
        (np.stack((first, right, up + 1), 1), np.stack((first, up + 1, up), 1))
    )
    return vertices, triangles


def scene_of(
    vertices: np.ndarray,
    triangles: np.ndarray,
    *others: tuple[np.ndarray, np.ndarray],
    size: int = 64,
    scale: float = 22.0,
    albedo: float = 1.0,
    roughness: float = 0.5,
    gloss: float = 0.0,
) -> Scene:
    """A mesh before a camera. others: meshes that cast shadows and are not looked at."""
    camera = Camera(distance=60.0, scale=float(scale), centre=(size / 2, size / 2))
    seen = rasterise(project(vertices, camera), triangles, size, size)
    known = np.concatenate((vertices, vertex_normals(vertices, triangles)), axis=1)
    at = seen.interpolate(known.astype(np.float32), triangles)
    mask = np.zeros(size * size, bool)
    mask[seen.pixel] = True

    def picture(values: np.ndarray) -> np.ndarray:
        flat = np.zeros((size * size, *values.shape[1:]), np.float32)
        flat[seen.pixel] = values
        return flat.reshape(size, size, *values.shape[1:])

    normal = at[:, 3:] / np.linalg.norm(at[:, 3:], axis=1, keepdims=True)
    everywhere = np.ones(len(at), np.float32)
    for more, corners in others:
        triangles = np.concatenate((triangles, corners + len(vertices)))
        vertices = np.concatenate((vertices, more))
    return Scene(
        vertices,
        triangles,
        albedo=picture(np.full((len(at), 3), albedo)),
        normal=picture(normal),
        mask=mask.reshape(size, size),
        place=picture(at[:, :3]),
        facing=picture(normal),
        view=view_directions(camera, size).astype(np.float32),
        roughness=picture(roughness * everywhere),
        gloss=picture(gloss * everywhere),
        skin=picture(0 * everywhere),
        eye=picture(0 * everywhere),
        part=mask.reshape(size, size).astype(np.uint8),
        camera=camera,
        samples=1,
    )
