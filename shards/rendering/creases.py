"""Lines that age and expressions draw into a face: where they run, how wide and how deep they are.

Places are on the unrolled head (`hair.surface_place`, decimetres), the subject's left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from shards.rendering.heads import Person

_STEPS = 160  # points along a line
_WANDER = 0.0035  # of the points that it runs through, decimetres


class _Line(NamedTuple):
    """points: it runs through. width: sigma of the groove. depth: the greatest, of deep wrinkles.

    whole: crosses the middle of the face; the others are mirrored.
    """

    points: tuple[tuple[float, float], ...]
    width: float
    depth: float
    whole: bool = False


def _forehead(height: float, half: float) -> _Line:
    across = np.array([-1, -0.45, 0, 0.45, 1])
    fall = np.array([-0.03, 0.014, -0.004, 0.014, -0.03])
    points = tuple((float(u), float(v)) for u, v in zip(half * across, height + fall, strict=True))
    return _Line(points, 0.012, 0.0038, whole=True)


def _neck(height: float) -> _Line:
    points = ((-0.6, height + 0.16), (-0.25, height + 0.02), (0.0, height), (0.3, height + 0.03))
    return _Line((*points, (0.6, height + 0.17)), 0.014, 0.005, whole=True)


_LINES = {
    "forehead": tuple(
        _forehead(height, half)
        for height, half in ((7.67, 0.34), (7.755, 0.4), (7.84, 0.42), (7.93, 0.36))
    ),
    "frown": (
        _Line(((0.05, 7.44), (0.052, 7.5), (0.064, 7.57), (0.075, 7.66)), 0.013, 0.0042),
        _Line(((-0.07, 7.395), (0.0, 7.385), (0.07, 7.395)), 0.011, 0.003, whole=True),
    ),
    "crow": (
        _Line(((0.425, 7.315), (0.49, 7.36), (0.56, 7.4)), 0.0075, 0.0018),
        _Line(((0.43, 7.29), (0.5, 7.3), (0.59, 7.32)), 0.0075, 0.0022),
        _Line(((0.425, 7.265), (0.49, 7.245), (0.57, 7.215)), 0.0075, 0.0022),
        _Line(((0.41, 7.235), (0.47, 7.195), (0.53, 7.14)), 0.0075, 0.0016),
    ),
    "eye": (
        _Line(((0.165, 7.225), (0.22, 7.165), (0.29, 7.145), (0.37, 7.165)), 0.02, 0.005),
        _Line(((0.2, 7.215), (0.27, 7.19), (0.34, 7.195), (0.4, 7.225)), 0.008, 0.0016),
        _Line(((0.24, 7.165), (0.31, 7.155), (0.4, 7.19)), 0.0075, 0.0012),
    ),
    "nose": (
        _Line(((0.07, 7.28), (0.1, 7.24), (0.125, 7.19)), 0.008, 0.0016),
        _Line(((0.06, 7.24), (0.09, 7.2), (0.115, 7.15)), 0.008, 0.0014),
    ),
    "nasolabial": (
        _Line(((0.148, 6.965), (0.19, 6.87), (0.24, 6.75), (0.28, 6.58)), 0.026, 0.009),
    ),
    "marionette": (
        _Line(((0.236, 6.585), (0.258, 6.52), (0.268, 6.44), (0.262, 6.36)), 0.02, 0.006),
    ),
    "mouth": tuple(
        _Line(((u, 6.79 - 0.1 * u), (1.04 * u, 6.735 - 0.1 * u)), 0.0065, 0.0016)
        for u in (0.03, 0.062, 0.1, 0.138, 0.175)
    ),
    "cheek": (
        _Line(((0.46, 7.06), (0.43, 6.93), (0.38, 6.8), (0.36, 6.68)), 0.014, 0.0028),
        _Line(((0.55, 7.0), (0.52, 6.85), (0.46, 6.7)), 0.014, 0.0024),
    ),
    "neck": (_neck(5.98), _neck(5.82)),
}  # fmt: skip
_EXPRESSED = {
    "forehead": ("eyebrows-left-up", "eyebrows-right-up", "eyebrows-left-inner-up"),
    "frown": ("eyebrows-left-down", "eyebrows-right-down"),
    "crow": ("eye-left-slit", "eye-right-slit", "mouth-corner-puller"),
    "eye": ("eye-left-slit", "eye-right-slit"),
    "nose": ("nose-compression", "nose-compression"),
    "nasolabial": ("mouth-corner-puller", "mouth-corner-puller", "nose-compression"),
    "marionette": ("mouth-depression", "mouth-depression"),
    "mouth": ("mouth-compression",),
}
# The age at which a group begins to stay, and at which it is deep.
_AGES = {"mouth": (48, 85), "cheek": (45, 85), "neck": (28, 75), "crow": (28, 72), "nose": (40, 90)}
_USUAL_AGES = (22, 75)


@dataclass(frozen=True)
class Crease:
    """A groove along a line. width: its sigma; depth: at each point; decimetres."""

    line: Float[np.ndarray, "points 2"]
    width: float
    depth: Float[np.ndarray, "points"]


def random_creases(rng: np.random.Generator, person: Person) -> tuple[Crease, ...]:
    """What age and the expression draw into a person's face; no two sides are the same."""
    lined = float(np.exp(rng.normal(0, 0.3)))
    found = []
    for group, lines in _LINES.items():
        strength = lined * float(rng.uniform(0.5, 1.3)) * _strength(person, group)
        for line in lines:
            for side in (1.0,) if line.whole else (1.0, -1.0):
                found.append(_drawn(rng, line, side, min(strength, 1.3)))
    return tuple(found)


