"""Re-read a data set and list every fault: files, hashes, tar headers, pictures, ranges, splits.

Nothing is taken from the index on trust. The tar's own headers are walked, because a tar cut at
a member's border reads without any error and merely holds fewer members.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from relightx.index import NAME, GroupEntry, Index, ShardEntry, read_index
from relightx.sample import Portrait, check, decode, light_extension
from shards.parallel import ordered_map
from shards.read import SplitPlace, find_splits, read_members

MAX_FAULTS = 50
UNIT_TOLERANCE = 1e-3  # 16 bits keep a unit vector's length to 3e-5
_BYTES_READ = 2**20
# What a reader may meet in content of unknown making; the fault is the file's, not the program's.
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, cv2.error)


class Fault(NamedTuple):
    """One thing wrong; what it concerns is empty when it is more than one key or member."""

    shard: str
    key: str
    member: str
    message: str

    def __str__(self) -> str:
        place = [self.shard]
        if self.key:
            place.append(f"portrait {self.key}")
        if self.member:
            place.append(self.member)
        return f"{', '.join(place)}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What was checked and found.

    faults: the first of them; num_faults counts all.
    """

    splits: tuple[str, ...]
    shards: int
    groups: int
    images: int
    bytes: int
    faults: tuple[Fault, ...]
    num_faults: int

    @property
    def passed(self) -> bool:
        return self.num_faults == 0


class ShardJob(NamedTuple):
    """A shard to check, with the name it has in messages."""

    path: Path
    name: str
    entry: ShardEntry


