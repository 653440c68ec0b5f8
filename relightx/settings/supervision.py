"""How many subjects keep their labels (relightx.data.supervision)."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SupervisionConfig:
    """Share of the subjects that keep each label, from 0 (none) to 1 (all)."""

    albedo: float = 1.0
    """Share of subjects with albedo labels."""
    normal: float = 1.0
    """Share of subjects with normal labels."""
    light: float = 1.0
    """Share of subjects with light labels."""
    seed: int = 0
    """Another seed ranks the subjects another way."""
    unlabelled: list[str] = field(default_factory=list)
    """Splits of data.train of which no label is used, whatever the shares."""

    def __post_init__(self) -> None:
        for name in ("albedo", "normal", "light"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"data.supervision.{name} is {getattr(self, name)}; a share from 0 to 1 needed"
                )
