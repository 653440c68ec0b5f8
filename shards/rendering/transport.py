"""How light from each direction reaches the camera from a scene: traced once, for any light.

Light from all around is cut into cells around directions that are spread evenly over the sphere;
each is traced from every pixel. A light is then a radiance for each cell, and its image a product
of matrices. Lamps, whose shadows have edges, are traced for themselves (see `lamp_light`).

What is blocked by the head itself sees skin: it has the mean radiance of the whole head, after all
bounces. So in a white furnace a white head is white (Jimenez et al. 2016 have the same demand).
"""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float

from relightx.sh import spread_directions
from shards.rendering.casting import Caster
from shards.rendering.gloss import mirrored
from shards.rendering.scene import Scene

NUM_CELLS = 256
_LIFT = 0.006  # decimetres from the surface to where a ray begins
_LEAST_ROUGH = 0.38
_BLOCK = 1 << 18  # rays at a time
# Blur of the light under the skin for red, green and blue, decimetres (Jensen et al. 2001: skin).
_SPREAD = (0.018, 0.008, 0.005)


class Points:
    """The pixels of a scene that light is traced to, one row each, in order of the pixels."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.mask = scene, scene.mask
        self.normal, self.facing, self.view, self.place = (
            np.ascontiguousarray(picture[scene.mask])
            for picture in (scene.normal, scene.facing, scene.view, scene.place)
        )
        self.albedo, self.skin = scene.albedo[scene.mask], scene.skin[scene.mask]
        self.roughness, self.gloss = scene.roughness[scene.mask], scene.gloss[scene.mask]
        self.upright = np.einsum("nk,nk->n", self.normal, self.view)
        self.caster = Caster(scene.vertices, scene.triangles)
        self.origin = self.place + _LIFT * self.facing

    def __len__(self) -> int:
        return len(self.place)

    def sees(self, direction: Float[np.ndarray, "num 3"]) -> Bool[np.ndarray, "num"]:
        """Whether each point sees the light in its direction; not where it turns away from it."""
        seen = np.einsum("nk,nk->n", self.normal, direction) > 0
        asked = np.flatnonzero(seen)
        seen[asked] = ~self.caster.blocked(self.origin[asked], direction[asked])
        return seen


@dataclass(frozen=True)
class Light:
    """What a light does at each point, linear RGB.

    shading: irradiance / pi, with shadows. specular: radiance that is mirrored to the camera.
    """

    shading: Float[np.ndarray, "num 3"]
    specular: Float[np.ndarray, "num 3"]

    def __add__(self, other: "Light") -> "Light":
        return Light(self.shading + other.shading, self.specular + other.specular)


@dataclass(frozen=True)
class Transport:
    """Shading and gloss at each point for a radiance of 1 from each cell of directions.

    openness: shading by a uniform light of 1 (ambient occlusion). glossed: specular by it.
    mirrored: that were nothing in the way.
    """

    direction: Float[np.ndarray, "cells 3"]
    shading: Float[np.ndarray, "num cells"]
    specular: Float[np.ndarray, "num cells"]
    openness: Float[np.ndarray, "num"]
    glossed: Float[np.ndarray, "num"]
    mirrored: Float[np.ndarray, "num"]

    def lights(self, radiance: Float[np.ndarray, "lights cells 3"]) -> list[Light]:
        """What lights of these radiances do; many at a time read the transport once."""
        count = len(radiance)
        columns = radiance.transpose(1, 0, 2).reshape(len(self.direction), 3 * count)
        shading, specular = self.shading @ columns, self.specular @ columns
        return [
            Light(*(np.ascontiguousarray(m[:, 3 * k : 3 * k + 3]) for m in (shading, specular)))
            for k in range(count)
        ]


def trace(points: Points, turn: Float[np.ndarray, "3 3"]) -> Transport:
    """The transport of a scene, for cells that are turned: so no two heads share their errors."""
    direction = (cells() @ turn.T).astype(np.float32)
    cosine = np.maximum(points.normal @ direction.T, 0)
    seen = _seen(points, direction, cosine)
    shading = cosine / cosine.sum(axis=1, keepdims=True) * seen
    specular, mirrored_all = np.empty_like(shading), np.empty(len(points), np.float32)
    rows = max(1, _BLOCK // len(direction))
    for first in range(0, len(points), rows):
        part = slice(first, first + rows)
        gloss = mirrored(
            cosine[part],
            points.upright[part, None],
            points.view[part] @ direction.T,
            # A lobe that is narrower than a cell would miss most of them.
            np.maximum(points.roughness[part, None], _LEAST_ROUGH),
            points.gloss[part, None],
        )
        gloss *= np.float32(4 / len(direction))  # solid angle of a cell / pi
        mirrored_all[part] = gloss.sum(axis=1)
        specular[part] = seen[part] * gloss
    return Transport(
        direction, shading, specular, shading.sum(axis=1), specular.sum(axis=1), mirrored_all
    )


def _seen(points: Points, direction: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Whether each point (rows) sees each cell (columns)."""
    seen = np.ascontiguousarray((cosine > 0).T)
    ray = np.empty_like(points.origin)
    for toward, sees in zip(direction, seen, strict=True):
        asked = np.flatnonzero(sees)
        ray[: len(asked)] = toward
        sees[asked] = ~points.caster.blocked(points.origin[asked], ray[: len(asked)])
    return np.ascontiguousarray(seen.T)


