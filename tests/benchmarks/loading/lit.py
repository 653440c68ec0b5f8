"""litdata: optimised chunks through StreamingDataset and StreamingDataLoader, shuffled.

Every member is a leaf of the item, and litdata decodes all leaves of an item before it gives it.
Its own picture serializer needs torchvision, which cannot decode 16 bits, so pictures go through
one of ours, as its option `serializers` allows: Pillow and OpenCV, as for the others. By hand, the
serializer gives the bytes, and the project's decoder has those of the lights drawn.

"labels as arrays": see loading.mds.
"""

import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import downloader
from litdata.streaming.serializers import Serializer
from litdata.streaming.writer import BinaryWriter
from loading.batch import (
    BATCH,
    Batch,
    Sample,
    collate,
    decoded,
    deep_pixels,
    draw,
    members_of,
    of_pictures,
    with_arrays,
)
from loading.job import Job, worker_options
from loading.tar import SHARDS
from PIL import Image
from torch.utils.data import get_worker_info

_MEMBER = "member"

# litdata downloads with obstore, which refuses a server without TLS, and has no option for that.
downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True


class AsStored(Serializer):
    """A member's bytes."""

    def serialize(self, item: bytes) -> tuple[bytes, None]:
        return item, None

    def deserialize(self, data: bytes) -> Any:
        return bytes(data)

    def can_serialize(self, item: Any) -> bool:
        return isinstance(item, bytes)


class Decoded(AsStored):
    """Pixels, or what a JSON says."""

    def deserialize(self, data: bytes) -> Any:
        data = bytes(data)
        if data.startswith(b"{"):
            return json.loads(data)
        if data[24] == 16:  # bits of a PNG
            return deep_pixels(data)
        return np.asarray(Image.open(io.BytesIO(data)))


def write(portraits: Iterable[tuple[str, dict[str, bytes]]], directory: Path, total: int) -> None:
    """Chunks with the members as they are. total: bytes of all members."""
    _write(portraits, directory, total, arrays=False)


def write_arrays(
    portraits: Iterable[tuple[str, dict[str, bytes]]], directory: Path, total: int
) -> None:
    """The same with albedo and normals decoded."""
    _write(portraits, directory, total, arrays=True)


def _write(portraits: Iterable, directory: Path, total: int, arrays: bool) -> None:
    writer = BinaryWriter(
        str(directory), chunk_bytes=total // SHARDS, serializers={_MEMBER: AsStored()}
    )
    for number, (key, members) in enumerate(portraits):
        stored = with_arrays(members) if arrays else members
        writer[number] = {"key": key, **stored}
    writer.done()
    writer.merge()


class _Choose:
    """What the data set does with each item: under lights drawn in the worker, a sample."""

    def __init__(self, held: int, by_hand: bool) -> None:
        self.held, self.by_hand = held, by_hand
        self._rng: np.random.Generator | None = None

    def __call__(self, item: dict[str, Any]) -> Sample:
        if self._rng is None:
            self._rng = np.random.default_rng(get_worker_info().seed)
        lights = draw(self._rng, self.held)
        if not self.by_hand:
            return of_pictures(item["key"], item, lights)
        return decoded(item["key"], {name: item[name] for name in members_of(lights)}, lights)


def _batches(job: Job, by_hand: bool) -> Iterator[Batch]:
    dataset = StreamingDataset(
        job.place,
        cache_dir=job.cache if job.is_far else None,
        storage_options={"endpoint_url": job.endpoint} if job.is_far else None,
        shuffle=True,
        drop_last=True,
        serializers={_MEMBER: AsStored() if by_hand else Decoded()},
        transform=_Choose(job.lights, by_hand),
    )
    options = worker_options(job)
    return iter(StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=collate, **options))


as_documented = partial(_batches, by_hand=False)
by_hand = partial(_batches, by_hand=True)
