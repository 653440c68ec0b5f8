"""Random but believable heads: who somebody is (age, sex, ancestry, features) and their mesh.

A person is drawn from one random generator; nothing here knows of poses, light or pictures.
"""

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from shards.rendering import makehuman
from shards.rendering.makehuman import Targets

ANCESTRIES = ("african", "asian", "caucasian")
LIGHTNESS = (27.0, 79.0)  # CIE L* of the cheek, from very dark to very light skin

# Standard deviation and largest weight of the features of one folder. MakeHuman's weight of 1
# is the end of its sliders, mostly a caricature.
_FEATURE_SPREAD = {
    "nose": (0.21, 0.45),
    "mouth": (0.16, 0.35),
    "chin": (0.2, 0.4),
    "cheek": (0.25, 0.5),
    "head": (0.15, 0.3),
    "eyes": (0.18, 0.4),
    "ears": (0.2, 0.4),
    "forehead": (0.22, 0.45),
    "eyebrows": (0.3, 0.6),
    "neck": (0.2, 0.4),
    "asym": (0.12, 0.3),
}
_OPPOSITES = (
    ("decr", "incr"),
    ("down", "up"),
    ("in", "out"),
    ("backward", "forward"),
    ("concave", "convex"),
    ("compress", "uncompress"),
    ("l", "r"),
)
# Moving the whole head or measuring the body says nothing of a face.
_SKIPPED = ("head-trans", "head-angle", "head-age", "neck-trans", "measure-", "asymm-")
_EXPRESSIONS = {
    "mouth-corner-puller": 0.4,
    "mouth-compression": 0.3,
    "mouth-depression": 0.25,
    "mouth-elevation": 0.3,
    "mouth-retraction": 0.25,
    "mouth-protusion": 0.2,
    "nose-compression": 0.3,
    "eyebrows-{side}-up": 0.5,
    "eyebrows-{side}-down": 0.25,
    "eyebrows-{side}-inner-up": 0.4,
    "eyebrows-{side}-extern-up": 0.4,
    "eye-{side}-slit": 0.35,
    "eye-{side}-opened-up": 0.35,
}
# Smallest and largest weight of what opens a mouth, jaw and lips, in a smile and in speech.
_SMILE = {
    "mouth-open": (0.0, 0.14),
    "mouth-upward-retraction": (0.35, 0.75),
    "mouth-part-later": (0.0, 0.15),
}
_SPEECH = {
    "mouth-open": (0.1, 0.45),
    "mouth-upward-retraction": (0.0, 0.3),
    "mouth-part-later": (0.0, 0.25),
}


@dataclass(frozen=True)
class Person:
    """Who is portrayed.

    male: 0 (female) to 1 (male).
    age: years.
    ancestry: shares of ANCESTRIES, summing to 1.
    lightness: CIE L* of the skin.
    features: weight of each MakeHuman target, by name.
    """

    male: float
    age: float
    ancestry: tuple[float, float, float]
    lightness: float
    features: dict[str, float]
    open_mouth: bool = False
    """Whether it shows teeth."""


def random_person(rng: np.random.Generator) -> Person:
    """A person; skin lightness is uniform over LIGHTNESS, and ancestry likely for it."""
    lightness = float(rng.uniform(*LIGHTNESS))
    dark = (LIGHTNESS[1] - lightness) / (LIGHTNESS[1] - LIGHTNESS[0])
    likely = np.array([0.1 + 2.2 * dark**1.5, 0.9, 0.15 + 1.6 * (1 - dark)])
    shares = rng.dirichlet(likely)
    side = rng.random() < 0.5
    male = float(np.clip(side + rng.normal(0, 0.12), 0, 1))
    age = float(rng.uniform(8, 18) if rng.random() < 0.08 else rng.triangular(18, 30, 78))
    features = _macro_weights(rng, male, age, shares)
    for weights in (_feature_weights(rng), _expression_weights(rng, shares)):
        features.update(weights)
    ancestry = (float(shares[0]), float(shares[1]), float(shares[2]))
    return Person(male, age, ancestry, lightness, features)


def with_open_mouth(rng: np.random.Generator, person: Person) -> Person:
    """The person with a smile that shows teeth, or speaking."""
    opening = _SMILE if rng.random() < 0.5 else _SPEECH
    features = dict(person.features)
    for unit, ends in opening.items():
        weight = float(rng.uniform(*ends))
        for race, share in zip(ANCESTRIES, person.ancestry, strict=True):
            features[f"expression/units/{race}/{unit}"] = weight * share
    return replace(person, features=features, open_mouth=True)


def head_vertices(person: Person) -> Float[np.ndarray, "vertices 3"]:
    """The person's mesh in MakeHuman's decimetres, vertices as in `makehuman.head_mesh`."""
    return makehuman.head_mesh().vertices + _moved(person, head_targets().offsets)


def mouth_vertices(person: Person) -> Float[np.ndarray, "vertices 3"]:
    """The person's teeth and tongue, vertices as in `makehuman.mouth_mesh`."""
    return makehuman.mouth_mesh().vertices + _moved(person, head_targets().mouth)