def bare_shading(
    points: Points,
    direction: Float[np.ndarray, "cells 3"],
    radiance: Float[np.ndarray, "cells 3"],
) -> Float[np.ndarray, "num 3"]:
    """Shading by surroundings, as if nothing were in the way."""
    cosine = np.maximum(points.normal @ direction.T, 0)
    return (cosine / cosine.sum(axis=1, keepdims=True)) @ radiance


@functools.cache
def cells() -> Float[np.ndarray, "cells 3"]:
    """The middles of the cells."""
    return spread_directions(NUM_CELLS).numpy().astype(np.float32)


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


def bare_lamp_shading(points: Points, lamp: Lamp) -> Float[np.ndarray, "num 3"]:
    """Shading by a lamp, as if nothing were in the way."""
    toward, strength = _toward(points, lamp)
    return _lambert(points, toward, strength) * np.array(lamp.colour, np.float32)


def lamp_light(points: Points, lamp: Lamp, samples: int = 4) -> Light:
    """What a lamp does, its shadows as soft as it is large.

    samples: rays from each pixel near the edge of a shadow; one elsewhere.
    """
    toward, strength = _toward(points, lamp)
    visible = points.sees(toward).astype(np.float32)
    edge = np.flatnonzero(_near_edge(points, visible, lamp.radius))
    if lamp.radius and len(edge):
        visible[edge] = _softened(points, lamp, edge, samples)
        visible = _smoothed(points, visible)
    # A lamp's own size rounds its reflection (Karis 2013).
    rough = np.sqrt(np.minimum(points.roughness**2 + lamp.radius / 3, 1))
    gloss = mirrored(
        np.einsum("nk,nk->n", points.normal, toward),
        points.upright,
        np.einsum("nk,nk->n", points.view, toward),
        rough,
        points.gloss,
    )
    colour = np.array(lamp.colour, np.float32)
    shading = _lambert(points, toward, strength) * visible[:, None]
    return Light(shading * colour, (strength * visible * gloss)[:, None] * colour)


def _lambert(points: Points, toward: np.ndarray, strength: np.ndarray) -> np.ndarray:
    cosine = np.maximum(np.einsum("nk,nk->n", points.normal, toward), 0)
    return (strength * cosine)[:, None]


def finished(
    points: Points, transport: Transport, light: Light
) -> tuple[Float[np.ndarray, "num 3"], Light]:
    """The linear image of the points, and the light with what bounces and what skin scatters.

    The gloss takes from what goes into the surface just what it gives back of a uniform light.
    """
    albedo = points.albedo * (1 - transport.mirrored)[:, None]
    blocked = (1 - transport.openness)[:, None]
    unmirrored = (transport.mirrored - transport.glossed)[:, None]
    # What the head gives back: the sum of all bounces between surfaces of the mean radiance.
    first = (albedo * light.shading + light.specular).mean(axis=0)
    glow = first / (1 - (albedo * blocked + unmirrored).mean(axis=0))
    shading = _scattered(points, light.shading + blocked * glow)
    specular = light.specular + unmirrored * glow
    return albedo * shading + specular, Light(shading, specular)


