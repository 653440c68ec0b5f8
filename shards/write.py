"""Portraits in, tar shards and their indexes out.

Shards are plain tar files with no time, owner or mode of their own, so the same portraits give
the same bytes. A group lies in one shard. What is half-written has another name (shards.staging).
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from relightx.index import GroupEntry, ShardEntry, Totals, totals_of, write_index
from relightx.sample import Portrait, encode
from relightx.storage import saying_full
from shards.splits import SPLITS, Assign
from shards.staging import staged

SHARD_BYTES = 256 * 2**20
_BLOCK = tarfile.BLOCKSIZE


class Packed(NamedTuple):
    """A portrait as it goes into a shard; made in a worker process, it spares the writer."""

    key: str
    subject: str
    lights: int
    members: dict[str, bytes]


def pack(portrait: Portrait, jpeg_quality: int | None = None) -> Packed:
    """Encode a portrait; raises ValueError for one that cannot be stored whole.

    jpeg_quality: see `relightx.sample.encode`.
    """
    members = encode(portrait, jpeg_quality)
    return Packed(portrait.key, portrait.subject, portrait.num_lights, members)


def shard_name(number: int) -> str:
    """File name of a split's shard."""
    return f"shard-{number:06d}.tar"


def tar_bytes(packed: Packed) -> int:
    """Bytes of a portrait's members in a tar, with their headers."""
    return sum(_BLOCK + _padded(len(data)) for data in packed.members.values())


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
    with staged(directory, overwrite=False) as staging, ExitStack() as files:
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
    with staged(out, overwrite) as staging, ExitStack() as files:
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


class _SplitWriter:
    """The shards of one split, one open at a time; `files` closes it when the build fails."""

    def __init__(self, directory: Path, split: str, shard_bytes: int, files: ExitStack) -> None:
        if shard_bytes < 1:
            raise ValueError(f"shards of {shard_bytes} bytes asked; at least 1 needed")
        self.directory, self.split, self.shard_bytes = directory, split, shard_bytes
        self.files = files
        self.shards: list[ShardEntry] = []
        self.open_shard: ShardWriter | None = None

    def add(self, packed: Packed) -> None:
        full = self.open_shard and self.open_shard.position + tar_bytes(packed) > self.shard_bytes
        if full:
            self._close_shard()
        if self.open_shard is None:
            self.open_shard = ShardWriter(self.directory / shard_name(len(self.shards)))
            self.files.callback(self.open_shard.stream.close)
        self.open_shard.add(packed)

    def finish(self) -> Totals:
        self._close_shard()
        write_index(self.directory, self.split, self.shards)
        return totals_of(self.shards)

    def _close_shard(self) -> None:
        if self.open_shard:
            self.shards.append(self.open_shard.close())
            self.open_shard = None


class ShardWriter:
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
        with saying_full(self.path):
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self.stream.close()
        os.rename(self.partial, self.path)
        digest = self.sha256.hexdigest()
        return ShardEntry(self.path.name, self.position, digest, tuple(self.groups))

    def abandon(self) -> None:
        """Leave nothing behind; does no harm after `close`."""
        with suppress(OSError):  # closing writes what is buffered; a full disk has no room for it
            self.stream.close()
        self.partial.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        with saying_full(self.path):
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


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
