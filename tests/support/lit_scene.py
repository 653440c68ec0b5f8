"""A face-like relief under distant lamps, with the cast shadows and highlights of real faces."""

from dataclasses import dataclass

import cv2
import numpy as np

HEIGHT, WIDTH = 96, 80


@dataclass(frozen=True)
class Scene:
    """A surface that is known: unit normals (x right, y up, z to the camera) and colour albedo."""

    normal: np.ndarray
    albedo: np.ndarray
    depth: np.ndarray
    mask: np.ndarray

    def lambert(self, direction: np.ndarray, strength: np.ndarray | float = 1.0) -> np.ndarray:
        """Linear light, lights x height x width x 3, of Lambert's law alone."""
        cosine = np.einsum("hwk,lk->lhw", self.normal, direction)
        power = np.broadcast_to(strength, len(direction))[:, None, None]
        shading = np.maximum(cosine, 0) * power
        return (shading[..., None] * self.albedo).astype(np.float32)

    def photograph(self, direction: np.ndarray, strength: np.ndarray | float = 1.0) -> np.ndarray:
        """The same with cast shadows and white highlights, saturated at 1, in 8 bits."""
        image = self.lambert(direction, strength)
        power = np.broadcast_to(strength, len(direction))
        for picture, toward, own in zip(image, direction, power, strict=True):
            picture *= np.where(self._shadow(toward), 0.05, 1)[..., None]
            half = toward + np.array((0, 0, 1))
            half /= np.linalg.norm(half)
            picture += 0.35 * own * (np.maximum(self.normal @ half, 0) ** 60)[..., None]
        return (np.rint(np.clip(image, 0, 1) * 255) / 255).astype(np.float32)

    def _shadow(self, toward: np.ndarray) -> np.ndarray:
        """Where something stands between the surface and a lamp."""
        column, row = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT))
        shadow = np.zeros(self.mask.shape, bool)
        for step in range(2, 40, 2):
            across, up = (column + step * toward[0]), (row - step * toward[1])
            there = cv2.remap(
                self.depth,
                across.astype(np.float32),
                up.astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=-1e3,
            )
            shadow |= there > self.depth + step * toward[2] + 0.5
        return shadow


def face() -> Scene:
    """An egg with nose, eye hollows and lips; skin of one colour but for brows and lips."""
    y, x = np.meshgrid(np.linspace(1.2, -1.2, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    depth = 0.9 * np.sqrt(np.clip(1.3 - x**2 - (y / 1.3) ** 2, 0.05, None))
    depth += 0.2 * np.exp(-((x / 0.14) ** 2) - ((y + 0.05) / 0.28) ** 2)
    for eye in (-0.35, 0.35):
        depth -= 0.07 * np.exp(-(((x - eye) / 0.16) ** 2) - ((y - 0.3) / 0.12) ** 2)
    depth += 0.05 * np.exp(-((x / 0.25) ** 2) - ((y + 0.55) / 0.09) ** 2)
    scale = 2 / (WIDTH - 1)
    normal = np.stack(
        (-np.gradient(depth, axis=1) / scale, np.gradient(depth, axis=0) / scale, np.ones_like(x)),
        axis=-1,
    )
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    skin = np.ones((HEIGHT, WIDTH, 1)) * (0.62, 0.45, 0.36)
    brow = np.exp(-(((np.abs(x) - 0.35) / 0.22) ** 4) - ((y - 0.55) / 0.06) ** 4)[..., None]
    lips = np.exp(-((x / 0.28) ** 4) - ((y + 0.55) / 0.09) ** 4)[..., None]
    albedo = skin * (1 - 0.7 * brow) * (1 - lips * (0.1, 0.45, 0.4))
    mask = x**2 + (y / 1.3) ** 2 < 0.95
    return Scene(
        normal.astype(np.float32),
        albedo.astype(np.float32),
        (depth / scale).astype(np.float32),
        mask,
    )


def lamps(count: int, seed: int = 0, tilt_deg: float = 60) -> np.ndarray:
    """Unit vectors toward lamps around the camera."""
    generator = np.random.default_rng(seed)
    tilt = np.radians(tilt_deg) * generator.random(count) ** 0.5
    turn = 2 * np.pi * (np.arange(count) + generator.random(count)) / count
    toward = np.stack((np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)), -1)
    return toward.astype(np.float32)


def four_lamps() -> np.ndarray:
    """Above and below on both sides, as a booth for faces has them."""
    toward = np.array([(-0.6, 0.5, 1), (0.6, 0.5, 1), (-0.6, -0.5, 1), (0.6, -0.5, 1)], np.float32)
    return toward / np.linalg.norm(toward, axis=1, keepdims=True)


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Between unit vectors on the last axis."""
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))
