"""Source `folder`: your own multi-lit photographs, one folder per subject.

    ROOT/anna/left.png, front.png, right.png             one group; every picture is a light
    ROOT/ben/smile/01.jpg ..., ROOT/ben/neutral/01.jpg   several groups of one subject

The pictures of a group show the same pose and expression and have the same size. Optional beside
them:

    albedo.png      same transfer function as the photographs
    normal.png      (normal + 1) / 2; +x right, +y up, +z to the camera; 16 bits are better
    mask.png        white on the portrait
    confidence.png  white where albedo and normal can be trusted, gray or black where less
    group.json      {"lights": [{"file": "left.png", "name": "left", "direction": [-1, 0, 1],
                                 "sh": [[9 numbers], [9], [9]]}, ...],
                     "transfer": "srgb" or "linear", "licence": "...", "crop": "...",
                     "source": "...", "subject": "...",
                     "labels": {"albedo": "real", "normal": "pseudo", "light": "real"}}

Every key of group.json is optional. A light has `direction`, toward it, or `sh`, three rows (R, G,
B) of nine radiance coefficients in the convention of relightx.sh, or both. The lights listed must
be the pictures that are there. Labels are pseudo unless group.json calls them real.

Whole pictures of people become portraits with --align; labels that are missing can be made from
lights of known direction with --stereo given.
"""

import json
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from relightx.color import from_integer
from relightx.picture import read_picture
from relightx.sample import Portrait, Provenance
from shards.group import Group, faulty, key_of

GROUP_FILE = "group.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
LABEL_FILES = ("albedo.png", "normal.png", "mask.png", "confidence.png")
_GROUP_KEYS = ("lights", "transfer", "licence", "crop", "source", "subject", "labels")
_LIGHT_KEYS = ("file", "name", "direction", "sh")


class FolderGroup(NamedTuple):
    """A group whose list of files was checked and whose pictures were not read yet.

    lights: records of group.json, or the file names alone. about: the rest of group.json over the
    defaults.
    """

    key: str
    subject: str
    directory: Path
    lights: tuple[dict[str, Any], ...]
    about: dict[str, Any]


def folder(
    root: Path, *, transfer: Literal["srgb", "linear"] = "srgb", licence: str = "not stated"
) -> Iterator[Group]:
    """The groups under `root`, in the order of their folders' names.

    Raises ValueError for a root that holds no folders of pictures.

    Args:
        transfer: transfer function of the pictures, where group.json says nothing
        licence: terms of the pictures, where group.json is silent
    """
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; a folder with one folder per subject is needed")
    defaults = {"transfer": transfer, "licence": licence, "crop": "as given", "source": root.name}
    subjects = _entries(root)
    if not subjects:
        raise ValueError(f"{root}: is empty; one folder per subject is needed")
    for subject in subjects:
        if not subject.is_dir():
            raise ValueError(f"{subject}: is not a folder; pictures lie in one folder per subject")
        inside = _entries(subject)
        nested = bool(inside) and all(entry.is_dir() for entry in inside)
        for directory in inside if nested else [subject]:
            yield _found(directory, subject.name, nested, defaults)


def read_group(group: FolderGroup) -> Portrait:
    """Read the pictures of a group; raises ValueError naming the file at fault."""
    labels, about = group.about.get("labels", {}), group.about
    files = [group.directory / light["file"] for light in group.lights]
    image = _stack_images(files)
    size = image.shape[1:3]
    mask = _read_mask(group.directory / "mask.png", size)
    albedo = _read_albedo(group.directory / "albedo.png", size, about["transfer"])
    normal = _read_normal(group.directory / "normal.png", size, mask)
    confidence = _read_confidence(group.directory / "confidence.png", size)
    sh = _light_values(group, "sh", (3, 9))
    direction = _light_values(group, "direction", (3,))
    held = {"albedo": albedo, "normal": normal, "light": sh}
    return Portrait(
        key=group.key,
        subject=group.subject,
        image=image,
        light_name=tuple(light.get("name", Path(light["file"]).stem) for light in group.lights),
        provenance=Provenance(
            **{name: about[name] for name in ("source", "licence", "crop", "transfer")},
            **{
                name: "absent" if value is None else labels.get(name, "pseudo")
                for name, value in held.items()
            },
        ),
        albedo=albedo,
        normal=normal,
        mask=mask,
        confidence=confidence,
        sh=sh,
        direction=direction,
    )