def verify(
    directory: Path,
    workers: int = 1,
    max_faults: int = MAX_FAULTS,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Check a data set, or one split of it, whole.

    workers: processes, each with a shard at a time. progress: called with the number of portraits
    checked so far. Raises ValueError when the directory holds neither.
    """
    places = find_splits(directory)
    indexes, faults = _read_indexes(places)
    faults += [*_foreign_files(places, indexes), *_leaks(indexes)]
    jobs = [
        ShardJob(place.directory / shard.name, f"{place.name}/{shard.name}", shard)
        for place in places
        if place.name in indexes
        for shard in indexes[place.name].shards
    ]
    num_groups = 0
    for job, found in zip(jobs, ordered_map(check_shard, jobs, workers), strict=True):
        faults += found
        num_groups += len(job.entry.groups)
        if progress:
            progress(num_groups)
    return Report(
        splits=tuple(indexes),
        shards=len(jobs),
        groups=num_groups,
        images=sum(group.lights for job in jobs for group in job.entry.groups),
        bytes=sum(job.entry.bytes for job in jobs),
        faults=tuple(faults[:max_faults]),
        num_faults=len(faults),
    )


def check_shard(job: ShardJob) -> list[Fault]:
    """Every fault of one shard."""
    if not job.path.is_file():
        return [Fault(job.name, "", "", "the file is missing")]
    faults = [Fault(job.name, "", "", message) for message in _file_faults(job)]
    faults += _header_faults(job)
    for group in job.entry.groups:
        faults += [Fault(job.name, group.key, *fault) for fault in _group_faults(job, group)]
    return faults


def _read_indexes(places: list[SplitPlace]) -> tuple[dict[str, Index], list[Fault]]:
    indexes: dict[str, Index] = {}
    faults: list[Fault] = []
    for place in places:
        try:
            indexes[place.name] = read_index(place.directory)
        except _BROKEN as error:
            faults.append(Fault(f"{place.name}/{NAME}", "", "", str(error)))
    return indexes, faults


def _foreign_files(places: list[SplitPlace], indexes: dict[str, Index]) -> Iterator[Fault]:
    for place in places:
        if place.name not in indexes:
            continue
        known = {NAME, *(shard.name for shard in indexes[place.name].shards)}
        for file in sorted(place.directory.iterdir()):
            if file.name not in known:
                yield Fault(f"{place.name}/{file.name}", "", "", f"is not in the {NAME}")


def _leaks(indexes: dict[str, Index]) -> Iterator[Fault]:
    """Keys that occur twice and subjects that are in two splits."""
    split_of_subject: dict[str, str] = {}
    shard_of_key: dict[str, str] = {}
    for split, index in indexes.items():
        for subject in index.subjects:
            other = split_of_subject.setdefault(subject, split)
            if other != split:
                message = f"subject {subject!r} is in {other} too; a person belongs to one split"
                yield Fault(f"{split}/{NAME}", "", "", message)
        for shard in index.shards:
            for group in shard.groups:
                name = f"{split}/{shard.name}"
                if group.key in shard_of_key:
                    message = f"the key occurs in {shard_of_key[group.key]} already"
                    yield Fault(name, group.key, "", message)
                shard_of_key.setdefault(group.key, name)


def _file_faults(job: ShardJob) -> Iterator[str]:
    size = job.path.stat().st_size
    if size != job.entry.bytes:
        yield f"has {size} bytes, the index says {job.entry.bytes}"
    digest = hashlib.sha256()
    with open(job.path, "rb") as stream:
        while data := stream.read(_BYTES_READ):
            digest.update(data)
    if digest.hexdigest() != job.entry.sha256:
        yield f"sha256 is {digest.hexdigest()[:12]}..., the index says {job.entry.sha256[:12]}..."


def _header_faults(job: ShardJob) -> Iterator[Fault]:
    """Where the tar's own headers and the index disagree."""
    held: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(job.path, "r:") as tar:
            for member in tar:
                if member.name in held:
                    yield Fault(job.name, "", member.name, "occurs twice in the tar")
                held[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        yield Fault(job.name, "", "", f"the tar cannot be read to its end: {error}")
    for group in job.entry.groups:
        for extension, (offset, size) in group.members.items():
            found = held.pop(f"{group.key}.{extension}", None)
            if found is None:
                yield Fault(job.name, group.key, extension, "is not in the tar")
            elif found != (offset, size):
                message = f"is {found[1]} bytes at {found[0]}, the index says {size} at {offset}"
                yield Fault(job.name, group.key, extension, message)
    for name in held:
        yield Fault(job.name, "", name, "is in the tar and not in the index")


def _group_faults(job: ShardJob, group: GroupEntry) -> Iterator[tuple[str, str]]:
    """(member, message) of what is wrong with one portrait."""
    needed = [light_extension(index) for index in range(group.lights)] + ["meta.json"]
    missing = [extension for extension in needed if extension not in group.members]
    if missing:
        for extension in missing:
            yield extension, f"is missing; the portrait has {group.lights} lights"
        return
    try:
        members = read_members(job.path, group)
        portrait = decode(group.key, members)
        check(portrait)
    except _BROKEN as error:
        yield "", str(error) or type(error).__name__
        return
    if portrait.num_lights != group.lights:
        yield "meta.json", f"names {portrait.num_lights} lights, the index {group.lights}"
    if portrait.subject != group.subject:
        yield "meta.json", f"says subject {portrait.subject!r}, the index {group.subject!r}"
    yield from _label_faults(portrait, members)


def _label_faults(portrait: Portrait, members: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """What `decode` and `check` let pass; albedo is in [0, 1] by its 16 unsigned bits."""
    mask = np.ones(portrait.image.shape[1:3], bool) if portrait.mask is None else portrait.mask
    if not mask.any():
        yield "mask.png", "is empty: no pixel belongs to the portrait"
        return
    if portrait.normal is not None:
        error = np.abs(_stored_length(members["normal.png"])[mask] - 1).max()
        if error > UNIT_TOLERANCE:
            yield "normal.png", f"a length inside the mask differs from 1 by {error:.3g}"
    if portrait.direction is not None:
        error = np.abs(np.linalg.norm(portrait.direction, axis=-1) - 1).max()
        if error > UNIT_TOLERANCE:
            yield "meta.json", f"a light direction's length differs from 1 by {error:.3g}"


def _stored_length(png: bytes) -> Float[np.ndarray, "height width"]:
    """Lengths of normals as stored: `decode` makes them 1, whatever they were."""
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.linalg.norm(stored / np.float32(65535) * 2 - 1, axis=-1)
