"""Batches for training: order -> reader -> portraits -> collate, over the processes of a node.

The loader is kept out of `accelerator.prepare`, which would split our rank-aware batches a second
time and never read half of the data, without a word. One DataLoader serves the whole run, since
the epoch of each visit travels with it.
"""

import os
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DataLoader

from relightx.batch import Batch
from relightx.data.block import new_memory
from relightx.data.cache import Held
from relightx.data.collate import Layout, collate
from relightx.data.order import Need, RankBatches, TrainingOrder
from relightx.data.plan import Plan, plan_sources
from relightx.data.portraits import Draw, Example, TrainingPortraits
from relightx.data.prefetch import Prefetcher
from relightx.data.read import ShardReader
from relightx.data.resume import DataState
from relightx.data.ring import Ring
from relightx.data.stream import StreamedPortraits
from relightx.data.workers import prepare_reader
from relightx.index import Index, ShardEntry, read_index
from relightx.sample import Portrait
from relightx.settings.data import DataConfig, cache_directory
from relightx.storage import Folder, LocalFolder, retries_of_process

_FAULTS_KEPT = 10
_AHEAD = 4
"""Batches that each reader process makes ahead."""
_IN_USE = 3
"""Batches of each reader process that may be in use without slowing it down."""


class _Loaded(NamedTuple):
    """A batch as it is handed over: its bytes or their place in the ring, the faults met, and what
    had to be tried again since the reader's batch before."""

    block: Tensor | int
    faults: tuple[str, ...]
    retries: int


class TrainingBatches:
    """One rank's micro-batches of the steps from start_step to stop_step; to be gone through once.

    plan: how the shards are read. portraits: read so far. skipped: how many of them stand for one
    that could not be read. faults: the last reasons. retries: how often S3 failed and was asked
    again, by this rank's readers and by what fetches ahead of them.
    """

    def __init__(
        self,
        indexes: Sequence[Index],
        config: DataConfig,
        batches: RankBatches,
        plan: Plan,
        rank: int = 0,
    ) -> None:
        self.indexes, self.config, self.plan, self.rank = indexes, config, plan, rank
        self.portraits = self.skipped = self._retries = 0
        self._prefetcher: Prefetcher | None = None
        self.faults: deque[str] = deque(maxlen=_FAULTS_KEPT)
        self._batches = batches
        self._layout = Layout(batches.micro, config.num_lights, config.image_size)
        self._examples = TrainingPortraits(indexes, ShardReader(indexes, plan.sources), config)

    def state(self, step: int) -> DataState:
        """What a checkpoint after this step keeps of the data."""
        return DataState.at(self._batches.row_after(step), self.indexes, self.config)

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def retries(self) -> int:
        return self._retries + (self._prefetcher.retries if self._prefetcher else 0)

    def __iter__(self) -> Iterator[Batch]:
        with ExitStack() as going:
            # Before the readers, so that neither inherits what the other holds.
            advance = self._prefetched(going)
            readers = self.config.num_workers
            ring = Ring(readers, _AHEAD + _IN_USE, self._layout.bytes) if readers else None
            for number, (block, faults, retries) in enumerate(self._loader(ring)):
                batch = self._layout.batch(ring.take(block) if isinstance(block, int) else block)
                advance(self._batches.step_of(number))
                self.portraits += self._layout.portraits
                self.skipped += len(faults)
                self._retries += retries
                self.faults.extend(faults)
                yield batch

    def _prefetched(self, going: ExitStack) -> Callable[[int], None]:
        """What is to be told of each step: to fetch shards ahead of it, where any are fetched."""
        cache = self.plan.cache
        if cache is None or self.config.reader == "stream":
            return lambda step: None
        ends = list(accumulate(len(index.shards) for index in self.indexes))

        def found(number: int) -> tuple[Folder, ShardEntry]:
            """One shard: to make the entries of all takes seconds where there are many."""
            part = bisect_right(ends, number)
            index = self.indexes[part]
            return index.folder, index.shards[number - ends[part] + len(index.shards)]

        def hold(number: int) -> Held:
            folder, shard = found(number)
            return cache.hold(folder, shard.name, shard.bytes, shard.sha256)

        def far_needs() -> Iterator[Need]:
            for need in self._batches.needs():
                if not isinstance(found(need.shard)[0], LocalFolder):
                    yield need

        self._prefetcher = Prefetcher(
            far_needs,
            hold,
            lambda number: found(number)[1].bytes,
            allowance=self.plan.ahead_bytes,
            start_step=self._batches.steps.start,
        )
        return going.enter_context(self._prefetcher).advance

    def _loader(self, ring: Ring | None) -> DataLoader:
        readers = self.config.num_workers
        options: dict[str, Any] = {
            "num_workers": readers,
            "worker_init_fn": prepare_reader,
            "prefetch_factor": _AHEAD if readers else None,
            "multiprocessing_context": "fork" if readers else None,
        }

        told = Counter({os.getpid(): retries_of_process()})  # before this loader

        def retries_since() -> int:
            """By this process since it was asked last."""
            now, before = retries_of_process(), told[os.getpid()]
            told[os.getpid()] = now
            return now - before

        def load(examples: list[Example]) -> _Loaded:
            """Lay a batch where the training process finds it."""
            place, memory = (ring and ring.free_place()) or (None, None)
            if memory is None:
                memory = new_memory(self._layout.bytes, pinned=ring is None)
            collate(examples, memory)
            faults = tuple(fault for example in examples for fault in example.faults)
            return _Loaded(memory if place is None else place, faults, retries_since())

        if self.config.reader == "index":
            return DataLoader(
                self._examples, batch_sampler=self._batches, collate_fn=load, **options
            )

        def load_streamed(streamed: Sequence[tuple[Draw, Portrait, tuple[str, ...]]]) -> _Loaded:
            return load([self._examples.example(*visit) for visit in streamed])

        stream = StreamedPortraits(
            self.indexes,
            self._examples.draw,
            self._batches.micro,
            len(self._batches),
            seed=self.config.seed,
            start_step=self._batches.steps.start,
            rank=self.rank,
            weights=self.config.weights or None,
            cache=self.plan.cache,
            on_fault=self.config.on_fault,
        )
        return DataLoader(stream, self._batches.micro, collate_fn=load_streamed, **options)


