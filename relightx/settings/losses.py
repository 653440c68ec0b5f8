"""How much each loss weighs (relightx.losses)."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; a loss of weight zero is not computed."""

    image_reconstruction: float = 1.0
    """Albedo times the shading of normal and light of one image gives that image back."""
    cross_relighting: float = 1.0
    """Albedo and normal seen under one light, shaded by the next light, give the next image."""
    albedo_consistency: float = 0.5
    """Albedo seen under one light equals the albedo seen under the next."""
    normal_consistency: float = 0.5
    """Normal seen under one light equals the normal seen under the next."""
    convexity: float = 0.0
    """Normal leans outward, as on a ball that fills the mask."""
    albedo_supervision: float = 1.0
    """Albedo equals its label, for portraits that keep one."""
    normal_supervision: float = 1.0
    """Normal equals its label, for portraits that keep one."""
    light_supervision: float = 0.2
    """Light equals its label, each coefficient weighed by what it does to shading."""

    def __post_init__(self) -> None:
        negative = {name: value for name, value in asdict(self).items() if not value >= 0}
        if negative:
            raise ValueError(f"loss weights must be 0 or more, found {negative}")
        if not any(asdict(self).values()):
            raise ValueError("every loss weight is 0: there is nothing to minimise")
