"""Heads of the ICT face model (Li et al. 2020): 100 modes of identity from scans in a light stage.

Users bring the model: the folder FaceXModel of ICT-FaceKit (MIT licence), or an .npz with `neutral`
(vertices), `faces` (quads), `identity_modes`, `expression_modes` (offsets) and `expression_names`.
It has shapes alone. Colour, hair and gloss are those of MakeHuman's heads, by template places: once
the eyes agree, the two heads differ by millimetres, and that is mended here.

The model's unit is a centimetre, its frame MakeHuman's.
"""

import functools
import zipfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Integer

from shards.rendering.heads import Person
from shards.rendering.skin import EYE_CENTRE, EYE_RADIUS
from shards.rendering.surface import Surface, chin_and_hairline, makehuman_surface

LICENCE = "MIT (ICT-FaceKit)"
_NUM_VERTICES, _IDENTITIES, _LARGEST_BYTES = 26719, 100, 1 << 28
# Parts of the model, first and last + 1, as its README numbers them.
_SHELL_QUADS = (0, 14034)  # face, head and neck, sockets of mouth and eyes
_EYE_QUADS = ((21496, 22296), (23094, 23894))  # scleras, whose clear front is drawn as an iris
_EYE_VERTICES = ((21451, 22221), (23021, 23791))
_MOUTH_SOCKET = slice(11248, 13294)
_FACE = slice(0, 9409)
_LIPS = (5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841)  # outline
# From the model's heights to MakeHuman's, once the eyes agree: chin, lips, nose, eyes.
_HEIGHTS = (
    (6.166, 6.486, 6.571, 6.675, 6.76, 6.94, 7.28),
    (6.17, 6.494, 6.605, 6.7185, 6.76, 6.93, 7.28),
)
_WIDTHS = ((0.0, 0.6, 0.92), (0.0, 0.59, 0.875))  # its ears stand off farther
_NOSE, _NOSE_RADIUS, _NOSE_LENGTH = np.array([0.0, 6.95]), 0.25, 0.07
_MODEL_EYE_RADIUS, _LIDS = 0.155, 0.27
_LARGEST_WEIGHT = 2.2  # of an identity mode, in standard deviations
_EXPRESSIONS = {  # largest weights; {} is a side
    "browInnerUp_{}": 0.5,
    "browDown_{}": 0.5,
    "browOuterUp_{}": 0.5,
    "eyeBlink_{}": 0.3,
    "eyeSquint_{}": 0.5,
    "eyeWide_{}": 0.4,
    "cheekSquint_{}": 0.4,
    "mouthSmile_{}": 0.6,
    "mouthFrown_{}": 0.4,
    "mouthPress_{}": 0.4,
    "mouthDimple_{}": 0.4,
    "mouthPucker": 0.3,
    "mouthRollLower": 0.25,
    "mouthShrugLower": 0.25,
    "noseSneer_{}": 0.3,
}


class Model(NamedTuple):
    """The face model in decimetres. names: of its modes, identities before expressions."""

    neutral: Float[np.ndarray, "vertices 3"]
    quads: Integer[np.ndarray, "quads 4"]
    modes: Float[np.ndarray, "modes vertices_by_3"]
    names: tuple[str, ...]


