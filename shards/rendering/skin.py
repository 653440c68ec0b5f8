"""Albedo of a head, evaluated at any place of its surface: skin, lips, brows, eyes, hair, cloth.

Skin is a pale ground seen through two dyes, melanin and blood; each patch of the face differs in
how much of them it has. Places are those of the undeformed MakeHuman head (base.obj, decimetres).
Constants of colour are linear RGB.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from shards.rendering.hair import Hair, beard_weight, hair_weight, random_hair, surface_place
from shards.rendering.heads import Person
from shards.rendering.noise import field
from shards.rendering.strands import brow_hairs, single_hairs

EYE_CENTRE = np.array([0.3077, 7.2842, 1.2454], np.float32)  # of the subject's left eye in base.obj
EYE_RADIUS = 0.142
_GROUND = np.array([0.87, 0.74, 0.615], np.float32)  # skin without dyes
MELANIN = np.array([0.74, 0.98, 1.2], np.float32)  # optical density for a unit of each dye
BLOOD = np.array([0.2, 0.9, 0.82], np.float32)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)

_UNEVEN, _UNEVEN_BROW = 0.03, 0.008  # decimetres that single hairs differ by at an edge
_NOSTRIL = np.array([[0.075, 6.865, 1.5], [0.05, 0.035, 0.07]], np.float32)  # centre, radii

# Patches with more or less of the dyes: centre (|x|, y, z), radius, blood, melanin (relative).
_PATCHES = (
    ((0.42, 6.95, 1.28), 0.28, 0.2, 0.0),  # cheek
    ((0.0, 6.93, 1.66), 0.14, 0.24, 0.0),  # tip of the nose
    ((0.13, 6.87, 1.5), 0.09, 0.22, 0.04),  # wing of the nose
    ((0.0, 6.3, 1.48), 0.18, 0.10, 0.0),  # chin
    ((0.0, 7.75, 1.5), 0.45, -0.05, 0.05),  # forehead
    ((0.3, 7.13, 1.42), 0.13, 0.10, 0.11),  # under the eye
    ((0.31, 7.38, 1.42), 0.10, 0.12, 0.08),  # upper lid
    ((0.0, 6.0, 0.9), 0.45, -0.05, 0.04),  # neck
)


@dataclass(frozen=True)
class Appearance:
    """What one person looks like apart from shape. Colours are linear RGB.

    melanin, blood: mean density of the two dyes. flush: strength of the patches of the face.
    mottle, freckles: strength of the unevenness. lips: extra blood of the lips.
    lipstick: its opacity, with lip_colour. brow_*: density, thickness and rise of the brows.
    iris, cloth: colours. collar: height of the collar, decimetres. offset: of the random fields.
    oil: 0 (matt skin) to 1.
    """

    melanin: float
    blood: float
    flush: float
    mottle: float
    freckles: float
    lips: float
    lipstick: float
    lip_colour: tuple[float, float, float]
    brow_density: float
    brow_thickness: float
    brow_rise: float
    lash_density: float
    iris: tuple[float, float, float]
    cloth: tuple[float, float, float]
    collar: float
    offset: float
    hair: Hair
    oil: float


def random_appearance(rng: np.random.Generator, person: Person) -> Appearance:
    """An appearance likely for the person, the skin having the person's lightness."""
    blood = float(rng.uniform(0.1, 0.3))
    hair = random_hair(rng, person)
    woman = person.male < 0.5
    painted = woman and person.age > 16 and rng.random() < 0.3
    fair = np.clip((person.lightness - 50) / 25, 0, 1)
    return Appearance(
        melanin=melanin_for(person.lightness, blood),
        blood=blood,
        flush=float(rng.uniform(0.5, 1.5)),
        mottle=float(rng.uniform(0.4, 1.4)),
        freckles=float(rng.uniform(0.1, 0.5)) if rng.random() < 0.25 * fair else 0.0,
        lips=float(rng.uniform(0.3, 0.75)),
        lipstick=float(rng.uniform(0.3, 0.8)) if painted else 0.0,
        # Paint far brighter than the skin would glow.
        lip_colour=_tuple(
            rng.uniform((0.2, 0.02, 0.02), (0.55, 0.12, 0.13)) * (0.4 + 0.6 * person.lightness / 80)
        ),
        brow_density=float(rng.uniform(0.45, 0.95)),
        brow_thickness=float(rng.uniform(0.7, 1.15) * (0.85 if woman else 1.2)),
        brow_rise=float(rng.normal(0, 0.02)),
        lash_density=float(rng.uniform(0.65, 1.0) if woman else rng.uniform(0.45, 0.75)),
        iris=_iris(rng, person),
        cloth=_cloth(rng),
        collar=float(rng.uniform(5.55, 5.95)),
        offset=float(rng.uniform(0, 100)),
        hair=hair,
        oil=float(rng.beta(2, 2)),
    )


