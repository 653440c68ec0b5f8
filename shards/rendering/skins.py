"""Skin colours from a folder of MakeHuman skin textures, for `--skins`.

A texture's colours are used relative to its face's, and with melanin added or taken until the face
has the lightness asked for. Light and dark that change slowly over the face are taken for shading
that was left in, and flattened.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from relightx.color import LUMINANCE, from_integer
from shards.rendering import makehuman
from shards.rendering.chart import looked_up
from shards.rendering.heads import ANCESTRIES, Person
from shards.rendering.skin import MELANIN, melanin_for, skin_colour

_SIDES = (64, 4096)
_WEIGHT = np.array(LUMINANCE, np.float32)
_USUAL_BLOOD = 0.2
_SMOOTHED = 0.022  # of a picture's side: what changes more slowly is taken for shading
_FLATTENED = 0.85  # of it
_FACE_LOW, _FACE_HIGH = (0.0, 6.25, 1.0), (0.62, 7.95, 2.0)  # |x|, y, z of the undeformed head
_AGES = {"young": 25.0, "middleage": 48.0, "middleaged": 48.0, "old": 72.0}
_AGE_SPREAD = 16.0
_WRONG_SEX = 0.01
_TONES = {
    "darkskinned": ("african",),
    "african": ("african",),
    "asian": ("asian",),
    "caucasian": ("caucasian",),
}
# MakeHuman's own grouping: of the light skins these are Asian, by age.
_ASIAN = {"young": "diffuse3", "middleage": "diffuse2", "old": "diffuse2"}
_CLOTHED = "suit"  # in the names of bodies with a suit and hair painted on


@dataclass(frozen=True)
class Skin:
    """A texture, linear RGB divided by the face's colour, and that colour.

    corner: first column and row of `relative` in the texture, whose side is `side`.
    """

    relative: Float[np.ndarray, "rows columns 3"]
    tone: Float[np.ndarray, "3"]
    corner: tuple[int, int]
    side: int

    def at(self, uv: Float[np.ndarray, "num 2"]) -> Float[np.ndarray, "num 3"]:
        """Colours relative to the face's at texture coordinates, (0, 0) being the lower left."""
        place = np.stack((uv[:, 0], 1 - uv[:, 1]), axis=1) * self.side - 0.5 - self.corner
        return looked_up(self.relative, place, cv2.BORDER_REPLICATE)

    def toned(self, lightness: float) -> Float[np.ndarray, "3"]:
        """The face's colour at a CIE L*, by more or less melanin.

        Half way to that of the model of two dyes: photographs are warmer than skin, and a large
        step of lightness makes the more of it.
        """
        luminance = ((lightness + 16) / 116) ** 3
        density = np.linspace(-4, 4, 800)
        known = (self.tone * np.exp(-density[:, None] * MELANIN) * _WEIGHT).sum(axis=1)
        own = self.tone * np.exp(-np.interp(-luminance, -known, density) * MELANIN)
        model = skin_colour(melanin_for(lightness, _USUAL_BLOOD), _USUAL_BLOOD)
        mixed = np.sqrt(own * model)
        return (mixed * (luminance / (mixed * _WEIGHT).sum())).astype(np.float32)


@functools.cache
def skin_files(folder: Path) -> tuple[Path, ...]:
    """The textures of a folder, in the order of their names; those with a suit are left out.

    Raises ValueError for a folder without any, and for one that is unreadable, not square, or
    smaller or larger than `_SIDES`.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; one with skin textures (.png) is needed")
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    found = [file for file in found if _CLOTHED not in _words(file)]
    if not found:
        raise ValueError(
            f"{folder}: holds no skin texture (.png); add some or leave the option out"
        )
    for file in found:
        _read(file)
    return tuple(found)


def likely_skin(rng: np.random.Generator, person: Person, files: tuple[Path, ...]) -> Path:
    """One for the person's sex, age and ancestry as its name tells them; else any."""
    odds = np.array([_likely(_words(file), person) for file in files])
    return files[int(rng.choice(len(files), p=odds / odds.sum()))]


