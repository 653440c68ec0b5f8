"""Fixtures shared by the tests: spheres lit by known lights, where every answer is exact."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from relightx.batch import Batch, Decomposition, Truth
from relightx.sample import Portrait, Provenance
from relightx.sh import ambient_light, directional_light, shade
from shards.write import write_dataset

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
        os.sched_setaffinity(0, {max(cores)})
        yield
        os.sched_setaffinity(0, cores)

    return pinned


@pytest.fixture
def one_core(on_one_core) -> Iterator[None]:
    """The test, and what it starts, on one core."""
    with on_one_core():
        yield


def sphere(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals (3 x size x size) and mask of a ball that fills nine tenths of the picture."""
    place = ((torch.arange(size) + 0.5) / size * 2 - 1) / 0.9
    y, x = torch.meshgrid(-place, place, indexing="ij")
    mask = x * x + y * y < 0.98
    normal = torch.stack((x, y, (1 - x * x - y * y).clamp(min=0).sqrt()))
    ahead = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    return torch.where(mask, normal, ahead), mask


def smooth_albedo(size: int, generator: torch.Generator) -> torch.Tensor:
    """Coloured patches between 0.2 and 0.8, smooth between them."""
    coarse = 0.2 + 0.6 * torch.rand(1, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0]


def positive_lights(count: int, generator: torch.Generator) -> torch.Tensor:
    """Lights (count x 3 x 9) in front of the ball that shade no normal below 0 or above 1.1."""
    toward = torch.randn(count, 3, generator=generator)
    toward[:, 2] = toward[:, 2].abs() + 0.3
    strength = 0.5 + 0.3 * torch.rand(count, 3, 1, generator=generator)
    return directional_light(toward)[:, None] * strength + ambient_light(0.2)


def ball(
    key: str = "ball", subject: str = "anna", lights: int = 3, size: int = 32, seed: int = 0
) -> Portrait:
    """An exactly Lambertian ball with all labels, 16-bit linear images."""
    generator = torch.Generator().manual_seed(seed)
    normal, mask = sphere(size)
    albedo, sh = smooth_albedo(size, generator), positive_lights(lights, generator)
    image = (albedo * shade(normal, sh) * mask).permute(0, 2, 3, 1).numpy()
    toward = torch.nn.functional.normalize(sh[:, 0, [3, 1, 2]], dim=-1)
    return Portrait(
        key=key,
        subject=subject,
        image=np.rint(image * 65535).astype(np.uint16),
        light_name=tuple(f"lamp{index}" for index in range(lights)),
        provenance=Provenance(
            "balls 1", "CC0", "none", "linear", albedo="real", normal="real", light="real"
        ),
        albedo=albedo.permute(1, 2, 0).numpy(),
        normal=normal.permute(1, 2, 0).numpy(),
        mask=mask.numpy(),
        sh=sh.numpy(),
        direction=toward.numpy(),
    )


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
        return Batch(
            image=albedo[:, None] * shade(normals[:, None], sh) * mask,
            mask=mask.expand(portraits, 1, -1, -1).clone(),
            valid=yes,
            truth=Truth(albedo, normals, sh, yes, yes, yes),
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
