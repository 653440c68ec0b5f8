"""Two processes train as one does on the same global batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relightx.tracking import read_log

DDP = Path(__file__).parents[2] / "configs" / "accelerate" / "ddp_cpu.yaml"


def test_two_processes_give_the_losses_of_one(tiny_run, tiny_options, tmp_path, one_core):
    """Three validation portraits on two ranks: one rank fills up, and counts none twice."""
    accelerate = shutil.which("accelerate", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [
            *(accelerate, "launch", f"--config_file={DDP}", "-m", "relightx.train"),
            *tiny_options(tmp_path / "run"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu, float32" in done.stderr
    alone, together = read_log(tiny_run / "log.jsonl"), read_log(tmp_path / "run" / "log.jsonl")
    assert [record["step"] for record in together] == [record["step"] for record in alone]
    for one, two in zip(alone, together, strict=True):
        assert set(one) == set(two)
        for name in one:
            if name.startswith("loss/") or name == "grad_norm":
                assert two[name] == pytest.approx(one[name], rel=1e-4)
            if name.startswith("val/"):
                assert two[name] == pytest.approx(one[name], rel=1e-3)
