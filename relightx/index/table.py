"""Portraits and shards of a split from its mapped table, made as they are asked for.

Nothing is decoded beforehand, and a row is checked when it is used: of ten million portraits a
process pays for those that it reads. The members of a portrait follow each other in the tar, so the
place of the first and the sizes of all say where each of them is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from relightx.index.columns import Columns
from relightx.index.contents import ListedShards
from relightx.index.entries import GroupEntry, ShardEntry

_BLOCK = 512
_NAME_BYTES = 100
"""Bytes of a member's name that fit into a tar's header; a longer one has blocks of its own."""


def padded(size: int) -> int:
    """Bytes that a content of `size` bytes takes in a tar."""
    return (size + _BLOCK - 1) & -_BLOCK


def header_bytes(name_bytes: int) -> int:
    """Bytes before a member's content that belong to it; name_bytes: of its whole name.

    GNU tar keeps a name of more than 100 bytes as a member before the member.
    """
    if name_bytes <= _NAME_BYTES:
        return _BLOCK
    return 2 * _BLOCK + padded(name_bytes + 1)


class Layout:
    """The members of a portrait, by their extensions in the order of the tar."""

    def __init__(self, extensions: Sequence[str]) -> None:
        self.name_bytes = {extension: len(extension.encode()) for extension in extensions}
        self._longest = max(self.name_bytes.values())

    def places(self, offset: int, sizes: memoryview, key_bytes: int) -> dict[str, tuple[int, int]]:
        """(offset, size) of each member; offset: where the content of the first begins."""
        found: dict[str, tuple[int, int]] = {}
        if key_bytes + 1 + self._longest <= _NAME_BYTES:  # as good as always, and twice as fast
            for extension, size in zip(self.name_bytes, sizes, strict=True):
                found[extension] = (offset, size)
                offset += (size + 2 * _BLOCK - 1) & -_BLOCK
            return found
        for (extension, name_bytes), size in zip(self.name_bytes.items(), sizes, strict=True):
            offset += header_bytes(key_bytes + 1 + name_bytes) if found else 0
            found[extension] = (offset, size)
            offset += padded(size)
        return found


class Members(Mapping[str, tuple[int, int]]):
    """Extension -> (offset, size) of a portrait, computed at the first look-up of a place.

    Which extensions there are is known without. Pickles, and is deep-copied, as a dict.
    """

    __slots__ = ("_key_bytes", "_layout", "_offset", "_places", "_sizes")

    def __init__(self, layout: Layout, sizes: memoryview, offset: int, key_bytes: int) -> None:
        self._layout, self._sizes, self._offset = layout, sizes, offset
        self._key_bytes = key_bytes
        self._places: dict[str, tuple[int, int]] | None = None

    def __getitem__(self, extension: str) -> tuple[int, int]:
        if self._places is None:
            self._places = self._layout.places(self._offset, self._sizes, self._key_bytes)
        return self._places[extension]

    def __contains__(self, extension: object) -> bool:
        return extension in self._layout.name_bytes

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.name_bytes)

    def __len__(self) -> int:
        return len(self._layout.name_bytes)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class GroupTable:
    """The portraits of a split in the order of its shards, by their number.

    Reading one raises ValueError, naming the file, when its row cannot be.
    """

    def __init__(self, columns: Columns, layouts: Sequence[tuple[str, ...]]) -> None:
        self.columns, self.name = columns, columns.name
        self.layouts = [Layout(layout) for layout in layouts]
        column = columns.column
        self.num_subjects = len(column["subject_digest"])
        # Memory views give plain integers, four times as fast as arrays do.
        self._key_end, self._key = memoryview(column["key_end"]), memoryview(column["key"])
        self._size_end, self._size = memoryview(column["size_end"]), memoryview(column["size"])
        self._subject, self._lights = memoryview(column["subject"]), memoryview(column["lights"])
        self._subject_end = memoryview(column["subject_end"])
        self._subject_name = memoryview(column["subject_name"])
        self._layout, self._offset = memoryview(column["layout"]), memoryview(column["offset"])

    def __len__(self) -> int:
        return len(self._offset)

    def group(self, number: int) -> GroupEntry:
        """The portrait of a number, from 0 on."""
        key = self._part(self._key, self._key_end, number)
        if self._layout[number] >= len(self.layouts):
            raise self._damaged(f"layout {self._layout[number]} of {len(self.layouts)}")
        layout = self.layouts[self._layout[number]]
        sizes = self._part(self._size, self._size_end, number)
        if len(sizes) != len(layout.name_bytes):
            raise self._damaged(
                f"portrait {number} has {len(sizes)} sizes for {len(layout.name_bytes)} members"
            )
        return GroupEntry(
            self._text(key, f"the key of portrait {number}"),
            self.subject(self._subject[number]),
            self._lights[number],
            Members(layout, sizes, self._offset[number], len(key)),
        )

    def key(self, number: int) -> str:
        """The key of a portrait alone."""
        key = self._part(self._key, self._key_end, number)
        return self._text(key, f"the key of portrait {number}")

    def subject(self, number: int) -> str:
        """The name of a subject by its number."""
        if number >= self.num_subjects:
            raise self._damaged(f"subject {number} of {self.num_subjects}")
        name = self._part(self._subject_name, self._subject_end, number)
        return self._text(name, f"the name of subject {number}")

    def check(self) -> None:
        """Raise ValueError for the first row that cannot be."""
        column = self.columns.column
        parts = (("key_end", "key"), ("size_end", "size"), ("subject_end", "subject_name"))
        for name, of in parts:
            end = column[name]
            whole = int(end[-1]) if len(end) else 0
            if whole != len(column[of]) or np.any(end[1:] < end[:-1]):
                raise self._damaged(f"column {name} does not part column {of}")
        for name, most in (("layout", len(self.layouts)), ("subject", self.num_subjects)):
            if len(self) and (highest := int(column[name].max())) >= most:
                raise self._damaged(f"{name} {highest} of {most}")
        wanted = np.array([len(layout.name_bytes) for layout in self.layouts], np.uint64)[
            column["layout"]
        ]
        wrong = np.flatnonzero(np.diff(column["size_end"], prepend=np.uint64(0)) != wanted)
        if len(wrong):
            raise self._damaged(f"portrait {wrong[0]} has not a size for each of its members")
        for number in range(len(self)):
            self.key(number)
        for number in range(self.num_subjects):
            self.subject(number)

    def _part(self, values: memoryview, ends: memoryview, number: int) -> memoryview:
        start, end = ends[number - 1] if number else 0, ends[number]
        if not start <= end <= len(values):
            raise self._damaged(f"row {number} has values {start} to {end} of {len(values)}")
        return values[start:end]

    def _text(self, data: memoryview, what: str) -> str:
        try:
            return str(data, "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise self._damaged(f"{what} is no text") from None

    def _damaged(self, what: str) -> ValueError:
        return ValueError(f"{self.name}: damaged: {what}; copy it again or rebuild the shards")


class _Made(Sequence):
    """Things that are made when they are asked for; equal to any sequence of equal things.

    Pickles as a tuple of them all: what goes to another process is some shards' (an `Index` finds
    its table again instead).
    """

    # Sequence of what is not said, since to check that would make one.
    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


class Groups(_Made):
    """Some portraits of a table, each a `GroupEntry`."""

    __slots__ = ("_rows", "_table")

    def __init__(self, table: GroupTable, rows: range) -> None:
        self._table, self._rows = table, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        if isinstance(place, slice):
            return Groups(self._table, self._rows[place])
        return self._table.group(self._rows[place])

    def __iter__(self) -> Iterator[GroupEntry]:
        return map(self._table.group, self._rows)

    def __repr__(self) -> str:
        return f"<{len(self)} portraits of {self._table.name}>"


class Shards(_Made):
    """The shards of a split, each a `ShardEntry` with its part of the table."""

    __slots__ = ("_table", "listed")

    def __init__(self, listed: ListedShards, table: GroupTable) -> None:
        self.listed, self._table = listed, table

    def __len__(self) -> int:
        return len(self.listed.groups)

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        if isinstance(place, slice):
            return tuple(self[number] for number in range(len(self))[place])
        number = range(len(self))[place]
        name, size, sha256, count = self.listed.shard(number)
        end = int(self.listed.group_end[number])
        return ShardEntry(name, size, sha256, Groups(self._table, range(end - count, end)))

    def __repr__(self) -> str:
        return f"<{len(self)} shards of {self._table.name}>"

    def holder_of(self, group: int) -> int:
        """The number of the shard that holds the portrait of a number."""
        return int(np.searchsorted(self.listed.group_end, group, "right"))