def _toward(
    points: Points, lamp: Lamp, disc: np.ndarray | None = None, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors from points to places on the lamp's disc, and how strong it is at each.

    disc: a place for each of the rows, in radii of the lamp; its middle for all points when None.
    """
    middle = np.array(lamp.direction, np.float32)
    across = np.cross(middle, (0.0, 1.0, 0.0) if abs(middle[1]) < 0.9 else (1.0, 0.0, 0.0))
    across = (across / np.linalg.norm(across)).astype(np.float32)
    down = np.cross(middle, across)
    place = points.place if rows is None else points.place[rows]
    toward = np.tile(middle, (len(place), 1))
    if disc is not None:
        spread = np.float32(math.tan(lamp.radius)) * disc
        toward += spread[:, :1] * across + spread[:, 1:] * down
    strength = np.ones(len(toward), np.float32)
    if math.isfinite(lamp.distance):
        toward -= place / np.float32(lamp.distance)
        strength = 1 / np.einsum("nk,nk->n", toward, toward)
    return toward / np.linalg.norm(toward, axis=1, keepdims=True), strength


def _softened(points: Points, lamp: Lamp, rows: np.ndarray, samples: int) -> np.ndarray:
    """Share of the lamp that some of the points see."""
    # A spiral over the disc, turned at each pixel by a noise whose error the eye overlooks
    # (Jimenez 2014).
    row, column = (place[rows] for place in np.nonzero(points.mask))
    turn = 2 * np.pi * np.mod(52.9829189 * np.mod(0.06711056 * column + 0.00583715 * row, 1), 1)
    total = np.zeros(len(rows), np.float32)
    for k in range(samples):
        angle = turn + k * 2.39996323
        reach = math.sqrt((k + 0.5) / samples)
        disc = np.stack((np.cos(angle), np.sin(angle)), axis=1).astype(np.float32) * reach
        toward, _ = _toward(points, lamp, disc, rows)
        seen = np.einsum("nk,nk->n", points.normal[rows], toward) > 0
        asked = np.flatnonzero(seen)
        seen[asked] = ~points.caster.blocked(points.origin[rows[asked]], toward[asked])
        total += seen
    return total / samples


def _near_edge(points: Points, visible: np.ndarray, radius: float) -> np.ndarray:
    """Which points may see a part of the lamp only: shadow's edge is near."""
    picture = np.zeros(points.mask.shape, np.float32)
    picture[points.mask] = visible
    px = points.scene.camera.scale / points.scene.samples
    reach = int(np.clip(math.tan(radius) * 0.8 * px, 1, 15))  # casters are 8 cm away at most
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    lit = cv2.dilate(picture, kernel)
    dark = cv2.erode(picture + ~points.mask, kernel)
    return (lit != dark)[points.mask]


def _smoothed(points: Points, values: np.ndarray) -> np.ndarray:
    return _blurred(points, values[:, None], 0.8)[:, 0]


def _scattered(points: Points, shading: np.ndarray) -> np.ndarray:
    """Light that has gone through skin comes out beside where it went in, red farthest."""
    px = points.scene.camera.scale / points.scene.samples
    soft = np.concatenate(
        [_blurred(points, shading[:, k : k + 1], s * px) for k, s in enumerate(_SPREAD)], axis=1
    )
    return shading + points.skin[:, None] * (soft - shading)


def _blurred(points: Points, values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian means over what belongs to the head."""
    picture = np.zeros((*points.mask.shape, values.shape[1] + 1), np.float32)
    picture[points.mask, :-1] = values
    picture[points.mask, -1] = 1
    soft = cv2.GaussianBlur(picture, (0, 0), max(sigma, 1e-3))[points.mask]
    return soft[:, :-1] / soft[:, -1:]
