"""What marks a skin: moles, freckles, pimples, scars, age spots, a shaved beard, make-up.

Spots are drawn on a chart of the unrolled head, as densities of the skin's two dyes and as heights.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from shards.rendering.chart import Chart
from shards.rendering.grain import grain, mean_cover
from shards.rendering.hair import beard_weight, surface_place
from shards.rendering.heads import Person
from shards.rendering.skin import BLOOD, EYE_CENTRE, MELANIN, Appearance, eye_rim

_FACE = ((-0.75, 0.75), (6.15, 8.1))  # of the unrolled head, where spots may be
_KEPT_CLEAR = (((0.28, 7.29), (0.15, 0.1)), ((0.0, 6.61), (0.24, 0.13)))  # eyes and mouth
_BEARD_SHADE = np.array([1.0, 0.82, 0.66], np.float32)  # density of hair below skin: bluish
_STUBBLE = 0.5  # density of a beard from which on it is one of whole hairs
_PAINT_LIGHTNESS = 80


@dataclass(frozen=True)
class Spot:
    """A mark on the unrolled head.

    place, radii: decimetres; angle: of the first radius, radians. melanin, blood: density that it
    adds. height: how far it stands out, decimetres.
    """

    place: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    melanin: float
    blood: float
    height: float


@dataclass(frozen=True)
class Paint:
    """Make-up: opacity at its densest, and linear RGB."""

    opacity: float
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Marks:
    """stubble: share of skin behind cut hairs. beard_shade: density of the hair below the skin."""

    spots: tuple[Spot, ...]
    stubble: float
    beard_shade: float
    eye_shadow: Paint
    liner: Paint
    blush: Paint
    offset: float


def random_marks(rng: np.random.Generator, person: Person, appearance: Appearance) -> Marks:
    """Marks likely for the person; make-up more often beside a lipstick."""
    counts = {
        _mole: rng.poisson(2.5),
        _pimple: rng.poisson(rng.choice([0.3, 5.0], p=[0.7, 0.3])) if person.age < 35 else 0,
        _scar: rng.poisson(0.25),
        _age_spot: rng.poisson(0.45 * max(person.age - 48, 0) * rng.uniform(0.2, 1)),
    }
    spots = [draw(rng) for draw, count in counts.items() for _ in range(min(count, 14))]
    if appearance.freckles:
        spots += [_freckle(rng, appearance.freckles) for _ in range(int(rng.uniform(120, 420)))]
    stubble, shade = _shaved(rng, person, appearance)
    eye_shadow, liner, blush = _make_up(rng, person, appearance)
    return Marks(tuple(spots), stubble, shade, eye_shadow, liner, blush, float(rng.uniform(0, 100)))


def without_marks(appearance: Appearance) -> Appearance:
    """An appearance without what is left to the marks: freckles, and a beard if it is short."""
    hair = appearance.hair
    if hair.beard < _STUBBLE:
        hair = replace(hair, beard=0.0)
    return replace(appearance, hair=hair, freckles=0.0)


def spot_heights(marks: Marks, chart: Chart) -> Float[np.ndarray, "rows columns"]:
    """Decimetres that the spots stand out of the skin, on a chart."""
    return _chart_of(marks, chart, "height")


def marked(
    bare: Float[np.ndarray, "num 3"],
    template: Float[np.ndarray, "num 3"],
    lips: Float[np.ndarray, "num"],
    marks: Marks,
    appearance: Appearance,
    chart: Chart,
) -> Float[np.ndarray, "num 3"]:
    """Albedo of bare skin with its marks; template: places on the undeformed head."""
    place = surface_place(template)
    # A mark's outline is not round.
    ragged = np.clip(1 + 0.35 * grain(chart, "uneven", marks.offset), 0.3, 1.7)
    dyes = np.zeros_like(bare)
    for name, dye in (("melanin", MELANIN), ("blood", BLOOD)):
        dyes += chart.look_up(_chart_of(marks, chart, name) * ragged, place)[:, None] * dye
    albedo = bare * np.exp(-dyes)
    if marks.stubble or marks.beard_shade:
        grown = _growth(template, lips, appearance)
        hairs = chart.look_up(grain(chart, "dots", marks.offset), place)
        cover = marks.stubble / np.float32(mean_cover("dots")) * grown * hairs
        cover = np.clip(cover, 0, 0.9)[:, None]
        albedo = albedo * np.exp(-(marks.beard_shade * grown)[:, None] * _BEARD_SHADE)
        # Cut hairs are thin: skin shines through them, and gray ones do not look blue.
        hue = albedo / albedo.mean(axis=1, keepdims=True)
        albedo += (np.array(appearance.hair.colour, np.float32) * hue**0.7 - albedo) * cover
    for paint, cover in (
        (marks.blush, _blush(template)),
        (marks.eye_shadow, _lid(template)),
        (marks.liner, _liner(template)),
    ):
        if paint.opacity:
            share = (paint.opacity * cover)[:, None].astype(np.float32)
            albedo = albedo + (np.array(paint.colour, np.float32) - albedo) * share
    return albedo.astype(np.float32)


def _chart_of(marks: Marks, chart: Chart, what: str) -> Float[np.ndarray, "rows columns"]:
    picture = chart.empty()
    for spot in marks.spots:
        chart.add_blob(picture, spot.place, spot.radii, spot.angle, getattr(spot, what))
    return picture


def _growth(template: np.ndarray, lips: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Where a beard would grow, 0 to 1: it thins toward its edge, as whole beards do not."""
    grown = np.zeros(len(template), np.float32)
    for rise in (-0.03, 0.02, 0.07, 0.12):
        raised = template + np.array((0, rise, 0), np.float32)
        grown += beard_weight(raised, lips, appearance.hair) / 4
    return grown


