"""The node's cache: each shard is downloaded once a node, verified, and kept while there is room.

A file is named by its sha256, so data sets, versions and jobs share the cache without mistaking
each other's shards, and it gets its name only after it was verified and is safe on disk. Between
processes there are only locks (see relightx.data.flock), which who is killed gives back:

- `SHA.lock` is locked while a shard is downloaded: the others wait and then find it, or fail with
  it, so that a server that is down is waited for once. It says how much room was granted. One that
  nobody has locked is a dead process's: it is removed with the hidden file of its download.
- The shard itself is locked, shared, while somebody holds it. What is held is not evicted, so the
  shards of every process's window stay; the others go, the longest unused (by mtime) first.
- The directory is locked while room is made. Room is granted there or not at all: if what was only
  asked for counted too, two downloads could keep each other from ever starting.

The budget is what a process leaves here by its own downloads, whoever's the files are. Jobs that
share a directory give the same one; else the smaller evicts what only the larger has room for.

Room that others hold is waited for, `patience_s` long, as they let go when their steps are past;
then it is an error and not more than the budget, which was given because the disk is not larger.
A file that is greater than the budget is refused at once.

The directory must be on a disk of the node's own: locks over NFS are not to be trusted, nor is it
quick. It belongs to one user or group: who can write here can put anything under a shard's name.
"""

import errno
import fcntl
import os
import stat
import threading
import time
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from relightx.data import flock, room
from relightx.storage import Folder, WrongBytes

_PATIENCE_S = 60.0
"""How long room is waited for that others hold: their windows move on."""
SILENCE_S = 600.0
"""How long another's download may show no sign of life: while a server is down it tries again for
`S3Options.deadline_s`, and to verify a large file on a slow disk takes a minute."""
_POLL_S = 0.1
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_counting = threading.Lock()
_under_way: set[Path] = set()
"""Shards that this process is downloading."""


class NoRoom(OSError):
    """The budget is taken by what is held and by other downloads."""


