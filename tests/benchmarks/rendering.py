"""Speed of the source `synthetic`, from the first head to PNG bytes.

python tests/benchmarks/rendering.py --heads 64 --processes 2
python tests/benchmarks/rendering.py --light traced --size 256 --heads 32 --one-by-one 12
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import torch

from relightx.sample import encode
from shards.rendering.synthetic import (
    LIGHTS,
    HeadJob,
    render_head,
    synthetic_jobs,
    synthetic_one,
)

MORE_LIGHTS = 16


def render_and_encode(job: HeadJob) -> int:
    """Bytes of the finished members."""
    return sum(len(member) for member in encode(render_head(job)).values())


def first_and_further_lights(options: argparse.Namespace) -> None:
    """Print what a head with one light costs, and each light more."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    settings = {"size": options.size, "light": options.light}
    synthetic_one(0, lights=2, **settings)
    first, further = [], []
    for head in range(options.one_by_one):
        costs = []
        for lights in (1, 1 + MORE_LIGHTS):
            start = time.perf_counter()
            synthetic_one(head, lights=lights, **settings)
            costs.append(time.perf_counter() - start)
        first.append(costs[0])
        further.append(1000 * (costs[1] - costs[0]) / MORE_LIGHTS)
    print(f"first light      {statistics.median(first):8.2f} s, in the median of heads")
    print(f"further light    {statistics.median(further):8.1f} ms, likewise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=64)
    parser.add_argument("--lights", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--light", choices=LIGHTS, default="sh")
    parser.add_argument("--one-by-one", type=int, default=0, metavar="HEADS", help="on one core")
    options = parser.parse_args()
    if options.one_by_one:
        first_and_further_lights(options)
    jobs = synthetic_jobs(
        heads=options.heads, lights=options.lights, size=options.size, light=options.light
    )

    start = time.perf_counter()
    with ProcessPoolExecutor(
        options.processes,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        results = pool.map(render_and_encode, jobs)
        stored = next(results)
        first = time.perf_counter() - start
        stored += sum(results)
    whole = time.perf_counter() - start
    images = options.heads * options.lights
    print(f"first head       {first:8.2f} s (processes started, data read, one head)")
    print(f"heads/s          {options.heads / whole:8.2f} with start-up")
    print(f"images/s         {images / whole:8.2f} with start-up")
    if options.heads > 1:
        rate = (options.heads - 1) / (whole - first)
        print(f"heads/s          {rate:8.2f} after the first head")
        print(f"images/s         {rate * options.lights:8.2f} after the first head")
    print(f"bytes per head   {stored / options.heads:8.0f}")


if __name__ == "__main__":
    main()
