"""A node's cache: one download, verified; what is held stays; who dies leaves no harm."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

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
    in_processes,
    in_threads,
    is_right,
    kept,
    shard,
)

from relightx.data import flock
from relightx.data.cache import NoRoom, ShardCache
from relightx.storage import Folder, LocalFolder, WrongBytes

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


# -- what is asked for and nothing else ---------------------------------------------------------


def test_a_file_is_downloaded_once_and_named_by_its_content(cache, folder):
    with hold(cache, folder, 0) as first:
        assert held_bytes(first) == shard(0)
        name = digest(shard(0))
        assert first.path == cache.path_of(name) == cache.directory / name[:2] / f"{name}.tar"
    shutil.rmtree(folder.url)
    with hold(cache, folder, 0) as second:
        assert held_bytes(second) == shard(0)
    assert (cache.downloads, cache.hits, cache.downloaded_bytes) == (1, 1, SIZE)
    assert files(cache) == [f"{name}.tar"]


def test_other_bytes_than_the_index_says_are_never_seen(cache, folder):
    folder.write("0.tar", shard(1))
    with pytest.raises(WrongBytes, match=f"0.tar: has sha256 .* expected {digest(shard(0))}"):
        hold(cache, folder, 0)
    assert files(cache) == []


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(cache, far, fault_proxy):
    with pytest.raises(WrongBytes, match=r"0.tar: has 65536 bytes, its index says 65535"):
        cache.hold(far, "0.tar", LARGE - 1, digest(shard(0, LARGE)))
    assert "GET" not in [method for method, path in fault_proxy.requests if "0.tar" in path]
    assert files(cache) == []


def test_a_file_that_is_not_there_is_said_by_its_url(cache, folder):
    with pytest.raises(FileNotFoundError, match=folder.url_of("10.tar")):
        hold(cache, folder, 10)


@pytest.mark.parametrize("size", range(0, SIZE, 512))
def test_a_cached_file_cut_at_any_block_is_fetched_again(cache, folder, size):
    with hold(cache, folder, 0) as held:
        os.truncate(held.path, size)
    with hold(cache, folder, 0) as held:
        assert held_bytes(held) == shard(0)
    assert cache.downloads == 2


def test_a_cached_file_with_something_behind_it_is_fetched_again(cache, folder):
    with hold(cache, folder, 0) as held, open(held.path, "ab") as stream:
        stream.write(bytes(512))
    with hold(cache, folder, 0) as held:
        assert held_bytes(held) == shard(0)


def put_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("put", [put_link, Path.mkdir, os.mkfifo], ids=["link", "folder", "pipe"])
@pytest.mark.timeout(60)
def test_what_is_no_file_in_place_of_a_shard_is_named_and_left(cache, folder, put):
    path = cache.path_of(digest(shard(0)))
    path.parent.mkdir(parents=True)
    put(path)
    with pytest.raises(OSError, match=f"{path}: cannot be used as a shard .* remove it"):
        hold(cache, folder, 0)
    assert os.path.lexists(path)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(cache, folder, name):
    with pytest.raises(ValueError, match="64 digits"):
        cache.hold(folder, "0.tar", SIZE, name)


# -- the budget ---------------------------------------------------------------------------------


def test_the_longest_unused_goes_first(cache, folder):
    for number in (0, 1, 2, 3, 0):
        hold(cache, folder, number).close()
    hold(cache, folder, 4).close()
    assert kept(cache) == {0, 2, 3, 4}
    assert cache.evictions == 1 and cache.bytes == 4 * SIZE


def test_what_is_held_stays_whatever_comes(cache, folder):
    with hold(cache, folder, 0) as held:
        for number in range(1, 10):
            hold(cache, folder, number).close()
        assert held.path.exists() and cache.bytes == 4 * SIZE
    hold(cache, folder, 1).close()
    assert 0 not in kept(cache)


def test_held_by_another_process_it_stays_until_that_is_killed(cache, folder):
    ready = FORK.Event()

    def keep() -> None:
        holds = [hold(cache, folder, number) for number in range(4)]
        ready.set()
        time.sleep(60)
        del holds

    with another_process(keep):
        assert ready.wait(20)
        with pytest.raises(NoRoom, match=r"no room for its 3000 bytes: .* 12000 are held by"):
            hold(cache, folder, 5)
        assert kept(cache) == {0, 1, 2, 3}
    with hold(cache, folder, 5) as held:
        assert held_bytes(held) == shard(5)


def test_room_that_others_hold_is_waited_for(tmp_path, folder):
    cache = ShardCache(tmp_path / "cache", SIZE, patience_s=20.0)
    held = hold(cache, folder, 0)
    threading.Timer(0.3, held.close).start()
    hold(cache, folder, 1).close()
    assert cache.evictions == 1


@pytest.mark.parametrize("count", [2, 4])
def test_downloads_that_fit_only_one_by_one_do_not_keep_each_other_up(tmp_path, count):
    slow = filled(SlowFolder(str(tmp_path / "far")), count)
    cache = ShardCache(tmp_path / "cache", SIZE + 1, patience_s=20.0)
    begin = time.monotonic()
    for held in in_threads(count, lambda number: hold(cache, slow, number).close()):
        assert held is None
    assert cache.downloads == count and time.monotonic() - begin < 15
    assert files(cache) == [name for name in files(cache) if name.endswith(".tar")]


def test_a_download_under_way_takes_its_room(tmp_path, folder):
    slow = filled(SlowFolder(str(tmp_path / "slow")), 2)
    cache = ShardCache(tmp_path / "cache", SIZE + 1, patience_s=0.1)
    first = threading.Thread(target=lambda: hold(cache, slow, 0))
    first.start()
    time.sleep(0.2)
    with pytest.raises(NoRoom, match=r"0 are held by .* and 3000 are being downloaded"):
        hold(cache, folder, 1)
    first.join()


def test_a_file_greater_than_the_whole_cache_is_refused_with_both_sizes(tmp_path, folder):
    small = ShardCache(tmp_path / "cache", SIZE - 1)
    with pytest.raises(NoRoom, match=r"0.tar: has 3000 bytes, .* 2999; raise data.cache_gb"):
        hold(small, folder, 0)


def test_jobs_with_other_budgets_share_a_directory_and_keep_what_the_other_holds(cache, folder):
    small = ShardCache(cache.directory, 2 * SIZE, patience_s=0.1)
    with hold(cache, folder, 0), hold(cache, folder, 1):
        hold(cache, folder, 2).close()
        with pytest.raises(NoRoom, match=r"may hold 6000, of which 6000 are held .* a folder of"):
            hold(small, folder, 3)
        with hold(small, folder, 1) as held:  # to find one here takes no room
            assert held_bytes(held) == shard(1)
    hold(small, folder, 3).close()
    assert kept(cache) == {1, 3}


def test_processes_that_use_all_shards_keep_to_the_budget(cache, folder):
    def use(start: int) -> None:
        cache.patience_s = 30.0
        for number in range(20):
            with hold(cache, folder, (start + 3 * number) % 10) as held:
                assert is_right(held)
                with flock.alone(cache.directory, 30.0):  # or files would come and go meanwhile
                    assert cache.bytes <= 4 * SIZE

    assert in_processes(3, use) == [0, 0, 0]


def test_other_files_in_the_directory_are_not_touched(cache, folder):
    others = ["ab/table.safetensors", "ab/.x.safetensors.partial-0123456789abcdef", "notes.tar"]
    for name in others:
        place = cache.directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(5 * SIZE))
    for number in range(10):
        hold(cache, folder, number).close()
    assert cache.bytes == 4 * SIZE
    assert all((cache.directory / name).exists() for name in others)


# -- several at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 6])
def test_processes_that_race_for_a_shard_make_one_download(far, fault_proxy, tmp_path, count):
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    fault_proxy.next(faults.slow, method="GET", path="0.tar")  # so that all are there in time

    def race(_number: int) -> None:
        with hold(cache, far, 0, LARGE) as held:
            assert is_right(held)

    assert in_processes(count, race) == [0] * count
    assert fault_proxy.met["slow"] == 1
    assert [method for method, path in fault_proxy.requests if "0.tar" in path].count("GET") == 1


def test_threads_that_race_for_a_shard_make_one_download(cache, folder):
    found = in_threads(8, lambda _: held_bytes(hold(cache, folder, 0)))
    assert found == [shard(0)] * 8 and (cache.downloads, cache.hits) == (1, 7)


def test_those_who_wait_for_a_download_that_fails_fail_with_it(cache, tmp_path):
    slow = filled(SlowFolder(str(tmp_path / "slow")), 1)
    slow.write("0.tar", shard(1))
    begin = time.monotonic()
    said = [str(error) for error in in_threads(6, lambda _: hold(cache, slow, 0))]
    assert all("0.tar: has sha256" in each for each in said)
    assert sum("found another process" in each for each in said) == 5
    assert time.monotonic() - begin < 6 * 0.5
    slow.write("0.tar", shard(0))  # and who comes later tries anew
    hold(cache, slow, 0).close()


def test_who_waited_for_another_source_s_failure_tries_its_own(cache, folder, tmp_path):
    broken = filled(SlowFolder(str(tmp_path / "slow")), 1)
    broken.write("0.tar", shard(1))

    def take(number: int) -> bytes:
        time.sleep(0.2 * number)
        return held_bytes(hold(cache, (broken, folder)[number], 0))

    failed, right = in_threads(2, take)
    assert isinstance(failed, WrongBytes) and right == shard(0)


def test_a_stopped_download_is_said_with_what_to_do(cache, folder, tmp_path):
    slow = filled(SlowFolder(str(tmp_path / "slow")), 1)
    waiting = ShardCache(cache.directory, 4 * SIZE, silence_s=0.3)
    with another_process(lambda: hold(cache, slow, 0)) as stopped:
        assert eventually(lambda: any(name.endswith(".lock") for name in files(cache)))
        os.kill(stopped.pid, signal.SIGSTOP)
        with pytest.raises(OSError, match=r"\.lock: locked, without a sign of life .*: end it"):
            hold(waiting, folder, 0)
    with hold(waiting, folder, 0) as held:
        assert held_bytes(held) == shard(0)
