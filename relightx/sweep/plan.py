"""What a sweep is: trainings that differ in some keys, and how they are compared.

    train: [../train/yaleb.yaml]      files of relightx train, beside this one
    set: {run.steps: 800}             keys that are the same in all trials
    space:
      loss.cross_relighting: [0, 0.5, 1]
      optim.learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
      terms:                          several keys at a time, under names of their own
        with: {loss.albedo_consistency: 0.5, loss.normal_consistency: 0.5}
        without: {loss.albedo_consistency: 0, loss.normal_consistency: 0}
    seeds: [0, 1, 2]                  each point once with each: first weights, labelled subjects
    objectives: [normal_error_deg]    metrics of validation; several: best in each trade-off

Trials see the same data in the same order, whatever their seed: `data.seed` cannot be swept. They
are compared by metrics, whose meaning no trial can change; a weighted loss would only tell that
small weights make it small.
"""

import copy
import difflib
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from relightx.config import Config, config_from_dict, known_keys
from relightx.measures import METRICS

SEED_KEYS = ("run.seed", "data.supervision.seed")
"""What a seed of a sweep stands for: the first weights, and which subjects keep their labels."""
SEED = "seed"
OWN_KEYS = ("run.dir", "run.resume", "run.upload", "run.project", "data.seed", *SEED_KEYS)
"""Keys of the training that a sweep decides itself."""
_RANGES = ("uniform", "log_uniform")


@dataclass(frozen=True)
class Axis:
    """A key of the space, or a name for several: its choices, or the bounds it is drawn between.

    choices: by the text that stands for each in names and tables. draw: 'uniform' or 'log_uniform'.
    """

    name: str
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)
    draw: str = ""
    bounds: tuple[float, float] = (0.0, 1.0)

    def keys_of(self, value: Any) -> dict[str, Any]:
        """The keys of the training that a value of this axis sets."""
        return {self.name: value} if self.draw else self.choices[str(value)]


@dataclass(frozen=True)
class Early:
    """ASHA: after each of some validations only the best part of the trials goes on."""

    grace: int = 2
    """Validations that every trial has."""
    reduction: float | int = 3.0
    """One in so many goes on; and so many times as many validations until the next cut."""

    def __post_init__(self) -> None:
        if self.grace < 1 or not self.reduction > 1:
            raise ValueError(
                f"early has grace {self.grace} and reduction {self.reduction}; at least 1 and more"
                " than 1 needed"
            )


@dataclass(frozen=True)
class Plan:
    """A sweep. Raises ValueError for what cannot be run, with the key that is wrong."""

    base: dict[str, Any]
    """The training that all trials have in common, by sections."""
    set: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    objectives: list[str] = field(default_factory=lambda: ["normal_error_deg"])
    search: str = "grid"
    """grid: every combination; random; optuna: learns from the trials that have ended."""
    trials: int = 0
    """Points that random and optuna draw; a grid has its own number."""
    early: dict[str, Any] | None = None
    processes: int = 1
    """Training processes of a trial, all on one node."""
    backend: str = "ddp"
    """File of configs/accelerate/ for trials of several processes."""
    cpus: float | int = 1.0
    """Cores of each process."""
    gpus: float | int = 0.0
    """GPUs of each process; below 1 several trials of one process share one."""
    test: list[str] = field(default_factory=list)
    """Splits that the best weights of a finished trial are measured on; no trial sees them before.
    """
    baselines: str = ""
    """Training split of the mean face that is measured on them too; empty: none."""

    def __post_init__(self) -> None:
        if self.search not in ("grid", "random", "optuna"):
            raise ValueError(f"search is {self.search!r}; grid, random or optuna needed")
        if not self.space and len(self.seeds) < 2:
            raise ValueError("space is empty; name at least one key with its values")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; one or more different numbers needed")
        if (self.search == "grid") != (self.trials == 0):
            raise ValueError(
                f"search is {self.search} and trials {self.trials}; a grid needs no trials, random"
                " and optuna need their number"
            )
        if self.search == "optuna" and len(self.seeds) > 1:
            raise ValueError("search is optuna, which learns from each trial; give it one seed")
        if self.processes < 1 or not self.cpus > 0 or self.gpus < 0:
            raise ValueError("processes must be 1 or more, cpus above 0 and gpus 0 or more")
        if self.processes > 1 and self.gpus % 1:
            raise ValueError(f"gpus is {self.gpus}; trials of several processes need whole ones")
        for name in self.objectives or [""]:
            if name not in METRICS:
                raise ValueError(f"objectives name {name!r}{_near(name, METRICS)}")
        _ = self.asha
        self._check_axes()

    @property
    def axes(self) -> list[Axis]:
        return [_axis(name, values) for name, values in self.space.items()]

    @property
    def asha(self) -> Early | None:
        return None if self.early is None else Early(**self.early)

    def points(self) -> Iterator[dict[str, Any]]:
        """The points of a grid or of a random search: a value for each axis, and `seed`.

        The same in every run of the program. Not for optuna, which decides as it goes.
        """
        axes = self.axes
        if self.search == "grid":
            each = product(*(axis.choices for axis in axes))
            drawn = [dict(zip((a.name for a in axes), values, strict=True)) for values in each]
        else:
            chance = random.Random(0)
            drawn = [{axis.name: _drawn(axis, chance) for axis in axes} for _ in range(self.trials)]
        for point in drawn:
            for seed in self.seeds:
                yield {**point, SEED: seed}

    def keys_of(self, point: dict[str, Any]) -> dict[str, Any]:
        """The keys of the training that a point sets, those of `set` among them."""
        keys = dict(self.set)
        for axis in self.axes:
            keys |= axis.keys_of(point[axis.name])
        return keys | dict.fromkeys(SEED_KEYS, point[SEED])

    def config_of(self, point: dict[str, Any]) -> Config:
        """The training of a point, without a place. Raises ValueError for values it refuses."""
        values = copy.deepcopy(self.base)
        for key, value in self.keys_of(point).items():
            _put(values, key, value)
        if not self.gpus and "threads" not in values.setdefault("run", {}):
            values["run"]["threads"] = max(1, int(self.cpus))
        return config_from_dict(values)

    def _check_axes(self) -> None:
        for axis in self.axes:
            if self.search == "grid" and axis.draw:
                raise ValueError(f"space.{axis.name}: a grid needs a list of values, not a range")
        for key in (*self.set, *(key for axis in self.axes for key in _keys(axis))):
            if key in OWN_KEYS:
                raise ValueError(f"{key} is decided by the sweep itself; remove it")
            if key not in known_keys():
                raise ValueError(f"{key} is no key of the training{_near(key, known_keys())}")


