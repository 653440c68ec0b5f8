"""What every folder can do, and how files get to their names whole or not at all."""

import errno
import hashlib
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

_CHUNK = 1 << 20
_PARTIAL = re.compile(r"\..+\.partial-[0-9a-f]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class S3Options:
    """How S3 is reached; what is not given comes from AWS's environment and files, as ever."""

    endpoint_url: str | None = None
    """Address of a server other than Amazon's, such as http://localhost:8333"""
    profile: str | None = None
    """Profile of ~/.aws/config and ~/.aws/credentials"""
    region: str | None = None
    """Region of the bucket, such as eu-central-1"""
    unsigned: bool = False
    """Send no credentials: for public buckets"""
    deadline_s: float = 300.0
    """Seconds for which what fails is tried again; an eighth of them may pass in silence"""

    def __post_init__(self) -> None:
        if not self.deadline_s > 0:
            raise ValueError(f"deadline_s is {self.deadline_s}; more than 0 seconds are needed")
        if self.endpoint_url is not None and not re.match(r"https?://[^/]", self.endpoint_url):
            raise ValueError(
                f"endpoint_url is {self.endpoint_url!r}; an address that begins with http:// or"
                " https:// is needed"
            )


class WrongBytes(OSError):
    """A file is not the one that was asked for; the message names it and both digests."""


@dataclass(frozen=True)
class Folder(ABC):
    """Files by name below a URL; a name is a relative path such as "train/shard-000000.tar".

    A name that leads out of the folder is refused with ValueError. Errors are OSErrors of one line
    that name the URL; FileNotFoundError is for an absent file alone, never for an absent bucket.
    A folder can be pickled, and used by several threads and processes at a time.
    """

    url: str

    def url_of(self, name: str) -> str:
        """The URL of a file, for messages; ValueError for a name that leads out of the folder."""
        return f"{self.url.rstrip('/')}/{checked_name(name, self.url)}"

    def child(self, name: str) -> "Folder":
        """The folder of this name in this one."""
        return replace(self, url=self.url_of(name))

    def names(self) -> Iterator[str]:
        """Every file below, recursively, in the order of the names' characters.

        One directory's names are in memory at a time. A folder that is not there has none.
        """
        yield from self._names_below("")

    def _names_below(self, directory: str) -> Iterator[str]:
        for entry in sorted(self._entries(directory)):
            if entry.endswith("/"):
                yield from self._names_below(directory + entry)
            else:
                yield checked_name(directory + entry, self.url)

    @abstractmethod
    def _entries(self, directory: str) -> Iterator[str]:
        """What is directly in a directory ("" or "train/"); directories end in a slash."""

    @abstractmethod
    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of a file from `start` on, or all to its end; never fewer.

        Raises FileNotFoundError when it is absent, OSError when it has fewer bytes.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file, which is there whole or not at all."""

    @abstractmethod
    def put(self, name: str, file: Path, sha256: str) -> None:
        """Move a local file here; `file` is gone afterwards, and still there after an error.

        sha256: the file's digest in hexadecimal.
        """

    @abstractmethod
    def fetch(self, name: str, file: Path, sha256: str | None = None) -> None:
        """Copy a file to the local `file`, where it appears whole or not at all.

        Raises WrongBytes, an OSError, when it has another digest than `sha256`.
        """

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """A local file with this content: the file itself, or a download that vanishes after."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is absent."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; one that is absent is no error."""


def checked_name(name: str, url: str) -> str:
    """The name itself; ValueError for one that is not a plain path below its folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise ValueError(
            f"{url}: {name!r} is no name in this folder; a relative path without empty parts,"
            " '.' and '..' is needed"
        )
    return name


def checked_range(start: int, size: int | None) -> None:
    """ValueError for a range of bytes that cannot be."""
    if start < 0 or (size is not None and size < 0):
        raise ValueError(f"bytes from {start} on, {size} of them, asked; neither may be negative")


def too_short(url: str, start: int, size: int | None, held: int) -> OSError:
    """The error of a range that reaches beyond the file's end."""
    asked = f"bytes from {start} on" if size is None else f"bytes {start} to {start + size}"
    return OSError(f"{url}: {asked} were asked, but it has {held}; it was cut or replaced")


@contextmanager
def appearing(file: Path) -> Iterator[Path]:
    """A hidden path beside `file`, which takes its name and is safe on disk when all went well."""
    partial = file.with_name(f".{file.name}.partial-{secrets.token_hex(8)}")
    with saying_full(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            sync(partial)
            os.replace(partial, file)
            sync(file.parent)
        finally:
            partial.unlink(missing_ok=True)


def is_partial(name: str) -> bool:
    """Whether a file's name is one of `appearing`."""
    return _PARTIAL.fullmatch(name) is not None


@contextmanager
def saying_full(file: Path) -> Iterator[None]:
    """A full disk, quota or size limit says which file did not fit and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        why = os.strerror(error.errno)
        raise OSError(
            error.errno,
            f"{file}: {why}: it did not fit and nothing of it was kept; free some space or choose"
            " another directory",
        ) from None


def sha256_of(file: Path) -> str:
    """A local file's digest in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have a file, or a directory's names, on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
