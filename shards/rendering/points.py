"""The pixels of a scene as points that light is traced to, and what light does there.

Colours are kept as three rows, one for each: what is summed lies together in memory.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from shards.rendering.casting import Caster
from shards.rendering.scene import Scene

_LIFT = 0.006  # decimetres from the surface to where a ray begins
_LARGE = 192  # pixels along a side, from which on two of them differ little
_AROUND = np.ones((5, 5), np.uint8)


@dataclass(frozen=True)
class Shaded:
    """What a light does at each point, linear RGB.

    shading: irradiance / pi, with shadows. specular: radiance that is mirrored to the camera.
    """

    shading: Float[np.ndarray, "3 num"]
    specular: Float[np.ndarray, "3 num"]

    def __add__(self, other: "Shaded") -> "Shaded":
        return Shaded(self.shading + other.shading, self.specular + other.specular)


class Points:
    """A scene's pixels within the mask, in order.

    place, normal, view: as the scene's, one row each. albedo: colours by points. roughness, gloss,
    skin: as the scene's. upright: cosine between normal and view. scale: pixels in a decimetre.
    grid: one point in four.
    """

    def __init__(self, scene: Scene) -> None:
        mask = scene.mask
        self.mask, self._index = mask, np.flatnonzero(mask)
        self.scale = scene.camera.scale / scene.samples
        self.place, self.normal, self.view = (
            np.ascontiguousarray(picture[mask])
            for picture in (scene.place, scene.normal, scene.view)
        )
        self.albedo = np.ascontiguousarray(scene.albedo[mask].T)
        self.roughness, self.gloss, self.skin = (
            picture[mask] for picture in (scene.roughness, scene.gloss, scene.skin)
        )
        self.upright = np.einsum("nk,nk->n", self.normal, self.view)
        self._caster = Caster(scene.vertices, scene.triangles)
        row, column = np.divmod(self._index, mask.shape[1])
        self.grid = (row % 2 == 0) & (column % 2 == 0)
        self._covers: dict[float, np.ndarray] = {}
        self._origin = self.place + _LIFT * scene.facing[mask]

    def __len__(self) -> int:
        return len(self._index)

    def sees(self, toward: Float[np.ndarray, "some 3"], rows: np.ndarray) -> np.ndarray:
        """Whether some points see light in a direction each; not where they turn away from it."""
        seen = np.einsum("nk,nk->n", self.normal[rows], toward) > 0
        asked = np.flatnonzero(seen)
        seen[asked] = ~self._caster.blocked(self._origin[rows[asked]], toward[asked])
        return seen

    def lit(
        self,
        toward: Float[np.ndarray, "3"] | Float[np.ndarray, "num 3"],
        to_light: np.ndarray,
        sharp: bool = True,
    ) -> Bool[np.ndarray, "num"]:
        """Whether points see a light in one direction, or each in its own, that changes slowly.

        to_light: cosine to the normal; who turns away sees nothing. In large pictures a ray goes
        from one of four pixels, and from the others where those around do not agree; if not sharp,
        only where none is around, and where they do not agree all are lit.
        """
        seen = to_light > 0
        if self.mask.size < _LARGE**2:
            return self._ask(toward, np.flatnonzero(seen), seen)
        sparse = np.flatnonzero(seen & self.grid)
        self._ask(toward, sparse, seen)
        around = [
            self.of(cv2.dilate(self.flags(sparse[seen[sparse] == value]), _AROUND))
            for value in (True, False)
        ]
        unsure = (around[0] == around[1] if sharp else around[0] + around[1] == 0) & ~self.grid
        unsure &= to_light > 0
        seen &= around[0] > 0
        return self._ask(toward, np.flatnonzero(unsure), seen)

    def _ask(self, toward: np.ndarray, rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """`seen` with what some of the points see put right."""
        if toward.ndim == 1:
            ray = np.empty((len(rows), 3), np.float32)
            ray[:] = toward
        else:
            ray = toward[rows]
        seen[rows] = ~self._caster.blocked(self._origin[rows], ray)
        return seen

    def flags(self, rows: np.ndarray) -> UInt8[np.ndarray, "height width"]:
        """A picture of 1 where some of the points are, 0 elsewhere."""
        flat = np.zeros(self.mask.size, np.uint8)
        flat[self._index[rows]] = 1
        return flat.reshape(self.mask.shape)

    def picture(self, values: Float[np.ndarray, "num"]) -> Float[np.ndarray, "height width"]:
        """Values of the points as a picture, 0 outside the mask."""
        flat = np.zeros(self.mask.size, np.float32)
        flat[self._index] = values
        return flat.reshape(self.mask.shape)

    def put(
        self, rows: UInt8[np.ndarray, "3 num"], picture: UInt8[np.ndarray, "height width 3"]
    ) -> None:
        """Fill in a picture; row by row is faster than by colours."""
        pixels = picture.reshape(-1, 3)  # a view: pictures are whole
        for channel, row in enumerate(rows):
            pixels[self._index, channel] = row

    def of(self, picture: np.ndarray) -> np.ndarray:
        """What a picture has at the points."""
        return picture.ravel()[self._index]

    def blurred(
        self, values: Float[np.ndarray, "num"], sigma: float, weight: np.ndarray | None = None
    ) -> Float[np.ndarray, "num"]:
        """Gaussian means over what belongs to the head.

        weight: of each point; those of 0 are told by their neighbours.
        """
        if weight is None:
            return self._soft(values, sigma) / self._cover(sigma)
        return self._soft(values * weight, sigma) / np.maximum(self._soft(weight, sigma), 1e-6)

    def _soft(self, values: np.ndarray, sigma: float) -> np.ndarray:
        return self.of(cv2.GaussianBlur(self.picture(values), (0, 0), max(sigma, 1e-3)))

    def _cover(self, sigma: float) -> np.ndarray:
        if sigma not in self._covers:
            self._covers[sigma] = self._soft(np.ones(len(self), np.float32), sigma)
        return self._covers[sigma]
