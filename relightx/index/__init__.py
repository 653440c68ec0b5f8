"""The table of contents of a split: what each shard holds and where, with sizes and hashes.

Two files lie beside the shards. `index.json` names the shards with their sizes and sha256, and the
table by its own; `groups.safetensors` has a row for every portrait and is mapped into memory, not
read, so an index of ten million portraits opens at once and the processes of a machine share it.
The table is written first and `index.json` last, so the presence of that means the split is whole;
to take a split down, `index.json` goes first. Neither has a time stamp: the same input gives the
same bytes, and the sha256 of `index.json` names the data.
"""

from relightx.index.columns import TABLE, Written, write_columns
from relightx.index.contents import NAME, VERSION
from relightx.index.entries import (
    GroupEntry,
    ShardEntry,
    Totals,
    parse_shard,
    shard_as_dict,
    totals_of,
)
from relightx.index.read import Index, read_index
from relightx.index.table import Groups, GroupTable
from relightx.index.write import write_atomically, write_index

__all__ = [
    "NAME",
    "TABLE",
    "VERSION",
    "GroupEntry",
    "GroupTable",
    "Groups",
    "Index",
    "ShardEntry",
    "Totals",
    "Written",
    "parse_shard",
    "read_index",
    "shard_as_dict",
    "totals_of",
    "write_atomically",
    "write_columns",
    "write_index",
]