def _found(directory: Path, subject: str, nested: bool, defaults: dict[str, str]) -> Group:
    key = key_of(subject, directory.name) if nested else key_of(subject)
    try:
        group = list_group(directory, key, subject, defaults)
    except ValueError as error:
        return faulty(key, subject, str(error))
    return Group(key, group.subject, len(group.lights), partial(read_group, group))


def list_group(directory: Path, key: str, subject: str, defaults: dict[str, str]) -> FolderGroup:
    """The group that a folder holds, before any picture is read.

    defaults: what group.json may say otherwise: transfer, licence, crop, source. Raises ValueError
    naming the file for what is no picture, not listed, missing or not understood.
    """
    pictures: list[str] = []
    for entry in _entries(directory):
        if entry.is_dir():
            raise ValueError(f"{entry}: a folder among pictures; a group holds pictures alone")
        if entry.name in LABEL_FILES or entry.name == GROUP_FILE:
            continue
        if entry.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(
                f"{entry}: is not a picture; needed are {', '.join(IMAGE_SUFFIXES)}"
                " (16 bits as PNG or TIFF). Move other files out of the group"
            )
        pictures.append(entry.name)
    about = _read_about(directory / GROUP_FILE)
    lights = about.pop("lights", None)
    if lights is None:
        lights = [{"file": name} for name in pictures]
    if not lights:
        raise ValueError(f"{directory}: has no pictures; a group needs one for each light")
    _check_lights(directory, lights, pictures)
    subject = about.pop("subject", subject)
    return FolderGroup(key, subject, directory, tuple(lights), defaults | about)


def _entries(directory: Path) -> list[Path]:
    """What a folder holds, but for the files that desktops leave there."""
    entries = sorted(directory.iterdir(), key=lambda entry: entry.name)
    return [e for e in entries if not e.name.startswith(".") and e.name != "Thumbs.db"]


