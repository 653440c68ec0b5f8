"""Which subjects keep their labels: the supervision fractions of the paper's limited setting.

Subjects of a data set are ranked by a hash of seed and subject; a fraction keeps the first of
them, rounded up. So the 5 % set lies inside the 10 % set, albedo, normals and light follow one
ranking (the same people are the labelled ones), and neither rank, order nor shard can change it.
"""

import hashlib
import math
from dataclasses import dataclass


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

    def __post_init__(self) -> None:
        for name in ("albedo", "normal", "light"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"data.supervision.{name} is {getattr(self, name)}; a share from 0 to 1 needed"
                )


def labelled_subjects(subjects: list[str], fraction: float, seed: int) -> frozenset[str]:
    """The subjects that keep a label; all the names of one data set must be given."""
    ranked = sorted(set(subjects), key=lambda subject: _number(subject, seed))
    # The tolerance keeps 0.1 * 30 at 3, not 4.
    return frozenset(ranked[: math.ceil(fraction * len(ranked) - 1e-9)])


def _number(subject: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{subject}".encode()).digest()
