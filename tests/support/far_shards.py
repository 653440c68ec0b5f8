"""Small shards somewhere else, for caches to fetch, and processes that fetch them."""

import hashlib
import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from relightx.data.cache import Held, ShardCache
from relightx.storage import Folder, LocalFolder

SIZE = 3000
FORK = multiprocessing.get_context("fork")


def shard(number: int, size: int = SIZE) -> bytes:
    """The bytes of a shard, which say its number."""
    return (hashlib.sha256(str(number).encode()).digest() * (size // 32 + 1))[:size]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def filled(folder: Folder, count: int, size: int = SIZE) -> Folder:
    """The folder with shards 0.tar, 1.tar and so on."""
    for number in range(count):
        folder.write(f"{number}.tar", shard(number, size))
    return folder


def hold(cache: ShardCache, folder: Folder, number: int, size: int = SIZE) -> Held:
    return cache.hold(folder, f"{number}.tar", size, digest(shard(number, size)))


def held_bytes(held: Held) -> bytes:
    return os.pread(held.file, 1 << 30, 0)


def is_right(held: Held) -> bool:
    return digest(held_bytes(held)) == held.path.stem


def files(cache: ShardCache) -> list[str]:
    """The names of all files in the cache, hidden ones too."""
    return sorted(path.name for path in cache.directory.rglob("*") if path.is_file())


def kept(cache: ShardCache, count: int = 10, size: int = SIZE) -> set[int]:
    """The numbers of the shards that are in the cache."""
    return {n for n in range(count) if cache.path_of(digest(shard(n, size))).exists()}


def eventually(claim: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it came true in that time."""
    until = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def in_processes(count: int, action: Callable[[int], None]) -> list[int]:
    """Exit statuses of processes that begin at one time."""
    barrier = FORK.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        action(number)

    started = [FORK.Process(target=run, args=(number,)) for number in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    return [process.exitcode for process in started]


@contextmanager
def another_process(action: Callable[[], object]) -> Iterator[BaseProcess]:
    """A process that does this until it is killed, at the latest at the end."""
    process = FORK.Process(target=action)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def in_threads(count: int, action: Callable[[int], object]) -> list[object]:
    """What the action gave, or raised, in threads that begin at one time."""
    barrier, found = threading.Barrier(count), [None] * count

    def run(number: int) -> None:
        barrier.wait()
        try:
            found[number] = action(number)
        except Exception as error:
            found[number] = error

    started = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(60)
    return found


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of this size, such as "64k"."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("needs root on a machine that lets it mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


class SlowFolder(LocalFolder):
    """A directory whose files take half a second to come."""

    def fetch(self, name: str, file: Path, sha256: str | None = None) -> None:
        time.sleep(0.5)
        super().fetch(name, file, sha256)