def random_features(rng: np.random.Generator) -> dict[str, float]:
    """Weights of the modes: identities as the scans spread, and a mild expression, half of the
    time hardly any."""
    drawn = np.clip(rng.normal(0, 1, _IDENTITIES), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
    chosen = {f"identity{number:03d}": float(weight) for number, weight in enumerate(drawn)}
    strength = float(rng.choice([0.15, 1.0]))
    for name, largest in _EXPRESSIONS.items():
        weight = strength * largest * float(rng.beta(0.5, 2.0))
        for side in ("L", "R") if "{}" in name else ("",):
            chosen[name.format(side)] = weight * float(rng.uniform(0.85, 1.15))
    return chosen


@functools.cache
def ict_surface(file: Path) -> Surface:
    """The model's kind of head, read once for each process (0.3 s; a folder, some seconds).

    Raises ValueError for a file that is not the model.
    """
    model = read_model(file)
    used, quads = _shown(model.quads)
    template, weights = _template(model.neutral)[used], _weights(model.neutral)[used]
    weights[:, 1] = _ears(template)
    triangles = quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    whole = (triangles != np.roll(triangles, 1, axis=1)).all(axis=1)
    num_shell = 2 * (_SHELL_QUADS[1] - _SHELL_QUADS[0])
    chin, hairline = chin_and_hairline(template)
    place = {name: number for number, name in enumerate(model.names)}
    neutral = model.neutral[used]
    modes = model.modes.reshape(len(model.modes), -1, 3)[:, used].reshape(len(model.modes), -1)

    def vertices_of(person: Person) -> np.ndarray:
        numbers = [place[name] for name in person.features]
        weight = np.array(list(person.features.values()), np.float32)
        # Not @: BLAS rounds differently with another number of threads.
        return neutral + np.einsum("m,mv->v", weight, modes[numbers]).reshape(-1, 3)

    return Surface(
        vertices_of,
        triangles[whole],
        template.astype(np.float32),
        weights.astype(np.float32),
        first_eye=int(whole[:num_shell].sum()),
        chin=chin,
        hairline=hairline,
        uv=np.zeros_like(template, np.float32),
    )


def read_model(file: Path) -> Model:
    """The model of a folder FaceXModel or of an .npz. Raises ValueError for anything else."""
    try:
        found = _from_folder(file) if file.is_dir() else _from_arrays(file)
    except (OSError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file}: not the ICT face model: {error}. Give the folder FaceXModel of ICT-FaceKit,"
            " or an .npz of its arrays"
        ) from None
    neutral, quads, identities, expressions, names = found
    if neutral.shape != (_NUM_VERTICES, 3) or identities.shape[:2] != (_IDENTITIES, _NUM_VERTICES):
        raise ValueError(
            f"{file}: {len(neutral)} vertices and {len(identities)} identities, the ICT face model"
            f" has {_NUM_VERTICES} and {_IDENTITIES}"
        )
    names = tuple(f"identity{number:03d}" for number in range(_IDENTITIES)) + tuple(names)
    missing = set(random_features(np.random.default_rng(0))) - set(names)
    if missing:
        raise ValueError(f"{file}: no expression {', '.join(sorted(missing))}")
    modes = np.concatenate((identities, expressions)).reshape(len(names), -1)
    eye = (neutral[_EYE_VERTICES[0][0] : _EYE_VERTICES[0][1]]).astype(np.float64) / 10
    moved = EYE_CENTRE - (eye.min(axis=0) + eye.max(axis=0)) / 2
    moved[0] = 0
    places = (neutral / 10 + moved).astype(np.float32)
    return Model(places, quads.astype(np.int64), modes.astype(np.float32) / 10, names)


def _from_arrays(file: Path) -> tuple[np.ndarray, ...]:
    if file.stat().st_size > _LARGEST_BYTES:
        raise ValueError(f"{file.stat().st_size} bytes, at most {_LARGEST_BYTES} are read")
    names = ("neutral", "faces", "identity_modes", "expression_modes", "expression_names")
    with np.load(file, allow_pickle=False) as arrays:
        return tuple(arrays[name] for name in names)


def _from_folder(folder: Path) -> tuple[np.ndarray, ...]:
    neutral = _obj_vertices(folder / "generic_neutral_mesh.obj")
    quads = _obj_quads(folder / "generic_neutral_mesh.obj")
    files = [folder / f"identity{number:03d}.obj" for number in range(_IDENTITIES)]
    names = sorted(
        name.format(side) for name in _EXPRESSIONS for side in (("L", "R") if "{}" in name else "-")
    )
    files += [folder / f"{name}.obj" for name in names]
    modes = np.stack([_obj_vertices(file) - neutral for file in files])
    return neutral, quads, modes[:_IDENTITIES], modes[_IDENTITIES:], np.array(names)


