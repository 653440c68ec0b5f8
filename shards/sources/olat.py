"""Source `olat`: one-light-at-a-time stacks of a light stage, and portraits relit from them.

    ROOT/anna/0001.png ..., lights.csv          one stack; every picture is one lamp
    ROOT/ben/smile/01.exr ..., ROOT/ben/calm/   several stacks of one subject
    ROOT/lights.txt                             the table, where all stacks have the same lamps

The pictures of a stack show the same pose and expression at the same exposure, with nothing lit
but the lamp; subtract an ambient picture before, and keep it elsewhere. They are PNG, TIFF, JPEG,
BMP, PGM or PPM of 8 or 16 bits, or .exr, .hdr or TIFF in floating point (linear radiance). Optional
beside them: mask.png, white on the portrait.

The table is the nearest of lights.csv, lights.txt, lights.json, light_directions.txt (with
filenames.txt and light_intensities.txt) or one *.lp, beside the pictures or in a folder above up to
ROOT, or what --lights names. Its lines are one of

    x y z                     in the order of the pictures' names (1, 2, 10)
    0001.png x y z            likewise an .lp file, which begins with the count
    file,x,y,z,strength       with this first line; index in place of file; azimuth, elevation (in
                              degrees, toward the picture's right and up) in place of x, y, z; red,
                              green, blue in place of strength

and lights.json is [{"file": "0001.png", "direction": [x, y, z], "strength": 1.0}, ...]. Each
picture has a line and each line a picture. Directions point to the lamp, with any length.

What a stack gives, by --groups:

    olat    the pictures themselves, each with its lamp's direction, as the portrait KEY_olat
    relit   --relit pictures as in environments, as the portrait KEY_relit: sums over the lamps of
            weight * picture in linear light, the weight being the power that an environment, turned
            at random about the vertical, sends from the lamp's part of the sphere
    both    both

Labels. Normals and albedo come from photometric stereo (Lambert's law, robust to shadows and
highlights), with its confidence; at least 4 lamps that are not in one plane. A lamp of strength s
is the light exposure * s * directional_light(direction). Pictures alone cannot tell a bright skin
from a bright lamp: unless --exposure is given, the brightest percent of each stack's surface gets
the albedo 0.8, whoever it is. A relit picture's light is what the lamps emit, balanced as a camera
would but not to the end, and exposed so that a part in a thousand of the picture clips. Labels of
both are 'real': measured.

Memory while a stack is read, for each pixel and lamp in RGB: 8 bytes with 8 bits, 11 with 16, 18
with floating point, and some 200 bytes for each pixel. 156 lamps of 4096x3000 in floating point are
37 GB; with --size 1024 they are 2.4 GB, and only one picture at a time is whole.

Traps. Tables in another frame than +x right, +y up, +z to the camera: say --axes x,-y,-z or the
like; directions that the pictures contradict are refused, with the axes that would fit. Lights in
another order than the pictures are refused too. 16-bit PNG and TIFF are often linear: say
--transfer linear. Raw photographs (DNG, CR2, NEF) are not read: develop them linear, 16 bits.
Stages with lamps on one side of the sphere cannot show light from elsewhere, which is left out.

Stacks are had from whoever runs the stage (the light stages of USC ICT are the best known), or made
with a dome of lamps or one lamp carried around; the DiLiGenT benchmark of photometric stereo, of
objects, has this layout. Terms are the owner's: say them in --licence.
"""

import hashlib
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from relightx.color import LUMINANCE, from_integer, to_srgb8
from relightx.picture import read_picture
from relightx.sample import MAX_LIGHTS, MAX_SIDE_PX, Portrait, Provenance
from relightx.sh import directional_light, dominant_direction
from shards.group import Group, faulty, key_of
from shards.layouts.light_tables import Lamp, axes_matrix, find_table, natural_order, read_lamps
from shards.layouts.relighting import (
    emitted_light,
    environment,
    environment_names,
    lamp_power,
    white_balance,
)
from shards.layouts.stack import Stack, averaged, read_stack, to_uint16
from shards.layouts.stack_labels import label

PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm"),
    *(".exr", ".hdr"),
)
MASK = "mask.png"
CLIPPED_SHARE = 0.001
"""Share of a relit portrait's pixels that clip."""
MIN_SIZE = 16


class Recipe(NamedTuple):
    """What is made of every stack: the options of the source."""

    groups: tuple[str, ...]
    relit: int
    environments: Path | None
    seed: int
    transfer: str
    size: int | None
    exposure: float | None
    axes: str
    source: str
    licence: str


class StackFiles(NamedTuple):
    """Where a stack lies, before any of its files is read."""

    key: str
    subject: str
    directory: Path
    table: Path


def olat(
    root: Path,
    *,
    groups: Literal["olat", "relit", "both"] = "both",
    relit: int = 8,
    environments: Path | None = None,
    seed: int = 0,
    lights: Path | None = None,
    axes: str = "x,y,z",
    transfer: Literal["srgb", "linear"] = "srgb",
    size: int | None = None,
    exposure: float | None = None,
    licence: str = "not stated",
) -> Iterator[Group]:
    """The stacks under `root`, in the order of their folders' names.

    Raises ValueError for a root without folders, a table or maps that are not there, and options
    out of range.

    Args:
        groups: what is made of each stack
        relit: relit pictures of each stack
        environments: folder of .hdr or .exr maps, instead of those shipped (second order only)
        seed: of the choice of maps and their turns
        lights: table of light directions for all stacks
        axes: our x (right), y (up), z (to the camera) in terms of the table's axes
        transfer: transfer function of pictures of 8 and 16 bits; floating point is linear
        size: longest side in px that pictures are made smaller to
        exposure: value of a white surface that faces a lamp of strength 1, full scale being 1 (or
            in the units of floating point), the same for all stacks
        licence: terms of the pictures
    """
    chosen = ("olat", "relit") if groups == "both" else (groups,)
    made = Recipe(
        chosen, relit, environments, seed, transfer, size, exposure, axes, root.name, licence
    )
    _check(made, root, lights)
    for subject in _folders(root):
        inside = _entries(subject)
        nested = [entry for entry in inside if entry.is_dir()]
        if nested and not any(_is_picture(entry) for entry in inside):
            for directory in nested:
                key = key_of(subject.name, directory.name)
                yield _found(key, directory, (subject, root), lights, made)
        else:
            yield _found(key_of(subject.name), subject, (root,), lights, made)


def read_group(files: StackFiles, made: Recipe) -> Portrait | list[Portrait]:
    """The portraits of a stack; raises ValueError naming the file at fault."""
    pictures = _pictures(files.directory)
    axes = axes_matrix(made.axes)
    lamps = read_lamps(files.table, [file.name for file in pictures], axes)
    stack = read_stack(pictures, made.transfer, made.size)
    strength = np.array([lamp.strength for lamp in lamps], np.float32)
    if stack.image.shape[3] == 1:
        strength = np.repeat(strength @ np.array(LUMINANCE, np.float32)[:, None], 3, axis=1)
    direction = np.array([lamp.direction for lamp in lamps], np.float32)
    mask = _read_mask(files.directory / MASK, stack)
    try:
        labels = label(stack, direction, strength, mask, made.exposure, axes)
    except ValueError as error:
        raise ValueError(f"{files.directory}, {files.table.name}: {error}") from None
    common = {
        "subject": files.subject,
        "albedo": labels.albedo,
        "normal": labels.normal,
        "mask": mask,
        "confidence": labels.confidence,
    }
    portraits = []
    if "olat" in made.groups:
        portraits.append(_olat(files, made, lamps, stack, strength * labels.exposure, common))
    if "relit" in made.groups:
        portraits.append(_relit(files, made, direction, stack, strength * labels.exposure, common))
    return portraits[0] if len(portraits) == 1 else portraits


