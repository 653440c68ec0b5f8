"""Training in several real processes by accelerate's launcher."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PRESETS = Path(__file__).parents[2] / "configs" / "accelerate"


def launch(
    preset: str, options: list[str], processes: int = 2, **launcher: object
) -> subprocess.Popen:
    """Start `relightx.train` with a file of configs/accelerate/; launcher: other options of it."""
    accelerate = shutil.which("accelerate", path=str(Path(sys.executable).parent))
    extra = [f"--{name}={value}" for name, value in launcher.items()]
    if preset != "ddp_cpu":
        # That of the others is 29500, which another test's run may have.
        extra.append(f"--num_processes={processes}")
        if "main_process_port" not in launcher:
            extra.append("--main_process_port=0")
    return subprocess.Popen(
        [
            *(accelerate, "launch", f"--config_file={PRESETS / preset}.yaml", *extra),
            *("-m", "relightx.train", *options, *cpu(preset)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=PRESETS.parents[1],  # from which DeepSpeed's file is looked up
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def cpu(preset: str) -> list[str]:
    """That several processes train without a GPU has to be said."""
    return [] if preset == "single" else ["--run.device=cpu"]


def trained(preset: str, options: list[str], seconds: float = 300, **launcher: object) -> str:
    """What a whole run printed; AssertionError with it when it failed."""
    program = launch(preset, options, **launcher)
    try:
        said, _ = program.communicate(timeout=seconds)
    finally:
        program.kill()
    assert program.returncode == 0, said
    return said
