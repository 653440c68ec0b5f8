"""Runs side by side: how far each is, what it reached, and in which keys of the config they differ.

A run is a directory with a config.yaml and a metrics.jsonl, as the training program leaves it;
nothing else is read, so a run of another machine can be looked at from a copy of these two.
"""

import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from relightx.config import leaves
from relightx.measures import METRICS
from relightx.runlog import LOG_NAME, read_log
from relightx.stage import duration
from relightx.validation import BEST_METRICS

_DEPTH = 3
_SILENT_S = 300.0
_NO_DIFFERENCE = ("run.dir", "run.resume")
_LONGEST = 24


@dataclass(frozen=True)
class Run:
    """What a run's directory says.

    state: finished, training (something was logged a short while ago) or stopped. best: by metric,
    of all validations. images_per_s: median of the reports.
    """

    path: Path
    state: str
    step: int
    steps: int
    seconds: float
    loss: float | None
    images_per_s: float | None
    best: dict[str, tuple[float, int]]
    config: dict[str, Any] = field(repr=False)


def find_runs(places: Iterable[Path]) -> list[Run]:
    """The runs at and below some directories, by path.

    Raises ValueError for a directory that is not there or holds no run, or a run that is broken.
    """
    runs: dict[Path, Run] = {}
    for place in places:
        if not place.is_dir():
            raise ValueError(f"{place}: no such directory; name one that is a run or holds some")
        found = [path for path in _below(place, _DEPTH) if _is_run(path)]
        if not found:
            raise ValueError(f"{place}: no run here (a directory with config.yaml and {LOG_NAME})")
        runs |= {path.resolve(): read_run(path) for path in found}
    return [runs[path] for path in sorted(runs)]


def read_run(path: Path) -> Run:
    """One run. Raises ValueError when its files are not what a run leaves."""
    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
        steps = int(config["run"]["steps"])
        log = read_log(path / LOG_NAME)
        reports = [record for record in log if "loss/total" in record]
        times = [float(record["time"]) for record in log]
        step = max((int(record["step"]) for record in log), default=0)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as a run: {error!r}") from None
    if (path / "model" / "config.json").is_file():
        state = "finished"
    else:
        state = "training" if times and time.time() - times[-1] < _SILENT_S else "stopped"
    return Run(
        path=path,
        state=state,
        step=step,
        steps=steps,
        seconds=_seconds(times),
        loss=reports[-1]["loss/total"] if reports else None,
        images_per_s=statistics.median(r["images_per_s"] for r in reports) if reports else None,
        best=_best(log),
        config=leaves(config),
    )


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """Keys of the config that are not the same in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    return [
        name
        for name in names
        if name not in _NO_DIFFERENCE
        and len({json.dumps(run.config.get(name)) for run in runs}) > 1
    ]


def show_runs(runs: Sequence[Run], console: Console) -> None:
    """A table, one row for each run, with a column for each key in which they differ."""
    metrics = [name for name in BEST_METRICS if any(name in run.best for run in runs)]
    keys = differing_keys(runs)
    table = Table()
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    for column in ("step", "time", "loss", "images/s", *metrics):
        table.add_column(column, justify="right")
    for key in keys:
        table.add_column(key, overflow="fold")
    for run in runs:
        table.add_row(
            str(run.path),
            run.state,
            f"{run.step}/{run.steps}",
            duration(run.seconds),
            _number(run.loss),
            _number(run.images_per_s),
            *(_reached(run.best.get(name)) for name in metrics),
            *(_short(run.config.get(key)) for key in keys),
        )
    console.print(table)


def as_json(runs: Sequence[Run]) -> str:
    """The same for programs."""
    rows = [asdict(run) | {"path": str(run.path)} for run in runs]
    return json.dumps(rows, indent=1)


def _below(place: Path, depth: int) -> Iterable[Path]:
    yield place
    if depth and not _is_run(place):
        for path in sorted(place.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from _below(path, depth - 1)


def _is_run(path: Path) -> bool:
    return (path / "config.yaml").is_file() and (path / LOG_NAME).is_file()


def _seconds(times: list[float]) -> float:
    """Time of training; long pauses, as between a stop and a resume, do not count."""
    gaps = (after - before for before, after in pairwise(times))
    return sum((gap for gap in gaps if gap < _SILENT_S), 0.0)


def _best(log: list[dict[str, Any]]) -> dict[str, tuple[float, int]]:
    best: dict[str, tuple[float, int]] = {}
    for record in log:
        for name, metric in METRICS.items():
            value = record.get(f"val/{name}")
            if value is None or not math.isfinite(value):
                continue
            if name not in best or metric.improves(value, best[name][0]):
                best[name] = (value, record["step"])
    return best


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _reached(best: tuple[float, int] | None) -> str:
    return "" if best is None else f"{best[0]:.4g} at {best[1]}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
