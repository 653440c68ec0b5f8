"""Build a data set: plan it, let an engine build its shards, then publish it.

The order of a shard's groups and the bytes of each come from the plan and the group alone, so the
result is the same for any number of workers, Ray tasks or SLURM jobs, and for a build that was
stopped and gone on with.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from relightx.index import Totals
from relightx.storage import S3Options
from shards.building.contents import Contents
from shards.building.destination import Destination, open_destination
from shards.building.job import Engine, Job, here
from shards.building.plan import Fault, Find, Plan, make_plan
from shards.building.recipe import Recipe
from shards.building.report import Skips, report
from shards.splits import SPLITS, Assign
from shards.write import SHARD_BYTES

MAX_SKIPPED = 0.01


class Part(NamedTuple):
    """The share of a build that one of several jobs does: one shard in `count`."""

    number: int = 0
    count: int = 1

    def holds(self, split: str, shard: int) -> bool:
        """Whether a shard is this job's."""
        # Splits start at different jobs, or the first would get the only shard of each small one.
        return (shard + SPLITS.index(split)) % self.count == self.number


@dataclass(frozen=True)
class Settings:
    """How a data set is built; the engine, workers and parts never change its bytes."""

    recipe: Recipe = field(default_factory=Recipe)
    shard_bytes: int = SHARD_BYTES
    workers: int = 1
    part: Part = field(default_factory=Part)
    max_skipped: float = MAX_SKIPPED
    fold_subjects: bool = False
    resume: bool = False
    overwrite: bool = False
    storage: S3Options = field(default_factory=S3Options)

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise ValueError(f"max_skipped is {self.max_skipped}; a share from 0 to 1 needed")
        if self.workers < 1:
            raise ValueError(f"{self.workers} workers asked; at least 1 needed")
        if not 0 <= self.part.number < self.part.count:
            raise ValueError(
                f"part {self.part.number} of {self.part.count}: the number runs from 0 to"
                f" {self.part.count - 1}"
            )


class Built(NamedTuple):
    """What a build ended with.

    totals: of each split; None when shards of other parts are missing. faults: the groups that
    were left out, as far as this process knows. shards_left: of other parts.
    """

    totals: dict[str, Totals] | None
    faults: list[Fault]
    shards_left: int = 0


Progress = Callable[[int, int], Callable[[int], None]]
"""Told how many groups there are to do and how many are done already; gives what to call with the
number done."""


def build(
    find: Find,
    out: str | Path,
    assign: Assign,
    settings: Settings | None = None,
    about: dict[str, Any] | None = None,
    engine: Engine = here,
    progress: Progress | None = None,
) -> Built:
    """Make the data set of a source at a local path or s3:// URL.

    find: finds the source's groups. assign: subject -> split. about: goes into the report, and
    an unfinished build with another is not this one. engine: see shards.building.job.
    Raises ValueError for bad input, TooManySkipped (a ValueError) when more groups are unusable
    than settings.max_skipped allows, OSError for a disk or storage that fails. Finished shards stay
    for a later call with settings.resume; a data set that was there stays as it is until the new
    one is whole.
    """
    settings, about = settings or Settings(), about or {}
    destination = open_destination(out, settings.storage)
    goes_on = settings.resume or settings.part.count > 1
    if not goes_on:
        destination.refuse_taken(settings.overwrite)  # before the wait for the plan
    with make_plan(
        find, assign, settings.recipe, settings.shard_bytes, fold_subjects=settings.fold_subjects
    ) as plan:
        about = about | {
            "relightx": version("relightx"),  # another one may encode otherwise
            "shard_bytes": settings.shard_bytes,
            "recipe": settings.recipe.record(),
        }
        description = about | {"groups": plan.fingerprint}
        about["build"] = hashlib.sha256(
            json.dumps(description, sort_keys=True, default=str).encode()
        ).hexdigest()
        if goes_on and (there := destination.published(about["build"])) is not None:
            return Built(there, [])
        destination.begin(
            description,
            resume=settings.resume,
            overwrite=settings.overwrite,
            shared=settings.part.count > 1,
        )
        with destination.locked(f"{settings.part.number}-of-{settings.part.count}"):
            try:
                return _build(plan, find, destination, settings, about, engine, progress)
            except BaseException as error:
                # Other jobs of an array are at work there.
                if settings.part.count > 1 or destination.drop_if_empty():
                    error.add_note(f"{out}: finished shards are kept; --resume goes on with them")
                raise


def _build(
    plan: Plan,
    find: Find,
    destination: Destination,
    settings: Settings,
    about: dict[str, Any],
    engine: Engine,
    progress: Progress | None,
) -> Built:
    planned = [(shard.split, shard.number, shard.groups) for shard in plan.shards()]
    own = {(s, n): groups for s, n, groups in planned if settings.part.holds(s, n)}
    finished = set(destination.finished(check=True))
    known = list(plan.faults())
    skips = Skips(settings.max_skipped, plan.num_groups + len(known))
    job = Job(
        plan=plan,
        find=find,
        recipe=settings.recipe,
        workers=settings.workers,
        destination=destination,
        wanted=lambda split, number: (split, number) in own and (split, number) not in finished,
        skips=skips,
    )
    try:
        job.leave_out(known)
        for split, number in finished:
            job.leave_out(destination.record(split, number).faults)
        done = sum(groups for place, groups in own.items() if place in finished)
        show = progress(sum(own.values()), done) if progress else None
        with closing(engine(job)) as counts:
            for count in counts:
                done += count
                if show:
                    show(done)
        missing = {(split, number) for split, number, _ in planned} - set(destination.finished())
        if missing:
            return Built(None, job.faults, len(missing))
        with destination.publishing() as is_first:
            if is_first:
                return _publish(plan, destination, settings, about, skips)
        return Built(destination.published(about["build"]), job.faults)
    except BaseException:
        if job.faults:
            failed = report(about, {}, job.faults, skips, complete=False)
            destination.write_failed_report(failed)
        raise


def _publish(
    plan: Plan,
    destination: Destination,
    settings: Settings,
    about: dict[str, Any],
    skips: Skips,
) -> Built:
    """Check the shards together, then make them a data set."""
    contents, faults = Contents(plan.database), list(plan.faults())
    places = sorted(destination.finished(), key=lambda place: (SPLITS.index(place[0]), place[1]))
    for split, number in places:
        record = destination.record(split, number)
        faults += record.faults
        if record.entry is not None:
            contents.add(split, record.entry)
    totals = {split: contents.totals(split) for split in contents.splits}
    if not totals:
        destination.clear()
        raise ValueError("no group could be used; nothing was written")

    destination.finish(totals, report(about, totals, faults, skips), settings.overwrite)
    destination.remove_failed_report()
    return Built(totals, faults)
