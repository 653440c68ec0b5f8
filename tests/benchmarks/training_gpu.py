"""The training step's share of the machine's matrix-product rate, as a table for the README.

    python tests/benchmarks/training_gpu.py [--size 256] [--portraits 64] [--steps 20]

For GPUs: runs `relightx bench-train` with noise pictures for each preset, as it is and compiled, in
bf16, and prints a row for each with the date and the device. The batch is one process's.
"""

import argparse
import datetime
import re
import subprocess
import sys

import torch

ROW = re.compile(r"│ (.+?)\s*│\s*(.+?) │")


def measured(options: list[str]) -> dict[str, str]:
    """The table of bench-train, by the names in it."""
    command = [sys.executable, "-m", "relightx.benchtrain", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"images a second": f"failed: {done.stderr.strip().splitlines()[-1][:80]}"}
    return dict(ROW.findall(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--portraits", type=int, default=64, help="of a step, two lights each")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", choices=["auto", "bf16", "float32"], default="bf16")
    parser.add_argument("--presets", nargs="+", default=["unet:32", "unet:96", "sfsnet:32"])
    own = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{datetime.date.today()}, {device}, torch {torch.__version__}, {own.size} px,")
    print(f"{own.portraits} portraits of two lights a step, {own.precision}\n")
    print("| preset:width | compiled | images/s | of the matrix product's rate | memory |")
    print("|---|---|---|---|---|")
    for name in own.presets:
        preset, width = name.split(":")
        for compiled in ("false", "true"):
            found = measured(
                [
                    *(f"--model.preset={preset}", f"--model.width={width}"),
                    *(f"--data.image_size={own.size}", f"--data.batch_size={own.portraits}"),
                    *(f"--run.precision={own.precision}", f"--run.compile={compiled}"),
                    f"--steps={own.steps}",
                ]
            )
            cells = [
                found.get(key, "")
                for key in ("images a second", "of a matrix product's", "GPU memory")
            ]
            print(f"| {name} | {compiled} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
