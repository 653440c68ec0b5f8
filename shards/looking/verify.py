"""Re-read a data set and list every fault: files, hashes, tar headers, pictures, ranges, splits.

Faults make a data set unfit for training and fail the check; warnings are what a person should look
at. What can be said of one shard is said by shards.looking.shard_check, in several processes; here
is what concerns several: keys, subjects, pictures and how well labels agree with images.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from relightx.index import NAME, TABLE, Index
from shards.looking.agreement import Agreements, SourceAgreement
from shards.looking.duplicates import Held, Pictures
from shards.looking.shard_check import BROKEN, Fault, Findings, ShardJob, check_shard
from shards.parallel import ordered_map
from shards.read import Place, SplitPlace, find_splits, folder_at, read_split
from shards.splits import spelling
from shards.table import size_text

MAX_FAULTS = 50
_UNFINISHED = ".build/"


@dataclass(frozen=True)
class Report:
    """What was checked and found.

    faults, warnings: the first of them; num_faults and num_warnings count all. agreements: of each
    source that has labels.
    """

    splits: tuple[str, ...]
    shards: int
    groups: int
    images: int
    bytes: int
    faults: tuple[Fault, ...]
    num_faults: int
    warnings: tuple[Fault, ...] = ()
    num_warnings: int = 0
    agreements: tuple[SourceAgreement, ...] = ()

    @property
    def passed(self) -> bool:
        return self.num_faults == 0

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {"passed": self.passed, **asdict(self)}

    def __str__(self) -> str:
        lines = [*map(str, self.faults)]
        lines += _more(len(self.faults), self.num_faults, "faults")
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines += _more(len(self.warnings), self.num_warnings, "warnings")
        lines += [f"labels of {agreement}" for agreement in self.agreements]
        verdict = "no fault" if self.passed else f"{self.num_faults} faults"
        warned = f", {self.num_warnings} warnings" if self.num_warnings else ""
        lines.append(
            f"{verdict}{warned} in {self.groups} portraits, {self.images} images in {self.shards}"
            f" shards ({size_text(self.bytes)}) of {', '.join(self.splits) or 'no readable split'}"
        )
        return "\n".join(lines)


def verify(
    place: Place,
    workers: int = 1,
    max_faults: int = MAX_FAULTS,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Check a data set, or one split of it, whole.

    workers: processes, each with a shard at a time. max_faults: faults and warnings that the report
    holds, of each. progress: called with the number of portraits checked so far.
    Raises ValueError when the place holds neither, OSError when the storage fails.
    """
    places = find_splits(place)
    faults, warnings, agreements = _Kept(max_faults), _Kept(max_faults), Agreements()
    indexes = _read_indexes(places, faults)
    faults.extend(_foreign_files(places, indexes))
    faults.extend(_leaks(indexes))
    warnings.extend(_unfinished(place))
    warnings.extend(_spellings(indexes))
    jobs = [
        ShardJob(place.folder, f"{place.name}/{shard.name}", shard)
        for place in places
        if place.name in indexes
        for shard in indexes[place.name].shards
    ]
    num_groups = 0
    with Pictures() as pictures:
        for job, found in zip(jobs, ordered_map(check_shard, jobs, workers), strict=True):
            faults.extend(found.faults)
            warnings.extend(found.warnings)
            _note(job, found, agreements, pictures)
            num_groups += len(job.entry.groups)
            if progress:
                progress(num_groups)
        warnings.extend(_same_pictures(pictures))
    faults.extend(Fault(source, key, "", text) for source, key, text in agreements.faults())
    warnings.extend(Fault(source, key, "", text) for source, key, text in agreements.warnings())
    return Report(
        splits=tuple(indexes),
        shards=len(jobs),
        groups=num_groups,
        images=sum(index.totals.images for index in indexes.values()),
        bytes=sum(job.entry.bytes for job in jobs),
        faults=tuple(faults.first),
        num_faults=faults.count,
        warnings=tuple(warnings.first),
        num_warnings=warnings.count,
        agreements=tuple(agreements.summaries()),
    )


