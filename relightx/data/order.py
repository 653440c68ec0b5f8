"""Which portraits each optimiser step uses: a pure function of the shards, the seed and the row.

A set of shards has one endless sequence of visits, its epochs one after another: every portrait is
used exactly once an epoch, no tail is dropped however small the set, and to resume is to start at a
row. Ranks, nodes, workers and micro-batches only cut a step's batch.

Streams. Place p of the sequence belongs to stream p % streams, so all streams go through an epoch
together. An epoch permutes the shards and cuts their portraits, laid end to end, into one piece a
stream; at most streams - 1 shards lie in two pieces. A batch is the next rows of every stream,
stream after stream, and ranks cut it in contiguous parts: so a node reads the streams of its part
and no other's shards. Streams belong to the run, and stay when the number of nodes changes.

Windows. A piece is read in blocks of at most `window` shards, as even as shards allow since a short
last block would hardly be shuffled, and portraits are permuted inside a block. Nothing of the size
of an epoch is ever made: any row is found from the shards' sizes and one block's permutation.
Permutations sort raw words of Philox, whose sequence is fixed; `Generator.permutation` may change.

Mixtures. With weights each set has its own sequence, and the rows of a stream go to the sets by
rounding exact integers: of the first t rows of stream i, the first set has
floor(t * w + i / streams), and what is left is shared out likewise. Over all streams the first set
so has floor(streams * t * w) (Hermite's identity): two sets are within one row of their shares at
any row, and three or more within a few. There is no drift, however long the run.
"""

import heapq
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64, UInt64
from torch.utils.data import Sampler

Visit = tuple[int, int]
"""A portrait's number, through all sets in their order, and the epoch of its set."""

_EPOCHS_KEPT = 2
"""Whose shards stay permuted: the streams of a batch may be in two."""

_SHARDS, _PORTRAITS = 0, 1  # what words are drawn for
_BASES = (2, 3, 5, 7, 11, 13, 17, 19)


class Need(NamedTuple):
    """A shard, by its number through all sets, and the steps from first to last that may use it."""

    shard: int
    first_step: int
    last_step: int


