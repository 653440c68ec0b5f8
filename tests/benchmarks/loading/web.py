"""webdataset with the pipeline of open_clip (open_clip_train/data.py, get_wds_dataset).

As there: shards drawn with replacement by a generator seeded for each worker, tars expanded and
grouped by keys with a handler that goes on after errors, a shuffle buffer of undecoded samples,
decode, a map to what the model takes, to_tuple, batched in the worker, a WebLoader.

Otherwise than there: open_clip's buffer holds 5000 samples and begins to give some at 1000, here 64
and 64. A worker would have to read 1000 groups of 64 lights, 1.5 GB, before its first batch and
hold 7 GB later; and until a buffer is full, two samples are read for each that is given.

From S3 shards come by http through curl, as webdataset documents it (it knows no s3://), with
FileCache between, its cache of whole shards.
"""

import logging
import random
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import webdataset as wds
from loading.batch import (
    BATCH,
    CHOSEN,
    Batch,
    Sample,
    collate,
    decoded,
    deep_pixels,
    draw,
    is_deep,
    members_of,
    of_pictures,
)
from loading.job import Job, worker_options
from torch.utils.data import IterableDataset, get_worker_info
from webdataset.cache import FileCache
from webdataset.tariterators import group_by_keys, tar_file_expander, url_opener

from relightx.index import read_index
from relightx.sample import light_extension
from relightx.storage import S3Options

_BUFFER = 64


class ResampledShards(IterableDataset):
    """Shards with replacement, without an end: open_clip's ResampledShards2."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self.urls = urls

    def __iter__(self) -> Iterator[dict[str, str]]:
        rng = random.Random(get_worker_info().seed)
        for _ in range(sys.maxsize):
            yield {"url": rng.choice(self.urls)}


def log_and_continue(error: Exception) -> bool:
    """open_clip's handler."""
    logging.warning("Handling webdataset error (%r). Ignoring.", error)
    return True


def as_open_clip(job: Job) -> Iterable[Batch]:
    """All members are decoded, "rgb8" being Pillow; lights are chosen when there are pictures."""
    return _loaded(
        job,
        partial(_samples, job=job, select=None),
        wds.shuffle(bufsize=_BUFFER, initial=_BUFFER),
        wds.decode(_deep, "rgb8", handler=log_and_continue),
        wds.map(partial(_chosen, held=job.lights)),
    )


def by_hand(job: Job) -> Iterable[Batch]:
    """Lights are chosen while the tar is read; only their members are kept and decoded, by the
    project's decoder."""
    return _loaded(
        job,
        partial(_samples, job=job, select=_Select(job.lights)),
        wds.shuffle(bufsize=_BUFFER, initial=_BUFFER),
        wds.map(_decoded),
    )


def fill(job: Job) -> None:
    """Have all shards in the cache."""
    cache = FileCache(job.cache)
    for url in _urls(job):
        cache.get_file(url)


def _loaded(job: Job, *stages: Any) -> Iterable[Batch]:
    dataset = wds.DataPipeline(
        ResampledShards(_urls(job)),
        *stages,
        wds.to_tuple("sample"),
        wds.batched(BATCH, collation_fn=_collate, partial=False),
    ).with_epoch(-(-job.batches // job.workers))
    return wds.WebLoader(dataset, batch_size=None, shuffle=False, **worker_options(job))


def _urls(job: Job) -> list[str]:
    index = read_index(job.place, S3Options(endpoint_url=job.endpoint) if job.is_far else None)
    urls = [index.folder.url_of(shard.name) for shard in index.shards]
    if not job.is_far:
        return urls
    return [f"{job.endpoint}/{urlsplit(url).netloc}{urlsplit(url).path}" for url in urls]


def _samples(source: Iterable, job: Job, select: Any) -> Iterator[dict[str, Any]]:
    """open_clip's tarfile_to_samples_nothrow, with the cache in the place of its opener."""
    opener = FileCache(job.cache, handler=log_and_continue) if job.is_far else url_opener
    streams = opener(source)
    files = tar_file_expander(streams, handler=log_and_continue, select_files=select)
    return group_by_keys(files, handler=log_and_continue)


class _Select:
    """Which members of the tar are kept: of each portrait, lights drawn when it begins."""

    def __init__(self, held: int) -> None:
        self.held, self.rng = held, None
        self._key, self._wanted = "", frozenset()

    def __call__(self, name: str) -> bool:
        key, _, extension = name.partition(".")
        if self.rng is None:
            self.rng = np.random.default_rng(get_worker_info().seed)
        if key != self._key:
            self._key, self._wanted = key, frozenset(members_of(draw(self.rng, self.held)))
        return extension in self._wanted


def _deep(extension: str, data: bytes) -> np.ndarray | None:
    return deep_pixels(data) if is_deep(extension.removeprefix(".")) else None


def _chosen(sample: dict[str, Any], held: int) -> dict[str, Sample]:
    lights = random.sample(range(held), CHOSEN)
    return {"sample": of_pictures(sample["__key__"], sample, lights)}


def _decoded(sample: dict[str, Any]) -> dict[str, Sample]:
    held = {name for name in sample if name.startswith("light")}
    lights = sorted(int(name[5:8]) for name in held)
    assert held == {light_extension(light) for light in lights}
    return {"sample": decoded(sample["__key__"], sample, lights)}


def _collate(rows: list[tuple[Sample]]) -> Batch:
    return collate([sample for (sample,) in rows])
