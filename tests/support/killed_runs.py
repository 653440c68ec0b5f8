"""Runs a training that is killed again and again, at random moments, and says what was lost.

    python tests/support/killed_runs.py KILLS SEED [options of relightx.train]

Each life is a fork of this process, which has loaded everything: so the kills fall into training
and saving, not into the loading of torch. A JSON line for each life: the newest checkpoint that
had been committed before the kill, the one that a resume finds after it, what it passes over, what
staged files there were, and whether the life ended by itself.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from relightx.checkpoint import committed, newest_checkpoint, step_of
from relightx.config import parse_config
from relightx.train import main


def newest_committed(directory: Path) -> int | None:
    """The step of the newest checkpoint by its name."""
    steps = [step_of(path.name) for path in committed(directory)]
    return steps[-1] if steps else None


def live(
    options: list[str], seconds: float, directory: Path, until_saved: bool = False
) -> dict[str, object]:
    """A life of the run, killed after this time if it has not ended, or once it has saved."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = main(options)
        finally:
            os._exit(status)
    until, ended = time.monotonic() + seconds, False
    while time.monotonic() < until and not ended:
        if until_saved and newest_committed(directory) is not None:
            break
        ended = os.waitpid(child, os.WNOHANG)[0] != 0
        time.sleep(0.001)
    before = newest_committed(directory)
    status = 0
    if not ended:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    staged = sorted(path.name for path in directory.glob(".*"))
    found, passed_over = newest_checkpoint(directory)
    after = found.step if found else None
    return {
        "ended": ended or not os.WIFSIGNALED(status),
        "before": before,
        "after": after,
        "passed_over": passed_over,
        "staged": staged,
    }


def killed_runs(kills: int, seed: int, options: list[str]) -> None:
    torch.set_num_threads(1)  # a parallel region here would hang the forks
    directory = Path(parse_config(options).run.dir) / "checkpoints"
    chance = random.Random(seed)
    began = time.monotonic()
    to_save = 1.0
    for number in range(kills):
        if number == 0:  # how long a life takes to its first checkpoint, here and now
            life = live(options, 60, directory, until_saved=True)
            to_save = time.monotonic() - began
        else:
            life = live(options, chance.uniform(0.1, 2.0) * to_save, directory)
        print(json.dumps(life | {"time": time.monotonic() - began}), flush=True)
    print(json.dumps(live(options, 300, directory)), flush=True)


if __name__ == "__main__":
    killed_runs(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
