"""The work of one build that its engines share: which groups, which shards, what is left out.

An engine is a generator that builds every shard of a job and yields the number of groups it has
done, as it goes; `here` is that of this machine, shards.building.ray_engine that of a Ray cluster.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from shards.building.destination import Destination, Record
from shards.building.plan import Fault, Find, Place, Plan
from shards.building.recipe import Prepared, Recipe, Task, prepare
from shards.building.report import Skips, too_many
from shards.parallel import ordered_map
from shards.write import ShardWriter, shard_name

_UPLOADS = 2  # finished shards on their way to storage while the next is written


@dataclass
class Job:
    """Shards to build.

    wanted: whether a shard is to be built. faults: groups left out so far.
    """

    plan: Plan
    find: Find
    recipe: Recipe
    workers: int
    destination: Destination
    wanted: Callable[[str, int], bool]
    skips: Skips
    faults: list[Fault] = field(default_factory=list)

    def tasks(self) -> Iterator[tuple[Place, Task]]:
        """The groups to prepare, in the plan's order."""
        for place, group in self.plan.placed(self.find):
            if self.wanted(place.split, place.shard):
                yield place, Task(place.ordinal, group, place.subject, self.recipe)

    def leave_out(self, faults: Iterable[Fault]) -> None:
        """Note groups that are left out; raises TooManySkipped beyond what is allowed."""
        self.faults += faults
        if len(self.faults) > self.skips.allowed:
            raise too_many(self.faults, self.skips, self.destination.report_beside())


Engine = Callable[[Job], Iterator[int]]


def here(job: Job) -> Iterator[int]:
    """The engine of this machine: groups in worker processes, shards written by this one.

    Groups, not shards, go to the workers: small data sets have few shards.
    """
    with ExitStack() as stack:
        directory = job.destination.writing_directory()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        finished = stack.enter_context(_Finished(job.destination))
        waiting: dict[int, tuple[Place, str]] = {}
        tasks = _noted(job.tasks(), waiting)
        done = stack.enter_context(closing(ordered_map(prepare, tasks, job.workers)))
        open_shards: dict[str, OpenShard] = {}
        # Of the open ones alone: a million groups' tables do not belong in memory.
        stack.callback(_abandon, open_shards)
        for prepared in done:
            place, key = waiting.pop(prepared.ordinal)
            shard = open_shards.get(place.split)
            if shard is None or shard.number != place.shard:
                if shard is not None:
                    finished.add(*shard.close())
                shard = OpenShard(directory, place.split, place.shard)
                open_shards[place.split] = shard
            job.leave_out(shard.add(prepared, key, place.subject))
            yield 1
        for shard in open_shards.values():
            finished.add(*shard.close())


def _abandon(shards: "dict[str, OpenShard]") -> None:
    for shard in shards.values():
        shard.abandon()


def one_shard(split: str, number: int, tasks: Iterable[Task], destination: Destination) -> Record:
    """Build one shard by itself in this process, to the end; for engines of whole shards."""
    directory = destination.writing_directory()
    shard = OpenShard(directory, split, number)
    try:
        for task in tasks:
            shard.add(prepare(task), task.group.key, task.subject)
        record, file = shard.close()
        destination.keep(record, file)
        return record
    finally:
        shard.abandon()
        shutil.rmtree(directory, ignore_errors=True)


class OpenShard:
    """A shard that is being written, and the groups that it had to leave out."""

    def __init__(self, directory: Path, split: str, number: int) -> None:
        self.split, self.number = split, number
        # Shards of several splits are written side by side and have the same names.
        (directory / split).mkdir(exist_ok=True)
        self._file = directory / split / shard_name(number)
        self._writer: ShardWriter | None = None
        self._faults: list[Fault] = []

    def add(self, prepared: Prepared, key: str, subject: str) -> list[Fault]:
        """Write a group's portraits; the fault, where it has none."""
        if prepared.fault is not None:
            fault = Fault(prepared.ordinal, key, subject, prepared.fault)
            self._faults.append(fault)
            return [fault]
        if self._writer is None:
            self._writer = ShardWriter(self._file)
        for packed in prepared.packed:
            self._writer.add(packed)
        return []

    def close(self) -> tuple[Record, Path | None]:
        """The record and the file, None where every group was left out."""
        entry = None if self._writer is None else self._writer.close()
        record = Record(self.split, self.number, entry, self._faults)
        return record, None if entry is None else self._file

    def abandon(self) -> None:
        """Leave nothing half-written behind; does no harm after `close`."""
        if self._writer is not None:
            self._writer.abandon()


class _Finished:
    """Puts finished shards in their place in the background, a few at a time."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._pool = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> "_Finished":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # Also after an error: a shard that is finished need not be built again.
            for pending in self._pending:
                if kind is None:
                    pending.result()
                else:
                    pending.exception()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, record: Record, file: Path | None) -> None:
        while len(self._pending) >= _UPLOADS:
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(self._destination.keep, record, file))


def _noted(
    tasks: Iterable[tuple[Place, Task]], waiting: dict[int, tuple[Place, str]]
) -> Iterator[Task]:
    for place, task in tasks:
        waiting[place.ordinal] = (place, task.group.key)
        yield task
