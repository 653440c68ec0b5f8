"""Under a real SLURM of two nodes: a sweep on a Ray of both, stopped in the middle, requeued."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from tiny_sweeps import write_sweep

from relightx.runlog import read_log

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tiny_shards, tmp_path) -> Path:
    """A sweep of four trainings."""
    often = {"run.log_every": 1, "run.checkpoint_every": 5}
    space = {"loss.cross_relighting": [0, 0.5, 1, 2]}
    return write_sweep(tmp_path, tiny_shards, 60, space=space, set=often)


def submit(slurm, where: Path, *options: str) -> str:
    site = {
        "RELIGHTX_ROOT": ROOT,
        "RELIGHTX_RUNS": where / "runs",
        "RELIGHTX_GPUS": 0,
        "RELIGHTX_RENDEZVOUS": "127.0.0.2",
        "RELIGHTX_NODE_ADDRESSES": "127.0.0.2 127.0.0.3",
        "SLURM_CPUS_PER_TASK": 1,
    }
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in site.items())])
    script = str(ROOT / "launch" / "sweep.sbatch")
    return slurm.submit("--nodes=2", f"--export={exported}", script, *options, cwd=where)


def logs(where: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(where.glob("*.log")))


def begun(run: Path) -> list[Path]:
    """Trials that have made some steps."""
    found = run.glob("trials/*/metrics.jsonl")
    return [file.parent for file in found if any(r["step"] > 6 for r in read_log(file))]


def test_a_sweep_on_two_nodes_that_is_out_of_time_goes_on(slurm, config, tmp_path):
    job = submit(slurm, tmp_path, "--config", str(config))
    run = tmp_path / "runs" / job
    until = time.monotonic() + 240
    while len(begun(run)) < 2:  # one on each node, for a node has one core
        assert time.monotonic() < until, logs(tmp_path) + slurm.logs()
        time.sleep(0.1)
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    while slurm.states(job)[job] != "PENDING":
        assert time.monotonic() < until, logs(tmp_path)
        time.sleep(0.1)
    assert "stopped; what was running has its checkpoint; requeued" in logs(tmp_path)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now+4")
    assert set(slurm.wait(job, 300).values()) == {"COMPLETED"}, logs(tmp_path) + slurm.logs()
    records = [json.loads(file.read_text()) for file in run.glob("trials/*/trial.json")]
    assert [record["state"] for record in records] == ["finished"] * 4
    went_on = [file for file in run.glob("trials/*/training.log") if goes_on(file.read_text())]
    assert went_on  # the other may have come to its end before Tune looked for STOP
    assert "all trials are done" in logs(tmp_path)
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob("ray-??????/session_*"))


def goes_on(text: str) -> bool:
    return any(f": step {step} to 60" in text for step in range(5, 60))


def test_a_sweep_that_cannot_be_fails_and_says_why(slurm, config, tmp_path):
    values = yaml.safe_load(config.read_text()) | {"space": {"loss.nothing": [1]}}
    config.write_text(yaml.safe_dump(values))
    job = submit(slurm, tmp_path, "--config", str(config))
    assert set(slurm.wait(job, 200).values()) == {"FAILED"}
    assert "loss.nothing is no key of the training" in logs(tmp_path)
