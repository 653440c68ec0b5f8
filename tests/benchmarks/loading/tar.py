"""The portraits as the project's tar shards: what relightx and webdataset read, what the other
formats are made of, and what every contestant's batches are compared with."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from loading.batch import BATCH, Batch, collate, of_portrait

from relightx.data.read import ShardReader
from relightx.index import GroupEntry, Index, ShardEntry, read_index
from shards.write import Packed, tar_bytes, write_split

SHARDS = 16
"""Shards of a data set, in every format; with fewer, workers would share them."""


def write(portraits: Iterable[Packed], directory: Path) -> None:
    """Shards of equal size and their index."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    held = list(portraits)
    shard_bytes = -(-sum(map(tar_bytes, held)) // SHARDS) + max(map(tar_bytes, held))
    write_split(held, directory, "train", shard_bytes)


def read_raw(directory: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of every portrait, in order."""
    index = read_index(directory)
    for number in range(index.num_groups):
        shard, group = index.place_of(number)
        yield group.key, raw_members(index, shard, group, list(group.members))


def raw_members(
    index: Index, shard: ShardEntry, group: GroupEntry, extensions: Sequence[str]
) -> dict[str, bytes]:
    """Some of a portrait's members as they are stored."""
    return {
        extension: index.folder.read(shard.name, *group.members[extension])
        for extension in extensions
    }


def check(batch: Batch, reference: Path) -> None:
    """Compare a batch with the portraits that it says it holds, bit by bit.

    Raises ValueError naming what differs.
    """
    index = read_index(reference)
    number_of = {index.table.key(number): number for number in range(index.num_groups)}
    reader = ShardReader([index])
    visits = list(zip(batch.key, batch.lights, strict=True))
    wanted = collate(
        [of_portrait(reader.read(number_of[key], lights), lights) for key, lights in visits]
    )
    if len(set(batch.key)) < 2 or len(batch.key) != BATCH:
        raise ValueError(f"a batch of {BATCH} portraits needed, found are {batch.key}")
    for name in ("image", "albedo", "normal", "mask", "sh"):
        found, expected = getattr(batch, name), getattr(wanted, name)
        if found.dtype != expected.dtype or not torch.equal(found, expected):
            raise ValueError(f"{name} differs: {found.dtype} {tuple(found.shape)}")