def _read_about(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        about = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as JSON: {error}") from None
    _check_keys(f"{file}", about, _GROUP_KEYS)
    for key in ("transfer", "licence", "crop", "source", "subject"):
        if not isinstance(about.get(key, ""), str):
            raise ValueError(f"{file}: {key!r} is {about[key]!r}; a text is needed")
    if about.get("transfer", "srgb") not in ("srgb", "linear"):
        raise ValueError(f"{file}: transfer {about['transfer']!r} is not 'srgb' or 'linear'")
    labels = about.get("labels", {})
    _check_keys(f"{file}: labels", labels, ("albedo", "normal", "light"))
    for name, label in labels.items():
        if label not in ("real", "pseudo"):
            raise ValueError(f"{file}: label {name!r} is {label!r}, not 'real' or 'pseudo'")
    if not isinstance(about.get("lights", []), list):
        raise ValueError(f"{file}: 'lights' is not a list")
    for index, light in enumerate(about.get("lights", [])):
        _check_keys(f"{file}: light {index}", light, _LIGHT_KEYS)
        for key in ("file", "name"):
            if not isinstance(light.get(key, "" if key == "name" else None), str):
                raise ValueError(f"{file}: light {index}: {key!r} is no text")
    return about


def _check_keys(where: str, record: object, known: tuple[str, ...]) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: is not a JSON object with {', '.join(known)}")
    for key in record:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ValueError(f"{where}: key {key!r} is unknown; {hint}")


def _check_lights(directory: Path, lights: list[dict[str, Any]], pictures: list[str]) -> None:
    file = directory / GROUP_FILE
    listed = [light["file"] for light in lights]
    for name in listed:
        if name not in pictures:
            raise ValueError(f"{file}: lists light {name!r}, which is not in the folder")
        if listed.count(name) > 1:
            raise ValueError(f"{file}: lists light {name!r} twice")
    unlisted = [name for name in pictures if name not in listed]
    if unlisted:
        raise ValueError(
            f"{file}: lists {len(listed)} lights and not the picture {unlisted[0]!r};"
            " list it or move it out of the folder"
        )


def _stack_images(files: list[Path]) -> Integer[np.ndarray, "lights height width channels"]:
    pictures = [read_picture(file) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            raise ValueError(
                f"{file}: is {_size(picture.shape)}, {files[0].name} beside it"
                f" {_size(pictures[0].shape)}; the pictures of a group have one size"
            )
        if picture.dtype != pictures[0].dtype:
            raise ValueError(
                f"{file}: is {picture.dtype}, {files[0].name} beside it {pictures[0].dtype};"
                " the pictures of a group have one bit depth"
            )
    if len({picture.shape[2] for picture in pictures}) > 1:
        pictures = [np.broadcast_to(p, (*p.shape[:2], 3)) for p in pictures]
    return np.stack(pictures)


def _read_label(
    file: Path, size: tuple[int, int]
) -> Integer[np.ndarray, "height width channels"] | None:
    if not file.exists():
        return None
    picture = read_picture(file)
    if picture.shape[:2] != size:
        raise ValueError(f"{file}: is {_size(picture.shape)}, the photographs are {_size(size)}")
    return picture


def _read_mask(file: Path, size: tuple[int, int]) -> Bool[np.ndarray, "height width"] | None:
    picture = _read_label(file, size)
    if picture is None:
        return None
    mask = picture.mean(axis=-1) > np.iinfo(picture.dtype).max / 2
    if not mask.any():
        raise ValueError(f"{file}: is black throughout; a mask is white on the portrait")
    return mask


def _read_confidence(file: Path, size: tuple[int, int]) -> Float[np.ndarray, "height width"] | None:
    picture = _read_label(file, size)
    return None if picture is None else from_integer(picture, "linear").mean(axis=-1)


def _read_albedo(
    file: Path, size: tuple[int, int], transfer: str
) -> Float[np.ndarray, "height width 3"] | None:
    picture = _read_label(file, size)
    if picture is None:
        return None
    return np.array(np.broadcast_to(from_integer(picture, transfer), (*size, 3)))


def _read_normal(
    file: Path, size: tuple[int, int], mask: Bool[np.ndarray, "height width"] | None
) -> Float[np.ndarray, "height width 3"] | None:
    """Normals made unit length; a picture of something else is refused by their usual length."""
    picture = _read_label(file, size)
    if picture is None:
        return None
    if picture.shape[2] != 3:
        raise ValueError(f"{file}: is gray; normals need three channels")
    normal = from_integer(picture, "linear") * 2 - 1
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    inside = np.ones(size, bool) if mask is None else mask
    usual, ahead = float(np.median(length[inside])), float(np.median(normal[inside][:, 2]))
    if abs(usual - 1) > 0.1 or ahead <= 0:
        raise ValueError(
            f"{file}: its vectors have a usual length of {usual:.2f} and z of {ahead:.2f}; needed"
            " are unit normals as (normal + 1) / 2 with +z to the camera"
        )
    return normal / np.maximum(length, 1e-6)


def _light_values(
    group: FolderGroup, name: str, shape: tuple[int, ...]
) -> Float[np.ndarray, "lights ..."] | None:
    given = [light for light in group.lights if light.get(name) is not None]
    if not given:
        return None
    where = f"{group.directory / GROUP_FILE}: {name}"
    if len(given) < len(group.lights):
        raise ValueError(f"{where} is given for {len(given)} of {len(group.lights)} lights")
    try:
        values = np.array([light[name] for light in given], np.float32)
    except (ValueError, TypeError):
        values = np.zeros(0, np.float32)
    if values.shape[1:] != shape or not np.isfinite(values).all():
        raise ValueError(f"{where} is not {' x '.join(map(str, shape))} numbers for each light")
    if name == "sh":
        return values
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    if not (length > 0).all():
        raise ValueError(f"{where} has length zero; a vector toward the light is needed")
    return values / length


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
