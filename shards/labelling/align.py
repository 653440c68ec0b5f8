"""Faces in uncropped photographs: found once for all lights of a group, cut out by a fixed rule.

Light adds up: the sum of a group's images is the same scene with all its lamps on, better lit than
any one of them. The face is found there, and one affine map brings every image and every label
into the crop, so pixels that were the same point of the face still are. Only when the sum shows no
face is it looked for in the sum four times brighter, for a face before a bright window, and then
in the brightest lights alone. Of several faces the largest from forehead to chin is taken.

A crop is turned as well as scaled, so what has a direction is turned with it: normals, lights and
lamps are in the crop's frame afterwards. The map is kept in the provenance, after any crop that
the source itself had recorded there; `to_source` undoes it, and `relightx.face.uncrop` lays a map
back onto the photograph.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from relightx.color import LUMINANCE, from_integer, linear_to_srgb
from relightx.face import (
    CROP_RULE,
    DETECTOR,
    MIN_FACE_PX,
    Face,
    crop,
    crop_transform,
    face_mask,
    find_faces,
    moved,
    turn_to_photograph,
)
from relightx.pose import pose_of, turn_of
from relightx.sample import MAPS, Portrait, Provenance, check
from relightx.sh import rotate
from shards.labelling.skin_mask import SKIN_RULE, skin_mask

Mask = Literal["face", "skin", "keep"]

_EXPOSED_PERCENTILE = 99
"""Of the pixels, by luminance, that a picture's exposure leaves below white."""
_BRIGHTER = 4
_MAX_ALONE = 8
"""Lights that are tried alone, so that a light stage's empty picture does not cost minutes."""
_COVERED = 0.999
"""Share of a pixel's sources that must lie in a mask: labels do not mix with what is around."""


class _Found(NamedTuple):
    """The face that is taken. view: where it was found, in words. faces: how many were there."""

    face: Face
    faces: int
    view: str


def aligned(
    portrait: Portrait, size: int, mask: Mask = "face", min_face_px: int = MIN_FACE_PX
) -> Portrait:
    """The portrait's face in a square of size x size pixels, all lights and labels alike.

    Images are resampled in linear light (area-averaged where they shrink, bilinear where they
    grow) and stored in their own type and transfer function, rounded to nearest. Pixels beyond the
    photograph's border repeat its last ones; they are outside the mask and of no confidence.

    mask: 'face' is the oval from forehead to chin, 'skin' what of it is skin
    (shards.labelling.skin_mask),
        both within the portrait's own mask; 'keep' is that mask alone.
    min_face_px: smallest face from forehead to chin, in pixels of the portrait as given.
    Raises ValueError naming the portrait when it is faulty (relightx.sample.check), has no face,
    too small a one, or a mask that leaves nothing of it.
    """
    check(portrait)
    where = f"portrait {portrait.key!r}"
    if size < 1:
        raise ValueError(f"{where}: asked for a crop of {size} pixels; at least 1 needed")
    together = _together(portrait)
    found = _find(portrait, together, min_face_px)
    try:
        affine = crop_transform(found.face, size, min_face_px)
    except ValueError as error:
        raise ValueError(f"{where}: {error}, allow smaller faces, or leave it out") from None
    shown = _mask(portrait, together, found.face, affine, size, mask)
    if shown is not None and not shown.any():
        raise ValueError(
            f"{where}: its own mask leaves nothing of the face that was found at"
            f" {_place(found.face)}; correct the mask, or align with the whole face's"
        )
    near, near_affine = _near(portrait, affine, size)
    turned = _turned(near, turn_to_photograph(affine))
    albedo, normal, confidence = turned.albedo, turned.normal, turned.confidence
    if albedo is not None:
        albedo = crop(albedo, near_affine, size)
    if normal is not None:
        normal = _unit(crop(normal, near_affine, size))
    if confidence is not None:
        confidence = crop(confidence, near_affine, size) * _inside(portrait, affine, size)
    return replace(
        turned,
        image=np.stack([_resampled(near, light, near_affine, size) for light in near.image]),
        albedo=albedo,
        normal=normal,
        mask=shown,
        confidence=confidence,
        provenance=_recorded(portrait, found, affine, size, mask, min_face_px),
    )


