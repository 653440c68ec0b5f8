"""The file `index.json`: a split's shards, and the table that has its portraits.

{"version": 2, "split", "totals", "shards": [{"name", "bytes", "sha256", "groups": how many}, ...],
"layouts": [[extension, ...], ...], "table": {"name", "bytes", "sha256"}}. A layout is the members
of a portrait in the order of the tar; the table refers to it by its number. An index may come over
a network: all of it is checked before it is used, digests too, since caches make paths of them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from relightx.index.columns import TABLE, Written
from relightx.index.entries import Totals, checked_shard_name

NAME = "index.json"
VERSION = 2

MOST_LAYOUTS = 1 << 16
_MOST = 1 << 48
"""Bytes of a shard and portraits of one, well below what their sums can hold."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ListedShard(NamedTuple):
    """A shard as index.json lists it; groups: how many it has."""

    name: str
    bytes: int
    sha256: str
    groups: int


class ListedShards(NamedTuple):
    """All shards of an index.json, in columns: a split may have a quarter of a million.

    As texts of their own, names and digests would keep all the memory that parsing them took.

    name: their names run together. name_end: where each ends. sha256: their digests of 32 bytes,
    run together. group_end: how many portraits they have up to each, itself included.
    """

    name: str
    name_end: Int64[np.ndarray, " shards"]
    bytes: Int64[np.ndarray, " shards"]
    sha256: bytes
    groups: Int64[np.ndarray, " shards"]
    group_end: Int64[np.ndarray, " shards"]

    def shard(self, number: int) -> ListedShard:
        """One of them."""
        start = int(self.name_end[number - 1]) if number else 0
        return ListedShard(
            self.name[start : int(self.name_end[number])],
            int(self.bytes[number]),
            self.sha256[32 * number : 32 * number + 32].hex(),
            int(self.groups[number]),
        )


class Contents(NamedTuple):
    """What an index.json says."""

    split: str
    shards: ListedShards
    layouts: list[tuple[str, ...]]
    table: Written


def parse_contents(data: bytes, name: str) -> Contents:
    """What these bytes say; raises ValueError, naming the file, when they are no index."""
    try:
        content: dict[str, Any] = json.loads(data)
        _check_version(content["version"])
        if not isinstance(content["split"], str):
            raise ValueError(f"split {content['split']!r} is no text")
        shards = _shards(content["shards"])
        layouts = [_layout(entry) for entry in content["layouts"]]
        table = content["table"]
        if table["name"] != TABLE:
            raise ValueError(f"its table is {table['name']!r}, {TABLE} needed")
        written = Written(_count(table["bytes"]), _sha256(table["sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{name}: not a readable shard index: {what}") from None
    if not shards.groups.any():
        raise ValueError(f"{name}: the split has no portraits")
    return Contents(content["split"], shards, layouts, written)


def shard_text(shard: ListedShard) -> str:
    """A shard's part of an index.json."""
    return json.dumps(shard._asdict(), sort_keys=True)


def rest_text(
    split: str, totals: Totals, layouts: Sequence[tuple[str, ...]], table: Written
) -> str:
    """What follows the shards in an index.json, from the comma on."""
    rest = {
        "split": split,
        "totals": asdict(totals),
        "layouts": layouts,
        "table": {"name": TABLE, **table._asdict()},
        "version": VERSION,
    }
    return ", " + json.dumps(rest, sort_keys=True)[1:] + "\n"


def _check_version(version: Any) -> None:
    if version == 1:
        raise ValueError(
            "format version 1, which no published program reads; build the data set anew with"
            " relightx-shards build --overwrite"
        )
    if version != VERSION:
        raise ValueError(
            f"format version {version}, this program reads {VERSION}; install the relightx that"
            " wrote it"
        )


def _shards(entries: Any) -> ListedShards:
    names = [checked_shard_name(entry["name"]) for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError("a shard is listed twice")
    digests = [_sha256(entry["sha256"]) for entry in entries]
    sizes, groups = (
        np.array([_count(entry[name]) for entry in entries], np.int64)
        for name in ("bytes", "groups")
    )
    name_end = np.cumsum([len(name) for name in names], dtype=np.int64)
    digest = bytes.fromhex("".join(digests))
    return ListedShards("".join(names), name_end, sizes, digest, groups, np.cumsum(groups))


def _layout(extensions: Any) -> tuple[str, ...]:
    if not isinstance(extensions, list) or not all(isinstance(x, str) and x for x in extensions):
        raise ValueError(f"layout {extensions!r} is no list of members")
    if not extensions or len(set(extensions)) < len(extensions):
        raise ValueError(f"layout {extensions!r} is empty or has a member twice")
    return tuple(extensions)


def _count(number: Any) -> int:
    if type(number) is not int or not 0 <= number < _MOST:
        raise ValueError(f"{number!r} is no number of bytes or portraits")
    return number


def _sha256(digest: Any) -> str:
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"{digest!r} is no sha256 in hexadecimal")
    return digest
