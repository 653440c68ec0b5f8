"""Shards as an index describes them, their members one after the other as in a tar."""

import tarfile

from relightx.index import GroupEntry, ShardEntry


def made_group(
    key: str, subject: str, lights: int, first_header: int = 0, size: int = 700
) -> GroupEntry:
    """A portrait whose first member's header begins at a byte of its shard."""
    names = [*(f"light{number:03d}.png" for number in range(lights)), "meta.json"]
    members, position = {}, first_header
    for number, name in enumerate(names):
        header = tarfile.TarInfo(f"{key}.{name}")
        position += len(header.tobuf(tarfile.GNU_FORMAT))
        members[name] = (position, size + number)
        position += -(-(size + number) // 512) * 512
    return GroupEntry(key, subject, lights, members)


def end_of(group: GroupEntry) -> int:
    """Where the header of the next portrait's first member begins."""
    offset, size = max(group.members.values())
    return offset + -(-size // 512) * 512


def made_shard(number: int, groups: list[tuple[str, str, int]]) -> ShardEntry:
    """A shard of portraits, each given as (key, subject, lights)."""
    entries, position = [], 0
    for key, subject, lights in groups:
        entries.append(made_group(key, subject, lights, position))
        position = end_of(entries[-1])
    digest = f"{number:02x}" * 32
    return ShardEntry(f"shard-{number:06d}.tar", position + 1024, digest, tuple(entries))


def three_portraits() -> list[ShardEntry]:
    """Two shards of two people."""
    return [
        made_shard(0, [("a", "bert", 2), ("b", "anna", 5)]),
        made_shard(1, [("c", "bert", 2)]),
    ]
