"""Round lamps, near and far: their light with shadows as soft as they are large."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from shards.rendering.gloss import mirrored
from shards.rendering.points import Points, Shaded

_THROW = 0.8  # decimetres, that what casts a soft shadow is away at most
_MOST_REACH = 15  # pixels
_SPARSE_REACH = 4  # from here on a penumbra is smooth enough for rays from one pixel in four
_RAYS = (4, 8)  # from a pixel near the edge of a sharp shadow, and of a soft one


@dataclass(frozen=True)
class Lamp:
    """A round lamp.

    direction: unit, from the origin of the scene. colour: shading of a surface there that faces
    it, linear RGB. radius: half the angle under which it is seen, radians. distance: decimetres.
    """

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    radius: float = 0.02
    distance: float = math.inf

    @property
    def column(self) -> Float[np.ndarray, "3 1"]:
        return np.array(self.colour, np.float32)[:, None]


def bare_lamp_shading(points: Points, lamp: Lamp) -> Float[np.ndarray, "3 num"]:
    """Shading by a lamp, as if nothing were in the way."""
    toward, strength = _toward(points, lamp)
    return lamp.column * (strength * np.maximum(_along(points.normal, toward), 0))


def lamp_light(points: Points, lamp: Lamp, samples: int | None = None) -> Shaded:
    """What a lamp does.

    samples: rays from a pixel near the edge of a shadow, if not as many as are needed there.
    """
    toward, strength = _toward(points, lamp)
    to_light = np.maximum(_along(points.normal, toward), 0)
    reach = _reach(points, lamp)
    lit = points.lit(toward, to_light, sharp=reach < _SPARSE_REACH)
    if reach:
        visible = _softened(points, lamp, lit, to_light > 0, reach, samples)
    else:
        visible = lit.astype(np.float32)
    # A lamp's own size rounds its reflection (Karis 2013).
    rough = np.sqrt(np.minimum(points.roughness**2 + np.float32(lamp.radius / 3), 1))
    gloss = mirrored(to_light, points.upright, _along(points.view, toward), rough, points.gloss)
    visible *= strength
    return Shaded(lamp.column * (visible * to_light), lamp.column * (visible * gloss))


def _along(vectors: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """Cosines to one direction, or of each to its own."""
    return vectors @ toward if toward.ndim == 1 else np.einsum("nk,nk->n", vectors, toward)


def _toward(points: Points, lamp: Lamp) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors to the lamp's middle, and how strong it is: one, or one for each point."""
    middle = np.array(lamp.direction, np.float32)
    if math.isinf(lamp.distance):
        return middle, np.ones(1, np.float32)
    toward = middle - points.place / np.float32(lamp.distance)
    square = _along(toward, toward)
    return toward / np.sqrt(square)[:, None], 1 / square


def _on_disc(points: Points, lamp: Lamp, disc: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Vectors from some points to places on the lamp's disc, given in its radii."""
    middle = np.array(lamp.direction, np.float32)
    across = np.cross(middle, (0.0, 1.0, 0.0) if abs(middle[1]) < 0.9 else (1.0, 0.0, 0.0))
    across = (across / np.linalg.norm(across)).astype(np.float32)
    axes = np.float32(math.tan(lamp.radius)) * np.stack((across, np.cross(middle, across)))
    toward = middle + disc @ axes
    if math.isfinite(lamp.distance):
        toward -= points.place[rows] / np.float32(lamp.distance)
    return toward


def _reach(points: Points, lamp: Lamp) -> int:
    """Pixels from where a shadow of a point would end to where some of the lamp is seen or not."""
    if not lamp.radius:
        return 0
    return int(np.clip(math.tan(lamp.radius) * _THROW * points.scale, 1, _MOST_REACH))


def _softened(
    points: Points,
    lamp: Lamp,
    lit: np.ndarray,
    facing: np.ndarray,
    reach: int,
    samples: int | None,
) -> np.ndarray:
    """The visible share of the lamp, given who sees its middle and who faces it."""
    sparse = reach >= _SPARSE_REACH
    edge = _near_edge(points, lit, facing, reach) & facing
    visible = lit.astype(np.float32)
    if not edge.any():
        return visible
    asked = edge & points.grid if sparse else edge
    known, weight = visible.copy(), (facing & (~edge | asked)).astype(np.float32)
    rows = np.flatnonzero(asked)
    known[rows] = _share_seen(points, lamp, rows, samples or _RAYS[sparse])
    soft = points.blurred(known, 1.5 if sparse else 0.8, weight)
    return np.where(edge, soft, visible)


def _share_seen(points: Points, lamp: Lamp, rows: np.ndarray, samples: int) -> np.ndarray:
    """Share of the lamp that some of the points see."""
    # A spiral over the disc, turned at each pixel by a noise whose error the eye overlooks
    # (Jimenez 2014).
    row, column = np.divmod(np.flatnonzero(points.mask)[rows], points.mask.shape[1])
    turn = np.mod(52.9829189 * np.mod(0.06711056 * column + 0.00583715 * row, 1), 1)
    step = np.arange(samples)
    angle = (2 * np.pi * turn[:, None] + step * 2.39996323).astype(np.float32).ravel()
    reach = np.tile(np.sqrt((step + 0.5) / samples).astype(np.float32), len(rows))
    disc = np.stack((np.cos(angle) * reach, np.sin(angle) * reach), axis=1)
    each = np.repeat(rows, samples)
    toward = _on_disc(points, lamp, disc, each)
    return points.sees(toward, each).reshape(len(rows), samples).mean(axis=1, dtype=np.float32)


def _near_edge(points: Points, lit: np.ndarray, facing: np.ndarray, reach: int) -> np.ndarray:
    """Which points may see a part of the lamp only: a shadow's edge is near."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    near = [
        cv2.dilate(points.flags(np.flatnonzero(which)), kernel) for which in (lit, facing & ~lit)
    ]
    return points.of(near[0] & near[1]) > 0
