"""Read a finished data set for its checks and pictures (training reads with relightx.data).

A data set is named by a path, an s3:// URL or an open `Folder`. Of a shard only the bytes asked for
are read, which in S3 are ranges of its object.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relightx.index import NAME, GroupEntry, Index, read_index
from relightx.storage import Folder, LocalFolder, open_folder
from shards.splits import SPLITS

Place = str | Path | Folder
"""Where a data set or a split is; to reach S3 otherwise than by default, open its Folder."""

_GAP_BYTES = 64 * 2**10
"""Bytes between two members that are read rather than asked for anew."""


class SplitPlace(NamedTuple):
    """A split as the name of its folder and where that is."""

    name: str
    folder: Folder


def folder_at(place: Place) -> Folder:
    """The folder at a place; raises ValueError for a URL of an unknown kind."""
    return place if isinstance(place, Folder) else open_folder(place)


def name_of(place: Place) -> str:
    """The last part of a place's name: what people call the data set."""
    folder = folder_at(place)
    if isinstance(folder, LocalFolder):
        return Path(folder.url).resolve().name
    return folder.url.rstrip("/").rpartition("/")[2]


def find_splits(place: Place) -> list[SplitPlace]:
    """The splits of a data set, or the split that the folder itself is.

    A folder of a split's name that holds shards counts although its index is missing.
    Raises ValueError when there is nothing that relightx-shards makes.
    """
    folder = folder_at(place)
    if isinstance(folder, LocalFolder) and not Path(folder.url).is_dir():
        found = "is a file" if Path(folder.url).exists() else "does not exist"
        raise ValueError(f"{folder.url}: {found}; the directory of a data set is needed")
    if folder.size(NAME) is not None:
        return [SplitPlace(name_of(folder), folder)]
    held = [place for place in _split_places(folder) if _holds_shards(place.folder)]
    if not held:
        raise ValueError(
            f"{folder.url}: no {NAME} here nor in {', '.join(SPLITS)}; needed is a data set made by"
            " relightx-shards build (an interrupted build leaves none)"
        )
    return held


def read_splits(place: Place) -> dict[str, Index]:
    """The index of each split; raises ValueError for a missing or broken one."""
    return {split.name: read_split(split) for split in find_splits(place)}


def read_split(split: SplitPlace) -> Index:
    """The index of a split; raises ValueError, naming it, when it is missing or broken."""
    return read_index(split.folder)


def read_members(
    place: Place, shard: str, group: GroupEntry, extensions: list[str] | None = None
) -> dict[str, bytes]:
    """The content of a group's members, all in the shard's order when no extensions are named.

    place: the folder of the split. shard: name of the file in it that holds the group.
    Raises ValueError for a member that the index does not have, OSError when the shard is not there
    or ends before it.
    """
    folder = folder_at(place)
    if extensions is None:
        extensions = sorted(group.members, key=group.members.__getitem__)
    for extension in extensions:
        if extension not in group.members:
            where = folder.url_of(shard)
            raise ValueError(f"{where}: portrait {group.key!r} has no member {extension}")
    found: dict[str, bytes] = {}
    for run in _runs(sorted((*group.members[extension], extension) for extension in extensions)):
        start, end = run[0][0], max(offset + size for offset, size, _ in run)
        data = folder.read(shard, start, end - start)
        for offset, size, extension in run:
            found[extension] = data[offset - start : offset - start + size]
    return {extension: found[extension] for extension in extensions}


def _split_places(folder: Folder) -> Iterator[SplitPlace]:
    for name in SPLITS:
        yield SplitPlace(name, folder.child(name))


def _holds_shards(folder: Folder) -> bool:
    if folder.size(NAME) is not None:
        return True
    return any(name.endswith(".tar") and "/" not in name for name in folder.names())


def _runs(members: list[tuple[int, int, str]]) -> Iterator[list[tuple[int, int, str]]]:
    """(offset, size, extension) in order, parted where there is much between two of them."""
    run: list[tuple[int, int, str]] = []
    end = 0
    for offset, size, extension in members:
        if run and offset - end > _GAP_BYTES:
            yield run
            run = []
        run.append((offset, size, extension))
        end = max(end, offset + size)
    if run:
        yield run
