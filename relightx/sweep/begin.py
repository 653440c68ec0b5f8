"""To begin a sweep, or to go on with one that was stopped, killed or lost its nodes."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from relightx.settings.data import DataConfig
from relightx.storage import LocalFolder, S3Options, open_folder
from relightx.sweep.plan import Plan, first_point, read_plan
from relightx.sweep.training import PRESETS
from relightx.sweep.trial import Place

_PLAN = "sweep.json"


def begin(config: Path, out: str, s3: S3Options) -> tuple[Plan, Place]:
    """A new sweep, that is not noted yet. Raises ValueError for a wrong file or a place that is
    used."""
    plan = read_plan(config)
    place = _place(out, s3)
    if is_noted(place):
        raise ValueError(f"{out}: holds a sweep already; go on with it by --resume {out}")
    if next(iter(place.folder.names()), None) is not None:
        raise ValueError(f"{out} is already used; choose another place")
    return plan, place


def is_noted(place: Place) -> bool:
    """Whether a place holds a sweep, that can go on."""
    return place.folder.size(_PLAN) is not None


def note(plan: Plan, place: Place) -> None:
    """Write a sweep down in its place, so that it can go on. Raises OSError where that cannot be
    done."""
    content = {"plan": asdict(plan), "directory": place.directory}
    place.folder.write(_PLAN, (json.dumps(content, indent=1) + "\n").encode())


def go_on(out: str, s3: S3Options) -> tuple[Plan, Place]:
    """A sweep that was begun, as it was noted. Raises ValueError when there is none."""
    folder = open_folder(_absolute(out), s3)
    if folder.size(_PLAN) is None:
        raise ValueError(f"{out}: no sweep here ({_PLAN} is missing)")
    try:
        content = json.loads(folder.read(_PLAN))
        plan = Plan(**content["plan"])
        directory = content["directory"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{out}/{_PLAN}: cannot be read: {error}") from None
    return plan, Place(_absolute(out), s3, directory)


def _place(out: str, s3: S3Options) -> Place:
    return Place(_absolute(out), s3, os.getcwd())


def _absolute(out: str) -> str:
    is_local = isinstance(open_folder(out), LocalFolder)
    return str(Path(out).expanduser().absolute()) if is_local else out


def check_trials(plan: Plan, place: Place) -> None:
    """Refuse now, by ValueError, what every trial would: splits and files that are not there."""
    from relightx.data import open_splits  # takes two seconds, for torch

    launcher = Path(place.directory) / PRESETS / f"{plan.backend}.yaml"
    if plan.processes > 1 and not launcher.is_file():
        raise ValueError(
            f"backend is {plan.backend!r}, but there is no file {launcher}: take one of"
            f" {PRESETS}/, and begin the sweep in the directory that has it"
        )
    data = plan.config_of(first_point(plan)).data
    open_splits([*data.train, *data.val], data)
    measured = [*plan.test, *([plan.baselines] if plan.baselines else [])]
    open_splits(measured, DataConfig(s3=place.s3, cache_dir=data.cache_dir))
