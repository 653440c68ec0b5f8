"""A surface that is a formula, posed and lit at will: pictures of it are rendered, never resampled.

Its normals are slopes measured on the posed surface, not turned vectors, so a picture of a posed
scene owes nothing to the rules by which an augmentation changes normals and light.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from relightx.data.fit import Views
from relightx.sh import ambient_light, directional_light, shade

SIZE = 96
_STEP = 1e-3


def _bump(x: np.ndarray, y: np.ndarray, place: tuple[float, float], width: float) -> np.ndarray:
    return np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * width**2))


def _depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Toward the camera; lengths are pixels. A head with a nose and one swollen cheek."""
    head = 30 * np.exp(-(x**2) / (2 * 26**2) - y**2 / (2 * 32**2))
    nose, cheek = _bump(x, y, (0, -3), 6), _bump(x, y, (14, -12), 8)
    return head + 3 * nose + 4 * cheek - 22.11  # mean 0 in the mask, about which heads turn


def _albedo(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Skin with a mole on one side and lips."""
    skin = 0.5 + 0.1 * np.sin(x / 11 + 1)[..., None] * np.array((1.0, 0.8, 0.6))
    skin -= 0.25 * _bump(x, y, (-15, 10), 7)[..., None]
    return skin - _bump(x, y, (3, -20), 6)[..., None] * np.array((0.05, 0.2, 0.15))


def _lamps() -> np.ndarray:
    return np.array([(-0.7, 0.3, 1.0), (0.5, 0.6, 0.8), (0.2, -0.9, 1.0)])[:, None]


def _colours() -> np.ndarray:
    return np.array([(0.8, 0.7, 0.5), (0.4, 0.6, 0.9), (0.9, 0.5, 0.6)])[:, None]


@dataclass(frozen=True)
class PosedScene:
    """The surface moved by `pose` (an orthogonal matrix times a zoom), then by `shift` in pixels
    (right, up); the lamps turn with it.

    toward: to the lamps of each light, lights x lamps x 3. strength: of each lamp in each colour,
    lights x lamps x 3. ambient: light from everywhere, lights x 3. skin: a factor on the albedo.
    """

    pose: np.ndarray = field(default_factory=lambda: np.eye(3))
    shift: tuple[float, float] = (0.0, 0.0)
    toward: np.ndarray = field(default_factory=_lamps)
    strength: np.ndarray = field(default_factory=_colours)
    ambient: np.ndarray = field(default_factory=lambda: np.full((3, 3), 0.15))
    skin: np.ndarray | float = 1.0

    def posed(self, pose: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)) -> "PosedScene":
        """The scene moved once more."""
        across = pose[:2, :2] @ np.array(self.shift) + np.array(shift)
        return replace(self, pose=pose @ self.pose, shift=tuple(across))

    def views(self) -> Views:
        """Pictures and labels under light of second order."""
        shading = shade(_channels(self.normal()), self.sh()).movedim(1, -1).numpy()
        return self._views(shading)

    def lambert_views(self) -> Views:
        """The same surface under the lamps themselves: Lambert's law with its dark side."""
        cosine = np.maximum(np.einsum("hwk,lnk->lnhw", self.normal(), self._turned_lamps()), 0)
        lit = np.einsum("lnhw,lnc->lhwc", cosine, self.strength)
        return self._views(lit + self.ambient[:, None, None])

    def sh(self) -> torch.Tensor:
        """The light's coefficients, lights x 3 x 9, in double precision."""
        lamps = directional_light(torch.from_numpy(self._turned_lamps()))
        lit = torch.einsum("lnk,lnc->lck", lamps, torch.from_numpy(self.strength))
        return lit + torch.from_numpy(self.ambient)[..., None] * ambient_light(1.0).double()

    def normal(self) -> np.ndarray:
        """Unit normals from the slopes of the posed surface, measured by small steps."""
        x, y = _places()
        across = (self._height(x + _STEP, y) - self._height(x - _STEP, y)) / (2 * _STEP)
        up = (self._height(x, y + _STEP) - self._height(x, y - _STEP)) / (2 * _STEP)
        normal = np.stack((-across, -up, np.ones_like(across)), axis=-1)
        return normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def albedo(self) -> np.ndarray:
        """Colour of the surface that each pixel shows."""
        return _albedo(*self._shown(*_places())) * self.skin

    def mask(self) -> np.ndarray:
        """A disc of the unposed surface."""
        return np.hypot(*self._shown(*_places())) < 34

    def _views(self, shading: np.ndarray) -> Views:
        albedo = self.albedo()
        return Views(
            image=(albedo * shading).astype(np.float32),
            mask=self.mask(),
            albedo=albedo.astype(np.float32),
            normal=self.normal().astype(np.float32),
            confidence=None,
            sh=self.sh().numpy().astype(np.float32),
        )

    def _turned_lamps(self) -> np.ndarray:
        unit = self.toward / np.linalg.norm(self.toward, axis=-1, keepdims=True)
        zoom = abs(np.linalg.det(self.pose)) ** (1 / 3)
        return unit @ (self.pose / zoom).T

    def _shown(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Place on the unposed surface that is seen at a place of the picture.

        Found by going back and forth, since it depends on the depth that is met there.
        """
        seen = np.stack((x - self.shift[0], y - self.shift[1]))
        back = np.linalg.inv(self.pose[:2, :2])
        place = np.einsum("ij,j...->i...", back, seen)
        for _ in range(60):
            lean = self.pose[:2, 2][:, None, None] * _depth(*place)
            place = np.einsum("ij,j...->i...", back, seen - lean)
        return place

    def _height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth of the posed surface toward the camera."""
        place = self._shown(x, y)
        return np.einsum("j,j...->...", self.pose[2], np.stack((*place, _depth(*place))))


def turn(pitch_deg: float = 0.0, yaw_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """Rotation about x after y after z, by the right hand; +x right, +y up, +z to the camera."""

    def about(axis: int, degrees: float) -> np.ndarray:
        angle, (one, other) = np.deg2rad(degrees), [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[one, one] = matrix[other, other] = np.cos(angle)
        matrix[other, one] = np.sin(angle)
        matrix[one, other] = -np.sin(angle)
        return matrix

    return about(0, pitch_deg) @ about(1, yaw_deg) @ about(2, roll_deg)


MIRROR = np.diag((-1.0, 1.0, 1.0))


def _places() -> tuple[np.ndarray, np.ndarray]:
    """Right and up from the picture's centre, of each pixel."""
    along = np.arange(SIZE) - (SIZE - 1) / 2
    x, down = np.meshgrid(along, along)
    return x, -down


def _channels(normal: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(normal).movedim(-1, 0)
