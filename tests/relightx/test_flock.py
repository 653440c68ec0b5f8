"""Locks of a node's processes: one owner at a time, whoever dies."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from far_shards import another_process, eventually, in_processes

from relightx.data import flock


def never() -> None:
    """No sign of life."""


def test_a_lock_file_has_one_owner_and_is_gone_after_the_last(tmp_path):
    path, log = tmp_path / "lock", tmp_path / "log"

    def use(number: int) -> None:
        for _ in range(30):
            file = flock.wait_for(path, 20.0, never)
            with open(log, "a") as stream:  # two at a time would be seen between begin and end
                stream.write(f"begin {number}\n")
                stream.flush()
                stream.write(f"end {number}\n")
            flock.give_back(path, file)

    assert in_processes(4, use) == [0] * 4
    lines = log.read_text().splitlines()
    assert len(lines) == 240 and not path.exists()
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert begin.split()[0] == "begin" and end == f"end {begin.split()[1]}"


def test_a_taken_lock_cannot_be_taken_and_a_dead_owner_s_can(tmp_path):
    path = tmp_path / "lock"

    def own() -> None:
        flock.take(path)
        time.sleep(60)

    with another_process(own):
        assert eventually(path.exists)
        assert eventually(lambda: not was_free(path))
    file = flock.take(path)
    assert file is not None
    assert flock.take(path) is None  # nor by another thread
    flock.give_back(path, file)
    assert not path.exists()


def was_free(path: Path) -> bool:
    file = flock.take(path)
    if file is not None:
        flock.let_go(file)  # not given back, which would remove the owner's
    return file is not None


def test_an_owner_that_shows_signs_of_life_is_waited_for(tmp_path):
    path = tmp_path / "lock"
    file = flock.take(path)
    begin = time.monotonic()
    threading.Timer(1.0, flock.give_back, (path, file)).start()
    waited = flock.wait_for(path, 0.3, lambda: int(10 * time.monotonic()))
    assert time.monotonic() - begin > 0.9
    flock.give_back(path, waited)


def test_an_owner_without_a_sign_of_life_is_not(tmp_path):
    path = tmp_path / "lock"
    file = flock.take(path)
    with pytest.raises(TimeoutError, match=f"{path}: locked, without a sign of life for 0.1 s"):
        flock.wait_for(path, 0.1, never)
    flock.give_back(path, file)


def test_one_is_alone_in_a_directory(tmp_path):
    with flock.alone(tmp_path, 0.1):
        with (
            pytest.raises(TimeoutError, match=f"{tmp_path}: locked by another process for 0.1 s"),
            flock.alone(tmp_path, 0.1),
        ):
            pass
        with flock.alone(tmp_path.parent, 0.1):
            pass
    with flock.alone(tmp_path, 0.1):
        pass


def test_a_file_system_without_locks_is_said_with_what_to_do():
    # What NFS does with a file that is not open for writing, files of the kernel do as well.
    file = os.open("/proc/self/status", os.O_PATH)
    with pytest.raises(OSError, match=r"/status: its file system cannot lock .* data.cache_dir"):
        flock.lock(file, fcntl.LOCK_EX)
    flock.let_go(file)


def test_a_disk_that_nodes_share_is_known_by_its_mount(tmp_path):
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    shared = (
        "21 1 0:20 / /proc rw - proc proc rw\n"
        f"99 1 {number} / {tmp_path} rw,relatime shared:5 - nfs4 server:/export rw\n"
    )
    assert flock.shared_disk(tmp_path / "not" / "yet" / "there", shared) == "nfs4"
    assert flock.shared_disk(tmp_path, shared.replace("nfs4", "ext4")) == ""
    assert flock.shared_disk(tmp_path, shared.replace(number, "0:99")) == ""
    assert flock.shared_disk(tmp_path) == ""
