"""What a run tells while it goes: one JSON line a report, and the same on the boards asked for; a
progress bar on a terminal, plain lines in a file. Only the main process tells.

Steps count optimiser steps. After a resume the logs go on from the checkpoint's step: lines that a
killed run wrote beyond it are cut, so that every step stands in the log once.
"""

import io
import json
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from relightx.boards import Boards
from relightx.index import write_atomically
from relightx.runlog import LOG_NAME, read_log

PANELS = "panels"
_README = "README.md"


class Tracker:
    """Writes RUN/metrics.jsonl and RUN/panels and shows progress; silent unless `is_main`.

    boards: what the same goes to.
    """

    def __init__(
        self,
        directory: Path,
        steps: int,
        start_step: int,
        is_main: bool,
        boards: Boards | None = None,
    ) -> None:
        self.is_main, self.steps, self.path = is_main, steps, directory / LOG_NAME
        self._boards = boards
        if not is_main:
            return
        if self.path.exists():
            _cut_log(self.path, start_step)
        if not (directory / _README).exists():
            write_atomically(
                directory / _README, files("relightx").joinpath("run_readme.md").read_bytes()
            )
        self._file = open(self.path, "a", buffering=1)  # noqa: SIM115 - open for the whole run
        self._bar = _progress_bar() if sys.stderr.isatty() else None
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("training", total=steps, completed=start_step, note="")

    def log(self, step: int, values: dict[str, Any], note: str) -> None:
        """One report: numbers for the log and the boards, and a note for the person watching."""
        if not self.is_main:
            return
        record = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(record) + "\n")
        if self._boards:
            self._boards.log(step, {k: v for k, v in values.items() if isinstance(v, int | float)})
        if self._bar:
            self._bar.update(self._task, completed=step, note=note)
        else:
            print(f"step {step}/{self.steps}  {note}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line for the person watching."""
        if self.is_main:
            (self._bar.console.print if self._bar else _plain)(text)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """An sRGB picture (3, height, width) in [0, 1] for RUN/panels and the boards."""
        if self.is_main:
            pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
            file = self.path.parent / PANELS / f"{name.rpartition('/')[2]}-{step:08d}.png"
            file.parent.mkdir(exist_ok=True)
            written = io.BytesIO()
            Image.fromarray(pixels).save(written, "PNG")
            write_atomically(file, written.getvalue())
            if self._boards:
                self._boards.picture(step, name, file)

    def close(self) -> None:
        if self.is_main:
            if self._bar:
                self._bar.stop()
            if self._boards:
                self._boards.close()
            self._file.close()


def _cut_log(path: Path, last_step: int) -> None:
    kept = [json.dumps(record) for record in read_log(path) if record["step"] <= last_step]
    write_atomically(path, "".join(f"{line}\n" for line in kept).encode())


def _plain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
