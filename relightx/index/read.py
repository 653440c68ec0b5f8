"""Open the index of a split, from a directory or from S3.

A table on this machine is mapped where it lies, and its size compared; its hash is `verify`'s
business, since to hash a gigabyte at each start would cost more than the start. From S3 it is
downloaded once and verified: into a cache that all processes of the machine map, or, without one,
to a file that vanishes with the process.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt16, UInt32, UInt64

from relightx.index.columns import TABLE, Columns, Written, map_columns
from relightx.index.contents import NAME, parse_contents
from relightx.index.entries import GroupEntry, ShardEntry, Totals
from relightx.index.table import Groups, GroupTable, Shards
from relightx.storage import Folder, LocalFolder, S3Options, WrongBytes, open_folder

MOST_BYTES = 1 << 30
"""Of an index.json; one of a million shards has an eighth of it."""


@dataclass(frozen=True, eq=False)
class Index:
    """One split of a data set.

    Two are equal when they were read from the same place with the same content. It pickles as its
    place, from which it is opened again; ValueError when something else is there by then.
    """

    split: str
    shards: Shards
    """Its shards, each a `ShardEntry` that is made when it is asked for."""
    path: str
    """File it was read from, for messages."""
    sha256: str
    """Hash of the file: names the data a checkpoint was trained on."""
    folder: Folder
    """Where its shards are."""
    table: GroupTable = field(repr=False)
    """Its portraits."""
    table_file: Written
    """Size and hash that the table should have."""
    cache: Path | None = None
    """Directory for tables that are not on this machine."""

    @property
    def groups(self) -> Groups:
        """All portraits, shard after shard; each is made when it is asked for."""
        return Groups(self.table, range(len(self.table)))

    @property
    def num_groups(self) -> int:
        """Number of portraits."""
        return len(self.table)

    @property
    def groups_per_shard(self) -> Int64[np.ndarray, " shards"]:
        """Number of portraits in each shard."""
        return self.shards.listed.groups

    @property
    def lights(self) -> UInt16[np.ndarray, " groups"]:
        """Number of lights of each portrait."""
        return self.table.columns.column["lights"]

    @cached_property
    def subject_of(self) -> UInt32[np.ndarray, " groups"]:
        """Number of each portrait's subject, by which `subjects` and `subject_digest` are read.

        Raises ValueError when the table is damaged.
        """
        subject = self.table.columns.column["subject"]
        if len(subject):
            self.table.subject(int(subject.max()))
        return subject

    @property
    def num_subjects(self) -> int:
        """Number of different subjects."""
        return self.table.num_subjects

    @cached_property
    def subjects(self) -> list[str]:
        """Names of the subjects, sorted."""
        return [self.table.subject(number) for number in range(self.num_subjects)]

    @property
    def subject_digest(self) -> UInt64[np.ndarray, " subjects"]:
        """The first 8 bytes of the sha256 of each subject's name, as a number (little end first).

        It ranks subjects in the same way wherever their data set is, without their names.
        """
        return self.table.columns.column["subject_digest"]

    @property
    def totals(self) -> Totals:
        """What the split holds."""
        return Totals(
            shards=len(self.shards),
            groups=self.num_groups,
            images=int(self.lights.sum(dtype=np.int64)),
            subjects=self.num_subjects,
            bytes=int(self.shards.listed.bytes.sum()),
        )

    def place_of(self, number: int) -> tuple[ShardEntry, GroupEntry]:
        """The shard of a portrait of this number, and the portrait."""
        return self.shards[self.shards.holder_of(number)], self.table.group(number)

    def check_table(self) -> None:
        """Read the whole table; ValueError, naming it, when it is not the index's or broken."""
        found = hashlib.sha256(self.table.columns.data).hexdigest()
        if found != self.table_file.sha256:
            raise ValueError(
                f"{self.table.name}: damaged: its sha256 is {found[:12]}..., the index says"
                f" {self.table_file.sha256[:12]}...; copy it again or rebuild the shards"
            )
        self.table.check()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return (self.path, self.sha256) == (other.path, other.sha256)

    def __hash__(self) -> int:
        return hash((self.path, self.sha256))

    def __reduce__(self) -> tuple:
        return _read_again, (self.folder, self.cache, self.sha256)