def _mole(rng: np.random.Generator) -> Spot:
    radius = float(np.clip(np.exp(rng.normal(-4.6, 0.45)), 0.005, 0.028))
    raised = float(rng.uniform(0.1, 0.3) * radius) if rng.random() < 0.35 else 0.0
    radii = radius, radius * float(rng.uniform(0.75, 1))
    return Spot(_free_place(rng), radii, _angle(rng), float(rng.uniform(0.4, 1.3)), 0.1, raised)


def _pimple(rng: np.random.Generator) -> Spot:
    radius = float(rng.uniform(0.01, 0.024))
    red = float(rng.uniform(0.15, 0.5))
    height = float(rng.uniform(0.08, 0.2) * radius)
    return Spot(_free_place(rng), (radius, radius), 0.0, 0.0, red, height)


def _scar(rng: np.random.Generator) -> Spot:
    """A short line, or the small pit that a pimple has left; paler than the skin around it."""
    long = float(rng.uniform(0.04, 0.1)) if rng.random() < 0.4 else 0.0
    radius = float(rng.uniform(0.006, 0.012))
    depth = -float(rng.uniform(0.08, 0.2) * radius)
    radii = max(long, radius), radius
    pale = -float(rng.uniform(0.02, 0.08))
    return Spot(_free_place(rng), radii, _angle(rng), pale, float(rng.uniform(-0.1, 0.1)), depth)


def _age_spot(rng: np.random.Generator) -> Spot:
    radius = float(rng.uniform(0.014, 0.05))
    radii = radius, radius * float(rng.uniform(0.6, 1))
    return Spot(_free_place(rng), radii, _angle(rng), float(rng.uniform(0.06, 0.22)), 0.03, 0.0)


def _freckle(rng: np.random.Generator, strength: float) -> Spot:
    """On nose and cheeks mostly; strength: of `Appearance.freckles`."""
    around, height = rng.normal((0, 7.05), (0.33, 0.16))
    while _is_kept_clear(around, height):
        around, height = rng.normal((0, 7.05), (0.33, 0.16))
    radius = float(np.clip(np.exp(rng.normal(-4.75, 0.35)), 0.004, 0.018))
    radii = radius, radius * float(rng.uniform(0.7, 1))
    dark = float(strength * rng.uniform(0.15, 0.75))
    return Spot((float(around), float(height)), radii, _angle(rng), dark, 0.0, 0.0)


