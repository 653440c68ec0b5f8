"""The table of contents of a data set that is being finished: unique keys, counted subjects.

In the plan's SQLite file, because a set of a million keys does not belong in memory.
"""

import sqlite3

from relightx.index import ShardEntry, Totals

_SCHEMA = """
CREATE TABLE written (key TEXT PRIMARY KEY, subject TEXT, split TEXT, images INTEGER) WITHOUT ROWID
"""


class Contents:
    """What the finished shards hold together."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("DROP TABLE IF EXISTS written")
        database.execute(_SCHEMA)
        self._shards: dict[str, tuple[int, int]] = {}

    def add(self, split: str, shard: ShardEntry) -> None:
        """Note a shard; raises ValueError for a key that another has."""
        for group in shard.groups:
            row = (group.key, group.subject, split, group.lights)
            try:
                self._database.execute("INSERT INTO written VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                raise ValueError(
                    f"portrait key {group.key!r} occurs twice, in {split}/{shard.name} and before;"
                    " every portrait of a data set needs a key of its own"
                ) from None
        number, size = self._shards.get(split, (0, 0))
        self._shards[split] = (number + 1, size + shard.bytes)

    def totals(self, split: str) -> Totals:
        """What was added to a split."""
        query = "SELECT count(*), sum(images), count(DISTINCT subject) FROM written WHERE split = ?"
        groups, images, subjects = self._database.execute(query, (split,)).fetchone()
        shards, size = self._shards[split]
        return Totals(shards=shards, groups=groups, images=images, subjects=subjects, bytes=size)

    @property
    def splits(self) -> list[str]:
        """Splits that something was added to."""
        return list(self._shards)
