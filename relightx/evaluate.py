"""Measure a model on a split: every portrait once, every metric, two trivial baselines beside it.

Image metrics compare sRGB-encoded pixels inside the mask, at the size the model works at, on the
crops as the shards hold them; the target light is estimated by the same model from the target
photograph. The counted number of portraits is held against the index.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from relightx.baselines import MeanFace, copy_scores
from relightx.batch import Batch, Decomposition
from relightx.checkpoint import load_model
from relightx.data import DataConfig, evaluation_batches, open_splits, whole_reader
from relightx.index import write_atomically
from relightx.measures import METRICS
from relightx.metrics import Summary, score, summarise
from relightx.model import IntrinsicNet, ModelConfig
from relightx.storage import S3Options

Scorer = Callable[[Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """Summaries by contestant ('model', 'mean_face', 'copy') and metric, and each portrait's."""

    data: str
    portraits: int
    image_size: int
    summaries: dict[str, dict[str, Summary]]
    per_portrait: dict[str, dict[str, dict[str, float]]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that do not exist are null."""
        return json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)


def evaluate(
    model_path: str | Path,
    data: str | Path,
    baseline_data: str | Path | None = None,
    untrained: bool = False,
    max_lights: int | None = None,
    workers: int = 0,
    s3: S3Options | None = None,
) -> Evaluation:
    """Score a model on a split, and beside it what it has to beat.

    baseline_data: the training split, for the mean face and the gain-matched copy of the input.
    untrained: also score the same network with fresh weights.
    max_lights: at most so many lights of each portrait, evenly spaced; all when None.
    workers: processes that read. s3: how s3:// URLs are reached.

    Raises ValueError for what is no model or no split, and for less than one light.
    """
    if max_lights is not None and max_lights < 1:
        raise ValueError(f"{max_lights} lights asked; 1 or more needed")
    model, content = load_model(model_path)
    size = content["image_size"]
    storage = DataConfig(s3=s3 or S3Options())
    (index,) = open_splits([str(data)], storage)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    scorers: dict[str, Scorer] = {
        "model": lambda batch: score(decompose(model, batch, device), batch)
    }
    if untrained:
        fresh = fresh_model(model.config).to(device)
        scorers["untrained"] = lambda batch: score(decompose(fresh, batch, device), batch)
    if baseline_data is not None:
        splits = open_splits([str(baseline_data)], storage)
        reader = whole_reader(splits, storage)
        training = evaluation_batches(splits, size, 1, num_workers=workers, reader=reader)
        mean_face = MeanFace.from_batches(batch for _, batch in training)
        scorers["mean_face"] = lambda batch: score(mean_face.decompose(batch), batch)
        scorers["copy"] = copy_scores
    reader = whole_reader([index], storage)
    batches = evaluation_batches([index], size, max_lights, num_workers=workers, reader=reader)
    results = score_split(scorers, batches)
    counted = len(results["model"])
    if counted != index.num_groups:
        raise RuntimeError(f"{counted} portraits were scored, {index.path} has {index.num_groups}")
    return Evaluation(
        data=f"{index.split} of {PurePosixPath(index.path).parent.parent.name}",
        portraits=counted,
        image_size=size,
        summaries={name: summarise_portraits(result) for name, result in results.items()},
        per_portrait=results,
    )


def fresh_model(config: ModelConfig) -> IntrinsicNet:
    """A network with the weights that training with seed 0 starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return IntrinsicNet(config).eval()


def score_split(
    scorers: dict[str, Scorer], batches: Iterable[tuple[str, Batch]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by contestant, portrait and metric."""
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in scorers}
    for key, batch in batches:
        if not batch.valid.all():
            continue
        for name, scorer in scorers.items():
            results[name][key] = {metric: v.item() for metric, v in scorer(batch).items()}
    return results


def summarise_portraits(portraits: dict[str, dict[str, float]]) -> dict[str, Summary]:
    """Mean and deviation of each metric over portraits, in the order of METRICS."""
    rows = list(portraits.values())
    columns = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
    return summarise([columns], [torch.ones(len(rows), dtype=torch.bool)])


@torch.no_grad()
def decompose(model: torch.nn.Module, batch: Batch, device: torch.device) -> Decomposition:
    """The model's answer in float32 on the CPU, eight lights at a time to bound memory."""
    parts = [model(lights.to(device)) for lights in batch.image.split(8, dim=1)]
    whole = [torch.cat(tensors, dim=1).cpu() for tensors in zip(*parts, strict=True)]
    return Decomposition(*whole)


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write the numbers as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(evaluation.as_dict(), indent=1) + "\n").encode())


def print_evaluation(evaluation: Evaluation) -> None:
    """The table on standard output: an arrow says which way is better."""
    table = Table(
        title=f"{evaluation.data}: {evaluation.portraits} portraits at {evaluation.image_size} px"
    )
    table.add_column("metric", no_wrap=True)
    for name in evaluation.summaries:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for metric, about in METRICS.items():
        cells = [_cell(summary.get(metric)) for summary in evaluation.summaries.values()]
        if any(cells):
            arrow = "\N{UPWARDS ARROW}" if about.higher_is_better else "\N{DOWNWARDS ARROW}"
            table.add_row(f"{metric} {arrow}", *cells, about.unit)
    Console(width=132).print(table)


def _cell(summary: Summary | None) -> str:
    if summary is None or not summary.count:
        return ""
    return f"{summary.mean:.4g} \N{PLUS-MINUS SIGN} {summary.std:.2g}"
