"""The node's cache: each shard is downloaded once a node, verified, and kept while there is room.

A file is named by its sha256, so data sets, versions and jobs share the cache without mistaking
each other's shards, and it gets its name only after it was verified and is safe on disk: a process
killed in a download leaves a hidden file that the next one removes. Everything between processes is
flock on files here, which a process that dies gives back:

- `SHA.lock`, exclusive, while a shard is downloaded: the others wait and then find it. Its content
  is the room that the download takes.
- the shard itself, shared, while somebody holds it. What is held is not evicted, so the shards of
  every process's window stay; the others go, the longest unused (by mtime) first.
- `.lock`, exclusive, while room is made.

The directory must be on a disk of the node's own: flock over NFS is not to be trusted, nor is it
quick.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from relightx.storage import Folder, is_partial

_PATIENCE_S = 60.0
"""How long room is waited for that others hold: their windows move on."""
_POLL_S = 0.1
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Held:
    """A verified file that stays in the cache until `close`; file: its open descriptor."""

    path: Path
    file: int

    def close(self) -> None:
        """Let it go. Nothing happens the second time."""
        if self.file >= 0:
            # Not LOCK_UN, which a forked child would do to its parent.
            os.close(self.file)
            self.file = -1

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShardCache:
    """Shards in a directory of this node, of at most `budget_bytes` together.

    downloads, downloaded_bytes, hits and evictions count what this object did in this process. It
    can be used by several threads and after a fork.
    """

    def __init__(self, directory: Path, budget_bytes: int, patience_s: float = _PATIENCE_S) -> None:
        if budget_bytes < 1:
            raise ValueError(f"a cache of {budget_bytes} bytes asked; 1 or more needed")
        self.directory, self.budget_bytes = Path(directory), budget_bytes
        self.patience_s = patience_s
        self.downloads = self.downloaded_bytes = self.hits = self.evictions = 0

    def hold(self, folder: Folder, name: str, size: int, sha256: str) -> Held:
        """The file `name` of `folder`, from the cache or downloaded into it, and held there.

        Raises OSError when it cannot be downloaded, is another one than `sha256` says, or finds no
        room.
        """
        path = self.path_of(sha256)
        held = self._open(path, size)
        if held is None:
            self._make_directory(path.parent)
            with _locked(path.with_suffix(".lock")) as lock:  # others wait here for the download
                held = self._open(path, size) or self._download(folder, name, size, path, lock)
        else:
            self.hits += 1
        os.utime(held.file)
        return held

    def path_of(self, sha256: str) -> Path:
        """Where a shard is, if it is here."""
        return self.directory / sha256[:2] / f"{sha256}.tar"

    @property
    def bytes(self) -> int:
        """Bytes of the shards that are here."""
        return sum(size for _, _, size in self._shards())

    def _download(self, folder: Folder, name: str, size: int, path: Path, lock: int) -> Held:
        url = folder.url_of(name)
        path.unlink(missing_ok=True)  # of another size: the disk has damaged it
        os.pwrite(lock, f"{size:<20}".encode(), 0)
        self._make_room(size, url)
        try:
            folder.fetch(name, path, path.stem)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # The disk holds other things too: give it what nobody here uses, and try once more.
            with _locked(self.directory / ".lock"):
                self._evict(1 << 62)
            try:
                folder.fetch(name, path, path.stem)
            except OSError as again:
                raise self._full(again, url, size) from None
        self.downloads += 1
        self.downloaded_bytes += size
        held = self._open(path, size)
        if held is not None:
            return held
        if path.exists():
            path.unlink()
            raise OSError(f"{url}: is not of the {size} bytes that its index says")
        return self._download(folder, name, size, path, lock)  # evicted before it was held

    def _open(self, path: Path, size: int) -> Held | None:
        """Hold a file that is here and whole."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            about = os.fstat(file)
            # Without a name it was evicted while it was opened.
            if about.st_nlink and about.st_size == size:
                return Held(path, file)
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None

    def _make_room(self, size: int, url: str) -> None:
        """Evict until `size` more bytes, which the caller has announced in its lock, fit."""
        if size > self.budget_bytes:
            raise OSError(
                f"{url}: has {size} bytes, the cache {self.directory} may hold"
                f" {self.budget_bytes}; raise data.cache_gb"
            )
        until = time.monotonic() + self.patience_s
        while True:
            with _locked(self.directory / ".lock"):
                taken = self.bytes + self._announced()
                missing = taken - self.budget_bytes
                if missing <= 0 or self._evict(missing) >= missing:
                    return
            if time.monotonic() > until:
                raise OSError(
                    f"{url}: no room for its {size} bytes: {self.directory} may hold"
                    f" {self.budget_bytes}, and {taken - size} are in use or being downloaded;"
                    " raise data.cache_gb, or lower data.window or data.streams"
                )
            time.sleep(_POLL_S)

    def _announced(self) -> int:
        """Bytes that are being downloaded, this process's included; leftovers are removed."""
        total = 0
        for lock in self.directory.glob("??/*.lock"):
            size = _announced_by(lock)
            if size is not None:
                total += size
                continue
            lock.unlink(missing_ok=True)
        for partial in self.directory.glob("??/.*"):
            lock = partial.with_name(f"{partial.name.split('.')[1]}.lock")
            if is_partial(partial.name) and _announced_by(lock) is None:
                partial.unlink(missing_ok=True)
        return total

    def _evict(self, wanted: int) -> int:
        """Remove files that nobody holds, the longest unused first; how many bytes that gave."""
        given = 0
        for _, path, size in sorted(self._shards()):
            if given >= wanted:
                break
            if _removed_unless_held(path):
                given += size
                self.evictions += 1
        return given

    def _shards(self) -> Iterator[tuple[int, Path, int]]:
        """When each file was last used, its path and its size."""
        for path in self.directory.glob("??/*.tar"):
            with suppress(FileNotFoundError):
                about = path.stat()
                yield about.st_mtime_ns, path, about.st_size

    def _make_directory(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{directory}: the cache cannot be written: {error.strerror}; name another folder"
                " in data.cache_dir",
            ) from None

    def _full(self, error: OSError, url: str, size: int) -> OSError:
        if error.errno not in _FULL:
            return error
        about = os.statvfs(self.directory)
        return OSError(
            error.errno,
            f"{url}: its {size} bytes do not fit: the disk of the cache {self.directory} has"
            f" {about.f_bavail * about.f_frsize} left and nothing there is unused; free some space,"
            " or name a folder on another disk in data.cache_dir",
        )


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a lock file, which vanishes afterwards; its descriptor."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:  # or its holder before us removed it
            break
        os.close(file)
    try:
        yield file
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _announced_by(lock: Path) -> int | None:
    """The room that a living download asked for; None when there is none."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(file, 20, 0).strip()
        return int(said) if said.isdigit() else 0
    finally:
        os.close(file)
    return None


def _removed_unless_held(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(file)
    return True
