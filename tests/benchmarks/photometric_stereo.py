"""Time of photometric stereo for one face: python tests/benchmarks/photometric_stereo.py"""

import statistics
import time

import numpy as np

from shards.photometric_stereo import photometric_stereo

LIGHTS, HEIGHT, WIDTH, REPEATS = 64, 192, 168, 9


def seconds() -> list[float]:
    """Wall time of each repeat on a noisy scene."""
    generator = np.random.default_rng(0)
    direction = generator.normal(size=(LIGHTS, 3)).astype(np.float32)
    direction[:, 2] = np.abs(direction[:, 2]) + 0.5
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    image = generator.random((LIGHTS, HEIGHT, WIDTH), np.float32)
    photometric_stereo(image, direction)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        photometric_stereo(image, direction)
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    median = statistics.median(seconds())
    print(f"photometric stereo, {LIGHTS} images of {WIDTH}x{HEIGHT}: {median:.3f} s (median)")
