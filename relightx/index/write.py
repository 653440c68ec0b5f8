"""Write the index of a split whose shards are known, in one pass and with flat memory.

The columns of the table grow in files of their own and are put together at the end, when their
lengths are known; subjects, whose numbers follow the order of their names, are kept in SQLite.
"""

import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from relightx.index.columns import COLUMNS, TABLE, Written, write_columns
from relightx.index.contents import MOST_LAYOUTS, NAME, ListedShard, rest_text, shard_text
from relightx.index.entries import GroupEntry, ShardEntry, Totals
from relightx.index.spill import SpilledColumns, SpilledSubjects
from relightx.index.table import header_bytes, padded
from relightx.storage import saying_full
from relightx.storage.folder import sync

_CHUNK = 1 << 20


def write_index(directory: Path, split: str, shards: Iterable[ShardEntry]) -> Path:
    """Write the table and then the index.json of a finished split; the path of the latter.

    shards: read once, one in memory at a time. An index that is there goes before its table does.
    Raises ValueError, with nothing changed, for keys that occur twice, for a portrait whose members
    do not follow each other in its shard, and for more than the table can hold; OSError, naming the
    file, for a disk that is full.
    """
    file = directory / NAME
    with (
        saying_full(file),
        tempfile.TemporaryDirectory(prefix=".index-", dir=directory) as inner,
        ExitStack() as files,
    ):
        place = Path(inner)
        writer = _Writer(place, files)
        listing = files.enter_context(open(place / NAME, "w", encoding="utf-8"))
        listing.write('{"shards": [')
        for number, shard in enumerate(shards):
            listing.write((", " if number else "") + shard_text(writer.add(shard)))
        table = writer.finish(place / TABLE)
        listing.write("]" + rest_text(split, writer.totals, list(writer.layouts), table))
        listing.close()
        sync(place / NAME)
        file.unlink(missing_ok=True)
        for name in (TABLE, NAME):
            os.replace(place / name, directory / name)
    sync(directory)
    return file


def write_atomically(path: Path, data: bytes) -> Path:
    """Write a file so that it is there whole or not at all."""
    staged = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with open(staged, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    return path


class _Writer:
    """The table of a split; its columns grow in `directory`, and `files` closes them."""

    def __init__(self, directory: Path, files: ExitStack) -> None:
        self.layouts: dict[tuple[str, ...], int] = {}
        self._columns = SpilledColumns(directory, files)
        self._subjects = SpilledSubjects(directory, files)
        self._shards = self._groups = self._images = self._num_subjects = self._bytes = 0
        self._key_bytes = self._members = 0

    @property
    def totals(self) -> Totals:
        """What was written; of subjects there are none before the end."""
        return Totals(self._shards, self._groups, self._images, self._num_subjects, self._bytes)

    def add(self, shard: ShardEntry) -> ListedShard:
        """Note a shard's portraits; raises ValueError for those that the table cannot hold."""
        for group in shard.groups:
            try:
                self._add(group)
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{shard.name}: portrait {group.key!r}: {error}") from None
        self._shards += 1
        self._groups += len(shard.groups)
        self._bytes += shard.bytes
        return ListedShard(shard.name, shard.bytes, shard.sha256, len(shard.groups))

    def finish(self, file: Path) -> Written:
        """Write the table; the numbers of subjects become those of their sorted names.

        Raises ValueError for keys that occur twice.
        """
        columns = self._columns
        same = columns.same_keys()
        if same:
            where = file.parent.parent / TABLE
            raise ValueError(f"{where}: group keys occur twice: {', '.join(same)}")
        rank = self._subjects.write(columns)
        self._num_subjects = len(rank)
        subject = columns.values("subject", "r+")
        for start in range(0, len(subject), _CHUNK):
            subject[start : start + _CHUNK] = rank[subject[start : start + _CHUNK]]
        return write_columns(file, {name: columns.values(name) for name in COLUMNS})

    def _add(self, group: GroupEntry) -> None:
        key, columns = group.key.encode("utf-8", "surrogatepass"), self._columns
        offset, layout, sizes = _run(group, len(key))
        number = self.layouts.setdefault(layout, len(self.layouts))
        if number >= MOST_LAYOUTS:
            raise ValueError(f"its members are named otherwise than in {MOST_LAYOUTS} ways before")
        self._images += group.lights
        self._key_bytes += len(key)
        self._members += len(sizes)
        columns.add_key(group.key)
        columns.extend("key", key)
        columns.append("key_end", self._key_bytes)
        columns.extend("size", sizes)
        columns.append("size_end", self._members)
        columns.append("subject", self._subjects.number(group.subject))
        columns.append("lights", group.lights)
        columns.append("layout", number)
        columns.append("offset", offset)


def _run(group: GroupEntry, key_bytes: int) -> tuple[int, tuple[str, ...], list[int]]:
    """Where a portrait's members begin, their names and sizes, in the shard's order."""
    members = sorted(group.members.items(), key=lambda member: member[1])
    if not members:
        raise ValueError("has no members")
    end = 0
    for extension, (offset, size) in members:
        begin = end + header_bytes(key_bytes + 1 + len(extension.encode()))
        if end and offset != begin:
            raise ValueError(
                f"{extension} begins at byte {offset} of the shard, not at {begin}, where the"
                " member before it ends; an index needs them one after the other"
            )
        end = offset + padded(size)
    return members[0][1][0], tuple(name for name, _ in members), [size for _, (_, size) in members]
