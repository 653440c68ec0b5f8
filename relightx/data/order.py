"""Which portraits each optimiser step uses: a pure function of the indexes, the seed and the row.

A set of shards has one endless sequence of visits, its epochs one after another. Place p of it
belongs to stream p % streams, so every stream gives equally much to each batch, an epoch may end
anywhere in a batch, and no tail is dropped: each portrait is visited exactly once an epoch.

An epoch permutes the shards and cuts their groups, laid end to end, into one piece a stream; at
most streams - 1 shards lie in two pieces. Inside a piece, the groups of each `window` shards are
permuted together. So a node that reads whole streams needs only their shards, a window at a time,
and each once an epoch. Ranks, workers and micro-batches only cut a step's batch.

Nothing of the size of an epoch is ever made: any place is found from the shards' sizes and one
block's permutation, so to go on at step 10^9 is as quick as to begin. Permutations sort raw words
of Philox, whose stream is fixed, and not `Generator.permutation`, which numpy may change.

In a weighted mixture the rows of a stream go to the sets by exact rounding: of the first t rows of
stream i, set 1 gets floor(t * w1 + i / streams), which over all streams is floor(streams * t * w1)
(Hermite's identity); the others share the rest likewise. There is no drift, however long the run.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

Visit = tuple[int, int]
"""A portrait's number, through all sets in their order, and the epoch of its set."""

_EPOCHS_KEPT = 4
_FINENESS = 10**6
"""Weights are rounded to fractions of no greater denominator."""


class Need(NamedTuple):
    """A shard, by its number through all sets, and the steps from first to last that may use it."""

    shard: int
    first_step: int
    last_step: int


class Block(NamedTuple):
    """Portraits shuffled together: k-th to (k + len(groups))-th visit of a stream to a set.

    shards and groups are numbers within the set; groups are in the order of the visits.
    """

    start: int
    epoch: int
    shards: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class _Epoch:
    """Where an epoch's shards lie: permuted, with the number of groups before each."""

    shards: np.ndarray
    before: np.ndarray


class SetOrder:
    """The endless sequence of one set, stream by stream."""

    def __init__(
        self, groups_per_shard: np.ndarray, *, seed: int, window: int, streams: int, salt: int
    ) -> None:
        self.groups_per_shard = np.asarray(groups_per_shard, np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.groups_per_shard)])
        self.num_groups = int(self.first[-1])
        self.window, self.streams = window, streams
        self._key = (seed, salt)
        self._epoch = lru_cache(_EPOCHS_KEPT)(self._make_epoch)
        self._held: dict[int, Block] = {}

    def visits(self, stream: int, k: int) -> Iterator[Visit]:
        """A stream's visits from its k-th on, without end: group within the set, and epoch."""
        while True:
            block = self.block(stream, k)
            for group in block.groups[k - block.start :].tolist():
                yield group, block.epoch
            k = block.start + len(block.groups)

    def block(self, stream: int, k: int) -> Block:
        """The block that holds the k-th visit of a stream."""
        held = self._held.get(stream)
        if held is None or not held.start <= k < held.start + len(held.groups):
            held = self._held[stream] = self._make_block(stream, k)
        return held

    def _make_epoch(self, epoch: int) -> _Epoch:
        order = _permutation(len(self.groups_per_shard), (*self._key, epoch))
        sizes = self.groups_per_shard[order]
        return _Epoch(order, np.concatenate([[0], np.cumsum(sizes)]))

    def _make_block(self, stream: int, k: int) -> Block:
        epoch = (k * self.streams + stream) // self.num_groups
        first, start, end = self._piece(epoch, stream)
        laid = self._epoch(epoch)
        place = start + k - first
        # Shards by position in the epoch's order: the piece's first one, this place's one.
        begin = int(np.searchsorted(laid.before, start, "right")) - 1
        here = int(np.searchsorted(laid.before, place, "right")) - 1
        number = (here - begin) // self.window
        positions = range(begin + number * self.window, len(laid.shards))[: self.window]
        low = max(start, int(laid.before[positions.start]))
        high = min(end, int(laid.before[positions.stop]))
        shards = laid.shards[positions.start : positions.stop]
        groups = self._between(laid, positions, low, high)
        groups = groups[_permutation(len(groups), (*self._key, epoch, stream, number))]
        return Block(first + low - start, epoch, shards, groups)

    def _piece(self, epoch: int, stream: int) -> tuple[int, int, int]:
        """A stream's part of an epoch: its first k, and where it starts and ends among the groups.

        Stream i has the places p of the epoch with p % streams == i.
        """
        begin, end = epoch * self.num_groups, (epoch + 1) * self.num_groups
        start = self._upto(end, stream) - self._upto(begin, stream)
        stop = self._upto(end, stream + 1) - self._upto(begin, stream + 1)
        return self._upto(begin, stream + 1) - self._upto(begin, stream), start, stop

    def _upto(self, place: int, stream: int) -> int:
        """How many of the places below `place` belong to the streams below `stream`."""
        rows, rest = divmod(place, self.streams)
        return rows * stream + min(rest, stream)

    def _between(self, laid: _Epoch, positions: range, low: int, high: int) -> np.ndarray:
        """Numbers of the groups that lie from low to high in an epoch's order of shards."""
        parts = []
        for position in positions:
            before = int(laid.before[position])
            first = int(self.first[laid.shards[position]]) - before
            stop = min(high, int(laid.before[position + 1]))
            parts.append(np.arange(first + max(low, before), first + stop))
        return np.concatenate(parts)


