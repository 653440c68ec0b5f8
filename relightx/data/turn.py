"""Turn a head together with its light: a new pose from a portrait whose normals are known.

A Lambertian surface that turns with its lamps keeps every pixel's brightness, attached and cast
shadows included; pixels only move, by an amount that depends on depth, and normals and light turn.
So the picture made is one that could have been taken. Depth is integrated from the normals.
"""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from relightx.data.fit import Views, unit
from relightx.sh import rotate

_STEEPEST = 0.3
"""Smallest z of a normal that depth is integrated from: beyond, slopes run to infinity."""
_VISIBLE = 0.05
"""Smallest z of a turned normal that is still seen."""


def turned(views: Views, pitch_deg: float, yaw_deg: float) -> Views:
    """The portrait turned about its centre: pitch tips the face down, yaw to the picture's right.

    Orthographic, for angles of a few degrees: what comes into view from behind is not known and
    leaves the mask. Raises ValueError without normals.
    """
    if views.normal is None:
        raise ValueError("a portrait without normals cannot be turned")
    turn = _rotation(pitch_deg, yaw_deg)
    place = _fetched_from(depth(views.normal, views.mask), views.mask, turn)

    def fetch(values: np.ndarray) -> np.ndarray:
        return cv2.remap(np.ascontiguousarray(values), place, None, cv2.INTER_LINEAR)

    normal = unit(fetch(views.normal) @ turn.T.astype(np.float32))
    sh = views.sh
    if sh is not None:
        sh = rotate(torch.from_numpy(sh), torch.from_numpy(turn)).numpy()
    seen = (fetch(views.mask.astype(np.float32)) > 0.99) & (normal[..., 2] > _VISIBLE)
    return Views(
        image=np.stack([fetch(picture) for picture in views.image]),
        mask=seen,
        albedo=None if views.albedo is None else fetch(views.albedo),
        normal=normal,
        confidence=None if views.confidence is None else fetch(views.confidence),
        sh=sh,
    )


def depth(
    normal: Float[np.ndarray, "size size 3"], mask: Bool[np.ndarray, "size size"]
) -> Float[np.ndarray, "size size"]:
    """Depth toward the camera in pixels, of mean 0 in the mask, whose slopes fit the normals best.

    Least squares over the whole square (a Poisson equation with free borders, solved by cosine
    transform); outside the mask the surface is flat.
    """
    steep = np.maximum(normal[..., 2], _STEEPEST)
    right = np.where(mask, -normal[..., 0] / steep, 0).astype(np.float64)
    down = np.where(mask, normal[..., 1] / steep, 0).astype(np.float64)
    size = len(mask)
    # Slopes halfway between pixels, and what flows into each pixel from its four sides.
    across = (right[:, 1:] + right[:, :-1]) / 2
    along = (down[1:] + down[:-1]) / 2
    inflow = np.zeros((size, size))
    inflow[:, :-1] += across
    inflow[:, 1:] -= across
    inflow[:-1] += along
    inflow[1:] -= along
    # cv2.dct takes even sizes; an odd one gets a flat border.
    even = size + size % 2
    padded = cv2.copyMakeBorder(inflow, 0, even - size, 0, even - size, cv2.BORDER_CONSTANT)
    frequency = 2 * np.cos(np.pi * np.arange(even) / even) - 2
    scale = frequency[:, None] + frequency
    scale[0, 0] = 1
    spectrum = cv2.dct(padded) / scale
    spectrum[0, 0] = 0
    surface = cv2.dct(spectrum, flags=cv2.DCT_INVERSE)[:size, :size]
    return surface - surface[mask].mean() if mask.any() else surface


def _fetched_from(
    surface: Float[np.ndarray, "size size"],
    mask: Bool[np.ndarray, "size size"],
    turn: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "size size 2"]:
    """Column and row in the portrait that each pixel of the turned one shows."""
    size = len(mask)
    column, row = np.meshgrid(np.arange(size, dtype=float), np.arange(size, dtype=float))
    x, y = column - (size - 1) / 2, (size - 1) / 2 - row
    moved_x = turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] * surface
    moved_y = turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] * surface
    motion = np.stack((moved_x - x, y - moved_y), axis=-1).astype(np.float32)
    here = np.stack((column, row), axis=-1).astype(np.float32)
    place = here
    for _ in range(4):  # the motion is smooth and small: each pass divides the error by about five
        place = here - cv2.remap(motion, place, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return place


def _rotation(pitch_deg: float, yaw_deg: float) -> Float[np.ndarray, "3 3"]:
    pitch, yaw = np.deg2rad([pitch_deg, yaw_deg])
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return about_x @ about_y
