"""One HTML file that shows a training run: results, pictures, learning curves, what was run.

The file is complete in itself: styles are inline, charts are SVG and pictures are data URIs, so it
can be mailed, printed and read without a network. What a run does not have is left out.
"""

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined

from relightx.gallery import Gallery
from relightx.index import write_atomically
from relightx.losses import LOSSES
from relightx.measures import METRICS
from relightx.runlog import LOG_NAME, read_log
from relightx.stage import duration

CONTESTANTS = {
    "model": ("this model", ""),
    "untrained": ("untrained", "the same network before training"),
    "mean_face": (
        "mean face",
        "the average normals and albedo of the training people under a light fitted to the picture",
    ),
    "copy": ("copy of input", "the input handed back at the right brightness"),
}
HEADLINES = {
    "normal_error_deg": "Normals: mean angle off",
    "albedo_si_mae": "Albedo: mean error",
    "light_direction_error_deg": "Light: direction off",
    "relighting_si_mse": "Relit pictures: square error",
}
VALIDATION_CHARTS = ("normal_error_deg", "albedo_si_mae", "relighting_psnr", "relighting_si_mse")
_LOG_SCALE_FROM = 3.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 312.0, 8.0, 132.0  # of a chart's frame, in its own units


@dataclass(frozen=True)
class Stage:
    """A part of what was run, how long it took, and the command that does the same."""

    name: str
    text: str
    seconds: float
    command: str = ""


@dataclass(frozen=True)
class Step:
    """Something to do next."""

    title: str
    text: str
    command: str = ""


def write_report(
    run: Path,
    out: Path,
    *,
    title: str,
    lead: str = "",
    evaluation: dict[str, Any] | None = None,
    galleries: Sequence[Gallery] = (),
    stages: Sequence[Stage] = (),
    remarks: Sequence[str] = (),
    steps: Sequence[Step] = (),
) -> Path:
    """Write the report of a training run; its path.

    run: directory of a training run, with metrics.jsonl and config.yaml.
    evaluation: what `relightx evaluate --out` writes, as `Evaluation.as_dict` gives it.
    Raises ValueError when there is no log.
    """
    log = run / LOG_NAME
    if not log.is_file():
        raise ValueError(f"{run}: no {LOG_NAME} here; the directory of a training run is needed")
    records, config = read_log(log), run / "config.yaml"
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        Path(__file__).with_name("report_template.html").read_text(encoding="utf-8")
    )
    text = page.render(
        title=title,
        lead=lead,
        galleries=galleries,
        losses=loss_charts(records),
        validation=validation_charts(records),
        table=evaluation and metric_table(evaluation),
        cards=headline_cards(evaluation) if evaluation else [],
        contestants=_contestants(evaluation) if evaluation else "",
        stages=_timed(stages),
        whole_time=duration(math.fsum(stage.seconds for stage in stages)),
        commands=[stage.command for stage in stages if stage.command],
        machine=machine(),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        remarks=remarks,
        steps=steps,
        version=_version("relightx"),
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )
    return write_atomically(out, text.encode())


def read_evaluation(path: Path) -> dict[str, Any]:
    """What `relightx evaluate --out` wrote; ValueError for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None
    needed = {"summaries", "portraits", "image_size", "data"}
    if not isinstance(content, dict) or not needed <= content.keys():
        raise ValueError(f"{path}: not an evaluation; relightx evaluate --out writes one")
    return content


def loss_charts(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A chart of the total and of each loss, in the order of the README."""
    meaning = {"total": "What was minimised: the weighted sum of the others."}
    meaning |= {name: (loss.__doc__ or "").split("\n")[0] for name, loss in LOSSES.items()}
    charts = [chart(name, _points(records, f"loss/{name}"), text) for name, text in meaning.items()]
    return [found for found in charts if found]


