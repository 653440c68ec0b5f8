"""Several processes: on two nodes, and when one of them dies, hangs, or was told something else."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import children, launch, rank_of, trained, wait_for_step

from relightx.runlog import read_log

pytestmark = pytest.mark.usefixtures("one_core")
LONG = ["--run.steps=2000", "--run.validate_every=0", "--run.checkpoint_every=3000"]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_nodes(options: list[list[str]], port: int, places: list[Path | None] | None = None):
    """A launcher for each node, as on two machines; what each printed and its status."""
    nodes = [
        launch(
            "ddp",
            options[node],
            place=places and places[node],
            num_machines=2,
            machine_rank=node,
            main_process_ip="127.0.0.1",
            main_process_port=port,
        )
        for node in range(2)
    ]
    try:
        return [(node.communicate(timeout=200)[0], node.returncode) for node in nodes]
    finally:
        for node in nodes:
            node.kill()


def test_two_nodes_train_as_one_does_and_one_goes_on(tiny_run, tiny_options, tmp_path, port):
    directory = tmp_path / "run"
    first = [*tiny_options(directory), "--run.checkpoint_every=8"]
    for said, status in two_nodes([first, first], port):
        assert status == 0, said
    alone, together = (read_log(path / "metrics.jsonl") for path in (tiny_run, directory))
    for one, two in zip(alone, together, strict=True):
        if "loss/total" in one:
            assert two["loss/total"] == pytest.approx(one["loss/total"], rel=5e-4)
    more = [*first, "--run.steps=18", "--run.resume=true"]
    assert "step 16 to 18, 1 process(es)" in trained("single", more)


def test_nodes_with_different_options_are_refused_by_key_and_rank(tiny_options, tmp_path, port):
    options = tiny_options(tmp_path / "run")
    (said, status), (_, other) = two_nodes(
        [options, [*options, "--optim.learning_rate=0.25"]], port
    )
    assert status != 0 and other != 0
    host = socket.gethostname()
    assert f"optim.learning_rate: 0.005 on rank 0 ({host}), 0.25 on rank 1 ({host})" in said
    assert "Start all with the same program and options" in said
    assert not (tmp_path / "run").exists()


def test_nodes_that_do_not_share_the_runs_directory_are_told(tiny_options, tmp_path, port):
    """The same name, and on each node another directory."""
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    options = tiny_options(Path("run"))
    (_, status), (said, other) = two_nodes([options, options], port, places)
    assert status != 0 and other != 0
    assert "rank 1 on" in said and "does not see" in said
    assert "run.dir must lie on a disk that all nodes share" in said


def test_a_port_in_use_is_named(tiny_options, tmp_path, port):
    """On one node the launcher takes another one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        first = launch(
            "ddp",
            tiny_options(tmp_path / "run"),
            num_machines=2,
            machine_rank=0,
            main_process_ip="127.0.0.1",
            main_process_port=port,
        )
        said, _ = first.communicate(timeout=60)
    assert first.returncode != 0
    assert f"port `{port}`" in said and "--main_process_port" in said


def test_a_preset_for_gpus_on_a_node_without_is_refused(tiny_options, tmp_path):
    program = launch("ddp", [*tiny_options(tmp_path / "run")], device="auto")
    said, _ = program.communicate(timeout=60)
    assert program.returncode != 0
    assert "ddp was launched in 2 processes, and torch finds no GPU on this node" in said
    assert "to train on CPUs say --run.device cpu" in said


def test_a_rank_that_dies_ends_the_run_and_is_named(tiny_options, tmp_path):
    directory = tmp_path / "run"
    program = launch("ddp_cpu", [*tiny_options(directory), *LONG])
    wait_for_step(directory, 4, program)
    (second,) = [pid for pid in children(program.pid) if rank_of(pid) == 1]
    os.kill(second, signal.SIGKILL)
    said, _ = program.communicate(timeout=90)
    assert program.returncode != 0
    assert "rank      : 1" in said and "SIGKILL" in said


def test_a_rank_that_hangs_ends_the_run_and_is_named(tiny_options, tmp_path):
    directory = tmp_path / "run"
    program = launch("ddp_cpu", [*tiny_options(directory), *LONG, "--run.hang_s=8"])
    wait_for_step(directory, 4, program)
    (second,) = [pid for pid in children(program.pid) if rank_of(pid) == 1]
    os.kill(second, signal.SIGSTOP)
    said, _ = program.communicate(timeout=90)
    assert program.returncode != 0
    assert "nothing has moved for 8 s (run.hang_s): rank 0 is in" in said
    assert f"rank 1 ({socket.gethostname()}, pid {second}) is stopped or gone, at last in" in said


LIMITED = """
import resource, sys
from relightx.train import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk_while_saving_says_so_and_the_last_checkpoint_stays(tiny_options, tmp_path):
    """A limit of a file's size, since one process's disk cannot be filled without others'."""
    directory = tmp_path / "run"
    options = [*tiny_options(directory), "--run.validate_every=0"]
    assert trained("single", [*options, "--run.steps=8"])
    kept = sorted(path.name for path in (directory / "checkpoints").iterdir())
    weights = directory / "checkpoints" / "step-00000008" / "model.safetensors"
    limit = str(weights.stat().st_size // 2)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, limit, *options, "--run.steps=16", "--run.resume=true"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "it did not fit and nothing of it was kept; free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (directory / "checkpoints").iterdir()) == kept
