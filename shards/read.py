"""Read a finished data set for its checks and pictures (training reads with relightx.data)."""

from pathlib import Path
from typing import NamedTuple

from relightx.index import NAME, GroupEntry, Index, read_index
from shards.splits import SPLITS


class SplitPlace(NamedTuple):
    """A split as the name of its directory and where that is."""

    name: str
    directory: Path


def find_splits(directory: Path) -> list[SplitPlace]:
    """The splits of a data set, or the split that the directory itself is.

    A directory of a split's name that holds shards counts although its index is missing.
    Raises ValueError when there is nothing that relightx-shards makes.
    """
    if not directory.is_dir():
        found = "is a file" if directory.exists() else "does not exist"
        raise ValueError(f"{directory}: {found}; the directory of a data set is needed")
    if (directory / NAME).exists():
        return [SplitPlace(directory.name, directory)]
    places = [SplitPlace(name, directory / name) for name in SPLITS if (directory / name).is_dir()]
    held = [p for p in places if (p.directory / NAME).exists() or any(p.directory.glob("*.tar"))]
    if not held:
        raise ValueError(
            f"{directory}: no {NAME} here nor in {', '.join(SPLITS)}; needed is a data set made by"
            " relightx-shards build (an interrupted build leaves none)"
        )
    return held


def read_splits(directory: Path) -> dict[str, Index]:
    """The index of each split; raises ValueError for a missing or broken one."""
    return {place.name: read_index(place.directory) for place in find_splits(directory)}


def read_members(
    shard: Path, group: GroupEntry, extensions: list[str] | None = None
) -> dict[str, bytes]:
    """The content of a group's members, all when no extensions are named.

    Raises ValueError for one that the index does not have or the shard ends before.
    """
    members: dict[str, bytes] = {}
    with open(shard, "rb") as stream:
        for extension in group.members if extensions is None else extensions:
            if extension not in group.members:
                raise ValueError(f"{shard}: portrait {group.key!r} has no member {extension}")
            offset, size = group.members[extension]
            stream.seek(offset)
            members[extension] = stream.read(size)
            if len(members[extension]) != size:
                raise ValueError(f"{shard}: ends inside portrait {group.key!r}, {extension}")
    return members
