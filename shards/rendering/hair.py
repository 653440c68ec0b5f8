"""Hair as a raised and coloured part of the head's surface: where it grows and how it stands.

Places are those of the undeformed MakeHuman head (base.obj, decimetres), so that a hairline stays
on the scalp whoever wears it.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from shards.rendering.heads import Person
from shards.rendering.noise import field

AXIS_Z = 0.55  # of the vertical axis through the skull
UNROLLED_RADIUS = 0.75  # decimetres around it that are a radian of the unrolled head
# Height of the hairline at an angle from the front: brow, temple, sideburn, ear, nape.
_LINE_DEG = (0, 18, 36, 52, 66, 76, 84, 100, 112, 135, 180)
_LINE_Y = (8.1, 8.1, 8.02, 7.84, 7.56, 7.28, 7.16, 7.2, 6.9, 6.6, 6.5)
_BEARD_DEG = (0, 10, 18, 28, 45, 62, 78, 90)
_BEARD_Y = (6.82, 6.81, 6.76, 6.66, 6.6, 6.75, 7.1, 7.1)


@dataclass(frozen=True)
class Hair:
    """One person's hair.

    colour: linear RGB. density: how far it hides the skin, 0 to 1.
    top, side, low: how far it stands off at the crown, at the sides and below the ears, decimetres.
    recede: how far the hairline has drawn back, decimetres; negative is a fringe.
    end: height at which it ends below the ears. curl: 0 (straight) to 1.
    beard: density of a beard, 0 to 1. beard_depth: how far it stands off.
    offset: names the random field.
    """

    colour: tuple[float, float, float]
    density: float
    top: float
    side: float
    low: float
    recede: float
    end: float
    curl: float
    beard: float
    beard_depth: float
    offset: float


def random_hair(rng: np.random.Generator, person: Person) -> Hair:
    """Hair likely for the person's sex, age and ancestry."""
    man, african = person.male > 0.5, person.ancestry[0]
    old = float(np.clip((person.age - 40) / 35, 0, 1))
    thin = man and rng.random() < 0.12 + 0.5 * old
    shaved = rng.random() < (0.12 if man else 0.03)
    curl = float(np.clip(african * 1.1 + rng.normal(0, 0.2), 0, 1))
    long = not shaved and rng.random() < (0.08 if man else 0.65)
    volume = 0.02 if shaved else float(rng.uniform(0.05, 0.16 if man else 0.22) * (1 + curl))
    fringe = not man and not thin and rng.random() < 0.3
    bearded = man and person.age > 19
    style = rng.choice(["clean", "stubble", "full"], p=[0.45, 0.35, 0.2]) if bearded else "clean"
    recede = rng.uniform(0.05, 0.35) if thin else rng.uniform(-0.06, 0.08)
    beard = {"clean": 0.0, "stubble": rng.uniform(0.1, 0.4), "full": rng.uniform(0.9, 0.99)}
    return Hair(
        colour=_colour(rng, person, old),
        density=float(rng.uniform(0.35, 0.7) if shaved else rng.uniform(0.93, 1.0)),
        top=volume,
        side=volume * float(rng.uniform(0.3, 0.8) if man and not long else rng.uniform(0.7, 1.1)),
        low=float(rng.uniform(0.2, 0.36)) if long else 0.0,
        recede=float(rng.uniform(-0.36, -0.15) if fringe else recede),
        end=float(rng.uniform(4.8, 6.3)) if long else 6.55,
        curl=curl,
        beard=float(beard[str(style)]),
        beard_depth=float(rng.uniform(0.02, 0.07)) if style == "full" else 0.0,
        offset=float(rng.uniform(0, 100)),
    )


def surface_place(template: Float[np.ndarray, "num 3"]) -> Float[np.ndarray, "num 2"]:
    """Unrolled head: way around the axis and height, decimetres; the seam is at the back."""
    around = np.arctan2(template[:, 0], template[:, 2] - AXIS_Z)
    return np.stack((around * UNROLLED_RADIUS, template[:, 1]), axis=1).astype(np.float32)


