"""Labels for photographs that have none: what a trained model says of every portrait of a split.

One folder, read again by a source of shards (`relightx-shards build celeba --pseudolabels DIR`):
four files for each portrait (relightx.labelfiles) and, written last, pseudolabels.json with model,
data and confidence of the whole. A portrait under several lights gets one albedo and one normal
map. What confidence is, and how several answers become one: relightx.confidence.

All is written to a hidden folder that gets its name when it is whole. A portrait is done when its
light.json is there; a run that was stopped goes on with `resume`.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relightx.batch import Decomposition
from relightx.checkpoint import WEIGHTS, load_model, model_directory
from relightx.confidence import Consensus, consensus
from relightx.data import DataConfig, open_splits, whole_reader
from relightx.data.fit import fit
from relightx.data.read import ShardReader
from relightx.data.workers import prepare_reader
from relightx.index import Index, write_atomically
from relightx.labelfiles import LAST, Place, labels_at, write_labels
from relightx.model import IntrinsicNet
from relightx.storage import S3Options

VERSION = 1
SUMMARY = "pseudolabels.json"
MAX_UNREADABLE = 0.01
"""Share of the portraits that may be unreadable before the run stops."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_IDENTITY = "begun.json"
_IMAGES = 32
"""Images that go through the network at a time."""
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Summary:
    """What was written: how many portraits, those left out and why, and each one's confidence."""

    portraits: int
    unreadable: dict[str, str]
    confidence: dict[str, Any]
    """mean, and quantiles by their share."""


class Seen(NamedTuple):
    """A portrait on the square that the model sees, and where it belongs."""

    key: str
    image: Float[Tensor, "lights 3 size size"]
    inside: Bool[Tensor, "size size"]
    place: Place


class Unreadable(NamedTuple):
    """A portrait that its shard does not give."""

    key: str
    fault: str


def pseudolabel(
    model: str | Path,
    data: str | Path,
    out: Path,
    *,
    resume: bool = False,
    workers: int = 2,
    s3: S3Options | None = None,
) -> Summary:
    """Write a model's albedo, normals, light and confidence of every portrait of a split.

    resume: go on with a run into `out` that was stopped; a whole one is left as it is.
    workers: processes that read, and threads that write. s3: how an s3:// URL is reached.
    Raises ValueError for what is no model or no split, an `out` that holds something, a stopped run
    of another model or split, answers that are not finite, and when more than MAX_UNREADABLE of
    the portraits cannot be read.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers asked; 1 or more needed")
    network, content = load_model(model)
    storage = DataConfig(s3=s3 or S3Options())
    (index,) = open_splits([str(data)], storage)
    reader = whole_reader([index], storage)
    identity = _identity(model, content, index)
    if resume and (out / SUMMARY).is_file():
        return _finished(out, identity)
    staged = _staged(out, identity, resume)
    run = _Run(index, staged)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    portraits = run.readable(_read(reader, run.to_do, content["image_size"], workers))
    writing: list[Future] = []
    with _progress(len(run.keys), len(run.to_do)) as advance, ThreadPoolExecutor(workers) as pool:
        for batch in _batches(portraits):
            labels = _answer(network, batch, device)
            _join(writing)  # no more than one batch waits for the disk
            writing = [
                pool.submit(_write, staged, seen, label)
                for seen, label in zip(batch, labels, strict=True)
            ]
            advance(len(batch))
        _join(writing)
    summary = run.summary()
    _finish(staged, out, identity, summary)
    return summary


def _identity(model: str | Path, content: dict[str, Any], index: Index) -> dict[str, Any]:
    """What the labels are a function of."""
    with open(model_directory(model) / WEIGHTS, "rb") as stream:
        weights = hashlib.file_digest(stream, "sha256").hexdigest()
    config = {**content["model"], "image_size": content["image_size"]}
    return {
        "version": VERSION,
        "model": {"config": config, "sha256": weights},
        "data": index.sha256,
    }


def _staged(out: Path, identity: dict[str, Any], resume: bool) -> Path:
    """The folder to write to, new or, to go on, the one that a stopped run left."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: already there and not empty; choose a new directory")
    staged = out.with_name(f".{out.name}.partial")
    begun = staged / _IDENTITY
    if staged.exists() and not resume:
        raise ValueError(
            f"{out}: a run into it was stopped; go on with it (--resume) or remove {staged}"
        )
    if not begun.is_file():
        staged.mkdir(parents=True, exist_ok=True)
        write_atomically(begun, json.dumps(identity).encode())
    elif _json(begun) != identity:
        raise ValueError(
            f"{staged}: the run that was stopped had another model or other data; remove it"
        )
    return staged


@dataclass
class _Run:
    """Which portraits there are, which are still to do, which cannot be read."""

    index: Index
    staged: Path
    keys: list[str] = field(init=False)
    to_do: list[int] = field(init=False)
    unreadable: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = [group.key for group in self.index.groups]
        led_out = [key for key in self.keys if Path(key).name != key]
        if led_out:
            raise ValueError(f"{self.index.path}: key {led_out[0]!r} leads out of a directory")
        done = {entry.name for entry in os.scandir(self.staged)}
        self.to_do = [n for n, key in enumerate(self.keys) if f"{key}.{LAST}" not in done]

    def readable(self, portraits: Iterable[Seen | Unreadable]) -> Iterator[Seen]:
        """Those that could be read; counts the others and stops when they are too many."""
        for portrait in portraits:
            if isinstance(portrait, Seen):
                yield portrait
                continue
            self.unreadable[portrait.key] = portrait.fault
            if len(self.unreadable) > MAX_UNREADABLE * len(self.keys):
                raise ValueError(
                    f"{len(self.unreadable)} of {len(self.keys)} portraits cannot be read, more"
                    f" than {MAX_UNREADABLE:.0%}; the last: {portrait.fault}"
                )

    def summary(self) -> Summary:
        written = [key for key in self.keys if key not in self.unreadable]
        confidence = [_json(self.staged / f"{key}.{LAST}")["confidence"] for key in written]
        quantiles = np.quantile(confidence, QUANTILES).round(4).tolist()
        return Summary(
            portraits=len(written),
            unreadable=self.unreadable,
            confidence={
                "mean": round(float(np.mean(confidence)), 4),
                "quantiles": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
            },
        )


