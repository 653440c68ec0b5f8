"""One measurement: who reads what, from where, with how many workers; and how it is timed.

A contestant is a function from a job to an iterable of batches, at most one epoch of them. The
clock starts before it is called, so opening indexes and starting workers belong to the first batch.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from loading.batch import BATCH, PREFETCH, Batch
from torch.utils.data import DataLoader

from relightx.data.workers import use_one_thread

_LONGEST_WARM_UP_S = 2.0
"""Whoever is that slow has nothing made ahead."""
MOST_S = 120
"""Seconds after which a measurement has failed."""

_TICKS = os.sysconf("SC_CLK_TCK")

Storage = Literal["disk", "s3 cold", "s3 warm"]


@dataclass(frozen=True)
class Job:
    """What to measure.

    place: the directory or s3:// URL of the data in the contestant's own format; cache: a directory
    for what it keeps of S3, empty before an "s3 cold" job. reference: the same portraits as local
    tar shards, to compare with. groups: portraits in an epoch. seconds: to be timed at most.
    """

    contestant: str
    storage: Storage
    workers: int
    lights: int
    groups: int
    place: str
    reference: str
    cache: str
    endpoint: str
    seconds: float

    @property
    def is_far(self) -> bool:
        return self.place.startswith("s3://")

    @property
    def cache_path(self) -> Path:
        return Path(self.cache)

    @property
    def batches(self) -> int:
        """Full batches of an epoch."""
        return self.groups // BATCH


Contestant = Callable[[Job], Iterable[Batch]]


class Timing(NamedTuple):
    """first_s: from the call to the first batch. cpu_ms: of all processes, for each group, which
    tells more than the rate where other programs share the machine."""

    groups_per_s: float
    first_s: float
    cpu_ms: float
    timed_groups: int


def timed(contestant: Contestant, job: Job) -> tuple[Timing, Batch]:
    """Go through the batches as fast as they come; and the last of them.

    Of a cold cache everything from the call on is timed: what is downloaded before the first batch
    is not for nothing. Otherwise the clock starts when as many batches have come as all workers
    make ahead: while one was slow to start, another may have made all of its own.
    """
    is_cold = job.storage == "s3 cold"
    cpu_begin = cpu_s(os.getpid())
    start = begin = time.perf_counter()
    first, groups, last = 0.0, 0, None
    is_warm = is_cold
    for number, last in enumerate(contestant(job)):
        now = time.perf_counter()
        if number == 0:
            first = now - start
        if is_warm:
            groups += len(last.key)
            cpu = cpu_s(os.getpid()) - cpu_begin
        elif number == job.workers * PREFETCH or now - start - first > _LONGEST_WARM_UP_S:
            is_warm, begin, cpu_begin = True, now, cpu_s(os.getpid())
        if groups and now - begin > job.seconds:
            break
    if last is None or not groups:
        raise ValueError(f"{job}: no batch is left to be timed")
    return Timing(groups / (now - begin), first, cpu / groups * 1e3, groups), last


def cpu_s(process: int | str) -> float:
    """Seconds of processor time that a process and all that it started have used."""
    try:
        used = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:15]
        started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return 0.0
    return sum(map(int, used)) / _TICKS + sum(map(cpu_s, started))


def loader(dataset: Any, job: Job, **options: Any) -> DataLoader:
    """As every contestant has it."""
    return DataLoader(dataset, **worker_options(job) | options)


def _use_one_thread(_worker: int) -> None:
    use_one_thread()


def worker_options(job: Job) -> dict[str, Any]:
    """Workers that are equal for all."""
    return {
        "num_workers": job.workers,
        "prefetch_factor": PREFETCH,
        "worker_init_fn": _use_one_thread,
    }
