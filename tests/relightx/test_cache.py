"""A node's cache: one download, verified; what is held stays; what dies leaves no harm."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fault_proxy as faults
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relightx.data.cache import Held, ShardCache
from relightx.storage import Folder, LocalFolder, WrongBytes

SIZE = 3000
FORK = multiprocessing.get_context("fork")


def content(number: int, size: int = SIZE) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (size // 32 + 1)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def filled(folder: Folder, count: int, size: int = SIZE) -> Folder:
    for number in range(count):
        folder.write(f"{number}.tar", content(number, size)[:size])
    return folder


@pytest.fixture
def folder(tmp_path) -> Folder:
    """Ten shards of 3000 bytes on this machine."""
    return filled(LocalFolder(str(tmp_path / "far")), 10)


@pytest.fixture
def cache(tmp_path) -> ShardCache:
    """Room for four of them."""
    return ShardCache(tmp_path / "cache", 4 * SIZE, patience_s=0.3)


def hold(cache: ShardCache, folder: Folder, number: int, size: int = SIZE) -> Held:
    sha256 = digest(content(number, size)[:size])
    return cache.hold(folder, f"{number}.tar", size, sha256)


def held_bytes(held: Held) -> bytes:
    return os.pread(held.file, 1 << 30, 0)


def files(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in cache.directory.rglob("*") if path.is_file())


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


def test_a_file_is_downloaded_once_and_named_by_its_content(cache, folder):
    with hold(cache, folder, 0) as first:
        assert held_bytes(first) == content(0)[:SIZE]
        name = digest(content(0)[:SIZE])
        assert first.path == cache.directory / name[:2] / f"{name}.tar"
    shutil.rmtree(folder.url)
    with hold(cache, folder, 0) as second:
        assert held_bytes(second) == content(0)[:SIZE]
    assert (cache.downloads, cache.hits, cache.downloaded_bytes) == (1, 1, SIZE)
    assert files(cache) == [f"{name}.tar"]


def test_other_bytes_than_the_index_says_are_never_seen(cache, folder):
    folder.write("0.tar", content(1)[:SIZE])
    with pytest.raises(
        WrongBytes, match=rf"0.tar: has sha256 .* expected {digest(content(0)[:SIZE])}"
    ):
        hold(cache, folder, 0)
    assert files(cache) == []


def test_a_file_of_another_size_than_the_index_says_is_refused(cache, folder):
    with pytest.raises(OSError, match="is not of the 2999 bytes that its index says"):
        cache.hold(folder, "0.tar", SIZE - 1, digest(content(0)[:SIZE]))
    assert files(cache) == []


@pytest.mark.parametrize("size", range(0, SIZE, 512))
def test_a_cached_file_cut_at_any_block_is_fetched_again(cache, folder, size):
    with hold(cache, folder, 0) as held:
        os.truncate(held.path, size)
    with hold(cache, folder, 0) as held:
        assert held_bytes(held) == content(0)[:SIZE]
    assert cache.downloads == 2


def test_the_longest_unused_goes_first(cache, folder):
    for number in (0, 1, 2, 3, 0):
        hold(cache, folder, number).close()
    hold(cache, folder, 4).close()
    left = {path.stem for path in cache.directory.rglob("*.tar")}
    assert left == {digest(content(number)[:SIZE]) for number in (0, 2, 3, 4)}
    assert cache.evictions == 1 and cache.bytes == 4 * SIZE


def test_what_is_held_stays_whatever_comes(cache, folder):
    with hold(cache, folder, 0) as held:
        for number in range(1, 10):
            hold(cache, folder, number).close()
        assert held.path.exists() and cache.bytes == 4 * SIZE
    hold(cache, folder, 1).close()


def test_held_by_another_process_it_stays_until_that_is_killed(cache, folder):
    ready = FORK.Event()

    def keep() -> None:
        kept = [hold(cache, folder, number) for number in range(4)]
        ready.set()
        time.sleep(60)
        del kept

    keeper = FORK.Process(target=keep)
    keeper.start()
    assert ready.wait(20)
    with pytest.raises(OSError, match=r"no room for its 3000 bytes.* 12000 are in use"):
        hold(cache, folder, 5)
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.join()
    with hold(cache, folder, 5) as held:
        assert held_bytes(held) == content(5)[:SIZE]


def test_room_that_others_hold_is_waited_for(tmp_path, folder):
    cache = ShardCache(tmp_path / "cache", SIZE, patience_s=20.0)
    held = hold(cache, folder, 0)
    threading.Timer(0.3, held.close).start()
    hold(cache, folder, 1).close()
    assert cache.evictions == 1


def test_a_file_greater_than_the_whole_cache_is_refused_with_both_sizes(tmp_path, folder):
    small = ShardCache(tmp_path / "cache", SIZE - 1)
    with pytest.raises(
        OSError, match=r"0.tar: has 3000 bytes, .* may hold 2999; raise data.cache_gb"
    ):
        hold(small, folder, 0)


@pytest.mark.parametrize("count", [2, 6])
def test_processes_that_race_for_a_shard_make_one_download(s3, fault_proxy, tmp_path, count):
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint), 1, 1 << 16)
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    fault_proxy.requests.clear()

    def race(_number: int) -> None:
        with hold(cache, folder, 0, 1 << 16) as held:
            assert digest(held_bytes(held)) == held.path.stem

    assert in_processes(count, race) == [0] * count
    assert [method for method, path in fault_proxy.requests if "0.tar" in path].count("GET") == 1


def test_threads_that_race_for_a_shard_make_one_download(cache, folder):
    found: list[bytes] = []
    racers = [
        threading.Thread(target=lambda: found.append(held_bytes(hold(cache, folder, 0))))
        for _ in range(8)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert found == [content(0)[:SIZE]] * 8 and cache.downloads == 1


def test_processes_that_use_all_shards_keep_to_the_budget(cache, folder):
    def use(start: int) -> None:
        cache.patience_s = 30.0
        for number in range(20):
            with hold(cache, folder, (start + 3 * number) % 10) as held:
                assert digest(held_bytes(held)) == held.path.stem
                assert cache.bytes <= 4 * SIZE

    assert in_processes(3, use) == [0, 0, 0]


def test_a_kill_in_a_download_leaves_a_cache_that_works(s3, fault_proxy, tmp_path):
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint), 3, 1 << 16)
    cache = ShardCache(tmp_path / "cache", 2 << 16, patience_s=5.0)
    fault_proxy.next(faults.slow, method="GET")
    downloader = FORK.Process(target=lambda: hold(cache, folder, 0, 1 << 16))
    downloader.start()
    until = time.monotonic() + 20
    while not any(".partial-" in name for name in files(cache)):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(downloader.pid, signal.SIGKILL)
    downloader.join()
    assert any(".partial-" in name for name in files(cache))
    for number in (1, 2, 0):  # the room that the dead one asked for is free again
        with hold(cache, folder, number, 1 << 16) as held:
            assert digest(held_bytes(held)) == held.path.stem
    assert [name.split(".")[-1] for name in files(cache)] == ["tar", "tar"]


FAULTS = [faults.reset, faults.unavailable, faults.cut, faults.reset_in_body, faults.flip_answer]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_the_network_changes_the_retry_counter_alone(s3, fault_proxy, tmp_path, fault):
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint), 1, 1 << 16)
    cache = ShardCache(tmp_path / "cache", 1 << 20)
    fault_proxy.next(fault, method="GET")
    before = folder.retries
    with hold(cache, folder, 0, 1 << 16) as held:
        assert held_bytes(held) == content(0, 1 << 16)[: 1 << 16]
    assert folder.retries - before == 1 and cache.downloads == 1


def test_a_server_that_says_nothing_is_given_up_at_the_deadline(s3, fault_proxy, tmp_path):
    folder = filled(s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=4.0), 1)
    fault_proxy.next(faults.stall, times=50, method="GET")
    start = time.monotonic()
    with pytest.raises(OSError, match=folder.url_of("0.tar")):
        hold(ShardCache(tmp_path / "cache", 1 << 20), folder, 0)
    assert time.monotonic() - start < 60  # the client has patience of its own


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("needs root on a machine that lets it mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_the_unused_go_and_then_it_is_said(small_disk, tmp_path):
    folder = filled(LocalFolder(str(tmp_path / "far")), 3, 24 << 10)
    cache = ShardCache(small_disk / "cache", 1 << 30)
    hold(cache, folder, 0, 24 << 10).close()
    with hold(cache, folder, 1, 24 << 10), hold(cache, folder, 2, 24 << 10):
        assert cache.evictions == 1  # the disk is smaller than the budget
        with pytest.raises(OSError, match=r"0.tar: its 24576 bytes do not fit: the disk of the"):
            hold(cache, folder, 0, 24 << 10)
    assert all(name.endswith(".tar") for name in files(cache))
    hold(cache, folder, 0, 24 << 10).close()


def test_a_directory_that_cannot_be_made_is_said(tmp_path, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the cache cannot be written.*data.cache_dir"):
        hold(ShardCache(tmp_path / "file" / "cache", 1 << 20), folder, 0)


def test_a_link_in_place_of_a_shard_is_not_followed(cache, folder, tmp_path):
    with hold(cache, folder, 0) as held:
        held.path.rename(tmp_path / "elsewhere")
        held.path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic links"):
            hold(cache, folder, 0)


def test_closing_twice_closes_once(cache, folder):
    held = hold(cache, folder, 0)
    held.close()
    other = os.open(held.path, os.O_RDONLY)  # takes the number that was let go
    held.close()
    assert os.fstat(other).st_size == SIZE
    os.close(other)


class AgainstAModel(RuleBasedStateMachine):
    """Any order of holding and letting go keeps the cache's promises."""

    SIZES = (700, 1000, 1500, 2500)
    BUDGET = 4000

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.folder = LocalFolder(str(self.place / "far"))
        for number, size in enumerate(self.SIZES * 2):
            self.folder.write(f"{number}.tar", content(number, size)[:size])
        self.cache = ShardCache(self.place / "cache", self.BUDGET, patience_s=0.0)
        self.held: list[tuple[int, Held]] = []

    @property
    def pinned(self) -> int:
        return sum(self.size(number) for number in {number for number, _ in self.held})

    def size(self, number: int) -> int:
        return (self.SIZES * 2)[number]

    @rule(number=st.integers(0, 7))
    def take(self, number: int) -> None:
        is_held = number in {held for held, _ in self.held}
        fits = is_held or self.pinned + self.size(number) <= self.BUDGET
        try:
            self.held.append((number, hold(self.cache, self.folder, number, self.size(number))))
            assert fits or True in (is_held, self.held[-1][1].path.exists())
        except OSError as error:
            assert "no room" in str(error) and not fits

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 100))
    def let_go(self, place: int) -> None:
        self.held.pop(place % len(self.held))[1].close()

    @rule(number=st.integers(0, 7), size=st.integers(0, 600))
    def damage(self, number: int, size: int) -> None:
        data = content(number, self.size(number))[: self.size(number)]
        path = self.cache.path_of(digest(data))
        if path.exists() and number not in {held for held, _ in self.held}:
            os.truncate(path, size)

    @invariant()
    def budget_is_kept(self) -> None:
        assert self.cache.bytes <= self.BUDGET

    @invariant()
    def held_files_are_there_and_right(self) -> None:
        for number, held in self.held:
            assert held.path.exists()
            assert held_bytes(held) == content(number, self.size(number))[: self.size(number)]

    @invariant()
    def nothing_else_is_left(self) -> None:
        assert all(name.endswith(".tar") for name in files(self.cache))

    def teardown(self) -> None:
        for _, held in self.held:
            held.close()
        shutil.rmtree(self.place)


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
