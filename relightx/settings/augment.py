"""How much training pictures are varied (relightx.data.augment)."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class AugmentConfig:
    """How much training pictures are varied; all zero and False means not at all."""

    mirror: bool = True
    """Mirror half of the portraits left to right."""
    exposure_stops: float = 0.5
    """Brightness of the light varies by up to this many stops either way."""
    tint_stops: float = 0.1
    """Brightness of each colour of the light, likewise, on top."""
    shift: float = 0.05
    """Portraits move by up to this share of the picture's side."""
    zoom: float = 0.08
    """Portraits grow or shrink by up to this share."""
    roll_deg: float = 8.0
    """Portraits turn in the picture plane by up to this many degrees, with their light."""
    turn_deg: float = 0.0
    """Heads turn with their light, up and down and sideways, by up to this many degrees; only
    portraits that keep their normal labels."""
    stretch: float = 0.0
    """Smooth random warps move parts of the face by up to this share of the picture's side."""
    skin_stops: float = 0.0
    """Albedo varies smoothly over the picture by up to this many stops either way."""
    mix: float = 0.0
    """Share of lights that are replaced by a weighted sum of two lights of the same portrait."""

    def __post_init__(self) -> None:
        amounts = {name: value for name, value in asdict(self).items() if name != "mirror"}
        for name, value in amounts.items():
            if not value >= 0:
                raise ValueError(f"data.augment.{name} is {value}; 0 or more needed")
        if self.zoom >= 1 or self.mix > 1:
            raise ValueError("data.augment.zoom must be below 1 and data.augment.mix at most 1")
