"""Fine relief of the skin: pores, unevenness, wrinkles, lip furrows, as heights and their slopes.

Heights are drawn on a chart of the unrolled head; what tilts a normal is the slope of that one
surface, so that shading and labels show the same relief. What is finer than the samples fades out.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from shards.rendering.chart import Chart
from shards.rendering.creases import Crease, random_creases
from shards.rendering.grain import grain
from shards.rendering.hair import AXIS_Z, UNROLLED_RADIUS, surface_place
from shards.rendering.heads import Person

# Decimetres: depth of pores; standard deviations of the others.
_PORES, _MICRO, _UNEVEN, _CREPE, _FURROWS = 0.0009, 0.00015, 0.00025, 0.0002, 0.0011
# Where pores are larger: centre on the chart (the subject's left), radius, by how much.
_USUAL_PORES = 0.35
_PATCHES = (
    ((0.0, 6.95), 0.17, 0.7),  # nose
    ((0.2, 7.0), 0.14, 0.6),  # cheek beside it
    ((0.0, 6.36), 0.14, 0.4),  # chin
    ((0.0, 7.72), 0.3, 0.35),  # forehead
    ((0.28, 7.28), 0.13, -0.35),  # eye
)
_BROAD = 0.02  # cells that are fine enough for how strength changes over the face
_MOUTH, _MOUTH_HALVES = (0.0, 6.606), (0.2, 0.1)
_SHOULDER, _SHOULDER_WIDTH = 0.5, 2.2  # what a groove pushes up on both sides


@dataclass(frozen=True)
class Relief:
    """pores, uneven, crepe, furrows: strength, 1 being much. offset: of the random fields."""

    creases: tuple[Crease, ...]
    pores: float
    uneven: float
    crepe: float
    furrows: float
    offset: float


def random_relief(rng: np.random.Generator, person: Person) -> Relief:
    """A relief likely for the person's age and expression."""
    old = float(np.clip((person.age - 35) / 40, 0, 1))
    grown = float(np.clip((person.age - 8) / 12, 0.15, 1))
    return Relief(
        creases=random_creases(rng, person),
        pores=grown * float(rng.uniform(0.35, 1.0)),
        uneven=grown * float(rng.uniform(0.35, 0.8) + 0.3 * old),
        crepe=float(rng.uniform(0.1, 0.3) + old * rng.uniform(0.4, 0.9)),
        furrows=float(rng.uniform(0.4, 1.0)),
        offset=float(rng.uniform(0, 100)),
    )


def heights(relief: Relief, chart: Chart) -> Float[np.ndarray, "rows columns"]:
    """Decimetres above the smooth skin, on a chart."""
    coarse = Chart(max(chart.texel, _BROAD))
    broad = coarse.places().reshape(-1, 2)
    size, lips = (
        chart.refined(coarse, values.reshape(coarse.empty().shape))
        for values in (_pore_size(broad), _lips(broad))
    )
    # Two charts of the same head show the same pores, each as its samples see them.
    height = -_PORES * relief.pores * size * grain(chart, "pores", relief.offset)
    height += _MICRO * (0.5 + size) * grain(chart, "micro", relief.offset)
    height += _UNEVEN * relief.uneven * grain(chart, "uneven", relief.offset)
    height += _CREPE * relief.crepe * grain(chart, "crepe", relief.offset)
    height += _FURROWS * relief.furrows * lips * grain(chart, "furrows", relief.offset)
    return height + _carved(relief.creases, chart)


def tilt(
    height: Float[np.ndarray, "rows columns"],
    chart: Chart,
    template: Float[np.ndarray, "num 3"],
    normal: Float[np.ndarray, "num 3"],
) -> Float[np.ndarray, "num 3"]:
    """What heights add to unit normals at places of the undeformed head: minus their slope.

    It lies in the surface; the deformed head's normals may be given.
    """
    down, right = np.gradient(height, np.float32(chart.texel))
    place = surface_place(template)
    around, up = chart.look_up(right, place), -chart.look_up(down, place)
    forward, left = template[:, 2] - np.float32(AXIS_Z), template[:, 0]
    turn = around * np.float32(UNROLLED_RADIUS) / np.maximum(forward**2 + left**2, 0.04)
    slope = np.stack((turn * forward, up, -turn * left), axis=1)
    slope -= np.einsum("nk,nk->n", slope, normal)[:, None] * normal
    return -slope.astype(np.float32)


def _carved(creases: tuple[Crease, ...], chart: Chart) -> Float[np.ndarray, "rows columns"]:
    """Height of all creases, grooves of one width at a time."""
    height = chart.empty()
    for width in sorted({crease.width for crease in creases}):
        for wide, amount in ((1.0, -1.0), (_SHOULDER_WIDTH, _SHOULDER / _SHOULDER_WIDTH)):
            # A wide groove needs no fine grid.
            coarse = Chart(max(chart.texel, wide * width / 5))
            picture = coarse.empty()
            for crease in creases:
                if crease.width == width:
                    _lay(crease, amount * wide, coarse, picture)
            # What is narrower than a cell is spread over it, and so grows shallow.
            sigma = float(np.hypot(wide * width / coarse.texel, 0.6))
            height += chart.refined(coarse, cv2.GaussianBlur(picture, (0, 0), sigma))
    return height


def _lay(crease: Crease, factor: float, chart: Chart, picture: np.ndarray) -> None:
    """A line that, blurred by the crease's width times |factor|, is as deep as the crease."""
    step = np.linalg.norm(np.gradient(crease.line, axis=0), axis=1) / chart.texel
    volume = crease.depth * factor * np.sqrt(2 * np.pi) * crease.width / chart.texel
    chart.add_points(picture, crease.line, (volume * step).astype(np.float32))


def _pore_size(place: Float[np.ndarray, "num 2"]) -> Float[np.ndarray, "num"]:
    size = np.full(len(place), _USUAL_PORES, np.float32)
    for (around, height), radius, more in _PATCHES:
        away = (np.abs(place[:, 0]) - around) ** 2 + (place[:, 1] - height) ** 2
        size += np.float32(more) * np.exp(-away / np.float32(radius**2))
    return np.maximum(size, 0.05) * (1 - _lips(place))


def _lips(place: Float[np.ndarray, "num 2"]) -> Float[np.ndarray, "num"]:
    """How far places are on the lips, 0 to 1."""
    across = (place[:, 0] - np.float32(_MOUTH[0])) / np.float32(_MOUTH_HALVES[0])
    down = (place[:, 1] - np.float32(_MOUTH[1])) / np.float32(_MOUTH_HALVES[1])
    return np.exp(-(across**4) - down**4)
