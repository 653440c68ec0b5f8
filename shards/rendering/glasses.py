"""Glasses: rims around both eyes, a bridge and temples to the ears, fitted to a head.

They are closed tubes that sit on the nose before the eyes, clear of the face. Lenses are left out:
clear glass is hardly seen but for what it mirrors.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from shards.rendering.heights import Heights
from shards.rendering.noise import field
from shards.rendering.parts import GLASSES
from shards.rendering.pieces import Piece
from shards.rendering.skin import EYE_CENTRE, EYE_RADIUS
from shards.rendering.tubes import CORNERS, Mesh, merged, superellipse, tube

_EAR = np.array([0.74, 7.35, 0.6])  # where a temple lies on the root of an ear, undeformed head
_CLEAR = 0.008  # between frame and skin, decimetres
_HAIR_ABOVE = 0.06  # of hair that stands off more, temples run beneath
_RIM_POINTS = 72
_METALS = {
    "silver": ((0.33, 0.33, 0.33), 0.35),
    "gold": ((0.42, 0.27, 0.1), 0.25),
    "gunmetal": ((0.08, 0.08, 0.085), 0.15),
    "black": ((0.015, 0.015, 0.015), 0.05),
}
"""Linear colour, and reflectance of the gloss."""
_PLASTICS = {
    "black": (0.012, 0.012, 0.012),
    "brown": (0.07, 0.03, 0.014),
    "navy": (0.014, 0.022, 0.06),
    "wine": (0.11, 0.014, 0.02),
    "green": (0.02, 0.045, 0.025),
    "gray": (0.16, 0.16, 0.165),
    "crystal": (0.5, 0.47, 0.43),
}
# Of lenses: half width, half height, squareness, flare (how far wider at the top).
_OUTLINES = {
    "round": ((0.205, 0.235), (0.2, 0.225), (2.0, 2.15), (0.0, 0.0)),
    "oval": ((0.225, 0.255), (0.155, 0.185), (2.1, 2.5), (0.0, 0.03)),
    "rectangular": ((0.24, 0.27), (0.14, 0.175), (3.5, 6.0), (0.0, 0.06)),
    "broad": ((0.235, 0.265), (0.175, 0.215), (2.7, 3.6), (0.06, 0.14)),
    "drop": ((0.245, 0.275), (0.21, 0.24), (2.3, 2.7), (0.1, 0.18)),
}


@dataclass(frozen=True)
class Glasses:
    """A pair of glasses. Lengths are decimetres on a head whose eyes are 0.615 apart.

    lens: half width and half height. square: exponent of its outline, 2 for round. flare: how far
    wider it is at the top. rim: half width across and along the view. brow: how far thicker it is
    at the top. nose: half the gap between the rims. tilt: how far the top leans forward. wrap: how
    the sides draw back. drop: of the lens under the eye. temple: its half height. bar: whether a
    second bridge runs above. colour: linear RGB. tortoise: share of dark spots, 0 to 1.
    roughness, reflectance: of its gloss. offset: of the spots.
    """

    lens: tuple[float, float]
    square: float
    flare: float
    rim: tuple[float, float]
    brow: float
    nose: float
    tilt: float
    wrap: float
    drop: float
    temple: float
    bar: bool
    colour: tuple[float, float, float]
    tortoise: float
    roughness: float
    reflectance: float
    offset: float

    def albedo(self, places: Float[np.ndarray, "num 3"]) -> Float[np.ndarray, "num 3"]:
        """Linear albedo at places of the frame."""
        across = np.stack((places[:, 0] + places[:, 2], places[:, 1]), axis=1)
        spots = np.clip(0.5 + field(across.astype(np.float32), "medium", self.offset), 0, 1)
        share = 1 - 0.85 * self.tortoise * spots
        return (share[:, None] * np.array(self.colour)).astype(np.float32)


def random_glasses(rng: np.random.Generator) -> Glasses:
    """Thin metal or thick plastic, in one of several outlines."""
    metal = bool(rng.random() < 0.45)
    names = ("round", "oval", "rectangular", "drop" if metal else "broad")
    name = str(rng.choice(names))
    half_width, half_height, square, flare = (float(rng.uniform(*e)) for e in _OUTLINES[name])
    thin, thick = float(rng.uniform(0.01, 0.014)), float(rng.uniform(0.014, 0.028))
    colour, reflectance = _METALS[str(rng.choice(list(_METALS)))]
    plastic = _PLASTICS[str(rng.choice(list(_PLASTICS), p=(0.36, 0.2, 0.1, 0.08, 0.06, 0.1, 0.1)))]
    tortoise = bool(rng.random() < 0.25)
    if not metal:
        colour, reflectance = ((0.2, 0.085, 0.03) if tortoise else plastic), 0.045
    tint = float(rng.uniform(0.8, 1.2))
    # A thin wire shows all its normals within a pixel: sharper gloss would break up into beads.
    roughness = float(rng.uniform(0.42, 0.6) if metal else rng.uniform(0.22, 0.5))
    return Glasses(
        lens=(half_width, half_height),
        square=square,
        flare=flare,
        rim=(thin, thin) if metal else (thick, float(rng.uniform(0.016, 0.024))),
        brow=0.0 if metal else float(rng.uniform(0, 0.6)),
        nose=float(rng.uniform(0.085, 0.105)),
        tilt=float(rng.uniform(0.06, 0.16)),
        wrap=float(rng.uniform(0.06, 0.16)),
        drop=float(rng.uniform(0.0, 0.05)),
        temple=float(rng.uniform(0.012, 0.02) if metal else rng.uniform(0.022, 0.05)),
        bar=metal and name == "drop",
        colour=(colour[0] * tint, colour[1] * tint, colour[2] * tint),
        tortoise=float(tortoise and not metal),
        roughness=roughness,
        reflectance=reflectance,
        offset=float(rng.uniform(0, 100)),
    )


def glasses_piece(
    glasses: Glasses,
    skin: Float[np.ndarray, "vertices 3"],
    hair: Float[np.ndarray, "vertices 3"],
    triangles: Integer[np.ndarray, "triangles 3"],
    template: Float[np.ndarray, "vertices 3"],
    ears: Float[np.ndarray, "vertices"],
) -> Piece:
    """The glasses on a head, in the frame of its vertices.

    skin: its mesh without hair. hair: how far that lifts each vertex. template: undeformed places
    of the vertices. ears: their weights.
    """
    lift = np.linalg.norm(hair, axis=1, keepdims=True)
    sides = skin + hair * np.minimum(1, _HAIR_ABOVE / np.maximum(lift, 1e-6))
    frame = _Frame(glasses, skin, triangles, template)
    front = merged([frame.rim(-1), frame.rim(1), *frame.bridges()])
    bare = triangles[(ears[triangles] < 0.3).all(axis=1)]
    temples = [frame.temple(side, _side_heights(sides, bare, side)) for side in (-1, 1)]
    vertices, corners = merged([front, *temples])
    vertices = vertices.astype(np.float32)
    return Piece(
        vertices,
        corners,
        vertices,
        glasses.albedo,
        glasses.roughness,
        glasses.reflectance,
        GLASSES,
    )


class _Frame:
    """Glasses as they sit on a face; sides are -1 (the subject's right) and 1."""

    def __init__(
        self,
        glasses: Glasses,
        skin: Float[np.ndarray, "vertices 3"],
        triangles: Integer[np.ndarray, "triangles 3"],
        template: Float[np.ndarray, "vertices 3"],
    ) -> None:
        self.glasses, self._skin, self._template = glasses, skin, template
        eyes = [_eye_centre(skin, template, side) for side in (-1, 1)]
        self.scale = float(np.linalg.norm(eyes[1] - eyes[0]) / (2 * EYE_CENTRE[0]))
        self.middle = (eyes[0] + eyes[1]) / 2 - (0, glasses.drop * self.scale, 0)
        self._face = Heights(skin, triangles, self.middle[:2], (1.0, 0.6))
        vertices, _ = merged([self.rim(-1), self.rim(1)])
        self.middle[2] += (self._face.at(vertices[:, :2]) - vertices[:, 2]).max() + _CLEAR

    def _placed(self, places: Float[np.ndarray, "num 2"]) -> Float[np.ndarray, "num 3"]:
        """Places of the front, across and up from its middle, in the head."""
        across, up = places.T * self.scale
        back = self.glasses.wrap * across**2 / self.scale - self.glasses.tilt * up
        return self.middle + np.stack((across, up, -back), axis=1)

    def _outline(self, side: int) -> Float[np.ndarray, "points 2"]:
        """The middle of a rim, across and up from the middle of the front, counter-clockwise."""
        glasses = self.glasses
        fine = superellipse(np.linspace(0, 2 * np.pi, 1441), glasses.square)
        fine[:, 0] *= 1 + glasses.flare * (fine[:, 1] - 1) / 2
        half = np.array(glasses.lens) + glasses.rim[0]
        centre = glasses.nose + glasses.rim[0] + half[0]
        fine = _evenly(fine * half, _RIM_POINTS)
        return np.stack((side * (centre + fine[:, 0]), fine[:, 1]), axis=1)[::side]

    def rim(self, side: int) -> Mesh:
        outline, (across, deep) = self._outline(side), self.glasses.rim
        height = outline[:, 1] / (self.glasses.lens[1] + across)
        thick = across * (1 + self.glasses.brow * np.clip(height, 0, 1))
        half = np.stack((thick, np.full_like(thick, deep)), axis=1) * self.scale
        square = 2.0 if across == deep else 3.0
        return tube(self._placed(outline), half, (0.0, 0.0, 1.0), ring=True, square=square)

    def bridges(self) -> list[Mesh]:
        """One over the nose, and for some a bar above."""
        heights = (0.3, 0.85) if self.glasses.bar else (0.4,)
        return [self._bridge(height) for height in heights]

    def _bridge(self, height: float) -> Mesh:
        outline, (across, deep) = self._outline(1), self.glasses.rim
        inner = outline[outline[:, 0] < self.glasses.nose + self.glasses.lens[0]]
        end = inner[np.abs(inner[:, 1] - height * self.glasses.lens[1]).argmin()]
        part = np.linspace(-1, 1, 25)
        arch = 1 - part**2
        path = self._placed(np.stack((end[0] * part, end[1] + 0.03 * arch), axis=1))
        half = np.tile((deep, 1.1 * across), (len(path), 1)) * self.scale
        vertices, _ = tube(path, half, (0.0, 1.0, 0.0), ring=False)
        over = np.repeat(arch, CORNERS)
        short = self._face.at(vertices[:-2, :2]) + _CLEAR - vertices[:-2, 2]
        path[:, 2] += np.maximum((short / np.maximum(over, 0.3)).max(), 0.01) * arch
        return tube(path, half, (0.0, 1.0, 0.0), ring=False)

    def temple(self, side: int, head: Heights) -> Mesh:
        """From the outer end of a rim to the ear and down behind it; `head`: see _side_heights."""
        glasses, outline = self.glasses, self._outline(side)
        high = outline[outline[:, 1] > 0.45 * glasses.lens[1]]
        start = self._placed(high[[np.abs(high[:, 0]).argmax()]])[0]
        nearest = np.linalg.norm(self._template - _EAR * (side, 1, 1), axis=1).argmin()
        ear = self._skin[nearest].astype(np.float64)
        thick = np.array([glasses.rim[1] * 0.7, glasses.temple]) * self.scale
        along = np.linspace(0, 1, 40)[:, None]
        hinge = start + np.array([side * 0.05, 0, -0.08]) * self.scale
        straight = hinge + (ear - hinge) * along
        clear = head.at(np.stack((-side * straight[:, 2], straight[:, 1]), axis=1))
        outward = np.maximum(side * straight[:, 0], clear + thick[0] + _CLEAR)
        straight[:, 0] = side * _smoothed(outward)
        corner = np.array([straight[0, 0], start[1], start[2] - 0.01])
        bend = np.linspace(0, 1, 9)[:-1, None]
        turn = (1 - bend) ** 2 * start + 2 * bend * (1 - bend) * corner + bend**2 * straight[0]
        hook = ear + np.array([[-side * 0.01, -0.01, -0.08], [-side * 0.04, -0.05, -0.16]])
        hook[:, 0] += straight[-1, 0] - ear[0]
        path = np.concatenate((turn, straight, hook))
        return tube(path, np.tile(thick, (len(path), 1)), (0.0, 1.0, 0.0), ring=False, square=3.0)


def _side_heights(
    skin: Float[np.ndarray, "vertices 3"], triangles: Integer[np.ndarray, "triangles 3"], side: int
) -> Heights:
    """How far the head reaches to a side, over (-side * z, y)."""
    turned = np.stack((-side * skin[:, 2], skin[:, 1], side * skin[:, 0]), axis=1)
    return Heights(turned, triangles, turned[:, :2].mean(axis=0), (1.5, 1.5))


def _eye_centre(
    skin: Float[np.ndarray, "vertices 3"], template: Float[np.ndarray, "vertices 3"], side: int
) -> Float[np.ndarray, "3"]:
    away = np.linalg.norm(template - EYE_CENTRE * (side, 1, 1), axis=1)
    return skin[away < 1.05 * EYE_RADIUS].mean(axis=0, dtype=np.float64)


def _evenly(curve: Float[np.ndarray, "fine 2"], count: int) -> Float[np.ndarray, "count 2"]:
    """Points of a closed curve, the same way apart; its first and last are the same."""
    way = np.concatenate(([0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))))
    wanted = np.arange(count) * way[-1] / count
    return np.stack([np.interp(wanted, way, axis) for axis in curve.T], axis=1)


def _smoothed(values: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """Never below the values: the mean of the largest around each."""
    wide = np.pad(values, 4, mode="edge")
    largest = np.max([wide[k : k + len(values) + 4] for k in range(5)], axis=0)
    return np.mean([largest[k : k + len(values)] for k in range(5)], axis=0)
