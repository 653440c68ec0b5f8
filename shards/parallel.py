"""A function over many items in several processes, its results in the items' order."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items in flight for each worker: bounds memory, keeps workers busy


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int = 1
) -> Generator[Result, None, None]:
    """function(item) of each item, in order; with one worker, in this process.

    Close it, or read it to its end, to end the processes.

    Items and results are pickled between our own processes, never from files. Raises what the
    function raises; OSError when a worker process is killed; ValueError for less than one worker.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers asked; at least 1 needed")
    if workers == 1:
        yield from map(function, items)
        return
    # Spawned, because a fork copies the locks of OpenCV's and torch's threads in any state.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare_worker)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            "a worker process was killed, perhaps for want of memory; use fewer workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def one_thread() -> None:
    """Let torch, NumPy and OpenMP use one thread; call it before they are first imported.

    A matrix product divided among threads rounds differently: 2 of 40 synthetic heads had other
    normals, in their last bit, with two threads than with one.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent alone answers
    one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers: each watches for it and leaves with it."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
