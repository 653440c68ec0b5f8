"""A directory that is there whole or not at all.

It is built under a hidden name beside its destination and renamed at the end: what is interrupted
leaves nothing that could be taken for a data set.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relightx.index import NAME, TABLE
from shards.splits import SPLITS


@contextmanager
def staged(out: Path, overwrite: bool) -> Iterator[Path]:
    """A hidden directory beside `out` that becomes `out` at the end, or vanishes on any error."""
    out = out.resolve()
    refuse_taken(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f"{_partial_prefix(out)}{os.getpid()}-{secrets.token_hex(4)}")
    staging.mkdir()
    try:
        yield staging
        publish(staging, out, overwrite)
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
    foreign = _foreign_file(out)
    if foreign:
        raise ValueError(
            f"{out}: will not be overwritten: it is not only a data set of relightx-shards"
            f" (found {foreign})"
        )


def staging_of(out: Path) -> Path:
    """The hidden directory in which a build of `out` grows; one name, so that it can go on."""
    return out.with_name(f".{out.name}.partial")


def _foreign_file(directory: Path) -> str | None:
    """None when a directory holds a data set or split and nothing else, otherwise what it has."""
    entries = sorted(directory.iterdir())
    if not any(directory.glob(NAME)) and not any(directory.glob(f"*/{NAME}")):
        return f"no {NAME}"
    for entry in entries:
        if entry.name == "build-report.json":
            continue
        inside = sorted(entry.iterdir()) if entry.is_dir() and entry.name in SPLITS else [entry]
        for file in inside:
            is_shard = file.suffix == ".tar" and file.stem[:6] == "shard-"
            if file.name not in (NAME, TABLE) and not is_shard:
                return str(file.relative_to(directory))
    return None


def publish(staging: Path, out: Path, overwrite: bool) -> None:
    """Rename a finished directory to its place, which is free, empty or, to overwrite, ours."""
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