def _moved(
    person: Person, offsets: Float[np.ndarray, "targets vertices_by_3"]
) -> Float[np.ndarray, "vertices 3"]:
    weights = head_targets().weights(person.features)
    used = np.flatnonzero(weights)
    # Not @: BLAS rounds differently with another number of threads.
    return np.einsum("t,tv->v", weights[used], offsets[used]).reshape(-1, 3)


@functools.cache
def head_targets() -> Targets:
    """All deformations that a person may have, read once for each process (about 1.5 s)."""
    features = [name for pair in _features() for name in pair if name]
    expressions = [
        f"expression/units/{ancestry}/{unit.format(side=side)}"
        for ancestry in ANCESTRIES
        for unit in _EXPRESSIONS
        for side in (("left", "right") if "{side}" in unit else ("",))
    ]
    opening = [f"expression/units/{race}/{unit}" for race in ANCESTRIES for unit in _SMILE]
    return makehuman.targets((*_macro_names(), *features, *expressions, *opening))


def _macro_names() -> list[str]:
    sexes, ages = ("female", "male"), ("child", "young", "old")
    shapes = [f"{a}-{s}-{y}" for a, s, y in itertools.product(ANCESTRIES, sexes, ages)]
    builds = itertools.product(sexes, ages, _MUSCLES, _WEIGHTS)
    shapes += [f"universal-{s}-{y}-{m}-{w}" for s, y, m, w in builds]
    return [f"macrodetails/{name}" for name in shapes]


_MUSCLES = ("averagemuscle", "maxmuscle")
_WEIGHTS = ("minweight", "averageweight", "maxweight")


def _macro_weights(
    rng: np.random.Generator, male: float, age: float, ancestry: np.ndarray
) -> dict[str, float]:
    """Products of the shares of sex, age, ancestry, muscle and weight."""
    sexes = {"female": 1 - male, "male": male}
    old = float(np.clip((age - 25) / 65, 0, 1))
    child = float(np.clip((25 - age) / 15, 0, 1))
    ages = {"child": child, "young": 1 - child - old, "old": old}
    muscle = float(rng.uniform(0, 0.6))
    build = float(np.clip(rng.normal(0, 0.4), -0.9, 0.9))
    muscles = dict(zip(_MUSCLES, (1 - muscle, muscle), strict=True))
    weights = dict(zip(_WEIGHTS, (max(-build, 0), 1 - abs(build), max(build, 0)), strict=True))
    chosen = {}
    for (sex, s), (year, y) in itertools.product(sexes.items(), ages.items()):
        for race, share in zip(ANCESTRIES, ancestry, strict=True):
            chosen[f"macrodetails/{race}-{sex}-{year}"] = s * y * float(share)
        for (m_name, m), (w_name, w) in itertools.product(muscles.items(), weights.items()):
            chosen[f"macrodetails/universal-{sex}-{year}-{m_name}-{w_name}"] = s * y * m * w
    return chosen


def _feature_weights(rng: np.random.Generator) -> dict[str, float]:
    """One number for each pair of opposites; left and right differ a little."""
    chosen: dict[str, float] = {}
    drawn: dict[str, float] = {}
    for negative, positive in _features():
        folder, name = (positive or negative).split("/")
        spread, largest = _FEATURE_SPREAD[folder]
        fresh = float(rng.normal(0, spread))
        if folder != "asym" and name[:2] in ("l-", "r-"):
            fresh = drawn.setdefault(name[2:], fresh) + 0.12 * fresh
        weight = float(np.clip(fresh, -largest, largest))
        if weight < 0 and negative:
            chosen[negative] = -weight
        elif weight > 0 and positive:
            chosen[positive] = weight
    return chosen


def _expression_weights(rng: np.random.Generator, ancestry: np.ndarray) -> dict[str, float]:
    """A mild expression; half of the people have hardly any."""
    strength = float(rng.choice([0.15, 1.0]))
    chosen = {}
    for unit, largest in _EXPRESSIONS.items():
        weight = strength * largest * float(rng.beta(0.5, 2.0))
        for side in ("left", "right") if "{side}" in unit else ("",):
            part = weight * float(rng.uniform(0.85, 1.15))
            for race, share in zip(ANCESTRIES, ancestry, strict=True):
                chosen[f"expression/units/{race}/{unit.format(side=side)}"] = part * float(share)
    return chosen


@functools.cache
def _features() -> tuple[tuple[str, str], ...]:
    """Pairs of opposite targets; a target without opposite stands alone as ("", name)."""
    names = {
        name
        for folder in _FEATURE_SPREAD
        for name in makehuman.target_names(folder)
        if not name.split("/")[1].startswith(_SKIPPED)
    }
    pairs = []
    for name in sorted(names):
        stem, _, ending = name.rpartition("-")
        partner = dict(_OPPOSITES) | {high: low for low, high in _OPPOSITES}
        other = f"{stem}-{partner.get(ending)}"
        if other not in names:
            pairs.append(("", name))
        elif ending in dict(_OPPOSITES):
            pairs.append((name, other))
    return tuple(pairs)
