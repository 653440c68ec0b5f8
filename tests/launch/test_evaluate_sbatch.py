"""Under a real SLURM: the jobs of an array share the splits that a model is measured on."""

import json
from pathlib import Path

import pytest
import torch

from relightx.checkpoint import save_model
from relightx.model import IntrinsicNet, ModelConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's directory with an untrained model in it."""
    torch.manual_seed(0)
    config = ModelConfig("unet", 8)
    directory = tmp_path / "runs" / "heads"
    save_model(directory / "model", config, IntrinsicNet(config).state_dict(), 32, {})
    return directory


def submit(slurm, where: Path, *arguments: str) -> str:
    site = {"RELIGHTX_ROOT": ROOT, "RELIGHTX_RUNS": where / "runs", "RELIGHTX_GPUS": 0}
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in site.items())])
    script = str(ROOT / "launch" / "evaluate.sbatch")
    at = next((i for i, word in enumerate(arguments) if not word.startswith("--")), len(arguments))
    return slurm.submit(f"--export={exported}", *arguments[:at], script, *arguments[at:], cwd=where)


def logs(where: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(where.glob("*.log")))


def test_an_array_measures_each_split_once(slurm, run, tiny_shards, tmp_path):
    splits = [f"{tiny_shards}/{name}" for name in ("train", "val", "test")]
    job = submit(slurm, tmp_path, "--array=3-5:2", "heads", *splits, "--", "--lights", "2")
    states = slurm.wait(job, 240)
    assert set(states.values()) == {"COMPLETED"} and len(states) == 2, logs(tmp_path)
    counts = {
        file.name: json.loads(file.read_text())["portraits"]
        for file in (run / "evaluations").iterdir()
    }
    assert counts == {"shards-train.json": 12, "shards-val.json": 3, "shards-test.json": 4}
    assert logs(tmp_path).count("portraits at 32 px") == 3


def test_what_cannot_be_measured_fails_and_says_why(slurm, run, tiny_shards, tmp_path):
    jobs = [
        submit(slurm, tmp_path, "heads"),
        submit(slurm, tmp_path, "tails", f"{tiny_shards}/val"),
        submit(slurm, tmp_path, str(run), "/nowhere/val"),
    ]
    for job in jobs:
        assert set(slurm.wait(job).values()) == {"FAILED"}
    said = logs(tmp_path)
    assert "evaluate.sbatch RUN SPLIT [SPLIT ...]" in said
    assert "runs/tails is no directory" in said
    assert "/nowhere/val" in said and "Traceback" not in said