class _Kept:
    """The first of what was found, and how much that was in all."""

    def __init__(self, limit: int) -> None:
        self.first: list[Fault] = []
        self.count = 0
        self._limit = limit

    def extend(self, found: "list[Fault] | Iterator[Fault]") -> None:
        for fault in found:
            self.count += 1
            if len(self.first) < self._limit:
                self.first.append(fault)


def _read_indexes(places: list[SplitPlace], faults: _Kept) -> dict[str, Index]:
    indexes: dict[str, Index] = {}
    for place in places:
        try:
            index = read_split(place)
        except BROKEN as error:
            faults.extend([Fault(f"{place.name}/{NAME}", "", "", str(error))])
            continue
        try:
            index.check_table()
        except ValueError as error:
            faults.extend([Fault(f"{place.name}/{TABLE}", "", "", str(error))])
            continue
        indexes[place.name] = index
    return indexes


def _note(job: ShardJob, found: Findings, agreements: Agreements, pictures: Pictures) -> None:
    split = job.name.partition("/")[0]
    for checked in found.checked:
        group = job.entry.groups[checked.number]
        pictures.add(Held(group.key, group.subject, split), checked.hashes)
        if checked.agreement is not None:
            agreements.add(group.key, checked.agreement)


def _foreign_files(places: list[SplitPlace], indexes: dict[str, Index]) -> Iterator[Fault]:
    for place in places:
        if place.name not in indexes:
            continue
        known = {NAME, TABLE, *(shard.name for shard in indexes[place.name].shards)}
        for name in place.folder.names():
            if name not in known:
                yield Fault(f"{place.name}/{name}", "", "", f"is not in the {NAME}")


def _unfinished(place: Place) -> Iterator[Fault]:
    if next(folder_at(place).child(_UNFINISHED.rstrip("/")).names(), None) is not None:
        message = "a build is under way here, or was stopped: finish it or build with --overwrite"
        yield Fault(_UNFINISHED, "", "", message)


def _leaks(indexes: dict[str, Index]) -> Iterator[Fault]:
    """Keys that occur twice and subjects that are in two splits."""
    split_of_subject: dict[str, str] = {}
    shard_of_key: dict[str, str] = {}
    for split, index in indexes.items():
        for subject in index.subjects:
            other = split_of_subject.setdefault(subject, split)
            if other != split:
                message = f"subject {subject!r} is in {other} too; a person belongs to one split"
                yield Fault(f"{split}/{NAME}", "", "", message)
        for shard in index.shards:
            for group in shard.groups:
                name = f"{split}/{shard.name}"
                if group.key in shard_of_key:
                    message = f"the key occurs in {shard_of_key[group.key]} already"
                    yield Fault(name, group.key, "", message)
                shard_of_key.setdefault(group.key, name)


def _spellings(indexes: dict[str, Index]) -> Iterator[Fault]:
    """Subjects that are perhaps one person written in two ways."""
    written: dict[str, dict[str, str]] = defaultdict(dict)
    for split, index in indexes.items():
        for subject in index.subjects:
            written[spelling(subject)][subject] = split
    for names in written.values():
        if len(names) > 1:
            text = ", ".join(f"{name!r} in {split}" for name, split in islice(names.items(), 5))
            first = next(iter(names.values()))
            message = f"subjects differ in spelling alone and may be one person: {text}"
            yield Fault(f"{first}/{NAME}", "", "", message)


def _same_pictures(pictures: Pictures) -> Iterator[Fault]:
    for first, second, count in pictures.shared():
        images = "image is" if count == 1 else "images are"
        if first == second:
            message = f"{count} {images} there twice"
        else:
            where = f" of subject {first.subject!r}" if first.subject != second.subject else ""
            across = f" in {first.split}" if first.split != second.split else ""
            message = f"{count} {images} also in portrait {first.key}{where}{across}"
        yield Fault(second.split, second.key, "", message)


def _more(shown: int, count: int, what: str) -> list[str]:
    return [f"... and {count - shown} more {what}"] if count > shown else []
