"""Scoring the averaged weights in the middle of a run, each process its share of the portraits."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from relightx.config import Config
from relightx.data import evaluation_batches, whole_reader
from relightx.evaluate import decompose, summarise_portraits
from relightx.index import Index
from relightx.measures import METRICS
from relightx.metrics import score
from relightx.model import IntrinsicNet
from relightx.panels import decomposition_panel
from relightx.tracking import Tracker

_PANEL_ROWS = 4
"""Portraits of the picture, the first of data.val that the main process has: always the same."""
BEST_METRICS = ("normal_error_deg", "relighting_si_mse", "reconstruction_si_mse")
"""The first of these that a validation split can measure decides which weights are the best."""


@torch.no_grad()
def validate(
    config: Config,
    indexes: list[Index],
    accelerator: Accelerator,
    average: dict[str, Tensor],
    tracker: Tracker,
    step: int,
    best: dict[str, Any] | None,
    begins: Callable[[str], None],
) -> dict[str, Any] | None:
    """Score the averaged weights, which are whole; the best score so far is returned.

    begins: told the key of each portrait. Raises FloatingPointError for answers that are not
    finite.
    """
    model = IntrinsicNet(config.model)
    model.load_state_dict(average)
    model.to(accelerator.device).eval()
    scores, seen = {}, []
    for key, batch in evaluation_batches(
        indexes,
        config.data.image_size,
        config.run.validate_lights,
        accelerator.process_index,
        accelerator.num_processes,
        reader=whole_reader(indexes, config.data),
    ):
        begins(key)
        pred = decompose(model, batch, accelerator.device)
        if not all(bool(value.isfinite().all()) for value in pred):
            raise FloatingPointError(
                f"step {step}: the averaged weights answer portrait {key!r} with values that are"
                " not finite; nothing was saved from this step on. Lower optim.learning_rate"
            )
        if len(seen) < _PANEL_ROWS:
            seen.append((pred, batch))
        if batch.valid.all():
            scores[key] = {name: value.item() for name, value in score(pred, batch).items()}
    everyone = {key: row for part in gather_object([scores]) for key, row in part.items()}
    held = sum(index.num_groups for index in indexes)
    if len(everyone) != held:
        raise RuntimeError(f"{len(everyone)} portraits were validated, data.val has {held}")
    means = {name: s.mean for name, s in summarise_portraits(everyone).items() if s.count}
    name = next(name for name in BEST_METRICS if name in means)
    comparable = best is not None and best["metric"] == name
    is_best = not comparable or METRICS[name].improves(means[name], best["value"])
    note = "  ".join(f"{n} {means[n]:.4g}" for n in BEST_METRICS if n in means)
    tracker.log(
        step, {f"val/{n}": v for n, v in means.items()}, f"val {note}{'  best' if is_best else ''}"
    )
    rows = [decomposition_panel(*each) for each in seen]
    tracker.picture(step, "val/decomposition", torch.cat(rows, dim=1))
    return {"metric": name, "value": means[name], "step": step} if is_best else best