def skin_colour(melanin: float, blood: float) -> Float[np.ndarray, "3"]:
    """Linear albedo of even skin with these densities."""
    return _GROUND * np.exp(-melanin * MELANIN - blood * BLOOD)


def melanin_for(lightness: float, blood: float) -> float:
    """The density of melanin that gives skin of a CIE L* (26 to 82) with this much blood."""
    density = np.linspace(0, 4, 200)
    colour = _GROUND * np.exp(-density[:, None] * MELANIN - blood * BLOOD)
    luminance = ((lightness + 16) / 116) ** 3
    return float(np.interp(-luminance, -(colour @ _LUMINANCE), density))


def surface_albedo(
    template: Float[np.ndarray, "num 3"],
    lips: Float[np.ndarray, "num"],
    ears: Float[np.ndarray, "num"],
    cavity: Float[np.ndarray, "num"],
    appearance: Appearance,
    combed: Float[np.ndarray, "num"],
    bare: Float[np.ndarray, "num 3"] | None = None,
    spacing: float | None = None,
) -> tuple[Float[np.ndarray, "num 3"], Float[np.ndarray, "num"]]:
    """Linear albedo at places that are not on the eyes, and how far each is covered by hair.

    lips, ears, cavity: the weights of `makehuman.HeadMesh` there. combed: the pattern of the hair's
    strands (`strands.strands`). bare: albedo of the skin, where it is not that of `bare_skin`.
    spacing: of the samples, decimetres, for hair as from near.
    """
    place = surface_place(template)
    albedo = bare_skin(template, lips, ears, appearance) if bare is None else bare
    if appearance.lipstick:
        albedo = _over(albedo, np.array(appearance.lip_colour), lips * appearance.lipstick)
    hair = appearance.hair
    hair_cover = _hair_cover(template, place, lips, ears, appearance, spacing)
    tint = 1 + 0.28 * combed
    grown = np.maximum(tint, 0.3)[:, None] * np.array(hair.colour)
    brow = np.array(hair.colour) * 0.5 + 0.006
    albedo = _over(albedo, brow, _brows(template, place, appearance, spacing))
    albedo = _over(albedo, np.array([0.02, 0.014, 0.011]), _lashes(template, appearance))
    albedo = _over(albedo, grown, hair_cover)
    albedo = _over(albedo, np.array([0.09, 0.022, 0.018]), cavity)
    weave = 1 + 0.06 * field(place, "fine", appearance.offset)
    cloth = weave[:, None] * np.array(appearance.cloth)
    dressed = clothed(template, appearance) * (1 - hair_cover)
    albedo = _over(albedo, cloth, dressed)
    return np.clip(albedo, 0.003, 0.92), hair_cover


