"""Start-up, resume and memory of training's loader, for a thousand to ten million portraits.

python tests/benchmarks/loader_scale.py --groups 1000 100000 10000000

Of a real shard as many hard links are made as a set of that size has shards, under an index that
lists them all, so batches are really read. Each line is of a fresh process that begins at a step:
the first, one in the middle of an epoch, one after a thousand epochs. "ready" is the time to the
loader, "first batch" from there to a batch in hand, which starts the reader process. Memory: what
the training process has more than before the index was opened, its own ("anonymous") and mapped
from files, which all processes of the machine share; and what the reader has of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from relightx.data import DataConfig, training_batches
from relightx.index import NAME, TABLE, VERSION, read_index, write_columns
from relightx.sample import Portrait, Provenance
from shards.write import write_split

HEADING = ("portraits", "shards", "begins at step", "ready ms", "first batch ms", "batch ms")
HEADING += ("own MB", "mapped MB", "reader own MB")
ROW = "{:>10}{:>8}{:>16}{:>10}{:>16}{:>10}{:>8}{:>11}{:>15}"
PER_SHARD, BATCH, LIGHTS, SIZE = 200, 16, 4, 32


def portraits() -> list[Portrait]:
    """Noise: only its bytes matter here."""
    rng = np.random.default_rng(0)
    about = Provenance("noise", "CC0", "none", "srgb")
    names = tuple(f"lamp{number}" for number in range(LIGHTS))
    return [
        Portrait(
            key=f"g{number:05d}",
            subject=f"p{number // 5:05d}",
            image=rng.integers(0, 255, (LIGHTS, SIZE, SIZE, 3), np.uint8),
            light_name=names,
            provenance=about,
        )
        for number in range(PER_SHARD)
    ]


def make_set(one: Path, directory: Path, groups: int) -> None:
    """A split of so many portraits, whose shards are all the one of the split `one`."""
    index = read_index(one)
    (shard,) = index.shards
    times, column = groups // PER_SHARD, index.table.columns.column
    counts = {"key_end": len(column["key"]), "size_end": len(column["size"])}
    tiled = {
        name: np.tile(values, times)
        if not name.endswith("_end")
        else (values + counts[name] * np.arange(times, dtype=values.dtype)[:, None]).ravel()
        for name, values in column.items()
        if not name.startswith("subject_")
    }
    tiled |= {name: values for name, values in column.items() if name.startswith("subject_")}
    directory.mkdir()
    table = write_columns(directory / TABLE, tiled)
    listed = []
    for number in range(times):
        name = f"shard-{number:06d}.tar"
        os.link(one / shard.name, directory / name)
        about = {"name": name, "bytes": shard.bytes, "sha256": shard.sha256, "groups": PER_SHARD}
        listed.append(about)
    layouts = json.loads((one / NAME).read_text())["layouts"]
    content = {"version": VERSION, "split": "train", "shards": listed, "layouts": layouts}
    content["table"] = {"name": TABLE, **table._asdict()}
    (directory / NAME).write_text(json.dumps(content))


def measure(directory: Path, step: int) -> dict[str, float]:
    """In a process of its own: begin at a step."""
    config = DataConfig(
        train=[str(directory)], image_size=SIZE, batch_size=BATCH, num_workers=1, streams=8
    )
    before = memory_mb(os.getpid())
    start = time.perf_counter()
    loader = training_batches(config, step, step + 100)
    ready = time.perf_counter()
    batches = iter(loader)
    next(batches)
    first = time.perf_counter()
    for _ in range(20):
        next(batches)
    later = time.perf_counter()
    after = memory_mb(os.getpid())
    (reader,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "ready": 1e3 * (ready - start),
        "first": 1e3 * (first - ready),
        "batch": 1e3 * (later - first) / 20,
        "own": after["own"] - before["own"],
        "mapped": after["mapped"] - before["mapped"],
        "reader": memory_mb(int(reader))["dirty"],
    }


def memory_mb(process: int) -> dict[str, float]:
    """Memory that is a process's own, mapped from files, and not shared with its parent."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    held = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    own = held["Anonymous"]
    return {"own": own, "mapped": held["Rss"] - own, "dirty": held["Private_Dirty"]}


def in_a_fresh_process(directory: Path, step: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(directory), "--step", str(step)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[1000, 100_000, 10_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.step)))
        return
    print(ROW.format(*HEADING))
    with tempfile.TemporaryDirectory() as place:
        one = Path(place) / "one"
        write_split(portraits(), one, "train")
        for groups in options.groups:
            directory = Path(place) / str(groups)
            make_set(one, directory, groups // PER_SHARD * PER_SHARD)
            epoch = groups // BATCH
            for step in (0, epoch // 2, 1000 * epoch):
                found = in_a_fresh_process(directory, step)
                numbers = [f"{value:.1f}" for value in found.values()]
                print(ROW.format(groups, groups // PER_SHARD, step, *numbers), flush=True)


if __name__ == "__main__":
    main()
