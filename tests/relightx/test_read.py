"""The reader gives what was written, and refuses what is no longer that."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from index_edit import change_groups

from relightx.data.read import ReadFault, ShardReader, wrong_header
from relightx.data.sources import LocalShards
from relightx.index import read_index
from relightx.sample import without_labels
from shards.write import write_split


@pytest.fixture
def copied(tiny_shards, tmp_path):
    """A copy of the training split, to damage."""
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    return tmp_path / "train"


def overwrite(path, offset, data) -> None:
    with open(path, "rb+") as stream:
        stream.seek(offset)
        stream.write(data)


def assert_same(one, other) -> None:
    assert (one.key, one.subject, one.light_name) == (other.key, other.subject, other.light_name)
    for name in ("image", "albedo", "normal", "mask", "sh", "direction"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# -- what is read -------------------------------------------------------------------------------


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


def test_numbers_run_through_all_splits(tiny_shards):
    indexes = [read_index(tiny_shards / name) for name in ("train", "val", "test")]
    reader = ShardReader(indexes)
    groups = [group for index in indexes for group in index.groups]
    assert len(reader) == len(groups)
    assert [reader.key(number) for number in range(len(reader))] == [g.key for g in groups]
    assert [reader.group(number) for number in range(len(reader))] == groups
    assert reader.lights.tolist() == [group.lights for group in groups]
    for number in (-1, len(reader)):
        with pytest.raises(IndexError, match=f"portrait {number} of 19"):
            reader.read(number, [0])


def test_labels_are_left_out_where_they_are_not_wanted(tiny_shards):
    read = ShardReader([read_index(tiny_shards / "train")]).read(0, [0], labels=False)
    assert read.albedo is read.normal is None
    assert read.mask is not None


def test_a_light_may_be_asked_for_twice(tiny_shards):
    read = ShardReader([read_index(tiny_shards / "train")]).read(0, [2, 2, 0])
    assert read.light_name == ("lamp2", "lamp2", "lamp0")
    np.testing.assert_array_equal(read.image[0], read.image[1])


def test_many_are_read_as_one_by_one(tiny_shards):
    reader = ShardReader([read_index(tiny_shards / "train"), read_index(tiny_shards / "val")])
    requests = [(14, [1]), (0, [3, 0]), (14, [2, 1]), (5, [0, 1, 2, 3])]
    for one, other in zip(reader.read_many(requests), reader.try_many(requests), strict=True):
        assert_same(one, other)
    for (number, lights), one in zip(requests, reader.read_many(requests), strict=True):
        assert_same(one, reader.read(number, lights))
    assert reader.read_many([]) == []


def test_names_longer_than_a_tar_header_are_read(tmp_path, make_portrait):
    keys = ["k" * 95, "k" * 120 + "a", "k" * 120 + "b"]
    portraits = [make_portrait(key, f"person {key[-1]}", seed=i) for i, key in enumerate(keys)]
    write_split(portraits, tmp_path / "long", "train")
    reader = ShardReader([read_index(tmp_path / "long")])
    for number, portrait in enumerate(portraits):
        read = reader.read(number, [1])
        assert read.key == portrait.key
        np.testing.assert_array_equal(read.image[0], portrait.image[1])


def test_a_reader_is_used_after_a_fork_and_a_journey(tiny_shards):
    reader = ShardReader([read_index(tiny_shards / "train")])
    expected = reader.read(3, [1])
    assert_same(pickle.loads(pickle.dumps(reader)).read(3, [1]), expected)
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(start, b"same" if reader.read(3, [1]).key == expected.key else b"other")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(end, 10) == b"same"
    os.close(end)
    os.close(start)
    assert_same(reader.read(3, [1]), expected)


def test_threads_share_a_reader(tiny_shards):
    reader = ShardReader([read_index(tiny_shards / "train")], [LocalShards(most_open=1)])
    expected = [reader.read(number, [0, 3]) for number in range(len(reader))]
    numbers = [number % len(reader) for number in range(0, 700, 7)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda number: reader.read(number, [0, 3]), numbers)
        for number, portrait in zip(numbers, found, strict=True):
            assert_same(portrait, expected[number])


# -- what is refused ----------------------------------------------------------------------------


def test_a_shard_cut_anywhere_is_refused_by_name(copied):
    index = read_index(copied)
    shard = copied / index.shards[0].name
    whole = shard.read_bytes()
    assert len(whole) == index.shards[0].bytes and len(whole) % 512 == 0
    for size in range(0, len(whole), 512):
        shard.write_bytes(whole[:size])
        with pytest.raises(
            ReadFault,
            match=rf"^{shard}: portrait 'ball00': the shard has {size} bytes.* says {len(whole)};",
        ):
            ShardReader([index]).read(0, [0])
    shard.write_bytes(whole)
    assert ShardReader([index]).read(0, [0]).key == "ball00"


def test_a_shard_cut_while_it_is_open_is_refused(copied):
    index = read_index(copied)
    reader = ShardReader([index])
    assert reader.read(0, [0]).key == "ball00"
    offset, size = index.groups[0].members["light000.png"]
    os.truncate(copied / index.shards[0].name, offset + 10)
    with pytest.raises(ReadFault, match="only 10 bytes are there; it was cut") as caught:
        reader.read(0, [0])
    assert (caught.value.start, caught.value.size) == (offset, size)


def test_a_shard_that_is_gone_is_refused_by_name(copied):
    shard = sorted(copied.glob("*.tar"))[0]
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard}: .*shard cannot be opened: No such file"):
        ShardReader([read_index(copied)]).read(0, [0])


def test_another_shard_of_the_same_size_is_refused(copied, tmp_path):
    """Its portraits have other names: they are no part of what the index was made of."""
    index = read_index(copied)
    portraits = ShardReader([index])
    renamed = [
        replace(portraits.read(number, [0, 1, 2, 3]), key=f"best{number:02d}")
        for number in range(len(index.shards[0].groups))
    ]
    write_split(renamed, tmp_path / "other", "train", shard_bytes=1 << 30)
    (other,) = (tmp_path / "other").glob("*.tar")
    shard = copied / index.shards[0].name
    assert other.stat().st_size == shard.stat().st_size
    shutil.copy(other, shard)
    with pytest.raises(ReadFault) as caught:
        ShardReader([index]).read(0, [2])
    said = str(caught.value)
    assert said.startswith(f"{shard}: portrait 'ball00': bytes ")
    assert "ball00.light002.png should be here, found is best00.light002.png" in said


def test_members_of_another_size_are_refused(copied, make_portrait):
    """A shard of the same names and size in all, whose members lie elsewhere."""
    index = read_index(copied)
    offset, size = index.groups[0].members["light001.png"]
    shard = copied / index.shards[0].name
    header = bytearray(shard.read_bytes()[offset - 512 : offset])
    header[124:135] = b"%011o" % (size - 1)
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    overwrite(shard, offset - 512, header)
    with pytest.raises(ReadFault, match=f"has {size - 1} bytes, its index says {size}"):
        ShardReader([index]).read(0, [1])


@pytest.mark.parametrize("place", [0, 60, 110, 124, 134, 140, 148, 153, 156, 160, 257, 300, 511])
def test_a_damaged_header_is_refused(copied, place):
    index = read_index(copied)
    offset, size = index.groups[0].members["mask.png"]
    shard = copied / index.shards[0].name
    header = bytearray(shard.read_bytes()[offset - 512 : offset])
    assert wrong_header(bytes(header), "ball00.mask.png", size) is None
    header[place] ^= 0x11
    overwrite(shard, offset - 512, header)
    with pytest.raises(ReadFault, match=rf"{shard}: portrait 'ball00': bytes {offset} to"):
        ShardReader([index]).read(0, [0])


def test_a_damaged_picture_is_refused_by_shard_portrait_bytes_and_member(copied):
    index = read_index(copied)
    group = index.groups[0]
    offset, size = group.members["light002.png"]
    shard = copied / index.shards[0].name
    overwrite(shard, offset, bytes(30))
    reader = ShardReader([index])
    assert reader.read(0, [0, 1]).num_lights == 2
    with pytest.raises(ReadFault) as caught:
        reader.read(0, [1, 2])
    fault = caught.value
    where = f"{shard}: portrait '{group.key}': bytes {offset} to {offset + size}: light002.png"
    assert str(fault).startswith(where) and "\n" not in str(fault)
    assert (fault.url, fault.key, fault.start, fault.size) == (str(shard), "ball00", offset, size)
    assert fault.cause.startswith("light002.png is not a PNG")
    assert reader.reread == 1


def test_any_flipped_byte_of_a_picture_is_refused(copied):
    index = read_index(copied)
    offset, size = index.groups[0].members["light000.png"]
    shard = copied / index.shards[0].name
    whole = shard.read_bytes()
    reader = ShardReader([index])
    for place in range(offset, offset + size, 61):
        overwrite(shard, place, bytes([whole[place] ^ 0x08]))
        with pytest.raises(ReadFault, match=r"light000\.png"):
            reader.read(0, [0])
        overwrite(shard, place, whole[place : place + 1])
    assert reader.read(0, [0]).num_lights == 1


def test_a_fault_stands_in_the_place_of_its_portrait(copied):
    index = read_index(copied)
    offset, _ = index.groups[1].members["albedo.png"]
    overwrite(copied / index.shards[0].name, offset + 50, b"????")
    reader = ShardReader([index])
    first, fault, last = reader.try_many([(0, [0]), (1, [0]), (2, [0])])
    assert (first.key, fault.key, last.key) == ("ball00", "ball01", "ball02")
    assert isinstance(fault, ReadFault) and fault.cause.startswith("albedo.png")
    with pytest.raises(ReadFault, match="ball01"):
        reader.read_many([(0, [0]), (1, [0]), (2, [0])])


def test_a_member_that_the_index_lacks_is_an_error_and_never_a_smaller_portrait(copied):
    def without_meta(group):
        places = {name: place for name, place in group.members.items() if name != "meta.json"}
        return replace(group, members=places)

    change_groups(copied, without_meta)
    with pytest.raises(ReadFault, match=r"portrait 'ball00': the index has no member meta.json"):
        ShardReader([read_index(copied)]).read(0, [0, 1])


def test_a_light_that_the_shard_lacks_is_an_error_and_never_a_smaller_portrait(copied):
    index = read_index(copied)
    offset, _ = index.groups[0].members["light001.png"]
    overwrite(copied / index.shards[0].name, offset - 512, b"ball00.light009.png")
    with pytest.raises(ReadFault, match=r"light001.png should be here, found is ball00.light009"):
        ShardReader([index]).read(0, [0, 1])


def test_a_light_that_never_was_is_no_fault_of_the_shard(tiny_shards):
    reader = ShardReader([read_index(tiny_shards / "train")])
    with pytest.raises(ValueError, match=r"lights \[4\] asked of a portrait with 4") as caught:
        reader.try_many([(0, [4])])
    assert not isinstance(caught.value, ReadFault)


def test_portraits_without_labels_are_read(tmp_path, make_portrait):
    bare = without_labels(make_portrait(), ("albedo", "normal", "light"))
    write_split([bare], tmp_path / "bare", "train")
    read = ShardReader([read_index(tmp_path / "bare")]).read(0, [1])
    assert read.albedo is read.normal is read.sh is None


def test_there_is_a_source_for_each_split(tiny_shards):
    with pytest.raises(ValueError, match="2 sources for 1 splits"):
        ShardReader([read_index(tiny_shards / "train")], [LocalShards(), LocalShards()])


def test_a_fault_can_be_made_again_from_its_message():
    """As torch does with what a reader process raised, and pickle with its parts."""
    fault = ReadFault.at("s3://b/x.tar", "it was\n cut", key="k", start=512, size=10)
    assert str(fault) == "s3://b/x.tar: portrait 'k': bytes 512 to 522: it was cut"
    assert str(type(fault)(str(fault))) == str(fault)
    again = pickle.loads(pickle.dumps(fault))
    assert (str(again), again.key, again.start, again.size) == (str(fault), "k", 512, 10)
