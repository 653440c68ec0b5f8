"""Whoever dies, forks or fails around a node's cache: it works on and says what was wrong."""

import os
import pickle
import random
import signal
import subprocess
import threading
import time
from itertools import count

import fault_proxy as faults
import pytest
from far_shards import (
    FORK,
    SIZE,
    SlowFolder,
    another_process,
    digest,
    eventually,
    files,
    filled,
    held_bytes,
    hold,
    is_right,
    kept,
    shard,
    small_disk,
)

from relightx.data import flock
from relightx.data.cache import NoRoom, ShardCache
from relightx.storage import Folder, LocalFolder

LARGE = 1 << 16


@pytest.fixture
def folder(tmp_path) -> Folder:
    """Ten shards of 3000 bytes on this machine."""
    return filled(LocalFolder(str(tmp_path / "far")), 10)


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    """Room for four of them."""
    return ShardCache(tmp_path / "cache", 4 * SIZE, patience_s=0.3)


@pytest.fixture
def far(s3, fault_proxy) -> Folder:
    """Three shards of 64 KiB behind the proxy."""
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint), 3, LARGE)
    fault_proxy.requests.clear()
    return folder


# -- processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("next_number", [0, 1], ids=["the same shard next", "another one next"])
def test_a_kill_in_a_download_leaves_a_cache_that_works(far, fault_proxy, tmp_path, next_number):
    cache = ShardCache(tmp_path / "cache", LARGE, patience_s=0.0)  # no room for what is lost
    fault_proxy.next(faults.stall, method="GET", path="0.tar")
    with another_process(lambda: hold(cache, far, 0, LARGE)):
        assert eventually(lambda: any(".partial-" in name for name in files(cache)))
        with pytest.raises(NoRoom, match="65536 are being downloaded"):
            hold(cache, far, 1, LARGE)
    assert any(".partial-" in name for name in files(cache))
    with hold(cache, far, next_number, LARGE) as held:
        assert is_right(held)
        assert files(cache) == [held.path.name]


def test_what_the_dead_left_is_gone_at_the_first_hold_of_the_next_run(cache, folder):
    hold(cache, folder, 0).close()
    path = cache.path_of(digest(shard(1)))
    path.parent.mkdir(exist_ok=True)
    path.with_name(f".{path.name}.partial-0123456789abcdef").write_bytes(bytes(100))
    path.with_suffix(".lock").write_bytes(b"99999999")
    hold(ShardCache(cache.directory, 4 * SIZE), folder, 0).close()
    assert files(cache) == [f"{digest(shard(0))}.tar"]


def test_processes_killed_anywhere_keep_to_the_budget_and_leave_a_cache_that_works(tmp_path):
    folder = filled(LocalFolder(str(tmp_path / "far")), 12, LARGE)
    cache = ShardCache(tmp_path / "cache", 8 * LARGE, patience_s=30.0)

    def use(seed: int) -> None:
        chance, holds = random.Random(seed), []
        while True:
            holds.append(hold(cache, folder, chance.randrange(12), LARGE))
            assert is_right(holds[-1])
            if len(holds) > 1:
                holds.pop(0).close()
            with flock.alone(cache.directory, 30.0):  # or files would come and go meanwhile
                assert cache.bytes <= 8 * LARGE

    chance, seeds, running = random.Random(0), count(), []
    until = time.monotonic() + 4
    while time.monotonic() < until or running:
        while len(running) < 6 and time.monotonic() < until:
            running.append(FORK.Process(target=use, args=(next(seeds),)))
            running[-1].start()
        time.sleep(chance.random() / 20)
        process = running.pop(chance.randrange(len(running)))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    cache.patience_s = 0.0
    for number in range(12):
        with hold(cache, folder, number, LARGE) as held:
            assert is_right(held)
    assert len(files(cache)) == 8 and cache.bytes == 8 * LARGE


def test_a_forked_child_reads_what_its_parent_holds_and_holds_nothing(cache, folder):
    held = hold(cache, folder, 0)
    is_evicted, is_read = FORK.Event(), FORK.Event()

    def child() -> None:
        assert is_evicted.wait(20)
        assert held_bytes(held) == shard(0)
        held.close()
        is_read.set()

    with another_process(child):
        for number in range(1, 10):
            hold(cache, folder, number).close()
        assert 0 in kept(cache)
        held.close()  # while the child has the file open
        for number in range(1, 6):
            hold(cache, folder, number).close()
        assert 0 not in kept(cache)
        is_evicted.set()
        assert is_read.wait(20)


def test_what_a_child_closes_its_parent_holds_on(cache, folder):
    held = hold(cache, folder, 0)
    with another_process(held.close) as child:
        child.join()
    for number in range(1, 10):
        hold(cache, folder, number).close()
    assert 0 in kept(cache) and held_bytes(held) == shard(0)


