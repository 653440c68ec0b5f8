"""Copy the portraits of finished data sets into a new one, their bytes unchanged.

Every shard that is read is held against its hash first, so that damage is found here and not sealed
with a new one. One such shard is on this machine at a time; finished shards go to their place at
once, and the indexes last, to a directory or to S3.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from relightx.index import Index, ShardEntry, Totals, totals_of
from relightx.storage import LocalFolder, S3Options
from shards.building.destination import Destination, Record, open_destination
from shards.building.report import Skips, report
from shards.looking.duplicates import Held, Pictures, picture_hash
from shards.looking.listing import totals_table
from shards.read import Place, SplitPlace, find_splits, name_of, read_members, read_split
from shards.rewriting.leaks import Leaks, People, find_leaks
from shards.splits import SPLITS
from shards.write import SHARD_BYTES, Packed, ShardWriter, shard_name, tar_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Target:
    """Where a data set goes and how.

    out: a directory or an s3:// URL, reached by `storage`. overwrite: replace the data set there.
    progress: called with the number of portraits copied so far.
    """

    out: str | Path
    shard_bytes: int = SHARD_BYTES
    overwrite: bool = False
    storage: S3Options | None = None
    progress: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise ValueError(f"shards of {self.shard_bytes} bytes asked; at least 1 needed")


@dataclass(frozen=True)
class Source:
    """A data set to copy from.

    name: what it is called in messages. prefix: what goes before its keys.
    """

    name: str
    splits: tuple[tuple[SplitPlace, Index], ...]
    prefix: str = ""

    def groups(self) -> Iterator[tuple[str, str, str]]:
        """(key, subject, split) of every portrait, the key with its prefix."""
        for _, index in self.splits:
            for shard in index.shards:
                for group in shard.groups:
                    yield f"{self.prefix}{group.key}", group.subject, index.split


class Copied(NamedTuple):
    """A portrait on its way; split: where it was."""

    split: str
    packed: Packed


@dataclass(frozen=True)
class Rewritten:
    """What was written, and what its splits have in common that they should not."""

    totals: dict[str, Totals]
    leaks: Leaks

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        splits = {split: dict(vars(total)) for split, total in self.totals.items()}
        return {"splits": splits, "leaks": self.leaks.as_dict()}

    def __str__(self) -> str:
        return f"{totals_table(self.totals)}\n{self.leaks}"


def open_source(place: Place) -> Source:
    """The data set at a place; raises ValueError when there is none that can be copied."""
    splits = [(split, read_split(split)) for split in find_splits(place)]
    for found, index in splits:
        if index.split not in SPLITS:
            raise ValueError(
                f"{found.folder.url}: its index names the split {index.split!r};"
                f" {', '.join(SPLITS)} are known"
            )
    return Source(name_of(place), tuple(splits))


def copy(
    sources: list[Source], target: Target, choose: Callable[[Copied], str], about: dict[str, Any]
) -> Rewritten:
    """Write the portraits of all sources in their order.

    choose: the split that a portrait goes to. about: goes into the new data set's report.
    Raises ValueError for a target that is taken or read from and for a damaged shard, OSError for a
    storage that fails or is full. Nothing is left of a data set that could not be finished.
    """
    destination = open_destination(target.out, target.storage or S3Options())
    _refuse_itself(sources, destination)
    before, after, moved = People(), People(), 0
    with Pictures() as pictures, _begun(destination, target, about) as writers:
        for number, copied in enumerate(_copies(sources), 1):
            chosen, packed = choose(copied), copied.packed
            writers.add(chosen, packed)
            before.add(packed.subject, copied.split)
            after.add(packed.subject, chosen)
            pictures.add(Held(packed.key, packed.subject, chosen), _light_hashes(packed))
            moved += chosen != copied.split
            if target.progress:
                target.progress(number)
        leaks = find_leaks(before, after, pictures, moved)
        return Rewritten(writers.finish(about), leaks)


def _copies(sources: list[Source]) -> Iterator[Copied]:
    for source in sources:
        for place, index in source.splits:
            for shard in index.shards:
                with _sound_shard(place, shard) as path:
                    for group in shard.groups:
                        members = read_members(path.parent, path.name, group)
                        key = f"{source.prefix}{group.key}"
                        packed = Packed(key, group.subject, group.lights, members)
                        yield Copied(index.split, packed)


@contextmanager
def _sound_shard(place: SplitPlace, shard: ShardEntry) -> Iterator[Path]:
    """A local file of the shard; ValueError when it is not the one that the index describes."""
    with place.folder.local(shard.name) as path:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != shard.sha256:
            raise ValueError(
                f"{place.folder.url_of(shard.name)}: is damaged: its sha256 is {digest[:12]}...,"
                f" the index says {shard.sha256[:12]}...; relightx-shards verify tells more"
            )
        yield path


def _light_hashes(packed: Packed) -> Iterator[bytes]:
    return (picture_hash(data) for name, data in packed.members.items() if name[:5] == "light")


class _Writers:
    """The open shard of each split; finished ones go to the destination at once."""

    def __init__(
        self, destination: Destination, target: Target, directory: Path, files: ExitStack
    ) -> None:
        self._destination, self._target = destination, target
        self._directory = directory
        files.callback(self._abandon)
        self._open: dict[str, ShardWriter] = {}
        self._done: dict[str, list[ShardEntry]] = {}

    def add(self, split: str, packed: Packed) -> None:
        if split not in SPLITS:
            raise ValueError(f"subject {packed.subject!r}: split {split!r} is unknown")
        writer = self._open.get(split)
        if writer and writer.position + tar_bytes(packed) > self._target.shard_bytes:
            self._close(split)
        if split not in self._open:
            place = self._directory / split
            place.mkdir(exist_ok=True)
            name = shard_name(len(self._done.setdefault(split, [])))
            self._open[split] = ShardWriter(place / name)
        self._open[split].add(packed)

    def finish(self, about: dict[str, Any]) -> dict[str, Totals]:
        """Write the indexes; the data set is there afterwards."""
        for split in list(self._open):
            self._close(split)
        totals = {split: totals_of(self._done[split]) for split in SPLITS if split in self._done}
        skips = Skips(0.0, sum(total.groups for total in totals.values()))
        self._destination.finish(totals, report(about, totals, [], skips), self._target.overwrite)
        return totals

    def _abandon(self) -> None:
        for writer in self._open.values():
            writer.abandon()

    def _close(self, split: str) -> None:
        writer = self._open.pop(split)
        entry = writer.close()
        record = Record(split, len(self._done[split]), entry, [])
        self._done[split].append(entry)
        self._destination.keep(record, writer.path)


@contextmanager
def _begun(destination: Destination, target: Target, about: dict[str, Any]) -> Iterator[_Writers]:
    """What writes to a destination, at which nothing is left when that fails."""
    destination.begin(about, resume=False, overwrite=target.overwrite, shared=False)
    try:
        with destination.locked("rewrite"), ExitStack() as files:
            directory = destination.writing_directory()
            files.callback(shutil.rmtree, directory, ignore_errors=True)
            yield _Writers(destination, target, directory, files)
    except OSError as error:
        destination.clear()
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"{destination.url}: {os.strerror(error.errno)}: the data set did not fit and nothing"
            " of it was kept; free some space or choose another place"
        ) from error
    except BaseException:
        destination.clear()
        raise


def _refuse_itself(sources: list[Source], destination: Destination) -> None:
    """ValueError when the data set would be written over one that is read."""
    target = destination.url if destination.out is None else str(destination.out)
    for source in sources:
        for place, _ in source.splits:
            url = place.folder.url
            held = str(Path(url).resolve()) if isinstance(place.folder, LocalFolder) else url
            if f"{held}/".startswith(f"{target.rstrip('/')}/"):
                raise ValueError(f"{destination.url}: is read from; write to another place")
