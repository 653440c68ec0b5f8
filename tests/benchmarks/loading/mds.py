"""mosaicml-streaming: MDS shards through StreamingDataset, shuffled by its default algorithm.

Every member of a portrait is a column. Its 'png' column stores a PNG as it is and gives a Pillow
picture that decodes itself when its pixels are asked for. So lights are chosen before they are
decoded even where nothing is done by hand; but the bytes of all are read, and all are opened.
Pictures of 16 bits are 'bytes' columns, since Pillow cannot decode them in colour.

"labels as arrays" stores what it decodes slowest, albedo and normals, as plain 'ndarray' columns:
another format, with more bytes, that needs no decoder at all.
"""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loading.batch import (
    BATCH,
    Batch,
    Sample,
    collate,
    decoded,
    deep_pixels,
    draw,
    is_deep,
    members_of,
    of_pictures,
    with_arrays,
)
from loading.heads import SIZE
from loading.job import Job, loader
from loading.tar import SHARDS
from torch.utils.data import get_worker_info

if torch.version.cuda is None and "+cpu" not in version("torchvision"):
    # streaming imports torchvision, of which it uses nothing here. Without these two operators,
    # which a build for CUDA cannot bring to a torch for the CPU, that import fails.
    _operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import MDSWriter, StreamingDataset

_ARRAY = f"ndarray:uint16:{SIZE},{SIZE},3"


def write(portraits: Iterable[tuple[str, dict[str, bytes]]], directory: Path, total: int) -> None:
    """Shards with the members as they are, and an index that says what they are.

    total: bytes of all members.
    """
    _write(portraits, directory, total, arrays=False)


def write_arrays(
    portraits: Iterable[tuple[str, dict[str, bytes]]], directory: Path, total: int
) -> None:
    """The same with albedo and normals decoded."""
    _write(portraits, directory, total, arrays=True)


def _write(portraits: Iterable, directory: Path, total: int, arrays: bool) -> None:
    writer = None
    for key, members in portraits:
        if writer is None:
            columns = dict.fromkeys(["key", *members], "bytes")
            if arrays:
                columns |= {name: _ARRAY for name in members if is_deep(name)}
            writer = MDSWriter(columns=columns, out=str(directory), size_limit=total // SHARDS)
        stored = with_arrays(members) if arrays else members
        writer.write({"key": key.encode(), **stored})
    writer.finish()
    _name_encodings(directory / "index.json")


def _name_encodings(file: Path) -> None:
    """Say in the index which columns are pictures; the writer would encode them anew."""
    index = json.loads(file.read_text())
    for shard in index["shards"]:
        shard["column_encodings"] = [
            _encoding(name, found)
            for name, found in zip(shard["column_names"], shard["column_encodings"], strict=True)
        ]
    file.write_text(json.dumps(index))


def _encoding(name: str, written: str) -> str:
    if name == "key":
        return "str"
    if name == "meta.json":
        return "json"
    return "png" if name.endswith(".png") and not is_deep(name) else written


class Portraits(StreamingDataset):
    """Portraits under lights drawn in the worker. by_hand: columns stay bytes until the project's
    decoder has those of the lights drawn."""

    def __init__(self, job: Job, by_hand: bool) -> None:
        far = {"remote": job.place, "local": job.cache}
        super().__init__(
            **(far if job.is_far else {"local": job.place}), shuffle=True, batch_size=BATCH
        )
        for stream in self.streams:
            # Or all forked workers would ask on the connection that the index came by, and wait for
            # each other's answers: half of the runs with two workers stood still for a minute.
            stream._downloader.clean_up()
        self.held, self.by_hand = job.lights, by_hand
        self._rng: np.random.Generator | None = None
        if by_hand:
            for shard in self.shards:
                shard.column_encodings = ["bytes"] * len(shard.column_names)

    def __getitem__(self, at: Any) -> Sample:
        if self._rng is None:
            self._rng = np.random.default_rng(get_worker_info().seed)
        row: dict[str, Any] = super().__getitem__(at)
        lights = draw(self._rng, self.held)
        if self.by_hand:
            members = {name: row[name] for name in members_of(lights)}
            return decoded(row["key"].decode(), members, lights)
        for name in ("albedo.png", "normal.png"):
            if isinstance(row[name], bytes):
                row[name] = deep_pixels(row[name])
        return of_pictures(row["key"], row, lights)


def _batches(job: Job, by_hand: bool) -> Iterator[Batch]:
    dataset = Portraits(job, by_hand)
    return iter(loader(dataset, job, batch_size=BATCH, drop_last=True, collate_fn=collate))


as_documented = partial(_batches, by_hand=False)
by_hand = partial(_batches, by_hand=True)
