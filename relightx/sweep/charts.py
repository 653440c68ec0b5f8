"""Pictures of a sweep's results, as SVG: curves, weights, trade-offs."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from relightx.measures import METRICS
from relightx.sweep.plan import Plan
from relightx.sweep.results import Trial, over_seeds, pareto, ranked

_COLOURS = ("#c2570c", "#2f6f9f", "#5b8c3a", "#7d5ba6", "#8a6d3b", "#444444")
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a857a",
    "svg.hashsalt": "relightx",
}


def numbered_axis(plan: Plan) -> str | None:
    """The axis that curves go along: the one of most values that are numbers, three at least."""
    found = {
        axis.name: len(axis.choices)
        for axis in plan.axes
        if len(axis.choices) >= 3 and all(_number(choice) is not None for choice in axis.choices)
    }
    return max(found, key=lambda name: found[name]) if found else None


def curves(
    plan: Plan, trials: Sequence[Trial], metric: str, baselines: dict[str, dict[str, float]]
) -> str:
    """A metric along the numbered axis, a line for each choice of the others, with the standard
    deviation over seeds; baselines as level lines."""
    along = numbered_axis(plan)
    names = [axis.name for axis in plan.axes]
    place = names.index(along)
    lines: dict[tuple, list[tuple[float, float, float]]] = {}
    for point, (mean, spread, _) in over_seeds(list(trials), metric).items():
        other = tuple(value for number, value in enumerate(point) if number != place)
        lines.setdefault(other, []).append((_number(str(point[place])), mean, spread))

    def draw(axes: Axes) -> None:
        values = sorted({x for line in lines.values() for x, _, _ in line})
        places = {value: number for number, value in enumerate(values)}  # 0 fits no log scale
        for number, (other, line) in enumerate(sorted(lines.items())):
            x, mean, spread = zip(*sorted(line), strict=True)
            axes.errorbar(
                [places[value] for value in x],
                mean,
                yerr=spread,
                label=", ".join(map(str, other)) or None,
                color=_COLOURS[number % len(_COLOURS)],
                marker="o",
                markersize=4,
                capsize=3,
                linewidth=1.6,
            )
        for name, style in (("mean_face", "--"), ("copy", ":")):
            value = baselines.get(name, {}).get(metric)
            if value is not None:
                axes.axhline(value, color="#8a857a", linestyle=style, linewidth=1)
                axes.annotate(
                    name.replace("_", " "),
                    (len(values) - 1, value),
                    fontsize=8,
                    va="bottom",
                    ha="right",
                    color="#66635c",
                )
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlabel(along)
        axes.set_ylabel(_label(metric))
        if any(lines):
            axes.legend(frameon=False, fontsize=8)

    return _svg(draw)


def trade_off(trials: Sequence[Trial], objectives: list[str]) -> str:
    """Two metrics of each trial against each other, with those that none beats in both."""
    x, y = objectives[:2]
    front = sorted(
        (trial.scores[x], trial.scores[y]) for trial in pareto(list(trials), objectives[:2])
    )
    having = [t for t in ranked(list(trials), x) if y in t.scores]

    def draw(axes: Axes) -> None:
        axes.scatter(
            [t.scores[x] for t in having], [t.scores[y] for t in having], s=18, color="#b9b4a9"
        )
        if front:
            axes.plot(*zip(*front, strict=True), marker="o", color=_COLOURS[0], markersize=5)
        axes.set_xlabel(_label(x))
        axes.set_ylabel(_label(y))

    return _svg(draw)


def parallel(plan: Plan, trials: Sequence[Trial], metric: str) -> str:
    """A line for each trial through its values, coloured by the metric: dark is best."""
    having = ranked(list(trials), metric)
    names = [axis.name for axis in plan.axes]

    def draw(axes: Axes) -> None:
        scores = [trial.scores[metric] for trial in having]
        order = np.linspace(0, 1, max(2, len(scores)))
        columns = [_column(plan, name, having) for name in names]
        columns.append(_scaled(scores, log=False))
        for number in reversed(range(len(having))):
            heights = [column[0][number] for column in columns]
            axes.plot(
                range(len(columns)),
                heights,
                color=plt.cm.inferno(0.85 * order[number]),
                alpha=0.8,
                linewidth=1.4,
            )
        for place, (_, ticks) in enumerate(columns):
            axes.axvline(place, color="#8a857a", linewidth=0.8)
            for height, text in ticks:
                axes.annotate(
                    text,
                    (place, height),
                    fontsize=7,
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    color="#44413b",
                )
        axes.set_xticks(range(len(columns)), [*names, metric], fontsize=8, rotation=12)
        axes.set_yticks([])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)

    return _svg(draw, width=max(5.0, 1.6 * (len(names) + 1)))


def importance(plan: Plan, trials: Sequence[Trial], metric: str) -> list[tuple[str, float]]:
    """The share of the metric's variance over trials that each axis explains alone, most first.

    Omega squared: less what as many groups would explain by chance, at least 0. Of a drawn axis, by
    quarters of its values. Interactions count for none, so shares need not add up to 1.
    """
    having = ranked(list(trials), metric)
    values = np.array([trial.scores[metric] for trial in having])
    if len(values) < 2 or values.var() == 0:
        return []
    found = []
    for axis in plan.axes:
        held = [trial.point[axis.name] for trial in having]
        if axis.draw:
            held = np.searchsorted(np.quantile(held, (0.25, 0.5, 0.75)), held).tolist()
        groups = [values[[h == choice for h in held]] for choice in set(held)]
        between = sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups)
        whole, free = len(values) * values.var(), len(values) - len(groups)
        noise = (whole - between) / free if free else whole
        share = (between - (len(groups) - 1) * noise) / (whole + noise)
        found.append((axis.name, max(0.0, float(share))))
    return sorted(found, key=lambda pair: -pair[1])


def on_white(svg: str) -> str:
    """A chart for pages of any colour."""
    end = svg.index(">") + 1
    return f'{svg[:end]}<rect width="100%" height="100%" fill="white"/>{svg[end:]}'


def _column(plan: Plan, name: str, trials: Sequence[Trial]) -> tuple[list[float], list]:
    axis = next(axis for axis in plan.axes if axis.name == name)
    if axis.draw:
        return _scaled([t.point[name] for t in trials], log=axis.draw == "log_uniform")
    choices = list(axis.choices)
    heights = {c: n / max(1, len(choices) - 1) for n, c in enumerate(choices)}
    return [heights[str(t.point[name])] for t in trials], [(h, c) for c, h in heights.items()]


def _scaled(values: list[float], log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    scale: Callable[[float], float] = math.log if log else float
    low, high = scale(min(values)), scale(max(values))
    width = high - low or 1.0
    ends = [(0.0, f"{min(values):.3g}"), (1.0, f"{max(values):.3g}")]
    return [(scale(value) - low) / width for value in values], ends


def _label(metric: str) -> str:
    about = METRICS[metric]
    unit = f", {about.unit}" if about.unit else ""
    return f"{metric} ({'higher' if about.higher_is_better else 'lower'} is better{unit})"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _svg(draw: Callable[[Axes], Any], width: float = 5.0) -> str:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(width, 3.4), layout="constrained")
        draw(axes)
        written = io.StringIO()
        without = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=without)
        plt.close(figure)
    text = written.getvalue()
    return text[text.index("<svg") :]