class TrainingOrder:
    """The endless sequence of batches of one set or a weighted mixture of several.

    sets: groups per shard of each set. Portraits and shards are numbered through all sets in their
    order. weights: share of each set in every batch; None: all shards are one set, each portrait
    once an epoch. Raises ValueError for sets without groups and weights that cannot be.
    """

    def __init__(
        self,
        sets: Sequence[np.ndarray],
        *,
        seed: int,
        window: int,
        streams: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        for name, value in (("window", window), ("streams", streams)):
            if value < 1:
                raise ValueError(f"data.{name} is {value}; 1 or more needed")
        if weights is None:
            sets, weights = [np.concatenate([np.asarray(sizes) for sizes in sets])], [1.0]
        self.streams = streams
        self.sets = [
            SetOrder(sizes, seed=seed, window=window, streams=streams, salt=salt)
            for salt, sizes in enumerate(sets)
        ]
        for number, one in enumerate(self.sets):
            if not one.num_groups:
                raise ValueError(f"training split {number + 1} of {len(sets)} has no portraits")
        self._shares = _shares(weights, len(self.sets))
        self._first_group = np.cumsum([0, *(one.num_groups for one in self.sets)]).tolist()
        self._first_shard = np.cumsum([0, *(len(one.groups_per_shard) for one in self.sets)])

    @property
    def num_groups(self) -> int:
        return self._first_group[-1]

    def batch(self, row: int, rows: int) -> list[Visit]:
        """The visits of `rows` rows of every stream from `row` on, stream after stream."""
        return [visit for stream in range(self.streams) for visit in self.visits(stream, row, rows)]

    def visits(self, stream: int, row: int, rows: int) -> list[Visit]:
        """The visits of one stream's rows."""
        counts = self._counts(row, stream)
        going = [one.visits(stream, k) for one, k in zip(self.sets, counts, strict=True)]
        if len(self.sets) == 1:
            return list(islice(going[0], rows))
        found = []
        for after in range(row + 1, row + rows + 1):
            following = self._counts(after, stream)
            number = next(n for n, k in enumerate(following) if k > counts[n])
            group, epoch = next(going[number])
            found.append((group + self._first_group[number], epoch))
            counts = following
        return found

    def blocks(self, stream: int, row: int) -> Iterator[tuple[int, int, list[int]]]:
        """First row, last row and shards of each block that a stream enters from `row` on.

        In the order of their first rows, without end.
        """
        return heapq.merge(*(self._blocks(stream, row, number) for number in range(len(self.sets))))

    def _blocks(self, stream: int, row: int, number: int) -> Iterator[tuple[int, int, list[int]]]:
        k, one = self._counts(row, stream)[number], self.sets[number]
        while True:
            block = one.block(stream, k)
            end = block.start + len(block.groups)
            first, last = self._row_of(stream, number, k), self._row_of(stream, number, end - 1)
            yield first, last, (block.shards + self._first_shard[number]).tolist()
            k = end

    def _row_of(self, stream: int, number: int, k: int) -> int:
        """The row in which a stream visits a set for the k-th time."""
        low, high = k, k
        while self._counts(high + 1, stream)[number] <= k:
            low, high = high + 1, 2 * high + 1
        while low < high:
            middle = (low + high) // 2
            if self._counts(middle + 1, stream)[number] > k:
                high = middle
            else:
                low = middle + 1
        return low

    def _counts(self, rows: int, stream: int) -> list[int]:
        """How many of a stream's first rows each set has."""
        counts = []
        for share in self._shares:
            over, under = share.numerator * self.streams, share.denominator * self.streams
            counts.append((rows * over + stream * share.denominator) // under)
            rows -= counts[-1]
        return [*counts, rows]


class RankBatches(Sampler[list[Visit]]):
    """This rank's visits, one list per micro-batch, of the steps from start_step to stop_step.

    batch_size counts the portraits of an optimiser step over all ranks and micro-batches, so a run
    sees the same data on any number of processes. A rank's part is contiguous, so that a node stays
    inside its streams. first_row: the row that start_step begins with. Raises ValueError when the
    streams, or ranks and micro-batches, do not divide the batch size.
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
        first_row: int = 0,
    ) -> None:
        self.rows, rest = divmod(batch_size, order.streams)
        if rest:
            raise ValueError(
                f"data.batch_size is {batch_size}, which data.streams {order.streams} do not divide"
            )
        self.micro, rest = divmod(batch_size, num_ranks * num_micro)
        if rest:
            raise ValueError(
                f"data.batch_size is {batch_size}, which {num_ranks} processes x {num_micro}"
                " micro-batches do not divide"
            )
        self.order, self.steps, self.first_row = order, range(start_step, stop_step), first_row
        self.num_micro = num_micro
        share = self.micro * num_micro
        self._part = range(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return len(self.steps) * self.num_micro

    def __iter__(self) -> Iterator[list[Visit]]:
        for step in self.steps:
            visits = self._visits(self.row_after(step))
            for start in range(0, len(visits), self.micro):
                yield visits[start : start + self.micro]

    def row_after(self, step: int) -> int:
        """The row that follows the first `step` steps: where a run that stops there goes on."""
        return self.first_row + (step - self.steps.start) * self.rows

    def step_of(self, micro_batch: int) -> int:
        """The step that one of this rank's micro-batches belongs to."""
        return self.steps.start + micro_batch // self.num_micro

    def needs(self) -> Iterator[Need]:
        """The shards that this rank may read, in the order of the steps that first do.

        A shard comes again when it is needed again.
        """
        streams = range(self._part.start // self.rows, -(-self._part.stop // self.rows))
        blocks = (self.order.blocks(stream, self.first_row) for stream in streams)
        for first, last, shards in heapq.merge(*blocks):
            first_step, last_step = self._step_at(first), self._step_at(last)
            if first_step >= self.steps.stop:
                return
            yield from (Need(shard, first_step, last_step) for shard in shards)

    def _visits(self, row: int) -> list[Visit]:
        found = []
        place = self._part.start
        while place < self._part.stop:
            stream, into = divmod(place, self.rows)
            count = min(self.rows - into, self._part.stop - place)
            found += self.order.visits(stream, row + into, count)
            place += count
        return found

    def _step_at(self, row: int) -> int:
        return self.steps.start + (row - self.first_row) // self.rows


def _shares(weights: Sequence[float], num_sets: int) -> list[Fraction]:
    """What each set but the last takes of what the sets before it leave."""
    if len(weights) != num_sets:
        raise ValueError(f"data.weights has {len(weights)} numbers for {num_sets} training splits")
    for weight in weights:
        if not 0 < weight < math.inf:
            raise ValueError(f"data.weights holds {weight}; each must be above 0")
    exact = [Fraction(weight).limit_denominator(_FINENESS) for weight in weights]
    if not all(exact):
        raise ValueError(f"data.weights {list(weights)} hold one below {1 / _FINENESS:g}")
    return [share / sum(exact[number:]) for number, share in enumerate(exact[:-1])]


def _permutation(count: int, key: tuple[int, ...]) -> np.ndarray:
    """Numbers 0 to count in an order that the key gives, the same with every version of numpy."""
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(words, kind="stable")
