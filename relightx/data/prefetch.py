"""Shards come to the node before they are needed, along the order that is known beforehand.

Each rank has a process that walks what its rank will need and holds it in the cache: the shards of
the step that goes on, always, and as many of those that follow as fit its allowance. Ranks of a
node that need the same shard meet at the cache, where one downloads it. What is past is let go, and
may be evicted. A process and not a thread, since hashing and copying would take the training
process's interpreter from it.

It is forked, as torch forks its readers from the same state: so neither order nor index has to be
sent, and what its parent holds it does not (see relightx.data.flock). It does nothing with a GPU.
It ends with its parent, however that ends, by looking who its parent is: a signal on the parent's
death would come when the thread that started it ends, and the end of a pipe would not come while
another child has the pipe open.

A shard that cannot be had is left to the readers, which meet the same fault and tell it; here it
is tried once for each time it is needed, told by `fault`, and takes its place in the allowance
until it is past, so that a server that is down is not asked for all that will ever be needed. Where
only the cache has no room, it is tried again: room comes as steps go by.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

from relightx.data.cache import Held, NoRoom, remove_unfinished
from relightx.data.order import Need
from relightx.storage import retries_of_process

_POLL_S = 0.05
_ROOM_PAUSE_S = 1.0
_END_S = 5.0
_THREADS = 4
_MOST_AHEAD = 4096
"""Needs that are walked ahead of the step that goes on. Where all shards fit the allowance, the
order would else be walked to the end of the run, and that may be far."""
_FAULT_BYTES = 4096


class Prefetcher:
    """Holds the shards of the steps ahead, from `with` to its end.

    needs: called in the other process, in the order of the first steps. hold: downloads a shard, by
    its number, and holds it. size: of a shard in bytes. allowance: bytes held beyond those of the
    step that goes on; start_step: that one at the beginning. threads: downloads at a time.
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
        if threads < 1 or allowance < 0:
            raise ValueError(
                f"{threads} threads and an allowance of {allowance} bytes asked; 1 or more and 0 or"
                " more needed"
            )
        context = multiprocessing.get_context("fork")
        # Without locks, one of which a killed process would keep: a step is one store of 8 bytes.
        self._shared = _Shared(
            step=context.RawValue(ctypes.c_longlong, start_step),
            is_over=context.RawValue(ctypes.c_bool, False),
            fault=context.RawArray(ctypes.c_char, _FAULT_BYTES),
            retries=context.RawValue(ctypes.c_longlong, 0),
        )
        walk = _Walk(needs, hold, size, allowance, threads, self._shared)
        self._start = lambda: context.Process(
            target=walk.run, args=(os.getpid(),), name="prefetch", daemon=True
        )
        self._owner = os.getpid()
        self._process: BaseProcess | None = None

    def __enter__(self) -> "Prefetcher":
        self._process = self._start()
        self._process.start()
        return self

    def advance(self, step: int) -> None:
        """The training has come to this step; those before it are past. It takes no time."""
        self._shared.step.value = step

    @property
    def retries(self) -> int:
        """How often something failed there and was tried again, so far."""
        return self._shared.retries.value

    @property
    def fault(self) -> str:
        """What failed last, in a line; "" if nothing did. The training need not stop for it."""
        ended = None if self._process is None else self._process.exitcode
        if ended is not None:
            return (
                f"the process that fetches shards ahead ended with status {ended}; they are"
                f" fetched when they are needed. {self._shared.said}"
            ).strip()
        return self._shared.said

    def __exit__(self, *_: object) -> None:
        if self._process is None or self._owner != os.getpid():
            return
        self._shared.is_over.value = True
        self._process.join(_END_S)
        self._process.kill()  # if it has not ended by itself
        self._process.join()
        self._process = None


@dataclass(frozen=True)
class _Shared:
    """What both processes see."""

    step: Any
    is_over: Any
    fault: Any
    retries: Any

    @property
    def said(self) -> str:
        return self.fault.value.decode(errors="replace")

    def tell(self, error: BaseException) -> None:
        said = " ".join(str(error).split()) or type(error).__name__
        self.fault.value = said.encode()[: _FAULT_BYTES - 1]


