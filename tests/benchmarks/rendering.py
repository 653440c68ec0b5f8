"""Speed of the source `synthetic`, from the first head to PNG bytes.

python tests/benchmarks/rendering.py --heads 64 --processes 2
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from relightx.sample import encode
from shards.rendering.synthetic import HeadJob, render_head, synthetic_jobs


def render_and_encode(job: HeadJob) -> int:
    """Bytes of the finished members."""
    return sum(len(member) for member in encode(render_head(job)).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=64)
    parser.add_argument("--lights", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    jobs = synthetic_jobs(heads=options.heads, lights=options.lights, size=options.size)

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
