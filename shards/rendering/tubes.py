"""Closed tubes along curves: the rods that frames are made of."""

import numpy as np
from jaxtyping import Float, Integer

CORNERS = 12
"""Of a tube's outline."""

Mesh = tuple[Float[np.ndarray, "_ 3"], Integer[np.ndarray, "_ 3"]]
"""Vertices and triangles."""


def tube(
    path: Float[np.ndarray, "points 3"],
    half: Float[np.ndarray, "points 2"],
    up: tuple[float, float, float],
    ring: bool,
    square: float = 2.0,
) -> Mesh:
    """A mesh around a curve, triangles counter-clockwise from outside.

    half: its half width beside `up` and along it, at each point. ring: whether the curve ends where
    it begins; else both ends are capped. square: exponent of its outline, 2 being an ellipse.
    """
    count = len(path)
    ahead = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0) if ring else np.gradient(path)[0]
    beside = _unit(np.cross(ahead, np.array(up)))
    above = _unit(np.cross(beside, ahead))
    outline = superellipse(np.arange(CORNERS) * 2 * np.pi / CORNERS, square)
    across = outline[None, :, :1] * (beside * half[:, :1])[:, None]
    vertices = path[:, None] + across + outline[None, :, 1:] * (above * half[:, 1:])[:, None]
    first = np.arange(count if ring else count - 1)[:, None] * CORNERS
    here, there = first, (first + CORNERS) % (count * CORNERS)
    corner, following = np.arange(CORNERS), (np.arange(CORNERS) + 1) % CORNERS
    lower = np.stack((here + corner, there + corner, there + following), axis=-1)
    upper = np.stack((here + corner, there + following, here + following), axis=-1)
    triangles = np.concatenate((lower.reshape(-1, 3), upper.reshape(-1, 3)))
    flat = vertices.reshape(-1, 3)
    if ring:
        return flat, triangles
    start, end, last = len(flat), len(flat) + 1, (count - 1) * CORNERS
    caps = [np.stack((np.full(CORNERS, start), corner, following), axis=1)]
    caps.append(np.stack((np.full(CORNERS, end), last + following, last + corner), axis=1))
    return np.concatenate((flat, path[[0, -1]])), np.concatenate((triangles, *caps))


def superellipse(
    angle: Float[np.ndarray, "points"], exponent: float
) -> Float[np.ndarray, "points 2"]:
    """|x|^exponent + |y|^exponent = 1, counter-clockwise; 2 is a circle, more is squarer."""
    circle = np.stack((np.cos(angle), np.sin(angle)), axis=1)
    return np.sign(circle) * np.abs(circle) ** (2 / exponent)


def merged(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    moved = [triangles + start for (_, triangles), start in zip(meshes, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(moved)


def _unit(vectors: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