class TrainingOrder:
    """The endless rows of visits; every stream has one visit in a row.

    sets: of each training split the number of portraits in each shard. Portraits and shards are
    numbered through all sets in their order. weights: share of each set in every batch, in any
    unit; none: all shards are one set, each portrait once an epoch. window: shards of a stream that
    are shuffled together.

    Raises ValueError for settings, sets and weights that make no order.
    """

    def __init__(
        self,
        sets: Sequence[Int[np.ndarray, " _"]],
        *,
        seed: int,
        window: int,
        streams: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        for name, value, low in (("seed", seed, 0), ("window", window, 1), ("streams", streams, 1)):
            if not low <= value < 1 << 64:
                raise ValueError(f"data.{name} is {value}; {low} to 2^64 - 1 needed")
        if weights:
            _check_weights(weights, len(sets))
        else:
            sets, weights = [np.concatenate(sets)], [1.0]
        self.streams = streams
        self._mixture = _Mixture(weights, streams)
        self._sets: list[_SetOrder] = []
        self.num_groups = first_shard = 0
        for number, groups in enumerate(sets):
            if not groups.any():
                raise ValueError(f"training split {number + 1} of {len(sets)} has no portraits")
            one = _SetOrder(groups, seed=seed, number=number, window=window, streams=streams)
            one.first += self.num_groups
            one.shards += first_shard
            self._sets.append(one)
            self.num_groups += one.total
            first_shard += len(groups)

    def batch(self, row: int, rows: int, start: int = 0, stop: int | None = None) -> list[Visit]:
        """The visits of `rows` rows of every stream from `row` on, stream after stream.

        start, stop: only that part of the list, at the cost of that part only.
        """
        stop = self.streams * rows if stop is None else stop
        found: list[Visit] = []
        for stream in range(start // rows, -(-stop // rows)):
            low, high = max(0, start - stream * rows), min(rows, stop - stream * rows)
            found += self.visits(stream, row + low, high - low)
        return found

    def visits(self, stream: int, row: int, rows: int) -> list[Visit]:
        """The visits of one stream's rows."""
        if len(self._sets) == 1:
            return self._sets[0].visits(stream, row, row + rows)
        numbers = self._mixture.sets(stream, row, rows)
        counts = self._mixture.counts(stream, row)
        queues = [
            iter(one.visits(stream, count, count + numbers.count(number)))
            for number, (one, count) in enumerate(zip(self._sets, counts, strict=True))
        ]
        return [next(queues[number]) for number in numbers]

    def blocks(self, stream: int, row: int) -> Iterator[tuple[int, int, list[int]]]:
        """First row, last row and shards of each block from `row` on, by first rows; endless."""
        return heapq.merge(
            *(self._blocks(stream, row, number) for number in range(len(self._sets)))
        )

    def _blocks(self, stream: int, row: int, number: int) -> Iterator[tuple[int, int, list[int]]]:
        one, place = self._sets[number], self._mixture.counts(stream, row)[number]
        while True:
            block = one.block(stream, place)
            first = self._mixture.row_of(stream, number, place)
            place = block.last
            yield first, self._mixture.row_of(stream, number, place - 1), one.shards_of(block)


class RankBatches(Sampler[list[Visit]]):
    """This rank's visits, one list per micro-batch, of the steps from start_step to stop_step.

    batch_size counts the portraits of an optimiser step over all ranks and micro-batches, so a run
    sees the same data on any number of processes. A rank's part is contiguous, so that a node stays
    inside its streams. first_row: the row that start_step begins with; none: as if all steps before
    had been of this batch size.

    Raises ValueError when streams, or ranks and micro-batches, do not divide the batch size.
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
        first_row: int | None = None,
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
        if not 0 <= rank < num_ranks:
            raise ValueError(f"rank is {rank}; 0 to {num_ranks - 1} needed")
        self.order, self.steps, self.num_micro = order, range(start_step, stop_step), num_micro
        self.first_row = start_step * self.rows if first_row is None else first_row
        share = self.micro * num_micro
        self._part = range(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return len(self.steps) * self.num_micro

    def __iter__(self) -> Iterator[list[Visit]]:
        start, stop = self._part.start, self._part.stop
        for step in self.steps:
            visits = self.order.batch(self.row_after(step), self.rows, start, stop)
            for first in range(0, len(visits), self.micro):
                yield visits[first : first + self.micro]

    def row_after(self, step: int) -> int:
        """The row that follows the first `step` steps: where a run that stops there goes on."""
        return self.first_row + (step - self.steps.start) * self.rows

    def step_of(self, micro_batch: int) -> int:
        """The step that one of this rank's micro-batches belongs to."""
        return self.steps.start + micro_batch // self.num_micro

    def needs(self) -> Iterator[Need]:
        """The shards of the blocks that this rank is in, in the order of the steps that first are.

        A shard comes again when it is needed later than what has come says.
        """
        streams = range(self._part.start // self.rows, -(-self._part.stop // self.rows))
        known: dict[int, int] = {}
        for first, last, shards in heapq.merge(*(self._stays(stream) for stream in streams)):
            for shard in shards:
                if known.get(shard, -1) < last:
                    known[shard] = last
                    yield Need(shard, first, last)

    def _stays(self, stream: int) -> Iterator[tuple[int, int, list[int]]]:
        """First step, last step and shards of the blocks of a stream that this rank is in."""
        low = max(0, self._part.start - stream * self.rows)
        high = min(self.rows, self._part.stop - stream * self.rows)
        for first, last, shards in self.order.blocks(stream, self.first_row):
            # This rank has rows `low` to `high` of a step; blocks may begin after or end before.
            first_step, row = divmod(first - self.first_row, self.rows)
            first_step += self.steps.start + (row >= high)
            last_step, row = divmod(last - self.first_row, self.rows)
            last_step += self.steps.start - (row < low)
            if first_step >= self.steps.stop:
                return
            if first_step <= last_step:
                yield first_step, min(last_step, self.steps.stop - 1), shards


class _Block(NamedTuple):
    """Portraits of a stream that are shuffled together.

    first, last: their places among the stream's own, last excluded. begin, end: where they lie in
    the epoch; low, high: their shards, in the epoch's permutation.
    """

    first: int
    last: int
    epoch: int
    stream: int
    number: int
    begin: int
    end: int
    low: int
    high: int


class _SetOrder:
    """The endless sequence of one set, stream by stream. Shards without portraits are left out.

    first, shards: the number of each shard's first portrait, and its own.
    """

    def __init__(
        self,
        groups_per_shard: Int[np.ndarray, " shards"],
        *,
        seed: int,
        number: int,
        window: int,
        streams: int,
    ) -> None:
        groups = groups_per_shard.astype(np.int64)
        self.shards = np.flatnonzero(groups)
        self.groups = groups[self.shards]
        self.first = np.cumsum(self.groups) - self.groups
        self.total = int(self.groups.sum())
        self.seed, self.number, self.window, self.streams = seed, number, window, streams
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._held: dict[int, tuple[_Block, np.ndarray]] = {}

    def visits(self, stream: int, place: int, last: int) -> list[Visit]:
        """The visits at a stream's own places from `place` to `last`, last excluded."""
        found: list[Visit] = []
        while place < last:
            held = self._held.get(stream)
            if held is None or not held[0].first <= place < held[0].last:
                block = self.block(stream, place)
                held = self._held[stream] = block, self._portraits(block)
            block, portraits = held
            stop = min(last, block.last)
            part = portraits[place - block.first : stop - block.first].tolist()
            found += [(number, block.epoch) for number in part]
            place = stop
        return found

    def block(self, stream: int, place: int) -> _Block:
        """The block that holds a stream's `place`-th place."""
        epoch = (place * self.streams + stream) // self.total
        first = -((stream - epoch * self.total) // self.streams)
        start, stop = self._cut(epoch, stream), self._cut(epoch, stream + 1)
        ends = self._epoch(epoch)[1]
        low = int(np.searchsorted(ends, start, "right")) - 1
        count = int(np.searchsorted(ends, stop, "left")) - low
        shard = int(np.searchsorted(ends, start + place - first, "right")) - 1 - low
        blocks = -(-count // self.window)
        number = ((shard + 1) * blocks - 1) // count
        low, high = low + number * count // blocks, low + (number + 1) * count // blocks
        begin, end = max(start, int(ends[low])), min(stop, int(ends[high]))
        first, last = first + begin - start, first + end - start
        return _Block(first, last, epoch, stream, number, begin, end, low, high)

    def shards_of(self, block: _Block) -> list[int]:
        """The numbers of a block's shards."""
        return self.shards[self._epoch(block.epoch)[0][block.low : block.high]].tolist()

    def _cut(self, epoch: int, stream: int) -> int:
        """Where a stream's piece begins in the epoch: how many places streams below it have."""
        below = [
            rows * stream + min(rest, stream)
            for rows, rest in (divmod(self.total * at, self.streams) for at in (epoch, epoch + 1))
        ]
        return below[1] - below[0]

    def _epoch(self, epoch: int) -> tuple[Int64[np.ndarray, " shards"], Int64[np.ndarray, " ends"]]:
        """The shards permuted, and where each begins among the portraits, and the last ends."""
        if epoch not in self._epochs:
            words = self._words(len(self.shards), _SHARDS, epoch)
            order = np.argsort(words, kind="stable")
            if len(self._epochs) >= _EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = order, np.concatenate([[0], np.cumsum(self.groups[order])])
        return self._epochs[epoch]

    def _portraits(self, block: _Block) -> Int64[np.ndarray, " portraits"]:
        """The numbers of a block's portraits, in the order of their visits."""
        order, ends = self._epoch(block.epoch)
        ends = ends[block.low : block.high + 1]
        shift = self.first[order[block.low : block.high]] - ends[:-1]
        counts = np.diff(ends.clip(block.begin, block.end))
        numbers = np.arange(block.begin, block.end) + np.repeat(shift, counts)
        words = self._words(len(numbers), _PORTRAITS, block.epoch, block.stream, block.number)
        return numbers[np.argsort(words, kind="stable")]

    def _words(
        self, count: int, purpose: int, epoch: int, stream: int = 0, number: int = 0
    ) -> UInt64[np.ndarray, " count"]:
        key = np.array([self.seed, 2 * self.number + purpose], np.uint64)
        counter = np.array([0, epoch, stream, number], np.uint64)  # Philox counts in the first
        return np.random.Philox(key=key, counter=counter).random_raw(count)


class _Mixture:
    """How many of a stream's rows each set has, in integers.

    Offsets differ from set to set, to spread the streams in which one set is ahead evenly for the
    next: with the same for all, the shares of three sets over 512 streams were 125 rows off.
    """

    def __init__(self, weights: Sequence[float], streams: int) -> None:
        exact = [Fraction(repr(float(weight))) for weight in weights]  # 0.1 is 1/10
        self._shares = [share / sum(exact) for share in exact]
        self._levels: list[tuple[int, int, list[int]]] = []
        for level, share in enumerate(exact[:-1]):
            share /= sum(exact[level:])
            offsets = [share.denominator * offset for offset in _spread(streams, level)]
            self._levels.append((share.numerator * streams, share.denominator * streams, offsets))

    def counts(self, stream: int, rows: int) -> list[int]:
        """How many of a stream's first `rows` rows each set has."""
        counts = []
        for over, under, offsets in self._levels:
            counts.append((rows * over + offsets[stream]) // under)
            rows -= counts[-1]
        return [*counts, rows]

    def sets(self, stream: int, row: int, rows: int) -> list[int]:
        """Which set each of the rows goes to, from `row` on: the one whose count then grows."""
        rests = []
        for over, under, offsets in self._levels:
            count, rest = divmod(row * over + offsets[stream], under)
            rests.append(rest)
            row -= count
        return [self._next(rests) for _ in range(rows)]

    def _next(self, rests: list[int]) -> int:
        """The set of the row that follows; rests: what each level is past its count, kept up."""
        for number, (over, under, _) in enumerate(self._levels):
            rests[number] += over
            if rests[number] >= under:
                rests[number] -= under
                return number
        return len(self._levels)

    def row_of(self, stream: int, number: int, place: int) -> int:
        """The row in which a stream is at its `place`-th visit to a set."""
        if not self._levels:
            return place
        enough = range(math.ceil((place + 1 + len(self._shares)) / self._shares[number]))
        return bisect_left(enough, place + 1, key=lambda t: self.counts(stream, t)[number]) - 1


def _spread(streams: int, level: int) -> list[int]:
    """Each stream's offset: its number, and on later levels its rank in van der Corput's order."""
    if not level:
        return list(range(streams))
    base = _BASES[(level - 1) % len(_BASES)]
    powers = [base**digit for digit in range(streams.bit_length())]
    order = sorted(range(streams), key=lambda i: [i // power % base for power in powers])
    return np.argsort(order).tolist()


def _check_weights(weights: Sequence[float], num_sets: int) -> None:
    if len(weights) != num_sets:
        raise ValueError(f"data.weights has {len(weights)} numbers for {num_sets} training splits")
    for weight in weights:
        if not 0 < weight < math.inf:
            raise ValueError(f"data.weights holds {weight}; each must be above 0, and finite")
