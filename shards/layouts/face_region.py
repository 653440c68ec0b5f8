"""The face in a picture whose surface is known: skin, and what lies between skin."""

import cv2
import numpy as np
from jaxtyping import Bool, Float

from shards.labelling.photometric_stereo import Surface, residual


def face_region(
    image: Float[np.ndarray, "lights height width"],
    surface: Surface,
    direction: Float[np.ndarray, "lights 3"],
    strength: Float[np.ndarray, " lights"],
) -> Bool[np.ndarray, "height width"]:
    """The face without hair, clothes and background: one region, eyes and nostrils included.

    Skin is as bright as the middle of the picture, or half, and Lambert's law holds on it; what
    lies between skin in a row or a column (eyes, brows, nostrils, lips) belongs to the face.
    """
    height, width = surface.albedo.shape
    middle = surface.albedo[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    error = np.abs(residual(image, surface, direction, strength)).mean(axis=0)
    skin = (
        (surface.albedo > 0.5 * np.median(middle))
        & (error < 0.2 * surface.albedo)
        & (surface.normal[..., 2] > 0.1)
    )
    skin = _large_regions(_morphology(skin, cv2.MORPH_OPEN, width // 24), share=0.01)
    between = _between(skin, axis=0) | _between(skin, axis=1)
    face = _largest_region(_morphology(between, cv2.MORPH_OPEN, width // 7))
    return _without_holes(_morphology(face, cv2.MORPH_CLOSE, width // 7))


def _morphology(
    region: Bool[np.ndarray, "height width"], operation: int, size: int
) -> Bool[np.ndarray, "height width"]:
    """Opening or closing with a disc; the picture goes on beyond its border as it ends."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size | 1, size | 1))
    margin = size | 1
    padded = np.pad(region.astype(np.uint8), margin, mode="edge")
    done = cv2.morphologyEx(padded, operation, disc)
    return done[margin:-margin, margin:-margin] > 0


def _between(region: Bool[np.ndarray, "height width"], axis: int) -> np.ndarray:
    """True where the region is found on both sides along an axis."""
    before = np.logical_or.accumulate(region, axis=axis)
    behind = np.flip(np.logical_or.accumulate(np.flip(region, axis), axis=axis), axis)
    return before & behind


def _large_regions(region: Bool[np.ndarray, "height width"], share: float) -> np.ndarray:
    """The connected parts that cover more than a share of the picture."""
    _, label, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    area = statistics[1:, cv2.CC_STAT_AREA]
    return np.isin(label, 1 + np.flatnonzero(area > share * region.size))


def _largest_region(region: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """The largest connected part; all False when there is none."""
    _, label, statistics, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    area = statistics[1:, cv2.CC_STAT_AREA]
    return label == 1 + np.argmax(area) if len(area) else region


def _without_holes(region: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """The region with everything that it surrounds."""
    _, label = cv2.connectedComponents((~region).astype(np.uint8), connectivity=4)
    border = np.concatenate((label[0], label[-1], label[:, 0], label[:, -1]))
    return region | ~np.isin(label, border)
