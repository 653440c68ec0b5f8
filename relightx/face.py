"""Faces in photographs: find one, cut it out as the models know faces, and bring maps back.

The detector and the landmarks are MediaPipe's (face_models/README.md), run by OpenCV.

Positions are in pixels, (column, row) from the upper left corner of the picture: the centre of the
upper left pixel is at (0.5, 0.5). A crop is turned so that the eyes are level. What a model says
about directions in it, normals and light, is in the crop's frame: `turn_to_photograph` brings
them back.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from relightx.color import to_srgb8

MIN_FACE_PX = 40
"""Chin to forehead, below which a photograph shows too little of a face to be worth a crop."""

# How far below the eyes a crop's centre lies, and its side, in face units (`_unit`). The medians of
# 60 synthetic heads are 0.11 and 4.07: so models see photographs as they saw their training.
_CENTRE_BELOW_EYES = 0.1
_CROP_SIDE = 4.0

CROP_RULE = (
    "a square turned so that the eyes are level; its side is"
    f" {_CROP_SIDE} face units and its centre {_CENTRE_BELOW_EYES} below the middle of the eyes,"
    " a face unit being the larger of the distances eye to eye and eyes to mouth"
)
"""What `crop_transform` does, in words for those who get the crop."""
DETECTOR = "MediaPipe BlazeFace (back camera) and face mesh (468 points)"

_MODELS = Path(__file__).parent / "face_models"
_DETECTOR_PX = 256
_LANDMARK_PX = 192
_MIN_SCORE = 0.5
_MIN_PRESENCE = 0.8
_MAX_CANDIDATES = 6
# The detector misses a face that fills the picture; with a margin around it, it does not.
_MARGINS = (0.0, 0.5)
# Faces below this share of what it is shown it misses or places badly; then windows of half the
# side, which overlap by half, are shown to it.
_SMALLEST_SHARE = 0.05
_MAX_LOOKS = 8
_STEPS_PER_PX = 64

# Of the 468 landmarks. The person's right eye comes first: left in an upright photograph.
_EYE_CORNERS = ((33, 133), (362, 263))
_NOSE_TIP = 1
_MOUTH_CORNERS = (61, 291)
# fmt: off
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)

# Outlines of parts, of the points in `Face.mesh`; the person's right comes first.
EYES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
BROWS = (
    (46, 53, 52, 65, 55, 107, 66, 105, 63, 70),
    (276, 283, 282, 295, 285, 336, 296, 334, 293, 300),
)
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)
NOSE = (
    168, 193, 188, 174, 198, 209, 129, 98, 97, 2, 326, 327, 358, 429, 420, 399, 412, 417,
)
# fmt: on


@dataclass(frozen=True)
class Face:
    """One face in a photograph; positions in its pixels.

    box: left, top, right, bottom around the oval.
    landmarks: the person's right eye, left eye, tip of the nose, right and left mouth corner.
    oval: outline from the forehead over the person's left cheek, chin and right cheek.
    score: in [0, 1], how sure it is that this is a face.
    mesh: all points, in MediaPipe's order; None for a face that was not found in a picture.
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    oval: Float[np.ndarray, "36 2"]
    score: float
    mesh: Float[np.ndarray, "468 2"] | None = None

    @property
    def height(self) -> float:
        """Length of the oval from forehead to chin, in pixels."""
        return float(np.linalg.norm(self.oval[18] - self.oval[0]))


def find_face(image: Float[np.ndarray, "height width 3"]) -> Face | None:
    """The largest face in a photograph, or None.

    image: linear RGB in [0, 1].
    """
    return next(iter(find_faces(image)), None)


def find_faces(image: Float[np.ndarray, "height width 3"]) -> list[Face]:
    """The faces in a photograph, the largest (forehead to chin) first.

    Faces turned in the picture by more than 75 degrees, below about a 40th of its longer side, or
    beside much larger ones may be missed. image: linear RGB in [0, 1].
    """
    faces = _sure(image, [place for margin in _MARGINS for place in _detect(image, margin)])
    side = max(image.shape[:2])
    if not faces and _SMALLEST_SHARE * side > MIN_FACE_PX:
        faces = _sure(image, [place for window in _windows(image) for place in window])
    return sorted(faces, key=lambda face: -face.height)


