"""How light from each direction reaches the camera from a scene: traced once, for any light.

Light from all around is cut into cells around directions that are spread evenly over the sphere;
each is traced from every pixel. A light is then a radiance for each cell, and its image a product
of matrices. Lamps, whose shadows have edges, are traced for themselves (lamps.py).

What is blocked by the head itself sees skin: it has the mean radiance of the whole head, after all
bounces. So in a white furnace a white head is white (Jimenez et al. 2016 have the same demand).
"""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from relightx.sh import spread_directions
from shards.rendering.gloss import mirrored
from shards.rendering.points import Points, Shaded

NUM_CELLS = 256
_LEAST_ROUGH = 0.38
_BLOCK = 16  # cells at a time: what is computed of them stays in the processor's cache
# Blur of the light under the skin for red, green and blue, decimetres (Jensen et al. 2001: skin).
_SPREAD = (0.018, 0.008, 0.005)


@dataclass(frozen=True)
class Transport:
    """Shading and gloss at each point for a radiance of 1 from each cell of directions.

    openness: shading by a uniform light of 1 (ambient occlusion). glossed: specular by it.
    mirrored: that were nothing in the way.
    """

    direction: Float[np.ndarray, "cells 3"]
    shading: Float[np.ndarray, "cells num"]
    specular: Float[np.ndarray, "cells num"]
    openness: Float[np.ndarray, "num"]
    glossed: Float[np.ndarray, "num"]
    mirrored: Float[np.ndarray, "num"]

    def lights(self, radiance: Float[np.ndarray, "lights 3 cells"]) -> list[Shaded]:
        """What lights of these radiances do; many at a time read the transport once."""
        rows = radiance.reshape(-1, len(self.direction))
        shading, specular = (
            (rows @ matrix).reshape(len(radiance), 3, -1)
            for matrix in (self.shading, self.specular)
        )
        return [Shaded(*both) for both in zip(shading, specular, strict=True)]


def trace(points: Points, turn: Float[np.ndarray, "3 3"]) -> Transport:
    """The transport of a scene, for cells that are turned: so no two heads share their errors."""
    direction = (cells() @ turn.T).astype(np.float32)
    shading, specular = (np.empty((NUM_CELLS, len(points)), np.float32) for _ in range(2))
    bare, given, glossed = (np.zeros(len(points), np.float32) for _ in range(3))
    # A lobe that is narrower than a cell would miss most of them.
    rough = np.maximum(points.roughness, _LEAST_ROUGH)
    share = np.float32(4 / NUM_CELLS)  # solid angle of a cell / pi
    for first in range(0, NUM_CELLS, _BLOCK):
        part = slice(first, first + _BLOCK)
        cosine = np.maximum(direction[part] @ points.normal.T, 0)
        seen = np.stack([points.lit(*ray) for ray in zip(direction[part], cosine, strict=True)])
        apart = direction[part] @ points.view.T
        gloss = share * mirrored(cosine, points.upright, apart, rough, points.gloss)
        bare += cosine.sum(axis=0)
        given += gloss.sum(axis=0)
        np.multiply(cosine, seen, out=shading[part])
        np.multiply(gloss, seen, out=specular[part])
        glossed += specular[part].sum(axis=0)
    shading /= bare
    return Transport(direction, shading, specular, shading.sum(axis=0), glossed, given)


def bare_shading(
    points: Points,
    direction: Float[np.ndarray, "cells 3"],
    radiance: Float[np.ndarray, "3 cells"],
) -> Float[np.ndarray, "3 num"]:
    """Shading by surroundings, as if nothing were in the way."""
    cosine = np.maximum(direction @ points.normal.T, 0)
    return (radiance @ cosine) / cosine.sum(axis=0)


def finished(
    points: Points, transport: Transport, light: Shaded
) -> tuple[Float[np.ndarray, "3 num"], Shaded]:
    """The linear image of the points, and the light with what bounces and what skin scatters: the
    image is albedo times its shading, and its specular.

    The gloss takes from what goes into the surface just what it gives back of a uniform light.
    """
    passed = 1 - transport.mirrored
    albedo = points.albedo * passed
    blocked, unmirrored = 1 - transport.openness, transport.mirrored - transport.glossed
    # What the head gives back: the sum of all bounces between surfaces of the mean radiance.
    first = (albedo * light.shading + light.specular).mean(axis=1)
    glow = (first / (1 - (albedo * blocked + unmirrored).mean(axis=1)))[:, None]
    shading = passed * _scattered(points, light.shading + glow * blocked)
    specular = light.specular + glow * unmirrored
    return points.albedo * shading + specular, Shaded(shading, specular)


def _scattered(points: Points, shading: np.ndarray) -> np.ndarray:
    """Light that has gone through skin comes out beside where it went in, red farthest."""
    soft = np.stack(
        [points.blurred(v, s * points.scale) for v, s in zip(shading, _SPREAD, strict=True)]
    )
    return shading + points.skin * (soft - shading)


@functools.cache
def cells() -> Float[np.ndarray, "cells 3"]:
    """The middles of the cells."""
    return spread_directions(NUM_CELLS).numpy().astype(np.float32)
