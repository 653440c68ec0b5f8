"""Every config that is shipped works, and says no more than it must."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from relightx.config import Config, config_to_dict, parse_config
from relightx.train import main

CONFIGS = Path(__file__).parents[2] / "configs"
TRAIN = sorted((CONFIGS / "train").glob("*.yaml"))


def dotted(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= dotted(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def test_there_are_configs():
    assert {"debug", "yaleb"} <= {file.stem for file in TRAIN}


@pytest.mark.parametrize("file", TRAIN, ids=lambda file: file.stem)
def test_each_training_config_parses_to_what_it_says(file):
    written = dotted(yaml.safe_load(file.read_text()))
    parsed = dotted(config_to_dict(parse_config(["--config", str(file)])))
    for name, value in written.items():
        assert parsed[name] == value


@pytest.mark.parametrize("file", TRAIN, ids=lambda file: file.stem)
def test_each_training_config_names_its_data_and_a_directory_of_its_own(file):
    config = parse_config(["--config", str(file)])
    assert config.data.train and config.data.val
    assert config.run.dir == f"runs/{file.stem}"
    assert config != Config()


@pytest.mark.parametrize("file", TRAIN, ids=lambda file: file.stem)
def test_the_head_of_a_training_config_says_how_to_run_it(file):
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert f"configs/train/{file.name}" in "\n".join(head)


def test_debug_yaml_trains(tiny_shards, tmp_path, one_core):
    status = main(
        [
            f"--config={CONFIGS / 'train' / 'debug.yaml'}",
            f"--run.dir={tmp_path / 'run'}",
            "--run.steps=2",
            "--run.precision=float32",
            f"--data.train=[{tiny_shards}/train]",
            f"--data.val=[{tiny_shards}/val]",
        ]
    )
    assert status == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
