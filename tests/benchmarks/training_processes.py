"""Images a second of two training processes on two cores against one on one.

    python tests/benchmarks/training_processes.py [--preset unet] [--size 128] [--rounds 5]

The batch of a process is the same in all. Beside them two processes that know nothing of each
other, begun together: what they lose is the machine's (cores that share caches, memory and clock),
what two of one run lose beyond that is the exchange's. In turn; medians of each round's ratios.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def started(options: list[str], processes: int, cores: set[int]) -> subprocess.Popen:
    """`relightx bench-train`, launched on these cores."""
    preset = "ddp_cpu" if processes > 1 else "single"
    launcher = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    launcher.append(f"--config_file={ROOT}/configs/accelerate/{preset}.yaml")
    return subprocess.Popen(
        [*launcher, "-m", "relightx.benchtrain", "--run.device=cpu", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def printed(program: subprocess.Popen, name: str = "images a second") -> float:
    """A number of the table that it prints."""
    said, _ = program.communicate()
    found = re.search(rf"{name}\W+([\d.]+)", said)
    if program.returncode or found is None:
        sys.exit(f"bench-train failed:\n{said}")
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--preset", choices=["sfsnet", "unet"], default="unet")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--portraits", type=int, default=4, help="of a process's step, two lights")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    own = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed")
    same = [f"--model.preset={own.preset}", f"--data.image_size={own.size}", f"--steps={own.steps}"]
    alone = [*same, f"--data.batch_size={own.portraits}"]
    rates: dict[str, list[float]] = {"one": [], "two apart": [], "two": []}
    for _ in range(own.rounds):
        rates["one"].append(printed(started(alone, 1, {cores[0]})))
        apart = [started(alone, 1, {core}) for core in cores]
        rates["two apart"].append(sum(printed(each) for each in apart))
        both = [*same, f"--data.batch_size={2 * own.portraits}"]
        rates["two"].append(printed(started(both, 2, set(cores))))
    print(f"{own.preset}, {own.size} px, {own.portraits} portraits of 2 lights a process and step")
    for name, found in rates.items():
        ratios = [rate / one for rate, one in zip(found, rates["one"], strict=True)]
        print(
            f"{name:10} {statistics.median(found):8.2f} images/s"
            f"  {statistics.median(ratios):.2f} of one ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
