"""Stages of a long command: their headings, times and failures, and the programs they run."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from rich.console import Console


class StageFailed(RuntimeError):
    """A stage did not work; the message names it."""


@contextmanager
def stage(name: str, number: int, count: int) -> Iterator[Callable[[], float]]:
    """A stage: its heading, its time when it ends, and its name in any error that leaves it.

    What it yields tells the seconds: so far inside, of the whole stage after it.
    """
    start, end = time.perf_counter(), None
    say(f"\n[{number}/{count}] {name}", bold=True)
    try:
        yield lambda: (end or time.perf_counter()) - start
    except Exception as error:
        kind = (
            ""
            if isinstance(error, ValueError | OSError | StageFailed)
            else f"{type(error).__name__}: "
        )
        raise StageFailed(f"the stage '{name}' failed: {kind}{error}") from error
    end = time.perf_counter()
    say(f"{name}: {duration(end - start)}")


def run(command: list[str]) -> None:
    """Run a program to its end, its output shown; StageFailed when its exit status is not 0."""
    # In a session of its own, so that what it starts (accelerate starts the training) ends with it.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        raise
    if status:
        raise StageFailed(f"exit status {status}, see above, of: {shlex.join(command)}")


@contextmanager
def leaving_on_termination() -> Iterator[None]:
    """Let SIGTERM and a hang-up end this process like Ctrl-C: what it runs is ended first."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str, bold: bool = False) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False, style="bold" if bold else "")


def duration(seconds: float) -> str:
    """Seconds as people write them: 42 s, 3 min 05 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
