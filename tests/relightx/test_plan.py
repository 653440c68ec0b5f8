"""How shards in S3 are read follows from the cache's size and from what a run uses of them."""

from dataclasses import replace
from pathlib import Path

import pytest
from balls import ball

from relightx.data.plan import WORTH_WHOLE, plan_sources, wanted_share
from relightx.data.sources import CachedShards, LocalShards, RangedShards
from relightx.index import Index, read_index
from relightx.settings.data import DataConfig
from relightx.storage import open_folder
from shards.write import write_split

GB = 1e9


def in_s3(index: Index) -> Index:
    """The same split, as if it lay in a bucket."""
    return replace(index, folder=open_folder(f"s3://bucket/{index.split}"))


@pytest.fixture
def few(tiny_shards) -> Index:
    """Four lights, of which two with their labels are most of the bytes."""
    return in_s3(read_index(tiny_shards / "train"))


@pytest.fixture(scope="module")
def lit(tmp_path_factory) -> Index:
    """Forty lights, of which two with their labels are a small part."""
    directory = tmp_path_factory.mktemp("lit") / "train"
    balls = (ball(f"b{n}", f"p{n}", lights=40, seed=n) for n in range(6))
    write_split(balls, directory, "train", shard_bytes=1)
    return in_s3(read_index(directory))


@pytest.fixture
def config(tmp_path) -> DataConfig:
    return DataConfig(train=["s3://bucket/train"], cache_dir=str(tmp_path / "cache"), window=2)


def whole(index: Index) -> int:
    return sum(shard.bytes for shard in index.shards)


def largest(index: Index) -> int:
    return max(shard.bytes for shard in index.shards)


def test_local_shards_are_read_where_they_lie(tiny_shards, config):
    indexes = [read_index(tiny_shards / name) for name in ("train", "val")]
    plan = plan_sources(indexes, config)
    assert all(isinstance(source, LocalShards) for source in plan.sources)
    assert len(plan.sources) == 2 and plan.sources[0] is plan.sources[1]
    assert plan.cache is None and "where they lie" in plan.sentence
    assert not Path(config.cache_dir).exists()


def test_what_the_cache_can_hold_comes_whole(lit, config):
    plan = plan_sources([lit], replace(config, cache_gb=whole(lit) / GB))
    assert isinstance(plan.sources[0], CachedShards)
    assert plan.cache is plan.sources[0].cache and plan.cache.directory == Path(config.cache_dir)
    assert config.cache_dir in plan.sentence and "all of them stay" in plan.sentence


def test_a_small_part_of_what_the_cache_cannot_hold_comes_by_members(lit, config):
    plan = plan_sources([lit], replace(config, cache_gb=(whole(lit) - 1) / GB))
    assert isinstance(plan.sources[0], RangedShards) and plan.cache is None
    assert f"{wanted_share([lit], 2):.0%} of the bytes" in plan.sentence


def test_a_good_part_of_what_the_cache_cannot_hold_comes_whole(lit, few, config):
    for index, lights in ((lit, 20), (few, 2)):
        tight = replace(config, window=1, cache_gb=3 * largest(index) / GB, num_lights=lights)
        assert tight.cache_bytes < whole(index)
        plan = plan_sources([index], tight)
        assert isinstance(plan.sources[0], CachedShards)
        assert "the longest unused go" in plan.sentence


def test_a_cache_too_small_for_what_is_shuffled_together_is_not_used(few, config):
    tight = replace(config, cache_gb=3 * largest(few) / GB)
    assert isinstance(plan_sources([few], tight).sources[0], RangedShards)
    with pytest.raises(ValueError) as caught:
        plan_sources([few], replace(tight, fetch="shards"))
    said = str(caught.value)
    assert said.startswith(f"data.cache_gb is {tight.cache_gb:g}: this node shuffles 2 shards")
    for part in (f"{largest(few)} bytes", "raise it", "data.window", "set data.fetch to members"):
        assert part in said


def test_what_is_asked_for_is_done(few, lit, config):
    for index in (few, lit):
        members = plan_sources([index], replace(config, fetch="members"))
        assert isinstance(members.sources[0], RangedShards)
        shards = plan_sources([index], replace(config, fetch="shards"))
        assert isinstance(shards.sources[0], CachedShards)


def test_more_streams_on_a_node_need_more_room(few, config):
    tight = replace(config, window=1, streams=2, fetch="shards", cache_gb=3 * largest(few) / GB)
    assert plan_sources([few], tight, num_ranks=2, node_ranks=1).cache is not None
    with pytest.raises(ValueError, match="this node shuffles 2 shards"):
        plan_sources([few], tight, num_ranks=2, node_ranks=2)


def test_what_is_fetched_ahead_fits_with_what_is_in_use(few, config):
    for ranks in (1, 4):
        roomy = replace(config, window=1, fetch="shards", cache_gb=20 * largest(few) / GB)
        plan = plan_sources([few], roomy, num_ranks=ranks, node_ranks=ranks)
        assert plan.ahead_bytes >= largest(few)
        assert ranks * plan.ahead_bytes + largest(few) <= roomy.cache_bytes


def test_local_splits_stay_local_beside_those_in_s3(tiny_shards, few, config):
    plan = plan_sources([few, read_index(tiny_shards / "val")], config)
    assert [type(source) for source in plan.sources] == [CachedShards, LocalShards]


def test_the_share_is_what_a_visit_reads(lit, few):
    for index in (lit, few):
        group = index.groups[0]
        light = sum(s for name, (_, s) in group.members.items() if name.startswith("light"))
        rest = sum(size for _, size in group.members.values()) - light
        expected = (light * 2 / group.lights + rest) / (light + rest)
        assert wanted_share([index], 2) == pytest.approx(expected, rel=0.05)
        assert wanted_share([index], 1000) == pytest.approx(1, abs=1e-3)
    assert wanted_share([lit], 2) < WORTH_WHOLE < wanted_share([few], 2)
