"""Skin of a face: the part of its oval that is no eye, brow, lip, hair, beard or thing before it.

What skin looks like is learnt from the face itself, so every skin tone and every light is right,
and gray pictures too. In logarithms of linear light, even skin is a smooth surface over the face:
shading changes slowly, and colour more slowly. Such a surface is fitted to cheeks, nose and the
forehead between the brows, then again and again to all that agrees with it; what stays far from
it is not skin. Eyes, brows and lips go by their landmarks.

On 24 synthetic heads of all tones, four lights together, 1 % of the mask is not skin and 9 % of
the skin is missed, most of it around the brows; in gray 2 % and 9 %. Known
limits: a hand before the face is skin too, thin stubble stays, and in a single picture a cast
shadow that leaves less than half of the light, or a second light of another colour, is taken for
hair.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from relightx.color import LUMINANCE
from relightx.face import (
    BROWS,
    EYES,
    LIPS,
    NOSE,
    Face,
    crop,
    crop_transform,
    face_mask,
    moved,
)

SKIN_RULE = (
    "what of the face's oval looks like its cheeks and nose, without eyes, brows, lips, hair,"
    " beard and glasses"
)

_SIDE = 256
"""Pixels of the crop in which skin is looked for, whatever size is asked for."""
_PLANE_STEPS, _STEPS = 4, 12
_SAMPLES = (50, 280, 101, 330, 205, 425, 36, 266, 117, 346, 6, 197, 195, 5, 8, 9)
"""Landmarks around which the fit begins: cheeks, ridge of the nose, between the brows."""
# How far skin strays from the smooth surface, downward and upward, in log luminance, red over
# green and blue over green. Of the synthetic heads' skin, 98 % stays within twice these; dark hair
# is far darker and less red, and highlights are brighter.
_DOWN = np.array([0.33, 0.10, 0.10])
_UP = np.array([0.45, 0.16, 0.12])
_LIMIT = 2.5
"""Distance at which a pixel is no longer taken for skin, in the lengths above together."""
_NOSE_TRUST = 0.8
"""So much farther, as a share, the limit lies on the nose: it casts shadows and has no hair."""
_DARK = 0.03  # of the face's level: keeps logarithms of black pixels finite

# Lengths as shares of the face's height.
_SAMPLE_RADIUS = 0.05
_PART_MARGIN = 0.012
_SPECK, _GAP = 0.02, 0.02
_HOLE_AREA, _ISLAND_SHARE = 0.004, 0.05


def skin_mask(
    image: Float[np.ndarray, "height width 3"],
    face: Face,
    affine: Float[np.ndarray, "2 3"],
    size: int,
) -> Bool[np.ndarray, "{size} {size}"]:
    """Skin of a face that `find_faces` found in a picture, in its crop of size x size pixels.

    image: linear RGB, the mean of all lights if there are several; gray is repeated.
    affine: `crop_transform` of that face to that size.
    """
    work = crop_transform(face, _SIDE, min_face_px=0)
    skin = _skin(crop(image, work, _SIDE), moved(face, work)).astype(np.float32)
    smooth = cv2.GaussianBlur(skin, (0, 0), 1.0)
    shrinks = size < _SIDE
    scaled = cv2.resize(
        smooth, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return (scaled > 0.5) & (face_mask(moved(face, affine), (size, size)) > 0.5)


def _skin(image: Float[np.ndarray, "side side 3"], face: Face) -> Bool[np.ndarray, "side side"]:
    """Skin in the working crop."""
    side = len(image)
    usable = (face_mask(face, (side, side)) > 0.5) & ~_other_parts(face, side)
    if not usable.any():
        return usable
    looks = _looks(image, usable)[usable]
    limit = _LIMIT * (1 + _NOSE_TRUST * _nose(face, side)[usable])
    distance = _distance(looks, _place(face, side)[usable], _samples(face, side)[usable], limit)
    likely = np.zeros((side, side), np.float32)
    likely[usable] = np.clip(1.5 - distance / limit, 0, 1)
    # Smoothed among usable pixels only, so that a brow does not darken the skin beside it.
    weight = cv2.GaussianBlur(usable.astype(np.float32), (0, 0), 1.0)
    smooth = cv2.GaussianBlur(likely, (0, 0), 1.0) / np.maximum(weight, 1e-3)
    return _tidy((smooth > 0.5) & usable, usable, face.height)


def _looks(
    image: Float[np.ndarray, "side side 3"], usable: Bool[np.ndarray, "side side"]
) -> Float[np.ndarray, "side side 3"]:
    """Log luminance, red over green and blue over green of each pixel, a little smoothed."""
    level = np.maximum(np.median(image[usable], axis=0), 1e-6)
    log = np.log(cv2.GaussianBlur(image, (0, 0), 1.2) + _DARK * level)
    red, green, blue = log[..., 0], log[..., 1], log[..., 2]
    return np.stack((log @ np.array(LUMINANCE, np.float32), red - green, blue - green), axis=-1)


def _distance(
    looks: Float[np.ndarray, "num 3"],
    place: Float[np.ndarray, "num 6"],
    sample: Bool[np.ndarray, " num"],
    limit: Float[np.ndarray, " num"],
) -> Float[np.ndarray, " num"]:
    """How far each pixel is from the smooth surface that most of the skin lies on.

    The surface begins as a plane through the sampled pixels and gets curvature as it reaches
    farther.
    """
    weight = sample.astype(float) if sample.any() else np.ones(len(looks))
    for step in range(_STEPS):
        terms = place[:, : 3 if step < _PLANE_STEPS else 6]
        weighted = terms * weight[:, None]
        # A little is asked of the slopes, for where all that agrees lies in one corner.
        ridge = np.diag([1e-6, *[0.02] * (terms.shape[1] - 1)]) * max(weight.sum(), 1)
        surface = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ looks)
        residual = looks - terms @ surface
        strayed = np.where(residual < 0, residual / _DOWN, residual / _UP)
        distance = np.sqrt((strayed**2).sum(axis=1))
        weight = np.clip(1 - (distance / limit) ** 2, 0, 1) ** 2
    return distance


def _place(face: Face, side: int) -> Float[np.ndarray, "side side 6"]:
    """1, x, y, xx, xy, yy of each pixel: 0 in the face's middle, y -1 and 1 at its ends."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    middle, half = face.oval.mean(0), face.height / 2
    x, y = (columns - middle[0]) / half, (rows - middle[1]) / half
    return np.stack((np.ones_like(x), x, y, x * x, x * y, y * y), axis=-1)


