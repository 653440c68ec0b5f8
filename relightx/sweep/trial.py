"""One trial of a sweep: the training program itself, in processes of its own.

What it does to memory, to the GPU and to the interpreter ends with it, and what it leaves is a run
like any other: OUT/trials/NAME has the config, the log, the checkpoints and the weights of a run,
and beside them `trial.json`, written last, with how it ended. A trial that was interrupted goes on
from its newest checkpoint.
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from relightx.config import config_to_dict
from relightx.measures import METRICS
from relightx.runlog import LOG_NAME
from relightx.storage import Folder, LocalFolder, S3Options, open_folder
from relightx.sweep.plan import Plan, trial_name
from relightx.sweep.training import (
    OUTPUT,
    Interrupted,
    Life,
    Report,
    last_words,
    seconds_trained,
    train_once,
    validations,
)

RECORD = "trial.json"
CONFIG = "config.yaml"
TRIALS = "trials"
FINISHED, DIVERGED, NO_MEMORY, FAILED, EARLY = (
    *("finished", "diverged", "out of memory", "failed", "stopped early"),
)
"""How a trial may have ended; what is neither goes on when the sweep is resumed."""


@dataclass(frozen=True)
class Place:
    """Where a sweep keeps its trials.

    out: a directory that all nodes see, or an s3:// URL. directory: that relative paths of the
    data are meant from.
    """

    out: str
    s3: S3Options
    directory: str

    @property
    def folder(self) -> Folder:
        return open_folder(self.out, self.s3)

    def trial(self, name: str) -> Folder:
        return self.folder.child(TRIALS).child(name)

    @property
    def trial_directories(self) -> Path:
        """On this node; a folder of the temporary directory where trials are kept in S3."""
        if isinstance(self.folder, LocalFolder):
            return Path(self.out) / TRIALS
        sweep = hashlib.sha256(self.folder.url.encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"relightx-sweep-{os.getuid()}" / sweep


def read_record(folder: Folder) -> dict[str, Any] | None:
    """How a trial ended; None while it has not."""
    if folder.size(RECORD) is None:
        return None
    return json.loads(folder.read(RECORD))


def ended_trials(place: Place) -> dict[str, dict[str, Any]]:
    """The records of the trials that have ended, by name."""
    names = sorted({name.split("/")[0] for name in place.folder.child(TRIALS).names()})
    records = {name: read_record(place.trial(name)) for name in names}
    return {name: record for name, record in records.items() if record is not None}


def write_record(folder: Folder, **values: Any) -> dict[str, Any]:
    folder.write(RECORD, (json.dumps(values, indent=1) + "\n").encode())
    return values


def run_trial(
    plan: Plan,
    point: dict[str, Any],
    place: Place,
    report: Report,
) -> dict[str, Any]:
    """Train a point to its end, or find that it has been; the record of it.

    report: told each validation, with `validation`, its number, and `step`. Raises Interrupted
    when the training was killed or stopped from outside.
    """
    name = trial_name(point)
    folder = place.trial(name)
    ended = read_record(folder)
    if ended is not None:
        return ended
    run = place.trial_directories / name
    run.mkdir(parents=True, exist_ok=True)
    config = config_to_dict(plan.config_of(point))
    config["run"] |= {"dir": str(run), "resume": True, "project": "sweep", "boards": []}
    if not isinstance(folder, LocalFolder):
        config["run"]["upload"] = folder.url
        config["data"]["s3"] = vars(place.s3)
    (run / "asked.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    life = train_once(plan, run, place.directory, report)
    _check_not_killed(life, run)
    state, reason = _state_of(life), life.words
    best = _best(run, plan.objectives[0])
    if state == FINISHED and plan.test:
        lights = config["run"]["validate_lights"]
        if not _measure(plan.test, run, place.directory, lights):
            state, reason = FAILED, last_words(run / OUTPUT)
    _send(run, folder)
    record = write_record(
        folder,
        name=name,
        point=point,
        state=state,
        reason=reason,
        seconds=seconds_trained(run),
        best=best,
        test=_measured(run),
    )
    if not isinstance(folder, LocalFolder):
        shutil.rmtree(run)
    return record


def _check_not_killed(life: Life, run: Path) -> None:
    """Raise Interrupted where a kill may have been somebody's: it is tried again once. Twice it is
    the kernel's, for want of memory."""
    mark = run / ".killed"
    if life.is_killed and not mark.exists():
        mark.touch()
        raise Interrupted(f"{run.name}: its training was killed")


def _state_of(life: Life) -> str:
    if life.status == 0:
        return FINISHED
    if life.is_without_memory:
        return NO_MEMORY
    return DIVERGED if life.is_diverged else FAILED


def _best(run: Path, objective: str) -> dict[str, float | int] | None:
    """The validation with the best objective."""
    best: dict[str, float | int] | None = None
    for values in validations(run):
        value = values.get(objective, math.nan)
        if METRICS[objective].improves(value, best and best[objective]):
            best = values
    return best


def _measure(splits: list[str], run: Path, directory: str, lights: int) -> bool:
    """Score the best weights on some splits; whether that could be done."""
    for number, split in enumerate(splits):
        command = [sys.executable, "-m", "relightx", "evaluate", "--model", str(run / "best")]
        command += ["--data", split, "--out", str(run / f"test-{number}.json")]
        command += ["--lights", str(lights)]
        with open(run / OUTPUT, "ab") as output:
            if subprocess.run(command, cwd=directory, stdout=output, stderr=output).returncode:
                return False
    return True


def _measured(run: Path) -> list[dict[str, float | int]]:
    """Means of the metrics on each split of `test`."""
    found = []
    for file in sorted(run.glob("test-*.json")):
        summaries = json.loads(file.read_text())["summaries"]["model"]
        found.append({name: s["mean"] for name, s in summaries.items() if s["count"]})
    return found


def _send(run: Path, folder: Folder) -> None:
    """Put what a report reads where the sweep is kept."""
    if isinstance(folder, LocalFolder):
        return
    for name in (CONFIG, LOG_NAME, OUTPUT):
        if (run / name).exists():
            folder.write(name, (run / name).read_bytes())
    for file in sorted((run / "panels").glob("*.png"))[-1:]:
        folder.write(f"panels/{file.name}", file.read_bytes())
