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
    stream: TextIO | None = None,
    seconds_between_lines: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of portraits done so far; None writes to stderr."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield _lines(what, total, stream, seconds_between_lines)
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
        TextColumn("portraits"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(
    what: str, total: int | None, stream: TextIO, seconds_between_lines: float
) -> Callable[[int], None]:
    began = last = None

    def show(done: int) -> None:
        nonlocal began, last
        now = time.monotonic()
        if began is None:  # loading libraries is not part of the rate
            began = last = now
        if now - last < seconds_between_lines:
            return
        last = now
        of = "" if total is None else f" of {total}"
        rate = (done - 1) / max(now - began, 1e-9)
        print(f"{what}: {done}{of} portraits, {rate:.1f}/s", file=stream, flush=True)

    return show
