"""Whether light directions fit the pictures, told from which side of the subject each lamp lights.

A head or a ball under a lamp on its right is brighter on its right half; under a lamp above, on its
upper half; and the more of it a lamp in front lights, the brighter it is. Over the lights of a
stack these three differences follow x, y and z of the direction, whatever the albedo. On the 28
faces of Extended Yale B the right axes have the highest sum of the three correlations of all 48
ways with 8 lights or more, 2.1 to 2.9; one wrong sign costs 1.3 or more.
"""

from itertools import permutations, product

import numpy as np
from jaxtyping import Float

MIN_LIGHTS = 6
MIN_LEAD = 1.0
"""How far another way must lead the given one to refute it; with 5 of the faces' lights, 0.4."""
_WAYS = [
    np.diag(signs)[list(order)]
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


def check_axes(
    image: Float[np.ndarray, "lights height width"],
    direction: Float[np.ndarray, "lights 3"],
    axes: Float[np.ndarray, "3 3"],
) -> None:
    """Refuse directions that other axes fit far better: ValueError saying which.

    image: linear light. direction: +x right in the image, +y up, +z to the camera, as the matrix
    `axes` made it of a table's. Fewer than 6 lights are not judged.
    """
    if len(image) < MIN_LIGHTS:
        return
    seen = _differences(image)
    score = [_agreement(seen, direction @ way.T) for way in _WAYS]
    best = int(np.argmax(score))
    given = _agreement(seen, direction)
    if score[best] - given > MIN_LEAD:
        raise ValueError(
            "the pictures are not lit from where the table says; axes"
            f" {described(_WAYS[best] @ axes)!r} in place of {described(axes)!r} would fit"
        )


def described(axes: Float[np.ndarray, "3 3"]) -> str:
    """Our x, y, z in terms of a table's, such as 'x,-y,-z'."""
    column = np.abs(axes).argmax(axis=1)
    return ",".join(
        ("-" if row[index] < 0 else "") + "xyz"[index]
        for row, index in zip(axes, column, strict=True)
    )


def _differences(image: Float[np.ndarray, "lights height width"]) -> Float[np.ndarray, "lights 3"]:
    height, width = image.shape[1:]
    columns, rows = image.mean(axis=1), image.mean(axis=2)
    right, left = columns[:, -(width // 2) :].mean(axis=1), columns[:, : width // 2].mean(axis=1)
    upper, lower = rows[:, : height // 2].mean(axis=1), rows[:, -(height // 2) :].mean(axis=1)
    return np.stack((right - left, upper - lower, rows.mean(axis=1)), axis=1)


def _agreement(
    seen: Float[np.ndarray, "lights 3"], direction: Float[np.ndarray, "lights 3"]
) -> float:
    """Sum of the correlations of the three pairs of columns."""
    seen, direction = (values - values.mean(axis=0) for values in (seen, direction))
    spread = np.sqrt((seen**2).sum(axis=0) * (direction**2).sum(axis=0))
    return float(((seen * direction).sum(axis=0) / np.maximum(spread, 1e-12)).sum())