class _Portraits(Dataset):
    """Looks a portrait up by its number in the split."""

    def __init__(self, reader: ShardReader, image_size: int) -> None:
        self.reader, self.image_size = reader, image_size

    def __getitem__(self, number: int) -> Seen | Unreadable:
        group = self.reader.group(number)
        try:
            portrait = self.reader.read(number, list(range(group.lights)), labels=False)
        except ValueError as error:
            return Unreadable(group.key, str(error))
        views = fit(portrait, self.image_size)
        image = torch.from_numpy(np.ascontiguousarray(views.image.transpose(0, 3, 1, 2)))
        return Seen(group.key, image, torch.from_numpy(views.mask), Place.of(portrait))


def _read(
    reader: ShardReader, numbers: list[int], image_size: int, workers: int
) -> Iterable[Seen | Unreadable]:
    """The portraits of these numbers in their order, read by other processes."""
    return DataLoader(
        _Portraits(reader, image_size),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=prepare_reader,
    )


def _as_it_is(portrait: Seen | Unreadable) -> Seen | Unreadable:
    return portrait


def _batches(portraits: Iterable[Seen]) -> Iterator[list[Seen]]:
    """Portraits whose images together fill the network once."""
    batch: list[Seen] = []
    for portrait in portraits:
        batch.append(portrait)
        if sum(len(seen.image) for seen in batch) >= _IMAGES:
            yield batch
            batch = []
    if batch:
        yield batch


@torch.no_grad()
def _answer(network: IntrinsicNet, batch: list[Seen], device: torch.device) -> list[Consensus]:
    """Each portrait's labels at the model's size, on the CPU."""
    counts = [len(seen.image) for seen in batch]
    image = torch.cat([seen.image for seen in batch]).to(device)
    found = [
        Consensus(*(value.cpu() for value in consensus(pred, mirrored, one, inside.to(device))))
        for pred, mirrored, one, inside in zip(
            _portraits_of(_decompose(network, image), counts),
            _portraits_of(_decompose(network, image.flip(-1)), counts),
            image.split(counts),
            [seen.inside for seen in batch],
            strict=True,
        )
    ]
    for seen, labels in zip(batch, found, strict=True):
        if not all(value.isfinite().all() for value in labels):
            raise ValueError(f"portrait {seen.key!r}: the model's answer is not finite")
    return found


def _portraits_of(pred: Decomposition, counts: list[int]) -> list[Decomposition]:
    """The answer for each portrait, which has so many of the lights."""
    parts = [value.split(counts, dim=1) for value in pred]
    return [Decomposition(*values) for values in zip(*parts, strict=True)]


def _decompose(network: IntrinsicNet, image: Float[Tensor, "images 3 size size"]) -> Decomposition:
    """The network's answer for each image, as the lights of a batch of one."""
    parts = [network(some[None]) for some in image.split(_IMAGES)]
    return Decomposition(*(torch.cat(values, dim=1) for values in zip(*parts, strict=True)))


def _write(directory: Path, seen: Seen, found: Consensus) -> None:
    write_labels(directory, seen.key, labels_at(seen.place, found, seen.inside))


def _join(writing: list[Future]) -> None:
    """Wait for what is being written, and raise what went wrong."""
    for future in writing:
        future.result()


def _finish(staged: Path, out: Path, identity: dict[str, Any], summary: Summary) -> None:
    """Write the summary and give the folder its name."""
    content = {
        **identity,
        "portraits": summary.portraits,
        "unreadable": summary.unreadable,
        "confidence": summary.confidence,
    }
    write_atomically(staged / SUMMARY, (json.dumps(content, indent=1) + "\n").encode())
    os.replace(staged, out)  # over an empty folder, if there is one
    (out / _IDENTITY).unlink()


def _finished(out: Path, identity: dict[str, Any]) -> Summary:
    """The summary of a run that is whole already."""
    content = _json(out / SUMMARY)
    if {name: content.get(name) for name in identity} != identity:
        raise ValueError(f"{out}: is of another model or other data; choose a new directory")
    return Summary(content["portraits"], content["unreadable"], content["confidence"])


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds no JSON object")
    return content


@contextmanager
def _progress(total: int, to_do: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how many portraits more are done; tells a person on stderr."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("portraits", total=total, completed=total - to_do)
            yield lambda more: bar.advance(task, more)
        return
    begun = told = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, told
        done += more
        now = time.monotonic()
        if now - told >= _SECONDS_BETWEEN_LINES:
            told = now
            rate, so_far = done / (now - begun), total - to_do + done
            print(f"{so_far} of {total} portraits, {rate:.1f}/s", file=sys.stderr, flush=True)

    yield advance
