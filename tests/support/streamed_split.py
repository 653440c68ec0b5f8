"""Small splits to stream, and what tells two streams apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from balls import ball
from torch.utils.data import DataLoader

from relightx.data.stream import Streamed, StreamedPortraits
from relightx.data.workers import prepare_reader
from relightx.index import Index, read_index, write_index
from shards.write import Packed, ShardWriter, pack

LIGHTS = 4


@dataclass(frozen=True)
class Pick:
    """What was drawn."""

    number: int
    lights: list[int]
    change: float


def pick(number: int, rng: np.random.Generator) -> Pick:
    return Pick(number, rng.choice(LIGHTS, 2, replace=False).tolist(), float(rng.random()))


def pick_all(number: int, rng: np.random.Generator) -> Pick:
    return Pick(number, list(range(LIGHTS)), float(rng.random()))


def pick_first(number: int, rng: np.random.Generator) -> Pick:
    return Pick(number, [0, 1], float(rng.random()))


def as_they_are(streamed: list[Streamed]) -> list[Streamed]:
    return streamed


def ball_number(number: int) -> Packed:
    return pack(ball(f"ball{number}", f"person{number}", LIGHTS, size=16, seed=number))


def write(directory: Path, shards: list[list[Packed]]) -> Path:
    """A split of these shards."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, packed in enumerate(shards):
        writer = ShardWriter(directory / f"shard-{number}.tar")
        for portrait in packed:
            writer.add(portrait)
        entries.append(writer.close())
    write_index(directory, "train", entries)
    return directory


def streamed(split: Path | list[Index], visits: int = 40, **options) -> StreamedPortraits:
    """A stream of one portrait a batch."""
    indexes = split if isinstance(split, list) else [read_index(split)]
    chosen = {"draw": pick, "batch_size": 1, "num_batches": visits, "seed": 0, "buffer": 8}
    return StreamedPortraits(indexes, **(chosen | options))


def visits(stream: StreamedPortraits | Iterator[Streamed]) -> list[tuple]:
    """What tells two streams apart."""
    return [(one.draw.number, one.draw.lights, one.draw.change) for one in stream]


def loader(stream: StreamedPortraits, num_workers: int) -> DataLoader:
    return DataLoader(
        stream,
        batch_size=stream.batch_size,
        collate_fn=as_they_are,
        num_workers=num_workers,
        worker_init_fn=prepare_reader,
    )
