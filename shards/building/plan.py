"""Which group goes into which shard, decided before any picture is read.

Shards are cut by estimated sizes: some groups, spread over the set, are prepared to learn the bytes
of an image. So a shard's content depends neither on the other shards nor on who builds it, which
is what lets processes, Ray tasks and SLURM jobs build them apart, and a stopped build go on.

The table is an SQLite file in the system's temporary folder: memory does not grow with the set.
"""

import hashlib
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from shards.building.recipe import Recipe, Task, prepare
from shards.group import Group
from shards.splits import SPLITS, Assign, spelling
from shards.write import tar_bytes

SAMPLES = 8
"""Groups that are prepared to estimate the size and time of all."""
_BATCH = 2_000

_SCHEMA = """
CREATE TABLE groups (ordinal INTEGER PRIMARY KEY, key TEXT UNIQUE, subject TEXT, split TEXT,
                     lights INTEGER, shard INTEGER);
CREATE TABLE faults (ordinal INTEGER PRIMARY KEY, key TEXT, subject TEXT, fault TEXT);
CREATE TABLE subjects (spelling TEXT PRIMARY KEY, name TEXT, key TEXT) WITHOUT ROWID;
"""

Find = Callable[[], Iterator[Group]]
"""Finds the groups of a source, the same at each call."""


class Fault(NamedTuple):
    """A group that is left out, and why."""

    ordinal: int
    key: str
    subject: str
    fault: str


class Estimate(NamedTuple):
    """What preparing some groups taught of all.

    bytes_per_image: in a shard, labels included. seconds_per_group: of one process.
    """

    bytes_per_image: float
    seconds_per_group: float
    samples: int


class Shard(NamedTuple):
    """A shard to build and what is expected in it."""

    split: str
    number: int
    groups: int
    images: int
    bytes: int


class Place(NamedTuple):
    """Where a group goes: its shard, and the name its subject has in the data set."""

    ordinal: int
    subject: str
    split: str
    shard: int


