"""A portrait from its shard: only the members asked for, by their offsets in the index.

Before the content of a member its header in the tar is read along, and its name and size compared
with the index: a shard that is another one, though of the same size, is refused, and so is an
answer from a network that is for another question. A portrait comes whole or as a fault that says
where; what arrives damaged is read once more, since a network may have done it.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple
from zlib import adler32

import numpy as np
from jaxtyping import Int64, UInt16

from relightx.data.fault import ReadFault
from relightx.data.sources import LocalShards, RangedShards, Source, Wanted
from relightx.index import GroupEntry, Index
from relightx.sample import MAPS, Portrait, decode, extensions
from relightx.storage import LocalFolder

__all__ = ["ReadFault", "Request", "ShardReader"]

Request = tuple[int, list[int]]
"""A portrait's number and the lights wanted of it."""

_BLOCK = 512
_NAME = slice(0, 100)
_SIZE = slice(124, 135)
_CHECKSUM = slice(148, 156)
_MAGIC = slice(257, 262)
_MODULUS = 65521
"""Adler's."""


class ShardReader:
    """Reads portraits of one or several splits, numbered through in the order given.

    sources: where the bytes of each split come from; None: local files as they lie, of S3 what is
        needed by ranges.
    reread: portraits that were read once more so far, because their bytes were wrong.
    """

    def __init__(self, indexes: Sequence[Index], sources: Sequence[Source] | None = None) -> None:
        self.indexes = list(indexes)
        self.sources = _direct(indexes) if sources is None else list(sources)
        if len(self.sources) != len(self.indexes):
            raise ValueError(f"{len(self.sources)} sources for {len(self.indexes)} splits")
        self.reread = 0
        self._first = [0, *accumulate(index.num_groups for index in self.indexes)]
        self._shard_end = [np.cumsum(index.groups_per_shard).tolist() for index in self.indexes]

    def __len__(self) -> int:
        return self._first[-1]

    @cached_property
    def groups_per_shard(self) -> Int64[np.ndarray, " shards"]:
        """Number of portraits in each shard of all splits."""
        return _joined([index.groups_per_shard for index in self.indexes])

    @cached_property
    def lights(self) -> UInt16[np.ndarray, " groups"]:
        """Number of lights of each portrait."""
        return _joined([index.lights for index in self.indexes])

    def key(self, number: int) -> str:
        """The key of a portrait."""
        index, row = self._row(number)
        return self.indexes[index].table.key(row)

    def group(self, number: int) -> GroupEntry:
        """The index entry of a portrait."""
        index, row = self._row(number)
        return self.indexes[index].table.group(row)

    def read(self, number: int, lights: list[int], labels: bool = True) -> Portrait:
        """Decode a portrait under some of its lights, with or without its label maps.

        Raises ReadFault, a ValueError, naming shard, bytes and cause, for what cannot be read, and
        ValueError for lights that the portrait does not have.
        """
        (portrait,) = self.read_many([(number, lights)], labels)
        return portrait

    def read_many(self, requests: Sequence[Request], labels: bool = True) -> list[Portrait]:
        """`read` for several portraits, whose bytes a distant source brings at the same time."""
        portraits = []
        for portrait in self._each(requests, labels):
            if isinstance(portrait, ReadFault):
                raise portrait
            portraits.append(portrait)
        return portraits

    def try_many(
        self, requests: Sequence[Request], labels: bool = True
    ) -> list[Portrait | ReadFault]:
        """`read_many` with the fault of each portrait that cannot be read in its place."""
        return list(self._each(requests, labels))

    def _each(self, requests: Sequence[Request], labels: bool) -> Iterator[Portrait | ReadFault]:
        asked = [self._asked(number, lights, labels) for number, lights in requests]
        found = self._bytes(asked)
        try:
            for each in asked:
                if isinstance(each, ReadFault):
                    yield each
                    continue
                data = next(found[each.source])
                if isinstance(data, ReadFault):
                    yield data.of(each.group.key)
                    continue
                portrait = each.portrait(data)
                yield self._again(each) if isinstance(portrait, ReadFault) else portrait
        finally:
            for source in found:
                source.rest()

    def _bytes(
        self, asked: Sequence["_Asked | ReadFault"]
    ) -> dict[Source, Iterator[list[bytes] | ReadFault]]:
        wanted: dict[Source, list[Wanted]] = {}
        for each in asked:
            if isinstance(each, _Asked):
                wanted.setdefault(each.source, []).append(each.wanted)
        return {source: source.read_many(of_source) for source, of_source in wanted.items()}

    def _again(self, asked: "_Asked") -> Portrait | ReadFault:
        self.reread += 1
        try:
            return asked.portrait(asked.source.read(asked.wanted))
        except ReadFault as fault:
            return fault.of(asked.group.key)

    def _asked(self, number: int, lights: list[int], labels: bool) -> "_Asked | ReadFault":
        place, row = self._row(number)
        index = self.indexes[place]
        group = index.table.group(row)
        shard = index.shards[bisect_right(self._shard_end[place], row)]
        maps = MAPS if labels else ("mask",)
        wanted = extensions(group.members, group.lights, lights, maps)
        spans = []
        for extension in wanted:
            if extension not in group.members:
                url = index.folder.url_of(shard.name)
                return ReadFault.at(url, f"the index has no member {extension}", key=group.key)
            offset, size = group.members[extension]
            spans += ((offset - _BLOCK, _BLOCK), (offset, size))
        ranges = Wanted(index.folder, shard, spans)
        return _Asked(self.sources[place], ranges, group, wanted, lights)

    def _row(self, number: int) -> tuple[int, int]:
        """The place of a portrait's split, and its number there."""
        if not 0 <= number < len(self):
            raise IndexError(f"portrait {number} of {len(self)}")
        place = bisect_right(self._first, number) - 1
        return place, number - self._first[place]


