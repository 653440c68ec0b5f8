"""Labels that a trained model gave portraits: the folder that `relightx pseudolabel` writes.

    DIR/KEY.albedo.png       16-bit RGB, linear
    DIR/KEY.normal.png       16-bit RGB, (normal + 1) / 2
    DIR/KEY.light.json       {"sh": 3 rows (R, G, B) of 9 numbers, "confidence": 0 to 1}
    DIR/KEY.mask.png         optional, 8-bit gray, 255 on the portrait
    DIR/KEY.confidence.png   optional, 8-bit gray, 255 where the labels can be trusted
    DIR/pseudolabels.json    {"version": 1, "model": ..., "portraits": N}, written last

KEY is the portrait's; the maps have the size of its picture.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from relightx.picture import read_picture
from relightx.sample import Portrait
from shards.layouts.frames import kind_of

VERSION = 1
SUMMARY = "pseudolabels.json"
MAX_BYTES = 1024 * 1024


class Pseudolabels(NamedTuple):
    """A finished folder of labels, and the model that gave them."""

    directory: Path
    model: str


def open_pseudolabels(directory: Path) -> Pseudolabels:
    """Raises ValueError for a folder that is not one, or that was not finished."""
    file = directory / SUMMARY
    if not file.is_file():
        raise ValueError(
            f"{file}: is missing; it is written last, so these are no pseudo-labels or"
            " `relightx pseudolabel` was interrupted: run it again"
        )
    summary = _read_json(file)
    if summary.get("version") != VERSION:
        raise ValueError(
            f"{file}: version {summary.get('version')!r}, this program reads {VERSION}"
        )
    return Pseudolabels(directory, _model_name(summary.get("model")))


def _model_name(model: Any) -> str:
    """What tells one model from another in a portrait's provenance."""
    if not isinstance(model, dict):
        return str(model or "an unnamed model")
    preset = model.get("config", {}).get("preset", "a model")
    return f"{preset}, weights {str(model.get('sha256', 'unknown'))[:12]}"


def labelled_keys(labels: Pseudolabels, keys: Iterable[str]) -> set[str]:
    """Those keys of which the folder has something. Raises ValueError when there are none."""
    with os.scandir(labels.directory) as entries:
        held = {entry.name.partition(".")[0] for entry in entries}
    found = held.intersection(keys)
    if not found:
        seen = next((name for name in sorted(held) if name != Path(SUMMARY).stem), "nothing")
        raise ValueError(
            f"{labels.directory}: has labels of none of the portraits (it has {seen}); were they"
            " made from shards of this source?"
        )
    return found


def with_pseudolabels(portrait: Portrait, labels: Pseudolabels) -> Portrait:
    """A portrait of one light with its labels. Raises ValueError naming the file at fault."""

    def file(ending: str) -> Path:
        return labels.directory / f"{portrait.key}.{ending}"

    size = portrait.image.shape[1:3]
    sh, confidence = _read_light(file("light.json"))
    weight, mask = file("confidence.png"), file("mask.png")
    if weight.exists():
        confidence = _read_map(weight, size, np.uint8, 1)[..., 0] / np.float32(255)
    elif confidence < 1:
        confidence = np.full(size, confidence, np.float32)
    else:
        confidence = None
    normal = _read_map(file("normal.png"), size, np.uint16, 3) / np.float32(65535) * 2 - 1
    provenance = replace(
        portrait.provenance,
        crop=f"{portrait.provenance.crop}; labels by {labels.model}",
        albedo="pseudo",
        normal="pseudo",
        light="pseudo",
    )
    return replace(
        portrait,
        provenance=provenance,
        albedo=_read_map(file("albedo.png"), size, np.uint16, 3) / np.float32(65535),
        normal=normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6),
        mask=_read_mask(mask, size) if mask.exists() else None,
        confidence=confidence,
        sh=sh[None],
    )


def _read_mask(file: Path, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    return _read_map(file, size, np.uint8, 1)[..., 0] > 127


def _read_map(
    file: Path, size: tuple[int, int], dtype: type, channels: int
) -> Integer[np.ndarray, "height width channels"]:
    if not file.exists():
        raise ValueError(f"{file}: is missing; the portrait's other labels are there")
    pixels = read_picture(file)
    if pixels.shape[:2] != size:
        raise ValueError(
            f"{file}: is {kind_of(pixels)}, the picture {size[1]}x{size[0]}; labels must be made"
            " from shards of these very pictures"
        )
    if pixels.dtype != dtype or pixels.shape[2] != channels:
        colour = "RGB" if channels == 3 else "gray"
        raise ValueError(
            f"{file}: is {kind_of(pixels)}; {np.dtype(dtype).itemsize * 8}-bit {colour} needed"
        )
    return pixels


def _read_light(file: Path) -> tuple[Float[np.ndarray, "3 9"], float]:
    record = _read_json(file)
    try:
        sh = np.array(record["sh"], np.float64)
        confidence = float(record["confidence"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: sh and confidence cannot be read: {error!r}") from None
    if sh.shape != (3, 9) or not np.isfinite(sh).all():
        raise ValueError(f"{file}: sh is {sh.shape}; 3 rows of 9 finite numbers needed")
    if not 0 <= confidence <= 1:
        raise ValueError(f"{file}: confidence is {confidence}; 0 to 1 needed")
    return sh.astype(np.float32), confidence


def _read_json(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        record = json.loads(content)
    except FileNotFoundError:
        raise ValueError(f"{file}: is missing; the portrait's other labels are there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{file}: is no JSON object")
    return record