def moved(face: Face, affine: Float[np.ndarray, "2 3"]) -> Face:
    """The face at its place in a crop."""
    oval = _apply(affine, face.oval)
    return Face(
        box=np.concatenate((oval.min(0), oval.max(0))),
        landmarks=_apply(affine, face.landmarks),
        oval=oval,
        score=face.score,
        mesh=None if face.mesh is None else _apply(affine, face.mesh),
    )


def crop_transform(
    face: Face, size: int, min_face_px: int = MIN_FACE_PX
) -> Float[np.ndarray, "2 3"]:
    """The affine map from the photograph to a crop of size x size pixels.

    The crop is square and turned so that the eyes are level; it shows the face from above the
    hairline to below the chin, framed like the synthetic heads. It may reach over the
    photograph's edge. Raises ValueError when the face has fewer than min_face_px pixels from
    forehead to chin.
    """
    if face.height < min_face_px:
        left, top, right, bottom = (round(float(value)) for value in face.box)
        raise ValueError(
            f"the face at columns {left}-{right}, rows {top}-{bottom} is {face.height:.0f} pixels"
            f" high; at least {min_face_px} are needed: use a larger photograph"
        )
    eyes = face.landmarks[:2]
    along = (eyes[1] - eyes[0]) / np.linalg.norm(eyes[1] - eyes[0])
    down = np.array([-along[1], along[0]])
    centre = eyes.mean(0) + _CENTRE_BELOW_EYES * _unit(face.landmarks) * down
    linear = np.stack((along, down)) * (size / (_CROP_SIDE * _unit(face.landmarks)))
    return np.column_stack((linear, size / 2 - linear @ centre))


def crop(
    image: Float[np.ndarray, "height width *channels"],
    affine: Float[np.ndarray, "2 3"],
    size: int,
) -> Float[np.ndarray, "{size} {size} *channels"]:
    """The crop of a photograph; beyond the photograph's edge its last pixels are repeated."""
    return _warp(image, affine, (size, size), cv2.BORDER_REPLICATE)


def uncrop(
    values: Float[np.ndarray, "size size *channels"],
    affine: Float[np.ndarray, "2 3"],
    shape: tuple[int, int],
) -> Float[np.ndarray, "height width *channels"]:
    """A map of a crop at its place in a photograph of this height and width; zero around it.

    Directions stay in the crop's frame: see `turn_to_photograph`.
    """
    size = values.shape[0]
    inverse = cv2.invertAffineTransform(affine)
    corners = _apply(inverse, np.array([(0, 0), (size, 0), (size, size), (0, size)], float))
    left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, shape[::-1])
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int), 0, shape[::-1])
    placed = np.zeros((*shape, *values.shape[2:]), values.dtype)
    if right > left and bottom > top:
        window = inverse - np.array([[0, 0, left], [0, 0, top]])
        part_shape = (int(bottom - top), int(right - left))
        part = _warp(values, window, part_shape, cv2.BORDER_CONSTANT)
        placed[top:bottom, left:right] = part
    return placed


