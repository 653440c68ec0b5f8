"""The answer of a sweep: one HTML file that needs no other, a table for programs, a config."""

import base64
import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from relightx.config import config_to_dict
from relightx.index import write_atomically
from relightx.measures import METRICS
from relightx.stage import duration
from relightx.storage import Folder
from relightx.sweep.baselines import read_baselines
from relightx.sweep.charts import curves, importance, numbered_axis, on_white, parallel, trade_off
from relightx.sweep.plan import Plan
from relightx.sweep.results import Trial, over_seeds, pareto, ranked, read_results
from relightx.sweep.trial import Place

HEADLINES = ("normal_error_deg", "albedo_si_mae", "light_direction_error_deg", "relighting_si_mse")
_SHOWN = 3


def write_sweep_report(
    plan: Plan, place: Place, out: Path, figures: Path | None = None
) -> list[Path]:
    """Write OUT, an HTML file, and a CSV of all trials beside it; the paths of all that is written.

    figures: directory for the page's charts as SVG files too. Raises ValueError when no trial has
    ended.
    """
    trials = read_results(plan, place)
    if not trials:
        raise ValueError(f"{place.out}: no trial has ended yet; there is nothing to report")
    table = out.with_suffix(".csv")
    write_atomically(table, trials_csv(trials).encode())
    template = Path(__file__).with_name("report_template.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    objective = plan.objectives[0]
    metrics = _metrics(plan, trials)
    baselines = read_baselines(place.folder)
    best = ranked(trials, objective)
    lines = metrics if numbered_axis(plan) else []
    pair = _pair(plan, metrics)
    charts = {f"curve_{metric}": curves(plan, trials, metric, baselines) for metric in lines}
    if len(best) > 1:
        charts["parallel"] = parallel(plan, trials, objective)
    if len(pair) > 1:
        charts["trade_off"] = trade_off(trials, pair)
    text = page.render(
        title=Path(place.out).name,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        counts=_counts(trials),
        time=duration(sum(trial.seconds for trial in trials)),
        measured="people no trial has seen" if any(t.test for t in trials) else "validation",
        along=numbered_axis(plan),
        curves=[charts[f"curve_{metric}"] for metric in lines],
        weights=importance(plan, trials, objective),
        parallel=charts.get("parallel", ""),
        trade_off=charts.get("trade_off", ""),
        front=[trial.name for trial in pareto(trials, pair)],
        objective=objective,
        metrics=[(name, METRICS[name].unit, METRICS[name].meaning) for name in metrics],
        points=_points(plan, trials, metrics),
        axes=[axis.name for axis in plan.axes],
        baselines={n: [_short(v.get(m)) for m in metrics] for n, v in baselines.items()},
        pictures=[(t, _picture(place.trial(t.name))) for t in best[:_SHOWN]],
        config=best_yaml(plan, best[0]) if best else "",
        failed=[trial for trial in trials if trial.reason],
        csv=table.name,
        out=place.out,
    )
    written = [write_atomically(out, text.encode()), table]
    if figures:
        figures.mkdir(parents=True, exist_ok=True)
        for name, chart in charts.items():
            written.append(write_atomically(figures / f"{name}.svg", on_white(chart).encode()))
    return written


def best_yaml(plan: Plan, trial: Trial) -> str:
    """The training of a trial as a file of relightx train."""
    values = config_to_dict(plan.config_of(trial.point))
    for key in ("dir", "resume", "boards"):
        values["run"].pop(key)
    scores = ", ".join(f"{m} {trial.scores[m]:.4g}" for m in plan.objectives if m in trial.scores)
    point = ", ".join(f"{name} {value}" for name, value in trial.point.items())
    head = f"# The best trial of a sweep, {trial.name}: {point}\n# It reached {scores}.\n"
    return head + yaml.safe_dump(values, sort_keys=False)


def trials_csv(trials: list[Trial]) -> str:
    """A row for each trial: its point, how it ended, metrics of validation and of `test`."""
    written = io.StringIO()
    axes = list(trials[0].point)
    best = [m for m in METRICS if any(m in t.best for t in trials)]
    test = [m for m in METRICS if any(m in t.test for t in trials)]
    heads = [*(f"val/{m}" for m in best), *(f"test/{m}" for m in test)]
    rows = csv.writer(written)
    rows.writerow(["trial", *axes, "state", "seconds", "step", *heads])
    for trial in trials:
        rows.writerow(
            [
                trial.name,
                *(trial.point[axis] for axis in axes),
                trial.state,
                round(trial.seconds, 1),
                trial.best.get("step", ""),
                *(trial.best.get(m, "") for m in best),
                *(trial.test.get(m, "") for m in test),
            ]
        )
    return written.getvalue()


def _metrics(plan: Plan, trials: list[Trial]) -> list[str]:
    names = dict.fromkeys((*plan.objectives, *HEADLINES))
    return [name for name in names if any(name in trial.scores for trial in trials)]


def _pair(plan: Plan, metrics: list[str]) -> list[str]:
    """What is weighed against each other: the objectives, or normals and relighting."""
    if len(plan.objectives) > 1:
        return plan.objectives[:2]
    other = [name for name in ("relighting_si_mse", "normal_error_deg") if name in metrics]
    return [plan.objectives[0], *(name for name in other if name != plan.objectives[0])][:2]


def _points(plan: Plan, trials: list[Trial], metrics: list[str]) -> list[dict[str, Any]]:
    """A row for each point, over its seeds."""
    found = {metric: over_seeds(trials, metric) for metric in metrics}
    points = dict.fromkeys(point for values in found.values() for point in values)
    best = {
        m: (max if METRICS[m].higher_is_better else min)(mean for mean, _, _ in values.values())
        for m, values in found.items()
        if values
    }
    rows = []
    for point in points:
        cells = []
        for metric in metrics:
            mean, spread, count = found[metric].get(point, (None, 0.0, 0))
            cells.append(
                {
                    "text": _short(mean),
                    "spread": _short(spread, 2) if count > 1 else "",
                    "best": mean is not None and mean == best[metric],
                }
            )
        seeds = max(found[m].get(point, (0, 0, 0))[2] for m in metrics)
        rows.append({"point": [_short(v) for v in point], "seeds": seeds, "cells": cells})
    return rows


def _counts(trials: list[Trial]) -> str:
    states = dict.fromkeys(trial.state for trial in trials)
    return ", ".join(f"{sum(t.state == s for t in trials)} {s}" for s in states)


def _picture(folder: Folder) -> str:
    """The last panel of a trial as a data URI; '' when it has none."""
    names = sorted(name for name in folder.child("panels").names() if name.endswith(".png"))
    if not names:
        return ""
    data = folder.read(f"panels/{names[-1]}")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _short(value: Any, digits: int = 4) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
