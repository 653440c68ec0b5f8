"""A portrait from its shard: only the members asked for, by their offsets in the index.

Files are opened once a process and read with `pread`, which needs no lock and no seek; nothing
of a tar but the wanted members is touched. A shard whose size differs from the index is refused
before its first use, so a truncated copy can never give a short group.
"""

import os
from pathlib import Path

from relightx.index import GroupEntry, Index, ShardEntry
from relightx.sample import MAPS, Portrait, decode, extensions


class ShardReader:
    """Reads portraits of one or several splits, numbered through in the order given."""

    def __init__(self, indexes: list[Index]) -> None:
        self.places: list[tuple[Path, ShardEntry, GroupEntry]] = [
            (Path(index.path).parent / shard.name, shard, group)
            for index in indexes
            for shard in index.shards
            for group in shard.groups
        ]
        self.groups_per_shard = [len(shard.groups) for index in indexes for shard in index.shards]
        self._files: dict[Path, int] = {}
        self._owner = os.getpid()

    def __len__(self) -> int:
        return len(self.places)

    def group(self, number: int) -> GroupEntry:
        """The index entry of a portrait."""
        return self.places[number][2]

    def read(self, number: int, lights: list[int], labels: bool = True) -> Portrait:
        """Decode a portrait under some of its lights, with or without its label maps.

        Raises ValueError naming the shard when it is missing, of another size or broken.
        """
        path, shard, group = self.places[number]
        file = self._open(path, shard)
        try:
            wanted = extensions(group.members, group.lights, lights, MAPS if labels else ("mask",))
            members = {name: self._member(file, group, name) for name in wanted}
            return decode(group.key, members, lights)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _member(self, file: int, group: GroupEntry, extension: str) -> bytes:
        if extension not in group.members:
            raise ValueError(f"portrait {group.key!r}: the index has no member {extension}")
        offset, size = group.members[extension]
        data = os.pread(file, size, offset)
        if len(data) != size:
            raise ValueError(f"portrait {group.key!r}: {extension} has {len(data)} bytes of {size}")
        return data

    def _open(self, path: Path, shard: ShardEntry) -> int:
        if self._owner != os.getpid():  # forked: the parent's files are its own
            self._files, self._owner = {}, os.getpid()
        if path not in self._files:
            try:
                file = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise ValueError(f"{path}: shard cannot be opened: {error.strerror}") from None
            size = os.fstat(file).st_size
            if size != shard.bytes:
                os.close(file)
                raise ValueError(
                    f"{path}: has {size} bytes, its index says {shard.bytes}; copy it again or"
                    " rebuild the shards"
                )
            self._files[path] = file
        return self._files[path]
