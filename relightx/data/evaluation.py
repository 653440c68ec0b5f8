"""Evaluation reads every portrait exactly once, on any number of processes.

All ranks take equally many steps, or they would wait for each other; those that only fill up
repeat the last portrait with `valid` False. Who counts must find as many valid portraits as the
indexes hold.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from relightx.batch import Batch
from relightx.data.collate import collate
from relightx.data.fit import fit
from relightx.data.portraits import Example
from relightx.data.read import ShardReader
from relightx.data.workers import prepare_reader
from relightx.index import Index


def evaluation_batches(
    indexes: Sequence[Index],
    image_size: int,
    max_lights: int | None = None,
    rank: int = 0,
    num_ranks: int = 1,
    *,
    num_workers: int = 0,
    reader: ShardReader | None = None,
) -> Iterator[tuple[str, Batch]]:
    """Key and batch of every portrait, one at a time under all its lights, in index order.

    max_lights: at most so many lights, evenly spaced. reader: how shards are read; None: local
    files, as they lie. Raises ValueError for a key that stands in two splits, since scores are kept
    by key, and for what cannot be read.
    """
    _refuse_shared_keys(indexes)
    portraits = _Portraits(reader or ShardReader(indexes), image_size, max_lights)
    steps = -(-len(portraits) // num_ranks)
    yield from DataLoader(
        portraits,
        batch_size=None,
        sampler=range(rank, steps * num_ranks, num_ranks),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        worker_init_fn=prepare_reader,
    )


class _Portraits(Dataset):
    """Looks up a portrait by its place in the steps of all ranks."""

    def __init__(self, reader: ShardReader, image_size: int, max_lights: int | None) -> None:
        self.reader, self.image_size, self.max_lights = reader, image_size, max_lights

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, place: int) -> tuple[str, Batch]:
        number = min(place, len(self) - 1)
        available = int(self.reader.lights[number])
        count = min(available, self.max_lights or available)
        lights = np.linspace(0, available - 1, count).round().astype(int).tolist()
        views = fit(self.reader.read(number, lights), self.image_size)
        has = [label is not None for label in (views.albedo, views.normal, views.sh)]
        batch = collate([Example(views, *has)])
        return self.reader.key(number), batch._replace(valid=torch.tensor([place == number]))


def _as_it_is(item: tuple[str, Batch]) -> tuple[str, Batch]:
    return item


def _refuse_shared_keys(indexes: Sequence[Index]) -> None:
    """One split's keys are unique already."""
    if len(indexes) < 2:
        return
    seen: set[str] = set()
    for index in indexes:
        keys = {group.key for group in index.groups}
        if shared := seen & keys:
            raise ValueError(
                f"{index.path}: portrait {min(shared)!r} is in another of the splits too"
            )
        seen |= keys
