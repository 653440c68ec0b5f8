"""Which portraits each optimiser step uses: a pure function of the index, the seed and the step.

Training reads one endless sequence, the epochs' permutations one after another; step s takes
places s * batch_size to (s + 1) * batch_size of it. So every portrait is used exactly once an
epoch, no tail is dropped however small the set, and to resume is to start at a step. Ranks and
workers do not enter: they only cut a step's batch.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Visit = tuple[int, int]
"""A portrait's number in the index and the epoch it is visited in."""


def epoch_order(groups_per_shard: list[int], seed: int, epoch: int, window: int) -> np.ndarray:
    """Numbers of all portraits, in the order of an epoch.

    Shards are permuted; portraits are permuted inside each `window` of shards, so that a node
    needs no more shards than that at a time.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    first = np.concatenate([[0], np.cumsum(groups_per_shard)])
    shards = rng.permutation(len(groups_per_shard))
    blocks = []
    for start in range(0, len(shards), window):
        block = shards[start : start + window]
        groups = np.concatenate([np.arange(first[s], first[s + 1]) for s in block])
        blocks.append(rng.permutation(groups))
    return np.concatenate(blocks)


class TrainingOrder:
    """The endless sequence of visits."""

    def __init__(self, groups_per_shard: list[int], seed: int, window: int) -> None:
        self.groups_per_shard, self.seed, self.window = groups_per_shard, seed, window
        self.num_groups = sum(groups_per_shard)
        self._cached: tuple[int, np.ndarray] | None = None

    def visits(self, start: int, count: int) -> list[Visit]:
        """The visits at places start to start + count."""
        return [self._visit(place) for place in range(start, start + count)]

    def _visit(self, place: int) -> Visit:
        epoch, offset = divmod(place, self.num_groups)
        if self._cached is None or self._cached[0] != epoch:
            order = epoch_order(self.groups_per_shard, self.seed, epoch, self.window)
            self._cached = (epoch, order)
        return int(self._cached[1][offset]), epoch


class RankBatches(Sampler[list[Visit]]):
    """This rank's visits, one list per micro-batch, from `start_step` to `stop_step`.

    batch_size counts the portraits of an optimiser step over all ranks and micro-batches, so a run
    sees the same data on any number of processes. Raises ValueError when they do not divide it.
    """

    def __init__(
        self,
        order: TrainingOrder,
        batch_size: int,
        start_step: int,
        stop_step: int,
        rank: int = 0,
        num_ranks: int = 1,
        num_micro: int = 1,
    ) -> None:
        self.micro, rest = divmod(batch_size, num_ranks * num_micro)
        if rest:
            raise ValueError(
                f"data.batch_size is {batch_size}, which {num_ranks} processes x {num_micro}"
                " micro-batches do not divide"
            )
        self.order, self.batch_size = order, batch_size
        self.steps = range(start_step, stop_step)
        self.rank, self.num_micro, self.num_ranks = rank, num_micro, num_ranks

    def __len__(self) -> int:
        return len(self.steps) * self.num_micro

    def __iter__(self) -> Iterator[list[Visit]]:
        per_rank = self.micro * self.num_micro
        for step in self.steps:
            start = step * self.batch_size + self.rank * per_rank
            for micro in range(self.num_micro):
                yield self.order.visits(start + micro * self.micro, self.micro)
