"""Columns and subjects of a table that is being written, on disk and not in memory."""

import hashlib
import sqlite3
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from relightx.index.columns import DTYPES

_CODES = {np.dtype("<u8"): "Q", np.dtype("<u4"): "I", np.dtype("<u2"): "H", np.dtype("<u1"): "B"}
_BUFFERED = 1 << 16
_KEY_HASH = "key_hash"
"""A column that does not go into the table: Python's hash of the key."""
_FEW = 5


class SpilledColumns:
    """The columns of a table, each in a file of `directory`; `files` closes them."""

    def __init__(self, directory: Path, files: ExitStack) -> None:
        self._directory = directory
        self._dtypes = {**DTYPES, _KEY_HASH: np.dtype("<i8")}
        codes = {name: _CODES.get(dtype, "q") for name, dtype in self._dtypes.items()}
        self._buffer = {name: array(code) for name, code in codes.items()}
        self._stream = {name: files.enter_context(self._file(name).open("wb")) for name in codes}

    def append(self, name: str, value: int) -> None:
        """Add one value to a column; raises OverflowError for one that its type cannot have."""
        self._buffer[name].append(value)
        if len(self._buffer[name]) >= _BUFFERED:
            self._flush(name)

    def extend(self, name: str, values: Iterable[int]) -> None:
        """Add values to a column, bytes to one of text."""
        self._buffer[name].extend(values)
        if len(self._buffer[name]) >= _BUFFERED:
            self._flush(name)

    def add_key(self, key: str) -> None:
        """Note a key for `same_keys`."""
        self.append(_KEY_HASH, hash(key))

    def values(self, name: str, mode: str = "r") -> np.ndarray:
        """A column as it is so far, mapped: "r" to read, "r+" to change it."""
        self._flush(name)
        file = self._file(name)
        if not file.stat().st_size:
            return np.zeros(0, self._dtypes[name])
        return np.memmap(file, self._dtypes[name], mode)

    def same_keys(self) -> list[str]:
        """Some of the keys that occur more than once."""
        known = np.sort(self.values(_KEY_HASH))  # 80 MB for ten million
        same = known[1:][known[1:] == known[:-1]]
        if not len(same):
            return []
        rows = np.flatnonzero(np.isin(self.values(_KEY_HASH), same))
        text, end = self.values("key"), self.values("key_end")
        seen: set[str] = set()
        again: set[str] = set()
        for row in rows.tolist():
            key = text[int(end[row - 1]) if row else 0 : int(end[row])].tobytes().decode()
            (again if key in seen else seen).add(key)
        return sorted(again)[:_FEW]

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.column"

    def _flush(self, name: str) -> None:
        self._buffer[name].tofile(self._stream[name])
        del self._buffer[name][:]
        self._stream[name].flush()


class SpilledSubjects:
    """The subjects of a split and their numbers, at first in the order in which they came."""

    def __init__(self, directory: Path, files: ExitStack) -> None:
        self._database = sqlite3.connect(directory / "subjects", isolation_level=None)
        files.callback(self._database.close)
        for setting in ("synchronous = OFF", "journal_mode = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(
            "CREATE TABLE subject (name BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID"
        )
        self._database.execute("BEGIN")
        self._last: tuple[str, int] | None = None
        self._count = 0

    def number(self, subject: str) -> int:
        """The number of a subject, a new one for one that is new."""
        if self._last is None or self._last[0] != subject:
            self._last = (subject, self._found(subject.encode("utf-8", "surrogatepass")))
        return self._last[1]

    def write(self, columns: SpilledColumns) -> UInt32[np.ndarray, " subjects"]:
        """Write the columns of subjects, sorted by name; the place there of each number."""
        rank = np.zeros(self._count, np.uint32)
        names = self._database.execute("SELECT name, number FROM subject ORDER BY name")
        end = 0
        for place, (name, number) in enumerate(names):
            rank[number] = place
            end += len(name)
            columns.extend("subject_name", name)
            columns.append("subject_end", end)
            digest = hashlib.sha256(name).digest()
            columns.append("subject_digest", int.from_bytes(digest[:8], "little"))
        return rank

    def _found(self, name: bytes) -> int:
        query = "SELECT number FROM subject WHERE name = ?"
        row = self._database.execute(query, (name,)).fetchone()
        if row is not None:
            return row[0]
        self._count += 1
        self._database.execute("INSERT INTO subject VALUES (?, ?)", (name, self._count - 1))
        return self._count - 1
