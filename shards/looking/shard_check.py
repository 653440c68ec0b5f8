"""Check one shard by itself: its file, its tar's headers, every portrait in it.

Nothing is taken from the index on trust. The tar's own headers are walked, because a tar cut at
a member's border reads without any error and merely holds fewer members.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float

from relightx.index import GroupEntry, ShardEntry
from relightx.sample import Portrait, check, decode, light_member
from relightx.storage import Folder, WrongBytes
from shards.looking.agreement import Agreement, agreement
from shards.looking.duplicates import picture_hash
from shards.read import read_members

UNIT_TOLERANCE = 1e-3  # 16 bits keep a unit vector's length to 3e-5
MAX_SATURATED = 0.5
"""Share of a portrait's pixels at full brightness from which its image is called saturated."""
# What a reader may meet in content of unknown making; the fault is the file's, not the program's.
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, cv2.error)


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


class ShardJob(NamedTuple):
    """A shard to check, with the name it has in messages."""

    folder: Folder
    name: str
    entry: ShardEntry


class Checked(NamedTuple):
    """What the whole data set needs to know of a portrait; number: its place in the shard."""

    number: int
    agreement: Agreement | None
    hashes: list[bytes]


@dataclass
class Findings:
    """What was found in one shard."""

    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    checked: list[Checked] = field(default_factory=list)


def check_shard(job: ShardJob) -> Findings:
    """Everything to say of one shard, which is fetched once.

    Raises OSError when the storage fails.
    """
    try:
        with job.folder.local(job.entry.name) as path:
            return _check(job, path)
    except FileNotFoundError:
        return Findings([Fault(job.name, "", "", "the file is missing")])
    except WrongBytes as error:
        return Findings([Fault(job.name, "", "", str(error))])


def _check(job: ShardJob, path: Path) -> Findings:
    found = Findings([Fault(job.name, "", "", message) for message in _file_faults(job, path)])
    found.faults += _header_faults(job, path)
    size, others = path.stat().st_size, _Others()
    for number, group in enumerate(job.entry.groups):
        try:
            members = _members(path, size, group)
            portrait = decode(group.key, members)
            check(portrait)
        except BROKEN as error:
            message = str(error) or type(error).__name__
            found.faults.append(Fault(job.name, group.key, "", message))
            continue
        except _MissingMembers as error:
            found.faults += [Fault(job.name, group.key, *fault) for fault in error.faults]
            continue
        faults = [*_index_faults(portrait, group), *_label_faults(portrait, members)]
        found.faults += [Fault(job.name, group.key, *fault) for fault in faults]
        for warning in _image_warnings(portrait, members):
            found.warnings.append(Fault(job.name, group.key, *warning))
        hashes = [
            picture_hash(members[light_member(members, index)])
            for index, image in enumerate(portrait.image)
            if image.max() > image.min()  # black pictures are all the same
        ]
        agrees = None if faults else agreement(portrait, others.before(portrait))
        found.checked.append(Checked(number, agrees, hashes))
    return found


class _MissingMembers(Exception):
    """A portrait whose members are not where the index says; `faults` has (member, message)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__(faults)
        self.faults = faults


class _Others:
    """The last portraits of two subjects, so that each has one of another subject before it."""

    def __init__(self) -> None:
        self._last: dict[str, Portrait] = {}

    def before(self, portrait: Portrait) -> Portrait | None:
        """The last portrait of another subject; this one is remembered."""
        other = next((held for s, held in self._last.items() if s != portrait.subject), None)
        self._last = {} if other is None else {other.subject: other}
        self._last[portrait.subject] = portrait
        return other


def _file_faults(job: ShardJob, path: Path) -> Iterator[str]:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if size != job.entry.bytes:
        yield f"has {size} bytes, the index says {job.entry.bytes}"
    if digest != job.entry.sha256:
        yield f"sha256 is {digest[:12]}..., the index says {job.entry.sha256[:12]}..."


def _header_faults(job: ShardJob, path: Path) -> Iterator[Fault]:
    """Where the tar's own headers and the index disagree."""
    held: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name in held:
                    yield Fault(job.name, "", member.name, "occurs twice in the tar")
                held[member.name] = (member.offset_data, member.size)
                tar.members = []  # which it would keep, all of them
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


def _members(path: Path, size: int, group: GroupEntry) -> dict[str, bytes]:
    """The portrait's members; raises _MissingMembers when some are not there."""
    needed = [light_member(group.members, i) for i in range(group.lights)] + ["meta.json"]
    faults = [
        (extension, f"is missing; the portrait has {group.lights} lights")
        for extension in needed
        if extension not in group.members
    ]
    for extension, (offset, length) in group.members.items():
        if offset < 0 or length < 0 or offset + length > size:
            faults.append((extension, f"is {length} bytes at {offset}, beyond the shard's end"))
    if faults:
        raise _MissingMembers(faults)
    return read_members(path.parent, path.name, group)


def _index_faults(portrait: Portrait, group: GroupEntry) -> Iterator[tuple[str, str]]:
    """(member, message) of where the portrait and the index disagree."""
    if portrait.num_lights != group.lights:
        yield "meta.json", f"names {portrait.num_lights} lights, the index {group.lights}"
    if portrait.subject != group.subject:
        yield "meta.json", f"says subject {portrait.subject!r}, the index {group.subject!r}"


def _label_faults(portrait: Portrait, members: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """What `decode` and `check` let pass; albedo is in [0, 1] by its 16 unsigned bits."""
    mask = _mask(portrait)
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


def _image_warnings(portrait: Portrait, members: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """(member, message) of images without anything to see."""
    mask, top = _mask(portrait), np.iinfo(portrait.image.dtype).max
    if not mask.any():
        return
    for index, image in enumerate(portrait.image):
        inside = image[mask]
        if not inside.any():
            yield light_member(members, index), "is black: no light on any pixel of the portrait"
        elif (share := float((inside == top).all(-1).mean())) > MAX_SATURATED:
            yield light_member(members, index), f"is saturated on {share:.0%} of the portrait"


def _mask(portrait: Portrait) -> Bool[np.ndarray, "height width"]:
    return np.ones(portrait.image.shape[1:3], bool) if portrait.mask is None else portrait.mask


def _stored_length(png: bytes) -> Float[np.ndarray, "height width"]:
    """Lengths of normals as stored: `decode` makes them 1, whatever they were."""
    stored = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.linalg.norm(stored / np.float32(65535) * 2 - 1, axis=-1)
