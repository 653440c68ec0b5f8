"""The table of contents of a split: what each shard holds and where, with sizes and hashes.

`index.json` lies beside its shards and is written last, so its presence means the split is whole.
It has no time stamps: the same input gives the same bytes.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VERSION = 1
NAME = "index.json"


@dataclass(frozen=True)
class GroupEntry:
    """One portrait: where its members' bytes lie in the shard."""

    key: str
    subject: str
    lights: int
    members: dict[str, tuple[int, int]]
    """Extension -> (offset, size) in bytes of the member's content."""


@dataclass(frozen=True)
class ShardEntry:
    """One tar file."""

    name: str
    bytes: int
    sha256: str
    groups: tuple[GroupEntry, ...]


@dataclass(frozen=True)
class Index:
    """One split of a data set."""

    split: str
    shards: tuple[ShardEntry, ...]
    path: str
    """File it was read from, for messages."""
    sha256: str
    """Hash of the file: names the data a checkpoint was trained on."""

    @property
    def groups(self) -> list[GroupEntry]:
        return [group for shard in self.shards for group in shard.groups]

    @property
    def subjects(self) -> list[str]:
        return sorted({group.subject for group in self.groups})


@dataclass(frozen=True)
class Totals:
    """What a split holds."""

    shards: int
    groups: int
    images: int
    subjects: int
    bytes: int


def totals_of(shards: Sequence[ShardEntry]) -> Totals:
    """What these shards hold together."""
    groups = [group for shard in shards for group in shard.groups]
    return Totals(
        shards=len(shards),
        groups=len(groups),
        images=sum(group.lights for group in groups),
        subjects=len({group.subject for group in groups}),
        bytes=sum(shard.bytes for shard in shards),
    )


def index_parts(split: str, shards: Iterable[ShardEntry], totals: Totals) -> Iterator[bytes]:
    """The bytes of an index.json in pieces, so that no more than one shard's table is in memory."""
    opening = b'{"shards": ['
    for shard in shards:
        yield opening + json.dumps(asdict(shard), sort_keys=True).encode()
        opening = b", "
    rest = {"split": split, "totals": asdict(totals), "version": VERSION}
    yield b"], " + json.dumps(rest, sort_keys=True)[1:].encode() + b"\n"


def write_index(directory: Path, split: str, shards: list[ShardEntry]) -> Path:
    """Write index.json of a finished split; raises ValueError for keys that occur twice."""
    keys = Counter(group.key for shard in shards for group in shard.groups)
    twice = sorted(key for key, count in keys.items() if count > 1)
    if twice:
        raise ValueError(f"{directory}: group keys occur twice: {', '.join(twice[:5])}")
    data = b"".join(index_parts(split, shards, totals_of(shards)))
    return write_atomically(directory / NAME, data)


def read_index(path: str | Path) -> Index:
    """Read a split's index from its directory or its index.json.

    Raises ValueError when it is missing, broken, of another version or empty.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(
            f"{path}: no {NAME} found; needed is a split made by relightx-shards"
            " (an interrupted build leaves none)"
        )
    return parse_index(file.read_bytes(), str(file))


def parse_index(data: bytes, name: str) -> Index:
    """The index that an index.json holds; raises ValueError, naming the file, as `read_index`."""
    try:
        content: dict[str, Any] = json.loads(data)
        if content["version"] != VERSION:
            raise ValueError(f"format version {content['version']}, this program reads {VERSION}")
        shards = tuple(parse_shard(entry) for entry in content["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: not a readable shard index: {error}") from None
    if not any(shard.groups for shard in shards):
        raise ValueError(f"{name}: the split has no portraits")
    return Index(content["split"], shards, name, hashlib.sha256(data).hexdigest())


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


def parse_shard(entry: dict[str, Any]) -> ShardEntry:
    """A shard's table from its JSON; raises ValueError, KeyError or TypeError for another."""
    groups = tuple(
        GroupEntry(
            group["key"],
            group["subject"],
            group["lights"],
            {extension: (place[0], place[1]) for extension, place in group["members"].items()},
        )
        for group in entry["groups"]
    )
    if Path(entry["name"]).name != entry["name"] or entry["name"] in ("", ".."):
        raise ValueError(f"shard name {entry['name']!r} leads out of its directory")
    return ShardEntry(entry["name"], entry["bytes"], entry["sha256"], groups)