def hair_weight(
    template: Float[np.ndarray, "num 3"],
    ears: Float[np.ndarray, "num"],
    hair: Hair,
    softness: float,
    ragged: float = 0.016,
    beyond: Float[np.ndarray, "num"] | float = 0.0,
) -> Float[np.ndarray, "num"]:
    """How far each place is inside the hair, 0 to 1, over an edge of `softness` decimetres.

    ragged: how far the edge strays from its line, decimetres. beyond: how much farther each place's
    hair grows.
    """
    degrees = _degrees(template)
    line = np.interp(degrees, _LINE_DEG, _LINE_Y)
    front = np.clip(1.4 - degrees / 50, 0, 1)
    # A receding line draws back most beside the forehead's middle.
    corners = np.exp(-(((degrees - 32) / 18) ** 2))
    fall = hair.recede * (front if hair.recede < 0 else np.maximum(0.5 * front, corners))
    line = line + fall
    if hair.low > 0:
        behind = _step(degrees, 88.0, 104.0)
        line = line * (1 - behind) + hair.end * behind
    stray = ragged * field(surface_place(template), "curls", hair.offset) + beyond
    grown = _step(template[:, 1] - line + stray, -softness / 2, softness / 2)
    return (grown * (1 - ears)).astype(np.float32)


def beard_weight(
    template: Float[np.ndarray, "num 3"],
    lips: Float[np.ndarray, "num"],
    hair: Hair,
    beyond: Float[np.ndarray, "num"] | float = 0.0,
) -> Float[np.ndarray, "num"]:
    """How far each place is inside the beard, 0 to 1, whatever its density.

    beyond: decimetres that each place's hair grows beyond the beard's edge.
    """
    degrees, height = _degrees(template), template[:, 1]
    line = np.interp(degrees, _BEARD_DEG, _BEARD_Y)
    ragged = 0.03 * field(surface_place(template), "curls", hair.offset) + beyond
    grown = _step(line - height + ragged, -0.03, 0.07) * _step(height, 6.0, 6.2)
    return (grown * (1 - lips) * _step(degrees, 92.0, 80.0)).astype(np.float32)


def hair_offsets(
    template: Float[np.ndarray, "vertices 3"],
    lips: Float[np.ndarray, "vertices"],
    ears: Float[np.ndarray, "vertices"],
    hair: Hair,
) -> Float[np.ndarray, "vertices 3"]:
    """How far the hair lifts each vertex off the skin, in the frame of the template."""
    height, degrees = template[:, 1], _degrees(template)
    scalp = replace(hair, low=0.0)
    weight = hair_weight(template, ears, scalp, softness=0.22, ragged=0.0)
    crown = _step(height, 7.5, 8.3)
    stand = hair.side + (hair.top - hair.side) * crown
    # Grains finer than the mesh would come out as a saw.
    curls = field(surface_place(template), "medium", hair.offset)
    waves = field(surface_place(template), "broad", hair.offset + 7)
    stand = stand * weight * (1 + 0.12 * waves + 0.1 * hair.curl * curls)
    hanging = _step(degrees, 82.0, 125.0) * _step(height, 7.3, 6.7) * (1 - ears)
    hanging = hanging * _step(height, hair.end - 0.1, hair.end + 0.5)
    stand = np.maximum(stand, hair.low * hanging * (1 + 0.1 * waves))
    stand = stand + hair.beard_depth * beard_weight(template, lips, hair)
    rise = np.maximum(height - 7.4, 0)
    away = np.stack((template[:, 0], rise, template[:, 2] - AXIS_Z), axis=1)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6)
    return (away * stand[:, None]).astype(np.float32)


def _colour(rng: np.random.Generator, person: Person, old: float) -> tuple[float, float, float]:
    light_share = person.ancestry[2] * np.clip((person.lightness - 45) / 25, 0, 1)
    palette = {
        "black": (0.012, 0.010, 0.009),
        "dark brown": (0.035, 0.022, 0.014),
        "brown": (0.085, 0.05, 0.028),
        "red": (0.2, 0.075, 0.03),
        "blond": (0.36, 0.24, 0.115),
    }
    fair = float(light_share)
    odds = np.array([1.2 - fair, 1.0, 0.1 + 1.2 * fair, 0.35 * fair, 1.1 * fair])
    name = rng.choice(list(palette), p=odds / odds.sum())
    colour = np.array(palette[str(name)]) * rng.uniform(0.7, 1.5)
    gray = np.array([0.36, 0.35, 0.34]) * rng.uniform(0.7, 1.4)
    share = old * rng.uniform(0.2, 1.0) if rng.random() < 0.8 else 0.0
    mixed = colour * (1 - share) + gray * share
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def _degrees(template: np.ndarray) -> np.ndarray:
    return np.degrees(np.arctan2(np.abs(template[:, 0]), template[:, 2] - AXIS_Z))


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; falling when low > high."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)
