"""Where a build writes, and what of it is finished.

A data set appears whole or not at all. On disk it grows in a hidden directory beside its place,
`.NAME.partial`, and is renamed at the end; under an s3:// URL, where nothing can be renamed, its
shards go to their places and the indexes, without which nobody takes them for a data set, last.

`.build/` in there holds what a build needs to go on: `plan.json`, which tells whether it is the
same build, and a record of each finished shard with its table of contents and what was left out.
A record is written after its shard, so a killed process costs the shard it was writing. Several
jobs of one build share all this and write different shards.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from relightx.index import (
    NAME,
    TABLE,
    ShardEntry,
    Totals,
    parse_shard,
    shard_as_dict,
    write_index,
)
from relightx.storage import Folder, S3Options, open_folder
from shards.building.plan import Fault
from shards.splits import SPLITS
from shards.staging import publish, refuse_taken, staging_of

REPORT = "build-report.json"
_BUILD, _PLAN = ".build", "plan.json"


class Record(NamedTuple):
    """A finished shard: its table, None when every group was left out, and what was left out."""

    split: str
    number: int
    entry: ShardEntry | None
    faults: list[Fault]


class Destination:
    """The place of one data set that is being built; make it with `open_destination`."""

    def __init__(self, url: str, folder: Folder, out: Path | None) -> None:
        self.url, self.folder, self.out = url, folder, out

    # -- beginning ---------------------------------------------------------------------------

    def begin(self, plan: dict[str, Any], *, resume: bool, overwrite: bool, shared: bool) -> None:
        """Claim the place for a build described by `plan`, or refuse it with ValueError.

        resume: go on where the same build stopped. overwrite: replace what is there. shared: other
        jobs of this build may have begun it, which is neither.
        """
        self.refuse_taken(overwrite)
        begun = self._begun()
        if begun is not None and not (resume or shared):
            if not overwrite:
                finished = sum(1 for _ in self._record_names())
                raise ValueError(
                    f"{self.url}: an unfinished build is there, {finished} of its shards finished;"
                    " --resume goes on with it, --overwrite throws it away"
                )
            self.clear()
            begun = None
        if begun is not None and begun != plan:
            changed = sorted(k for k in plan.keys() | begun.keys() if plan.get(k) != begun.get(k))
            raise ValueError(
                f"{self.url}: the unfinished build there is another one: its {', '.join(changed)}"
                " differ. Give the options it had, or throw it away with --overwrite"
            )
        if begun is None:
            if self.out is not None:
                self.out.parent.mkdir(parents=True, exist_ok=True)
            elif overwrite:
                self._take_down()
            self.folder.write(f"{_BUILD}/{_PLAN}", _json(plan))

    def refuse_taken(self, overwrite: bool) -> None:
        """ValueError when a data set may not be written here."""
        if self.out is not None:
            refuse_taken(self.out, overwrite)
            return
        for name in self.folder.names():
            if name.startswith(f"{_BUILD}/"):
                continue
            is_ours = name in (REPORT, NAME, TABLE) or _is_split_file(name)
            if not is_ours:
                raise ValueError(
                    f"{self.url}: holds {name}, which no build makes; choose another prefix"
                )
            if not overwrite and name.endswith(NAME):
                raise ValueError(f"{self.url}: already holds a data set; choose another prefix or"
                                 " give --overwrite")  # fmt: skip

    @contextmanager
    def locked(self, part: str) -> Iterator[None]:
        """Nobody else builds this part of it on this machine; ValueError when somebody does."""
        if self.out is None:
            yield
            return
        place = Path(self.folder.url) / _BUILD
        place.mkdir(parents=True, exist_ok=True)
        with open(place / f"lock-{part}", "a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(
                    f"{self.url}: another process is building it; wait for its end"
                ) from None
            yield

    # -- shards ------------------------------------------------------------------------------

    def writing_directory(self) -> Path:
        """A local directory for shards that are being written; remove it with `shutil.rmtree`."""
        if self.out is None:
            return Path(tempfile.mkdtemp(prefix="relightx-shards-"))
        return Path(tempfile.mkdtemp(prefix=".writing-", dir=self._own(_BUILD)))

    def keep(self, record: Record, file: Path | None) -> None:
        """Put a finished shard in its place, then its record."""
        if file is not None and record.entry is not None:
            self.folder.put(f"{record.split}/{record.entry.name}", file, record.entry.sha256)
        content = {
            "entry": None if record.entry is None else shard_as_dict(record.entry),
            "faults": record.faults,
        }
        self.folder.write(_record_name(record.split, record.number), _json(content))

    def finished(self, check: bool = False) -> Iterator[tuple[str, int]]:
        """Split and number of each shard that has a record.

        check: only those whose file has the size that the record says.
        """
        for name in self._record_names():
            split, number = name.split("/")[1], int(name.split("/")[2].split(".")[0])
            if check:
                entry = self.record(split, number).entry
                if entry and self.folder.size(f"{split}/{entry.name}") != entry.bytes:
                    continue
            yield split, number

    def record(self, split: str, number: int) -> Record:
        """The record of a finished shard; ValueError when it is broken."""
        name = _record_name(split, number)
        try:
            content = json.loads(self.folder.read(name))
            entry = None if content["entry"] is None else parse_shard(content["entry"])
            faults = [Fault(*fault) for fault in content["faults"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.folder.url}/{name}: cannot be read: {error}; build anew with --overwrite"
            ) from None
        return Record(split, number, entry, faults)

    # -- end ---------------------------------------------------------------------------------

    def finish(self, totals: dict[str, Totals], report: bytes, overwrite: bool) -> None:
        """Make the data set visible: its report, then its indexes, nothing else left beside.

        totals: of each split that has shards; their indexes are made of the records.
        """
        self.folder.write(REPORT, report)
        if self.out is None:
            self._remove_older_shards()
        directory = self.writing_directory()
        try:
            for split in totals:
                write_index(directory, split, self._entries(split))
                for file in (directory / TABLE, directory / NAME):
                    with open(file, "rb") as stream:
                        digest = hashlib.file_digest(stream, "sha256").hexdigest()
                    self.folder.put(f"{split}/{file.name}", file, digest)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        if self.out is None:
            self._forget()
            return
        shutil.rmtree(self._own(_BUILD))
        publish(Path(self.folder.url), self.out, overwrite)

    def _entries(self, split: str) -> Iterator[ShardEntry]:
        for number in sorted(number for name, number in self.finished() if name == split):
            entry = self.record(split, number).entry
            if entry is not None:
                yield entry

    @contextmanager
    def publishing(self) -> Iterator[bool]:
        """One job at a time; False when another one has published the data set meanwhile."""
        if self.out is None:  # two jobs would write the same bytes to the same names
            yield self._begun() is not None
            return
        with open(self.out.with_name(f".{self.out.name}.publishing"), "a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                yield (Path(self.folder.url) / _BUILD).exists()
            finally:
                Path(stream.name).unlink(missing_ok=True)

    def published(self, build: str) -> dict[str, Totals] | None:
        """What the data set holds that is there already, if it is whole and of this very build."""
        place = self.folder if self.out is None else open_folder(self.out)
        try:
            content = json.loads(place.read(REPORT))
            if content["build"] != build or not content["complete"]:
                return None
            totals = {split: Totals(**total) for split, total in content["splits"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        files = [f"{split}/{name}" for split in totals for name in (TABLE, NAME)]
        whole = all(place.size(file) is not None for file in files)
        return totals if whole and (self.out is not None or self._begun() is None) else None

    def drop_if_empty(self) -> bool:
        """Remove what a build left that finished no shard; whether anything is kept to go on."""
        if next(self._record_names(), None) is not None:
            return True
        self.clear()
        return False

    def report_beside(self) -> str:
        """Where the report of a build that failed goes."""
        return f"{self.out}.{REPORT}" if self.out is not None else f"{self.url}/{REPORT}"

    def write_failed_report(self, report: bytes) -> None:
        """Write the report of a build that failed."""
        if self.out is None:
            self.folder.write(REPORT, report)
        else:
            open_folder(self.out.parent).write(f"{self.out.name}.{REPORT}", report)

    def remove_failed_report(self) -> None:
        """A build that works leaves no report of an earlier one that did not."""
        if self.out is not None:
            open_folder(self.out.parent).delete(f"{self.out.name}.{REPORT}")

    def _own(self, name: str) -> Path:
        place = Path(self.folder.url) / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _begun(self) -> dict[str, Any] | None:
        try:
            return json.loads(self.folder.read(f"{_BUILD}/{_PLAN}"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.folder.url}/{_BUILD}/{_PLAN}: cannot be read: {error}; build anew with"
                " --overwrite"
            ) from None

    def _record_names(self) -> Iterator[str]:
        for name in self.folder.child(_BUILD).names():
            parts = name.split("/")
            if len(parts) == 2 and parts[0] in SPLITS and name.endswith(".json"):
                yield f"{_BUILD}/{name}"

    def clear(self) -> None:
        """Remove everything of an unfinished build."""
        if self.out is not None:
            shutil.rmtree(self.folder.url, ignore_errors=True)
            return
        names = list(self.folder.names())
        for name in sorted(names, key=lambda name: name.endswith(TABLE)):  # after its index
            if name.startswith(f"{_BUILD}/") or _is_split_file(name):
                self.folder.delete(name)

    def _take_down(self) -> None:
        """Make the data set that is replaced invisible before the first shard changes under it."""
        names = [name for name in self.folder.names() if name.endswith((NAME, TABLE))]
        for name in sorted(names, key=lambda name: name.endswith(TABLE)):  # the index goes first
            self.folder.delete(name)

    def _remove_older_shards(self) -> None:
        current = {f"{split}/shard-{number:06d}.tar" for split, number in self.finished()}
        for name in list(self.folder.names()):
            if name.endswith(".tar") and _is_split_file(name) and name not in current:
                self.folder.delete(name)

    def _forget(self) -> None:
        for name in list(self.folder.child(_BUILD).names()):
            if name != _PLAN:
                self.folder.delete(f"{_BUILD}/{name}")
        self.folder.delete(f"{_BUILD}/{_PLAN}")


def open_destination(url: str | Path, options: S3Options) -> Destination:
    """The destination that a local path or an s3:// URL names; nothing is written yet."""
    if str(url).startswith("s3://"):
        text = str(url).rstrip("/")
        return Destination(text, open_folder(text, options), None)
    out = Path(open_folder(url).url).resolve()
    return Destination(str(url), open_folder(staging_of(out)), out)


def _record_name(split: str, number: int) -> str:
    return f"{_BUILD}/{split}/{number:06d}.json"


def _is_split_file(name: str) -> bool:
    parts = name.split("/")
    is_shard = parts[-1].startswith("shard-") and parts[-1].endswith(".tar")
    is_file = is_shard or parts[-1] in (NAME, TABLE)
    return len(parts) == 2 and parts[0] in SPLITS and is_file


def _json(content: Any) -> bytes:
    return (json.dumps(content, sort_keys=True, default=os.fspath) + "\n").encode()
