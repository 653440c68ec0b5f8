"""Faces in photographs: find one, cut it out as the models know faces, and bring maps back.

The detector and the landmarks are MediaPipe's (face_models/README.md), run by OpenCV.

Positions are in pixels, (column, row) from the upper left corner of the picture: the centre of the
upper left pixel is at (0.5, 0.5). A crop is turned so that the eyes are level. What a model says
about directions in it, normals and light, is in the crop's frame: `turn_to_photograph` brings
them back.
"""

import math
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

_MODELS = Path(__file__).parent / "face_models"
_DETECTOR_PX = 256
_LANDMARK_PX = 192
_MIN_SCORE = 0.5
_MIN_PRESENCE = 0.8
_MAX_CANDIDATES = 6
# The detector misses a face that fills the picture; with a margin around it, it does not.
_MARGINS = (0.0, 0.5)

# Of the 468 landmarks. The person's right eye comes first: left in an upright photograph.
_EYE_CORNERS = ((33, 133), (362, 263))
_NOSE_TIP = 1
_MOUTH_CORNERS = (61, 291)
# fmt: off
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on


@dataclass(frozen=True)
class Face:
    """One face in a photograph; positions in its pixels.

    box: left, top, right, bottom around the oval.
    landmarks: the person's right eye, left eye, tip of the nose, right and left mouth corner.
    oval: outline from the forehead over the person's left cheek, chin and right cheek.
    score: in [0, 1], how sure it is that this is a face.
    """

    box: Float[np.ndarray, "4"]
    landmarks: Float[np.ndarray, "5 2"]
    oval: Float[np.ndarray, "36 2"]
    score: float

    @property
    def height(self) -> float:
        """Length of the oval from forehead to chin, in pixels."""
        return float(np.linalg.norm(self.oval[18] - self.oval[0]))


def find_face(image: Float[np.ndarray, "height width 3"]) -> Face | None:
    """The largest face in a photograph, or None.

    image: linear RGB in [0, 1].
    """
    views = [_detect(image, margin) for margin in _MARGINS]
    candidates = sorted((c for view in views for c in view), key=lambda c: -c[0])
    found = [_landmarks(image, *place) for _, *place in candidates[:_MAX_CANDIDATES]]
    sure = [face for face in found if face.score >= _MIN_PRESENCE]
    return max(sure, key=lambda face: face.height, default=None)


def crop_transform(face: Face, size: int) -> Float[np.ndarray, "2 3"]:
    """The affine map from the photograph to a crop of size x size pixels.

    The crop is square and turned so that the eyes are level; it shows the face from above the
    hairline to below the chin, framed like the synthetic heads. It may reach over the
    photograph's edge. Raises ValueError when the face has fewer than MIN_FACE_PX pixels.
    """
    if face.height < MIN_FACE_PX:
        left, top, right, bottom = (round(float(value)) for value in face.box)
        raise ValueError(
            f"the face at columns {left}-{right}, rows {top}-{bottom} is {face.height:.0f} pixels"
            f" high; at least {MIN_FACE_PX} are needed: use a larger photograph"
        )
    eyes = face.landmarks[:2]
    along = (eyes[1] - eyes[0]) / np.linalg.norm(eyes[1] - eyes[0])
    down = np.array([-along[1], along[0]])
    centre = eyes.mean(0) + _CENTRE_BELOW_EYES * _unit(face.landmarks) * down
    linear = np.stack((along, down)) * (size / (_CROP_SIDE * _unit(face.landmarks)))
    return np.column_stack((linear, size / 2 - linear @ centre))


def crop(
    image: Float[np.ndarray, "height width 3"], affine: Float[np.ndarray, "2 3"], size: int
) -> Float[np.ndarray, "{size} {size} 3"]:
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
    return cv2.resize(warped, shape[::-1], interpolation=cv2.INTER_AREA) if finer > 1 else warped


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
    for index in np.argsort(-score):
        if score[index] < _MIN_SCORE or len(found) == _MAX_CANDIDATES:
            break
        place = (centre[index] - (left, top)) / scale
        if all(np.abs(place - other).max() > length / 2 for _, other, length, _ in found):
            across = eyes[index, 1] - eyes[index, 0]
            tilt = math.atan2(across[1], across[0])
            found.append((float(score[index]), place, float(side[index]) / zoom, tilt))
    return found


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
    """The face around a place; a second look, guided by the first, makes it exact."""
    for _ in range(2):
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
    oval = points[list(_OVAL)]
    return Face(
        box=np.concatenate((oval.min(0), oval.max(0))),
        landmarks=np.concatenate((eyes, points[[_NOSE_TIP, *_MOUTH_CORNERS]])),
        oval=oval,
        score=float(1 / (1 + np.exp(-np.clip(presence.item(), -50, 50)))),
    )


def _run(
    model: str, picture: Float[np.ndarray, "side side 3"]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """The two outputs of a model, the larger first. Reading the file takes 20 to 40 ms."""
    network = cv2.dnn.readNetFromTFLite(str(_MODELS / model))
    network.setInput(np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32))
    outputs = network.forward(network.getUnconnectedOutLayersNames())
    larger, smaller = sorted(outputs, key=lambda output: -output.size)
    return larger, smaller