def _obj_vertices(file: Path) -> Float[np.ndarray, "vertices 3"]:
    with open(file, encoding="utf-8") as lines:
        return np.loadtxt((line for line in lines if line.startswith("v ")), usecols=(1, 2, 3))


def _obj_quads(file: Path) -> Integer[np.ndarray, "quads 4"]:
    """A triangle has its last corner twice."""
    with open(file, encoding="utf-8") as lines:
        rows = [line.split()[1:] for line in lines if line.startswith("f ")]
    corners = [[int(corner.split("/")[0]) - 1 for corner in row] for row in rows]
    return np.array([(row + row[-1:])[:4] for row in corners], np.int64)


def _shown(
    quads: Integer[np.ndarray, "quads 4"],
) -> tuple[Integer[np.ndarray, "vertices"], Integer[np.ndarray, "some 4"]]:
    """The model's numbers of the vertices that are used, and the quads by their new ones."""
    shown = np.concatenate([quads[a:b] for a, b in (_SHELL_QUADS, *_EYE_QUADS)])
    used, numbers = np.unique(shown, return_inverse=True)
    return used, numbers.reshape(-1, 4)


def _template(neutral: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
    place = neutral.astype(np.float64)
    x, y, z = place.T.copy()
    near_nose = np.exp(-(np.hypot(x - _NOSE[0], y - _NOSE[1]) ** 2) / _NOSE_RADIUS**2)
    place[:, 2] = z - _NOSE_LENGTH * near_nose
    heights, wanted = _HEIGHTS
    place[:, 1] = y + np.interp(y, heights, np.subtract(wanted, heights))
    widths, wanted = _WIDTHS
    place[:, 0] = x + np.sign(x) * np.interp(np.abs(x), widths, np.subtract(wanted, widths))
    for side in (1, -1):
        centre = EYE_CENTRE * (side, 1, 1)
        away = neutral - centre
        near = np.exp(-((np.linalg.norm(away, axis=1, keepdims=True) / _LIDS) ** 4))
        lids = centre + away * (EYE_RADIUS / _MODEL_EYE_RADIUS)
        place += near * (lids - place)
    for (first, end), side in zip(_EYE_VERTICES, (1, -1), strict=True):
        centre = EYE_CENTRE * (side, 1, 1)
        away = neutral[first:end] - centre
        place[first:end] = centre + away * EYE_RADIUS / np.linalg.norm(away, axis=1, keepdims=True)
    return place.astype(np.float32)


def _weights(neutral: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices 3"]:
    """Lips and mouth cavity; those of the ears are MakeHuman's."""
    weights = np.zeros((len(neutral), 3), np.float32)
    outline = np.ascontiguousarray(neutral[list(_LIPS), :2], np.float32)
    inside = [
        cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y, _ in neutral[_FACE]
    ]
    weights[_FACE, 0] = np.clip(0.5 + np.array(inside) / 0.03, 0, 1) * (neutral[_FACE, 2] > 1.3)
    weights[_MOUTH_SOCKET, 2] = 1
    return weights


def _ears(template: Float[np.ndarray, "vertices 3"]) -> Float[np.ndarray, "vertices"]:
    """The weight of the next of MakeHuman's vertices."""
    known = makehuman_surface()
    beside = np.flatnonzero(np.abs(known.template[:, 0]) > 0.6)
    weights = np.zeros(len(template), np.float32)
    for vertex in np.flatnonzero(np.abs(template[:, 0]) > 0.65):
        apart = ((known.template[beside] - template[vertex]) ** 2).sum(axis=1)
        weights[vertex] = known.weights[beside[np.argmin(apart)], 1]
    return weights