def eye_albedo(
    template: Float[np.ndarray, "num 3"],
    gaze: Float[np.ndarray, "3"],
    appearance: Appearance,
) -> Float[np.ndarray, "num 3"]:
    """Linear albedo at places on the eyes; `gaze` is the unit direction both look in."""
    left = template[:, :1] > 0
    direction = template - np.where(left, EYE_CENTRE, EYE_CENTRE * np.array([-1, 1, 1]))
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
    along = np.einsum("nk,k->n", direction, gaze)
    away = np.sqrt(np.maximum(1 - along**2, 0))
    away = np.where(along > 0, away, 1)  # sine of the angle from the gaze
    sclera = np.array([0.55, 0.495, 0.46])
    # The corners are pink, and the upper lid keeps the ball in its shade.
    side = np.clip(np.abs(direction[:, :1]) * 1.3 - 0.2, 0, 1)
    albedo = sclera * (1 - side * np.array([0.12, 0.3, 0.3]))
    upper = _rise(direction[:, 1], 0.1, 0.55)[:, None]
    albedo *= 1 - 0.5 * upper
    spokes = 1 + 0.25 * np.sin(
        23 * np.arctan2(direction[:, 1] - gaze[1], direction[:, 0] - gaze[0])
    )
    ring = 1 - 0.6 * _rise(away, 0.38, 0.47)
    iris = (np.array(appearance.iris) * (spokes * ring)[:, None]) * (1 - 0.35 * upper)
    albedo = _over(albedo, iris, 1 - _rise(away, 0.455, 0.5))
    return np.clip(_over(albedo, np.array([0.006] * 3), 1 - _rise(away, 0.16, 0.2)), 0.003, 0.92)


def bare_skin(
    template: Float[np.ndarray, "num 3"],
    lips: Float[np.ndarray, "num"],
    ears: Float[np.ndarray, "num"],
    appearance: Appearance,
) -> Float[np.ndarray, "num 3"]:
    """Linear albedo of skin and lips that nothing covers."""
    folded, place = _folded(template), surface_place(template)
    melanin = np.full(len(template), appearance.melanin, np.float32)
    blood = appearance.blood + 0.22 * ears * appearance.flush
    for centre, radius, more_blood, more_melanin in _PATCHES:
        offset = (folded - np.array(centre, np.float32)) / np.float32(radius)
        weight = np.exp(-np.einsum("nk,nk->n", offset, offset))
        blood += appearance.flush * more_blood * weight
        melanin += (more_melanin * (0.35 + appearance.melanin)) * weight
    broad = field(place, "broad", appearance.offset)
    medium = field(place, "medium", appearance.offset + 3)
    fine = field(place, "fine", appearance.offset + 5)
    melanin *= 1 + appearance.mottle * (0.045 * broad + 0.02 * medium)
    melanin += 0.012 * appearance.mottle * fine
    blood *= 1 + appearance.mottle * (0.07 * medium + 0.05 * fine)
    if appearance.freckles:
        middle = np.exp(-(((template[:, 1] - 7.05) / 0.3) ** 2)) * (template[:, 2] > 0.9)
        melanin += 0.5 * appearance.freckles * middle * _rise(fine, 0.9, 2.0)
    blood += appearance.lips * lips * (1 + 0.1 * fine)
    melanin += (0.06 + 0.1 * appearance.melanin) * lips
    dyes = np.maximum(melanin, 0)[:, None] * MELANIN + np.maximum(blood, 0)[:, None] * BLOOD
    offset = (folded - _NOSTRIL[0]) / _NOSTRIL[1]
    nostril = np.exp(-np.einsum("nk,nk->n", offset, offset))
    return _GROUND * np.exp(-dyes - np.float32(0.9) * nostril[:, None])


def _hair_cover(
    template: np.ndarray,
    place: np.ndarray,
    lips: np.ndarray,
    ears: np.ndarray,
    appearance: Appearance,
    spacing: float | None,
) -> np.ndarray:
    hair = appearance.hair
    beyond = 0.0
    if spacing is not None:
        beyond = _UNEVEN * (1 - hair.curl) * single_hairs(place, hair.offset + 1, spacing)
    scalp = hair_weight(template, ears, hair, 0.12, beyond=beyond) * hair.density
    if not hair.beard:
        return scalp
    streaks = 1 + 0.04 * field(place, "fine", hair.offset + 2)
    beard = beard_weight(template, lips, hair, beyond) * np.clip(hair.beard * streaks, 0, 1)
    return np.maximum(scalp, beard)