def _olat(
    files: StackFiles,
    made: Recipe,
    lamps: tuple[Lamp, ...],
    stack: Stack,
    strength: Float[np.ndarray, "lights 3"],
    common: dict[str, Any],
) -> Portrait:
    direction = np.array([lamp.direction for lamp in lamps], np.float32)
    single = directional_light(torch.from_numpy(direction)).numpy()
    return Portrait(
        key=_portrait_key(files.key, "olat"),
        image=stack.image,
        light_name=tuple(Path(lamp.file).stem for lamp in lamps),
        provenance=_provenance(made, stack, "", stack.transfer),
        sh=strength[:, :, None] * single[:, None],
        direction=direction,
        **common,
    )


def _relit(
    files: StackFiles,
    made: Recipe,
    direction: Float[np.ndarray, "lights 3"],
    stack: Stack,
    strength: Float[np.ndarray, "lights 3"],
    common: dict[str, Any],
) -> Portrait:
    chosen = _chosen_environments(files.key, made)
    power = np.stack(
        [lamp_power(environment(made.environments, name), direction, turn) for name, turn in chosen]
    )
    power *= white_balance(power, direction)
    image = _weighted(stack, power / (np.pi * strength))
    inside = image if common["mask"] is None else image[:, common["mask"]]
    brightest = inside.max(axis=-1).reshape(len(image), -1)
    gain = 1 / np.maximum(np.quantile(brightest, 1 - CLIPPED_SHARE, axis=1), 1e-6)
    gain = gain[:, None, None].astype(np.float32)
    image *= gain[..., None]
    sh = np.stack([emitted_light(lit, direction) for lit in power * gain])
    few_bits = stack.image.dtype == np.uint8
    return Portrait(
        key=_portrait_key(files.key, "relit"),
        image=to_srgb8(image) if few_bits else to_uint16(image),
        light_name=tuple(f"{Path(name).stem} turned {turn}" for name, turn in chosen),
        provenance=_provenance(
            made,
            stack,
            f"relit: sums of the pictures of {len(direction)} lamps",
            "srgb" if few_bits else "linear",
        ),
        sh=sh,
        direction=dominant_direction(torch.from_numpy(sh)).numpy(),
        **common,
    )


def _weighted(
    stack: Stack, weight: Float[np.ndarray, "relit lights 3"]
) -> Float[np.ndarray, "relit height width 3"]:
    """Sums over the lamps of weight * picture, in linear light."""
    image = np.zeros((len(weight), *stack.image.shape[1:3], 3), np.float32)
    for index, picture in enumerate(stack.linear()):
        for relit, of_lamps in zip(image, weight, strict=True):
            relit += picture * of_lamps[index].astype(np.float32)
    return image


