"""A portrait, a shard and a split's totals as an index describes them.

`shard_as_dict` and `parse_shard` are one shard's whole table as JSON, which an unfinished build
keeps for each shard (shards.building.destination); a finished split has its portraits in
relightx.index.table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """One portrait: where its members' bytes lie in the shard."""

    key: str
    subject: str
    lights: int
    members: Mapping[str, tuple[int, int]]
    """Extension -> (offset, size) in bytes of the member's content."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar file."""

    name: str
    bytes: int
    sha256: str
    groups: Sequence
    """Its portraits, each a `GroupEntry`; of an index that was read, made when they are asked for.

    What they are is not in the annotation, since to check that would read one.
    """


@dataclass(frozen=True)
class Totals:
    """What a split holds."""

    shards: int
    groups: int
    images: int
    subjects: int
    bytes: int


def totals_of(shards: Sequence[ShardEntry]) -> Totals:
    """What these shards hold together; of an index that was read, see `Index.totals`."""
    groups = [group for shard in shards for group in shard.groups]
    return Totals(
        shards=len(shards),
        groups=len(groups),
        images=sum(group.lights for group in groups),
        subjects=len({group.subject for group in groups}),
        bytes=sum(shard.bytes for shard in shards),
    )


def checked_shard_name(name: Any) -> str:
    """The name itself; ValueError for one that is not a file's beside its index."""
    if not isinstance(name, str):
        raise ValueError(f"shard name {name!r} is no text")
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"shard name {name!r} leads out of its directory")
    return name


def shard_as_dict(shard: ShardEntry) -> dict[str, Any]:
    """The shard's whole table as plain values, for JSON."""
    groups = [
        {
            "key": group.key,
            "subject": group.subject,
            "lights": group.lights,
            "members": dict(group.members),
        }
        for group in shard.groups
    ]
    return {"name": shard.name, "bytes": shard.bytes, "sha256": shard.sha256, "groups": groups}


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
    return ShardEntry(checked_shard_name(entry["name"]), entry["bytes"], entry["sha256"], groups)
