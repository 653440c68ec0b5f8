"""Time of photometric stereo for one face: python tests/benchmarks/photometric_stereo.py

Gray images of a ball with noise and shadows. Prints the least and the median of the repeats: the
fit with known lights, and the estimate of the lights followed by the same fit.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np

from shards.labelling.light_estimation import estimate_lights
from shards.labelling.photometric_stereo import photometric_stereo

LIGHTS, HEIGHT, WIDTH, REPEATS = 64, 192, 168, 9


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Images of a ball whose albedo varies, with noise, and the directions of its lights."""
    generator = np.random.default_rng(0)
    direction = generator.normal(size=(LIGHTS, 3)).astype(np.float32)
    direction[:, 2] = np.abs(direction[:, 2]) + 0.5
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    y, x = np.meshgrid(np.linspace(0.7, -0.7, HEIGHT), np.linspace(-0.7, 0.7, WIDTH), indexing="ij")
    normal = np.stack((x, y, np.sqrt(np.maximum(1 - x * x - y * y, 0.02))), -1)
    albedo = 0.6 + 0.1 * np.cos(9 * x) * np.cos(7 * y)
    shading = np.maximum(np.einsum("hwk,lk->lhw", normal, direction), 0)
    image = albedo * shading + generator.normal(0, 0.01, shading.shape)
    return np.clip(image, 0, 1).astype(np.float32), direction


def seconds(function: Callable[[], object]) -> list[float]:
    """Wall time of each repeat, after one that is not counted."""
    function()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def _estimated(image: np.ndarray) -> None:
    lights = estimate_lights(image)
    photometric_stereo(image, lights.direction, lights.strength)


if __name__ == "__main__":
    image, direction = scene()
    for name, function in {
        "lights given": lambda: photometric_stereo(image, direction),
        "lights estimated": lambda: _estimated(image),
    }.items():
        times = seconds(function)
        print(
            f"photometric stereo, {LIGHTS} images of {WIDTH}x{HEIGHT}, {name}:"
            f" {min(times):.3f} s (least), {statistics.median(times):.3f} s (median)"
        )
