"""Which way a head faces, as `relightx.sample.Portrait.pose_deg` has it: yaw, pitch, roll, degrees.

All are zero for a head that looks straight along +z, toward the camera, its crown up. Yaw turns the
face to the image's right, pitch turns it up, roll turns the head counter-clockwise in the image
(its crown to the left). Roll comes first, about the head's own line of sight, then pitch, then
yaw, so the face points along (sin yaw cos pitch, sin pitch, cos yaw cos pitch).
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

Pose = tuple[float, float, float]
POSE = ("yaw", "pitch", "roll")


def checked_pose(values: Any) -> Pose:
    """Yaw, pitch and roll of what may be anything; ValueError or TypeError if it is no pose."""
    pose = tuple(map(float, values))
    if len(pose) != len(POSE) or not all(map(math.isfinite, pose)):
        raise ValueError(f"pose_deg is {values}; yaw, pitch and roll, finite, needed")
    return pose


def pose_of(turn: Float[np.ndarray, "3 3"]) -> Pose:
    """The pose of a head that was turned by a rotation from looking straight at the camera.

    Pitch is in [-90, 90], yaw and roll in [-180, 180]; one that looks straight up or down has
    no roll of its own.
    """
    yaw, roll = np.arctan2(turn[0, 2], turn[2, 2]), np.arctan2(turn[1, 0], turn[1, 1])
    pitch = np.arcsin(np.clip(turn[1, 2], -1, 1))
    return tuple(np.degrees(np.array([yaw, pitch, roll], np.float64)).tolist())


def turn_of(pose_deg: Pose) -> Float[np.ndarray, "3 3"]:
    """The rotation that brings a head from looking straight at the camera into a pose."""
    yaw, pitch, roll = np.radians(pose_deg)
    cy, sy, cp, sp, cr, sr = (f(v) for v in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