def _free_place(rng: np.random.Generator) -> tuple[float, float]:
    while True:
        around, height = rng.uniform(*np.array(_FACE).T)
        if not _is_kept_clear(around, height):
            return float(around), float(height)


def _is_kept_clear(around: float, height: float) -> bool:
    return any(
        ((abs(around) - middle[0]) / radii[0]) ** 2 + ((height - middle[1]) / radii[1]) ** 2 < 1
        for middle, radii in _KEPT_CLEAR
    )


def _angle(rng: np.random.Generator) -> float:
    return float(rng.uniform(0, np.pi))


def _shaved(
    rng: np.random.Generator, person: Person, appearance: Appearance
) -> tuple[float, float]:
    """Stubble and shade of a man's beard that is shaved or a few days old."""
    stubble, shade = float(rng.uniform(0.0, 0.06)), float(rng.uniform(0.02, 0.22))
    if person.male < 0.5 or person.age < 17 or appearance.hair.beard >= _STUBBLE:
        return 0.0, 0.0
    # Dark hair shows through fair skin.
    contrast = np.clip(1 - 4 * np.mean(appearance.hair.colour), 0.1, 1)
    grown = np.clip((person.age - 15) / 8, 0, 1)
    return max(appearance.hair.beard, stubble * float(grown)), shade * float(contrast * grown)


def _make_up(
    rng: np.random.Generator, person: Person, appearance: Appearance
) -> tuple[Paint, Paint, Paint]:
    """Eye shadow, liner and blush."""
    worn = rng.random(3) < (0.65 if appearance.lipstick else 0.12)
    strength = rng.uniform((0.15, 0.35, 0.08), (0.5, 0.85, 0.28))
    if person.male > 0.5 or person.age < 17:
        worn[:] = False
    # Paint far brighter than the skin would glow.
    bright = 0.3 + 0.7 * person.lightness / _PAINT_LIGHTNESS
    shadows = ((0.16, 0.09, 0.065), (0.1, 0.09, 0.09), (0.17, 0.075, 0.1), (0.1, 0.12, 0.17))
    shadow = np.array(shadows[int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1]))]) * rng.uniform(0.6, 1.5)
    line = np.array([0.02, 0.015, 0.013]) * rng.uniform(0.6, 1.6)
    rose = rng.uniform((0.5, 0.13, 0.11), (0.6, 0.22, 0.2))
    found = []
    for on, opacity, colour in zip(
        worn, strength, (shadow * bright, line, rose * bright), strict=True
    ):
        painted = np.clip(colour, 0.005, 0.8)
        tint = float(painted[0]), float(painted[1]), float(painted[2])
        found.append(Paint(float(opacity) if on else 0.0, tint))
    return found[0], found[1], found[2]


def _blush(template: np.ndarray) -> np.ndarray:
    """The cheek, outward and upward from its middle."""
    around, height = np.abs(surface_place(template)).T
    out, up = around - 0.43, height - 7.0
    along, across = 0.8 * out + 0.6 * up, 0.8 * up - 0.6 * out
    return np.exp(-((along / 0.2) ** 2) - (across / 0.12) ** 2)


def _lid(template: np.ndarray) -> np.ndarray:
    """Above the eye as far as the brow, fading outward and upward."""
    around, height = np.abs(surface_place(template)).T
    across, up = (around - 0.285) / 0.14, (height - 7.345) / 0.075
    front = np.clip((height - 7.27) / 0.05, 0, 1)
    return np.exp(-(across**4) - np.maximum(up, 0) ** 2 - np.minimum(up / 0.6, 0) ** 2) * front


def _liner(template: np.ndarray) -> np.ndarray:
    """Along the lashes of the upper lid."""
    above = template[:, 1] - EYE_CENTRE[1]
    return eye_rim(template, 1.1, 1.32) * np.clip((above + 0.01) / 0.04, 0, 1)