def _chosen_environments(key: str, made: Recipe) -> list[tuple[str, int]]:
    """Name of a map and turn in degrees of each relit picture; no map twice before all were once.

    They depend on the group's key, and on no other group.
    """
    digest = hashlib.sha256(key.encode()).digest()
    rng = np.random.default_rng([made.seed, int.from_bytes(digest[:8], "big")])
    names = environment_names(made.environments)
    rounds = -(-made.relit // len(names))
    order = [names[index] for _ in range(rounds) for index in rng.permutation(len(names))]
    return [(name, int(rng.integers(360))) for name in order[: made.relit]]


def _provenance(made: Recipe, stack: Stack, how: str, transfer: str) -> Provenance:
    width, height = stack.source_size
    shape = stack.image.shape[1:3]
    affine = None
    notes = [how] if how else []
    if shape != (height, width):
        notes.append(f"{width}x{height} made {shape[1]}x{shape[0]} by averaging linear light")
        affine = ((shape[1] / width, 0.0, 0.0), (0.0, shape[0] / height, 0.0))
    if stack.white is not None:
        notes.append(f"radiance {stack.white:.6g} of the pictures stored as 1")
    return Provenance(
        source=made.source,
        licence=made.licence,
        crop="; ".join(notes) or "as given",
        transfer=transfer,
        albedo="real",
        normal="real",
        light="real",
        affine=affine,
        source_size=None if affine is None else (width, height),
    )


def _read_mask(file: Path, stack: Stack) -> Bool[np.ndarray, "height width"] | None:
    if not file.exists():
        return None
    picture = read_picture(file)
    height, width = picture.shape[:2]
    if (width, height) != stack.source_size:
        expected = "{}x{}".format(*stack.source_size)
        raise ValueError(f"{file}: is {width}x{height}, the pictures are {expected}")
    share = from_integer(picture, "linear").mean(axis=-1, keepdims=True)
    mask = averaged(share, (*stack.image.shape[1:3], 1))[..., 0] > 0.5
    if not mask.any():
        raise ValueError(f"{file}: is black throughout; a mask is white on the portrait")
    return mask


def _found(
    key: str, directory: Path, above: tuple[Path, ...], lights: Path | None, made: Recipe
) -> Group:
    """The group of a stack whose subject's folder is the first one above ROOT."""
    subject = (directory, *above)[-2].name
    # A group of one portrait has its key.
    group_key = _portrait_key(key, made.groups[0]) if len(made.groups) == 1 else key
    try:
        count = len(_pictures(directory))
        table = lights or find_table((directory, *above))
    except ValueError as error:
        return faulty(group_key, subject, str(error))
    total = count * ("olat" in made.groups) + made.relit * ("relit" in made.groups)
    files = StackFiles(key, subject, directory, table)
    return Group(group_key, subject, total, partial(read_group, files, made))


def _portrait_key(key: str, kind: str) -> str:
    return f"{key}_{kind}"


def _pictures(directory: Path) -> list[Path]:
    """The pictures of a stack in natural order; ValueError for what a stack may not hold."""
    entries = _entries(directory)
    for entry in entries:
        if entry.is_dir():
            raise ValueError(f"{entry}: a folder among pictures; a stack holds pictures alone")
    pictures = [entry for entry in entries if _is_picture(entry)]
    if not pictures:
        raise ValueError(
            f"{directory}: has no pictures; one for each lamp is needed, of"
            f" {', '.join(PICTURE_SUFFIXES)}"
        )
    if len(pictures) > MAX_LIGHTS:
        raise ValueError(f"{directory}: has {len(pictures)} pictures; {MAX_LIGHTS} lamps at most")
    return sorted(pictures, key=lambda file: natural_order(file.name))


def _is_picture(entry: Path) -> bool:
    return entry.suffix.lower() in PICTURE_SUFFIXES and entry.name != MASK


def _entries(directory: Path) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))


def _folders(root: Path) -> list[Path]:
    folders = [entry for entry in _entries(root) if entry.is_dir()]
    if not folders:
        raise ValueError(f"{root}: holds no folders; one for each subject is needed")
    return folders


def _check(made: Recipe, root: Path, lights: Path | None) -> None:
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; a folder with one folder per subject is needed")
    axes_matrix(made.axes)
    if lights is not None and not lights.is_file():
        raise ValueError(f"{lights}: no such file; a table of light directions is needed")
    if not 1 <= made.relit <= MAX_LIGHTS:
        raise ValueError(f"relit is {made.relit}; 1 to {MAX_LIGHTS} pictures of a stack are made")
    if made.seed < 0:
        raise ValueError(f"seed is {made.seed}; 0 or more needed")
    if made.size is not None and not MIN_SIZE <= made.size <= MAX_SIDE_PX:
        raise ValueError(f"size is {made.size} px; {MIN_SIZE} to {MAX_SIDE_PX} needed")
    if made.exposure is not None and not (made.exposure > 0 and math.isfinite(made.exposure)):
        raise ValueError(f"exposure is {made.exposure}; a positive number needed")
    environment_names(made.environments)