class _Asked(NamedTuple):
    """A portrait to be read; `wanted` has a header and a content for each of the extensions."""

    source: Source
    wanted: Wanted
    group: GroupEntry
    extensions: list[str]
    lights: list[int]

    def portrait(self, data: Sequence[bytes]) -> Portrait | ReadFault:
        """What these bytes are."""
        key, members = self.group.key, {}
        for place, extension in enumerate(self.extensions):
            header, content = data[2 * place : 2 * place + 2]
            cause = wrong_header(header, f"{key}.{extension}", len(content))
            if cause is not None:
                return self._fault(cause, extension)
            members[extension] = content
        try:
            return decode(key, members, self.lights)
        except ValueError as error:
            said = str(error).removeprefix(f"portrait {key!r}: ")
            return self._fault(said, getattr(error, "extension", None))

    def _fault(self, cause: str, extension: str | None) -> ReadFault:
        url = self.wanted.folder.url_of(self.wanted.shard.name)
        if extension is None:
            return ReadFault.at(url, cause, key=self.group.key)
        start, size = self.group.members[extension]
        return ReadFault.at(url, cause, key=self.group.key, start=start, size=size)


def wrong_header(header: bytes, name: str, size: int) -> str | None:
    """What is wrong with a member's header in a tar, if anything is.

    Compared as bytes: to have `tarfile` parse it takes as long as to read all members.
    """
    wanted = name.encode()[:100]  # of a longer name, the whole stands in blocks before
    if header[_NAME].rstrip(b"\0") != wanted or header[_MAGIC] != b"ustar":
        return (
            f"{name} should be here, found is {_found(header)}; it is not the shard that the index"
            " was made of: copy both again or rebuild the shards"
        )
    try:
        found = int(header[_SIZE], 8)
        checksum = int(header[_CHECKSUM].rstrip(b" \0"), 8)
    except ValueError:
        return f"the header of {name} is damaged"
    if _sum(header[:148] + b" " * 8 + header[156:]) != checksum % _MODULUS:
        return f"the header of {name} is damaged"
    if found != size:
        return f"{name} has {found} bytes, its index says {size}; copy both again"
    return None


def _sum(header: bytes) -> int:
    """The sum of its bytes, modulo _MODULUS: Adler's in a tenth of the time that `sum` takes."""
    return ((adler32(header) & 0xFFFF) - 1) % _MODULUS


def _found(header: bytes) -> str:
    """What a header seems to be of."""
    if header[_MAGIC] != b"ustar":
        return "no tar header"
    return header[_NAME].rstrip(b"\0").decode("ascii", "backslashreplace")


def _direct(indexes: Sequence[Index]) -> list[Source]:
    """The sources that need nothing kept."""
    local, ranged = LocalShards(), RangedShards()
    return [local if isinstance(index.folder, LocalFolder) else ranged for index in indexes]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array; a mapped one stays as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