@functools.lru_cache(maxsize=8)
def read_skin(file: Path) -> Skin:
    """A texture made ready. Raises ValueError as `skin_files` does."""
    picture = _read(file)
    uv, weight = makehuman.head_mesh().uv[:, :2], makehuman.head_mesh().uv[:, 2]
    side = len(picture)
    place = np.stack((uv[:, 0], 1 - uv[:, 1]), axis=1)[weight > 0] * side
    low = np.clip(np.floor(place.min(axis=0)).astype(int) - 2, 0, side)
    high = np.clip(np.ceil(place.max(axis=0)).astype(int) + 3, 0, side)
    part = from_integer(picture[low[1] : high[1], low[0] : high[0]], "srgb")
    raw = Skin(part, np.ones(3, np.float32), (int(low[0]), int(low[1])), side)
    usual = np.median(raw.at(_face_uv()), axis=0)
    even = Skin(_flattened(part, usual, side), raw.tone, raw.corner, side)
    tone = np.maximum(np.median(even.at(_face_uv()), axis=0), 1e-3)
    return Skin((even.relative / tone).astype(np.float32), tone, raw.corner, side)


def _flattened(
    colour: Float[np.ndarray, "rows columns 3"], usual: Float[np.ndarray, "3"], side: int
) -> Float[np.ndarray, "rows columns 3"]:
    """Without the slow changes of luminance over the face."""
    middle = np.float32(max(float((usual * _WEIGHT).sum()), 1e-3))
    luminance = (colour * _WEIGHT).sum(axis=2)
    # Brows, lips and what hair is painted are no shading: they count as little as may be.
    held = np.clip(luminance, 0.65 * middle, 1.5 * middle)
    slow = cv2.GaussianBlur(held, (0, 0), _SMOOTHED * side)
    return colour * ((middle / slow) ** np.float32(_FLATTENED))[..., None]


def _read(file: Path) -> UInt8[np.ndarray, "side side 3"]:
    """sRGB."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            if width != height:
                raise ValueError(f"{file}: is {width} x {height} pixels; a skin texture is square")
            if not _SIDES[0] <= width <= _SIDES[1]:
                needed = "{} to {}".format(*_SIDES)
                raise ValueError(f"{file}: is {width} pixels wide; {needed} needed")
            return np.asarray(picture.convert("RGB"))
    # Pillow meets a broken chunk with SyntaxError.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be read as a skin texture (.png): {error}") from None


def _words(file: Path) -> list[str]:
    return file.stem.lower().split("_")


def _likely(words: list[str], person: Person) -> float:
    """Odds of a texture for a person; what its name does not tell counts as even."""
    sex = 0.5 if person.male == 0.5 else person.male
    odds = 1.0
    if "female" in words or "male" in words:
        share = 1 - sex if "female" in words else sex
        odds *= max(float(share > 0.5), _WRONG_SEX)
    for word in words:
        if word in _AGES:
            odds *= float(np.exp(-(((person.age - _AGES[word]) / _AGE_SPREAD) ** 2))) + 0.01
    shares = dict(zip(ANCESTRIES, person.ancestry, strict=True))
    groups = _groups(words)
    return odds * (0.02 + (sum(shares[group] for group in groups) if groups else 1 / 3))


def _groups(words: list[str]) -> tuple[str, ...]:
    if "lightskinned" in words:
        asian = any(_ASIAN.get(word) in words for word in words)
        return ("asian",) if asian else ("caucasian",)
    return next((_TONES[word] for word in words if word in _TONES), ())


@functools.cache
def _face_uv() -> Float[np.ndarray, "num 2"]:
    """Texture coordinates of the skin of the face, without lips."""
    mesh = makehuman.head_mesh()
    folded = np.abs(mesh.vertices) * (1, 0, 0) + mesh.vertices * (0, 1, 1)
    inside = (
        ((folded > _FACE_LOW) & (folded < _FACE_HIGH)).all(axis=1)
        & (mesh.lips + mesh.ears + mesh.cavity < 0.1)
        & (mesh.uv[:, 2] > 0.99)
    )
    return mesh.uv[inside, :2]
