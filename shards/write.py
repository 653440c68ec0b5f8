"""Portraits in, tar shards and their indexes out.

Shards are plain tar files with no time, owner or mode of their own, so the same portraits give
the same bytes. A group lies in one shard. Everything is built under a hidden name beside its
destination and renamed when whole: an interrupted build leaves nothing that could be taken for a
data set.
"""

import errno
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from relightx.index import NAME, GroupEntry, ShardEntry, write_index
from relightx.sample import Portrait, encode
from shards.splits import SPLITS, Assign

SHARD_BYTES = 256 * 2**20
_BLOCK = tarfile.BLOCKSIZE


class Packed(NamedTuple):
    """A portrait as it goes into a shard; made in a worker process, it spares the writer."""

    key: str
    subject: str
    lights: int
    members: dict[str, bytes]


class Totals(NamedTuple):
    """What a split holds."""

    shards: int
    groups: int
    images: int
    subjects: int
    bytes: int


def pack(portrait: Portrait) -> Packed:
    """Encode a portrait; raises ValueError for one that cannot be stored whole."""
    return Packed(portrait.key, portrait.subject, portrait.num_lights, encode(portrait))


def write_split(
    portraits: Iterable[Portrait | Packed],
    directory: Path,
    split: str,
    shard_bytes: int = SHARD_BYTES,
) -> Totals:
    """Write one split: directory/shard-000000.tar ... and, last, index.json.

    The directory appears when it is whole. Raises ValueError when it exists and is not empty, for
    keys that occur twice and when there are no portraits.
    """
    with _staged(directory, overwrite=False) as staging, ExitStack() as files:
        writer = _SplitWriter(staging, split, shard_bytes, files)
        _write_all(portraits, lambda _: writer, None)
        return writer.finish()


def write_dataset(
    portraits: Iterable[Portrait | Packed],
    out: Path,
    assign: Assign,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] | None = None,
    overwrite: bool = False,
) -> dict[str, Totals]:
    """Write out/{train,val,test}, each with its shards and index.json; a split may stay empty.

    assign: subject -> split, see shards.splits. progress: called with the number of portraits
    written so far. overwrite: replace `out` when it holds nothing but an earlier data set, once
    the new one is whole. Portraits are streamed: one is in memory at a time.
    Raises ValueError when `out` exists and is not empty, for keys that occur twice and when there
    are no portraits; OSError naming the file when the disk is full. Either way `out` is untouched.
    """
    with _staged(out, overwrite) as staging, ExitStack() as files:
        writers: dict[str, _SplitWriter] = {}

        def writer_of(subject: str) -> "_SplitWriter":
            split = assign(subject)
            if split not in writers:
                if split not in SPLITS:
                    raise ValueError(f"subject {subject!r}: split {split!r} is unknown")
                (staging / split).mkdir()
                writers[split] = _SplitWriter(staging / split, split, shard_bytes, files)
            return writers[split]

        _write_all(portraits, writer_of, progress)
        return {split: writers[split].finish() for split in SPLITS if split in writers}


def unfinished(out: Path) -> list[Path]:
    """What builds of `out` that run, or were killed, have beside it."""
    if not out.parent.is_dir():
        return []
    return [path for path in out.parent.iterdir() if path.name.startswith(_partial_prefix(out))]


def looks_like_dataset(directory: Path) -> str | None:
    """None when a directory holds a data set or split and nothing else, otherwise what it has."""
    entries = sorted(directory.iterdir())
    if not any(directory.glob(NAME)) and not any(directory.glob(f"*/{NAME}")):
        return f"no {NAME}"
    for entry in entries:
        inside = sorted(entry.iterdir()) if entry.is_dir() and entry.name in SPLITS else [entry]
        for file in inside:
            if file.name != NAME and not (file.suffix == ".tar" and file.stem[:6] == "shard-"):
                return str(file.relative_to(directory))
    return None


