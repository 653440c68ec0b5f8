"""A plan in words: what a build will make, how long it takes, and whether it suits a cluster."""

import math
from typing import NamedTuple

from shards.building.plan import Fault, Plan, Shard
from shards.table import size_text, table

SHARDS_PER_READER = 4
"""Shards of a window that each node should have, or the shuffle is poor and nodes wait."""
_SMALLEST = 16 * 2**20  # a smaller shard costs more requests than it saves waiting


class Cluster(NamedTuple):
    """Where the data set will be trained on, and what builds it.

    window: shards that are shuffled together, `data.window` of the training. workers: processes
    that build.
    """

    nodes: int = 1
    gpus_per_node: int = 1
    window: int = 16
    workers: int = 1


def describe_plan(plan: Plan, shard_bytes: int, cluster: Cluster) -> str:
    """Counts of each split, the groups that are left out, and advice."""
    shards = plan.shards()
    rows = [("split", "groups", "subjects", "images", "shards", "about")]
    for split, (groups, subjects, images) in plan.counts().items():
        own = [shard for shard in shards if shard.split == split]
        size = size_text(sum(shard.bytes for shard in own))
        rows.append((split, f"{groups}", f"{subjects}", f"{images}", f"{len(own)}", size))
    text = [table(rows)]
    faults = list(plan.faults())
    if faults:
        text += [f"{len(faults)} groups cannot be used by their names:", *map(_fault, faults[:10])]
    if plan.estimate is None:
        text.append("sizes are unknown: none of the groups that were tried could be read")
        return "\n".join(text)
    text.append("")
    text.append(
        f"estimated from {plan.estimate.samples} groups:"
        f" {size_text(round(plan.estimate.bytes_per_image))} an image with its share of the labels,"
        f" {plan.estimate.seconds_per_group:.3f} s a group"
    )
    seconds = plan.num_groups * plan.estimate.seconds_per_group / cluster.workers
    text.append(f"building takes about {_time(seconds)} with {cluster.workers} workers")
    text += _advice([shard for shard in shards if shard.split == "train"], shard_bytes, cluster)
    return "\n".join(text)


def _advice(train: list[Shard], shard_bytes: int, cluster: Cluster) -> list[str]:
    if not train:
        return ["no group falls to train: there is nothing to train on"]
    size = sum(shard.bytes for shard in train)
    readers = cluster.nodes * cluster.window
    wanted = SHARDS_PER_READER * readers
    each = size_text(size // cluster.nodes)
    lines = [
        f"for {cluster.nodes} nodes x {cluster.gpus_per_node} GPUs and a window of"
        f" {cluster.window} shards: {len(train)} shards of train, {wanted} wanted"
        f" ({SHARDS_PER_READER} x nodes x window); {each} a node an epoch"
    ]
    if len(train) >= wanted:
        lines.append("enough shards for this cluster")
    else:
        better = max(size / wanted, _SMALLEST)
        if better < shard_bytes and math.ceil(size / better) > len(train):
            lines.append(f"better: --shard-mb {math.floor(better / 2**20) or 1}")
        else:
            window = max(1, len(train) // (SHARDS_PER_READER * cluster.nodes))
            lines.append(
                f"the set is small: smaller shards would not help; train with data.window {window}"
            )
    if len(train) < cluster.nodes:
        lines.append(
            f"{cluster.nodes - len(train)} nodes would have no shard of their own and read those of"
            " others"
        )
    return lines


def _fault(fault: Fault) -> str:
    return f"  {fault.fault}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
