"""What a plan tells people, and the advice it gives for a cluster."""

from collections.abc import Iterator

import pytest
from balls import ball

from shards.building.advice import Cluster, describe_plan
from shards.building.plan import Estimate, make_plan
from shards.building.recipe import Recipe
from shards.group import Group, faulty

MIB = 2**20


def groups(count: int) -> Iterator[Group]:
    for number in range(count):
        yield Group(f"g{number}", f"s{number}", 2, lambda n=number: ball(f"g{n}", f"s{n}", 2, 8))


def described(count: int, image_bytes: float, shard_bytes: int, cluster: Cluster) -> str:
    """The text for so many groups of two images of this size."""
    with make_plan(
        lambda: groups(count), lambda _: "train", Recipe(), shard_bytes, sample=False
    ) as plan:
        plan.estimate = Estimate(image_bytes, 0.5, 8)
        per_shard = max(1, int(shard_bytes / (2 * image_bytes)))
        plan.database.execute("UPDATE groups SET shard = ordinal / ?", (per_shard,))
        return describe_plan(plan, shard_bytes, cluster)


def test_counts_sizes_and_time_are_told():
    text = described(120, MIB, 24 * MIB, Cluster(workers=4))
    assert "train     120       120     240      10  240.0 MiB" in text
    assert "1.0 MiB an image" in text and "0.500 s a group" in text
    assert "building takes about 15 s with 4 workers" in text


def test_enough_shards_are_called_enough():
    text = described(1280, MIB, 20 * MIB, Cluster(nodes=2, window=16))
    assert "128 shards of train, 128 wanted" in text and "enough shards" in text


def test_too_few_shards_get_the_size_that_would_make_enough():
    text = described(1280, MIB, 256 * MIB, Cluster(nodes=2, window=16))
    assert "10 shards of train, 128 wanted" in text
    assert "better: --shard-mb 20" in text


def test_a_small_set_gets_a_smaller_window_instead_of_tiny_shards():
    text = described(64, MIB, 16 * MIB, Cluster(nodes=1, window=16))
    assert "the set is small" in text and "train with data.window 2" in text
    assert "better" not in text


def test_nodes_without_a_shard_are_counted():
    text = described(16, MIB, 16 * MIB, Cluster(nodes=8))
    assert "6 nodes would have no shard of their own" in text


def test_groups_that_cannot_be_used_are_listed():
    found = [*groups(2), Group("g0", "s0", 2, lambda: ball()), faulty("f", "", "is nobody's")]
    with make_plan(lambda: iter(found), lambda _: "train", Recipe(), MIB) as plan:
        text = describe_plan(plan, MIB, Cluster())
    assert "2 groups cannot be used by their names" in text and "'g0'" in text


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_set_without_training_data_says_so(split):
    with make_plan(lambda: groups(3), lambda _: split, Recipe(), MIB) as plan:
        assert "nothing to train on" in describe_plan(plan, MIB, Cluster())
