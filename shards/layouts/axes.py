"""Which way two axes of a normal map point in its picture, told from the normals of a face.

Sets write normals in axes of their own and seldom say which: x and y in either order, y up or down.
Any of the eight ways fits the photographs equally well, with lamps turned alike, so photometry
cannot tell; but two facts about surfaces can. A face is a convex thing: its normals point to the
picture's right on its right, and up on its upper part. And it is a surface: its slope along x
changes along y as its slope along y does along x, which one wrong sign breaks.

On the 28 faces of Extended Yale B the right way scores 1.54 to 2.04 of 3, and leads the next by
1.26 or more.
"""

from itertools import product

import cv2
import numpy as np
from jaxtyping import Bool, Float

MIN_LEAD = 0.4
"""How far the best way must lead the next."""
_WAYS = [
    np.diag(signs)[list(order)]
    for order in ((0, 1), (1, 0))
    for signs in product((1.0, -1.0), repeat=2)
]


def axes(
    first: Float[np.ndarray, "height width"],
    second: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
) -> Float[np.ndarray, "2 2"]:
    """The matrix that makes (first, second), parts of unit normals, into (x right, y up).

    Raises ValueError when no way stands out, as on normals that are not a face's.
    """
    blur = min(mask.shape) / 60
    parts = [cv2.GaussianBlur(part, (0, 0), blur) for part in (first, second)]
    inner = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((5, 5)))[1:-1, 1:-1] > 0
    if not inner.any():
        raise ValueError("there are no normals to tell the axes from")
    row, column = np.nonzero(inner)
    score = []
    for way in _WAYS:
        x, y = (
            sum(weight * part for weight, part in zip(line, parts, strict=True)) for line in way
        )
        score.append(
            _correlation(x[inner], column)
            + _correlation(y[inner], -row)
            + _correlation(-np.gradient(x, axis=0)[inner], np.gradient(y, axis=1)[inner])
        )
    order = np.argsort(score)
    lead = score[order[-1]] - score[order[-2]]
    if lead < MIN_LEAD:
        raise ValueError(
            f"the normals point outward in no way that stands out (by {lead:.2f}, {MIN_LEAD}"
            " needed): they are not those of a face"
        )
    return _WAYS[order[-1]]


def described(way: Float[np.ndarray, "2 2"]) -> tuple[str, str]:
    """Where the two axes point in the picture: 'right', 'left', 'up' or 'down'."""
    names = (("left", "right"), ("down", "up"))
    first, second = (
        names[int(np.argmax(np.abs(way[:, part])))][int(way[:, part].sum() > 0)] for part in (0, 1)
    )
    return first, second


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    spread = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / spread) if spread > 1e-12 else 0.0
