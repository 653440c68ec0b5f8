"""Which network is trained (relightx.model)."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """Which network is trained."""

    preset: Literal["sfsnet", "unet"] = "sfsnet"
    """sfsnet: the published architecture, 36 GFLOP an image at 128 px; unet: 1.5, for two cores."""
    width: int = 32
    """Channels of the unet's first level; sfsnet has its own."""

    def __post_init__(self) -> None:
        if self.preset not in ("sfsnet", "unet"):
            raise ValueError(f"model.preset is {self.preset!r}; 'sfsnet' or 'unet' needed")
        if self.width < 8 or self.width % 8:
            raise ValueError(f"model.width is {self.width}; a multiple of 8, at least 8, needed")
