"""How fast a configuration trains: `relightx bench-train [train's options]`, alone or launched.

The steps are those of training: the same processes, backend, precision, model, losses and, where
data.train is given, the same batches from the same place. Nothing is written.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate.utils import send_to_device, set_seed
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from relightx.backend import Backend, choose_precision
from relightx.batch import Batch
from relightx.config import Config, parse_config
from relightx.data import training_batches
from relightx.data.block import new_memory
from relightx.data.collate import Layout
from relightx.data.fault import cause_of
from relightx.losses import total_loss
from relightx.model import IntrinsicNet

_MATRIX = {"cpu": 2048, "cuda": 8192}
_TRIES = 5


class StepRate(NamedTuple):
    """What was measured, of all processes together but for what says otherwise.

    loader_wait, communication: shares of a step's time; communication is None where it cannot be
    left out for comparison. flops, matrix_flops: reached a second by this process, in the step and
    in a large matrix product. memory: bytes of the GPU at most.
    """

    images_per_s: float
    step_s: float
    loader_wait: float
    communication: float | None
    flops: float
    matrix_flops: float
    memory: int | None


def bench_train(config: Config, steps: int, warm_up: int, backend: Backend) -> StepRate:
    """Measure. Raises ValueError as training does."""
    run, data, launched = config.run, config.data, backend.launched
    device = backend.accelerator.device
    set_seed(run.seed)
    network = IntrinsicNet(config.model)
    micro = data.batch_size // (launched.world_size * run.accumulation)
    flops = _flops(network, micro, config, device)
    total_steps = warm_up + 2 * steps + 1
    batches = _batches(config, backend, total_steps, micro)
    backend.prepare(network, total_steps)
    backend.model.train()

    def step(exchanges: bool = True) -> tuple[float, float]:
        """Seconds of a step, and of waiting for data in it."""
        start, waited = _now(device), 0.0
        leave_out = nullcontext() if exchanges else backend.model.no_sync()
        for _ in range(run.accumulation):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            batch = send_to_device(batch, device, non_blocking=True)
            with leave_out, backend.micro_batch():
                total, _ = total_loss(backend.forward(batch.image), batch, config.loss)
                backend.backward(total)
                backend.step()
        return _now(device) - start, waited

    for _ in range(warm_up):
        step()
    may_leave_out = backend.kind == "ddp" and run.accumulation == 1
    whole, silent = [], []
    for _ in range(steps):  # in turn, so that a drifting machine hurts both alike
        whole.append(step())
        if may_leave_out:
            silent.append(step(exchanges=False)[0])
    seconds = statistics.median(taken for taken, _ in whole)
    waits = statistics.median(waited for _, waited in whole)
    communication = None
    if may_leave_out:
        communication = max(0.0, 1 - statistics.median(silent) / seconds)
    elif launched.world_size == 1:
        communication = 0.0
    return StepRate(
        images_per_s=data.batch_size * data.num_lights / seconds,
        step_s=seconds,
        loader_wait=waits / seconds,
        communication=communication,
        flops=flops * run.accumulation / seconds,
        matrix_flops=matrix_flops(choose_precision(run.precision), device),
        memory=torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    )


def show(rate: StepRate, config: Config, backend: Backend) -> None:
    """Print it as a table."""
    launched = backend.launched
    data = config.data
    table = Table(
        title=f"{config.model.preset} at {data.image_size} px, {data.batch_size} portraits of"
        f" {data.num_lights} lights a step; {launched.world_size} process(es),"
        f" {backend.accelerator.device.type}, {backend.kind},"
        f" {choose_precision(config.run.precision)}"
    )
    table.add_column("measured")
    table.add_column("value", justify="right")
    rows = {
        "images a second": f"{rate.images_per_s:.2f}",
        "seconds a step": f"{rate.step_s:.4f}",
        "waiting for data": f"{rate.loader_wait:.1%}",
        "communication": "not measured"
        if rate.communication is None
        else f"{rate.communication:.1%}",
        "GFLOP/s of a process": f"{rate.flops / 1e9:.0f}",
        "of a matrix product's": f"{rate.flops / rate.matrix_flops:.1%}"
        f" of {rate.matrix_flops / 1e9:.0f}",
    }
    if rate.memory is not None:
        rows["GPU memory"] = f"{rate.memory / 2**30:.1f} GiB"
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=110).print(table)


def main(arguments: list[str] | None = None, prog: str = "relightx bench-train") -> int:
    """Exit status 0; 2 for a wrong request, with a message."""
    own, others = _parser(prog).parse_known_args(arguments)
    config = parse_config(others, prog)
    try:
        if own.steps < 1 or own.warm_up < 0:
            raise ValueError("--steps must be 1 or more and --warm-up 0 or more")
        backend = Backend(config.run, config.optim, config.data.batch_size)
        rate = bench_train(config, own.steps, own.warm_up, backend)
        if backend.is_main:
            show(rate, config, backend)
        backend.accelerator.end_training()
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {cause_of(error)}", file=sys.stderr)
        return 2
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Time training steps and say what limits them. All other options are train's;"
        " without --data.train the pictures are noise in memory. Several processes: accelerate"
        " launch --config_file configs/accelerate/NAME.yaml -m relightx.benchtrain [OPTIONS].",
    )
    parser.add_argument(
        "--steps", type=int, default=20, metavar="N", help="to time (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up",
        type=int,
        default=3,
        metavar="N",
        help="steps before them that are not timed (default: %(default)s)",
    )
    return parser


def _batches(config: Config, backend: Backend, steps: int, micro: int) -> Iterator[Batch]:
    launched, accumulation = backend.launched, config.run.accumulation
    if not config.data.train:
        noise = send_to_device(noise_batch(config, micro), backend.accelerator.device)
        return iter(lambda: noise, None)
    loader = training_batches(
        config.data,
        0,
        steps,
        launched.rank,
        launched.world_size,
        accumulation,
        node_ranks=launched.local_size,
    )
    return iter(loader)


def noise_batch(config: Config, micro: int) -> Batch:
    """A batch with all labels, everything inside the mask."""
    layout = Layout(micro, config.data.num_lights, config.data.image_size)
    batch = layout.batch(new_memory(layout.bytes, pinned=False))
    generator = torch.Generator().manual_seed(0)
    for value in (batch.image, batch.truth.albedo, batch.truth.sh):
        value.uniform_(generator=generator)
    batch.truth.normal.normal_(generator=generator)
    batch.truth.normal.div_(batch.truth.normal.norm(dim=1, keepdim=True))
    batch.truth.confidence.fill_(1)
    for flag in (batch.mask, batch.valid, *batch.truth[-3:]):
        flag.fill_(True)
    return batch


def _flops(network: IntrinsicNet, micro: int, config: Config, device: torch.device) -> int:
    """Of forward and backward pass of a micro-batch."""
    batch = send_to_device(noise_batch(config, micro), device)
    network.to(device)
    with FlopCounterMode(display=False) as counter:
        total_loss(network(batch.image), batch, config.loss)[0].backward()
    network.zero_grad()
    return counter.get_total_flops()


def matrix_flops(precision: str, device: torch.device, size: int | None = None) -> float:
    """Of a square matrix product, the best of a few; a second."""
    size = size or _MATRIX[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.rand(size, size, device=device).to(dtype)
    best = min(timed(lambda: left @ left, device) for _ in range(_TRIES))
    return 2 * size**3 / best


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that something takes, the GPU's part of it included."""
    start = _now(device)
    run()
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())
