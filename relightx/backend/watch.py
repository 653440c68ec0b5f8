"""A rank that hangs is named, with what it was doing, instead of keeping a cluster for nothing.

When one process stands still the others wait for it without a word: in the exchange of gradients,
until a time limit of the library that names the wrong one. Here every process notes what it is
about to do, a thread of it tells this to the run's directory, and when nothing has moved for too
long, it says which ranks the others wait for, prints where all threads of its own are, and ends the
process, upon which the launcher ends the rest.
"""

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from relightx.ending import HUNG
from relightx.index import write_atomically

RANKS = ".ranks"
_TELL_S = 5.0
WAITING = ("backward", "report", "save")
"""What a process is in while it waits for others."""


class Watch:
    """In a `with` statement; `at` is called with what is begun.

    rank: this process's. directory: of the run. limit_s: how long one thing may take; 0: no limit.
    """

    def __init__(self, directory: Path, rank: int, world_size: int, limit_s: float) -> None:
        self.directory, self.rank, self.world_size = directory / RANKS, rank, world_size
        self.limit_s = limit_s
        self._pause_s = min(_TELL_S, limit_s / 8)
        self._now = (0, "start", time.time())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="relightx-watch", daemon=True)

    def __enter__(self) -> "Watch":
        if self.limit_s:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.limit_s:
            self._thread.join()
            self._file(self.rank).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others still tell
                self.directory.rmdir()

    def at(self, step: int, doing: str) -> None:
        """Note what begins. Costs nothing: one assignment."""
        self._now = (step, doing, time.time())

    def _go_on(self) -> None:
        while not self._over.wait(self._pause_s):
            step, doing, since = self._now
            self._tell(step, doing, since)
            if time.time() - since > self.limit_s:
                self._end(step, doing)

    def _tell(self, step: int, doing: str, since: float) -> None:
        about = {"host": socket.gethostname(), "pid": os.getpid()}
        about |= {"step": step, "doing": doing, "since": since}
        with contextlib.suppress(OSError):  # a full or absent disk is another's to report
            self.directory.mkdir(exist_ok=True)  # once there is a run's directory
            write_atomically(self._file(self.rank), json.dumps(about).encode())

    def _end(self, step: int, doing: str) -> None:
        time.sleep(self._pause_s + 1)  # for the others to tell where they are
        if (step, doing) != self._now[:2]:
            return
        print(
            f"relightx train: nothing has moved for {self.limit_s:g} s (run.hang_s): rank"
            f" {self.rank} is in {doing!r} of step {step}. {self._blame()} Where this one's threads"
            " are:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        sys.stderr.flush()
        os._exit(HUNG)

    def _blame(self) -> str:
        """Which ranks the others wait for."""
        told = {rank: self._read(rank) for rank in range(self.world_size)}
        silent = [rank for rank, about in told.items() if about is None or self._is_old(rank)]
        known = {rank: about for rank, about in told.items() if about is not None}
        first = min((about["step"] for about in known.values()), default=0)
        last = [
            f"rank {rank} ({about['host']}, pid {about['pid']}) is in {about['doing']!r} of step"
            f" {about['step']}"
            for rank, about in known.items()
            if about["step"] == first and about["doing"] not in WAITING and rank not in silent
        ]
        parts = [self._silent(rank, told[rank]) for rank in silent]
        if last and len(last) < self.world_size:
            parts.append("the others wait for: " + "; ".join(last))
        return (". ".join(parts) or "All ranks are in the same place") + "."

    def _silent(self, rank: int, about: dict | None) -> str:
        if about is None:
            return f"rank {rank} told nothing"
        return (
            f"rank {rank} ({about['host']}, pid {about['pid']}) is stopped or gone, at last in"
            f" {about['doing']!r} of step {about['step']}"
        )

    def _is_old(self, rank: int) -> bool:
        """Whether a process has not told for longer than this one, by the disk's clock."""
        own, other = (self._file(each).stat().st_mtime for each in (self.rank, rank))
        return own - other > 4 * self._pause_s

    def _read(self, rank: int) -> dict | None:
        try:
            return json.loads(self._file(rank).read_text())
        except (OSError, ValueError):
            return None

    def _file(self, rank: int) -> Path:
        return self.directory / f"rank-{rank:05d}.json"
