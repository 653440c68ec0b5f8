"""`relightx bench-train` says how fast a configuration trains and what limits it."""

import pytest
import torch

from relightx.backend import Backend
from relightx.benchtrain import bench_train, main
from relightx.config import parse_config

pytestmark = pytest.mark.usefixtures("one_core")
SMALL = [
    "--data.image_size=32",
    "--data.batch_size=4",
    "--model.preset=unet",
    "--model.width=8",
    "--run.precision=float32",
]


def measured(options: list[str]):
    config = parse_config([*SMALL, *options])
    backend = Backend(config.run, config.optim, config.data.batch_size)
    return bench_train(config, 3, 1, backend)


def test_shares_and_rates_belong_together():
    rate = measured([])
    assert rate.images_per_s == pytest.approx(8 / rate.step_s)
    assert 0 < rate.flops < rate.matrix_flops
    assert rate.loader_wait < 0.2 and rate.communication == 0 and rate.memory is None


def test_reading_is_part_of_a_step_and_micro_batches_are_added(tiny_shards):
    data = [f"--data.train=[{tiny_shards}/train]", "--data.num_workers=0"]
    assert measured(data).loader_wait > 0.02
    halves = measured([*data, "--run.accumulation=2"])
    assert halves.images_per_s == pytest.approx(8 / halves.step_s)


def test_one_process_can_train_in_one_precision_and_then_in_another():
    for precision, kind in [("float32", torch.float32), ("bf16", torch.bfloat16)]:
        config = parse_config([*SMALL, f"--run.precision={precision}"])
        backend = Backend(config.run, config.optim, config.data.batch_size)
        with backend.accelerator.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_the_command_prints_a_table(capsys):
    assert main([*SMALL, "--steps=1", "--warm-up=0"]) == 0
    said = capsys.readouterr().out
    assert "images a second" in said and "of a matrix product's" in said


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--steps=0", "--steps must be 1 or more"),
        ("--data.train=[/nowhere]", "/nowhere"),
        ("--run.device=gpu", "run.device is gpu; torch finds none here"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, option, message):
    assert main([*SMALL, option]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