def test_a_killed_process_holds_nothing_by_its_children(cache, tmp_path):
    slow = filled(SlowFolder(str(tmp_path / "slow")), 3)
    grandchild = FORK.Value("i", 0)

    def fork_and_wait() -> None:
        kept_on = [hold(cache, slow, 0)]
        threading.Thread(target=lambda: hold(cache, slow, 1), daemon=True).start()
        assert eventually(lambda: any(name.endswith(".lock") for name in files(cache)))
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        grandchild.value = pid
        time.sleep(60)
        del kept_on

    with another_process(fork_and_wait):
        assert eventually(lambda: grandchild.value > 0)
    try:
        tight = ShardCache(cache.directory, SIZE, patience_s=0.2, silence_s=0.2)
        for number in (1, 2):  # 0 has to go for it, and nobody downloads 1
            with hold(tight, slow, number) as held:
                assert is_right(held)
        assert files(cache) == [f"{digest(shard(2))}.tar"]
    finally:
        os.kill(grandchild.value, signal.SIGKILL)


def test_a_cache_can_be_sent_to_another_process(cache, folder):
    hold(cache, folder, 0).close()
    sent = pickle.loads(pickle.dumps(cache))
    hold(sent, folder, 0).close()
    assert (sent.directory, sent.budget_bytes) == (cache.directory, cache.budget_bytes)


def test_closing_twice_closes_once(cache, folder):
    held = hold(cache, folder, 0)
    held.close()
    other = os.open(held.path, os.O_RDONLY)  # takes the number that was let go
    held.close()
    assert os.fstat(other).st_size == SIZE
    os.close(other)


# -- networks and disks -------------------------------------------------------------------------


FAULTS = [faults.reset, faults.unavailable, faults.cut, faults.reset_in_body, faults.flip_answer]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_the_network_changes_the_retry_counter_alone(far, fault_proxy, tmp_path, fault):
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    fault_proxy.next(fault, method="GET")
    before = far.retries
    with hold(cache, far, 0, LARGE) as held:
        assert held_bytes(held) == shard(0, LARGE)
    assert far.retries - before == 1 and cache.downloads == 1
    assert files(cache) == [held.path.name]


def test_a_connection_that_falls_silent_changes_the_retry_counter_alone(s3, fault_proxy, tmp_path):
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=8.0)
    filled(folder, 1, LARGE)
    fault_proxy.next(faults.stall, method="GET")
    before = folder.retries
    with hold(ShardCache(tmp_path / "cache", 1 << 20), folder, 0, LARGE) as held:
        assert held_bytes(held) == shard(0, LARGE)
    assert folder.retries - before == 1


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(s3, fault_proxy, tmp_path):
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=0.01), 1)
    fault_proxy.next(faults.stall, times=50, method="GET")
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    start = time.monotonic()
    with pytest.raises(OSError, match=folder.url_of("0.tar")):
        hold(cache, folder, 0)
    assert time.monotonic() - start < 60  # the client has patience of its own
    assert files(cache) == []


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_on_a_full_disk_the_unused_go_and_then_it_is_said(kind, tmp_path, request):
    size = 24 << 10
    far = LocalFolder(str(tmp_path / "far"))
    folder = far if kind == "local" else request.getfixturevalue("s3").new_folder()
    filled(folder, 3, size)
    with small_disk(tmp_path / "small", "64k") as disk:
        cache = ShardCache(disk / "cache", 1 << 30)
        hold(cache, folder, 0, size).close()
        with hold(cache, folder, 1, size), hold(cache, folder, 2, size):
            assert cache.evictions == 1  # the disk is smaller than the budget
            with pytest.raises(
                OSError, match=r"0.tar: its 24576 bytes do not fit: the disk"
            ) as got:
                hold(cache, folder, 0, size)
            assert "No space left on device" in str(got.value) and str(disk) in str(got.value)
            assert kept(cache, 3, size) == {1, 2} and len(files(cache)) == 2
        with hold(cache, folder, 0, size) as held:
            assert is_right(held)


def test_a_disk_that_is_full_of_other_things_is_said(folder, tmp_path):
    with small_disk(tmp_path / "small", "64k") as disk:
        (disk / "other").write_bytes(bytes(64 << 10))
        cache = ShardCache(disk / "cache", 1 << 30)
        with pytest.raises(OSError, match=r"has 0 left .* nothing there is unused; free some"):
            hold(cache, folder, 0)
        (disk / "other").unlink()
        hold(cache, folder, 0).close()
        assert files(cache) == [f"{digest(shard(0))}.tar"]


def test_a_disk_that_can_only_be_read_gives_what_it_has_and_says_what_it_is(folder, tmp_path):
    with small_disk(tmp_path / "small", "64k") as disk:
        cache = ShardCache(disk / "cache", 1 << 30)
        hold(cache, folder, 0).close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with hold(ShardCache(disk / "cache", 1 << 30), folder, 0) as held:
            assert held_bytes(held) == shard(0)
        with pytest.raises(OSError, match=r"Read-only file system; name another folder in data.ca"):
            hold(cache, folder, 1)


def test_a_directory_that_cannot_be_made_is_said(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the cache cannot be written.*data.cache_dir"):
        hold(ShardCache(tmp_path / "file" / "cache", 1 << 20), folder, 0)


def test_a_directory_that_everybody_may_write_is_refused(tmp_path, folder):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    with pytest.raises(OSError, match=r"open: .* every user may write in it; name another folder"):
        hold(ShardCache(tmp_path / "open", 1 << 20), folder, 0)
    hold(ShardCache(tmp_path / "open" / "cache", 1 << 20), folder, 0).close()
