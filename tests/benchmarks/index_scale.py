"""What the index of a thousand, a hundred thousand and ten million portraits costs a process.

python tests/benchmarks/index_scale.py --groups 1000 100000 10000000

Each row is of fresh processes, one or two at once, and, "from disk", with the index out of the
system's page cache. "private" and "shared" are what a process has more than after its imports:
pages of the mapped table are shared as soon as two processes have them. "memory" is what of it is
the process's own in any case (anonymous memory). All three are after the index was opened, one
portrait read and the fewest lights of all found. "portrait us" is then for each portrait of eight
shards, in any order, with the places of its members: what training asks of an index.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from relightx.index import NAME, TABLE, VERSION, Index, read_index, write_columns

HEADING = ("portraits", "shards", "processes", "index from", "open ms", "first us", "lights ms")
HEADING += ("portrait us", "private MB", "shared MB", "memory MB")
ROW = "{:>10}{:>8}{:>11}{:>12}{:>9}{:>10}{:>11}{:>13}{:>12}{:>11}{:>11}"
GROUPS_PER_SUBJECT = 5
MEMORY = ("Private_Clean", "Private_Dirty", "Shared_Clean", "Shared_Dirty", "Anonymous")


def write_synthetic_index(directory: Path, groups: int, lights: int, per_shard: int) -> None:
    """The index of a split without shards: sizes are drawn, everything else is regular."""
    layout = [f"light{number:03d}.png" for number in range(lights)]
    layout += ["albedo.png", "normal.png", "mask.png", "meta.json"]
    rng = np.random.default_rng(0)
    numbers = np.arange(groups)
    subjects = -(-groups // GROUPS_PER_SUBJECT)
    sizes = rng.integers(20_000, 100_000, groups * len(layout), np.uint32)
    taken = (sizes.reshape(groups, -1).astype(np.int64) + 1023) // 512 * 512
    end = np.cumsum(taken.sum(1))
    before = np.concatenate([[0], end[:-1]])
    shards = -(-groups // per_shard)
    first = before[::per_shard]
    columns = {
        "offset": before - np.repeat(first, per_shard)[:groups] + 512,
        "key_end": (numbers + 1) * 10,
        "size_end": (numbers + 1) * len(layout),
        "subject_end": (numbers[:subjects] + 1) * 10,
        "subject_digest": rng.integers(0, 1 << 64, subjects, np.uint64),
        "subject": numbers // GROUPS_PER_SUBJECT,
        "size": sizes,
        "lights": np.full(groups, lights),
        "layout": np.zeros(groups),
        "key": numbered("g", groups),
        "subject_name": numbered("p", subjects),
    }
    kinds = {"key": "u1", "subject_name": "u1", "subject": "u4", "size": "u4"}
    kinds |= {"lights": "u2", "layout": "u2"}
    table = write_columns(
        directory / TABLE,
        {name: values.astype(kinds.get(name, "u8")) for name, values in columns.items()},
    )
    shard_end = np.append(first[1:], end[-1])
    listed = [
        {
            "name": f"shard-{number:06d}.tar",
            "bytes": int(shard_end[number] - first[number]),
            "sha256": f"{number:064x}",
            "groups": min(per_shard, groups - number * per_shard),
        }
        for number in range(shards)
    ]
    content = {"version": VERSION, "split": "train", "shards": listed, "layouts": [layout]}
    content["table"] = {"name": TABLE, **table._asdict()}
    (directory / NAME).write_text(json.dumps(content))


def numbered(letter: str, count: int) -> np.ndarray:
    """ "g000000000g000000001...", as bytes."""
    text = np.full((count, 10), ord(letter), np.uint8)
    for place in range(9):
        text[:, 9 - place] = ord("0") + np.arange(count) // 10**place % 10
    return text.ravel()


def measure(directory: Path) -> None:
    """In a process of its own: times as JSON, and the memory when all others are as far."""
    before = memory_mb()
    start = time.perf_counter()
    index = read_index(directory)
    opened = time.perf_counter()
    first = index.groups[index.num_groups // 2]
    _ = first.members["meta.json"]
    reached = time.perf_counter()
    fewest = int(index.lights.min())
    counted = time.perf_counter()
    say({"opened": opened - start, "first": reached - opened, "fewest": fewest})
    sys.stdin.readline()
    after = memory_mb()
    say({name: after[name] - before[name] for name in MEMORY})
    sys.stdin.readline()
    say({"each": seconds_for_each(index), "lights": counted - reached})


def seconds_for_each(index: Index) -> float:
    """Seconds for a portrait and its members, of some shards' portraits in any order."""
    rng = np.random.default_rng(0)
    shards = rng.choice(len(index.shards), min(8, len(index.shards)), replace=False)
    places = [
        (index.shards[shard].groups, place)
        for shard in shards
        for place in range(index.groups_per_shard[shard])
    ]
    rng.shuffle(places)
    begun = time.perf_counter()
    for groups, place in places:
        _ = groups[place].members["light001.png"]
    return (time.perf_counter() - begun) / len(places)


def say(content: dict) -> None:
    """A line for the process that started this one."""
    print(json.dumps(content), flush=True)


def memory_mb() -> dict[str, float]:
    """Of this process, by the kernel's names."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    held = {line.split(":")[0]: line.split()[1] for line in lines}
    return {name: int(held[name]) / 1024 for name in MEMORY}


@contextmanager
def measured(directory: Path, processes: int) -> Iterator[list[subprocess.Popen]]:
    """So many processes at once."""
    command = [sys.executable, __file__, "--measure", str(directory)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.communicate()


def row(directory: Path, processes: int) -> dict[str, float]:
    """The slowest of some processes, with the memory of the largest."""
    with measured(directory, processes) as started:
        answers = [[told(process)] for process in started]
        for _ in range(2):
            for process, answer in zip(started, answers, strict=True):
                process.stdin.write("\n")
                process.stdin.flush()
                answer.append(told(process))
    found = [one | two | three for one, two, three in answers]
    most = {name: max(answer[name] for answer in found) for name in found[0]}
    return {
        "open ms": most["opened"] * 1e3,
        "first us": most["first"] * 1e6,
        "lights ms": most["lights"] * 1e3,
        "portrait us": most["each"] * 1e6,
        "private MB": most["Private_Clean"] + most["Private_Dirty"],
        "shared MB": most["Shared_Clean"] + most["Shared_Dirty"],
        "memory MB": most["Anonymous"],
    }


def told(process: subprocess.Popen) -> dict[str, float]:
    """The next line that a process says."""
    return json.loads(process.stdout.readline())


def forget(directory: Path) -> None:
    """Have the system drop what it holds of these files in memory."""
    for file in directory.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[1000, 100_000, 10_000_000])
    parser.add_argument("--lights", type=int, default=8, help="of each portrait (default: 8)")
    parser.add_argument("--per-shard", type=int, default=1000, help="portraits (default: 1000)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return
    print(ROW.format(*HEADING))
    for groups in args.groups:
        with tempfile.TemporaryDirectory(prefix="index-scale-") as name:
            directory = Path(name)
            write_synthetic_index(directory, groups, args.lights, args.per_shard)
            for processes, origin in ((1, "disk"), (1, "memory"), (2, "memory")):
                if origin == "disk":
                    forget(directory)
                values = [f"{value:.1f}" for value in row(directory, processes).values()]
                shards = -(-groups // args.per_shard)
                print(ROW.format(groups, shards, processes, origin, *values), flush=True)


if __name__ == "__main__":
    main()
