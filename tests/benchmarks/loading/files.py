"""A plain Dataset over loose files: one directory for each portrait, one file for each member.

Only the files wanted are opened. From S3 each is an object, and a request through boto3.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
from loading.batch import (
    BATCH,
    Batch,
    Sample,
    collate,
    decoded,
    draw,
    members_of,
    of_pictures,
    pixels,
)
from loading.job import Job, loader
from torch.utils.data import Dataset, get_worker_info

_LIST = "portraits.json"
_THREADS = 6


def write(portraits: Iterable[tuple[str, dict[str, bytes]]], directory: Path, _total: int) -> None:
    """The files, and a list of the portraits' keys."""
    keys = []
    for key, members in portraits:
        (directory / key).mkdir(parents=True)
        for extension, data in members.items():
            (directory / key / extension).write_bytes(data)
        keys.append(key)
    (directory / _LIST).write_text(json.dumps(keys))


class LooseFiles(Dataset):
    """Portraits by number. by_hand: the project's decoder, and the requests of one side by side."""

    def __init__(self, job: Job, by_hand: bool) -> None:
        self.job, self.by_hand = job, by_hand
        self._get: Callable[[str], bytes] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._rng: np.random.Generator | None = None
        self.keys = json.loads(_getter(job)(_LIST))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Sample:
        if self._get is None:  # in the worker: clients and threads do not live through a fork
            self._get = _getter(self.job)
            self._rng = np.random.default_rng(get_worker_info().seed)
            self._pool = ThreadPoolExecutor(_THREADS) if self.job.is_far and self.by_hand else None
        key, lights = self.keys[number], draw(self._rng, self.job.lights)
        wanted = members_of(lights)
        each = map if self._pool is None else self._pool.map
        members = dict(
            zip(wanted, each(self._get, [f"{key}/{name}" for name in wanted]), strict=True)
        )
        if self.by_hand:
            return decoded(key, members, lights)
        pictures: dict[str, Any] = {name: pixels(name, data) for name, data in members.items()}
        return of_pictures(key, pictures, lights)


def _batches(job: Job, by_hand: bool) -> Iterator[Batch]:
    files = LooseFiles(job, by_hand)
    return iter(
        loader(files, job, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=collate)
    )


plain = partial(_batches, by_hand=False)
by_hand = partial(_batches, by_hand=True)


def _getter(job: Job) -> Callable[[str], bytes]:
    """What gives a file by its path below the job's place."""
    if not job.is_far:
        return lambda name: Path(os.path.join(job.place, name)).read_bytes()
    address = urlsplit(job.place)
    client = boto3.client("s3", endpoint_url=job.endpoint)
    prefix = address.path.lstrip("/")

    def get(name: str) -> bytes:
        return client.get_object(Bucket=address.netloc, Key=f"{prefix}/{name}")["Body"].read()

    return get
