"""A process that stands still ends with the rank that the others wait for, and where it is."""

import json
import os
import subprocess
import sys
import time

from relightx.backend.watch import RANKS, Watch
from relightx.ending import HUNG

HANGS = """
import sys, time
from pathlib import Path
from relightx.backend.watch import Watch

def stand_still():
    time.sleep(60)

with Watch(Path(sys.argv[1]), 0, 3, 1.0) as watch:
    watch.at(7, "backward")
    stand_still()
"""


def tell(directory, rank: int, step: int, doing: str) -> None:
    """As a process that goes on telling does: its file is never older than others'."""
    (directory / RANKS).mkdir(exist_ok=True)
    about = {"host": f"node{rank}", "pid": 40 + rank, "step": step, "doing": doing, "since": 0}
    file = directory / RANKS / f"rank-{rank:05d}.json"
    file.write_text(json.dumps(about))
    os.utime(file, (time.time() + 60, time.time() + 60))


def hang(directory) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HANGS, str(directory)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == HUNG
    return done.stderr


def test_the_rank_that_others_wait_for_is_named_and_where_threads_are(tmp_path):
    tell(tmp_path, 1, 7, "data")
    tell(tmp_path, 2, 7, "backward")
    said = hang(tmp_path)
    assert "nothing has moved for 1 s (run.hang_s): rank 0 is in 'backward' of step 7" in said
    assert "wait for: rank 1 (node1, pid 41) is in 'data' of step 7." in said
    assert "node2" not in said
    assert "in stand_still" in said  # of the threads


def test_a_rank_a_step_behind_is_the_one(tmp_path):
    tell(tmp_path, 1, 7, "data")
    tell(tmp_path, 2, 6, "validation of face3")
    said = hang(tmp_path)
    assert "wait for: rank 2 (node2, pid 42) is in 'validation of face3' of step 6." in said


def test_a_rank_that_told_nothing_is_named(tmp_path):
    tell(tmp_path, 2, 7, "backward")
    assert "rank 1 told nothing" in hang(tmp_path)


def test_a_rank_that_stopped_telling_is_named_with_what_it_did_at_last(tmp_path):
    tell(tmp_path, 1, 7, "backward")
    tell(tmp_path, 2, 7, "backward")
    file = tmp_path / RANKS / "rank-00001.json"
    os.utime(file, (0, 0))
    said = hang(tmp_path)
    assert "rank 1 (node1, pid 41) is stopped or gone, at last in 'backward' of step 7." in said


def test_what_moves_is_left_alone(tmp_path):
    with Watch(tmp_path, 0, 1, 0.6) as watch:
        for step in range(12):
            watch.at(step, "data")
            time.sleep(0.1)
        told = json.loads((tmp_path / RANKS / "rank-00000.json").read_text())
        assert told["doing"] == "data"
    assert not list(tmp_path.iterdir())


def test_without_a_limit_nothing_is_written(tmp_path):
    with Watch(tmp_path, 0, 1, 0.0) as watch:
        watch.at(1, "data")
    assert not list(tmp_path.iterdir())
