"""Fixtures shared by the tests: spheres lit by known lights, where every answer is exact."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from balls import ball, positive_lights, smooth_albedo, sphere
from fault_proxy import fault_proxy
from hypothesis import settings
from s3_server import new_credentials, s3, s3_server
from slurm_cluster import slurm

from relightx.batch import Batch, Decomposition, Truth
from relightx.sample import Portrait
from relightx.sh import shade
from shards.write import write_dataset

__all__ = [
    "fault_proxy",
    "new_credentials",
    "s3",
    "s3_server",
    "slurm",
]  # fixtures of their own files

# Machines are busy and seldom: what takes long is not a fault. The same examples in every run.
settings.register_profile("relightx", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("relightx")

# Before torch looks: the tests are for the CPU, where results repeat to the last bit.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, in any order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def on_one_core() -> Callable[[], AbstractContextManager[None]]:
    """Training uses all cores it may; a tiny network on one core is five times as fast."""

    @contextmanager
    def pinned() -> Iterator[None]:
        cores = os.sched_getaffinity(0)
        # Test processes that run side by side (pytest -n) take different ones.
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        os.sched_setaffinity(0, {sorted(cores)[-1 - worker % len(cores)]})
        yield
        os.sched_setaffinity(0, cores)

    return pinned


@pytest.fixture
def one_core(on_one_core) -> Iterator[None]:
    """The test, and what it starts, on one core."""
    with on_one_core():
        yield


@pytest.fixture
def make_portrait() -> Callable[..., Portrait]:
    """make(key, subject, lights, size, seed): see `ball`."""
    return ball


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory) -> Path:
    """A data set of balls under 4 lights at 32 px: 12 in train (several shards), 3 val, 4 test."""
    splits = ["train"] * 12 + ["val"] * 3 + ["test"] * 4
    assign = {f"person{number:02d}": split for number, split in enumerate(splits)}
    balls = (
        ball(f"ball{number:02d}", subject, lights=4, seed=number)
        for number, subject in enumerate(assign)
    )
    out = tmp_path_factory.mktemp("tiny") / "shards"
    write_dataset(balls, out, assign.__getitem__, shard_bytes=100_000)
    return out


@pytest.fixture
def portrait(make_portrait) -> Portrait:
    """One ball under three lights, with all labels."""
    return make_portrait()


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """make(portraits, lights, size, seed): exactly Lambertian balls with all labels."""

    def make(portraits: int = 2, lights: int = 3, size: int = 32, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        normal, mask = sphere(size)
        normals = normal.expand(portraits, -1, -1, -1).clone()
        albedo = torch.stack([smooth_albedo(size, generator) for _ in range(portraits)])
        sh = torch.stack([positive_lights(lights, generator) for _ in range(portraits)])
        yes = torch.ones(portraits, dtype=torch.bool)
        trust = torch.ones(portraits, 1, size, size)
        return Batch(
            image=albedo[:, None] * shade(normals[:, None], sh) * mask,
            mask=mask.expand(portraits, 1, -1, -1).clone(),
            valid=yes,
            truth=Truth(albedo, normals, sh, trust, yes, yes, yes),
        )

    return make


@pytest.fixture
def batch(make_batch) -> Batch:
    """Two balls under three lights each."""
    return make_batch()


def true_decomposition(batch: Batch) -> Decomposition:
    """The answer of a model that is always right."""
    return Decomposition(
        albedo=batch.truth.albedo[:, None].expand_as(batch.image).clone(),
        normal=batch.truth.normal[:, None].expand_as(batch.image).clone(),
        sh=batch.truth.sh.clone(),
    )


@pytest.fixture
def make_perfect() -> Callable[[Batch], Decomposition]:
    """make(batch): see `true_decomposition`."""
    return true_decomposition


@pytest.fixture
def perfect(batch) -> Decomposition:
    """The true decomposition of `batch`."""
    return true_decomposition(batch)
