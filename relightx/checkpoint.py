"""What a run leaves on disk: committed checkpoints to resume from, and the finished model.

A checkpoint is staged in a hidden directory and renamed when everything in it is on disk, so a
directory named `step-...` is whole; older ones are pruned only afterwards. Each lists its files
with size and sha256, so that one damaged later is passed over for the one before it, aloud.
There is no state of random generators: data order, choice of lights and augmentation are functions
of seed, epoch and portrait, and no layer draws numbers.

Weights, average and the optimiser's moments are whole and by the names of the weights, whatever the
processes had cut them into: a run of ZeRO-3 on eight goes on as one of DDP on two. They are
safetensors; no pickle is written or read.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from relightx.model import IntrinsicNet, ModelConfig
from relightx.storage import Folder, saying_full
from relightx.storage.folder import sync

MODEL_FORMAT = "relightx-model-1"
WEIGHTS = "model.safetensors"
RECORD = "checkpoint.json"
"""What a checkpoint holds, with sizes and digests."""
_AVERAGE, _OPTIMIZER = "average.safetensors", "optimizer.safetensors"
_STEP = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A training state: after `step` optimiser steps of a run. Tensors share no memory.

    optimizer: by "exp_avg.NAME" and "exp_avg_sq.NAME" for each weight.
    """

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    about: dict[str, Any]
    """Plain values: the resolved config, hashes of the data, best metric so far."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Commit a checkpoint under DIRECTORY/step-NNNNNNNN, then prune to the newest `keep`.

    Raises OSError, leaving nothing, when it does not fit on the disk.
    """
    name = f"step-{checkpoint.step:08d}"
    staged = _fresh(directory / f".{name}.partial")
    with _whole_or_gone(staged, directory / name):
        for file, values in (
            (WEIGHTS, checkpoint.weights),
            (_AVERAGE, checkpoint.average),
            (_OPTIMIZER, checkpoint.optimizer),
        ):
            # safetensors refuses channels-last strides.
            save_file({key: value.contiguous() for key, value in values.items()}, staged / file)
        files = {file.name: _fingerprint(file) for file in sorted(staged.iterdir())}
        record = {"step": checkpoint.step, "files": files, "about": checkpoint.about}
        (staged / RECORD).write_text(json.dumps(record, indent=1))
        path = _commit(staged, directory / name)
    for old in committed(directory)[:-keep]:
        _remove(old)
    for left in directory.glob(".*"):  # by processes that were killed
        shutil.rmtree(left, ignore_errors=True)
    return path


def newest_checkpoint(directory: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, None when there is none, and why newer ones were passed over."""
    passed_over = []
    for path in reversed(committed(directory)):
        try:
            return load_checkpoint(path), passed_over
        except (ValueError, OSError) as error:
            passed_over.append(str(error))
    return None, passed_over


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a committed checkpoint; ValueError when a file is missing, cut short or changed."""
    try:
        record = check_record((path / RECORD).read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"{path}: its {RECORD} cannot be read: {error}") from None
    for name, expected in record["files"].items():
        if not (path / name).is_file() or _fingerprint(path / name) != expected:
            raise ValueError(f"{path}: {name} is missing or not as it was written")
    return Checkpoint(
        step=record["step"],
        weights=load_file(path / WEIGHTS),
        average=load_file(path / _AVERAGE),
        optimizer=load_file(path / _OPTIMIZER),
        about=record["about"],
    )


def fetched_checkpoint(folder: Folder, final: Path) -> Path:
    """Copy a checkpoint from a folder to `final`, where it appears whole.

    Raises ValueError for a record that is none, OSError for files that are not as it says.
    """
    record = folder.read(RECORD)
    staged = _fresh(final.with_name(f".{final.name}.partial"))
    with _whole_or_gone(staged, final):
        for name, (_, digest) in check_record(record, folder.url)["files"].items():
            folder.fetch(name, staged / name, digest)
        (staged / RECORD).write_bytes(record)
        return _commit(staged, final)


def check_record(data: bytes, where: str) -> dict[str, Any]:
    """What a checkpoint says of itself; ValueError when it is none, or of an earlier program."""
    try:
        record = json.loads(data)
        step, files, about = record["step"], record["files"], record["about"]
        wanted = {WEIGHTS, _AVERAGE, _OPTIMIZER}
        if type(step) is not int or not isinstance(about, dict) or set(files) != wanted:
            raise ValueError(f"it is of step {step!r} and lists {sorted(files)}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: its {RECORD} cannot be read: {error}") from None
    return record


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


def committed(directory: Path) -> list[Path]:
    """The checkpoints that were committed, oldest first."""
    return sorted(path for path in directory.glob("step-*") if step_of(path.name) is not None)


def step_of(name: str) -> int | None:
    """The step of a checkpoint's name; None for another name."""
    found = _STEP.fullmatch(name)
    return None if found is None else int(found[1])


def _fresh(staged: Path) -> Path:
    """An empty directory to write into; what a killed process left there goes."""
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    return staged


def _commit(staged: Path, final: Path) -> Path:
    """Flush every file, then rename the directory to its real name."""
    for path in (*staged.iterdir(), staged):
        sync(path)
    if final.exists():  # a directory cannot be renamed over a full one
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
        os.replace(staged, final)
        shutil.rmtree(old)
    else:
        os.replace(staged, final)
    sync(final.parent)
    return final


@contextmanager
def _whole_or_gone(staged: Path, final: Path) -> Iterator[None]:
    """Around writing to `staged` what is to become `final`: after an error it is removed."""
    try:
        with saying_full(final):
            try:
                yield
            except SafetensorError as error:  # which has no errno
                known = (n for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if _says(error, n))
                raise OSError(next(known, errno.EIO), str(error)) from None
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _says(error: Exception, number: int) -> bool:
    return os.strerror(number) in str(error)


def _remove(directory: Path) -> None:
    """Remove a checkpoint; killed in the middle, what is left has not the name of one."""
    going = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(going, ignore_errors=True)
    os.replace(directory, going)
    shutil.rmtree(going)


def _fingerprint(file: Path) -> list[int | str]:
    with open(file, "rb") as stream:
        return [file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()]


def _own(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies: safetensors refuses channels-last strides and shared memory."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