class _SplitWriter:
    """The shards of one split, one open at a time; `files` closes it when the build fails."""

    def __init__(self, directory: Path, split: str, shard_bytes: int, files: ExitStack) -> None:
        if shard_bytes < 1:
            raise ValueError(f"shards of {shard_bytes} bytes asked; at least 1 needed")
        self.directory, self.split, self.shard_bytes = directory, split, shard_bytes
        self.files = files
        self.shards: list[ShardEntry] = []
        self.open_shard: _ShardWriter | None = None

    def add(self, packed: Packed) -> None:
        size = sum(_BLOCK + _padded(len(data)) for data in packed.members.values())
        if self.open_shard and self.open_shard.position + size > self.shard_bytes:
            self._close_shard()
        if self.open_shard is None:
            name = f"shard-{len(self.shards):06d}.tar"
            self.open_shard = _ShardWriter(self.directory / name)
            self.files.callback(self.open_shard.stream.close)
        self.open_shard.add(packed)

    def finish(self) -> Totals:
        self._close_shard()
        write_index(self.directory, self.split, self.shards)
        groups = [group for shard in self.shards for group in shard.groups]
        return Totals(
            shards=len(self.shards),
            groups=len(groups),
            images=sum(group.lights for group in groups),
            subjects=len({group.subject for group in groups}),
            bytes=sum(shard.bytes for shard in self.shards),
        )

    def _close_shard(self) -> None:
        if self.open_shard:
            self.shards.append(self.open_shard.close())
            self.open_shard = None


class _ShardWriter:
    """One tar file, hashed as it is written and renamed when it is closed.

    The headers are written here and not by tarfile.TarFile, which does not tell where the content
    of a member begins.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        self.stream = open(self.partial, "xb")  # noqa: SIM115
        self.sha256 = hashlib.sha256()
        self.position = 0
        self.groups: list[GroupEntry] = []

    def add(self, packed: Packed) -> None:
        places: dict[str, tuple[int, int]] = {}
        for extension, data in packed.members.items():
            header = tarfile.TarInfo(f"{packed.key}.{extension}")
            header.size = len(data)
            self._write(header.tobuf(tarfile.GNU_FORMAT))
            places[extension] = (self.position, len(data))
            self._write(data + bytes(_padded(len(data)) - len(data)))
        self.groups.append(GroupEntry(packed.key, packed.subject, packed.lights, places))

    def close(self) -> ShardEntry:
        end = self.position + 2 * _BLOCK
        self._write(bytes(-end % tarfile.RECORDSIZE + 2 * _BLOCK))
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        os.rename(self.partial, self.path)
        digest = self.sha256.hexdigest()
        return ShardEntry(self.path.name, self.position, digest, tuple(self.groups))

    def _write(self, data: bytes) -> None:
        self.stream.write(data)
        self.sha256.update(data)
        self.position += len(data)


def _write_all(
    portraits: Iterable[Portrait | Packed],
    writer_of: Callable[[str], _SplitWriter],
    progress: Callable[[int], None] | None,
) -> None:
    keys: set[str] = set()
    for portrait in portraits:
        packed = portrait if isinstance(portrait, Packed) else pack(portrait)
        if packed.key in keys:
            raise ValueError(
                f"portrait key {packed.key!r} (subject {packed.subject!r}) occurs twice;"
                " every portrait of a data set needs a key of its own"
            )
        keys.add(packed.key)
        writer_of(packed.subject).add(packed)
        if progress:
            progress(len(keys))
    if not keys:
        raise ValueError("the source gave no portraits; nothing was written")


@contextmanager
def _staged(out: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden directory beside `out` that becomes `out` at the end, or vanishes on any error."""
    out = out.resolve()
    refuse_taken(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f"{_partial_prefix(out)}{os.getpid()}-{secrets.token_hex(4)}")
    staging.mkdir()
    try:
        yield staging
        _publish(staging, out, overwrite)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            f"{out}: {os.strerror(error.errno)}: the data set did not fit and nothing of it was"
            " kept; free some space or choose another directory"
        ) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def refuse_taken(out: Path, overwrite: bool) -> None:
    """ValueError when a data set may not be written to `out`."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is not a directory; choose another")
    if not out.is_dir():
        return
    if os.path.ismount(out):
        raise ValueError(f"{out}: is a mount point, which cannot be renamed to; name one inside it")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{out}: already exists and is not empty; choose another or overwrite it")
    foreign = looks_like_dataset(out)
    if foreign:
        raise ValueError(
            f"{out}: will not be overwritten: it is not only a data set of relightx-shards"
            f" (found {foreign})"
        )


def _publish(staging: Path, out: Path, overwrite: bool) -> None:
    if not overwrite or not out.exists():
        os.rename(staging, out)  # takes the place of an empty directory, of no other
        return
    retired = out.with_name(f".{out.name}.old-{os.getpid()}")
    os.rename(out, retired)
    try:
        os.rename(staging, out)
    except BaseException:
        os.rename(retired, out)
        raise
    shutil.rmtree(retired)


def _partial_prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
