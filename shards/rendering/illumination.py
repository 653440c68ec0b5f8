"""Random lights for traced scenes: surroundings with their suns, lamps near and far, flashes."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from relightx.sh import directional_light, rotate
from shards.rendering.lamps import Lamp
from shards.rendering.lights import is_back_lit, lamp_direction, random_turn, tint
from shards.rendering.surroundings import Surroundings, even_light

_ENVIRONMENTS, _FLASHES = 0.45, 0.1  # shares of all lights
_ON_STAGE = 0.4  # share of lamps that are not set by a photographer, who sets them high


@dataclass(frozen=True)
class Part:
    """A map that is turned, with a gain for each colour."""

    surroundings: Surroundings
    turn: Float[np.ndarray, "3 3"]
    gain: Float[np.ndarray, "3"]

    def without_colour(self) -> "Part":
        here = self.surroundings
        mixed = self.gain / self.gain.mean()
        white = replace(
            here,
            radiance=_white(here.radiance * mixed),
            sh=_white((here.sh * mixed[:, None]).T).T,
            suns=tuple(replace(s, colour=_white(s.colour * mixed)) for s in here.suns),
        )
        return Part(white, self.turn, np.full(3, self.gain.mean()))


@dataclass(frozen=True)
class Illumination:
    """All the light on a scene. even: shading by light from everywhere."""

    name: str
    even: Float[np.ndarray, "3"]
    parts: tuple[Part, ...]
    lamps: tuple[Lamp, ...]

    @property
    def sh(self) -> Float[np.ndarray, "3 9"]:
        """Radiance coefficients (relightx.sh) of the light that comes to the scene's origin."""
        sh = torch.from_numpy(even_light(self.even).astype(np.float32))
        for part in self.parts:
            turn = torch.from_numpy(part.turn).float()
            original = torch.from_numpy(part.surroundings.sh * part.gain[:, None])
            sh = sh + rotate(original.float(), turn)
        for lamp in self.lamps:
            coefficients = directional_light(torch.tensor(lamp.direction, dtype=torch.float32))
            sh = sh + torch.tensor(lamp.colour)[:, None] * coefficients
        return sh.numpy().astype(np.float32)

    def without_colour(self) -> "Illumination":
        """Such light, all of it white."""
        return Illumination(
            self.name,
            np.full(3, self.even.mean()),
            tuple(part.without_colour() for part in self.parts),
            tuple(replace(lamp, colour=_even(lamp.colour)) for lamp in self.lamps),
        )

    def radiance(self, direction: Float[np.ndarray, "cells 3"]) -> Float[np.ndarray, "3 cells"]:
        """Of each cell around these directions; without the lamps and suns."""
        total = np.tile(self.even[:, None], len(direction))
        for part in self.parts:
            here = part.surroundings
            turned = (part.turn.T @ direction.T).astype(np.float32)
            nearest = np.argmax(here.direction @ turned, axis=1)
            for k in range(3):
                light = np.bincount(nearest, here.radiance[:, k] * here.weight, len(direction))
                total[k] += part.gain[k] * len(direction) * light
        return total.astype(np.float32)

    def all_lamps(self) -> tuple[Lamp, ...]:
        """The lamps, and the suns of the surroundings."""
        suns = [
            Lamp(_tuple(part.turn @ sun.direction), _tuple(sun.colour * part.gain), sun.radius)
            for part in self.parts
            for sun in part.surroundings.suns
        ]
        return (*self.lamps, *suns)


def random_illumination(
    rng: np.random.Generator, maps: dict[str, Surroundings], camera: float
) -> Illumination:
    """A light that does not come from behind alone. camera: its distance in decimetres."""
    kind = rng.random()
    if maps and kind < _ENVIRONMENTS:
        return _random_environment(rng, maps)
    if kind > 1 - _FLASHES:
        return _random_flash(rng, camera)
    return _random_lamps(rng)


def _random_environment(rng: np.random.Generator, maps: dict[str, Surroundings]) -> Illumination:
    mixed = len(maps) > 1 and rng.random() < 0.3
    names = [str(name) for name in rng.choice(list(maps), 2 if mixed else 1, replace=False)]
    shares = rng.dirichlet([2.0] * len(names))
    # Walls and air around the sitter.
    fill = float(rng.uniform(0.02, 0.25))
    parts = []
    for name, share in zip(names, shares, strict=True):
        gain = _white_balance(rng, maps[name].sh) * share * (1 - fill)
        original = torch.from_numpy(maps[name].sh)
        for _ in range(20):
            turn = random_turn(rng)
            if not is_back_lit(rotate(original, turn)):
                break
        parts.append(Part(maps[name], turn.numpy(), gain))
    return Illumination(f"environment {'+'.join(names)}", np.full(3, fill), tuple(parts), ())


def _random_lamps(rng: np.random.Generator) -> Illumination:
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    even = float(np.exp(rng.uniform(math.log(0.015), math.log(0.35)))) * tint(rng).numpy()
    lamps = []
    for strength in rng.uniform(0.3, 1.0, count):
        colour = tint(rng).numpy() * (np.exp(rng.normal(0, 0.4, 3)) if rng.random() < 0.1 else 1)
        toward = _stage_direction(rng) if rng.random() < _ON_STAGE else lamp_direction(rng).numpy()
        lamps.append(
            Lamp(
                _tuple(toward),
                _tuple(strength * colour),
                radius=float(np.exp(rng.uniform(math.log(0.01), math.log(0.3)))),
                distance=float(rng.uniform(7, 30)) if rng.random() < 0.4 else math.inf,
            )
        )
    return Illumination(f"lamps {count}", even, (), tuple(lamps))


def _stage_direction(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Where a light stage has its lamps: around the front, also from below."""
    azimuth, height = math.radians(rng.uniform(-100, 100)), rng.uniform(-0.7, 0.95)
    level = math.sqrt(1 - height * height)
    return np.array([level * math.sin(azimuth), height, level * math.cos(azimuth)])


def _random_flash(rng: np.random.Generator, camera: float) -> Illumination:
    """A small lamp on the camera, in a room that is darker."""
    toward = np.array([*rng.normal((0, 0.6), (0.4, 0.4)) / camera, 1.0])
    lamp = Lamp(
        _tuple(toward / np.linalg.norm(toward)),
        _tuple(tint(rng).numpy()),
        radius=float(rng.uniform(0.1, 0.4)) / camera,
        distance=camera,
    )
    even = float(rng.uniform(0.02, 0.4)) * tint(rng).numpy()
    return Illumination("flash", even, (), (lamp,))


def _white_balance(rng: np.random.Generator, sh: np.ndarray) -> np.ndarray:
    """Gains as a camera chooses them, not to the end: in a wood the sun would be magenta."""
    ambient = sh[:, 0] / sh[:, 0].mean()
    gain = ambient ** -rng.uniform(0.4, 0.9)
    between = np.sqrt(gain[0] * gain[2])  # what is neither warm nor cool
    gain[1] = between * np.clip(gain[1] / between, 0.88, 1.14)
    return gain / (gain * ambient).mean()


def _white(colours: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    return np.repeat(colours.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.float32)


def _even(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    return (sum(colour) / 3,) * 3


def _tuple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
