"""What a sweep costs beside the same trainings made by hand, and what many trials leave behind.

    python tests/benchmarks/sweeping.py [--minutes 3] [--trials 2] [--rounds 1]
    python tests/benchmarks/sweeping.py --many 200

The first trains so many times for so many minutes, as many at a time as there are cores, by hand
and as a sweep in turn, and prints the ratio of the wall times, Ray's start included. The second
sweeps many trainings of two steps and looks at the driver every few trials: memory, open files,
threads, processes below it. Medians of the second and of the last quarter are compared.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import yaml
from checkpointing import noise_shards

from relightx.runlog import read_log


def write_plan(place: Path, steps: int, seeds: int, size: int, width: int) -> Path:
    """The file of a sweep over seeds on noise pictures."""
    shards = place / "train"
    if not shards.exists():
        noise_shards(shards, size)
    data = {"train": [str(shards)], "val": [str(shards)], "image_size": size, "batch_size": 4}
    base = {
        "run": {"steps": steps, "validate_every": steps, "log_every": max(1, steps // 4)},
        "data": data | {"num_workers": 0, "memory_cache_mb": 100},
        "model": {"preset": "unet", "width": width},
    }
    (place / "base.yaml").write_text(yaml.safe_dump(base))
    plan = {
        "train": ["base.yaml"],
        "space": {"loss.cross_relighting": [1.0]},
        "seeds": list(range(seeds)),
        "objectives": ["relighting_mae"],
    }
    (place / f"sweep{seeds}.yaml").write_text(yaml.safe_dump(plan))
    return place / f"sweep{seeds}.yaml"


def by_hand(place: Path, out: Path, seed: int) -> None:
    """One training as a sweep has it."""
    command = [sys.executable, "-m", "relightx.train", "--config", str(place / "base.yaml")]
    command += [f"--run.dir={out / str(seed)}", "--run.threads=1", "--run.device=cpu"]
    command += [f"--run.seed={seed}", "--run.boards=[]"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stderr)


def swept(plan: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "relightx", "sweep", "--config", str(plan), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def trials(out: Path) -> int:
    return len(list(out.glob("trials/*/trial.json")))


def overhead(options: argparse.Namespace, place: Path) -> None:
    cores = len(os.sched_getaffinity(0))

    def trained_all(out: Path, count: int) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda seed: by_hand(place, out, seed), range(count)))
        return time.perf_counter() - began

    write_plan(place, 40, options.trials, options.size, options.width)
    trained_all(place / "rate", cores)
    rate = read_log(place / "rate" / "0" / "metrics.jsonl")[-2]["images_per_s"] / 8
    steps = max(4, int(options.minutes * 60 * rate))
    plan = write_plan(place, steps, options.trials, options.size, options.width)
    ratios, hands = [], []
    for number in range(options.rounds):
        hands.append(trained_all(place / f"hand{number}", options.trials))
        began = time.perf_counter()
        if swept(plan, place / f"out{number}").wait():
            sys.exit("the sweep failed")
        ratios.append((time.perf_counter() - began) / hands[-1])
        print(f"round {number + 1}: by hand {hands[-1]:.0f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"{options.trials} trainings of {steps} steps, {cores} at a time: by hand", end=" ")
    print(f"{statistics.median(hands):.0f} s, as a sweep {statistics.median(ratios):.3f} times")


def looked_at(process: psutil.Process) -> dict[str, float]:
    """MB of memory, open files and threads of a process, and the processes below it."""
    return {
        "MB": process.memory_info().rss / 1e6,
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        "processes": len(process.children(recursive=True)),
    }


def many(options: argparse.Namespace, place: Path) -> None:
    plan, out = write_plan(place, 2, options.many, 32, 8), place / "many"
    began = time.perf_counter()
    program, seen = swept(plan, out), []
    while program.poll() is None:
        done = trials(out)
        if done >= len(seen) * max(1, options.many // 40):
            seen.append(looked_at(psutil.Process(program.pid)))
        time.sleep(0.2)
    if program.returncode or trials(out) != options.many:
        sys.exit(f"the sweep ended with {program.returncode} and {trials(out)} trials")
    seconds = (time.perf_counter() - began) / options.many
    print(f"{options.many} trials, {seconds:.2f} s each; of the driver, medians of")
    quarter = len(seen) // 4
    for name in ("MB", "open files", "threads", "processes"):
        early = statistics.median(s[name] for s in seen[quarter : 2 * quarter])
        late = statistics.median(s[name] for s in seen[-quarter:])
        print(f"  {name}: second quarter {early:.0f}, last {late:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=3.0, help="of a training")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--many", type=int, default=0, help="short trials instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        (many if options.many else overhead)(options, Path(place))


if __name__ == "__main__":
    main()
