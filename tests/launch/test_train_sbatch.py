"""Under a real SLURM on two nodes: preempted or out of time, requeued, the same to the last bit."""

import os
import time
from pathlib import Path

import pytest
from processes import curves
from slurm_cluster import Slurm

from relightx.runlog import read_log

ROOT = Path(__file__).parents[2]
STEPS = 60


@pytest.fixture(scope="module")
def cluster(slurm) -> Slurm:
    """Both virtual nodes believe that all cores are theirs; a tiny network on one is faster."""
    slurm.environment["RELIGHTX_CONTAINER"] = f"taskset -c {max(os.sched_getaffinity(0))}"
    return slurm


@pytest.fixture(scope="module")
def options(tiny_shards) -> list[str]:
    values = {
        "run.steps": STEPS,
        "run.precision": "float32",
        "run.log_every": 1,
        "run.validate_every": 30,
        "run.checkpoint_every": 500,
        "data.train": f"[{tiny_shards}/train]",
        "data.val": f"[{tiny_shards}/val]",
        "data.image_size": 32,
        "data.batch_size": 4,
        "data.num_workers": 1,
        "model.preset": "unet",
        "model.width": 8,
    }
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def undisturbed(cluster, options, tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("undisturbed")
    job = submit(cluster, where, options)
    assert set(cluster.wait(job, 240).values()) == {"COMPLETED"}, logs(where)
    assert "2 process(es) on cpu, ddp, float32" in logs(where)
    return where / "runs" / job


def submit(cluster: Slurm, where: Path, options: list[str], *sbatch: str, **site: str) -> str:
    site = {"RELIGHTX_RUNS": str(where / "runs"), "RELIGHTX_RENDEZVOUS": "127.0.0.1"} | site
    site |= {"RELIGHTX_ROOT": str(ROOT), "RELIGHTX_GPUS": "0"}
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in site.items())])
    script = str(ROOT / "launch" / "train.sbatch")
    return cluster.submit("--nodes=2", f"--export={exported}", *sbatch, script, *options, cwd=where)


def logs(where: Path) -> str:
    return "\n".join(file.read_text() for file in where.glob("*.log"))


def wait_for_step(run: Path, step: int, where: Path) -> None:
    until = time.monotonic() + 120
    log = run / "metrics.jsonl"
    while not (log.exists() and any(record["step"] >= step for record in read_log(log))):
        assert time.monotonic() < until, logs(where)
        time.sleep(0.02)


def assert_undisturbed(run: Path, undisturbed: Path, where: Path) -> None:
    assert curves(run) == curves(undisturbed)
    weights = [path / "model" / "model.safetensors" for path in (run, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    said = logs(where)
    assert "stopped at step" in said
    starts = [int(part.split()[0]) for part in said.split(": step ")[1:] if " to " in part[:12]]
    assert starts[0] == 0 and 0 < starts[-1] < STEPS, said


def test_a_run_that_is_preempted_goes_on_to_the_last_bit(cluster, options, undisturbed, tmp_path):
    job = submit(cluster, tmp_path, options)
    run = tmp_path / "runs" / job
    wait_for_step(run, 5, tmp_path)
    cluster.requeue(job)
    assert set(cluster.wait(job, 240).values()) == {"COMPLETED"}, logs(tmp_path) + cluster.logs()
    assert_undisturbed(run, undisturbed, tmp_path)


def test_a_run_at_its_time_limit_requeues_itself(cluster, options, undisturbed, tmp_path):
    """SLURM's warning goes to the batch shell alone, as --signal=B:USR1@300 has it."""
    job = submit(cluster, tmp_path, options)
    run = tmp_path / "runs" / job
    wait_for_step(run, 5, tmp_path)
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    until = time.monotonic() + 60
    while cluster.states(job)[job] != "PENDING":
        assert time.monotonic() < until, logs(tmp_path)
        time.sleep(0.1)
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now+4")
    assert set(cluster.wait(job, 240).values()) == {"COMPLETED"}, logs(tmp_path) + cluster.logs()
    assert "stopped with a checkpoint; requeued" in logs(tmp_path)
    assert_undisturbed(run, undisturbed, tmp_path)


def test_a_run_that_fails_is_not_requeued(cluster, options, tmp_path):
    job = submit(cluster, tmp_path, [*options, "--data.train=[/nowhere]"])
    assert set(cluster.wait(job, 120).values()) == {"FAILED"}
    assert "/nowhere" in logs(tmp_path) and "requeued" not in logs(tmp_path)
