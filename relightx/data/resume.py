"""Where in the data a run stands: one row number, and what the order is a function of.

A checkpoint holds this and nothing else of the loader. To go on is to begin at the row, on any
number of processes; nothing is read again to get there. Batch size and accumulation may change, as
rows are counted and not steps. Whatever would make it another order is refused unless asked for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from relightx.index import Index
from relightx.settings.data import DataConfig


@dataclass(frozen=True)
class DataState:
    """A place in a run's data.

    row: visits that every stream has given. indexes: sha256 of each split's index, in order.
    """

    row: int
    indexes: list[str]
    seed: int
    window: int
    streams: int
    weights: list[float]

    @classmethod
    def at(cls, row: int, indexes: Sequence[Index], config: DataConfig) -> "DataState":
        """The place at a row of the order that a configuration gives."""
        return cls(
            row=row,
            indexes=[index.sha256 for index in indexes],
            seed=config.seed,
            window=config.window,
            streams=config.streams,
            weights=list(config.weights),
        )

    def changes(self, now: "DataState") -> list[str]:
        """What makes the order of `now` another one, in words."""
        found = []
        if self.indexes != now.indexes:
            found.append("it was trained on other shards than data.train names now")
        for name in ("seed", "window", "streams", "weights"):
            was, asked = getattr(self, name), getattr(now, name)
            if was != asked:
                found.append(f"its data.{name} was {was}, the config says {asked}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)