@dataclass(eq=False)
class Held:
    """A verified file that stays in the cache until `close`.

    path: where it is. file: its open descriptor, for os.pread. It belongs to the process that holds
    it: a forked child can read and close it, but keeps nothing in the cache by it.
    """

    path: Path
    file: int

    def close(self) -> None:
        """Let it go. Nothing happens the second time."""
        file, self.file = self.file, -1
        if file >= 0:
            flock.let_go(file)

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ShardCache:
    """Shards in a directory of this node, of at most `budget_bytes` together.

    patience_s: how long room is waited for. silence_s: how long another's download may stand still.
    downloads, downloaded_bytes, hits and evictions count what this object did in this process. It
    can be pickled, used by several threads and after a fork. Nothing is made before the first hold.
    """

    def __init__(
        self,
        directory: Path,
        budget_bytes: int,
        patience_s: float = _PATIENCE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        if budget_bytes < 1:
            raise ValueError(f"a cache of {budget_bytes} bytes asked; 1 or more needed")
        self.directory, self.budget_bytes = Path(directory), budget_bytes
        self.patience_s, self.silence_s = patience_s, silence_s
        self.downloads = self.downloaded_bytes = self.hits = self.evictions = 0
        self._is_ready = False
        kind = flock.shared_disk(self.directory)
        if kind:
            warnings.warn(
                f"{self.directory}: is on {kind}, which nodes share; a cache is to be on a disk of"
                " the node's own: name a folder there in data.cache_dir",
                RuntimeWarning,
                stacklevel=2,
            )

    def hold(self, folder: Folder, name: str, size: int, sha256: str) -> Held:
        """The file `name` of `folder`, from the cache or downloaded into it, and held there.

        Raises OSError when it cannot be downloaded or is another one than size and `sha256` say,
        when another process's download stands still, or the disk is full; NoRoom, an OSError, when
        the budget is taken.
        """
        if size < 0:
            raise ValueError(f"{folder.url_of(name)}: {size} bytes asked; 0 or more needed")
        path = self.path_of(sha256)
        self._make_ready()
        held = self._found(path, size)
        if held is not None:
            return held
        try:
            return self._downloaded(folder, name, size, path)
        except OSError as error:
            if error.errno not in room.FULL:
                raise
        # The disk holds other things too: give it what nobody here uses, and try once more.
        with self._alone():
            found = room.contents(self.directory)
            self._evict(found, found.bytes, found.downloads)
        try:
            return self._downloaded(folder, name, size, path)
        except OSError as error:
            if error.errno not in room.FULL:
                raise
            raise self._full(error, folder.url_of(name), size) from None

    def path_of(self, sha256: str) -> Path:
        """Where a shard is, if it is here; ValueError for what is no digest in hexadecimal."""
        return room.shard_path(self.directory, sha256)

    @property
    def bytes(self) -> int:
        """Bytes of the shards that are here."""
        return room.contents(self.directory).bytes

    def sweep(self) -> None:
        """Remove what processes left that were killed in a download."""
        for sha256 in room.contents(self.directory).downloads:
            room.is_dead(self.directory, sha256)

    def _found(self, path: Path, size: int) -> Held | None:
        held = _open(path, size)
        if held is not None:
            self._count(hits=1)
        return held

    def _downloaded(self, folder: Folder, name: str, size: int, path: Path) -> Held:
        """Held after a download, this process's or another's."""
        with self._downloading(folder, path) as lock:
            held = self._found(path, size)
            if held is not None:
                return held
            for left in room.partials(path):
                left.unlink(missing_ok=True)  # whose process is dead, or it would have the lock
            try:
                self._download(folder, name, size, path, lock)
            except (NoRoom, PermissionError):  # which are this process's own
                raise
            except OSError as error:
                if error.errno not in room.FULL:
                    room.note_failure(lock, folder, error)
                raise
            held = _open(path, size)
            if held is None:
                raise OSError(f"{path}: was removed as soon as it was there; leave the cache alone")
            return held

    def _download(self, folder: Folder, name: str, size: int, path: Path, lock: int) -> None:
        url, there = folder.url_of(name), folder.size(name)
        if there is None:
            raise FileNotFoundError(f"{url}: no such file")
        if there != size:
            raise WrongBytes(
                f"{url}: has {there} bytes, its index says {size}; it is damaged or another"
                " version: build or copy it anew"
            )
        path.unlink(missing_ok=True)  # of another size: the disk has damaged it
        self._make_room(size, url, path, lock)
        folder.fetch(name, path, path.stem)
        self._count(downloads=1, downloaded_bytes=size)

    @contextmanager
    def _downloading(self, folder: Folder, path: Path) -> Iterator[int]:
        """While no other process or thread of the node downloads this file; its lock."""

        def met(file: int) -> None:
            said = room.noted_failure(file, folder)
            if said:
                raise OSError(f"{said} (so found another process, which this one waited for)")

        lock_path = path.with_suffix(".lock")
        try:
            with self._writing():
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = flock.wait_for(lock_path, self.silence_s, lambda: room.pulse(path), met)
        except TimeoutError as error:
            raise OSError(
                f"{error}; the process that downloads the shard is stopped, or its server is silent"
                f" (fuser {lock_path} names it): end it, or name another folder in data.cache_dir"
            ) from None
        _under_way.add(path)
        try:
            yield lock
        finally:
            _under_way.discard(path)
            flock.give_back(lock_path, lock)

    def _make_room(self, size: int, url: str, path: Path, lock: int) -> None:
        """Evict until `size` more bytes fit, and note in the lock that they are taken."""
        if size > self.budget_bytes:
            raise NoRoom(
                f"{url}: has {size} bytes, the cache {self.directory} may hold"
                f" {self.budget_bytes}; raise data.cache_gb"
            )
        until = time.monotonic() + self.patience_s
        while True:
            with self._alone():
                # In this order, or a download that ends in between would be in neither; so it may
                # be in both, and is counted once.
                others = room.granted(self.directory, path.stem)
                found = room.contents(self.directory)
                arriving = sum(max(0, n - found.bytes_of(sha256)) for sha256, n in others.items())
                missing = found.bytes + arriving + size - self.budget_bytes
                freed = self._evict(found, missing, others)
                if freed >= missing:
                    room.grant(lock, size)
                    return
            if time.monotonic() > until:
                raise NoRoom(
                    f"{url}: no room for its {size} bytes: {self.directory} may hold"
                    f" {self.budget_bytes}, of which {found.bytes - freed} are held by processes of"
                    f" this node and {arriving} are being downloaded; raise data.cache_gb, lower"
                    " data.window or data.streams, or name a folder of this job's own in"
                    " data.cache_dir"
                )
            os.utime(lock)  # a sign of life
            time.sleep(_POLL_S)

    def _evict(self, found: room.Contents, wanted: int, spared: Container[str]) -> int:
        """How many bytes were freed."""
        gone = room.evict(self.directory, found, wanted, spared)
        self._count(evictions=len(gone))
        return sum(gone)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with flock.alone(self.directory, self.silence_s):
                yield
        except TimeoutError as error:
            raise OSError(
                f"{error}; it is stopped or hangs (fuser {self.directory} names it): end it, or"
                " name another folder in data.cache_dir"
            ) from None

    def _make_ready(self) -> None:
        """Before the first hold: the directory, without what dead processes left."""
        if self._is_ready:
            return
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            if self.directory.stat().st_mode & stat.S_IWOTH:
                raise PermissionError(errno.EPERM, "every user may write in it")
            self.sweep()
        self._is_ready = True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what to do where the directory cannot be made or written."""
        try:
            yield
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise OSError(
                error.errno,
                f"{self.directory}: the cache cannot be written: {error.strerror}; name another"
                " folder in data.cache_dir, new or of your own",
            ) from None

    def _full(self, error: OSError, url: str, size: int) -> OSError:
        about = os.statvfs(self.directory)
        return OSError(
            error.errno,
            f"{url}: its {size} bytes do not fit: the disk of the cache {self.directory} has"
            f" {about.f_bavail * about.f_frsize} left ({os.strerror(error.errno)}) and nothing"
            " there is unused; free some space, or name a folder on another disk in data.cache_dir",
        )

    def _count(self, **more: int) -> None:
        with _counting:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)


def remove_unfinished() -> None:
    """What this process's downloads have written so far, which is about to end in their middle."""
    for path in list(_under_way):
        for left in room.partials(path):
            left.unlink(missing_ok=True)


def _open(path: Path, size: int) -> Held | None:
    """Hold a file that is here and whole, as used now."""
    try:
        # Not blocking: it could be a pipe.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error.strerror) from None
    is_held = False
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _unusable(path, "it is no plain file")
        # Who evicts locks it exclusively, for an instant: then it is as good as gone, and the
        # caller looks again when nobody may evict it. Without a name, it was evicted.
        if flock.lock(file, fcntl.LOCK_SH):
            about = os.fstat(file)
            is_held = about.st_nlink > 0 and about.st_size == size
    finally:
        if not is_held:
            flock.let_go(file)
    if not is_held:
        return None
    with suppress(OSError):  # another user's file or a disk that can only be read
        now = time.time_ns()
        os.utime(file, ns=(now, now))
    return Held(path, file)


def _unusable(path: Path, why: str) -> OSError:
    return OSError(
        f"{path}: cannot be used as a shard of the cache: {why}; remove it, or name another folder"
        " in data.cache_dir"
    )


def _after_fork() -> None:
    global _counting
    _counting = threading.Lock()  # which another thread of the parent may have
    _under_way.clear()


os.register_at_fork(after_in_child=_after_fork)
