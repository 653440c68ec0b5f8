"""Speed of a build against the limit of the machine, and its memory against the number of groups.

python tests/benchmarks/shard_building.py --groups 600 --lights 4 --size 256 --workers 2
python tests/benchmarks/shard_building.py --memory 1000 10000 100000

The limit is what as many bare processes reach that decode the same pictures, encode them and write
them to one file each, without names, checks, hashes, order or an index. Both are timed from the
first group that is done to the last, so that starting Python is in neither; the whole command's
time stands beside.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

LINE = "{:<52}{:>10.1f}{:>10.1f}"


def write_captures(root: Path, groups: int, lights: int, size: int) -> None:
    """Folders of pictures with the detail and noise of photographs."""
    noise = np.random.default_rng(0)
    coarse = noise.uniform(0, 255, (lights, 12, 12, 3)).astype(np.uint8)
    for group in range(groups):
        directory = root / f"s{group:05d}"
        directory.mkdir(parents=True)
        for light in range(lights):
            smooth = Image.fromarray(coarse[light]).resize((size, size), Image.Resampling.BICUBIC)
            grain = noise.normal(0, 4, (size, size, 3))
            pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(directory / f"light{light}.png", compress_level=1)


def bare_loop(directories: list[Path], out: Path, ready: "object", seconds: "object") -> None:
    """Decode, encode, write."""
    import cv2

    from relightx.codec import encode_png
    from relightx.picture import read_picture
    from shards.parallel import one_thread

    one_thread()
    cv2.setNumThreads(1)
    ready.wait()
    start = time.perf_counter()
    with open(out, "wb") as stream:
        for directory in directories:
            for file in sorted(directory.iterdir()):
                stream.write(encode_png(read_picture(file)))
    seconds.put(time.perf_counter() - start)


def limit(root: Path, out: Path, processes: int) -> float:
    """Seconds of the slowest of the bare processes."""
    context = get_context("spawn")
    ready, seconds = context.Barrier(processes), context.Queue()
    directories = sorted(root.iterdir())
    started = [
        context.Process(
            target=bare_loop, args=(directories[n::processes], out / f"{n}", ready, seconds)
        )
        for n in range(processes)
    ]
    for process in started:
        process.start()
    found = [seconds.get() for _ in started]
    for process in started:
        process.join()
    return max(found)


def build_seconds(root: Path, out: Path, workers: int) -> tuple[float, float, int]:
    """Seconds from the first group done to the last, of the whole, and groups between."""
    from shards.building.build import Settings, build
    from shards.sources.folder import folder

    times: list[float] = []
    start = time.perf_counter()
    build(
        partial(folder, root),
        out,
        lambda _: "train",
        Settings(workers=workers),
        progress=lambda _total, _done: lambda _: times.append(time.perf_counter()),
    )
    whole = time.perf_counter() - start
    return times[-1] - times[0], whole, len(times) - 1


def speed(groups: int, lights: int, size: int, workers: int, repeats: int) -> None:
    """Print both, in turn, and the ratio pair by pair."""
    with tempfile.TemporaryDirectory() as name:
        root, ratios = Path(name) / "captures", []
        write_captures(root, groups, lights, size)
        print(f"{'images/s, ' + str(workers) + ' processes':<52}{'steady':>10}{'whole':>10}")
        for number in range(repeats):
            place = Path(name) / f"run{number}"
            place.mkdir()
            bare = limit(root, place, workers)
            steady, whole, done = build_seconds(root, place / "d", workers)
            reached, possible = done * lights / steady, groups * lights / bare
            ratios.append(reached / possible)
            print(LINE.format("limit: decode, encode, write in a bare loop", possible, possible))
            print(LINE.format("relightx-shards build", reached, groups * lights / whole))
            shutil.rmtree(place)
        print(f"{'share of the limit, median of ' + str(repeats):<52}{np.median(ratios):>10.0%}")


def peak_memory(groups: int) -> float:
    """MiB that a build of so many tiny groups has at its peak, its workers included."""
    command = [sys.executable, __file__, "--tiny", str(groups)]
    process = subprocess.Popen(command)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, _resident(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the build of {groups} groups ended with {process.returncode}")
    return peak / 2**20


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * 4096 + sum(_resident(int(child)) for child in tasks)


def build_tiny(groups: int) -> None:
    """Build a set of so many groups of one picture of 8 x 8."""
    from shards.building.build import Settings, build

    with tempfile.TemporaryDirectory() as name:
        settings = Settings(shard_bytes=4 * 2**20)
        build(partial(tiny_groups, groups), Path(name) / "d", lambda _: "train", settings)


def tiny_groups(count: int) -> Iterator[object]:
    """Groups that need no file."""
    from shards.group import Group

    for number in range(count):
        key = f"g{number:08d}"
        yield Group(key, f"subject {number}", 1, partial(tiny, key))


def tiny(key: str) -> object:
    """A portrait of one gray picture."""
    from relightx.sample import Portrait, Provenance

    image = np.full((1, 8, 8, 1), len(key), np.uint8)
    return Portrait(key, key, image, ("lamp",), Provenance("tiny", "CC0", "none", "srgb"))


def memory(counts: list[int]) -> None:
    """Print the peak of each and the slope between them."""
    peaks = []
    for count in counts:
        peaks.append(peak_memory(count))
        print(f"{count:>9} groups: {peaks[-1]:8.1f} MiB at the peak", flush=True)
    if len(counts) > 1:
        slope = (peaks[-1] - peaks[0]) * 2**20 / (counts[-1] - counts[0])
        million = peaks[0] + slope * 1e6 / 2**20
        print(f"slope {slope:.0f} bytes a group; a million groups: about {million:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=600)
    parser.add_argument("--lights", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="+", metavar="GROUPS")
    parser.add_argument("--tiny", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        build_tiny(options.tiny)
    elif options.memory:
        memory(options.memory)
    else:
        speed(options.groups, options.lights, options.size, options.workers, options.repeats)


if __name__ == "__main__":
    main()
