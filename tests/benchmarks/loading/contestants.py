"""Who takes part."""

from enum import Enum
from typing import NamedTuple

from loading.job import Storage

DISK: tuple[Storage, ...] = ("disk",)
COLD: tuple[Storage, ...] = ("s3 cold",)
EVERYWHERE: tuple[Storage, ...] = ("disk", "s3 cold", "s3 warm")


class Kind(Enum):
    """In which ratios a contestant is."""

    LIMIT = "limit"
    OURS = "relightx"
    PEER = "as documented"
    BY_HAND = "by hand"
    OTHER_FORMAT = "another format"


class Entry(NamedTuple):
    """function of loading.MODULE takes the job; format: the directory of its data."""

    name: str
    kind: Kind
    module: str
    function: str
    format: str
    storages: tuple[Storage, ...]


CONTESTANTS = [
    Entry("bare loop", Kind.LIMIT, "bare", "bare_loop", "tar", DISK),
    Entry("relightx", Kind.OURS, "ours", "whole_shards", "tar", EVERYWHERE),
    Entry("relightx, members", Kind.OURS, "ours", "members", "tar", COLD),
    Entry("webdataset, open_clip", Kind.PEER, "web", "as_open_clip", "tar", EVERYWHERE),
    Entry("webdataset, by hand", Kind.BY_HAND, "web", "by_hand", "tar", EVERYWHERE),
    Entry("MDS", Kind.PEER, "mds", "as_documented", "mds", EVERYWHERE),
    Entry("MDS, by hand", Kind.BY_HAND, "mds", "by_hand", "mds", EVERYWHERE),
    Entry("litdata", Kind.PEER, "lit", "as_documented", "lit", EVERYWHERE),
    Entry("litdata, by hand", Kind.BY_HAND, "lit", "by_hand", "lit", EVERYWHERE),
    Entry("loose files", Kind.PEER, "files", "plain", "files", DISK + COLD),
    Entry("loose files, by hand", Kind.BY_HAND, "files", "by_hand", "files", DISK + COLD),
]

ARRAYS = [
    Entry(
        f"{name}, labels as arrays",
        Kind.OTHER_FORMAT,
        module,
        "as_documented",
        f"{module} arrays",
        EVERYWHERE,
    )
    for name, module in (("MDS", "mds"), ("litdata", "lit"))
]
