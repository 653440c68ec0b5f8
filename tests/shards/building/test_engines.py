"""The same bytes from worker processes, a Ray cluster and a SLURM array."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from balls import ball
from ray_nodes import ENVIRONMENT, ray_cluster

from relightx.sample import encode
from relightx.storage import open_folder

ROOT = Path(__file__).parents[3]


def contents(directory: Path) -> dict[str, bytes]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def relightx_shards(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shards.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}, cwd=ROOT
    )


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> Path:
    """Forty subjects under two lights, and `here`, the data set that this machine makes of them."""
    place = tmp_path_factory.mktemp("captures")
    for number in range(40):
        members = encode(ball(lights=2, size=24, seed=number))
        directory = place / "root" / f"s{number:02d}"
        directory.mkdir(parents=True)
        for name in ("light000.png", "light001.png"):
            (directory / name).write_bytes(members[name])
    done = build(place, place / "here")
    assert done.returncode == 0, done.stderr
    assert len(list((place / "here").rglob("*.tar"))) > 8
    return place


def build(captures: Path, out: object, *flags: object) -> subprocess.CompletedProcess[str]:
    return relightx_shards("build", *folder(captures / "root", out), *flags)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Ray cluster of two nodes."""
    with ray_cluster() as nodes:
        yield nodes.address


def test_a_ray_cluster_of_two_nodes_makes_the_same_bytes(captures, cluster, tmp_path):
    done = build(captures, tmp_path / "d", "--engine", "ray", "--address", cluster)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "d") == contents(captures / "here")
    assert os.listdir(tmp_path) == ["d"]


def test_a_fault_on_a_ray_cluster_is_named_without_a_trace(captures, cluster, tmp_path):
    spoilt = shutil.copytree(captures, tmp_path / "spoilt")
    (spoilt / "root/s07/light001.png").write_bytes(b"")
    done = build(spoilt, tmp_path / "d", "--engine", "ray", "--address", cluster)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "s07/light001.png" in done.stderr


def test_a_ray_cluster_that_is_not_there_is_refused(captures, tmp_path):
    done = build(captures, tmp_path / "d", "--engine", "ray", "--address", "127.0.0.1:1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Ray cluster 127.0.0.1:1: cannot be joined" in done.stderr


def test_a_slurm_array_makes_the_same_bytes(slurm, captures, tmp_path):
    job = submit(slurm, tmp_path, "3-7:2", *folder(captures / "root", tmp_path / "d"))
    states = slurm.wait(job)
    assert set(states.values()) == {"COMPLETED"} and len(states) == 3, logs(tmp_path)
    assert contents(tmp_path / "d") == contents(captures / "here")
    assert "published" not in logs(tmp_path) and logs(tmp_path).count("written") == 1


def test_a_job_that_is_preempted_is_requeued_and_goes_on(slurm, captures, tmp_path):
    large = tmp_path / "root"
    for copy in range(12):
        for subject in (captures / "root").iterdir():
            shutil.copytree(subject, large / f"{subject.name}-{copy:02d}", copy_function=os.link)
    out = tmp_path / "d"
    job = submit(slurm, tmp_path, "0-1", *folder(large, out))
    second = tmp_path / ".d.partial/train/shard-000001.tar"
    wait_for(second.exists)
    slurm.requeue(f"{job}_0")
    states = slurm.wait(job)
    assert set(states.values()) == {"COMPLETED"}, logs(tmp_path) + slurm.logs()
    undisturbed = tmp_path / "undisturbed"
    assert relightx_shards("build", *folder(large, undisturbed)).returncode == 0
    assert contents(out) == contents(undisturbed)


def test_a_job_without_a_source_says_how_it_is_used(slurm, tmp_path):
    script = ["--output=%x-%A_%a.log", str(ROOT / "launch/shards.sbatch")]
    jobs = [
        slurm.submit(f"--export=ALL,RELIGHTX_ROOT={ROOT}", *script, cwd=tmp_path),
        slurm.submit(*script, cwd=tmp_path),
    ]
    for job in jobs:
        assert set(slurm.wait(job).values()) == {"FAILED"}
    assert "a source is needed: sbatch --array=0-7" in logs(tmp_path)
    assert f"no launch/env.sh in {tmp_path}; submit from the project's root" in logs(tmp_path)


def test_rendered_heads_are_the_same_from_ray_and_from_a_slurm_array_into_s3(
    slurm, cluster, s3, tmp_path
):
    heads = ["--heads", 6, "--lights", 2, "--size", 32, "--light", "traced", "--layers"]
    heads = ["synthetic", *heads, "--split", "train=0.5,val=0.5", "--shard-mb", "0.03"]
    here = relightx_shards("build", *heads, "--out", tmp_path / "here", "--workers", 2)
    assert here.returncode == 0, here.stderr
    engine = ["--engine", "ray", "--address", cluster]
    by_ray = relightx_shards("build", *heads, "--out", tmp_path / "by_ray", *engine)
    assert by_ray.returncode == 0, by_ray.stderr
    assert contents(tmp_path / "by_ray") == contents(tmp_path / "here")
    out = s3.new_url()
    states = slurm.wait(
        submit(slurm, tmp_path, "0-1", *heads, "--out", out, "--endpoint-url", s3.endpoint)
    )
    assert set(states.values()) == {"COMPLETED"} and len(states) == 2, logs(tmp_path)
    kept = open_folder(out, s3.options())
    assert {name: kept.read(name) for name in kept.names()} == contents(tmp_path / "here")


def submit(slurm, where: Path, array: str, *flags: object) -> str:
    script = [f"--array={array}", "--cpus-per-task=1", str(ROOT / "launch/shards.sbatch")]
    environment = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}
    environment |= {"RELIGHTX_ROOT": ROOT, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    export = ",".join(f"{name}={text}" for name, text in environment.items())
    return slurm.submit(f"--export=ALL,{export}", *script, *map(str, flags), cwd=where)


def folder(captures: Path, out: Path) -> list[object]:
    return ["folder", "--in", captures, "--out", out, "--shard-mb", "0.02"]


def logs(where: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(where.glob("*.log")))


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
