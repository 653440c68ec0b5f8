"""Files of sweeps whose trainings take seconds."""

from pathlib import Path

import yaml


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
