"""Counting a run's steps without slowing them: the device is read back on log steps only.

Every step's losses are kept on the device; a log step reduces them over all processes in one go,
checks each of them, and reports their mean since the last report. A loss that is not finite stops
every process with the step and the term it began with.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from relightx.tracking import Tracker

Value = TypeVar("Value")


class Meter:
    """Collects losses, waiting time and pictures of the steps since the last report."""

    def __init__(self, accelerator: Accelerator, tracker: Tracker, start_step: int) -> None:
        self.accelerator, self.tracker = accelerator, tracker
        self._rows: list[tuple[int, Tensor]] = []
        self._names: list[str] = []
        self._means: dict[str, float] = {}
        self._restart()

    def waited(self, fetch: Callable[[], Value]) -> Value:
        """Fetch something and count the time as waiting for data."""
        start = time.perf_counter()
        value = fetch()
        self._wait_s += time.perf_counter() - start
        return value

    def add(self, step: int, total: Tensor, losses: dict[str, Tensor], images: int) -> None:
        """Keep one micro-batch's losses."""
        self._names = [*losses, "total"]
        self._rows.append((step, torch.stack([*losses.values(), total.detach()]).float()))
        self._images += images

    def saved(self, seconds: float) -> None:
        """Note how long the training waited for a checkpoint."""
        self._save_s += seconds

    def flush(self) -> dict[str, float]:
        """Mean of each loss over processes and micro-batches since the last report.

        Raises FloatingPointError with the first step and term that are not finite.
        """
        if self._rows:
            steps = [row_step for row_step, _ in self._rows]
            table = torch.stack([row for _, row in self._rows])
            table = self.accelerator.reduce(table, "mean").cpu()
            self._refuse_not_finite(steps, table)
            values = table.double().mean(0).tolist()
            self._means = dict(zip(self._names, values, strict=True))
            self._rows = []
        return self._means

    def log(self, step: int, extra: dict[str, Any]) -> None:
        """Report the steps since the last report."""
        means = self.flush()
        elapsed = time.perf_counter() - self._start
        images_per_s = self._images * self.accelerator.num_processes / elapsed
        wait = self._wait_s / elapsed
        values = {
            **{f"loss/{name}": value for name, value in means.items()},
            **{name: float(value) for name, value in extra.items()},
            "images_per_s": round(images_per_s, 2),
            "loader_wait": round(wait, 4),
            "save_wait": round(self._save_s / elapsed, 4),
        }
        if self.accelerator.device.type == "cuda":
            values["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        note = (
            f"loss {means['total']:.4f}  {images_per_s:.0f} images/s  {wait:.0%} waiting for data"
        )
        self.tracker.log(step, values, note)
        self._restart()

    def _restart(self) -> None:
        self._start, self._wait_s, self._images = time.perf_counter(), 0.0, 0
        self._save_s = 0.0

    def _refuse_not_finite(self, steps: list[int], table: Tensor) -> None:
        bad = ~table.isfinite()
        if bad.any():
            row = int(bad.any(1).nonzero()[0])
            terms = [name for name, is_bad in zip(self._names, bad[row], strict=True) if is_bad]
            shown = {name: table[row, self._names.index(name)].item() for name in terms}
            raise FloatingPointError(
                f"step {steps[row]}: loss not finite: {shown}; nothing was saved from this step on."
                " Lower optim.learning_rate, or look at the data of that step"
            )