def _samples(face: Face, side: int) -> Bool[np.ndarray, "side side"]:
    """Discs around the landmarks where the fit begins."""
    mask = np.zeros((side, side), np.uint8)
    for point in face.mesh[list(_SAMPLES)]:
        centre = (int(point[0]), int(point[1]))
        cv2.circle(mask, centre, round(_SAMPLE_RADIUS * face.height), 1, cv2.FILLED)
    return mask > 0


def _other_parts(face: Face, side: int) -> Bool[np.ndarray, "side side"]:
    """Eyes, brows and lips, with a margin."""
    mask = np.zeros((side, side), np.uint8)
    for outline in (*EYES, *BROWS, LIPS):
        mask |= _polygon(face.mesh[list(outline)], side)
    return cv2.dilate(mask, _disc(_PART_MARGIN * face.height)) > 0


def _nose(face: Face, side: int) -> Float[np.ndarray, "side side"]:
    """1 on the nose, 0 away from it, soft between."""
    mask = _polygon(face.mesh[list(NOSE)], side).astype(np.float32)
    return cv2.GaussianBlur(mask, (0, 0), 0.02 * face.height)


def _polygon(points: Float[np.ndarray, "num 2"], side: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint((points - 0.5) * 16).astype(np.int32)], 1, cv2.LINE_8, shift=4)
    return mask


def _disc(radius: float) -> np.ndarray:
    reach = max(1, round(radius))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))


def _tidy(
    skin: Bool[np.ndarray, "side side"], usable: Bool[np.ndarray, "side side"], height: float
) -> Bool[np.ndarray, "side side"]:
    """Without specks and islands of skin, narrow gaps and small holes in it."""
    mask = cv2.morphologyEx(skin.astype(np.uint8), cv2.MORPH_OPEN, _disc(_SPECK * height))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(_GAP * height)) & usable
    label, area = _regions(mask)
    tidy = np.isin(label, 1 + np.flatnonzero(area >= _ISLAND_SHARE * area.max(initial=1)))
    label, area = _regions((usable & ~tidy).astype(np.uint8))
    return tidy | np.isin(label, 1 + np.flatnonzero(area < _HOLE_AREA * height**2))


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number from 1 for each connected region, at its pixels, and the areas of the regions."""
    _, label, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    return label, statistics[1:, cv2.CC_STAT_AREA]
