"""Source `dpr`: the DPR set, CelebA-HQ faces relit by ratio images, five lights a face.

    ROOT/imgHQ00000/imgHQ00000_00.png ... _04.png               8-bit colour, 1024x1024
    ROOT/imgHQ00000/imgHQ00000_light_00.txt ... _light_04.txt   9 numbers
    ROOT/imgHQ00000/full_normal.png                             optional; or by its longer name,
                        full_normal_faceRegion_faceBoundary_extend.png

27,627 faces, 138,135 pictures. The set is linked from the page of "Deep Single-Image Portrait
Relighting", Zhou et al. 2019 (zhhoper.github.io/dpr.html; ask the authors when the link is dead);
for research only, and under CelebA-HQ's terms. The layout is that of the authors' rendering code
(zhhoper/RI_render_DPR) and of programs that read the set. Its other files (shading_, sphere_,
ori_, _log.txt, the photograph itself) are passed over.

What the pictures are: L of Lab, as OpenCV has it, was multiplied with new shading / old shading; a
and b were kept. So L = albedo * shading holds in L, which is about the cube root of light, and in
nothing else:

- `--store colour` (default) stores the pictures as released. Their light label is the light that
  shades like the published one after L is brought to linear light, for skin of L = 65. For skin
  from L = 40 to 80 it is 1 to 4 % off, the published numbers would be 8 to 20 % off (two of the
  set's lights). It is 'pseudo'.
- `--store luminance` stores L alone, gray, as if it were proportional to light. Then the published
  lights are exact but for rounding and clipped colours, and they are 'real'.

The 9 numbers are gray, in DPR's order and frame (relightx.sh.from_dpr). Highlights, cast shadows
and errors of the old shading stay in the pictures and move with no light.

Normals, where they are beside the pictures, were fitted to the face (3DDFA, then warped) and filled
in up to the border, so they are 'pseudo'. The file has z, y, x in R, G, B, with y down and z into
the scene; that L / shading is the same under all lights is tested, and a face for which it is not
within 5 % is refused (`--no-normals` reads no normals).

A person may have several faces. Give `--identities` and `--mapping` (tables of CelebA and of
CelebA-HQ, whose numbers these are) or the splits will share people; without them each face is a
subject.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8

from relightx.picture import read_picture
from relightx.sample import Portrait, Provenance
from relightx.sh import from_dpr, shade
from shards.group import Group, faulty, key_of
from shards.layouts.celeba_tables import read_people
from shards.layouts.frames import kind_of, read_frames
from shards.layouts.numbers import read_numbers

Store = Literal["colour", "luminance"]
NORMAL_NAMES = ("full_normal.png", "full_normal_faceRegion_faceBoundary_extend.png")
SKIN_LIGHTNESS = 0.65
"""L of skin, of 1, for which a light in L is brought to linear light."""
MAX_SPREAD = 0.05
"""How far, relative, L / shading may differ between lights when the normals are right."""

_FACE = re.compile(r"imgHQ(\d{5})")
_FILE = re.compile(r"(imgHQ\d{5})_(?:(\d\d)\.png|light_(\d\d)\.txt)")


class Face(NamedTuple):
    """One face and the lights whose picture and numbers are there."""

    key: str
    subject: str
    directory: Path
    lights: tuple[str, ...]
    normal: str | None
    store: Store
    left_out: str


def dpr(
    root: Path,
    *,
    store: Store = "colour",
    normals: bool = True,
    identities: Path | None = None,
    mapping: Path | None = None,
) -> Iterator[Group]:
    """The faces under `root` by number.

    Raises ValueError for a root without faces and for tables that are broken.

    Args:
        store: 'colour' keeps the pictures as released, 'luminance' their L alone, in which the
            published lights are exact
        normals: read the normals where they are
        identities: identity_CelebA.txt
        mapping: CelebA-HQ-to-CelebA-mapping.txt
    """
    needed = "the folder that holds imgHQ00000, imgHQ00001, ... is needed"
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; {needed}")
    if (identities is None) != (mapping is None):
        raise ValueError("identities and mapping are needed together: neither tells a person alone")
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if _FACE.fullmatch(entry.name))
    if not names:
        raise ValueError(f"{root}: no faces in it; {needed}")
    people = read_people(identities, mapping)
    for name in names:
        subject = people.of_hq(int(name.removeprefix("imgHQ")))
        yield _found(root / name, subject, store, normals)


def _found(directory: Path, subject: str, store: Store, normals: bool) -> Group:
    key = key_of("dpr", directory.name)
    try:
        held = set(os.listdir(directory))
    except OSError as error:
        return faulty(key, subject, f"{directory}: cannot be listed: {error.strerror}")
    files = [f for f in map(_FILE.fullmatch, held) if f and f[1] == directory.name]
    pictures, numbers = {f[2] for f in files if f[2]}, {f[3] for f in files if f[3]}
    lights = sorted(pictures & numbers)
    if not lights:
        fault = f"no picture such as {directory.name}_00.png with its {directory.name}_light_00.txt"
        return faulty(key, subject, f"{directory}: holds {fault}")
    normal = next((name for name in NORMAL_NAMES if normals and name in held), None)
    left_out = ", ".join(
        f"{light} without its {'light' if light in pictures else 'picture'}"
        for light in sorted(pictures ^ numbers)
    )
    face = Face(key, subject, directory, tuple(lights), normal, store, left_out)
    return Group(key, subject, len(lights), partial(read_face, face))


def read_face(face: Face) -> Portrait:
    """Read a face; raises ValueError naming the file that is broken, of another kind or wrong."""
    stem = face.directory / face.directory.name
    image = read_frames([Path(f"{stem}_{light}.png") for light in face.lights])
    if image.shape[3] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{stem}_{face.lights[0]}.png: is {kind_of(image[0])}; 8-bit RGB needed")
    numbers = np.stack(
        [read_numbers(Path(f"{stem}_light_{light}.txt"), 9) for light in face.lights]
    )
    sh = from_dpr(torch.from_numpy(numbers).double())
    normal = None
    if face.normal is not None:
        normal = _read_normal(face.directory / face.normal, image.shape[1:3])
        _check_normal(face.directory / face.normal, normal, lightness(image), sh)
    in_luminance = face.store == "luminance"
    stored = lightness(image) if in_luminance else image
    gray = sh if in_luminance else in_linear_light(sh, SKIN_LIGHTNESS)
    return Portrait(
        key=face.key,
        subject=face.subject,
        image=stored,
        light_name=face.lights,
        provenance=_provenance(face, image, in_luminance),
        normal=normal,
        sh=gray[:, None].expand(-1, 3, -1).float().numpy(),
    )


def lightness(
    image: UInt8[np.ndarray, "lights height width 3"],
) -> UInt8[np.ndarray, "lights height width 1"]:
    """L of Lab, 255 for white, by the function with which the set was made."""
    return np.stack([cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., :1] for rgb in image])


def in_linear_light(
    sh: Float[torch.Tensor, "lights 9"], level: float
) -> Float[torch.Tensor, "lights 9"]:
    """The light that shades in linear light as `sh` shades L, for a surface of a level of L.

    Least squares over the normals that a camera sees. level: L, of 1, of the surface shaded to 1.
    """
    place = torch.linspace(-0.95, 0.95, 39, dtype=torch.float64)
    x, y = (axis.flatten() for axis in torch.meshgrid(place, place, indexing="ij"))
    inside = x * x + y * y < 0.95
    x, y = x[inside], y[inside]
    normal = torch.stack((x, y, (1 - x * x - y * y).sqrt()))[..., None]
    shading = shade(normal, sh[:, None].expand(-1, 3, -1))[:, 0, :, 0]
    linear = _luminance(level * shading.clamp(min=0)) / _luminance(torch.tensor(level))
    each = shade(normal, torch.eye(9, dtype=torch.float64)[:, None].expand(-1, 3, -1))[:, 0, :, 0]
    return torch.linalg.lstsq(each.T, linear.T).solution.T


def _luminance(level: Float[torch.Tensor, "*batch"]) -> Float[torch.Tensor, "*batch"]:
    """Linear luminance of L, both of 1 (CIE 1976)."""
    knee = 8 / 100
    return torch.where(level > knee, ((level * 100 + 16) / 116) ** 3, level * 100 / 903.3)


def _read_normal(file: Path, size: tuple[int, int]) -> Float[np.ndarray, "height width 3"]:
    """Unit normals in our frame."""
    stored = read_picture(file)
    if stored.shape != (*size, 3):
        raise ValueError(f"{file}: is {kind_of(stored)}, the pictures are {size[1]}x{size[0]}")
    into, down, right = np.moveaxis(stored / np.float32(np.iinfo(stored.dtype).max) * 2 - 1, -1, 0)
    normal = np.stack((right, -down, -into), axis=-1)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)


def _check_normal(
    file: Path,
    normal: Float[np.ndarray, "height width 3"],
    light: UInt8[np.ndarray, "lights height width 1"],
    sh: Float[torch.Tensor, "lights 9"],
) -> None:
    """Refuse normals whose shading does not explain how L changes with the light."""
    spread = shading_spread(light[..., 0], normal, sh)
    if spread > MAX_SPREAD:
        raise ValueError(
            f"{file}: L / shading differs by {spread:.0%} between the lights, up to"
            f" {MAX_SPREAD:.0%} is accepted: these normals and lights are not those of the"
            " pictures; --no-normals reads the pictures without"
        )


def shading_spread(
    light: Integer[np.ndarray, "lights height width"],
    normal: Float[np.ndarray, "height width 3"],
    sh: Float[torch.Tensor, "lights 9"],
) -> float:
    """Median over the pixels of the relative spread of L / shading over the lights.

    Dark, saturated and grazingly lit pixels are left out; 0 when too few others or one light.
    """
    step = max(1, min(normal.shape[:2]) // 128)
    level = light[:, ::step, ::step] / 255
    thinned = torch.from_numpy(normal[::step, ::step]).permute(2, 0, 1).double()
    shading = shade(thinned, sh[:, None].expand(-1, 3, -1))[:, 0].numpy()
    good = ((level > 0.1) & (level < 0.95) & (shading > 0.1)).all(axis=0)
    if good.sum() < 100 or len(light) < 2:
        return 0.0
    albedo = level[:, good] / shading[:, good]
    return float(np.median(albedo.std(axis=0) / albedo.mean(axis=0)))


def _provenance(
    face: Face, image: UInt8[np.ndarray, "lights height width 3"], in_luminance: bool
) -> Provenance:
    crop = f"{kind_of(image[0])}, as released"
    if in_luminance:
        crop += "; L of Lab, taken as linear"
    if face.left_out:
        crop += f"; left out: {face.left_out}"
    return Provenance(
        source="DPR relit CelebA-HQ",
        licence="research only, under the terms of CelebA-HQ; cite Zhou 2019 and Karras 2018",
        crop=crop,
        transfer="linear" if in_luminance else "srgb",
        normal="absent" if face.normal is None else "pseudo",
        light="real" if in_luminance else "pseudo",
    )
