"""Sweeps whose trainings take seconds: their files, their processes, and what they leave."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from relightx.runlog import read_log


def write_sweep(directory: Path, shards: Path, steps: int = 8, **changed: object) -> Path:
    """The file of a sweep of tiny trainings on a set of shards, and beside it the training's."""
    base = {
        "run": {"steps": steps, "log_every": 2, "validate_every": steps // 2},
        "data": {
            "train": [f"{shards}/train"],
            "val": [f"{shards}/val"],
            "image_size": 32,
            "batch_size": 4,
            "num_workers": 0,
        },
        "model": {"preset": "unet", "width": 8},
    }
    (directory / "base.yaml").write_text(yaml.safe_dump(base))
    values = {"train": ["base.yaml"], "space": {"loss.cross_relighting": [0, 1]}} | changed
    file = directory / "sweep.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def sweep(*arguments: object) -> subprocess.Popen:
    """`relightx sweep`, begun."""
    return subprocess.Popen(
        [sys.executable, "-m", "relightx", "sweep", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records(out: Path) -> dict[str, dict]:
    """How the trials that have ended did, by name."""
    return {
        file.parent.name: json.loads(file.read_text()) for file in out.glob("trials/*/trial.json")
    }


def steps(run: Path) -> int:
    """The last step in the log of a run."""
    log = run / "metrics.jsonl"
    return max((r["step"] for r in read_log(log)), default=0) if log.exists() else 0


def wait_until(is_so: Callable[[], Any], program: subprocess.Popen, seconds: float = 120) -> Any:
    """What it gives, once that is something; AssertionError when the program ends before."""
    until = time.monotonic() + seconds
    while not (found := is_so()):
        assert program.poll() is None, program.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


def trainings(out: Path) -> dict[int, str]:
    """Processes that train a trial of this sweep, with the trial's name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        asked = [word for word in words if word.startswith(f"{out}/trials/")]
        # Not that which stands between a training and Ray.
        if "relightx.train" in words and "relightx.parent" not in words and asked:
            found[int(entry.name)] = Path(asked[0]).parent.name
    return found


def wait_until_gone(out: Path, seconds: float = 60) -> None:
    """Until no training of a sweep that was stopped is left."""
    until = time.monotonic() + seconds
    while trainings(out):
        assert time.monotonic() < until
        time.sleep(0.1)
