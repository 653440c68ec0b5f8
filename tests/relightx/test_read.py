"""The reader gives what was written, and refuses what is no longer that."""

import json
import shutil

import numpy as np
import pytest

from relightx.data.read import ShardReader
from relightx.index import read_index


@pytest.fixture
def copied(tiny_shards, tmp_path):
    """A copy of the training split, to damage."""
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    return tmp_path / "train"


def test_portraits_come_back_under_the_lights_asked_for(tiny_shards, make_portrait):
    reader = ShardReader([read_index(tiny_shards / "train"), read_index(tiny_shards / "val")])
    assert len(reader) == 15 and sum(reader.groups_per_shard) == 15
    assert len(reader.groups_per_shard) > 3
    for number in (0, 7, 14):
        written = make_portrait(lights=4, seed=number)
        read = reader.read(number, [3, 1])
        assert (read.key, read.subject) == (f"ball{number:02d}", f"person{number:02d}")
        np.testing.assert_array_equal(read.image, written.image[[3, 1]])
        np.testing.assert_allclose(read.sh, written.sh[[3, 1]], atol=1e-6)
        np.testing.assert_allclose(read.albedo, written.albedo, atol=1e-5)
        assert read.light_name == ("lamp3", "lamp1")


def test_labels_are_left_out_where_they_are_not_wanted(tiny_shards):
    read = ShardReader([read_index(tiny_shards / "train")]).read(0, [0], labels=False)
    assert read.albedo is read.normal is None
    assert read.mask is not None


def test_a_shard_cut_short_is_refused_by_name(copied):
    shard = sorted(copied.glob("*.tar"))[0]
    size = shard.stat().st_size
    with open(shard, "rb+") as stream:
        stream.truncate(size - 512)
    reader = ShardReader([read_index(copied)])
    with pytest.raises(ValueError, match=rf"{shard}: has {size - 512} bytes.* says {size}"):
        reader.read(0, [0])


def test_a_shard_that_is_gone_is_refused_by_name(copied):
    shard = sorted(copied.glob("*.tar"))[0]
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard}: shard cannot be opened: No such file"):
        ShardReader([read_index(copied)]).read(0, [0])


def test_a_damaged_picture_is_refused_by_shard_portrait_and_member(copied):
    index = read_index(copied)
    group = index.groups[0]
    offset, _ = group.members["light002.png"]
    shard = copied / index.shards[0].name
    with open(shard, "rb+") as stream:
        stream.seek(offset)
        stream.write(bytes(30))
    reader = ShardReader([index])
    assert reader.read(0, [0, 1]).num_lights == 2
    with pytest.raises(ValueError, match=rf"{shard}: portrait '{group.key}': light002.png"):
        reader.read(0, [1, 2])


def test_a_missing_light_is_named(copied):
    content = json.loads((copied / "index.json").read_text())
    del content["shards"][0]["groups"][0]["members"]["light001.png"]
    (copied / "index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"portrait 'ball00'.* no member light001.png"):
        ShardReader([read_index(copied)]).read(0, [0, 1])


def test_a_light_that_never_was_is_refused(tiny_shards):
    with pytest.raises(ValueError, match=r"lights \[4\] asked of a portrait with 4"):
        ShardReader([read_index(tiny_shards / "train")]).read(0, [4])
