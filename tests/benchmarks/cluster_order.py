"""What the order of a run means for clusters of 8 to 4096 ranks, simulated with the real order.

python tests/benchmarks/cluster_order.py
python tests/benchmarks/cluster_order.py --groups 20000 --shards 500 --batch-size 64 --ranks 8 32

Every rank of every cluster goes through one whole epoch. `streams` is the number of nodes, and then
one number for all clusters. The columns:

fetches    downloads by all nodes over shards of the set: 1 is each shard once, on one node. A node
           downloads a shard again when no rank of it needed it in the step before.
shards     that a node downloads, least and most.
groups     in them, least and most over the mean: how even the nodes' downloads are.
held       shards that a node needs in one step at most, over streams x window of the node. A step
           may lie in two blocks, and in more where a batch is larger than a block.
portraits  of a rank in a step, least and most.
visits     of a portrait in the epoch, least and most.
batches    sha256 of the visits of all steps, ranks put together; `=`: those of one rank.

Fails where the batches of a cluster are not those of one rank.
"""

import argparse
import hashlib
import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from relightx.data.order import Need, RankBatches, TrainingOrder

RANKS_PER_NODE = 8
TITLES = "ranks nodes streams  fetches         shards         groups         held"
TITLES += "   portraits  visits  batches"


@dataclass(frozen=True)
class Run:
    """A data set, groups per shard, and how it is trained on, on any cluster."""

    sizes: np.ndarray
    batch_size: int
    window: int
    seed: int

    def order(self, streams: int) -> TrainingOrder:
        return TrainingOrder([self.sizes], seed=self.seed, window=self.window, streams=streams)

    def batches(self, order: TrainingOrder, rank: int, num_ranks: int) -> RankBatches:
        """A rank's batches of the first epoch."""
        steps = int(self.sizes.sum()) // self.batch_size
        return RankBatches(order, self.batch_size, 0, steps, rank, num_ranks)

    def visits(self, streams: int, num_ranks: int) -> list[np.ndarray]:
        """What each rank visits: [steps, portraits, (number, epoch)]."""
        order = self.order(streams)
        return [
            np.array(list(self.batches(order, rank, num_ranks)), np.int64)
            for rank in range(num_ranks)
        ]

    def downloads(self, streams: int, num_ranks: int) -> tuple[list[list[int]], int]:
        """Of each node, the shards it downloads in turn; and most shards that one needs at once."""
        order, nodes, held = self.order(streams), [], 0
        for first in range(0, num_ranks, RANKS_PER_NODE):
            ranks = range(first, min(first + RANKS_PER_NODE, num_ranks))
            needs = (self.batches(order, rank, num_ranks).needs() for rank in ranks)
            stays = list(stays_of(heapq.merge(*needs, key=lambda need: need.first_step)))
            nodes.append([stay.shard for stay in stays])
            held = max(held, most_at_once(stays))
        return nodes, held


def stays_of(needs: Iterator[Need]) -> Iterator[Need]:
    """Needs of a node's ranks, in order, as one for each time that a shard comes and leaves."""
    open_stays: dict[int, Need] = {}
    for need in needs:
        stay = open_stays.get(need.shard)
        if stay is not None and need.first_step <= stay.last_step + 1:
            need = Need(need.shard, stay.first_step, max(stay.last_step, need.last_step))
        elif stay is not None:
            yield stay
        open_stays[need.shard] = need
    yield from open_stays.values()


def most_at_once(stays: list[Need]) -> int:
    """Shards of the step in which most are there."""
    change = np.zeros(max(stay.last_step for stay in stays) + 2, np.int64)
    np.add.at(change, [stay.first_step for stay in stays], 1)
    np.add.at(change, [stay.last_step + 1 for stay in stays], -1)
    return int(np.cumsum(change).max())


def uneven_shards(groups: int, shards: int, seed: int) -> np.ndarray:
    """Groups per shard: a fifth of them differ from the mean by half and more."""
    share = np.random.default_rng(seed).lognormal(0, 0.4, shards)
    ends = np.round(np.cumsum(share) / share.sum() * groups).astype(np.int64)
    return np.diff(ends, prepend=0)


def row(run: Run, num_ranks: int, streams: int, of_one_rank: str) -> str:
    """A line of the table. Raises ValueError when the batches are not those of one rank."""
    parts = run.visits(streams, num_ranks)
    found = digest(parts)
    if found != of_one_rank:
        raise ValueError(f"{num_ranks} ranks, {streams} streams: other batches than those of one")
    numbers = np.concatenate([part[..., 0].ravel() for part in parts])
    visits = np.bincount(numbers, minlength=int(run.sizes.sum()))
    nodes, held = run.downloads(streams, num_ranks)
    fetched = [len(node) for node in nodes]
    groups = np.array([run.sizes[node].sum() for node in nodes])
    share = groups / groups.mean()
    portraits = [part.shape[1] for part in parts]
    window = run.window * max(1, streams // len(nodes))
    cells = (
        f"{min(fetched)} - {max(fetched)}",
        f"{share.min():.3f} - {share.max():.3f}",
        f"{held} / {window}",
        f"{min(portraits)} - {max(portraits)}",
        f"{visits.min()} - {visits.max()}",
    )
    return (
        f"{num_ranks:5} {len(nodes):5} {streams:7}"
        f"  {sum(fetched) / np.count_nonzero(run.sizes):7.3f}"
        "  {:>13}  {:>13}  {:>11}  {:>10}  {:>6}".format(*cells)
        + f"  = {found[:12]}"
    )


def digest(parts: list[np.ndarray]) -> str:
    """Of all steps' batches, which the ranks' parts make side by side."""
    return hashlib.sha256(np.concatenate(parts, axis=1)).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=1 << 20)
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--streams", type=int, default=512, help="for all clusters alike")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64, 512, 4096])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    groups = options.groups - options.groups % options.batch_size  # an epoch of whole steps
    if not groups:
        parser.error(f"--groups {options.groups} is less than a batch of {options.batch_size}")
    sizes = uneven_shards(groups, options.shards, options.seed)
    run = Run(sizes, options.batch_size, options.window, options.seed)
    print(
        f"{groups} groups in {len(sizes)} shards of {sizes.min()} to {sizes.max()},"
        f" window {run.window}, {groups // run.batch_size} steps of {run.batch_size}"
    )
    print(TITLES)
    start = time.perf_counter()
    of_one_rank: dict[int, str] = {}
    for num_ranks in options.ranks:
        nodes = -(-num_ranks // RANKS_PER_NODE)
        for streams in dict.fromkeys((nodes, options.streams)):
            if streams not in of_one_rank:
                of_one_rank[streams] = digest(run.visits(streams, 1))
            print(row(run, num_ranks, streams, of_one_rank[streams]), flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
