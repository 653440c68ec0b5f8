"""Source `yaleb`: the cropped Extended Yale Face Database B, one group per subject.

    ROOT/yaleB11/yaleB11_P00A+035E-20.pgm (or .png)    8-bit gray, azimuth 35, elevation -20
    ROOT/yaleB11/yaleB11_P00_Ambient.pgm               optional: the room without a strobe

The set is given by the UCSD Computer Vision group ("Extended Yale Face Database B", the cropped
version); for research only, without redistribution, citing Georghiades 2001 and Lee 2005.

Real faces under one strobe at a time. The direction of each light is in the file's name; normals
and albedo are found by photometric stereo from the 37 frontal lights, whose strengths are known
(yaleb.json, measured on the photographs). The confidence of that fit is stored: it is low on
pupils, nostrils, wet lips, brows, beards and the highlight of the nose. Frames marked `.bad`, black
frames (the strobe did not fire) and frames known to be out of place are left out and counted in
the portrait's provenance.

The ambient frame, where it has the size of the others, is subtracted from them and the difference
is stored, since the light label is the strobe alone. The cropped release has it uncropped, 640x480:
then it cannot be subtracted, and it is counted among the frames left out.

A light is `strength * EXPOSURE * directional_light(direction)`. Over the 28 subjects
image - albedo * shade(normal, sh) is 8.6 gray levels in the mean (8.3 with exact Lambertian shading
in place of second-order harmonics). The best ambient shading, 0.01, would make it 8.5, so there is
none. Coefficients fitted freely to each image reach 7.3, but their direction is 21 degrees off the
strobe's, because they explain cast shadows and highlights.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from relightx.picture import read_picture
from relightx.sample import Portrait, Provenance
from relightx.sh import directional_light
from shards.group import Group, faulty, key_of
from shards.labelling.lamps import fit_strength
from shards.labelling.photometric_stereo import MIN_LIGHTS, photometric_stereo
from shards.layouts.face_region import face_region
from shards.layouts.frames import without_ambient

_MEASURED = json.loads(Path(__file__).with_name("yaleb.json").read_text())
STRENGTH: dict[str, float] = _MEASURED["strength"]
"""Strength of each frontal strobe, median 1."""
MISALIGNED: dict[str, list[str]] = _MEASURED["misaligned"]
"""Lights of each subject whose frame is 3 px or more out of place."""
EXPOSURE = 1.25
"""Shading by a strobe of strength 1; puts the albedo of the brightest skin just below 1."""
BLACK_LEVEL = 1.5
"""Mean gray level of a frame whose strobe did not fire; the darkest lit frame has 2.4."""
FRONTAL_AZIMUTH_DEG, FRONTAL_ELEVATION_DEG = 60, 45
PICTURE_SUFFIXES = (".png", ".pgm")

_SUBJECT = re.compile(r"yaleB\d\d")
_FRAME = re.compile(r"(yaleB\d\d)_P00(A[+-]\d{3}E[+-]\d\d)")
_LIGHT = re.compile(r"A([+-]\d{3})E([+-]\d\d)")


@dataclass(frozen=True)
class Frame:
    """One photograph: its file and the name of its light, such as 'A+035E-20'."""

    file: Path
    light: str


def yaleb(
    root: Path,
    *,
    lights: Literal["frontal", "all"] = "frontal",
    ambient: Literal["subtract", "ignore"] = "subtract",
) -> Iterator[Group]:
    """The subjects under `root` in the order of their names.

    Raises ValueError naming the place for a root without subjects. Reading a group raises it for a
    file that is not such a photograph, photographs of several sizes and fewer than 4 usable frontal
    lights.

    Args:
        lights: 'frontal' keeps the 37 lights within 60 degrees of azimuth and 45 of elevation;
            'all' keeps up to 64, the strengths of the further lights fitted to each image by least
            squares on the part of the face they reach, which makes the light label 'pseudo'
        ambient: 'subtract' takes the ambient frame, where it has their size, from all others
    """
    return (_found(folder, lights, ambient) for folder in _subject_folders(root))


def light_direction(light: str) -> Float[np.ndarray, "3"]:
    """Unit vector toward a light by its name; azimuth is positive toward the image's left.

    Raises ValueError for another kind of name.
    """
    angles = _LIGHT.fullmatch(light)
    if not angles:
        raise ValueError(f"light {light!r} is not named like A+035E-20")
    azimuth, elevation = np.radians([float(angles[1]), float(angles[2])])
    return np.array(
        (
            -np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ),
        np.float32,
    )


def is_frontal(light: str) -> bool:
    """Whether a light is among the 37 in front of the face."""
    azimuth, elevation = (abs(int(angle)) for angle in _LIGHT.fullmatch(light).groups())
    return azimuth <= FRONTAL_AZIMUTH_DEG and elevation <= FRONTAL_ELEVATION_DEG


def _found(folder: Path, lights: str, ambient: str) -> Group:
    key = key_of(folder.name)
    try:
        frames, _ = _frames(folder, lights)
    except ValueError as error:
        return faulty(key, folder.name, str(error))
    return Group(key, folder.name, len(frames), partial(_read_subject, folder, lights, ambient))


def _read_subject(folder: Path, lights: str, ambient: str) -> Portrait:
    frames, left_out = _frames(folder, lights)
    image = _read(frames)
    room = _ambient(folder, image.shape[1:], ambient, left_out)
    if room is not None:
        image = without_ambient(image[..., None], room[None, ..., None], "linear")[..., 0]
    fired = image.mean(axis=(1, 2)) >= BLACK_LEVEL
    left_out["black"] += int((~fired).sum())
    image, names = (
        image[fired],
        [frame.light for frame, lit in zip(frames, fired, strict=True) if lit],
    )
    measured = np.array([name in STRENGTH for name in names], bool)
    if measured.sum() < MIN_LIGHTS:
        raise ValueError(
            f"{folder}: {measured.sum()} usable frontal lights found"
            f" ({_counted(left_out)} left out); photometric stereo needs {MIN_LIGHTS}"
        )
    direction = np.stack([light_direction(name) for name in names])
    strength = np.array([STRENGTH.get(name, 1.0) * EXPOSURE for name in names], np.float32)
    linear = image / np.float32(255)
    frontal = linear[measured], direction[measured], strength[measured]
    surface = photometric_stereo(*frontal)
    mask = face_region(frontal[0], surface, *frontal[1:])
    for index in np.flatnonzero(~measured):
        found = fit_strength(linear[index], surface, direction[index], mask)
        strength[index] = EXPOSURE if found is None else found
    sh = torch.from_numpy(strength)[:, None] * directional_light(torch.from_numpy(direction))
    return Portrait(
        key=key_of(folder.name),
        subject=folder.name,
        image=image[..., None],
        light_name=tuple(names),
        provenance=_provenance(
            image.shape[1:], left_out, bool(measured.all()), subtracted=room is not None
        ),
        albedo=np.repeat(np.clip(surface.albedo, 0, 1)[..., None], 3, axis=2),
        normal=surface.normal,
        mask=mask,
        confidence=surface.confidence,
        sh=sh[:, None].expand(-1, 3, -1).numpy(),
        direction=direction,
    )


def _provenance(
    size: tuple[int, int], left_out: Counter[str], measured_lights: bool, subtracted: bool
) -> Provenance:
    height, width = size
    return Provenance(
        source="Extended Yale Face Database B, cropped",
        licence="research use only, no redistribution; cite Georghiades 2001 and Lee 2005",
        crop=f"{width}x{height} as released, taken as linear; frames left out:"
        f" {_counted(left_out)}. Normal and albedo by photometric stereo from the frontal lights"
        + (". The ambient frame was subtracted" if subtracted else ""),
        transfer="linear",
        albedo="real",
        normal="real",
        light="real" if measured_lights else "pseudo",
    )


def _subject_folders(root: Path) -> list[Path]:
    needed = "a folder with yaleB11, yaleB12, ... is needed"
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; {needed}")
    entries = sorted(root.iterdir())
    if not entries:
        raise ValueError(f"{root}: the folder is empty; {needed}")
    folders = [entry for entry in entries if entry.is_dir() and _SUBJECT.fullmatch(entry.name)]
    if not folders:
        seen = ", ".join(entry.name for entry in entries[:3])
        raise ValueError(f"{root}: no subject folders among its {len(entries)} ({seen}); {needed}")
    return folders


def _frames(folder: Path, lights: str) -> tuple[list[Frame], Counter[str]]:
    """The photographs to read, and how many others there are by reason."""
    frames: dict[str, Frame] = {}
    left_out: Counter[str] = Counter()
    for file in sorted(folder.iterdir()):
        if file.name.startswith("."):
            continue  # what desktops leave beside files
        if file.suffix == ".bad":
            left_out["marked .bad"] += 1
        elif file.suffix in PICTURE_SUFFIXES and not file.stem.endswith("_Ambient"):
            light = _light_of(file)
            if light in MISALIGNED.get(folder.name, ()):
                left_out["misaligned"] += 1
            elif light in frames:
                raise ValueError(f"{file}: light {light} is also in {frames[light].file.name}")
            elif lights == "all" or is_frontal(light):
                frames[light] = Frame(file, light)
    if not frames:
        raise ValueError(
            f"{folder}: no photographs found; {folder.name}_P00A+000E+00.pgm (or .png) and the"
            " like are needed"
        )
    return list(frames.values()), left_out


def _ambient(
    folder: Path, size: tuple[int, int], ambient: str, left_out: Counter[str]
) -> UInt8[np.ndarray, "height width"] | None:
    """The ambient frame to subtract; what is left out of it is counted."""
    files = [folder / f"{folder.name}_P00_Ambient{suffix}" for suffix in PICTURE_SUFFIXES]
    files = [file for file in files if file.exists()]
    if not files:
        return None
    if ambient == "ignore":
        left_out["ambient"] += 1
        return None
    pixels = _read_gray(files[0])
    if pixels.shape != size:
        left_out["ambient of another size"] += 1
        return None
    return pixels


def _light_of(file: Path) -> str:
    name = _FRAME.fullmatch(file.stem)
    if not name or name[1] != file.parent.name:
        raise ValueError(
            f"{file}: not a photograph of this set; names are like"
            f" {file.parent.name}_P00A+035E-20{file.suffix}"
        )
    if is_frontal(name[2]) and name[2] not in STRENGTH:
        raise ValueError(f"{file}: the set has no strobe {name[2]}")
    return name[2]


def _read(frames: list[Frame]) -> UInt8[np.ndarray, "lights height width"]:
    images: list[np.ndarray] = []
    for frame in frames:
        pixels = _read_gray(frame.file)
        if images and pixels.shape != images[0].shape:
            height, width = images[0].shape
            raise ValueError(
                f"{frame.file}: is {pixels.shape[1]}x{pixels.shape[0]}, {frames[0].file.name} is"
                f" {width}x{height}; one size per subject needed"
            )
        images.append(pixels)
    return np.stack(images)


def _read_gray(file: Path) -> UInt8[np.ndarray, "height width"]:
    pixels = read_picture(file)
    if pixels.shape[2] != 1 or pixels.dtype != np.uint8:
        raise ValueError(f"{file}: {pixels.shape[2]} channels of {pixels.dtype}; 8-bit gray needed")
    return pixels[..., 0]


def _counted(left_out: Counter[str]) -> str:
    found = [f"{count} {reason}" for reason, count in sorted(left_out.items()) if count]
    return ", ".join(found) or "none"