def _brows(
    template: np.ndarray, place: np.ndarray, appearance: Appearance, spacing: float | None
) -> np.ndarray:
    if spacing is None:
        hairs = 1 + 0.2 * field(place[:, ::-1], "strands", appearance.offset)
        grown = brow_weight(template, appearance)
    else:
        single = brow_hairs(place, appearance.offset, spacing)
        thin = 0.55 + 0.45 * _rise(np.abs(template[:, 0]), 0.1, 0.28)  # toward the nose
        hairs = thin * (1 + 0.25 * single)
        grown = brow_weight(template, appearance, _UNEVEN_BROW * single)
    return np.clip(grown * appearance.brow_density * hairs, 0, 1)


def brow_weight(
    template: Float[np.ndarray, "num 3"],
    appearance: Appearance,
    beyond: Float[np.ndarray, "num"] | float = 0.0,
) -> Float[np.ndarray, "num"]:
    """How far each place is inside the brows, 0 to 1, whatever their density.

    beyond: decimetres that each place's hair grows beyond the brow's edge.
    """
    x, y = np.abs(template[:, 0]), template[:, 1]
    # A parabola to the arch at x = 0.4, falling faster beyond it.
    from_arch = x - 0.4
    middle = 7.53 - np.where(from_arch < 0, 0.35, 1.9) * from_arch**2
    half = np.interp(x, (0.1, 0.17, 0.38, 0.6), (0.034, 0.043, 0.034, 0.01))
    half = half * appearance.brow_thickness
    ends = _rise(x, 0.08, 0.19) * (1 - _rise(x, 0.52, 0.6)) * (template[:, 2] > 0.8)
    inside = 1 - _rise((np.abs(y - middle - appearance.brow_rise) - beyond) / half, 0.2, 1.5)
    return inside * ends


def _lashes(template: np.ndarray, appearance: Appearance) -> np.ndarray:
    """The rim of the lids: lashes and the lid's own shade."""
    upper = 0.35 + 0.65 * _rise(template[:, 1] - EYE_CENTRE[1], -0.02, 0.03)
    return eye_rim(template, 1.06, 1.2) * upper * appearance.lash_density


def eye_rim(
    template: Float[np.ndarray, "num 3"], near: float, far: float
) -> Float[np.ndarray, "num"]:
    """1 where the lids hug the eyeball, 0 beyond; near, far: in radii of the ball, of the edge."""
    distance = np.linalg.norm(_folded(template) - EYE_CENTRE, axis=1)
    return 1 - _rise(distance / EYE_RADIUS, near, far)


def clothed(template: np.ndarray, appearance: Appearance) -> np.ndarray:
    """How far places are covered by cloth, 0 to 1."""
    # The collar is higher at the nape than at the throat, and the shoulders are covered.
    collar = appearance.collar - 0.25 * np.clip(template[:, 2] - 0.3, -1, 1)
    collar += 0.9 * np.maximum(np.abs(template[:, 0]) - 0.5, 0)
    return 1 - _rise(template[:, 1] - collar, -0.015, 0.015)


def _iris(rng: np.random.Generator, person: Person) -> tuple[float, float, float]:
    fair = float(person.ancestry[2] * np.clip((person.lightness - 50) / 20, 0, 1))
    brown, pale = np.array([0.075, 0.038, 0.018]), np.array([0.15, 0.21, 0.29])
    green = np.array([0.12, 0.13, 0.06])
    base = (brown, pale, green)[int(rng.choice(3, p=[1 - 0.75 * fair, 0.5 * fair, 0.25 * fair]))]
    return _tuple(base * rng.uniform(0.7, 1.5))


def _cloth(rng: np.random.Generator) -> tuple[float, float, float]:
    gray = rng.uniform(0.02, 0.35)
    colour = gray * np.exp(rng.normal(0, 0.5, 3) * rng.choice([0.2, 1.0]))
    return _tuple(np.clip(colour, 0.01, 0.5))


def _tuple(colour: np.ndarray) -> tuple[float, float, float]:
    return float(colour[0]), float(colour[1]), float(colour[2])


def _folded(template: np.ndarray) -> np.ndarray:
    """Places with the subject's right side laid on the left."""
    folded = template.copy()
    folded[:, 0] = np.abs(folded[:, 0])
    return folded


def _over(below: np.ndarray, above: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return below + (above.astype(np.float32) - below) * cover.astype(np.float32)[:, None]


def _rise(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return part * part * (3 - 2 * part)
