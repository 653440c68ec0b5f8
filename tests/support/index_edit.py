"""Indexes with something changed, as a faulty program or a bad copy would leave them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from relightx.index import (
    NAME,
    TABLE,
    GroupEntry,
    ShardEntry,
    read_index,
    write_columns,
    write_index,
)


def change_groups(split: Path, change: Callable[[GroupEntry], GroupEntry]) -> None:
    """Write the index of a split anew with each portrait changed."""
    index = read_index(split)
    shards = [replace(shard, groups=tuple(map(change, shard.groups))) for shard in index.shards]
    write_index(split, index.split, shards)


def change_shards(split: Path, change: Callable[[ShardEntry], ShardEntry]) -> None:
    """Write the index of a split anew with each shard changed."""
    index = read_index(split)
    write_index(split, index.split, [change(shard) for shard in index.shards])


def change_contents(split: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what index.json says."""
    file = split / NAME
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def change_columns(split: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change what the table holds; index.json gets the size and the hash of the new one."""
    columns = {name: np.array(values) for name, values in load_file(split / TABLE).items()}
    change(columns)
    write_columns(split / TABLE, columns)
    seal_table(split)


def seal_table(split: Path) -> None:
    """Give index.json the size and hash that the table now has."""
    data = (split / TABLE).read_bytes()
    table = {"name": TABLE, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change_contents(split, lambda content: content.update(table=table))
