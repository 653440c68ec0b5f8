"""Photometric stereo of one folder of photographs: the same folder again, with its labels."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from relightx.codec import encode_png
from relightx.color import linear_to_srgb
from relightx.sample import Portrait
from shards.labelling.stereo import with_stereo_labels
from shards.sources.folder import GROUP_FILE, FolderGroup, list_group, read_group
from shards.staging import refuse_taken, staged

DEFAULTS = {"transfer": "srgb", "licence": "not stated", "crop": "as given"}
"""What a group is taken to be where group.json is silent, as by the source `folder`."""


def stereo_folder(folder: Path, out: Path, lights: Literal["given", "estimated"] = "given") -> Path:
    """Copy a group of the source `folder` to `out` and add the labels it lacks; gives `out`.

    Added are albedo.png, normal.png (16 bits), confidence.png and, in group.json, the lights'
    directions and sh; what is there is kept, see `shards.labelling.stereo.with_stereo_labels`.
    `out` appears whole or not at all.
    Raises ValueError for a folder that is no such group or has every label, an `out` that exists,
    and what photometric stereo refuses.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        found = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"{folder}: {found}; a folder with the photographs of one group is needed")
    refuse_taken(out.resolve(), overwrite=False)
    group = list_group(folder, "group", folder.name, DEFAULTS | {"source": folder.parent.name})
    portrait = read_group(group)
    try:
        labelled = with_stereo_labels(portrait, lights)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    if labelled is portrait:
        raise ValueError(f"{folder}: has albedo, normals and sh; there is nothing to add")
    with staged(out, overwrite=False) as staging:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                shutil.copyfile(file, staging / file.name)
        _write_labels(staging, portrait, labelled)
        text = json.dumps(_about(group, labelled), indent=1)
        (staging / GROUP_FILE).write_text(text + "\n", encoding="utf-8")
    return out


def _write_labels(directory: Path, before: Portrait, labelled: Portrait) -> None:
    """The pictures of the labels that were added."""
    if before.albedo is None:
        srgb = labelled.provenance.transfer == "srgb"
        encoded = linear_to_srgb(labelled.albedo) if srgb else labelled.albedo
        (directory / "albedo.png").write_bytes(encode_png(_integer(encoded, np.uint16)))
    if before.normal is None:
        normal = _integer((labelled.normal + 1) / 2, np.uint16)
        (directory / "normal.png").write_bytes(encode_png(normal))
    if before.confidence is None:
        confidence = _integer(labelled.confidence[..., None], np.uint8)
        (directory / "confidence.png").write_bytes(encode_png(confidence))


def _about(group: FolderGroup, labelled: Portrait) -> dict[str, Any]:
    """group.json with the lights found; rounded to what light directions can be known to."""
    lights = [
        dict(light)
        | {
            "name": labelled.light_name[index],
            "direction": np.round(labelled.direction[index].astype(float), 6).tolist(),
            "sh": np.round(labelled.sh[index].astype(float), 6).tolist(),
        }
        for index, light in enumerate(group.lights)
    ]
    provenance = labelled.provenance
    labels = {name: getattr(provenance, name) for name in ("albedo", "normal", "light")}
    return group.about | {
        "subject": group.subject,
        "crop": provenance.crop,
        "labels": labels,
        "lights": lights,
    }


def _integer(values: np.ndarray, kind: type) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * np.iinfo(kind).max).astype(kind)