def turn_to_photograph(affine: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation from a crop's frame to its photograph's (+x right, +y up, +z to the camera).

    For normals `normal @ turn.T`; for light `relightx.sh.rotate(sh, turn)`.
    """
    x, y = affine[:, :2] / np.linalg.norm(affine[0, :2])
    # Rows run down and +y up, which turns the sign of the mixed terms.
    return np.array([[x[0], -y[0], 0], [-x[1], y[1], 0], [0, 0, 1]])


def face_mask(face: Face, shape: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    """The face in a photograph of this height and width: 1 inside the oval, 0 outside, soft edge.

    The edge rises from the oval inward, so that no background shines in at the jaw; it is about a
    twentieth of the face's height wide.
    """
    sigma = max(face.height / 40, 0.5)
    reach = math.ceil(3 * sigma) + 1
    low = np.maximum(np.floor(face.oval.min(0)).astype(int) - reach, 0)
    high = np.minimum(np.ceil(face.oval.max(0)).astype(int) + reach, shape[::-1])
    mask = np.zeros(shape, np.float32)
    width, height = high - low
    if width > 0 and height > 0:
        # Painted with room around it, so that the photograph's edge does not soften it.
        region = np.zeros((height + 2 * reach, width + 2 * reach), np.float32)
        points = (face.oval - low + reach - 0.5) * 16
        cv2.fillPoly(region, [np.rint(points).astype(np.int32)], 1.0, cv2.LINE_8, shift=4)
        soft = np.clip(2 * cv2.GaussianBlur(region, (0, 0), sigma) - 1, 0, 1)
        mask[low[1] : high[1], low[0] : high[0]] = soft[reach:-reach, reach:-reach]
    return mask


def _unit(landmarks: Float[np.ndarray, "5 2"]) -> float:
    """Scale of a face: turning it sideways shortens one of these lengths, nodding the other."""
    eyes, mouth = landmarks[:2], landmarks[3:]
    return float(
        max(np.linalg.norm(eyes[1] - eyes[0]), np.linalg.norm(mouth.mean(0) - eyes.mean(0)))
    )


def _apply(
    affine: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "num 2"]
) -> Float[np.ndarray, "num 2"]:
    return points @ affine[:, :2].T + affine[:, 2]


def _warp(
    values: Float[np.ndarray, "height width *channels"],
    affine: Float[np.ndarray, "2 3"],
    shape: tuple[int, int],
    border: int,
) -> Float[np.ndarray, "rows columns *channels"]:
    """The picture under an affine map; where it shrinks, every source pixel counts."""
    zoom = math.sqrt(abs(float(np.linalg.det(affine[:, :2]))))
    finer = max(1, math.ceil(1 / zoom - 1e-6))
    scaled = affine * finer
    # OpenCV counts from the centre of the upper left pixel.
    shifted = np.column_stack((scaled[:, :2], scaled @ (0.5, 0.5, 1) - 0.5))
    size = (shape[1] * finer, shape[0] * finer)
    warped = cv2.warpAffine(values, shifted, size, flags=cv2.INTER_LINEAR, borderMode=border)
    if finer > 1:
        warped = cv2.resize(warped, shape[::-1], interpolation=cv2.INTER_AREA)
    return warped.reshape(*shape, *values.shape[2:])  # OpenCV drops a single channel's axis


def _sure(
    image: Float[np.ndarray, "height width 3"],
    places: list[tuple[float, Float[np.ndarray, "2"], float, float]],
) -> list[Face]:
    """The faces at the likeliest of these places, each once."""
    faces: list[Face] = []
    for _, *place in _apart(places):
        face = _landmarks(image, *place)
        middle = face.oval.mean(0)
        known = any(np.linalg.norm(f.oval.mean(0) - middle) < f.height / 2 for f in faces)
        if face.score >= _MIN_PRESENCE and not known:
            faces.append(face)
    return faces


def _apart(
    places: list[tuple[float, Float[np.ndarray, "2"], float, float]],
) -> list[tuple[float, Float[np.ndarray, "2"], float, float]]:
    """The best places of which none lies inside a better one, best first."""
    kept: list[tuple[float, np.ndarray, float, float]] = []
    for place in sorted(places, key=lambda place: -place[0]):
        if all(np.abs(place[1] - other[1]).max() > other[2] / 2 for other in kept):
            kept.append(place)
    return kept[:_MAX_CANDIDATES]


def _windows(
    image: Float[np.ndarray, "height width 3"],
) -> Iterator[list[tuple[float, Float[np.ndarray, "2"], float, float]]]:
    """What `_detect` finds in windows of half the longer side, in the whole picture's pixels."""
    side = max(image.shape[:2]) // 2
    for top in range(0, max(image.shape[0] - side // 2, 1), side // 2):
        for left in range(0, max(image.shape[1] - side // 2, 1), side // 2):
            window = image[top : top + side, left : left + side]
            found = _detect(window, 0.0)
            yield [(score, np.add(centre, (left, top)), *rest) for score, centre, *rest in found]


def _detect(
    image: Float[np.ndarray, "height width 3"], margin: float
) -> list[tuple[float, Float[np.ndarray, "2"], float, float]]:
    """Score, centre, side and tilt of what looks like faces, best first.

    margin: on each side, as a share of the picture's longer side.
    """
    height, width = image.shape[:2]
    zoom = _DETECTOR_PX / (max(height, width) * (1 + 2 * margin))
    small = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    left, top = (_DETECTOR_PX - small[0]) // 2, (_DETECTOR_PX - small[1]) // 2
    canvas = np.zeros((_DETECTOR_PX, _DETECTOR_PX, 3), np.float32)
    canvas[top : top + small[1], left : left + small[0]] = to_srgb8(shrunk) / np.float32(255)
    raw, logits = _run("face_detection.tflite", canvas * 2 - 1)
    anchors = _anchors()
    score = 1 / (1 + np.exp(-np.clip(logits.reshape(-1), -50, 50)))
    raw = raw.reshape(len(anchors), 8, 2)
    centre, side, eyes = raw[:, 0] + anchors, raw[:, 1].max(1), raw[:, 2:4]
    scale = np.array(small) / (width, height)
    found: list[tuple[float, np.ndarray, float, float]] = []
    for index in np.flatnonzero(score >= _MIN_SCORE):
        place = (centre[index] - (left, top)) / scale
        across = eyes[index, 1] - eyes[index, 0]
        tilt = math.atan2(across[1], across[0])
        found.append((float(score[index]), place, float(side[index]) / zoom, tilt))
    return _apart(found)


def _anchors() -> Float[np.ndarray, "896 2"]:
    """Centres of the detector's cells in its pixels: 2 boxes each of 16 pixels, 6 of 32."""
    grids = []
    for cell, boxes in ((16, 2), (32, 6)):
        along = np.arange(cell / 2, _DETECTOR_PX, cell)
        column, row = np.meshgrid(along, along)
        grids.append(np.repeat(np.column_stack((column.ravel(), row.ravel())), boxes, axis=0))
    return np.concatenate(grids)


def _landmarks(
    image: Float[np.ndarray, "height width 3"],
    centre: Float[np.ndarray, "2"],
    side: float,
    tilt: float,
) -> Face:
    """The face around a place; each look is guided by the one before, until they agree.

    They converge to the same face from places that are off by a third of its size, so it matters
    little what the detector, which is coarse, has seen.
    """
    before = (centre, side)
    for _ in range(_MAX_LOOKS):
        zoom = _LANDMARK_PX / (1.5 * side)
        cos, sin = zoom * math.cos(tilt), zoom * math.sin(tilt)
        linear = np.array([[cos, sin], [-sin, cos]])
        affine = np.column_stack((linear, _LANDMARK_PX / 2 - linear @ centre))
        seen = _warp(image, affine, (_LANDMARK_PX, _LANDMARK_PX), cv2.BORDER_CONSTANT)
        position, presence = _run("face_landmark.tflite", to_srgb8(seen) / np.float32(255))
        flat = position.reshape(-1, 3)[:, :2].astype(float)
        points = _apply(cv2.invertAffineTransform(affine), flat)
        eyes = np.stack([points[list(corners)].mean(0) for corners in _EYE_CORNERS])
        centre = (points.min(0) + points.max(0)) / 2
        side = float((points.max(0) - points.min(0)).max())
        tilt = math.atan2(*(eyes[1] - eyes[0])[::-1])
        if np.abs(centre - before[0]).max() + abs(side - before[1]) < 0.005 * side:
            break
        before = (centre, side)
    # The networks' last bits differ from processor to processor; a crop should not.
    points = np.rint(points * _STEPS_PER_PX) / _STEPS_PER_PX
    eyes = np.stack([points[list(corners)].mean(0) for corners in _EYE_CORNERS])
    oval = points[list(_OVAL)]
    return Face(
        box=np.concatenate((oval.min(0), oval.max(0))),
        landmarks=np.concatenate((eyes, points[[_NOSE_TIP, *_MOUTH_CORNERS]])),
        oval=oval,
        score=float(1 / (1 + np.exp(-np.clip(presence.item(), -50, 50)))),
        mesh=points,
    )


_networks = threading.local()


def _run(
    model: str, picture: Float[np.ndarray, "side side 3"]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """The two outputs of a model, the larger first.

    Reading a file takes 10 to 40 ms, so each thread does it once; a network that is shared would
    mix the threads' pictures.
    """
    network = getattr(_networks, model, None)
    if network is None:
        network = cv2.dnn.readNetFromTFLite(str(_MODELS / model))
        setattr(_networks, model, network)
    network.setInput(np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32))
    outputs = network.forward(network.getUnconnectedOutLayersNames())
    # Copies: the next forward may write into what this one returned.
    larger, smaller = sorted((output.copy() for output in outputs), key=lambda output: -output.size)
    return larger, smaller
