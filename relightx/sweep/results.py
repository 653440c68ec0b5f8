"""What the trials of a sweep have reached, as a table and for reports."""

import statistics
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from relightx.measures import METRICS
from relightx.stage import duration
from relightx.sweep.plan import SEED, Plan
from relightx.sweep.trial import FINISHED, Place, ended_trials

_SHOWN = ("normal_error_deg", "albedo_si_mae", "light_direction_error_deg", "relighting_si_mse")


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    point: a value for each axis of the space. best: the metrics of its best validation; test: those
    of its best weights on the first split of `test`, if there is one.
    """

    name: str
    point: dict[str, Any]
    state: str
    reason: str
    seconds: float
    best: dict[str, float | int]
    test: dict[str, float]

    @property
    def scores(self) -> dict[str, float | int]:
        """What it is compared by: unseen people where they were measured, else validation."""
        return self.test or self.best


def read_results(plan: Plan, place: Place) -> list[Trial]:
    """The trials that have ended, in the order of the plan where it has one."""
    trials = [
        Trial(
            name=record["name"],
            point=record["point"],
            state=record["state"],
            reason=record["reason"],
            seconds=record["seconds"],
            best=record["best"] or {},
            test=(record["test"] or [{}])[0],
        )
        for record in ended_trials(place).values()
    ]
    axes = plan.axes
    order = {(a.name, choice): place for a in axes for place, choice in enumerate(a.choices)}

    def key(trial: Trial) -> tuple[float | int, ...]:
        values = [order.get((a.name, trial.point[a.name]), trial.point[a.name]) for a in axes]
        return (*values, trial.point[SEED])

    return sorted(trials, key=key)


def ranked(trials: list[Trial], objective: str) -> list[Trial]:
    """Finished trials that have the objective, the best first."""
    sign = -1 if METRICS[objective].higher_is_better else 1
    having = [t for t in trials if t.state == FINISHED and objective in t.scores]
    return sorted(having, key=lambda trial: sign * trial.scores[objective])


def pareto(trials: list[Trial], objectives: list[str]) -> list[Trial]:
    """Finished trials that no other is better than in one objective and as good in the others."""
    having = [t for t in ranked(trials, objectives[0]) if all(o in t.scores for o in objectives)]

    def losses(trial: Trial) -> list[float]:
        return [
            -trial.scores[o] if METRICS[o].higher_is_better else trial.scores[o] for o in objectives
        ]

    def is_beaten(trial: Trial) -> bool:
        own = losses(trial)
        return any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True))
            for other in map(losses, having)
        )

    return [trial for trial in having if not is_beaten(trial)]


def over_seeds(trials: list[Trial], metric: str) -> dict[tuple, tuple[float, float, int]]:
    """Mean, standard deviation and number over the seeds of each point, by its other values."""
    groups: dict[tuple, list[float]] = {}
    for trial in trials:
        if trial.state == FINISHED and metric in trial.scores:
            point = tuple(value for name, value in trial.point.items() if name != SEED)
            groups.setdefault(point, []).append(trial.scores[metric])
    return {
        point: (
            statistics.mean(values),
            statistics.stdev(values) if len(values) > 1 else 0.0,
            len(values),
        )
        for point, values in groups.items()
    }


def show_results(trials: list[Trial]) -> None:
    """A table on standard output."""
    if not trials:
        return
    table = Table()
    for name in ("trial", *trials[0].point, "state"):
        table.add_column(name, overflow="fold")
    metrics = [m for m in _SHOWN if any(m in trial.scores for trial in trials)]
    for name in (*metrics, "time"):
        table.add_column(name, justify="right")
    for trial in trials:
        table.add_row(
            trial.name,
            *(f"{v:.4g}" if isinstance(v, float) else str(v) for v in trial.point.values()),
            trial.state,
            *(f"{trial.scores[m]:.4g}" if m in trial.scores else "" for m in metrics),
            duration(trial.seconds),
        )
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
