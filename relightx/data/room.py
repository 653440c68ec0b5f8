"""What lies in a cache's directory, and who may take how much of its room.

For a shard there are, all below `directory/SH`, where SH begins its sha256:

- `SHA.tar`: the shard, locked, shared, by who holds it;
- `SHA.lock`: locked by who downloads it, with the number of bytes that were granted to it, or after
  a failure with what failed; unlocked, it is a dead process's;
- `.SHA.tar.partial-X`: what has come of a download.

Other files in the directory are neither counted nor touched.
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from relightx.data import flock
from relightx.storage import Folder, is_partial

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a full disk says."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOTE_BYTES = 8 << 10
_WIDTH = 20


@dataclass
class Contents:
    """shards: when each was last used (ns), and its bytes, by sha256. locks: sha256 of each lock
    file. partials: unfinished files by sha256."""

    shards: dict[str, tuple[int, int]] = field(default_factory=dict)
    locks: set[str] = field(default_factory=set)
    partials: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of the shards."""
        return sum(size for _, size in self.shards.values())

    def bytes_of(self, sha256: str) -> int:
        """Of a shard; 0 if it is not there."""
        return self.shards.get(sha256, (0, 0))[1]

    @property
    def downloads(self) -> set[str]:
        """Shards that are being downloaded, by living processes or by dead ones."""
        return self.locks | self.partials.keys()


def shard_path(directory: Path, sha256: str) -> Path:
    """Where a shard is, if it is there; ValueError for what is no digest in hexadecimal."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no sha256; 64 digits of 0-9 and a-f are needed")
    return directory / sha256[:2] / f"{sha256}.tar"


def contents(directory: Path) -> Contents:
    """What is there now; nothing if the directory is not."""
    found = Contents()
    for place in _entries(directory):
        if len(place.name) == 2 and place.is_dir(follow_symlinks=False):
            for entry in _entries(place.path):
                _sort_in(entry, found)
    return found


def pulse(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Something that changes while the download of a shard goes on."""
    found = []
    for file in (path.with_suffix(".lock"), *partials(path)):
        with suppress(FileNotFoundError):
            about = file.stat()
            found.append((file.name, about.st_size, about.st_mtime_ns))
    return tuple(found)


def partials(path: Path) -> list[Path]:
    """What has come of downloads of a shard."""
    begun = f".{path.name}."
    return sorted(
        Path(entry.path)
        for entry in _entries(path.parent)
        if entry.name.startswith(begun) and is_partial(entry.name)
    )


def is_dead(directory: Path, sha256: str) -> bool:
    """Whether no living process downloads a shard; then what is left of a download is gone."""
    shard = shard_path(directory, sha256)
    path = shard.with_suffix(".lock")
    try:
        lock = flock.take(path)
    except FileNotFoundError:  # its directory is gone
        return True
    except OSError as error:
        if error.errno not in FULL:
            raise
        lock = None if path.exists() else -1  # no lock fits on the disk, so nobody has one
    if lock is None:
        return False
    for left in partials(shard):
        left.unlink(missing_ok=True)
    if lock >= 0:
        flock.give_back(path, lock)
    return True


def granted(directory: Path, own: str) -> dict[str, int]:
    """Bytes granted to each download that goes on, but for our own; leftovers are removed."""
    return {
        sha256: _granted_to(shard_path(directory, sha256).with_suffix(".lock"))
        for sha256 in contents(directory).downloads - {own}
        if not is_dead(directory, sha256)
    }


def grant(lock: int, size: int) -> None:
    """Note in a lock file that so many bytes are taken."""
    os.pwrite(lock, f"{size:<{_WIDTH}}".encode(), 0)


def evict(directory: Path, found: Contents, wanted: int, spared: Container[str]) -> list[int]:
    """Remove shards that nobody holds, the longest unused first, until `wanted` bytes are free.

    Returns the sizes of those that went.
    """
    gone: list[int] = []
    for sha256, (_, size) in sorted(found.shards.items(), key=lambda item: item[1]):
        if sum(gone) >= wanted:
            break
        if sha256 not in spared and _removed_unless_held(shard_path(directory, sha256)):
            gone.append(size)
    return gone


def note_failure(lock: int, folder: Folder, error: OSError) -> None:
    """Leave in a lock file what those who wait for it would meet in their turn."""
    note = json.dumps([repr(folder), str(error)]).encode()
    if len(note) <= _NOTE_BYTES:
        with suppress(OSError):
            os.pwrite(lock, note.ljust(_WIDTH), 0)


def noted_failure(lock: int, folder: Folder) -> str:
    """What failed for the last owner of a lock file, if it asked the same folder; or ""."""
    try:
        of, said = json.loads(os.pread(lock, _NOTE_BYTES, 0))
    except (ValueError, TypeError):
        return ""
    return str(said) if of == repr(folder) else ""


def _entries(directory: str | Path) -> list[os.DirEntry]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sort_in(entry: os.DirEntry, found: Contents) -> None:
    stem, dot, kind = entry.name.rpartition(".")
    if is_partial(entry.name) and _SHA256.fullmatch(entry.name[1:65]):
        found.partials.setdefault(entry.name[1:65], []).append(Path(entry.path))
    elif dot and _SHA256.fullmatch(stem) and kind == "lock":
        found.locks.add(stem)
    elif dot and _SHA256.fullmatch(stem) and kind == "tar":
        with suppress(FileNotFoundError):
            about = entry.stat(follow_symlinks=False)
            found.shards[stem] = (about.st_mtime_ns, about.st_size)


def _granted_to(lock: Path) -> int:
    """0 while the download still waits for its room, and when it has just ended."""
    try:
        with open(lock, "rb") as stream:
            said = stream.read(_WIDTH).strip()
    except FileNotFoundError:
        return 0
    return int(said) if said.isdigit() else 0


def _removed_unless_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone, or no file of ours
        return False
    try:
        if not flock.lock(file, fcntl.LOCK_EX):
            return False
        path.unlink()
    except (FileNotFoundError, IsADirectoryError):
        return False
    finally:
        flock.let_go(file)
    return True