def read_index(
    place: str | Path | Folder, options: S3Options | None = None, cache: Path | None = None
) -> Index:
    """Open a split's index.

    place: its directory or the index.json in it, an s3:// URL of either, or its open folder.
    options: how S3 is reached. cache: directory where a table from S3 is kept for all processes and
    later runs; without it each process that opens the index downloads the table.
    Raises ValueError, naming the file, when a part is missing, broken, of another version or empty;
    OSError when the storage fails.
    """
    folder = place if isinstance(place, Folder) else _folder_of(place, options)
    path, size = folder.url_of(NAME), folder.size(NAME)
    if size is None:
        raise ValueError(
            f"{folder.url}: no {NAME} found; needed is a split made by relightx-shards"
            " (an interrupted build leaves none)"
        )
    if size > MOST_BYTES:
        raise ValueError(f"{path}: not a readable shard index: has {size} bytes")
    data = folder.read(NAME)
    contents = parse_contents(data, path)
    table = GroupTable(_mapped(folder, contents.table, cache), contents.layouts)
    listed = int(contents.shards.groups.sum())
    if listed != len(table):
        raise ValueError(
            f"{path}: not a readable shard index: its shards have {listed} portraits, {TABLE}"
            f" {len(table)}; copy both files again or rebuild the shards"
        )
    shards = Shards(contents.shards, table)
    sha256 = hashlib.sha256(data).hexdigest()
    return Index(contents.split, shards, path, sha256, folder, table, contents.table, cache)


def _read_again(folder: Folder, cache: Path | None, sha256: str) -> Index:
    index = read_index(folder, cache=cache)
    if index.sha256 != sha256:
        raise ValueError(f"{index.path}: was replaced while it was in use; start again")
    return index


def _folder_of(place: str | Path, options: S3Options | None) -> Folder:
    text = str(place)
    if text.endswith(f"/{NAME}") or text == NAME:
        text = text.removesuffix(NAME).rstrip("/") or ("/" if text[0] == "/" else ".")
    return open_folder(text, options)


def _mapped(folder: Folder, file: Written, cache: Path | None) -> Columns:
    with _table_path(folder, file, cache) as path:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(folder) from None
        try:
            return map_columns(handle, folder.url_of(TABLE), file.bytes)
        finally:
            os.close(handle)


@contextmanager
def _table_path(folder: Folder, file: Written, cache: Path | None) -> Iterator[Path]:
    """A local file of the table, there at least until it is mapped."""
    if isinstance(folder, LocalFolder):
        yield Path(folder.url_of(TABLE))
    elif cache is None:
        with tempfile.TemporaryDirectory(prefix="relightx-index-") as directory:
            path = Path(directory) / TABLE
            _download(folder, file, path)
            yield path
    else:
        path = cache / file.sha256[:2] / f"{file.sha256}.safetensors"
        with _alone(path.with_suffix(".lock")):
            if not path.is_file() or path.stat().st_size != file.bytes:
                _download(folder, file, path)
            yield path


def _download(folder: Folder, file: Written, path: Path) -> None:
    try:
        held = folder.size(TABLE)
        if held is not None and held != file.bytes:
            raise ValueError(
                f"{folder.url_of(TABLE)}: has {held} bytes, its index says {file.bytes}; copy it"
                " again or rebuild the shards"
            )
        folder.fetch(TABLE, path, file.sha256)
    except FileNotFoundError:
        raise _missing(folder) from None
    except WrongBytes as error:
        raise ValueError(str(error)) from None


def _missing(folder: Folder) -> ValueError:
    return ValueError(f"{folder.url_of(TABLE)}: is missing; {NAME} needs it beside it: copy both")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
