"""Wall time of `relightx quickstart` by stage, and what its model reaches.

python tests/benchmarks/quickstart.py --minutes 5
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--heads", type=int, default=240)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "quickstart"
        command = [sys.executable, "-m", "relightx", "quickstart", "--out", str(out)]
        command += ["--minutes", str(options.minutes), "--heads", str(options.heads)]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        whole = time.perf_counter() - start
        stages = json.loads((out / "summary.json").read_text())["stages"]
        summaries = json.loads((out / "evaluation.json").read_text())["summaries"]
        report_bytes = (out / "report.html").stat().st_size
    for stage in stages:
        print(f"{stage['name']:<12}{stage['seconds']:8.1f} s  {stage['text']}")
    print(f"{'whole':<12}{whole:8.1f} s")
    print(f"{'report':<12}{report_bytes / 1e6:8.2f} MB")
    for metric in ("normal_error_deg", "albedo_si_mae", "relighting_si_mse"):
        means = {name: row[metric]["mean"] for name, row in summaries.items() if metric in row}
        print(metric, *(f"{name} {value:.4g}" for name, value in means.items() if value))


if __name__ == "__main__":
    main()