def whole_reader(indexes: Sequence[Index], config: DataConfig) -> ShardReader:
    """For going through all of some splits, as an evaluation does."""
    return ShardReader(indexes, plan_sources(indexes, config).sources)


def open_splits(paths: Sequence[str], config: DataConfig) -> list[Index]:
    """The indexes of splits; raises ValueError naming what is missing or broken.

    Of an s3:// split, the table of its groups is kept in the node's cache.
    """
    remote = any(str(path).startswith("s3://") for path in paths)
    cache = cache_directory(config.cache_dir) if remote else None
    return [read_index(path, config.s3, cache) for path in paths]


def training_batches(
    config: DataConfig,
    start_step: int,
    stop_step: int,
    rank: int = 0,
    num_ranks: int = 1,
    num_micro: int = 1,
    *,
    first_row: int | None = None,
    node_ranks: int = 1,
) -> TrainingBatches:
    """This rank's micro-batches of the steps from start_step to stop_step, each a Batch.

    first_row: row of the order that start_step begins with (DataState.row); None: where a run of
    the same batch size stands at start_step. node_ranks: ranks on this node. Raises ValueError when
    there is no training split or streams or ranks do not divide the batch size.
    """
    if not config.train:
        raise ValueError("data.train is empty; name at least one directory of training shards")
    indexes = open_splits(config.train, config)
    order = TrainingOrder(
        [index.groups_per_shard for index in indexes],
        seed=config.seed,
        window=config.window,
        streams=config.streams,
        weights=config.weights or None,
    )
    batches = RankBatches(
        order, config.batch_size, start_step, stop_step, rank, num_ranks, num_micro, first_row
    )
    if config.reader == "stream":
        config = replace(config, fetch="shards")  # that is how it reads
    plan = plan_sources(indexes, config, num_ranks, node_ranks)
    return TrainingBatches(indexes, config, batches, plan, rank)
