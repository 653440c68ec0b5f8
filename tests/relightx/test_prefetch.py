"""Shards are there before they are needed, held while they are, and let go when they are past."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count

import fault_proxy as faults
import pytest
from far_shards import (
    FORK,
    SIZE,
    SlowFolder,
    another_process,
    eventually,
    files,
    filled,
    hold,
    kept,
)

from relightx.data import room
from relightx.data.cache import ShardCache
from relightx.data.order import Need
from relightx.data.prefetch import Prefetcher
from relightx.storage import Folder, LocalFolder

NUMBERS = 20


@pytest.fixture
def folder(tmp_path) -> Folder:
    """Twenty shards; number 7 is not the one that was asked for."""
    folder = filled(LocalFolder(str(tmp_path / "far")), NUMBERS)
    folder.write("7.tar", bytes(SIZE))
    return folder


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 100 * SIZE, patience_s=0.1)


def there(cache: ShardCache) -> set[int]:
    return kept(cache, NUMBERS)


def held(cache: ShardCache) -> set[int]:
    """Those that cannot be evicted: all others are."""
    contents = room.contents(cache.directory)
    room.evict(cache.directory, contents, 1 << 60, contents.downloads)
    return there(cache)


def one_a_step() -> Iterator[Need]:
    return (Need(number, number, number) for number in count())


@pytest.fixture
def prefetcher(folder, cache) -> Callable[..., Prefetcher]:
    """prefetcher(needs, shards, folder, ...): allowed to hold so many ahead."""

    def make(
        needs=one_a_step, shards: int = 2, folder: Folder = folder, **options: int
    ) -> Prefetcher:
        return Prefetcher(
            needs,
            lambda number: hold(cache, folder, number),
            lambda _: SIZE,
            allowance=shards * SIZE,
            **options,
        )

    return make


# -- what is held when --------------------------------------------------------------------------


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

    with prefetcher(two_at_once, shards=0) as going:
        assert eventually(lambda: there(cache) == {0, 1})
        time.sleep(0.2)
        assert there(cache) == {0, 1}
        going.advance(3)
        assert eventually(lambda: there(cache) == {0, 1, 2})


def test_shards_of_the_step_that_goes_on_do_not_count_as_ahead(prefetcher, cache):
    def windows_of_four() -> Iterator[Need]:
        return (Need(n, 10 * (n // 4), 10 * (n // 4) + 9) for n in range(NUMBERS))

    with prefetcher(windows_of_four, shards=1) as going:
        assert eventually(lambda: there(cache) == {0, 1, 2, 3, 4})
        going.advance(10)
        assert eventually(lambda: held(cache) == {4, 5, 6, 8})  # 7 cannot be had


def test_a_shard_that_is_needed_again_is_held_once_and_longer(prefetcher, cache):
    def again() -> Iterator[Need]:
        return iter([Need(0, 0, 1), Need(0, 1, 6), Need(1, 2, 3)])

    with prefetcher(again) as going:
        assert eventually(lambda: there(cache) == {0, 1})
        going.advance(5)
        assert eventually(lambda: held(cache) == {0})
        going.advance(7)
        assert eventually(lambda: held(cache) == set())


def test_a_shard_that_is_kept_for_later_counts_as_ahead(prefetcher, cache):
    def in_turn() -> Iterator[Need]:
        return (Need(step % 5, step, step) for step in count())

    with prefetcher(in_turn, shards=2) as going:
        for step in range(12):
            going.advance(step)
            wanted = {(step + ahead) % 5 for ahead in range(3)}
            assert eventually(lambda: held(cache) == wanted)  # noqa: B023


def test_where_everything_fits_the_walk_does_not_go_on_for_ever(prefetcher, cache):
    walked = FORK.RawValue("q", 0)

    def in_turn() -> Iterator[Need]:
        for step in count():
            walked.value = step
            yield Need(step % 5, step, step)

    def train() -> None:
        with prefetcher(in_turn, shards=5):
            time.sleep(60)

    with another_process(train):
        assert eventually(lambda: there(cache) == {0, 1, 2, 3, 4})
        assert eventually(lambda: walked.value == 4097)
        time.sleep(0.3)
        assert walked.value == 4097
    assert eventually(lambda: held(cache) == set())  # and the process saw the end of its parent


def test_a_run_that_goes_on_fetches_nothing_of_what_is_past(prefetcher, cache):
    with prefetcher(start_step=10):
        assert eventually(lambda: {10, 11, 12} <= there(cache))
        assert there(cache) == {10, 11, 12}


def test_what_was_passed_by_before_it_came_is_not_fetched(prefetcher, cache, tmp_path):
    slow = filled(SlowFolder(str(tmp_path / "slow")), NUMBERS)
    with prefetcher(shards=10, folder=slow, threads=1) as going:
        time.sleep(0.2)
        going.advance(12)
        assert eventually(lambda: {12, 13} <= there(cache))
        assert not {2, 3, 4, 5, 6, 7, 8, 9} & there(cache)


def test_several_come_at_a_time(prefetcher, cache, tmp_path):
    slow = filled(SlowFolder(str(tmp_path / "slow")), NUMBERS)
    with prefetcher(shards=7, folder=slow, threads=8):
        assert eventually(lambda: bool(there(cache)))
        assert eventually(lambda: len(there(cache)) == 8, seconds=2)  # one by one: 4 s


def test_nothing_needed_is_no_error(prefetcher, cache):
    with prefetcher(lambda: iter(())) as going:
        time.sleep(0.2)
        assert going.fault == ""
    assert not cache.directory.exists()


def test_advancing_costs_next_to_nothing(prefetcher):
    with prefetcher() as going:
        start = time.perf_counter()
        for step in range(1000):
            going.advance(step)
        assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"shards": -1}])
def test_what_cannot_be_is_refused(prefetcher, wrong):
    with pytest.raises(ValueError, match="asked; 1 or more and 0 or more needed"):
        prefetcher(**wrong)


# -- faults -------------------------------------------------------------------------------------


def test_a_shard_that_cannot_be_had_keeps_nobody_up_and_is_told(prefetcher, cache):
    with prefetcher() as going:
        for step in range(10):
            going.advance(step)
            assert eventually(lambda: {step, step + 1} - {7} <= there(cache))  # noqa: B023
        assert 7 not in there(cache)
        assert "7.tar: has sha256" in going.fault


def test_a_server_that_is_down_is_not_asked_for_all_that_will_be_needed(
    s3, fault_proxy, prefetcher
):
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint)  # in which there is nothing
    with prefetcher(folder=folder, shards=3) as going:
        assert eventually(lambda: "no such file" in going.fault)
        time.sleep(0.5)
        asked = {path.rpartition("/")[2] for _, path in fault_proxy.requests if ".tar" in path}
        assert asked <= {"0.tar", "1.tar", "2.tar", "3.tar"}
        tries = len(fault_proxy.requests)
        time.sleep(0.5)
        assert len(fault_proxy.requests) == tries


def test_what_failed_is_tried_again_when_it_is_needed_again(prefetcher, cache, folder):
    def in_turn() -> Iterator[Need]:
        return (Need(6 + step % 2, step, step) for step in count())

    with prefetcher(in_turn, shards=5) as going:
        assert eventually(lambda: "7.tar" in going.fault)
        filled(folder, NUMBERS)  # mended
        going.advance(2)
        assert eventually(lambda: 7 in there(cache))


def test_room_that_others_hold_is_waited_for(prefetcher, cache, folder):
    cache.budget_bytes = SIZE
    mine = hold(cache, folder, 19)
    with prefetcher(shards=0) as going:
        assert eventually(lambda: "no room" in going.fault)
        mine.close()
        assert eventually(lambda: held(cache) == {0})


def test_a_fault_of_the_walk_itself_is_told_and_stops_no_training(prefetcher, capfd):
    def broken() -> Iterator[Need]:
        raise RuntimeError("the order is broken")
        yield

    with prefetcher(broken) as going:
        assert eventually(lambda: "ended with status 1" in going.fault)
        assert "the order is broken" in going.fault
        going.advance(5)
    assert "RuntimeError: the order is broken" in capfd.readouterr().err


def test_that_it_was_killed_is_told_and_stops_no_training(prefetcher, cache):
    with prefetcher() as going:
        assert eventually(lambda: there(cache) == {0, 1, 2})
        os.kill(going._process.pid, signal.SIGKILL)
        assert eventually(lambda: "ended with status -9; they are" in going.fault)
        going.advance(5)


# -- its end ------------------------------------------------------------------------------------


def test_it_ends_with_its_own_end(prefetcher, cache):
    with prefetcher():
        assert eventually(lambda: there(cache) == {0, 1, 2})
    assert held(cache) == set()
    assert not [p for p in multiprocessing.active_children() if p.name == "prefetch"]


@pytest.mark.parametrize("way", ["with", "SIGTERM"])
def test_an_end_in_a_download_leaves_nothing_unfinished(s3, fault_proxy, prefetcher, cache, way):
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint), 3)
    fault_proxy.next(faults.stall, times=3, method="GET")
    begin = time.monotonic()
    with prefetcher(folder=folder) as going:
        assert eventually(lambda: sum(".partial-" in name for name in files(cache)) == 3)
        begin = time.monotonic()
        if way == "SIGTERM":
            os.kill(going._process.pid, signal.SIGTERM)
            assert eventually(lambda: "ended with status 0" in going.fault)
    assert time.monotonic() - begin < 4
    assert [name for name in files(cache) if ".partial-" in name] == []


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_training_process_does(prefetcher, cache, way):
    pid = FORK.RawValue("q", 0)

    def train() -> None:
        with prefetcher() as going:
            pid.value = going._process.pid
            time.sleep(60)

    with another_process(train) as trainer:
        assert eventually(lambda: there(cache) == {0, 1, 2})
        os.kill(trainer.pid, way)
        trainer.join()
        assert eventually(lambda: held(cache) == set())
        assert eventually(lambda: not os.path.exists(f"/proc/{pid.value}/fd/0"))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_to_stop_and_save_are_left_to_the_training_process(prefetcher, cache, sent):
    with prefetcher() as going:
        assert eventually(lambda: there(cache) == {0, 1, 2})
        os.kill(going._process.pid, sent)
        going.advance(4)
        assert eventually(lambda: {4, 5, 6} <= there(cache))


def test_it_holds_nothing_for_the_process_that_started_it(prefetcher, cache, folder):
    mine = hold(cache, folder, 19)
    with prefetcher():
        assert eventually(lambda: {0, 1, 2} <= there(cache))
        assert held(cache) == {0, 1, 2, 19}
        mine.close()
        assert held(cache) == {0, 1, 2}


def test_a_reader_that_is_forked_later_does_not_end_it(prefetcher, cache):
    with prefetcher() as going:
        assert eventually(lambda: there(cache) == {0, 1, 2})
        with another_process(lambda: going.__exit__(None, None, None)) as reader:
            reader.join()
        going.advance(3)
        assert eventually(lambda: held(cache) == {3, 4, 5})
