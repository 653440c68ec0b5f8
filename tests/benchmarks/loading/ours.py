"""relightx: its order, its reader, its cache and its ring under torch's DataLoader."""

from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import numpy as np
import torch
from loading.batch import BATCH, CHOSEN, PREFETCH, Batch, Sample, draw, of_portrait
from loading.heads import SIZE
from loading.job import Job, loader
from torch import Tensor
from torch.utils.data import Dataset

from relightx.data.block import Block
from relightx.data.cache import ShardCache
from relightx.data.order import RankBatches, TrainingOrder, Visit
from relightx.data.prefetch import Prefetcher
from relightx.data.read import ShardReader
from relightx.data.ring import Ring
from relightx.data.sources import CachedShards, LocalShards, RangedShards, Source
from relightx.data.workers import prepare_reader
from relightx.index import Index, read_index
from relightx.storage import S3Options

WINDOW = 4
IN_USE = 3
_BLOCK = Block(
    [
        ((BATCH, CHOSEN, 3, SIZE, SIZE), torch.uint8),
        ((BATCH, 3, SIZE, SIZE), torch.float32),
        ((BATCH, 3, SIZE, SIZE), torch.float32),
        ((BATCH, 1, SIZE, SIZE), torch.bool),
        ((BATCH, CHOSEN, 3, 9), torch.float32),
    ]
)
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
    ring = Ring(job.workers, PREFETCH + IN_USE, _BLOCK.bytes)

    def hand_over(samples: list[Sample]) -> tuple[int, list[str], list[list[int]]]:
        place, memory = ring.free_place()
        _lay(samples, memory)
        return place, [sample.key for sample in samples], [sample.lights for sample in samples]

    options = {"collate_fn": hand_over, "worker_init_fn": prepare_reader}
    for place, keys, lights in loader(Visits(reader), job, batch_sampler=batches, **options):
        yield Batch(keys, lights, *_BLOCK.of(ring.take(place)))


def _lay(samples: list[Sample], memory: Tensor) -> None:
    """Stack samples there as relightx.data.collate does."""
    image, albedo, normal, mask, sh = (array.numpy() for array in _BLOCK.of(memory))
    for row, sample in enumerate(samples):
        for each, planes in zip(sample.image, image[row], strict=True):
            cv2.split(each, list(planes))
        cv2.split(sample.albedo, list(albedo[row]))
        cv2.split(sample.normal, list(normal[row]))
        mask[row, 0], sh[row] = sample.mask, sample.sh


def _index(job: Job) -> Index:
    options = S3Options(endpoint_url=job.endpoint) if job.is_far else None
    return read_index(job.place, options, job.cache_path if job.is_far else None)


def _order(job: Job, index: Index) -> RankBatches:
    order = TrainingOrder([index.groups_per_shard], seed=0, window=WINDOW)
    return RankBatches(order, BATCH, 0, job.batches)
