"""Shards are there before they are needed, held while they are, and let go when they are past."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from relightx.data.cache import Held, ShardCache
from relightx.data.order import Need
from relightx.data.prefetch import Prefetcher
from relightx.storage import Folder, LocalFolder

SIZE = 1000


@pytest.fixture
def folder(tmp_path) -> Folder:
    """Twenty shards; number 7 is not the one that was asked for."""
    folder = LocalFolder(str(tmp_path / "far"))
    for number in range(20):
        folder.write(f"{number}.tar", bytes([number if number != 7 else 99]) * SIZE)
    return folder


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 100 * SIZE)


def sha256_of(number: int) -> str:
    return hashlib.sha256(bytes([number]) * SIZE).hexdigest()


def eventually(claim: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def there(cache: ShardCache) -> set[int]:
    return {number for number in range(20) if cache.path_of(sha256_of(number)).exists()}


def held(cache: ShardCache) -> set[int]:
    """Those that cannot be evicted: a cache with no room for anything leaves nothing else."""
    pressed = ShardCache(cache.directory, 1)
    pressed._evict(1 << 60)
    return there(cache)


def one_a_step() -> Iterator[Need]:
    return (Need(number, number, number) for number in count())


@pytest.fixture
def prefetcher(folder, cache) -> Callable[..., Prefetcher]:
    """prefetcher(needs, shards): allowed to hold so many ahead."""

    def hold(number: int) -> Held:
        return cache.hold(folder, f"{number}.tar", SIZE, sha256_of(number))

    def make(needs=one_a_step, shards: int = 3) -> Prefetcher:
        return Prefetcher(needs, hold, lambda _: SIZE, allowance=shards * SIZE)

    return make


def test_as_many_as_are_allowed_come_ahead_and_no_more(prefetcher, cache):
    with prefetcher():
        assert eventually(lambda: there(cache) == {0, 1, 2})
        time.sleep(0.3)
        assert there(cache) == held(cache) == {0, 1, 2}


def test_what_is_past_is_let_go_and_the_next_come(prefetcher, cache):
    with prefetcher() as going:
        going.advance(3)
        assert eventually(lambda: {3, 4, 5} <= there(cache))
        assert eventually(lambda: held(cache) == {3, 4, 5})


def test_those_of_the_step_that_goes_on_come_whatever_is_allowed(prefetcher, cache):
    def two_at_once() -> Iterator[Need]:
        return iter([Need(0, 0, 5), Need(1, 0, 5), Need(2, 3, 5)])

    with prefetcher(two_at_once, shards=1) as going:
        assert eventually(lambda: there(cache) == {0, 1})
        time.sleep(0.2)
        assert there(cache) == {0, 1}
        going.advance(3)
        assert eventually(lambda: there(cache) == {0, 1, 2})


def test_a_shard_that_is_needed_again_is_held_once_and_longer(prefetcher, cache):
    def again() -> Iterator[Need]:
        return iter([Need(0, 0, 1), Need(0, 1, 6), Need(1, 2, 3)])

    with prefetcher(again, shards=2) as going:
        assert eventually(lambda: there(cache) == {0, 1})
        going.advance(5)
        assert eventually(lambda: held(cache) == {0})
        going.advance(7)
        assert eventually(lambda: held(cache) == set())


def test_a_shard_that_cannot_be_had_keeps_nobody_up(prefetcher, cache):
    with prefetcher() as going:
        for step in range(10):
            going.advance(step)
            assert eventually(lambda: {step, step + 1} - {7} <= there(cache))  # noqa: B023
        assert 7 not in there(cache)


def test_it_ends_with_its_own_end(prefetcher, cache):
    with prefetcher():
        assert eventually(lambda: there(cache) == {0, 1, 2})
    assert held(cache) == set()
    assert not [p for p in multiprocessing.active_children() if p.name == "prefetch"]


def test_it_ends_when_its_training_process_is_killed(prefetcher, cache):
    def train() -> None:
        with prefetcher():
            time.sleep(60)

    # Not a daemon, whose children are killed by the interpreter and not by their own doing.
    trainer = multiprocessing.get_context("fork").Process(target=train)
    trainer.start()
    assert eventually(lambda: there(cache) == {0, 1, 2})
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.join()
    assert eventually(lambda: held(cache) == set())


def test_a_terminal_s_interrupt_is_left_to_the_training_process(prefetcher, cache):
    with prefetcher() as going:
        assert eventually(lambda: there(cache) == {0, 1, 2})
        os.kill(going._process.pid, signal.SIGINT)
        going.advance(5)
        assert eventually(lambda: {5, 6} <= there(cache))


def test_advancing_costs_next_to_nothing(prefetcher):
    with prefetcher() as going:
        start = time.perf_counter()
        for step in range(1000):
            going.advance(step)
        assert time.perf_counter() - start < 0.1


def test_nothing_needed_is_no_error(prefetcher, cache, tmp_path: Path):
    with prefetcher(lambda: iter(())):
        time.sleep(0.1)
    assert not (tmp_path / "cache").exists()
