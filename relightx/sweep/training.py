"""One life of a trial's training: processes started, watched and waited for from outside.

The training gets SIGTERM when who started it is gone, saves, and ends; it holds a lock until then,
so that a trial that is begun again elsewhere on the node waits for it.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from relightx.ending import HUNG, REQUEUE_FILE, STOPPED
from relightx.index import write_atomically
from relightx.parent import below
from relightx.runlog import LOG_NAME, read_log
from relightx.sweep.plan import Plan

OUTPUT = "training.log"
PRESETS = Path("configs/accelerate")
"""Below the directory that relative paths are meant from."""
_POLL_S = 0.25
_LOCK, _LOCK_S = ".lock", 120.0
_NOTE_S = 5.0
_CLOCK = ".seconds"
_SIGKILL = "Signal 9 (SIGKILL)"  # as a launcher tells it
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "memoryerror")
_WORDS_BYTES = 1 << 20

Report = Callable[[dict[str, float | int]], None]


class Interrupted(Exception):
    """The training was killed or stopped from outside; it can go on."""


@dataclass(frozen=True)
class Life:
    """How a training ended.

    status: of the process, or of accelerate's launcher. words: the line that says what went wrong;
    empty when nothing did.
    """

    status: int
    words: str

    @property
    def is_without_memory(self) -> bool:
        return self.is_killed or any(text in self.words.lower() for text in _NO_MEMORY)

    @property
    def is_killed(self) -> bool:
        return self.status in _KILLED or _SIGKILL in self.words

    @property
    def is_diverged(self) -> bool:
        return "not finite" in self.words


def train_once(plan: Plan, run: Path, directory: str, report: Report) -> Life:
    """Train what RUN/asked.yaml says to its end, from the newest checkpoint.

    directory: that relative paths are meant from. report: told each validation, also those of
    earlier lives. Raises Interrupted when the training was stopped from outside, hung, or waited in
    vain for another one of the same run.
    """
    output = run / OUTPUT
    said_before = _size(output)
    program = _started(_command(plan, run), run, directory)
    try:
        status = _watched(program, run, report)
    finally:
        if program.poll() is None:
            program.terminate()
    life = Life(status, _telling(output, said_before) if status else "")
    # A launcher gives no status of its own to a run that was asked to stop.
    if status in (STOPPED, HUNG) or (status and (run / REQUEUE_FILE).exists()):
        raise Interrupted(f"{run.name}: its training ended with status {status}: {life.words}")
    return life


def await_ended(runs: Path) -> None:
    """Wait until no training below a directory is left, a while at most: what is stopped saves."""
    until = time.monotonic() + _LOCK_S
    for path in runs.glob(f"*/{_LOCK}"):
        with suppress(Interrupted, OSError):
            os.close(_locked(path, until))


def seconds_trained(run: Path) -> float:
    """Wall time of all lives of a run until now."""
    return json.loads((run / _CLOCK).read_text()) if (run / _CLOCK).exists() else 0.0


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


def last_words(output: Path) -> str:
    """The last line of a file."""
    lines = output.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip()[:500] if lines else ""


def _watched(program: subprocess.Popen, run: Path, report: Report) -> int:
    """The exit status of a training, when it has ended."""
    told, size, before = 0, 0, seconds_trained(run)
    began = noted = time.monotonic()
    while True:
        status, now = program.poll(), time.monotonic()
        if status is not None or now - noted > _NOTE_S:
            write_atomically(run / _CLOCK, json.dumps(before + now - began).encode())
            noted = now
        if (grown := _size(run / LOG_NAME)) != size:  # a long log is read only when there is more
            found = validations(run)
            for values in found[told:]:
                report(values)
            told, size = max(told, len(found)), grown
        if status is not None:
            return status
        time.sleep(_POLL_S)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _command(plan: Plan, run: Path) -> list[str]:
    training = ["-m", "relightx.train", "--config", str(run / "asked.yaml")]
    if not plan.gpus:
        training.append("--run.device=cpu")
    if plan.processes == 1:
        return [sys.executable, *training]
    # Started so, the launcher is found without a PATH.
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    return [
        *(*launcher, f"--config_file={PRESETS / plan.backend}.yaml"),
        *(f"--num_processes={plan.processes}", "--main_process_port=0", *training),
    ]


def _started(command: list[str], run: Path, directory: str) -> subprocess.Popen:
    lock = _locked(run / _LOCK, time.monotonic() + _LOCK_S)
    (run / REQUEUE_FILE).unlink(missing_ok=True)  # of the life before
    try:
        with open(run / OUTPUT, "ab") as output:
            return subprocess.Popen(
                below(command),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock],
                start_new_session=True,  # Ctrl-C is for the sweep, which stops its trials
            )
    finally:
        os.close(lock)


def _locked(path: Path, until: float) -> int:
    """A lock that lasts until all who have the descriptor are gone; where there are locks at all.

    Raises Interrupted when another one has it until then.
    """
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
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
        except OSError:  # no locks there, as on some cluster file systems
            return file


def _telling(output: Path, begin: int) -> str:
    """The line that says what went wrong with one of the processes that wrote from there on.

    The launcher of several has the last word, and knows nothing: so what a training itself says
    comes first, then what is known to be told of memory and of kills, then the last error.
    """
    with open(output, "rb") as stream:
        stream.seek(max(begin, stream.seek(0, os.SEEK_END) - _WORDS_BYTES))
        lines = [line.strip() for line in stream.read().decode(errors="replace").splitlines()]
    own = [line for line in lines if "relightx train: error:" in line]
    memory = [line for line in lines if any(text in line.lower() for text in _NO_MEMORY)]
    kills = [line for line in lines if _SIGKILL in line]
    errors = [line for line in lines if "error" in line.lower()]
    return next((found[-1] for found in (own, memory, kills, errors, lines) if found), "")[:500]
