"""Training in several real processes by accelerate's launcher."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from relightx.runlog import read_log

PRESETS = Path(__file__).parents[2] / "configs" / "accelerate"


def launch(
    preset: str,
    options: list[str],
    processes: int = 2,
    place: Path | None = None,
    device: str = "cpu",
    **launcher: object,
) -> subprocess.Popen:
    """Start `relightx.train` with a file of configs/accelerate/.

    place: the directory to start it in; that of the project, from which DeepSpeed's file is looked
    up. launcher: other options of accelerate's.
    """
    accelerate = shutil.which("accelerate", path=str(Path(sys.executable).parent))
    extra = [f"--{name}={value}" for name, value in launcher.items()]
    if preset not in ("ddp_cpu", "single"):
        # That of the others is 29500, which another test's run may have.
        extra.append(f"--num_processes={processes}")
        extra += [] if "main_process_port" in launcher else ["--main_process_port=0"]
    return subprocess.Popen(
        [
            *(accelerate, "launch", f"--config_file={PRESETS / preset}.yaml", *extra),
            *("-m", "relightx.train", *options),
            *([] if preset == "single" else [f"--run.device={device}"]),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=place or PRESETS.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trained(preset: str, options: list[str], seconds: float = 300, **launcher: object) -> str:
    """What a whole run printed; AssertionError with it when it failed."""
    return ended(launch(preset, options, **launcher), seconds)


def ended(program: subprocess.Popen, seconds: float = 300) -> str:
    """What a program printed to its end; AssertionError with it when it failed."""
    try:
        said, _ = program.communicate(timeout=seconds)
    finally:
        program.kill()
    assert program.returncode == 0, said
    return said


def wait_for_step(directory: Path, step: int, program: subprocess.Popen) -> None:
    """Until a run's log has a step; AssertionError when it ends before."""
    log = directory / "metrics.jsonl"
    while not (log.exists() and any(record["step"] >= step for record in read_log(log))):
        assert program.poll() is None
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """Processes that a process has started and that are still there."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def rank_of(pid: int) -> int | None:
    """The rank that a launcher has given to a process."""
    for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if variable.startswith(b"RANK="):
            return int(variable.removeprefix(b"RANK="))
    return None


def curves(directory: Path) -> dict[tuple[int, str], float]:
    """Every logged number of a run that does not depend on the clock."""
    return {
        (record["step"], name): value
        for record in read_log(directory / "metrics.jsonl")
        for name, value in record.items()
        if name not in ("step", "time", "images_per_s", "loader_wait", "save_wait")
    }
