"""Where the bytes of shards come from: local files, the node's cache, or S3 by ranges.

A source gives spans of bytes of a shard and knows nothing of portraits. Files are read with one
`pread` for each span: on a warm disk it takes 1 us and the copying, while to read several at once
and cut them apart would copy them twice, ten times as slow. Of S3, spans that lie close to each
other are one request.

Sources may be pickled, forked and used by several threads; what is open belongs to one process.
"""

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from relightx.data.cache import ShardCache
from relightx.data.fault import ReadFault
from relightx.index import ShardEntry
from relightx.storage import Folder

Span = tuple[int, int]
"""Offset and size of some bytes of a shard."""

GAP_BYTES = 64 << 10
"""Spans of a shard in S3 that are less than this apart are one request.

A request costs 0.7 ms of a core and, before its first byte, 10 to 30 ms of waiting; 64 KiB that
nobody asked for cost 0.05 ms and 1 ms. More would save yet more time, but it is the bandwidth of
all readers of a cluster that pays for it.
"""
MOST_OPEN = 64
"""Files that a source keeps open in each process."""
_THREADS = 16
_CHUNK = 1 << 22


class Wanted(NamedTuple):
    """Some spans of a shard, which lies in `folder`."""

    folder: Folder
    shard: ShardEntry
    spans: Sequence[Span]


class Source(ABC):
    """Gives bytes of shards."""

    @abstractmethod
    def read(self, wanted: Wanted) -> list[bytes]:
        """The bytes of each span, whole. Raises ReadFault."""

    def read_many(self, wanted: Sequence[Wanted]) -> Iterator[list[bytes] | ReadFault]:
        """What `read` gives or raises for each, in their order, while later ones are under way."""
        for each in wanted:
            try:
                yield self.read(each)
            except ReadFault as fault:
                yield fault

    def rest(self) -> None:  # noqa: B027  (most sources have nothing that others wait for)
        """Nothing is read for a while: let go of what others may be waiting for."""


@runtime_checkable
@runtime_checkable
class OpenFile(Protocol):
    """A file that is open for reading."""

    @property
    def file(self) -> int:
        """The descriptor."""

    def close(self) -> None:
        """Let it go."""


class _Files(Source):
    """Shards as files, the last used of which stay open."""

    def __init__(self, most_open: int) -> None:
        if most_open < 1:
            raise ValueError(f"{most_open} open files allowed; 1 or more needed")
        self.most_open = most_open
        self._begin()

    def _begin(self) -> None:
        """In a process of its own: what was open before a fork is the parent's."""
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[Hashable, OpenFile] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def read(self, wanted: Wanted) -> list[bytes]:
        if self._owner != os.getpid():
            self._let_go()  # a child's copies
            self._begin()
        with self._lock:  # or another thread could close the file
            file = self._file(wanted.folder, wanted.shard)
            try:
                found = [os.pread(file, size, offset) for offset, size in wanted.spans]
            except OSError as error:
                url = wanted.folder.url_of(wanted.shard.name)
                raise ReadFault.at(url, error.strerror or error) from None
        for data, (offset, size) in zip(found, wanted.spans, strict=True):
            if len(data) != size:
                url = wanted.folder.url_of(wanted.shard.name)
                cause = f"only {len(data)} bytes are there; it was cut while it was in use"
                raise ReadFault.at(url, cause, start=offset, size=size)
        return found

    def close(self) -> None:
        """Let go of all files; they are opened again when they are needed."""
        with self._lock:
            self._let_go()

    def __del__(self) -> None:
        if "_open" in vars(self):
            self._let_go()

    def _let_go(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _file(self, folder: Folder, shard: ShardEntry) -> int:
        name = self._name(folder, shard)
        opened = self._open.get(name)
        if opened is not None:
            self._open.move_to_end(name)
            return opened.file
        while len(self._open) >= self.most_open:
            self._open.popitem(last=False)[1].close()
        opened = self._opened(folder, shard)
        self._open[name] = opened
        return opened.file

    @abstractmethod
    def _name(self, folder: Folder, shard: ShardEntry) -> Hashable:
        """What tells one shard's file from another's."""

    @abstractmethod
    def _opened(self, folder: Folder, shard: ShardEntry) -> OpenFile:
        """Open a shard that has been looked at. Raises ReadFault."""


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.file)


class LocalShards(_Files):
    """Shards that lie in directories of this machine.

    A shard of another size than its index says is refused when it is opened, so a copy cut short
    can never give a short portrait. verify: hash each shard before a process first uses it.
    """

    def __init__(self, most_open: int = MOST_OPEN, verify: bool = False) -> None:
        self.verify = verify
        super().__init__(most_open)

    def _begin(self) -> None:
        super()._begin()
        self._verified: set[str] = set()

    def _name(self, folder: Folder, shard: ShardEntry) -> Hashable:
        return folder.url, shard.name

    def _opened(self, folder: Folder, shard: ShardEntry) -> OpenFile:
        path = folder.url_of(shard.name)
        try:
            opened = _LocalFile(Path(path))
        except OSError as error:
            raise ReadFault.at(path, f"shard cannot be opened: {error.strerror}") from None
        try:
            _check_size(path, opened.file, shard)
            if self.verify and path not in self._verified:
                _check_sha256(path, opened.file, shard)
                self._verified.add(path)
        except BaseException:
            opened.close()
            raise
        return opened