def to_source(
    provenance: Provenance, points: Float[np.ndarray, "num 2"]
) -> Float[np.ndarray, "num 2"]:
    """Where points (column, row) of the stored picture lie in the source's picture, in pixels.

    The centre of a picture's upper left pixel is (0.5, 0.5).
    """
    if provenance.affine is None:
        return points
    affine = np.array(provenance.affine)
    return np.linalg.solve(affine[:, :2], (points - affine[:, 2]).T).T


def _together(portrait: Portrait) -> Float[np.ndarray, "height width 3"]:
    """The mean of all lights in linear light; one is held at a time."""
    total = np.zeros((*portrait.image.shape[1:3], portrait.image.shape[3]), np.float32)
    for light in portrait.image:
        total += from_integer(light, portrait.provenance.transfer)
    return _colour(total / portrait.num_lights)


def _find(
    portrait: Portrait, together: Float[np.ndarray, "height width 3"], min_face_px: int
) -> _Found:
    """The largest face in the first view that shows one."""
    for view, picture in _views(portrait, together):
        if faces := find_faces(picture):
            return _Found(faces[0], len(faces), view)
    height, width = portrait.image.shape[1:3]
    raise ValueError(
        f"portrait {portrait.key!r}: no face was found in its {width}x{height} pictures, neither"
        f" with its {portrait.num_lights} lights together nor with the brightest alone; one of at"
        f" least {min_face_px} pixels is needed: turn the pictures upright, crop them nearer to the"
        " face, or leave the group out"
    )


def _views(
    portrait: Portrait, together: Float[np.ndarray, "height width 3"]
) -> Iterator[tuple[str, Float[np.ndarray, "height width 3"]]]:
    """What the face is looked for in, the best first; each with its name."""
    several = portrait.num_lights > 1
    name = "all lights together" if several else "its one light"
    exposed = _exposed(together)
    yield name, exposed
    yield f"{name}, {_BRIGHTER} times brighter", np.minimum(_BRIGHTER * exposed, 1)
    if several:
        level = [float(light[::4, ::4].mean()) for light in portrait.image]
        for index in np.argsort(level, kind="stable")[::-1][:_MAX_ALONE]:
            linear = from_integer(portrait.image[index], portrait.provenance.transfer)
            yield f"light {portrait.light_name[index]!r} alone", _exposed(_colour(linear))


