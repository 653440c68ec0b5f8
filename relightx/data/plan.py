"""How a run gets its shards: as they lie, whole into the node's cache, or member by member.

Local shards are read where they lie. For those in S3 there is a choice, which `data.fetch` makes
or, where it is auto, this: whole shards when the cache can hold all of them, since they come once
and are local in every later epoch, or when a run uses a good part of their bytes anyway; else the
members that are wanted, as ranges. Of 64 lights, two are a thirtieth of the bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relightx.data.cache import SILENCE_S, ShardCache
from relightx.data.sources import CachedShards, LocalShards, RangedShards, Source
from relightx.index import GroupEntry, Index
from relightx.sample import MAPS, extensions
from relightx.settings.data import DataConfig, cache_directory
from relightx.storage import LocalFolder

WORTH_WHOLE = 0.25
"""Share of a shard's bytes from which on it is fetched whole: below, ranges move less, even where
each shard is used once."""
_SPARE_SHARDS = 2
_SAMPLED = 200


@dataclass(frozen=True)
class Plan:
    """Where the shards of each split come from; sentence: that, for people.

    cache: of this node, where one is used. ahead_bytes: what a process may fetch before it is
    needed.
    """

    sources: tuple[Source, ...]
    sentence: str
    cache: ShardCache | None = None
    ahead_bytes: int = 0


def plan_sources(
    indexes: Sequence[Index], config: DataConfig, num_ranks: int = 1, node_ranks: int = 1
) -> Plan:
    """The plan for one process of a run.

    num_ranks: processes of the run; node_ranks: those on this node, which share its cache.
    Raises ValueError when whole shards are asked for and the cache is too small for what is
    shuffled together.
    """
    far = [index for index in indexes if not isinstance(index.folder, LocalFolder)]
    if not far:
        return Plan((LocalShards(),) * len(indexes), "shards are read where they lie")
    window = _Window.of(far, config, num_ranks, node_ranks)
    # Kept in memory, a portrait is read once, with all its lights.
    share = 1.0 if config.memory_cache_mb else wanted_share(far, config.num_lights)
    if not _whole(config, share, window):
        ranged = RangedShards()
        return Plan(
            _sources(indexes, ranged),
            f"of the shards in S3, the members that are used are read, {share:.0%} of the bytes",
        )
    window.refuse_beyond(config.cache_bytes)
    cache = ShardCache(
        cache_directory(config.cache_dir),
        config.cache_bytes,
        # While a server is silent a download shows no sign of life, and then is still tried again.
        silence_s=max(SILENCE_S, 2 * config.s3.deadline_s),
    )
    total = window.total_bytes
    kept = "all of them stay there" if total <= config.cache_bytes else "the longest unused go"
    nodes = -(-num_ranks // node_ranks)
    if config.streams % nodes:
        kept += (
            f"; {nodes} nodes fetch the same shards, since data.streams is {config.streams}:"
            f" a multiple of {nodes} lets each shard come to one"
        )
    return Plan(
        _sources(indexes, CachedShards(cache, window.rank_shards + _SPARE_SHARDS)),
        f"shards in S3 come whole into {cache.directory}: {total / 1e9:.2f} GB for"
        f" {config.cache_bytes / 1e9:.2f} GB, so {kept}",
        cache,
        max(window.shard_bytes, (config.cache_bytes - window.bytes) // 2 // node_ranks),
    )


def wanted_share(indexes: Sequence[Index], num_lights: int) -> float:
    """About how much of their bytes a visit under so many lights uses, from 0 to 1."""
    used = held = 0
    for index in indexes:
        for number in np.linspace(0, index.num_groups - 1, _SAMPLED // len(indexes) + 1):
            group = index.groups[int(number)]
            used += _used_bytes(group, num_lights)
            held += sum(size for _, size in group.members.values())
    return used / held


@dataclass(frozen=True)
class _Window:
    """What is shuffled together: shards of a process, of its node, and the bytes of the greatest
    and of all there are."""

    rank_shards: int
    node_shards: int
    shard_bytes: int
    total_bytes: int

    @classmethod
    def of(
        cls, indexes: Sequence[Index], config: DataConfig, num_ranks: int, node_ranks: int
    ) -> "_Window":
        # Splits with weights of their own are each shuffled on their own.
        sets = len(config.train) if config.weights else 1
        shards = [shard.bytes for index in indexes for shard in index.shards]

        def part(ranks: int) -> int:
            streams = math.ceil(config.streams * ranks / num_ranks)
            return min(len(shards), sets * config.window * streams)

        return cls(part(1), part(node_ranks), max(shards), sum(shards))

    @property
    def bytes(self) -> int:
        return (self.node_shards + _SPARE_SHARDS) * self.shard_bytes

    def refuse_beyond(self, budget: int) -> None:
        if self.bytes > budget:
            raise ValueError(
                f"data.cache_gb is {budget / 1e9:g}: this node shuffles {self.node_shards} shards"
                f" of up to {self.shard_bytes} bytes together and needs {self.bytes / 1e9:.3g} GB;"
                " raise it, lower data.window, or set data.fetch to members"
            )


def _whole(config: DataConfig, share: float, window: _Window) -> bool:
    if config.fetch != "auto":
        return config.fetch == "shards"
    if window.bytes > config.cache_bytes:
        return False
    return window.total_bytes <= config.cache_bytes or share >= WORTH_WHOLE


def _used_bytes(group: GroupEntry, num_lights: int) -> int:
    """Bytes of the members that a visit reads, with an average light for each of its lights."""
    members = group.members
    maps = extensions(members, group.lights, [], MAPS)
    lights = extensions(members, group.lights, list(range(group.lights)), ())
    of_lights = sum(members[name][1] for name in lights if name not in maps)
    wanted = min(num_lights, group.lights) / group.lights
    return int(of_lights * wanted) + sum(members[name][1] for name in maps)


def _sources(indexes: Sequence[Index], far: Source) -> tuple[Source, ...]:
    local = LocalShards()
    return tuple(local if isinstance(index.folder, LocalFolder) else far for index in indexes)