class Plan:
    """The table of a planned build; made by `make_plan`, closed by `close` or a with statement."""

    def __init__(self, estimate: Estimate | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="relightx-plan-")
        self.database = sqlite3.connect(Path(self._directory.name) / "plan.sqlite")
        self.database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        self.estimate = estimate
        self.fingerprint = ""

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the table."""
        self.database.close()
        self._directory.cleanup()

    def shards(self) -> list[Shard]:
        """Every shard, by split and number."""
        query = (
            "SELECT split, shard, count(*), sum(lights) FROM groups GROUP BY split, shard"
            " ORDER BY split, shard"
        )
        size = self.estimate.bytes_per_image if self.estimate else 0.0
        return [
            Shard(split, number, groups, images, round(images * size))
            for split, number, groups, images in self.database.execute(query)
        ]

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """(groups, subjects, images) of each split that has any."""
        query = (
            "SELECT split, count(*), count(DISTINCT subject), sum(lights) FROM groups"
            " GROUP BY split"
        )
        held = {split: tuple(numbers) for split, *numbers in self.database.execute(query)}
        return {split: held[split] for split in SPLITS if split in held}

    @property
    def num_groups(self) -> int:
        """Groups with a place in a shard."""
        return self.database.execute("SELECT count(*) FROM groups").fetchone()[0]

    def faults(self) -> Iterator[Fault]:
        """Groups that have no place, in the order they were found."""
        query = "SELECT ordinal, key, subject, fault FROM faults ORDER BY ordinal"
        return map(Fault._make, self.database.execute(query))

    def placed(self, find: Find) -> Iterator[tuple[Place, Group]]:
        """The groups of the plan, found again, each with its place.

        Raises ValueError when the source no longer finds the same groups.
        """
        query = "SELECT ordinal, key, subject, split, shard FROM groups ORDER BY ordinal"
        rows = self.database.execute(query)
        ordinal = -1
        groups = enumerate(find())
        for ordinal, key, subject, split, shard in rows:
            number, group = next(groups, (-1, None))
            while group is not None and number < ordinal:
                number, group = next(groups, (-1, None))
            if group is None or group.key != key:
                found = "nothing more" if group is None else repr(group.key)
                raise ValueError(
                    f"the source changed while it was read: group {key!r} was found first, then"
                    f" {found}; build again when nothing writes to it"
                )
            yield Place(ordinal, subject, split, shard), group


def make_plan(
    find: Find,
    assign: Assign,
    recipe: Recipe,
    shard_bytes: int,
    *,
    fold_subjects: bool = False,
    sample: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Plan:
    """Find every group, check its names and give it a shard.

    assign: subject -> split. shard_bytes: size that shards come close to. fold_subjects: take
    subjects whose names differ in spelling only for one person, instead of leaving out the later.
    sample: False builds shards of one group each, for tests of the plan alone.
    Raises ValueError when the source finds nothing, and what the source and `assign` raise.
    """
    if shard_bytes < 1:
        raise ValueError(f"shards of {shard_bytes} bytes asked; at least 1 needed")
    plan = Plan()
    try:
        samples = _enter(plan, find, assign, fold_subjects, progress)
        if not plan.num_groups:
            first = next(plan.faults(), None)
            why = f"; the first fault is: {first.fault}" if first else ""
            raise ValueError(f"the source gave no portraits; nothing was written{why}")
        plan.estimate = _estimate(samples, recipe) if sample else None
        _cut(plan, shard_bytes)
        plan.fingerprint = _fingerprint(plan)
        return plan
    except BaseException:
        plan.close()
        raise


def _enter(
    plan: Plan,
    find: Find,
    assign: Assign,
    fold_subjects: bool,
    progress: Callable[[int], None] | None,
) -> list[Group]:
    """Put every group into the table; some of them, chosen evenly by a fixed seed, come back."""
    chosen: list[Group] = []
    rng, usable = random.Random(0), 0
    table = plan.database
    for ordinal, group in enumerate(find()):
        subject, fault = _named(table, group, fold_subjects)
        if fault is None:
            row = (ordinal, group.key, subject, assign(subject), group.lights)
            table.execute("INSERT INTO groups VALUES (?, ?, ?, ?, ?, NULL)", row)
            usable += 1
            if len(chosen) < SAMPLES:
                chosen.append(group)
            elif (place := rng.randrange(usable)) < SAMPLES:
                chosen[place] = group
        else:
            row = (ordinal, group.key, group.subject, fault)
            table.execute("INSERT INTO faults VALUES (?, ?, ?, ?)", row)
        if ordinal % _BATCH == 0:
            table.commit()
        if progress:
            progress(ordinal + 1)
    table.commit()
    return chosen


def _named(table: sqlite3.Connection, group: Group, fold_subjects: bool) -> tuple[str, str | None]:
    """The subject's name in the data set, and what is wrong with the group's names, if anything."""
    held = table.execute("SELECT ordinal FROM groups WHERE key = ?", (group.key,)).fetchone()
    if held:
        return group.subject, (
            f"group {group.key!r} (subject {group.subject!r}): its key occurs twice, first as group"
            f" number {held[0]}; rename one: a key keeps letters, digits, '_' and '-'"
        )
    if not spelling(group.subject):
        return group.subject, f"group {group.key!r}: its subject {group.subject!r} has no letters"
    query = "SELECT name, key FROM subjects WHERE spelling = ?"
    known = table.execute(query, (spelling(group.subject),)).fetchone()
    if known is None:
        row = (spelling(group.subject), group.subject, group.key)
        table.execute("INSERT INTO subjects VALUES (?, ?, ?)", row)
        return group.subject, None
    name, key = known
    if name == group.subject or fold_subjects:
        return name, None
    return group.subject, (
        f"group {group.key!r}: its subject {group.subject!r} is spelt {name!r} in group {key!r}."
        " Rename one, or take both for one person with --fold-subjects"
    )


def _estimate(samples: list[Group], recipe: Recipe) -> Estimate | None:
    sizes: list[float] = []
    seconds: list[float] = []
    for group in samples:
        start = time.perf_counter()
        done = prepare(Task(0, group, group.subject, recipe))
        seconds.append(time.perf_counter() - start)
        images = max(group.lights, 1)
        if done.fault is None:
            sizes.append(sum(map(tar_bytes, done.packed)) / images)
    if not sizes:
        return None
    return Estimate(statistics.fmean(sizes), statistics.median(seconds), len(sizes))


def _cut(plan: Plan, shard_bytes: int) -> None:
    """Fill the shards of each split one after the other, in the order the groups were found."""
    size = plan.estimate.bytes_per_image if plan.estimate else float(shard_bytes)
    filled = {split: 0.0 for split in SPLITS}
    number = {split: 0 for split in SPLITS}
    writer = plan.database.cursor()
    rows = plan.database.execute("SELECT ordinal, split, lights FROM groups ORDER BY ordinal")
    while batch := list(islice(rows, _BATCH)):
        placed = []
        for ordinal, split, lights in batch:
            more = size * max(lights, 1)
            if filled[split] and filled[split] + more > shard_bytes:
                number[split] += 1
                filled[split] = 0.0
            filled[split] += more
            placed.append((number[split], ordinal))
        writer.executemany("UPDATE groups SET shard = ? WHERE ordinal = ?", placed)
    plan.database.commit()


def _fingerprint(plan: Plan) -> str:
    """A hash of every group's name and place."""
    digest = hashlib.sha256()
    query = "SELECT ordinal, key, subject, split, lights, shard FROM groups ORDER BY ordinal"
    for row in plan.database.execute(query):
        digest.update(repr(row).encode())
    return digest.hexdigest()
