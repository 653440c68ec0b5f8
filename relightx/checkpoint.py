"""What a run leaves on disk: committed checkpoints to resume from, and the finished model.

A checkpoint is staged in a hidden directory and renamed when everything in it is on disk, so a
directory named `step-...` is whole; older ones are pruned only afterwards. Each lists its files
with size and sha256, so that one damaged later is passed over for the one before it, aloud.
There is no state of random generators: data order, choice of lights and augmentation are functions
of seed, epoch and portrait, and no layer draws numbers.

No pickle is read: weights are safetensors, the optimiser's state loads with `weights_only=True`.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from relightx.model import IntrinsicNet, ModelConfig

MODEL_FORMAT = "relightx-model-1"
WEIGHTS = "model.safetensors"
_RECORD = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """A training state: after `step` optimiser steps of a run."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    about: dict[str, Any]
    """Plain values: the resolved config, hashes of the data, best metric so far."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Commit a checkpoint under DIRECTORY/step-NNNNNNNN, then prune to the newest `keep`."""
    name = f"step-{checkpoint.step:08d}"
    staged = _fresh(directory / f".{name}.partial")
    save_file(_own(checkpoint.weights), staged / WEIGHTS)
    save_file(_own(checkpoint.average), staged / "average.safetensors")
    torch.save(checkpoint.optimizer, staged / "optimizer.pt")
    files = {file.name: _fingerprint(file) for file in sorted(staged.iterdir())}
    record = {"step": checkpoint.step, "files": files, "about": checkpoint.about}
    (staged / _RECORD).write_text(json.dumps(record, indent=1))
    committed = _commit(staged, directory / name)
    for old in _committed(directory)[:-keep]:
        shutil.rmtree(old)
    return committed


def newest_checkpoint(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, None when there is none, and why newer ones were passed over."""
    passed_over = []
    for path in reversed(_committed(directory)):
        try:
            return load_checkpoint(path), passed_over
        except (ValueError, OSError) as error:
            passed_over.append(str(error))
    return None, passed_over


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a committed checkpoint; ValueError when a file is missing, cut short or changed."""
    try:
        record = json.loads((path / _RECORD).read_text())
        step, files, about = record["step"], record["files"], record["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its {_RECORD} cannot be read: {error}") from None
    for name, expected in files.items():
        if not (path / name).is_file() or _fingerprint(path / name) != expected:
            raise ValueError(f"{path}: {name} is missing or not as it was written")
    return Checkpoint(
        step=step,
        weights=load_file(path / WEIGHTS),
        average=load_file(path / "average.safetensors"),
        optimizer=torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu"),
        about=about,
    )


def save_model(
    directory: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    image_size: int,
    about: dict[str, Any],
) -> Path:
    """Write a finished model to a directory: model.safetensors and config.json, replaced whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    staged = _fresh(directory.with_name(f".{directory.name}.partial"))
    save_file(_own(weights), staged / WEIGHTS)
    content = {
        "format": MODEL_FORMAT,
        "model": {"preset": config.preset, "width": config.width},
        "image_size": image_size,
        "about": about,
    }
    (staged / "config.json").write_text(json.dumps(content, indent=1))
    return _commit(staged, directory)


def load_model(path: str | Path) -> tuple[IntrinsicNet, dict[str, Any]]:
    """The network of a model directory or of a run that holds one, in eval mode, and its config.

    Raises ValueError when it is no model of ours, damaged, or its weights are of another
    architecture than its config names.
    """
    directory = model_directory(path)
    content = _model_config(directory)
    try:
        model = IntrinsicNet(ModelConfig(**content["model"]))
        weights = load_file(directory / WEIGHTS)
    except (TypeError, ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{directory}: the model cannot be read: {error}") from None
    size = content["image_size"]
    if size < 1 or size % model.size_multiple:
        raise ValueError(
            f"{directory}: image_size is {size}; a multiple of {model.size_multiple} needed"
        )
    fault = _mismatch(model.state_dict(), weights)
    if fault:
        raise ValueError(
            f"{directory}/{WEIGHTS}: weights of another architecture than"
            f" {content['model']} in its config.json: {fault}"
        )
    model.load_state_dict(weights)
    return model.eval(), content


def model_directory(path: str | Path) -> Path:
    """The directory of a model itself, where it, a file in it or a run that holds one is named."""
    directory = Path(path)
    if directory.is_file():
        directory = directory.parent
    if not (directory / "config.json").is_file() and (directory / "model").is_dir():
        directory = directory / "model"
    return directory


def _model_config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{directory}: no model here (config.json is missing); give the directory of a"
            " finished run or its model/ folder"
        )
    try:
        content = json.loads(file.read_text())
        known = isinstance(content, dict) and content.get("format") == MODEL_FORMAT
        if not known or not isinstance(content["model"], dict):
            raise ValueError(f"not of format {MODEL_FORMAT}")
        if type(content["image_size"]) is not int:
            raise ValueError(f"image_size is {content['image_size']!r}, a whole number needed")
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file}: not a relightx model: {error}") from None
    return content


def _mismatch(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first difference of names or shapes, '' when there is none."""
    missing, extra = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or extra:
        return f"{len(missing)} tensors missing {missing[:2]}, {len(extra)} unknown {extra[:2]}"
    for name, value in expected.items():
        if found[name].shape != value.shape:
            return f"{name} has shape {list(found[name].shape)}, needed {list(value.shape)}"
    return ""


def _committed(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-????????"))


def _fresh(staged: Path) -> Path:
    """An empty directory to write into; what a killed process left there goes."""
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def _commit(staged: Path, final: Path) -> Path:
    """Flush every file, then rename the directory to its real name."""
    for file in staged.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    if final.exists():  # a directory cannot be renamed over a full one
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
        os.replace(staged, final)
        shutil.rmtree(old)
    else:
        os.replace(staged, final)
    return final


def _fingerprint(file: Path) -> list[int | str]:
    with open(file, "rb") as stream:
        return [file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _own(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies: safetensors refuses channels-last strides and shared memory."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
