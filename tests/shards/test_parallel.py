import operator
import os
import signal
import subprocess
import sys
import time

import pytest

from shards.parallel import ordered_map

ENDLESS = """
import time
from shards.parallel import ordered_map

def main():
    for number in ordered_map(os_pid, range(10**9), 2):
        print(number, flush=True)
        time.sleep(0.02)

from os import getpid
def os_pid(_):
    return getpid()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(ordered_map(abs, range(0, -50, -1), workers)) == list(range(50))


def test_items_are_taken_only_a_little_ahead():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = ordered_map(abs, items(), 2)
    assert next(results) == 0
    assert len(taken) < 20
    results.close()


def test_an_error_in_a_worker_arrives():
    with pytest.raises(TypeError):
        list(ordered_map(operator.neg, ["text"], 2))


def test_a_killed_worker_is_a_clear_error():
    with pytest.raises(OSError, match="a worker process was killed"):
        list(ordered_map(os._exit, [1], 2))


def test_less_than_one_worker_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(ordered_map(abs, [1], 0))


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
def test_workers_leave_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    child = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    workers = {int(child.stdout.readline()) for _ in range(10)}
    assert workers and child.pid not in workers and all(map(is_alive, workers))
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def test_each_worker_has_one_thread():
    assert list(ordered_map(os.getenv, ["OMP_NUM_THREADS"] * 3, 2)) == ["1"] * 3
