"""How far a long command is: a bar on a terminal, a line every few seconds in a file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress_of(
    what: str,
    total: int | None,
    unit: str = "portraits",
    *,
    already: int = 0,
    stream: TextIO | None = None,
    seconds_between_lines: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of things done so far.

    total: how many there are, where that is known. already: done before now, so not part of the
    rate. stream: stderr when None.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _lines(what, total, unit, already, stream, seconds_between_lines)
        return
    from rich.console import Console  # only for a terminal
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=already, rate="")
        rate_of = _rate(already)

        def show(done: int) -> None:
            bar.update(task, completed=done, rate=f"{rate_of(done):.1f}/s")

        yield show


def _lines(
    what: str,
    total: int | None,
    unit: str,
    already: int,
    stream: TextIO,
    seconds_between_lines: float,
) -> Callable[[int], None]:
    last: float | None = None
    rate_of = _rate(already)

    def show(done: int) -> None:
        nonlocal last
        now, rate = time.monotonic(), rate_of(done)
        if last is None:
            last = now
        if now - last < seconds_between_lines:
            return
        last = now
        of = left = ""
        if total is not None:
            of = f" of {total}"
            left = f", {_duration((total - done) / rate)} left" if rate else ""
        print(f"{what}: {done}{of} {unit}, {rate:.1f}/s{left}", file=stream, flush=True)

    return show


def _rate(already: int) -> Callable[[int], float]:
    """Things a second since the first call; loading libraries is not part of it."""
    began: tuple[float, int] | None = None

    def rate(done: int) -> float:
        nonlocal began
        now = time.monotonic()
        if began is None:
            began = (now, done)
        return max(done - began[1], 0) / max(now - began[0], 1e-9)

    return rate


def _duration(seconds: float) -> str:
    hours, minutes, rest = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    return f"{hours}:{minutes:02d}:{rest:02d}"
