"""A small trained run and an untrained model on disk, made once for all tests that only read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from relightx.checkpoint import save_model
from relightx.model import IntrinsicNet, ModelConfig
from relightx.train import main


@pytest.fixture(scope="session")
def tiny_options(tiny_shards) -> Callable[[Path], list[str]]:
    """options(directory): the command line of a training run of 16 steps, seconds long."""

    def options(directory: Path) -> list[str]:
        values = {
            "run.dir": directory,
            "run.steps": 16,
            "run.precision": "float32",
            "run.log_every": 2,
            "run.validate_every": 4,
            "run.checkpoint_every": 4,
            "data.train": f"[{tiny_shards}/train]",
            "data.val": f"[{tiny_shards}/val]",
            "data.image_size": 32,
            "data.batch_size": 4,
            "data.num_workers": 0,
            "model.preset": "unet",
            "model.width": 8,
            "optim.learning_rate": 5e-3,
            "optim.warmup_steps": 4,
            "optim.ema_decay": 0.9,
        }
        return [f"--{name}={value}" for name, value in values.items()]

    return options


@pytest.fixture(scope="session")
def tiny_run(tiny_options, tmp_path_factory, on_one_core) -> Path:
    """Directory of a finished run."""
    directory = tmp_path_factory.mktemp("run") / "undisturbed"
    with on_one_core():
        assert main(tiny_options(directory)) == 0
    return directory


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Directory of an untrained unet for pictures of 32 px."""
    torch.manual_seed(0)
    config = ModelConfig("unet", 8)
    weights = IntrinsicNet(config).state_dict()
    return save_model(tmp_path_factory.mktemp("model") / "model", config, weights, 32, {})
