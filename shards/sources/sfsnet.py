"""Source `sfsnet`: the SfSNet synthetic set, one group per identity and view.

    ROOT/0003/000041_face_2_3.png      {id}_{part}_{view}_{light}, view 1 to 3, light 1 to 5
    ROOT/0003/000041_albedo_2_3.png    8-bit RGB; likewise normal, and optionally mask and depth
    ROOT/0003/000041_light_2_3.txt     27 numbers: R, G, B blocks of 9

ROOT may also be one such folder. Other files (lists in .csv, .DS_Store) are passed over.

The set (250,000 faces of 512x512, about 120 GB) is given for research by its authors on request:
"SfSNet: Learning Shape, Reflectance and Illuminance of Faces in the Wild", Sengupta et al. 2018,
whose page has the form; no redistribution. A sample is in the repository bhushan23/SfSNet-PyTorch,
and the layout above is that sample's.

What is established (code of SfSNet): pixels are used as stored, image = albedo * shading, so they
are linear here; a normal is 2 * RGB - 1, normalised; the order and scale of the 27 numbers.

What is not, and is measured in each group:

- Whether the lights of a view share albedo and normals. The files are compared: where more than
  0.1 % of the values differ by more than 2 levels of 255, each picture becomes a portrait of its
  own, and its provenance says what differed.
- Which way the x and y of a normal point in the image. Shading cannot tell: it is the same when
  light and normals are turned together. But a face is convex, so its normals lean outward, and it
  is a surface, so its slopes have no twist. Of the 8 ways to take R and G for x and y, the one of
  least twist that leans outward is chosen.
- Whether the light has the frame of the normals. It is taken in each of the 8 ways, albedo *
  shading is compared with the image, and the way that explains it best is taken. A group that none
  explains within 0.03 (of 1) is refused; above 0.01 the difference is noted in the provenance.

A person is an `id`; the number of identities is not published. Pictures without face, albedo,
normal or light file are left out and counted in the provenance; a broken file refuses its group.
Without mask files the mask is where normals have unit length.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from relightx.picture import read_picture
from relightx.sample import Portrait, Provenance
from relightx.sh import from_sfsnet, rotate, shade
from shards.group import Group, faulty, key_of
from shards.layouts.frames import kind_of
from shards.layouts.numbers import read_numbers

NEEDED = ("face", "albedo", "normal", "light")
MAX_LEVELS, MAX_SHARE = 2, 0.001
"""Two files are the same when at most this share of values differs by more levels of 255."""
MAX_ERROR, NOTED_ERROR = 0.03, 0.01
"""Mean of |image - albedo * shading| above which a group is refused, or the number noted."""
MAX_TWIST = 0.6
"""See `twist`; a group with more in every frame is refused."""
UNIT_TOLERANCE = 0.15
"""A decoded normal whose length is farther from 1 is no normal but background or an edge."""
MIN_PIXELS = 100
PROBED_PIXELS = 10_000

_NAME = re.compile(r"(\d+)_(face|albedo|normal|mask|depth|light)_(\d+)_(\d+)\.(png|txt)")

AXES: tuple[tuple[tuple[int, int, int], ...], ...] = tuple(
    ((x, 0, 0), (0, y, 0), (0, 0, 1)) if straight else ((0, x, 0), (y, 0, 0), (0, 0, 1))
    for straight, x, y in product((True, False), (1, -1), (1, -1))
)
"""The 8 ways to take the first two numbers of a vector for x and y; the first changes nothing."""


class View(NamedTuple):
    """One identity and view: the lights whose files are there, and what was left out."""

    directory: Path
    identity: str
    view: str
    lights: tuple[str, ...]
    left_out: str
    optional: tuple[str, ...]

    def file(self, part: str, light: str) -> Path:
        suffix = "txt" if part == "light" else "png"
        return self.directory / f"{self.identity}_{part}_{self.view}_{light}.{suffix}"


class Picture(NamedTuple):
    """What the set holds of one picture.

    image, albedo, normal: as stored. light: the 27 numbers, as stored.
    """

    name: str
    image: Integer[np.ndarray, "height width channels"]
    albedo: Integer[np.ndarray, "height width 3"]
    normal: Integer[np.ndarray, "height width 3"]
    light: Float[np.ndarray, "3 9"]
    mask: Integer[np.ndarray, "height width channels"] | None
    depth: Integer[np.ndarray, "height width channels"] | None


class Frame(NamedTuple):
    """How a group's files are meant.

    normal: takes a vector of the files to our frame. light: to the frame of the 27 numbers.
    error: mean of |image - albedo * shading|, of 1.
    """

    normal: Float[np.ndarray, "3 3"]
    light: Float[np.ndarray, "3 3"]
    error: float


def sfsnet(root: Path) -> Iterator[Group]:
    """The identities and views under `root`, folder by folder.

    Raises ValueError for a root without files of the set.
    """
    needed = "a folder with 0001, 0002, ... that hold 000041_face_2_3.png and the like is needed"
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; {needed}")
    empty = True
    for directory in [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]:
        for group in _groups(directory):
            empty = False
            yield group
    if empty:
        raise ValueError(f"{root}: no files of the SfSNet set in it or in its folders; {needed}")


def _groups(directory: Path) -> Iterator[Group]:
    parts_of: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for entry in directory.iterdir():
        if name := _NAME.fullmatch(entry.name):
            identity, part, view, light, suffix = name.groups()
            if (suffix == "txt") == (part == "light"):
                parts_of[identity, view][light].add(part)
    for (identity, view), parts in sorted(parts_of.items(), key=lambda item: _by_number(item[0])):
        yield _found(directory, identity, view, parts)


def _found(directory: Path, identity: str, view: str, parts: dict[str, set[str]]) -> Group:
    key = key_of(identity, view)
    whole = sorted((light for light in parts if parts[light] >= set(NEEDED)), key=int)
    missing = [
        f"{view}_{light} without {' and '.join(p for p in NEEDED if p not in parts[light])}"
        for light in sorted(parts.keys() - set(whole), key=int)
    ]
    if not whole:
        fault = f"{directory}: {identity}_*_{view}_*: no picture has all its files: "
        return faulty(key, identity, fault + "; ".join(missing))
    optional = tuple(p for p in ("mask", "depth") if all(p in parts[light] for light in whole))
    group = View(directory, identity, view, tuple(whole), "; ".join(missing), optional)
    return Group(key, identity, len(whole), partial(read_view, group))


def _by_number(names: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((int(name), name) for name in names)


def read_view(view: View) -> Portrait | list[Portrait]:
    """One multi-lit portrait, or one for each picture where they do not share albedo and normals.

    Raises ValueError naming the file that is broken or of another size, or the group whose images
    are not explained by its labels.
    """
    pictures = [_read_picture(view, light) for light in view.lights]
    key = key_of(view.identity, view.view)
    note = f"left out: {view.left_out}" if view.left_out else ""
    difference = differing(pictures)
    if difference is None:
        return _portrait(view, key, pictures, note)
    note = f"single-lit, because {difference}" + (f"; {note}" if note else "")
    return [
        _portrait(view, f"{key}_{light}", [picture], note)
        for light, picture in zip(view.lights, pictures, strict=True)
    ]


def differing(pictures: list[Picture]) -> str | None:
    """What differs between pictures that should differ in light alone; None when nothing does."""
    first = pictures[0]
    for other, part in product(pictures[1:], ("image", "albedo", "normal", "mask", "depth")):
        one, two = getattr(first, part), getattr(other, part)
        if one is None:
            continue
        if one.shape != two.shape or one.dtype != two.dtype:
            return f"{part} of {other.name} is {kind_of(two)}, of {first.name} {kind_of(one)}"
        if part == "image":
            continue
        levels = np.abs(one.astype(np.int32) - two) * (255 / np.iinfo(one.dtype).max)
        share = float((levels > MAX_LEVELS).mean())
        if share > MAX_SHARE:
            return f"{part} of {other.name} differs from {first.name} in {share:.2%} of its values"
    return None


def settle_frame(
    pictures: list[Picture],
    normal: Float[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
) -> Frame:
    """Which way a group's normals and lights point, from the pictures. Raises ValueError.

    normal: unit, in the frame of the files.
    """
    where = np.argwhere(mask)
    row, column = where[:: -(-len(where) // PROBED_PIXELS)].T
    probed = normal[row, column].astype(np.float64)
    pointing = _pointing(pictures[0].name, normal, mask)
    image = np.stack([_unit(p.image)[row, column] for p in pictures])
    albedo = _unit(pictures[0].albedo)[row, column]
    seen = (image > 0.5 / 255) & (image < 1 - 0.5 / 255)
    if not seen.any():
        raise ValueError(f"{pictures[0].name}: its face is black or saturated throughout")
    errors = np.array([_error(image, albedo, probed @ np.array(a).T, pictures, seen) for a in AXES])
    # Lights from straight ahead leave several ways alike; then the way of SfSNet's code is taken.
    best = int(np.flatnonzero(errors <= 1.05 * errors.min() + 1e-4)[0])
    if errors[best] > MAX_ERROR:
        raise ValueError(
            f"{pictures[0].name}: no frame of light and normals explains the image: albedo *"
            f" shading is {errors[best]:.3f} (of 1) off in the mean, at most {MAX_ERROR} is"
            " accepted; are the pictures as released, not encoded or scaled otherwise?"
        )
    return Frame(pointing, np.array(AXES[best], np.float64), float(errors[best]))


def _pointing(
    name: str, normal: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, "3 3"]:
    """The way to take R and G in which normals lean outward and are those of a surface."""
    if normal[mask, 2].mean() <= 0:
        raise ValueError(f"{name}: its normals face away from the camera; B above 0.5 is needed")
    row, column = np.nonzero(mask)
    outward = np.stack((column - column.mean(), row.mean() - row), axis=1)
    outward /= np.maximum(outward.std(axis=0), 1e-9)
    best, least = None, MAX_TWIST
    for axes in AXES:
        turned = normal @ np.array(axes, np.float32).T
        leaning = (turned[mask, :2] * outward).mean()
        if leaning > 0 and (found := twist(turned, mask)) < least:
            best, least = np.array(axes, np.float64), found
    if best is None:
        raise ValueError(
            f"{name}: its normals are those of no surface in any frame; are they 2 * RGB - 1?"
        )
    return best


def twist(
    normal: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> float:
    """How far normals are from those of a surface, from 0 to 1.

    A surface z(x, y) has d/dy (dz/dx) = d/dx (dz/dy). Rendered heads have 0.3 to 0.5, with y upside
    down 0.9, with x and y exchanged 0.6 to 0.7; noise has 0.65.
    """
    step = max(1, min(mask.shape) // 64)  # one level of 8 bits is more than a pixel's change
    steep = ~mask | (normal[..., 2] < 0.3)
    slope = -normal[..., :2] / np.where(steep, np.nan, normal[..., 2])[..., None]
    up = slope[: -2 * step, step:-step, 0] - slope[2 * step :, step:-step, 0]
    right = slope[step:-step, 2 * step :, 1] - slope[step:-step, : -2 * step, 1]
    known = ~np.isnan(up + right)
    size = (np.abs(up) + np.abs(right))[known].sum()
    return float(np.abs(up - right)[known].sum() / size) if size > 0 else 1.0


def _error(
    image: Float[np.ndarray, "lights pixels channels"],
    albedo: Float[np.ndarray, "pixels 3"],
    normal: Float[np.ndarray, "pixels 3"],
    pictures: list[Picture],
    seen: Bool[np.ndarray, "lights pixels channels"],
) -> float:
    """Mean of |image - albedo * shading| where the image is neither black nor saturated."""
    light = torch.from_numpy(np.stack([p.light for p in pictures])).double()
    shading = shade(torch.from_numpy(normal).T[..., None], from_sfsnet(light))[..., 0]
    explained = albedo * shading.numpy().swapaxes(1, 2)
    off = np.abs(image - np.clip(explained, 0, 1))[np.broadcast_to(seen, explained.shape)]
    return float(off.mean())


def _portrait(view: View, key: str, pictures: list[Picture], note: str) -> Portrait:
    first = pictures[0]
    stored = _unit(first.normal) * 2 - 1
    length = np.linalg.norm(stored, axis=-1)
    mask = np.abs(length - 1) < UNIT_TOLERANCE
    if first.mask is not None:
        mask &= _unit(first.mask).mean(axis=-1) > 0.5
    if mask.sum() < MIN_PIXELS:
        raise ValueError(
            f"{first.name}: mask and normals of unit length leave {mask.sum()} pixels;"
            f" {MIN_PIXELS} needed"
        )
    normal = stored / np.maximum(length, 1e-6)[..., None]
    frame = settle_frame(pictures, normal, mask)
    light = from_sfsnet(torch.from_numpy(np.stack([p.light for p in pictures])))
    turn = torch.from_numpy(frame.normal @ frame.light.T)
    ahead = np.array((0, 0, 1), np.float32)
    return Portrait(
        key=key,
        subject=view.identity,
        image=np.stack([p.image for p in pictures]),
        light_name=tuple(p.name for p in pictures),
        provenance=_provenance(frame, first, note),
        albedo=_unit(first.albedo),
        normal=np.where(mask[..., None], normal @ frame.normal.T.astype(np.float32), ahead),
        mask=mask,
        sh=rotate(light, turn).float().numpy(),
    )


def _provenance(frame: Frame, first: Picture, note: str) -> Provenance:
    notes = [f"{kind_of(first.image)}, as released"]
    if (frame.normal != np.eye(3)).any():
        notes.append(f"normals turned by {frame.normal.astype(int).tolist()}")
    if (frame.light != frame.normal).any():
        notes.append(f"lights turned by {(frame.normal @ frame.light.T).astype(int).tolist()}")
    if frame.error > NOTED_ERROR:
        notes.append(f"image - albedo * shading is {frame.error:.3f} of 1 in the mean")
    return Provenance(
        source="SfSNet synthetic set",
        licence="research only, on request from the authors; no redistribution; cite Sengupta 2018",
        crop="; ".join([*notes, note] if note else notes),
        transfer="linear",
        albedo="real",
        normal="real",
        light="real",
    )


def _read_picture(view: View, light: str) -> Picture:
    parts = {
        part: read_picture(view.file(part, light))
        for part in ("face", "albedo", "normal", *view.optional)
    }
    face = parts["face"]
    for part, pixels in parts.items():
        file = view.file(part, light)
        if pixels.shape[:2] != face.shape[:2]:
            raise ValueError(f"{file}: is {kind_of(pixels)}, its face {kind_of(face)}")
        if part in ("albedo", "normal") and pixels.shape[2] != 3:
            raise ValueError(f"{file}: is {kind_of(pixels)}; RGB needed")
    return Picture(
        name=f"{view.identity}_{view.view}_{light}",
        image=face,
        albedo=parts["albedo"],
        normal=parts["normal"],
        light=read_numbers(view.file("light", light), 27).reshape(3, 9),
        mask=parts.get("mask"),
        depth=parts.get("depth"),
    )


def _unit(stored: Integer[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Stored integers as numbers in [0, 1]; the set's values are proportional to light."""
    return stored / np.float32(np.iinfo(stored.dtype).max)