def _strength(person: Person, group: str) -> float:
    begin, deep = _AGES.get(group, _USUAL_AGES)
    stays = float(np.clip((person.age - begin) / (deep - begin), 0, 1.1)) ** 1.2
    moved = min(sum(_weight(person, unit) for unit in _EXPRESSED.get(group, ())), 1.0)
    # A young face folds too, but smoothly.
    grown = float(np.clip((person.age - 8) / 30, 0, 1))
    return 0.03 * grown + stays * (0.8 + 0.5 * moved) + 0.2 * grown * moved


def _weight(person: Person, unit: str) -> float:
    found = (
        weight
        for name, weight in person.features.items()
        if name.startswith("expression/") and name.endswith(f"/{unit}")
    )
    return sum(found, 0.0)


def _drawn(rng: np.random.Generator, line: _Line, side: float, strength: float) -> Crease:
    points = np.array(line.points) * (side, 1) + rng.normal(0, 0.008, 2)
    points = points + rng.normal(0, _WANDER, points.shape)
    along = np.linspace(0, 1, _STEPS)
    waves = sum(
        rng.normal(0, 0.25) * np.sin(np.pi * number * along + rng.uniform(0, 2 * np.pi))
        for number in (2, 3, 5)
    )
    ends = np.clip(np.minimum(along, 1 - along) / 0.4, 0, 1)
    depth = strength * line.depth * np.clip(1 + waves, 0.2, 1.4) * ends * ends * (3 - 2 * ends)
    return Crease(_curve(points, along), line.width, depth * float(rng.uniform(0.5, 1.1)))


def _curve(
    points: Float[np.ndarray, "few 2"], along: Float[np.ndarray, "num"]
) -> Float[np.ndarray, "num 2"]:
    """Through all points, smoothly (Catmull-Rom); along: 0 to 1."""
    ends = 2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1]
    known = np.concatenate((ends[0], points, ends[1]))
    first = np.minimum((along * (len(points) - 1)).astype(np.int64), len(points) - 2)
    part = (along * (len(points) - 1) - first)[:, None]
    a, b, c, d = (known[first + number] for number in range(4))
    slope = c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a))
    return b + 0.5 * part * slope
