"""The boards that a run is shown on, by the names that Accelerate gives them.

A board may be a service at the other end of a network. What goes there goes by a thread of its own,
so that training never waits for it; what does not get there is told once and left out, since
RUN/metrics.jsonl has it all. A resumed run goes on where it was shown before: what a service calls
it is kept in RUN/boards.json.
"""

import contextlib
import json
import queue
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from relightx.index import write_atomically

_KNOWN = "boards.json"
_PENDING = 1000
_START_S, _END_S = 180.0, 60.0


def check_boards(names: Sequence[str]) -> None:
    """Raises ValueError for a name that Accelerate does not know, and a program that is missing."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ValueError(f"run.boards names {name!r}; known are {known}")
        if find_spec(name) is None:
            raise ValueError(
                f"run.boards names {name}, which is not installed here: pip install {name}, or for"
                " wandb, mlflow and trackio: bash launch/install.sh boards"
            )


class Boards:
    """Shows a run on the boards named, from its start to `close`.

    directory: the run's; its name is the run's name there. project: what runs are gathered under.
    config: the settings by their dotted keys. Raises ValueError for a board that does not start.
    """

    def __init__(
        self,
        names: Sequence[str],
        project: str,
        directory: Path,
        start_step: int,
        config: dict[str, Any],
    ) -> None:
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_PENDING)
        self._failed: set[str] = set()
        self._boards: dict[str, GeneralTracker] = {}
        self._directory = directory.absolute()
        # As a thread that nobody waits for at the end: a service that is gone must not keep a
        # finished run alive. All is done in it, because MLflow knows runs by thread.
        self._thread = threading.Thread(target=self._work, name="relightx-boards", daemon=True)
        self._thread.start()
        for name in dict.fromkeys(names):
            self._start(name, project, start_step, config)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step."""
        for name, board in self._boards.items():
            self._send(name, lambda board=board: board.log(values, step=step))

    def picture(self, step: int, name: str, file: Path) -> None:
        """A picture that was written to a file."""
        for board_name, board in self._boards.items():
            self._send(board_name, lambda board=board: _show(board, step, name, file))

    def close(self) -> None:
        """Have all of it shown, as far as that is soon done."""
        for name, board in self._boards.items():
            self._send(name, board.finish)
        self._put(None)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            _say(f"not all reached {', '.join(self._boards)} within {_END_S:.0f} s; left so")

    def _start(self, name: str, project: str, start_step: int, config: dict[str, Any]) -> None:
        known = _read(self._directory / _KNOWN)
        started: queue.Queue[Exception | None] = queue.Queue()

        def start() -> None:
            try:
                is_new = name not in known
                board = _board(name, project, self._directory, start_step, known)
                board.start()
                # TensorBoard makes a run of its own of settings, MLflow refuses to change one.
                if name != "tensorboard" and is_new:
                    board.store_init_configuration({k: _plain(v) for k, v in config.items()})
                if name == "mlflow":
                    known[name] = board.tracker.info.run_id
                self._boards[name] = board
                started.put(None)
            except (Exception, SystemExit) as error:
                started.put(ValueError(f"run.boards: {name} does not start: {error}"))

        self._put(start)
        try:
            error = started.get(timeout=_START_S)
        except queue.Empty:
            error = ValueError(f"run.boards: {name} has not started within {_START_S:.0f} s")
        if error is not None:
            raise error
        if name in known:
            write_atomically(self._directory / _KNOWN, json.dumps(known).encode())

    def _send(self, name: str, action: Callable[[], None]) -> None:
        def send() -> None:
            try:
                action()
                if name in self._failed:
                    self._failed.discard(name)
                    _say(f"{name} can be reached again; what is missing there stands in the log")
            except Exception as error:
                if name not in self._failed:
                    self._failed.add(name)
                    _say(f"{name} fails and is left behind: {' '.join(str(error).split())}")

        self._put(send)

    def _put(self, action: Callable[[], None] | None) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(action)

    def _work(self) -> None:
        while (action := self._queue.get()) is not None:
            action()


def _board(
    name: str, project: str, directory: Path, start_step: int, known: dict[str, str]
) -> GeneralTracker:
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        return kind("tensorboard", str(directory), purge_step=start_step + 1)
    if name == "wandb":
        known.setdefault(name, uuid.uuid4().hex[:12])
        return kind(
            project, id=known[name], name=directory.name, dir=str(directory), resume="allow"
        )
    if name == "trackio":
        known.setdefault(name, f"{directory.name}-{uuid.uuid4().hex[:6]}")
        return kind(project, name=known[name], resume="allow")
    if name == "mlflow":
        return kind(project, run_id=known.get(name), run_name=directory.name)
    return kind(project, str(directory)) if kind.requires_logging_directory else kind(project)


def _show(board: GeneralTracker, step: int, name: str, file: Path) -> None:
    if board.name == "mlflow":
        board.log_artifact(str(file), artifact_path="panels")
    elif board.name == "trackio":
        import trackio

        board.log({name: trackio.Image(str(file))}, step=step)
    elif board.name == "tensorboard":
        board.log_images({name: np.array(Image.open(file))[None]}, step, dataformats="NHWC")
    elif hasattr(board, "log_images"):
        board.log_images({name: [np.array(Image.open(file))]}, step=step)


def _read(file: Path) -> dict[str, str]:
    return json.loads(file.read_text()) if file.exists() else {}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _say(text: str) -> None:
    print(f"relightx train: boards: {text}", file=sys.stderr, flush=True)
