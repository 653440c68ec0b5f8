"""relightx: its order, its reader and its cache under torch's DataLoader."""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from loading.batch import BATCH, Batch, Sample, collate, draw, of_portrait
from loading.job import Job, loader
from torch.utils.data import Dataset

from relightx.data.cache import ShardCache
from relightx.data.order import RankBatches, TrainingOrder, Visit
from relightx.data.prefetch import Prefetcher
from relightx.data.read import ShardReader
from relightx.data.sources import CachedShards, LocalShards, RangedShards, Source
from relightx.index import Index, read_index
from relightx.storage import S3Options

WINDOW = 4
_CACHE_BYTES = 100 << 30
_AHEAD_BYTES = 1 << 30


class Visits(Dataset):
    """Portraits by their visits, under lights drawn for each."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader

    def __getitems__(self, visits: list[Visit]) -> list[Sample]:
        lights = [
            draw(np.random.default_rng([0, epoch, number]), int(self.reader.lights[number]))
            for number, epoch in visits
        ]
        asked = [(number, chosen) for (number, _), chosen in zip(visits, lights, strict=True)]
        return list(map(of_portrait, self.reader.read_many(asked), lights))


def whole_shards(job: Job) -> Iterator[Batch]:
    """Shards as they lie, or whole from S3 into the node's cache, fetched ahead."""
    index = _index(job)
    if not job.is_far:
        yield from _batches(job, index, LocalShards())
        return
    cache = ShardCache(job.cache_path, _CACHE_BYTES)
    shards = index.shards
    batches = _order(job, index)
    prefetcher = Prefetcher(
        batches.needs,
        lambda n: cache.hold(index.folder, shards[n].name, shards[n].bytes, shards[n].sha256),
        lambda n: shards[n].bytes,
        allowance=_AHEAD_BYTES,
    )
    with ExitStack() as going:
        going.enter_context(prefetcher)
        for step, batch in enumerate(_batches(job, index, CachedShards(cache), batches)):
            prefetcher.advance(step)
            yield batch


def members(job: Job) -> Iterator[Batch]:
    """Of shards in S3, the members that are used, by ranges."""
    yield from _batches(job, _index(job), RangedShards())


def _batches(
    job: Job, index: Index, source: Source, batches: RankBatches | None = None
) -> Iterator[Batch]:
    reader = ShardReader([index], [source])
    batches = batches or _order(job, index)
    yield from loader(Visits(reader), job, batch_sampler=batches, collate_fn=collate)


def _index(job: Job) -> Index:
    options = S3Options(endpoint_url=job.endpoint) if job.is_far else None
    return read_index(job.place, options, job.cache_path if job.is_far else None)


def _order(job: Job, index: Index) -> RankBatches:
    order = TrainingOrder([index.groups_per_shard], seed=0, window=WINDOW)
    return RankBatches(order, BATCH, 0, job.batches)
