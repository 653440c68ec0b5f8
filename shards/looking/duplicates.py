"""Which pictures of a data set are the same, by the hash of their files.

In a temporary SQLite file, since a hash of each of a hundred million images does not belong in
memory.
"""

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE portraits (number INTEGER PRIMARY KEY, key TEXT, subject TEXT, split TEXT);
CREATE TABLE pictures (hash BLOB, portrait INTEGER);
"""
_HASH_BYTES = 16


class Held(NamedTuple):
    """A portrait that holds a picture."""

    key: str
    subject: str
    split: str


class Shared(NamedTuple):
    """How many pictures two portraits share; one portrait with itself holds them several times."""

    first: Held
    second: Held
    pictures: int


def picture_hash(data: bytes) -> bytes:
    """What tells a picture's file from others."""
    return hashlib.sha256(data).digest()[:_HASH_BYTES]


class Pictures:
    """The pictures of a data set; close it, or use it in a `with` statement."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="relightx-pictures-")
        self._table = sqlite3.connect(Path(self._directory.name) / "pictures.sqlite")
        self._table.executescript(_SCHEMA)
        self._number = 0

    def __enter__(self) -> "Pictures":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        self._table.close()
        self._directory.cleanup()

    def add(self, held: Held, hashes: Iterable[bytes]) -> None:
        """Note the pictures of a portrait."""
        self._number += 1
        self._table.execute("INSERT INTO portraits VALUES (?, ?, ?, ?)", (self._number, *held))
        rows = ((value, self._number) for value in hashes)
        self._table.executemany("INSERT INTO pictures VALUES (?, ?)", rows)

    def shared(self) -> Iterator[Shared]:
        """Portraits with the same pictures, each with the first that has them, in their order."""
        counts: Counter[tuple[int, int]] = Counter()
        for _, rows in groupby(self._repeated(), key=lambda row: row[0]):
            first, *others = (number for _, number in rows)
            counts.update((first, other) for other in others)
        for (first, second), pictures in sorted(counts.items()):
            yield Shared(self._held(first), self._held(second), pictures)

    def _repeated(self) -> Iterator[tuple[bytes, int]]:
        self._table.execute("CREATE INDEX IF NOT EXISTS by_hash ON pictures (hash, portrait)")
        yield from self._table.execute(
            "SELECT hash, portrait FROM pictures WHERE hash IN"
            " (SELECT hash FROM pictures GROUP BY hash HAVING count(*) > 1)"
            " ORDER BY hash, portrait"
        )

    def _held(self, number: int) -> Held:
        query = "SELECT key, subject, split FROM portraits WHERE number = ?"
        return Held(*self._table.execute(query, (number,)).fetchone())
