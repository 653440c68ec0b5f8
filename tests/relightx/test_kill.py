"""kill -9 at any moment of a training costs the steps since the last checkpoint, nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import curves

PROGRAM = Path(__file__).parents[1] / "support" / "killed_runs.py"
KILLS, STEPS = 30, 250

pytestmark = pytest.mark.usefixtures("one_core")


def lives(kills: int, options: list[str]) -> list[dict]:
    """What killed_runs.py says."""
    program = subprocess.run(
        [sys.executable, PROGRAM, str(kills), "1", *options],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert program.returncode == 0, program.stderr
    return [json.loads(line) for line in program.stdout.splitlines()]


def test_thirty_kills_lose_no_checkpoint_and_change_no_bit(tiny_options, tmp_path):
    def options(name: str) -> list[str]:
        changed = {"steps": STEPS, "checkpoint_every": 1, "validate_every": 50, "resume": "true"}
        return [
            *tiny_options(tmp_path / name),
            "--data.num_workers=1",
            "--run.log_every=1",
            *(f"--run.{key}={value}" for key, value in changed.items()),
        ]

    (whole,) = lives(0, options("undisturbed"))
    assert whole["ended"]
    *killed, last = lives(KILLS, options("killed"))
    assert len(killed) == KILLS and last["ended"]
    assert sum(not life["ended"] for life in killed) >= 20  # it was not done long before
    newest = 0
    for life in killed:
        assert life["passed_over"] == []
        assert (life["after"] or 0) >= max(newest, life["before"] or 0)
        newest = life["after"] or 0
    assert sum(bool(life["staged"]) for life in killed) >= 5  # killed while saving
    assert curves(tmp_path / "killed") == curves(tmp_path / "undisturbed")
    ends = [tmp_path / name / "model" / "model.safetensors" for name in ("killed", "undisturbed")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    left = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert left == [f"step-{step:08d}" for step in (STEPS - 1, STEPS)]  # and no staged rubbish
