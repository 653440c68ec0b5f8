"""Locks between the processes of a node: flock, which the kernel takes back from who dies.

A lock belongs to an open file description, not to a process. Threads that open a file each exclude
each other as processes do. But a forked child shares its parent's descriptions, whatever O_CLOEXEC
says, which is for exec: the lock would last until the child ends too. So what is locked here
belongs to the process that locked it: its `let_go` unlocks although a child may have the file open,
and after a fork the child finds in each such descriptor the same file, opened anew, not locked.

Nobody waits in the kernel, where neither a timeout nor a stopped owner could be noticed.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.02
# NFS says EBADF: it would lock exclusively only what is open for writing.
_CANNOT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
_SHARED = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2"),
        *("orangefs", "smb3", "wekafs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
    )
)
_locked: set[int] = set()
"""Descriptors whose locks are this process's."""


def lock(file: int, how: int) -> bool:
    """Lock an open file if nobody stands against it, LOCK_SH or LOCK_EX; whether that was so.

    Raises OSError where the file system has no locks.
    """
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        raise OSError(
            error.errno,
            f"{_path_of(file)}: its file system cannot lock files ({error.strerror}), which"
            " processes that share a cache need; name a folder on a disk of this node in"
            " data.cache_dir",
        ) from None
    _locked.add(file)
    return True


def let_go(file: int) -> None:
    """Close a file, and unlock it if the lock is this process's."""
    if file in _locked:
        _locked.discard(file)
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def take(path: Path) -> int | None:
    """The descriptor of a lock file, made if it is absent; None while another has it.

    To be given back with `give_back`.
    """
    file = _opened(path)
    is_ours = False
    try:
        # Without a name it was removed by its last owner between our two lines.
        is_ours = lock(file, fcntl.LOCK_EX) and os.fstat(file).st_nlink > 0
    finally:
        if not is_ours:
            let_go(file)
    return file if is_ours else None


def give_back(path: Path, file: int) -> None:
    """Remove a lock file and let those who wait for it make it anew."""
    path.unlink(missing_ok=True)  # while it is locked: a later file of this name is another's
    let_go(file)


def wait_for(
    path: Path,
    silence_s: float,
    pulse: Callable[[], Hashable],
    met: Callable[[int], None] = lambda file: None,
) -> int:
    """The descriptor of a lock file, once its owners have given it back.

    pulse: something that changes while an owner lives. met: called with the file of each owner that
    was waited for, when it has given it back. Raises TimeoutError when the pulse stood still for
    `silence_s` seconds.
    """
    heard, last = time.monotonic(), pulse()
    while True:
        file = _opened(path)
        try:
            while not lock(file, fcntl.LOCK_EX):
                time.sleep(_POLL_S)
                now = pulse()
                if now != last:
                    heard, last = time.monotonic(), now
                elif time.monotonic() - heard > silence_s:
                    raise TimeoutError(f"{path}: locked, without a sign of life for {silence_s} s")
            if os.fstat(file).st_nlink:
                return file
            met(file)
        except BaseException:
            let_go(file)
            raise
        let_go(file)


@contextmanager
def alone(directory: Path, silence_s: float) -> Iterator[None]:
    """While no other process or thread is in a `with` like this of the same directory.

    It is the directory that is locked, so a full disk is no hindrance. Raises TimeoutError.
    """
    file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        until = time.monotonic() + silence_s
        while not lock(file, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise TimeoutError(f"{directory}: locked by another process for {silence_s} s")
            time.sleep(_POLL_S)
        yield
    finally:
        let_go(file)


def shared_disk(path: Path, mounts: str | None = None) -> str:
    """The kind of file system, such as "nfs4", if a path is on one that nodes share; or "".

    mounts: what /proc/self/mountinfo says, read if not given. A path that does not exist yet will
    be where the nearest of its parents is.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        device = path.stat().st_dev
        lines = (mounts or Path("/proc/self/mountinfo").read_text(errors="replace")).splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        place, _, kind = line.partition(" - ")
        if place.split()[2:3] == [number] and kind.split()[0] in _SHARED:
            return kind.split()[0]
    return ""


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)


def _path_of(file: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        return f"descriptor {file}"


def _leave_to_parent() -> None:
    """In a forked child: the same files behind the same descriptors, without the parent's locks."""
    for file in _locked:
        with suppress(OSError):
            fresh = os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(fresh, file, inheritable=False)
            os.close(fresh)
    _locked.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
