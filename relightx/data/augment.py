"""Changes of a portrait that keep the physics right: image = albedo * shade(normal, sh) before and
after, with the same change made to pictures, maps and light.

Every draw comes from the generator given, which the loader seeds by (seed, epoch, portrait).
"""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import torch
from jaxtyping import Float

from relightx.data.fit import Views, unit
from relightx.data.turn import turned
from relightx.settings.augment import AugmentConfig
from relightx.sh import mirror, rotate


def augment(
    views: Views, config: AugmentConfig, rng: np.random.Generator, has_normal: bool = False
) -> Views:
    """Draw and apply all changes.

    has_normal: the portrait's normals may be used; a withheld label must not shape the pictures.
    """
    if config.mirror and rng.random() < 0.5:
        views = mirrored(views)
    pitch, yaw = rng.uniform(-config.turn_deg, config.turn_deg, 2)
    if config.turn_deg and has_normal:
        views = turned(views, pitch, yaw)
    size = views.mask.shape[0]
    if config.roll_deg or config.shift or config.zoom or config.stretch:
        roll = rng.uniform(-config.roll_deg, config.roll_deg)
        zoom = 1 + rng.uniform(-config.zoom, config.zoom)
        shift = rng.uniform(-config.shift, config.shift, 2) * size
        warp = smooth_field(rng, size, 2) * (config.stretch * size) if config.stretch else None
        views = moved(views, roll, zoom, shift, warp)
    if config.skin_stops:
        views = reskinned(views, 2.0 ** (config.skin_stops * smooth_field(rng, size, 1)))
    stops = rng.uniform(-config.tint_stops, config.tint_stops, (len(views.image), 3))
    stops += rng.uniform(-config.exposure_stops, config.exposure_stops, (len(views.image), 1))
    return exposed(views, 2.0**stops)


def mixed(first: Views, second: Views, weight: np.ndarray) -> Views:
    """Each light replaced by weight * first + (1 - weight) * second, which is exact: light adds up.

    weight: one number in [0, 1] per light.
    """
    picture_weight = weight.reshape(-1, 1, 1, 1).astype(np.float32)
    image = picture_weight * first.image + (1 - picture_weight) * second.image
    sh = None
    if first.sh is not None and second.sh is not None:
        sh_weight = weight.reshape(-1, 1, 1).astype(np.float32)
        sh = sh_weight * first.sh + (1 - sh_weight) * second.sh
    return replace(first, image=image, sh=sh)


def mirrored(views: Views) -> Views:
    """Left and right exchanged: normals and light turn with the picture."""
    normal = views.normal
    if normal is not None:
        normal = normal[:, ::-1] * np.array([-1, 1, 1], np.float32)
    return Views(
        image=views.image[:, :, ::-1],
        mask=views.mask[:, ::-1],
        albedo=None if views.albedo is None else views.albedo[:, ::-1],
        normal=normal,
        confidence=None if views.confidence is None else views.confidence[:, ::-1],
        sh=None if views.sh is None else mirror(torch.from_numpy(views.sh)).numpy(),
    )


def moved(
    views: Views,
    roll_deg: float,
    zoom: float,
    shift: Float[np.ndarray, "2"],
    warp: Float[np.ndarray, "size size 2"] | None = None,
) -> Views:
    """Turn counter-clockwise about the centre, zoom, then move by shift (right, down) in pixels.

    warp: where else, in pixels, each pixel of the result is fetched from. Normals and light turn
    about z with the picture; zooming, moving and warping leave each pixel its normal, so that the
    pixel still is albedo times shading.
    """
    size = views.mask.shape[0]
    centre = (size - 1) / 2
    forward = cv2.getRotationMatrix2D((centre, centre), roll_deg, zoom)
    forward[:, 2] += shift
    back = cv2.invertAffineTransform(forward)
    place = cv2.transform(_pixels(size), back)
    if warp is not None:
        place += warp.astype(np.float32)

    def fetch(values: np.ndarray) -> np.ndarray:
        return cv2.remap(np.ascontiguousarray(values), place, None, cv2.INTER_LINEAR)

    angle = np.deg2rad(roll_deg)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    normal = views.normal
    if normal is not None:
        normal = unit(fetch(normal) @ turn.T.astype(np.float32))
    sh = views.sh
    if sh is not None:
        sh = rotate(torch.from_numpy(sh), torch.from_numpy(turn)).numpy()
    return Views(
        image=np.stack([fetch(picture) for picture in views.image]),
        mask=fetch(views.mask.astype(np.float32)) > 0.99,
        albedo=None if views.albedo is None else fetch(views.albedo),
        normal=normal,
        confidence=None if views.confidence is None else fetch(views.confidence),
        sh=sh,
    )


@lru_cache(4)
def _pixels(size: int) -> Float[np.ndarray, "{size} {size} 2"]:
    """Column and row of each pixel of a square."""
    column, row = np.meshgrid(np.arange(size), np.arange(size))
    return np.stack((column, row), axis=-1).astype(np.float32)


def reskinned(views: Views, gain: Float[np.ndarray, "size size 1"]) -> Views:
    """Albedo and images multiplied by one gain at each pixel, as on another skin."""
    gain = gain.astype(np.float32)
    albedo = None if views.albedo is None else views.albedo * gain
    return replace(views, image=views.image * gain, albedo=albedo)


def smooth_field(
    rng: np.random.Generator, size: int, channels: int
) -> Float[np.ndarray, "{size} {size} {channels}"]:
    """Random values in [-1, 1] that vary over about a quarter of the picture."""
    coarse = rng.uniform(-1, 1, (5, 5, channels)).astype(np.float32)
    field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(field.reshape(size, size, channels), -1, 1)


def exposed(views: Views, gain: np.ndarray) -> Views:
    """Image and light scaled together by a gain per light and colour."""
    gain = gain.astype(np.float32)
    sh = None if views.sh is None else views.sh * gain[:, :, None]
    return replace(views, image=views.image * gain[:, None, None, :], sh=sh)
