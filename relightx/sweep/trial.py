"""One trial of a sweep: the training program itself, in processes of its own, watched from outside.

What it does to memory, to the GPU and to the interpreter ends with it, and what it leaves is a run
like any other: OUT/trials/NAME has the config, the log, the checkpoints and the weights of a run,
and beside them `trial.json`, written last, with how it ended. A trial that was interrupted goes on
from its newest checkpoint.

The training gets SIGTERM when who started it is gone, saves, and ends; it holds a lock until then,
so that a trial that is begun again elsewhere on the node waits for it.
"""

import ctypes
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from relightx.config import config_to_dict
from relightx.metrics import METRICS
from relightx.storage import Folder, LocalFolder, S3Options, open_folder
from relightx.sweep.plan import Plan, trial_name
from relightx.tracking import LOG_NAME, read_log

RECORD = "trial.json"
CONFIG = "config.yaml"
TRIALS = "trials"
OUTPUT = "training.log"
FINISHED, DIVERGED, NO_MEMORY, FAILED, EARLY = (
    *("finished", "diverged", "out of memory", "failed", "stopped early"),
)
"""How a trial may have ended; what is neither goes on when the sweep is resumed."""
_PRESETS = "configs/accelerate"
_POLL_S = 0.25
_LOCK_S = 120.0
_STOPPED, _HANGS = 3, 75  # exit statuses of the training
_PR_SET_PDEATHSIG = 1


class Interrupted(Exception):
    """The training was killed or stopped from outside; it can go on."""


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

    def run_directory(self, name: str) -> Path:
        """On this node; a folder of the temporary directory where trials are kept in S3."""
        if isinstance(self.folder, LocalFolder):
            return Path(self.out) / TRIALS / name
        return Path(tempfile.gettempdir()) / f"relightx-sweep-{os.getuid()}" / name


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
    report: Callable[[dict[str, float | int]], None],
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
    run = place.run_directory(name)
    run.mkdir(parents=True, exist_ok=True)
    config = config_to_dict(plan.config_of(point))
    config["run"] |= {"dir": str(run), "resume": True, "project": "sweep", "boards": []}
    if not isinstance(folder, LocalFolder):
        config["run"]["upload"] = folder.url
        config["data"]["s3"] = vars(place.s3)
    (run / "asked.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    begun, reason = time.time(), ""
    status = _train(plan, run, place, report)
    if status:
        reason = _last_words(run / OUTPUT)
    if status in (_STOPPED, _HANGS) or _is_first_kill(status, run):
        raise Interrupted(f"trial {name}: its training ended with status {status}: {reason}")
    state = _state_of(status, reason)
    best = _best(run, plan.objectives[0])
    if state == FINISHED and plan.test:
        lights = config["run"]["validate_lights"]
        if not _measure(plan.test, run, place.directory, lights):
            state, reason = FAILED, _last_words(run / OUTPUT)
    _send(run, folder)
    return write_record(
        folder,
        name=name,
        point=point,
        state=state,
        reason=reason,
        seconds=time.time() - begun,
        best=best,
        test=_measured(run),
    )


def validations(run: Path) -> list[dict[str, float | int]]:
    """Each validation of a run's log, by the metrics' names, with its step and its number."""
    if not (run / LOG_NAME).exists():
        return []
    found = [r for r in read_log(run / LOG_NAME) if any(name.startswith("val/") for name in r)]
    return [
        {
            "step": record["step"],
            "validation": number,
            **{k.removeprefix("val/"): v for k, v in record.items() if k.startswith("val/")},
        }
        for number, record in enumerate(found, 1)
    ]


def _train(
    plan: Plan, run: Path, place: Place, report: Callable[[dict[str, float | int]], None]
) -> int:
    """Run the training to its end; its exit status."""
    told = 0
    program = _started(_command(plan, run), run, place.directory)
    try:
        while True:
            status = program.poll()
            found = validations(run)
            for values in found[told:]:
                report(values)
            told = max(told, len(found))
            if status is not None:
                return status
            time.sleep(_POLL_S)
    finally:
        if program.poll() is None:
            program.terminate()


def _command(plan: Plan, run: Path) -> list[str]:
    training = ["-m", "relightx.train", "--config", str(run / "asked.yaml")]
    if not plan.gpus:
        training.append("--run.device=cpu")
    if plan.processes == 1:
        return [sys.executable, *training]
    # Started so, the launcher is found without a PATH.
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [
        *(*launcher, f"--config_file={_PRESETS}/{plan.backend}.yaml"),
        *(f"--num_processes={plan.processes}", "--main_process_port=0", *training),
    ]


def _started(command: list[str], run: Path, directory: str) -> subprocess.Popen:
    lock = _locked(run / ".lock")
    parent = os.getpid()

    def prepare() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(_STOPPED)

    try:
        with open(run / OUTPUT, "ab") as output:
            return subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock],
                preexec_fn=prepare,
                start_new_session=True,  # Ctrl-C is for the sweep, which stops its trials
            )
    finally:
        os.close(lock)


def _locked(path: Path) -> int:
    """A lock that lasts until all who have the descriptor are gone."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(file)
                raise Interrupted(
                    f"{path.parent}: another process has trained there for {_LOCK_S:.0f} s"
                ) from None
            time.sleep(_POLL_S)


def _is_first_kill(status: int, run: Path) -> bool:
    """Whether a kill may have been somebody's: it is tried again once. Twice it is the kernel's,
    for want of memory."""
    if status not in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return False
    mark = run / ".killed"
    is_first = not mark.exists()
    mark.touch()
    return is_first


def _state_of(status: int, reason: str) -> str:
    if status == 0:
        return FINISHED
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL) or "out of memory" in reason.lower():
        return NO_MEMORY
    return DIVERGED if "loss not finite" in reason or "not finite" in reason else FAILED


def _last_words(output: Path) -> str:
    """The last line that says what went wrong."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    telling = [line for line in lines if "error" in line.lower() or "not finite" in line]
    return (telling or lines or [""])[-1][:500]


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
