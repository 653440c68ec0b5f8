"""The file `groups.safetensors`: flat columns, which any tool can open and this one maps.

A column has one value for each portrait ("groups"), for each of their members ("members"), for each
subject ("subjects"), or is text run together. What `X_end` holds is where the part of `X` that
belongs to a row ends; it begins where that of the row before ends. So there is no limit to a text's
length, and no column needs another one to be decoded first. The columns stand in the file by the
size of their values, largest first: each then lies at a multiple of it, as mapped numbers must.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from relightx.storage.folder import saying_full

TABLE = "groups.safetensors"

COLUMNS: dict[str, tuple[str, str]] = {
    "offset": ("U64", "groups"),  # of the content of the first member in the shard
    "key_end": ("U64", "groups"),
    "size_end": ("U64", "groups"),
    "subject_end": ("U64", "subjects"),
    "subject_digest": ("U64", "subjects"),  # first 8 bytes of the name's sha256, little end first
    "subject": ("U32", "groups"),  # number of a subject, whose names are sorted
    "size": ("U32", "members"),
    "lights": ("U16", "groups"),
    "layout": ("U16", "groups"),  # number of the members' names in index.json's "layouts"
    "key": ("U8", "bytes of keys"),
    "subject_name": ("U8", "bytes of names"),
}
"""Name -> (safetensors' name of the type, what there is a value for), in the file's order."""

DTYPES = {name: np.dtype(f"<u{int(kind[1:]) // 8}") for name, (kind, _) in COLUMNS.items()}
"""Name -> type of the values."""

_MOST_HEADER_BYTES = 1 << 16
_LENGTH_BYTES = 8
_CHUNK = 1 << 22


class Written(NamedTuple):
    """Size and digest in hexadecimal of a file that was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Columns:
    """A mapped table.

    name: path or URL, for messages. data: the whole file. column: the values, which cannot be
    written to.
    """

    name: str
    data: mmap.mmap
    column: dict[str, np.ndarray]


def write_columns(file: Path, columns: Mapping[str, np.ndarray]) -> Written:
    """Write a table at `file`, in pieces, so that columns may themselves be mapped files.

    Raises ValueError for columns that are not those of `COLUMNS` or whose lengths differ, OSError
    for a disk that is full.
    """
    if columns.keys() != COLUMNS.keys():
        raise ValueError(f"columns {sorted(columns)} given; needed are {sorted(COLUMNS)}")
    for name, values in columns.items():
        if values.dtype != DTYPES[name] or values.ndim != 1:
            raise ValueError(f"column {name} is {values.dtype} {values.shape}; flat {DTYPES[name]}"
                             " needed")  # fmt: skip
    lengths = {name: len(columns[name]) for name in COLUMNS}
    _check_lengths(lengths)
    digest, size = hashlib.sha256(), 0
    with saying_full(file), open(file, "wb") as stream:
        for part in _parts(lengths, columns):
            stream.write(part)
            digest.update(part)
            size += len(part)
        stream.flush()
        os.fsync(stream.fileno())
    return Written(size, digest.hexdigest())


def map_columns(handle: int, name: str, size: int) -> Columns:
    """The table in an open file, of which nothing but the head is read.

    name: path or URL, for messages. size: bytes that it must have.
    Raises ValueError when it has others or is no such table.
    """
    held = os.fstat(handle).st_size
    if held != size:
        raise ValueError(
            f"{name}: has {held} bytes, its index says {size}; copy it again or rebuild the shards"
        )
    try:
        begin, header = _header(handle, held)
        places = {column: _place(column, header, held - begin) for column in COLUMNS}
        _check_whole(header, places, held - begin)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{name}: not a table of portraits: {error}; copy it again or rebuild the shards"
        ) from None
    data = mmap.mmap(handle, size, mmap.MAP_SHARED, mmap.PROT_READ)
    column = {
        column: np.frombuffer(data, DTYPES[column], count, begin + place)
        for column, (place, count) in places.items()
    }
    return Columns(name, data, column)


def _parts(lengths: dict[str, int], columns: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """The bytes of the file: the head, then the columns in pieces."""
    yield _head(lengths)
    for name in COLUMNS:
        rows = _CHUNK // DTYPES[name].itemsize
        for start in range(0, lengths[name], rows):
            yield np.ascontiguousarray(columns[name][start : start + rows]).tobytes()


def _head(lengths: dict[str, int]) -> bytes:
    header, place = {}, 0
    for name, (kind, _) in COLUMNS.items():
        end = place + lengths[name] * DTYPES[name].itemsize
        header[name] = {"dtype": kind, "shape": [lengths[name]], "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _header(handle: int, held: int) -> tuple[int, dict[str, Any]]:
    """Where the data begins, and what stands before it."""
    length = int.from_bytes(os.pread(handle, _LENGTH_BYTES, 0), "little")
    begin = _LENGTH_BYTES + length
    if not 0 < length <= _MOST_HEADER_BYTES or begin > held or begin % 8:
        raise ValueError(f"a header of {length} bytes is out of bounds")
    header = json.loads(os.pread(handle, length, _LENGTH_BYTES))
    if not isinstance(header, dict):
        raise ValueError("its header is no table of columns")
    return begin, header


def _place(name: str, header: dict[str, Any], size: int) -> tuple[int, int]:
    """Where a column begins in the data and how many values it has."""
    if name not in header:
        raise ValueError(f"column {name} is missing")
    entry = header[name]
    kind, (count,), (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind != COLUMNS[name][0]:
        raise ValueError(f"column {name} is {kind}, {COLUMNS[name][0]} needed")
    if not all(type(number) is int for number in (count, begin, end)):
        raise ValueError(f"the place of column {name} is not in whole numbers")
    itemsize = DTYPES[name].itemsize
    if not 0 <= begin <= end <= size or end - begin != count * itemsize or begin % itemsize:
        raise ValueError(f"{count} values of column {name} cannot be at bytes {begin} to {end}")
    return begin, count


def _check_whole(header: dict[str, Any], places: dict[str, tuple[int, int]], size: int) -> None:
    """ValueError unless the columns fill the file, one after the other, and fit each other."""
    unknown = sorted(header.keys() - COLUMNS.keys() - {"__metadata__"})
    if unknown:
        raise ValueError(f"column {unknown[0]} is unknown")
    end = 0
    for begin, name in sorted((begin, name) for name, (begin, _) in places.items()):
        count = places[name][1]
        if begin != end and count:
            raise ValueError(f"column {name} begins at byte {begin}, needed is {end}")
        end += count * DTYPES[name].itemsize
    if end != size:
        raise ValueError(f"its columns have {end} bytes, the file {size}")
    _check_lengths({name: count for name, (_, count) in places.items()})


def _check_lengths(lengths: dict[str, int]) -> None:
    for rows in ("groups", "subjects"):
        counts = {name: lengths[name] for name, (_, of) in COLUMNS.items() if of == rows}
        if len(set(counts.values())) > 1:
            raise ValueError(f"columns of {rows} differ in length: {counts}")