@dataclass
class _Shard:
    """What holds a shard, or will, and the steps, from first to last, that need it."""

    future: Future
    size: int
    steps: list[tuple[int, int]] = field(default_factory=list)

    def is_ahead(self, step: int) -> bool:
        """Whether it is kept for later steps, be it needed now or not."""
        return bool(self.steps) and self.steps[-1][0] > step

    def forget(self, step: int) -> bool:
        """Drop the steps before this one; whether there were any."""
        before = len(self.steps)
        self.steps = [(first, last) for first, last in self.steps if last >= step]
        return len(self.steps) < before

    @property
    def has_failed(self) -> bool:
        return self.future.done() and self.future.result() is None

    def let_go(self) -> bool:
        """Whether nothing holds it now, nor will."""
        if self.future.cancel():
            return True
        if self.future.done() and self.future.result() is not None:
            self.future.result().close()
        return self.future.done()


@dataclass
class _Walk:
    """What the other process does."""

    needs: Callable[[], Iterable[Need]]
    hold: Callable[[int], Held]
    size: Callable[[int], int]
    allowance: int
    threads: int
    shared: _Shared
    _pool: Any = None
    _shards: dict[int, _Shard] = field(default_factory=dict)
    _ahead: deque[int] = field(default_factory=deque)
    """First steps of the needs that were walked ahead."""

    def run(self, parent: int) -> None:
        """parent: the process to end with."""
        self._take_signals()
        try:
            self._pool = ThreadPoolExecutor(self.threads, "relightx-prefetch")
            needs = iter(self.needs())
            coming = next(needs, None)
            while not self.shared.is_over.value and os.getppid() == parent:
                step = self.shared.step.value
                self._let_go(step)
                self.shared.retries.value = retries_of_process()
                coming = self._go_on(coming, needs, step)
                time.sleep(_POLL_S)
        except BaseException as error:
            self.shared.tell(error)
            traceback.print_exc()
            _end(1)
        _end(0)

    def _go_on(self, need: Need | None, needs: Iterator[Need], step: int) -> Need | None:
        """Take what may be taken now; the first need that may not."""
        while self._ahead and self._ahead[0] <= step:
            self._ahead.popleft()
        ahead = sum(shard.size for shard in self._shards.values() if shard.is_ahead(step))
        while need is not None and not self.shared.is_over.value:
            if need.first_step > step:
                known = self._shards.get(need.shard)
                if known is None or not known.is_ahead(step):
                    ahead += self.size(need.shard)
                if ahead > self.allowance or len(self._ahead) >= _MOST_AHEAD:
                    return need
                self._ahead.append(need.first_step)
            if need.last_step >= step:
                self._take(need)
            need = next(needs, None)
        return need

    def _take(self, need: Need) -> None:
        shard = self._shards.get(need.shard)
        if shard is None:
            shard = _Shard(self._pool.submit(self._held, need.shard), self.size(need.shard))
            self._shards[need.shard] = shard
        shard.steps.append((need.first_step, need.last_step))

    def _held(self, number: int) -> Held | None:
        """In a thread: the shard; None when it is past or cannot be had."""
        while True:
            shard = self._shards.get(number)
            if self.shared.is_over.value or (shard is not None and not shard.steps):
                return None
            try:
                return self.hold(number)
            except NoRoom as error:
                self.shared.tell(error)
                time.sleep(_ROOM_PAUSE_S)
            except Exception as error:
                self.shared.tell(error)
                return None

    def _let_go(self, step: int) -> None:
        for number, shard in list(self._shards.items()):
            was_needed = shard.forget(step)
            if not shard.steps:
                if shard.let_go():
                    del self._shards[number]
            elif was_needed and shard.has_failed:
                shard.future = self._pool.submit(self._held, number)

    def _take_signals(self) -> None:
        """Those of the training process would make this one save a checkpoint and stop."""
        for ignored in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: _end(0))


def _end(status: int) -> None:
    """At once, not waiting for downloads that nobody needs; what is held is let go by that."""
    with contextlib.suppress(OSError):
        remove_unfinished()
    os._exit(status)