def validation_charts(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A chart of each of the main metrics of the validation split."""
    charts = [
        chart(name, _points(records, f"val/{name}"), METRICS[name].meaning, METRICS[name].unit)
        for name in VALIDATION_CHARTS
    ]
    return [found for found in charts if found]


def chart(
    name: str, points: list[tuple[int, float]], meaning: str = "", unit: str = ""
) -> dict[str, Any] | None:
    """What the template needs to draw a curve; None when there are no points."""
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    logarithmic = low > 0 and high > _LOG_SCALE_FROM * low
    ticks = _log_ticks(low, high) if logarithmic else _ticks(low, high)
    scale = math.log if logarithmic else float
    bottom, top = min(scale(low), scale(ticks[0])), max(scale(high), scale(ticks[-1]))
    last_step = max(steps)

    def across(step: int) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * step / last_step, 1)

    def down(value: float) -> float:
        share = (scale(value) - bottom) / (top - bottom) if top > bottom else 0.5
        return round(_BOTTOM - (_BOTTOM - _TOP) * share, 1)

    places = [(across(step), down(value)) for step, value in points]
    line = " ".join(f"{x},{y}" for x, y in places)
    return {
        "name": name,
        "meaning": meaning,
        "unit": unit,
        "first": _short(values[0]),
        "last": _short(values[-1]),
        "line": line,
        "area": f"{places[0][0]},{_BOTTOM} {line} {places[-1][0]},{_BOTTOM}",
        "dots": places if len(places) <= 12 else [],
        "y_ticks": [{"place": down(value), "text": f"{value:g}"} for value in ticks],
        "x_ticks": [
            {"place": _LEFT, "text": "0", "anchor": "start"},
            {"place": _RIGHT, "text": f"step {last_step}", "anchor": "end"},
        ],
    }


def metric_table(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Rows of all metrics that anyone has, the best of each row marked."""
    summaries = evaluation["summaries"]
    names = [name for name in CONTESTANTS if name in summaries]
    rows = []
    for metric, about in METRICS.items():
        found = {name: _mean(summaries[name], metric) for name in names}
        known = [value for value in found.values() if value is not None]
        if not known:
            continue
        best = max(known) if about.higher_is_better else min(known)
        cells = [
            {
                "value": "" if value is None else _short(value),
                "spread": "" if value is None else _short(summaries[name][metric]["std"], 2),
                "best": value == best,
                "own": name == "model",
            }
            for name, value in found.items()
        ]
        arrow = "↑" if about.higher_is_better else "↓"
        rows.append(
            {"name": metric, "arrow": arrow, "meaning": about.meaning, "unit": about.unit}
            | {"cells": cells}
        )
    return {
        "columns": [CONTESTANTS[name][0] for name in names],
        "rows": rows,
        "portraits": evaluation["portraits"],
        "data": evaluation["data"],
        "about": f"Inside the mask, at {evaluation['image_size']} pixels, every light of each"
        " portrait; relighting goes from every light to every other, which the contestant itself"
        " estimates from the picture to be reached.",
    }


def headline_cards(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """The main numbers, each with bars that compare the contestants."""
    cards = []
    for metric, title in HEADLINES.items():
        found = {
            name: _mean(evaluation["summaries"][name], metric)
            for name in CONTESTANTS
            if name in evaluation["summaries"]
        }
        known = {name: value for name, value in found.items() if value is not None}
        if "model" not in known:
            continue
        longest = max(known.values()) or 1.0
        bars = [
            {
                "name": CONTESTANTS[name][0],
                "value": _short(value),
                "percent": round(100 * value / longest, 1),
                "own": name == "model",
            }
            for name, value in known.items()
        ]
        unit = {"deg": "degrees", "linear": "of white"}.get(METRICS[metric].unit, "")
        cards.append({"name": title, "value": _short(known["model"]), "unit": unit, "bars": bars})
    return cards


def machine() -> list[tuple[str, str]]:
    """What this machine and its programs are, by name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    packages = ("relightx", "torch", "accelerate", "numpy", "opencv-python-headless")
    return [
        ("processor", f"{_processor()}, {len(os.sched_getaffinity(0))} cores in use"),
        ("memory", f"{memory:.0f} GiB"),
        ("GPU", gpu),
        ("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in packages)),
    ]


def _contestants(evaluation: dict[str, Any]) -> str:
    told = [
        f"{short} is {text}"
        for name, (short, text) in CONTESTANTS.items()
        if text and name in evaluation["summaries"]
    ]
    return f"Beside this model: {'; '.join(told)}." if told else ""


def _timed(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    return [
        {
            "name": stage.name,
            "text": stage.text,
            "time": duration(stage.seconds),
            "share": round(stage.seconds, 2),
        }
        for stage in stages
    ]


def _points(records: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(record["step"], float(record[key])) for record in records if key in record]


def _mean(summary: dict[str, dict[str, float | None]], metric: str) -> float | None:
    """A metric's mean, None when no portrait has it."""
    return summary[metric]["mean"] if metric in summary and summary[metric]["count"] else None


def _short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers that span the values."""
    if low == high:
        return [low]
    rough = (high - low) / 3
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(float(index * step), 10) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Numbers 1, 2 and 5 times powers of ten that lie between the values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounded = [round(m * 10.0**power, 12) for power in powers for m in (1, 2, 5)]
    return [value for value in rounded if low <= value <= high]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


def _processor() -> str:
    """The processor's name; Linux tells it in a file, others perhaps not at all."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
