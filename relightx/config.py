"""The run as one frozen tree, from defaults, YAML files and dotted options.

Each part is a dataclass beside its owner; this module only composes and parses them (jsonargparse).
Nothing takes the whole tree: programs unpack it at the top. A key that no field owns stops the
program with the nearest real one, because a misspelt weight would otherwise train the default.
"""

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from relightx.settings.data import DataConfig
from relightx.settings.losses import LossWeights
from relightx.settings.model import ModelConfig
from relightx.settings.optim import OptimConfig

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass(frozen=True)
class RunConfig:
    """Where a run is kept, how long it is and what it reports."""

    dir: str = "runs/train"
    """Directory of logs, checkpoints and the finished model; must be new unless resuming."""
    steps: int = 20000
    """Optimiser steps of the whole run; the schedule ends there."""
    resume: bool = False
    """Continue from the newest whole checkpoint of run.dir, or start there if it has none."""
    allow_changed_data: bool = False
    """Resume although the shards, or what orders them, are not those of the checkpoint."""
    seed: int = 0
    """Of the first weights."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 autocast on GPUs and CPUs with matrix units for it, else float32."""
    device: Literal["auto", "gpu", "cpu"] = "auto"
    """auto: the GPU if there is one; that several processes train without one has to be said."""
    threads: int = 0
    """CPU threads of a training process; 0: the cores it may use, shared by those of the node."""
    compile: bool = False
    """Have torch.compile make the network faster; the first steps take minutes."""
    recompute_activations: bool = False
    """Compute activations again in the backward pass: about a third slower, in half the memory."""
    accumulation: int = 1
    """Micro-batches a process splits its part of an optimiser step into."""
    log_every: int = 20
    """Steps between two lines of the log."""
    boards: list[str] = field(default_factory=lambda: ["tensorboard"])
    """What else shows the run, by Accelerate's names: tensorboard, wandb, mlflow, trackio, aim, ...
    """
    project: str = "relightx"
    """What the runs are gathered under on boards that have such a thing."""
    validate_every: int = 500
    """Steps between two validations; 0: never."""
    validate_lights: int = 8
    """At most so many lights of each portrait are validated."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; the end of the run always has one."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept."""
    upload: str = ""
    """s3:// URL that checkpoints and the finished model are copied to, and resumed from where
    run.dir has none as new; reached as data.s3 says. Empty: nowhere."""
    hang_s: float = 1800.0
    """Seconds without any progress after which a process says which one the others wait for, and
    ends; more than the slowest validation portrait or checkpoint takes. 0: never."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulation", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"run.{name} is {getattr(self, name)}; 1 or more needed")
        if self.threads < 0:
            raise ValueError(f"run.threads is {self.threads}; 0 or more needed")
        if not self.hang_s >= 0:
            raise ValueError(f"run.hang_s is {self.hang_s}; 0 or more seconds needed")
        if self.validate_every < 0 or self.validate_lights < 1:
            raise ValueError(
                "run.validate_every must be 0 or more and run.validate_lights at least 1"
            )


@dataclass(frozen=True)
class Config:
    """A training run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    optim: OptimConfig = field(default_factory=OptimConfig)


class _Parser(ArgumentParser):
    """A parser whose errors are one line; the long usage is what --help is for."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = str(ex or message).strip()
        if not self.exit_on_error:
            raise ValueError(text)
        self.exit(2, f"{self.prog}: error: {text}\n")


def config_parser(prog: str) -> ArgumentParser:
    """--config FILE, and one dotted option for each field of Config."""
    parser = _Parser(
        prog=prog,
        allow_abbrev=False,
        description="Train a model on multi-lit shards. Values come from the defaults, then from"
        " each --config FILE in turn, then from the dotted options.",
    )
    parser.add_argument("--config", action="config", help="YAML file; a later one wins")
    parser.add_class_arguments(Config)
    return parser


def parse_config(arguments: list[str], prog: str = "relightx train") -> Config:
    """The run a command line asks for; exits with status 2 and a message if it asks wrongly."""
    parser = config_parser(prog)
    try:
        _check_keys(arguments)
        return _build(parser, parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def config_from_dict(values: dict[str, Any]) -> Config:
    """Nested values over the defaults, under the same checks; ValueError names a wrong one."""
    _refuse_unknown(values, "the values given")
    parser = config_parser("config")
    parser.exit_on_error = False
    try:
        return _build(parser, parser.parse_object(values))
    except Exception as error:  # jsonargparse raises several kinds, each with a message
        raise ValueError(str(error)) from None


def config_to_dict(config: Any) -> dict[str, Any]:
    """The whole tree as plain values, for YAML, JSON and hashing."""
    return asdict(config)


def config_hash(config: Any) -> str:
    """Short hash of a config or a part of it."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()[:12]


def known_keys(config_class: type = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the tree, parts and leaves."""
    keys = []
    for item in fields(config_class):
        keys.append(prefix + item.name)
        if is_dataclass(item.type):
            keys += known_keys(item.type, f"{prefix}{item.name}.")
    return keys


def leaves(values: dict[str, Any]) -> dict[str, Any]:
    """Nested values by their dotted keys."""
    return {key: value for key, value in _dotted(values) if not isinstance(value, dict)}


def _build(parser: ArgumentParser, values: Namespace) -> Config:
    built = parser.instantiate(values)
    return Config(**{item.name: built[item.name] for item in fields(Config)})


def _check_keys(arguments: list[str]) -> None:
    """Refuse unknown keys of options and YAML files, each with its place and the nearest key."""
    files = [b for a, b in pairwise(arguments) if a == "--config"]
    files += [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"{file}: no such config file")
        try:
            values = yaml.safe_load(Path(file).read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not readable as YAML: {error}") from None
        if not isinstance(values, dict):
            raise ValueError(f"{file}: sections such as run: and data: needed, found {values!r}")
        _refuse_unknown(values, file)
    for argument in arguments:
        key = argument.removeprefix("--").split("=")[0].rstrip("+")
        is_option = argument.startswith("--") and len(argument) > 2
        special = key in ("config", "help", "print_config")
        if is_option and not special and key not in known_keys():
            raise ValueError(f"unknown option --{key}{_suggestion(key)}")


def _refuse_unknown(values: dict[str, Any], where: str) -> None:
    known = known_keys()
    for key, value in _dotted(values):
        if key not in known:
            raise ValueError(f"{where}: unknown key '{key}'{_suggestion(key)}")
        is_section = any(name.startswith(f"{key}.") for name in known)
        if is_section and value is None:
            raise ValueError(f"{where}: section '{key}' is empty; give it keys or remove it")
        if is_section and not isinstance(value, dict):
            raise ValueError(f"{where}: section '{key}' is {value!r}; keys below it are needed")


def _dotted(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every key with its value, sections before what they hold."""
    pairs = []
    for name, value in values.items():
        pairs.append((f"{prefix}{name}", value))
        if isinstance(value, dict):
            pairs += _dotted(value, f"{prefix}{name}.")
    return pairs


def _suggestion(key: str) -> str:
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(_sections())} ..."


def _sections() -> list[str]:
    return [item.name for item in fields(Config)]