def _exposed(image: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
    """The picture with its bright parts just below white."""
    step = max(1, min(image.shape[:2]) // 256)
    luminance = image[::step, ::step] @ np.array(LUMINANCE, np.float32)
    white = max(float(np.percentile(luminance, _EXPOSED_PERCENTILE)), 1e-4)
    return np.minimum(image / np.float32(white), 1)


def _colour(
    image: Float[np.ndarray, "height width channels"],
) -> Float[np.ndarray, "height width 3"]:
    """RGB of a picture that may be gray."""
    return np.repeat(image, 3 // image.shape[2], axis=2)


def _near(
    portrait: Portrait, affine: Float[np.ndarray, "2 3"], size: int
) -> tuple[Portrait, Float[np.ndarray, "2 3"]]:
    """The part of the portrait that a crop touches, and the map from there to the crop.

    So a large photograph costs no more than its face.
    """
    corners = np.array([(0, 0), (size, 0), (size, size), (0, size)], float) - affine[:, 2]
    at = np.linalg.solve(affine[:, :2], corners.T).T
    room = 2  # for the neighbours that interpolation looks at
    shape = np.array(portrait.image.shape[2:0:-1])
    left, top = np.clip(np.floor(at.min(0)).astype(int) - room, 0, shape - 1)
    right, bottom = np.clip(np.ceil(at.max(0)).astype(int) + room, 1, shape)
    rows, columns = slice(top, bottom), slice(left, right)
    maps = {name: getattr(portrait, name) for name in MAPS}
    part = replace(
        portrait,
        image=portrait.image[:, rows, columns],
        **{name: None if held is None else held[rows, columns] for name, held in maps.items()},
    )
    return part, np.column_stack((affine[:, :2], affine @ (left, top, 1)))


def _resampled(
    portrait: Portrait,
    light: Integer[np.ndarray, "height width channels"],
    affine: Float[np.ndarray, "2 3"],
    size: int,
) -> Integer[np.ndarray, "{size} {size} channels"]:
    """One light's image in the crop, as integers like the portrait's."""
    transfer = portrait.provenance.transfer
    linear = crop(from_integer(light, transfer), affine, size)
    encoded = linear_to_srgb(linear) if transfer == "srgb" else np.clip(linear, 0, 1)
    return np.rint(encoded * np.iinfo(light.dtype).max).astype(light.dtype)


def _turned(portrait: Portrait, turn: Float[np.ndarray, "3 3"]) -> Portrait:
    """The portrait with its directions in the crop's frame, its pixels where they were.

    turn: rotation from the crop's frame to the portrait's.
    """
    turn = turn.astype(np.float32)
    sh, pose = portrait.sh, portrait.pose_deg
    if sh is not None:
        sh = rotate(torch.tensor(sh), torch.from_numpy(turn.T.copy())).numpy()
    return replace(
        portrait,
        normal=None if portrait.normal is None else portrait.normal @ turn,
        sh=sh,
        direction=None if portrait.direction is None else portrait.direction @ turn,
        pose_deg=None if pose is None else pose_of(turn.T.astype(float) @ turn_of(pose)),
    )


def _unit(normal: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width 3"]:
    """Unit length; +z where neighbours have cancelled out."""
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    ahead = np.array([0, 0, 1], normal.dtype)
    return np.where(length > 1e-6, normal / np.maximum(length, 1e-6), ahead)


def _mask(
    portrait: Portrait,
    together: Float[np.ndarray, "height width 3"],
    face: Face,
    affine: Float[np.ndarray, "2 3"],
    size: int,
    kind: Mask,
) -> Bool[np.ndarray, "{size} {size}"] | None:
    """The mask of the crop; None where a portrait without one is wholly seen and keeps it so."""
    shown = _inside(portrait, affine, size)
    if portrait.mask is not None:
        shown &= crop(portrait.mask.astype(np.float32), affine, size) > _COVERED
    elif kind == "keep" and shown.all():
        return None
    if kind == "face":
        shown &= face_mask(moved(face, affine), (size, size)) > 0.5
    if kind == "skin":
        shown &= skin_mask(together, face, affine, size)
    return shown


def _inside(
    portrait: Portrait, affine: Float[np.ndarray, "2 3"], size: int
) -> Bool[np.ndarray, "{size} {size}"]:
    """True where a whole pixel of the crop lies within the portrait's pictures."""
    height, width = portrait.image.shape[1:3]
    along = np.arange(size + 1, dtype=float)
    columns, rows = np.meshgrid(along, along)
    corner = np.column_stack((columns.ravel(), rows.ravel())) - affine[:, 2]
    at = np.linalg.solve(affine[:, :2], corner.T).T
    rounding = 1e-6 * max(height, width)
    within = ((at > -rounding) & (at < np.array([width, height]) + rounding)).all(axis=1)
    grid = within.reshape(size + 1, size + 1)
    return grid[:-1, :-1] & grid[:-1, 1:] & grid[1:, :-1] & grid[1:, 1:]


def _recorded(
    portrait: Portrait,
    found: _Found,
    affine: Float[np.ndarray, "2 3"],
    size: int,
    mask: Mask,
    min_face_px: int,
) -> Provenance:
    """The portrait's provenance and what was done to it, in numbers and in words."""
    before = portrait.provenance
    height, width = portrait.image.shape[1:3]
    earlier = np.eye(2, 3) if before.affine is None else np.array(before.affine)
    linear = affine[:, :2] @ earlier[:, :2]
    offset = affine[:, :2] @ earlier[:, 2] + affine[:, 2]
    whole = np.column_stack((linear, offset))
    taken = "the only face" if found.faces == 1 else f"the largest of {found.faces} faces"
    masks = {"face": "the face's oval", "skin": SKIN_RULE, "keep": "as in the source"}
    return replace(
        before,
        affine=tuple(tuple(map(float, row)) for row in whole),
        source_size=(width, height) if before.affine is None else before.source_size,
        crop=(
            f"{before.crop}; then aligned to {size}x{size}: {CROP_RULE}; resampled once for all"
            f" lights in linear light. {taken[0].upper()}{taken[1:]} found by {DETECTOR} in"
            f" {found.view}, {found.face.height:.0f} pixels from forehead to chin, {min_face_px}"
            f" needed. Mask: {masks[mask]}"
        ),
    )


def _place(face: Face) -> str:
    left, top, right, bottom = (round(float(value)) for value in face.box)
    return f"columns {left}-{right}, rows {top}-{bottom}"
