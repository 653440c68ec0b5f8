"""A light a person can name: from a direction, coefficients, an environment map or a photograph."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
from jaxtyping import Float

from relightx.environment import read_environment
from relightx.sh import ambient_light, directional_light, dominant_direction, rotate

if TYPE_CHECKING:  # the model makes lights, so its type can only be named
    from relightx.portrait import Model

SPEC_HELP = (
    "a JSON file of SH coefficients (9, 27 or 3 x 9 numbers, or an object with 'sh'),"
    " direction:AZ,EL[,AMBIENT] (degrees; azimuth toward the picture's right, elevation up),"
    " an .hdr or .exr environment map, or another photograph"
)
_MAPS = (".hdr", ".exr")


@dataclass(frozen=True, eq=False)
class Light:
    """One illumination: radiance coefficients in the convention of relightx.sh."""

    sh: Float[np.ndarray, "3 9"]

    @property
    def direction(self) -> Float[np.ndarray, "3"]:
        """Unit vector toward the light's dominant direction; zero for a uniform light."""
        return dominant_direction(torch.from_numpy(self.sh)).numpy()

    @classmethod
    def from_sh(cls, values: Any) -> "Light":
        """From 9 numbers (gray), 27 (red, green, blue in turn) or 3 x 9.

        Raises ValueError for another count or values that are not finite numbers.
        """
        try:
            array = np.asarray(values, np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"light coefficients are not numbers: {str(values)[:80]}") from None
        if array.size not in (9, 27) or array.shape not in ((9,), (27,), (3, 9), (1, 9)):
            raise ValueError(
                f"light coefficients have shape {array.shape}; 9, 27 or 3 x 9 numbers needed"
            )
        if not np.isfinite(array).all():
            raise ValueError("light coefficients hold values that are not finite")
        return cls(np.broadcast_to(array.reshape(-1, 9), (3, 9)).copy())

    @classmethod
    def from_direction(
        cls, direction: Any, ambient: float = 0.2, color: Any = (1.0, 1.0, 1.0)
    ) -> "Light":
        """A distant lamp that shades a surface facing it to `color`, plus an even `ambient`.

        direction: vector toward the lamp; +x right in the image, +y up, +z to the camera.
        Raises ValueError for a zero or wrong vector, negative ambient or a wrong colour.
        """
        vector = torch.as_tensor(np.asarray(direction, np.float32))
        if vector.shape != (3,) or not bool(vector.isfinite().all()):
            raise ValueError(f"light direction {direction} is not a vector x, y, z")
        if not (ambient >= 0 and math.isfinite(ambient)):
            raise ValueError(f"ambient light is {ambient}; 0 or more needed")
        tint = np.asarray(color, np.float32)
        if tint.shape != (3,) or not (np.isfinite(tint).all() and tint.min() >= 0):
            raise ValueError(f"colour of the light is {color}; three numbers of 0 or more needed")
        gray = directional_light(vector) + ambient_light(ambient)
        return cls((gray * torch.from_numpy(tint)[:, None]).numpy())

    @classmethod
    def from_angles(cls, azimuth_deg: float, elevation_deg: float, ambient: float = 0.2) -> "Light":
        """A lamp by azimuth (0 at the camera, 90 at the picture's right) and elevation (90 above).

        Raises ValueError for angles beyond 180 and 90 degrees.
        """
        if not (abs(azimuth_deg) <= 180 and abs(elevation_deg) <= 90):
            raise ValueError(
                f"light at azimuth {azimuth_deg}, elevation {elevation_deg}: azimuth from -180 to"
                " 180 and elevation from -90 to 90 degrees needed"
            )
        azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
        return cls.from_direction(
            (
                math.sin(azimuth) * math.cos(elevation),
                math.sin(elevation),
                math.cos(azimuth) * math.cos(elevation),
            ),
            ambient,
        )

    @classmethod
    def from_environment(cls, path: str | Path, turn_deg: float = 0.0) -> "Light":
        """An equirectangular .hdr or .exr map of mean luminance 1, turned about the vertical.

        The map's left and right edges light the face. Raises ValueError for what is no such map.
        """
        angle = math.radians(turn_deg)
        turn = torch.tensor(
            [
                [math.cos(angle), 0, math.sin(angle)],
                [0, 1, 0],
                [-math.sin(angle), 0, math.cos(angle)],
            ]
        )
        sh = torch.from_numpy(read_environment(Path(path)))
        return cls(rotate(sh, turn).numpy())

    @classmethod
    def from_photo(cls, model: "Model", image: Any) -> "Light":
        """The light a model sees in a photograph (path, PIL image or linear array)."""
        return model.decompose(image).light

    @classmethod
    def from_spec(cls, spec: str, model: Union["Model", None] = None) -> "Light":
        """The light that a command line names, see SPEC_HELP. Raises ValueError for another."""
        if spec.startswith("direction:"):
            return cls._from_direction_spec(spec)
        path = Path(spec)
        try:
            is_file = path.is_file()
        except OSError:  # a name too long for any file
            is_file = False
        if not is_file:
            raise ValueError(f"light {spec!r} is no file and no direction; needed: {SPEC_HELP}")
        if path.suffix.lower() == ".json":
            return cls._from_json(path)
        if path.suffix.lower() in _MAPS:
            return cls.from_environment(path)
        if model is None:
            raise ValueError(f"light {spec!r}: a photograph's light needs a model to see it")
        return cls.from_photo(model, path)

    @classmethod
    def _from_direction_spec(cls, spec: str) -> "Light":
        try:
            numbers = [float(text) for text in spec.removeprefix("direction:").split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3):
            raise ValueError(f"light {spec!r}: direction:AZ,EL[,AMBIENT] in degrees is needed")
        return cls.from_angles(*numbers)

    @classmethod
    def _from_json(cls, path: Path) -> "Light":
        try:
            content = json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: not readable as JSON: {error}") from None
        if isinstance(content, dict):
            if "sh" not in content:
                raise ValueError(f"{path}: has no 'sh' key with SH coefficients")
            content = content["sh"]
        try:
            return cls.from_sh(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
