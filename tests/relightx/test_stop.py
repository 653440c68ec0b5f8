"""A run that is asked to stop saves at the same step in all processes, and can go on from it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import children, curves, launch, rank_of, trained, wait_for_step

pytestmark = pytest.mark.usefixtures("one_core")


def ask(number: int):
    return lambda program, directory: program.send_signal(number)


def touch_stop(_program: subprocess.Popen, directory: Path) -> None:
    (directory / "STOP").touch()


@pytest.mark.parametrize(
    ("way", "cause"),
    [
        (ask(signal.SIGTERM), "SIGTERM"),
        (ask(signal.SIGINT), "SIGINT"),
        (touch_stop, "STOP"),
    ],
    ids=["SIGTERM", "SIGINT", "file"],
)
def test_a_process_that_is_asked_saves_and_can_be_resumed_to_the_last_bit(
    tiny_options, undisturbed, tmp_path, way, cause
):
    directory = tmp_path / "run"
    options = [*tiny_options(directory), *LONG]
    program = subprocess.Popen(
        [sys.executable, "-m", "relightx.train", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_step(directory, 4, program)
    way(program, directory)
    said = program.communicate(timeout=60)[1]
    assert program.returncode == 3, said
    stopped = int(said.split("stopped at step ")[1].split()[0])
    assert 4 <= stopped < 80 and cause in said.rsplit("stopped", 1)[1]
    assert (directory / "REQUEUE").exists()
    assert (directory / "checkpoints" / f"step-{stopped:08d}").is_dir()
    trained("single", [*options, "--run.resume=true"])
    assert not (directory / "REQUEUE").exists() and not (directory / "STOP").exists()
    assert curves(directory) == curves(undisturbed)


def test_the_readers_outlive_the_signal_that_all_processes_get(tiny_options, tmp_path):
    directory = tmp_path / "run"
    options = [*tiny_options(directory), *LONG]
    program = subprocess.Popen(
        [sys.executable, "-m", "relightx.train", *options, "--data.num_workers=2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_step(directory, 4, program)
    os.killpg(program.pid, signal.SIGTERM)
    said = program.communicate(timeout=60)[1]
    assert program.returncode == 3, said
    assert "killed by signal" not in said


def test_one_of_two_processes_that_is_asked_stops_both_at_the_same_step(tiny_options, tmp_path):
    directory = tmp_path / "run"
    options = [*tiny_options(directory), *LONG]
    program = launch("ddp_cpu", options)
    wait_for_step(directory, 4, program)
    (second,) = [pid for pid in children(program.pid) if rank_of(pid) == 1]
    os.kill(second, signal.SIGUSR1)
    said, _ = program.communicate(timeout=120)
    assert said.count("stopped at step ") == 2
    steps = {part.split()[0] for part in said.split("stopped at step ")[1:]}
    assert len(steps) == 1
    assert "asked by SIGUSR1" in said and "asked by another process" in said
    step = int(steps.pop())
    resumed = trained("ddp_cpu", [*options, f"--run.steps={step + 4}", "--run.resume=true"])
    assert f"step {step} to {step + 4}" in resumed


LONG = [
    "--run.steps=80",
    "--run.log_every=1",
    "--run.validate_every=0",
    "--run.checkpoint_every=300",
]


def test_processes_whose_launcher_is_killed_save_and_end(tiny_options, tmp_path):
    directory = tmp_path / "run"
    program = launch("ddp_cpu", [*tiny_options(directory), *LONG])
    wait_for_step(directory, 4, program)
    started = children(program.pid)
    ranks = [psutil.Process(pid) for pid in started if rank_of(pid) is not None]
    program.kill()
    program.communicate(timeout=60)  # until nobody writes to its pipe any more
    assert len(ranks) == 2
    # Who has taken the processes over need not have asked how they ended.
    left = psutil.wait_procs(ranks, 10)[1]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in left)
    assert (directory / "REQUEUE").exists()
    stopped = max(int(path.name[5:]) for path in (directory / "checkpoints").glob("step-*"))
    assert 4 <= stopped < 80


@pytest.fixture(scope="module")
def undisturbed(tiny_options, tmp_path_factory, on_one_core) -> Path:
    directory = tmp_path_factory.mktemp("long") / "run"
    with on_one_core():
        trained("single", [*tiny_options(directory), *LONG])
    return directory