class CachedShards(_Files):
    """Shards from S3 that the node's cache downloads and verifies at their first use.

    What is held cannot leave the cache. So nothing is held by who waits for a download, which needs
    room, or who has no more to read for now: to hold a shard again takes 0.04 ms, and readers that
    waited for each other would stand still.
    """

    def __init__(self, cache: ShardCache, most_open: int = MOST_OPEN) -> None:
        self.cache = cache
        super().__init__(most_open)

    def rest(self) -> None:
        self.close()

    def _name(self, folder: Folder, shard: ShardEntry) -> Hashable:
        return shard.sha256

    def _opened(self, folder: Folder, shard: ShardEntry) -> OpenFile:
        url = folder.url_of(shard.name)
        if not self.cache.path_of(shard.sha256).exists():
            self._let_go()
        try:
            held = self.cache.hold(folder, shard.name, shard.bytes, shard.sha256)
        except (OSError, ValueError) as error:
            raise ReadFault.at(url, error, start=0, size=shard.bytes) from None
        try:
            _check_size(url, held.file, shard)
        except BaseException:
            held.close()
            raise
        return held


class RangedShards(Source):
    """Shards in S3 of which only the spans asked for are read, many at a time.

    No digest is known of a span. Over https it cannot change on its way; over http the checksums
    of PNG tell, which JPEG does not have.
    threads: requests under way at a time, in each process.
    """

    def __init__(self, threads: int = _THREADS) -> None:
        if threads < 1:
            raise ValueError(f"{threads} threads asked; 1 or more needed")
        self.threads = threads
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"threads": self.threads, "_pool": None}

    def read(self, wanted: Wanted) -> list[bytes]:
        (found,) = self.read_many([wanted])
        if isinstance(found, ReadFault):
            raise found
        return found

    def read_many(self, wanted: Sequence[Wanted]) -> Iterator[list[bytes] | ReadFault]:
        asked = [runs(each.spans, GAP_BYTES) for each in wanted]
        submit = _at_once if sum(map(len, asked)) == 1 else self._threads().submit
        answers = [
            [submit(_read_run, each, run) for run in of_each]
            for each, of_each in zip(wanted, asked, strict=True)
        ]
        return map(_joined, wanted, asked, answers)

    def _threads(self) -> ThreadPoolExecutor:
        """Of this process: threads do not live through a fork."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), ThreadPoolExecutor(self.threads, "relightx-ranges"))
        return self._pool[1]


class Run(NamedTuple):
    """Bytes from start to end, and the places, in what was asked for, of the spans in them."""

    start: int
    end: int
    places: list[int]


def runs(spans: Sequence[Span], gap: int) -> list[Run]:
    """Spans that are less than `gap` bytes apart together, from the first to the last."""
    found: list[Run] = []
    for place in sorted(range(len(spans)), key=spans.__getitem__):
        offset, size = spans[place]
        if found and offset - found[-1].end < gap:
            start, end, places = found.pop()
            found.append(Run(start, max(end, offset + size), [*places, place]))
        else:
            found.append(Run(offset, offset + size, [place]))
    return found


def _read_run(wanted: Wanted, run: Run) -> bytes | ReadFault:
    folder, shard = wanted.folder, wanted.shard
    try:
        return folder.read(shard.name, run.start, run.end - run.start)
    except (OSError, ValueError) as error:
        url = folder.url_of(shard.name)
        return ReadFault.at(url, error, start=run.start, size=run.end - run.start)


def _at_once(action: Any, *arguments: Any) -> Future:
    done: Future = Future()
    done.set_result(action(*arguments))
    return done


def _joined(wanted: Wanted, asked: list[Run], answers: list[Future]) -> list[bytes] | ReadFault:
    """The spans cut out of the runs that they came in."""
    found = [b""] * len(wanted.spans)
    for run, answer in zip(asked, answers, strict=True):
        data = answer.result()
        if isinstance(data, ReadFault):
            return data
        for place in run.places:
            offset, size = wanted.spans[place]
            found[place] = data[offset - run.start : offset - run.start + size]
    return found


def _check_size(path: str, file: int, shard: ShardEntry) -> None:
    size = os.fstat(file).st_size
    if size != shard.bytes:
        raise ReadFault.at(
            path,
            f"the shard has {size} bytes, its index says {shard.bytes}; copy it again or rebuild"
            " the shards",
        )


def _check_sha256(path: str, file: int, shard: ShardEntry) -> None:
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(file, _CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    if digest.hexdigest() != shard.sha256:
        raise ReadFault.at(
            path,
            f"the shard has sha256 {digest.hexdigest()}, its index says {shard.sha256}; it is"
            " damaged or another version: copy it again or rebuild the shards",
        )
