"""What checkpoints cost a training, and how soon a stopped one goes on.

    python tests/benchmarks/checkpointing.py [--width 56] [--rounds 3]

Trains in turn with a checkpoint every 100 steps and with one at the end, on noise pictures so small
that a step is short (which makes a checkpoint's share large), with a state of about 100 MB at
width 56.
Prints the share of the time that training itself waits (save_wait of the log), the rate with and
without, for the thread that writes uses a core too, and the seconds from the launch of a resumed
run, Python's start included, to its first step in the log.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from relightx.runlog import read_log
from relightx.sample import Portrait, Provenance
from shards.write import write_split


def noise_shards(directory: Path, size: int) -> Path:
    """A split of 16 portraits under two lights."""
    random = np.random.default_rng(0)

    def portrait(number: int) -> Portrait:
        image = random.integers(0, 255, (2, size, size, 3), np.uint8)
        about = Provenance("noise", "CC0", "made", "srgb")
        return Portrait(f"head{number}", f"person{number}", image, ("left", "right"), about)

    write_split((portrait(number) for number in range(16)), directory, "train")
    return directory


def command(run: Path, shards: Path, options: argparse.Namespace, **changed: object) -> list[str]:
    values = {
        "run.dir": run,
        "run.steps": 3 * options.every,
        "run.log_every": options.every,
        "run.checkpoint_every": options.every,
        "run.keep_checkpoints": 2,
        "run.boards": "[]",
        "data.train": f"[{shards}]",
        "data.image_size": options.size,
        "data.batch_size": 4,
        "data.num_workers": 1,
        "model.preset": "unet",
        "model.width": options.width,
    }
    values |= {key.replace("__", "."): value for key, value in changed.items()}
    return [
        sys.executable,
        *("-m", "relightx.train"),
        *(f"--{name}={value}" for name, value in values.items()),
    ]


def trained(run: Path, shards: Path, options: argparse.Namespace, **changed: object) -> list[dict]:
    """The reports of a whole run, without the first, which has the start in it."""
    program = subprocess.run(
        command(run, shards, options, **changed), capture_output=True, text=True
    )
    if program.returncode:
        sys.exit(program.stderr)
    return [record for record in read_log(run / "metrics.jsonl") if "loss/total" in record][1:]


def resumed_s(run: Path, shards: Path, options: argparse.Namespace) -> float:
    """Seconds until a stopped run has made another step."""
    shutil.rmtree(run / "model")
    newest = max((run / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)
    start = time.perf_counter()
    changed = {"run__resume": "true", "run__log_every": 1}
    program = subprocess.Popen(
        command(run, shards, options, **changed), stderr=subprocess.DEVNULL, text=True
    )
    wanted = 2 * options.every + 1  # the log beyond the checkpoint is cut when the run goes on
    while all(record["step"] != wanted for record in read_log(run / "metrics.jsonl")):
        if program.poll() is not None:
            sys.exit("the resumed run failed")
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    program.kill()
    program.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--width", type=int, default=56, help="of the unet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=100, help="steps between two checkpoints")
    options = parser.parse_args()
    waits, ratios, steps, starts = [], [], [], []
    with tempfile.TemporaryDirectory() as place:
        shards = noise_shards(Path(place) / "train", options.size)
        for number in range(options.rounds):
            saving, silent = Path(place) / f"saving{number}", Path(place) / f"silent{number}"
            with_saves = trained(saving, shards, options)
            without = trained(silent, shards, options, run__checkpoint_every=10**6)
            waits.append(statistics.mean(record["save_wait"] for record in with_saves))
            rates = [
                statistics.mean(record["images_per_s"] for record in records)
                for records in (with_saves, without)
            ]
            ratios.append(rates[0] / rates[1])
            steps.append(8 / rates[0])
            starts.append(resumed_s(saving, shards, options))
            newest = max((saving / "checkpoints").glob("step-*"))
        record = json.loads((newest / "checkpoint.json").read_text())
        size = sum(bytes_ for bytes_, _ in record["files"].values())
    print(f"a state of {size / 1e6:.0f} MB, a checkpoint every {options.every} steps of", end=" ")
    print(f"{statistics.median(steps):.3f} s; medians of {options.rounds} rounds")
    print(f"training waits for saving {statistics.median(waits):.2%} of its time")
    print(f"rate with checkpoints, of the rate without {statistics.median(ratios):.3f}", end=" ")
    print(f"({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"from the launch of a resumed run to its first step {statistics.median(starts):.1f} s")


if __name__ == "__main__":
    main()
