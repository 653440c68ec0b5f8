"""What each way to store images costs: python tests/benchmarks/image_storage.py

Rendered heads with grain like a camera's; loss is against the images as the source gave them.
"""

import argparse
import time

import numpy as np

from relightx.codec import decode_picture, encode_jpeg, encode_png
from shards.rendering.synthetic import synthetic_one

HEADING = "{:<10}{:>8}{:>10}{:>25}{:>12}{:>12}"
ROW = "{:<10}{:>8.1f}{:>10}{:>25}{:>12.2f}{:>12.2f}"


def images(heads: int, size: int) -> list[np.ndarray]:
    """8-bit sRGB images of heads under two lights, with noise of one and a half levels."""
    noise = np.random.default_rng(0)
    found = []
    for head in range(heads):
        for image in synthetic_one(head, lights=2, size=size).image:
            grain = noise.normal(0, 1.5, image.shape) * (image > 0)
            found.append(np.clip(np.rint(image + grain), 0, 255).astype(np.uint8))
    return found


def measure(name: str, pictures: list[np.ndarray], encode) -> None:
    """Print a row: size, loss and times."""
    start = time.perf_counter()
    stored = [encode(picture) for picture in pictures]
    encoded = time.perf_counter()
    back = [decode_picture(s, p.shape[:2]) for s, p in zip(stored, pictures, strict=True)]
    decoded = time.perf_counter()
    inside = [picture.max(axis=2) > 0 for picture in pictures]
    pairs = zip(back, pictures, inside, strict=True)
    error = np.concatenate([(b.astype(float) - p)[i].ravel() for b, p, i in pairs])
    square = (error**2).mean()
    loss = f"{10 * np.log10(255**2 / square):.1f} dB" if square else "none"
    worst = f"{np.percentile(np.abs(error), 99.9):.0f} of 255"
    print(
        ROW.format(
            name,
            sum(map(len, stored)) / len(stored) / 1024,
            loss,
            worst,
            (encoded - start) / len(stored) * 1e3,
            (decoded - encoded) / len(stored) * 1e3,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    pictures = images(options.heads, options.size)
    print(f"{len(pictures)} images of {options.size}x{options.size}, loss on the head alone")
    print(HEADING.format("", "KiB", "loss", "99.9 % of errors below", "encode ms", "decode ms"))
    measure("png", pictures, encode_png)
    for quality in (98, 95, 90, 80):
        measure(f"jpeg {quality}", pictures, lambda p, q=quality: encode_jpeg(p, q))


if __name__ == "__main__":
    main()
