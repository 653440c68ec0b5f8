"""Two processes train as one does on the same global batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relightx.runlog import read_log

DDP = Path(__file__).parents[2] / "configs" / "accelerate" / "ddp_cpu.yaml"


def train_on_two(options: list[str]) -> subprocess.CompletedProcess:
    """Train in two processes, on one core each or on one for both."""
    accelerate = shutil.which("accelerate", path=str(Path(sys.executable).parent))
    program = [accelerate, "launch", f"--config_file={DDP}", "-m", "relightx.train"]
    return subprocess.run(
        [*program, *options, "--run.device=cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_of_one_process_goes_on_in_two(tiny_run, tiny_options, tmp_path, one_core):
    """The same batches from the step where it stopped, though nothing of the loader was kept."""
    directory = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(directory / "checkpoints" / "step-00000016")
    done = train_on_two([*tiny_options(directory), "--run.resume=true"])
    assert done.returncode == 0, done.stderr
    assert "step 12 to 16, 2 process(es)" in done.stderr
    alone, together = read_log(tiny_run / "metrics.jsonl"), read_log(directory / "metrics.jsonl")
    for one, two in zip(alone, together, strict=True):
        assert two["step"] == one["step"] and ("loss/total" in one) == ("loss/total" in two)
        if "loss/total" in one:
            assert two["loss/total"] == pytest.approx(one["loss/total"], rel=1e-4)


def test_too_many_faults_in_one_process_stop_both(tiny_options, tiny_shards, tmp_path, one_core):
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    shard = sorted((tmp_path / "train").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-1000])
    options = [*tiny_options(tmp_path / "run"), f"--data.train=[{tmp_path / 'train'}]"]
    done = train_on_two([*options, "--data.on_fault=skip", "--data.max_skipped=0.01"])
    assert done.returncode != 0
    assert done.stderr.count("more than data.max_skipped 0.01 allows") == 2


def test_two_processes_give_the_losses_of_one(tiny_run, tiny_options, tmp_path, one_core):
    """Three validation portraits on two ranks: one rank fills up, and counts none twice."""
    done = train_on_two(tiny_options(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu, ddp, float32" in done.stderr
    alone, together = (
        read_log(tiny_run / "metrics.jsonl"),
        read_log(tmp_path / "run" / "metrics.jsonl"),
    )
    assert [record["step"] for record in together] == [record["step"] for record in alone]
    for one, two in zip(alone, together, strict=True):
        assert set(one) == set(two)
        for name in one:
            if name.startswith("loss/") or name == "grad_norm":
                # Sums in another order, after 16 steps of Adam: the least loss term shows it most.
                assert two[name] == pytest.approx(one[name], rel=5e-4)
            if name.startswith("val/"):
                assert two[name] == pytest.approx(one[name], rel=1e-3)
