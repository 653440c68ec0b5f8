"""Shards come to the node before they are needed, along the order that is known beforehand.

Each rank has a process that walks what its rank will need and holds it in the cache: the shards of
the steps that go on now, always, and as many of those that follow as fit its allowance. Ranks of a
node that need the same shard meet at the cache, where one downloads it. What is past is let go, and
may be evicted. A process and not a thread, since hashing and copying would take the training
process's interpreter from it.

A shard that cannot be had is left to the readers: they meet the same fault and tell it.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

from relightx.data.cache import Held
from relightx.data.order import Need

_POLL_S = 0.05
_THREADS = 4


class Prefetcher:
    """Holds the shards of the steps ahead, from `with` to its end.

    needs: called in the other process, in the order of the first steps. hold: downloads a shard, by
    its number, and holds it. size: of a shard in bytes. allowance: bytes held ahead of the step
    that goes on; start_step: that one at the beginning.
    """

    def __init__(
        self,
        needs: Callable[[], Iterable[Need]],
        hold: Callable[[int], Held],
        size: Callable[[int], int],
        *,
        allowance: int,
        start_step: int = 0,
        threads: int = _THREADS,
    ) -> None:
        self._walk = _Walk(needs, hold, size, allowance, threads)
        # Forked, so that neither order nor index has to be sent.
        self._context = multiprocessing.get_context("fork")
        self._step = self._context.Value("q", start_step)
        self._process: BaseProcess | None = None

    def __enter__(self) -> "Prefetcher":
        self._process = self._context.Process(
            target=self._walk.run, args=(self._step, os.getpid()), name="prefetch", daemon=True
        )
        self._process.start()
        return self

    def advance(self, step: int) -> None:
        """The training has come to this step."""
        self._step.value = step

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()  # it owns nothing that a kill could spoil
            self._process.join()
            self._process = None


@dataclass
class _Walk:
    """What the other process does."""

    needs: Callable[[], Iterable[Need]]
    hold: Callable[[int], Held]
    size: Callable[[int], int]
    allowance: int
    threads: int
    _held: dict[int, tuple[Future, int]] = field(default_factory=dict)
    """Shard -> what holds it, or will, and the last step that needs it."""
    _bytes: int = 0

    def run(self, step: Any, parent: int) -> None:
        """step: a shared number, the step that goes on; parent: the process to end with."""
        _own_signals()
        with ThreadPoolExecutor(self.threads) as pool:
            for need in self.needs():
                for _ in self._until(partial(self._has_room, need, step), parent):
                    self._let_go(step.value)
                self._take(need, pool)
            for _ in self._until(lambda: not self._held, parent):
                self._let_go(step.value)

    def _until(self, claim: Callable[[], bool], parent: int) -> Iterator[None]:
        """Turns until the claim is true; the process ends with its parent."""
        yield
        while not claim():
            if os.getppid() != parent:
                os._exit(1)  # not waiting for downloads that nobody needs
            time.sleep(_POLL_S)
            yield

    def _has_room(self, need: Need, step: Any) -> bool:
        fits = self._bytes + self.size(need.shard) <= self.allowance
        return need.shard in self._held or fits or need.first_step <= step.value

    def _take(self, need: Need, pool: ThreadPoolExecutor) -> None:
        if need.shard in self._held:
            future, last = self._held[need.shard]
        else:
            future, last = pool.submit(self.hold, need.shard), 0
            self._bytes += self.size(need.shard)
        self._held[need.shard] = (future, max(last, need.last_step))

    def _let_go(self, step: int) -> None:
        for shard, (future, last_step) in list(self._held.items()):
            if last_step < step and future.done():
                with contextlib.suppress(OSError):  # told by the reader that meets it
                    future.result().close()
                del self._held[shard]
                self._bytes -= self.size(shard)


def _own_signals() -> None:
    """Those of the training process would make this one save and stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