def read_plan(file: Path) -> Plan:
    """The sweep that a YAML file describes. Raises ValueError, naming the file, for a wrong one."""
    values = _yaml(file)
    known = ["train", *(item.name for item in fields(Plan) if item.name != "base")]
    for name in values:
        if name not in known:
            raise ValueError(f"{file}: unknown key {name!r}{_near(name, known)}")
    train = values.get("train")
    if not isinstance(train, list) or not train:
        raise ValueError(f"{file}: train must list one or more files of relightx train")
    values["base"] = {}
    for name in values.pop("train"):
        _merge(values["base"], _yaml(file.parent / name))
    try:
        plan = Plan(**values)
        for point in _corners(plan):
            _check_validates(plan.config_of(point))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    return plan


def _check_validates(config: Config) -> None:
    if not config.data.val or not config.run.validate_every:
        raise ValueError(
            "trials are compared by validation: data.val and run.validate_every needed"
        )


def first_point(plan: Plan) -> dict[str, Any]:
    """A point of the space, to see what all trials have in common."""
    first = {a.name: a.bounds[0] if a.draw else next(iter(a.choices)) for a in plan.axes}
    return {**first, SEED: plan.seeds[0]}


def trial_name(point: dict[str, Any]) -> str:
    """A short name of a point, the same wherever it is run, fit for a directory."""
    text = json.dumps(point, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _axis(name: str, values: Any) -> Axis:
    if isinstance(values, list) and values:
        return Axis(name, {_text(value): {name: value} for value in values})
    if isinstance(values, dict) and len(values) == 1 and next(iter(values)) in _RANGES:
        ((draw, bounds),) = values.items()
        if not isinstance(bounds, list) or len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise ValueError(f"space.{name}: {draw} needs two numbers, the lower first: {bounds}")
        if draw == "log_uniform" and not bounds[0] > 0:
            raise ValueError(f"space.{name}: log_uniform needs numbers above 0: {bounds}")
        return Axis(name, draw=draw, bounds=(float(bounds[0]), float(bounds[1])))
    if isinstance(values, dict) and values and all(isinstance(v, dict) for v in values.values()):
        return Axis(name, {_text(choice): keys for choice, keys in values.items()})
    raise ValueError(
        f"space.{name}: a list of values, {' or '.join(_RANGES)} with two bounds, or names with the"
        f" keys that each sets needed; found {values!r}"
    )


def _keys(axis: Axis) -> list[str]:
    if axis.draw:
        return [axis.name]
    return [key for keys in axis.choices.values() for key in keys]


def _corners(plan: Plan) -> Iterator[dict[str, Any]]:
    """Points that have every choice once, to have their values checked before any trial."""
    first = first_point(plan)
    yield first
    for axis in plan.axes:
        for value in axis.bounds if axis.draw else axis.choices:
            yield {**first, axis.name: value}


def _drawn(axis: Axis, chance: random.Random) -> Any:
    low, high = axis.bounds
    if axis.draw == "uniform":
        return chance.uniform(low, high)
    if axis.draw == "log_uniform":
        return low * (high / low) ** chance.random()
    return chance.choice(list(axis.choices))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        values = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: keys with values needed, found {values!r}")
    return values


def _merge(values: dict[str, Any], others: dict[str, Any]) -> None:
    for name, value in others.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[name] = value


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
