from typing import ClassVar

import pytest

from relightx.index import read_index
from relightx.sample import decode, encode, extensions
from relightx.storage import LocalFolder
from shards.read import find_splits, name_of, read_members, read_split, read_splits
from shards.write import write_dataset, write_split


@pytest.fixture
def dataset(make_portrait, tmp_path):
    balls = [make_portrait(f"ball{i}", f"person{i}", lights=4, seed=i) for i in range(4)]
    write_dataset(balls, tmp_path / "d", lambda subject: "val" if subject[-1] == "0" else "train")
    return tmp_path / "d"


class Counting(LocalFolder):
    """A directory that remembers which bytes were asked for."""

    asked: ClassVar[list[tuple[int, int | None]]] = []

    def read(self, name, start=0, size=None):
        self.asked.append((start, size))
        return super().read(name, start, size)


def a_group(split):
    shard = read_index(split).shards[0]
    return shard.name, shard.groups[1]


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: LocalFolder(str(path))])
def test_a_place_is_a_path_a_text_or_a_folder(dataset, kind):
    assert [split.name for split in find_splits(kind(dataset))] == ["train", "val"]
    assert list(read_splits(kind(dataset))) == ["train", "val"]
    assert [split.name for split in find_splits(kind(dataset / "val"))] == ["val"]
    assert name_of(kind(dataset)) == "d"


def test_members_are_those_that_were_packed_in_their_order(dataset, make_portrait):
    shard, group = a_group(dataset / "train")
    packed = encode(make_portrait("ball2", "person2", lights=4, seed=2))
    held = read_members(dataset / "train", shard, group)
    assert list(held.items()) == list(packed.items())


def test_only_the_bytes_of_the_members_asked_for_are_read(dataset):
    shard, group = a_group(dataset / "train")
    folder = Counting(str(dataset / "train"))
    folder.asked.clear()
    wanted = extensions(group.members, group.lights, [1], ("mask",))
    held = read_members(folder, shard, group, wanted)
    assert list(held) == wanted
    assert decode(group.key, held, [1]).num_lights == 1
    assert len(folder.asked) == 1  # what lies between is less than another request costs
    folder.asked.clear()
    read_members(folder, shard, group, ["meta.json"])
    assert folder.asked == [group.members["meta.json"]]


def test_what_lies_far_apart_is_read_apart(make_portrait, tmp_path):
    write_split([make_portrait("big", size=160, lights=4)], tmp_path / "s", "train")
    shard = read_index(tmp_path / "s").shards[0]
    (group,) = shard.groups
    folder = Counting(str(tmp_path / "s"))
    folder.asked.clear()
    held = read_members(folder, shard.name, group, ["meta.json", "light000.png"])
    assert folder.asked == [group.members["light000.png"], group.members["meta.json"]]
    assert list(held) == ["meta.json", "light000.png"]


def test_a_member_that_is_not_there_is_named(dataset):
    shard, group = a_group(dataset / "train")
    with pytest.raises(ValueError, match=rf"{shard}: portrait 'ball2' has no member light009\.png"):
        read_members(dataset / "train", shard, group, ["light009.png"])


def test_a_shard_that_ends_before_a_member_is_named(dataset):
    shard, group = a_group(dataset / "train")
    file = dataset / "train" / shard
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(OSError, match=shard):
        read_members(dataset / "train", shard, group)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=shard):
        read_members(dataset / "train", shard, group)


def test_an_index_that_is_missing_or_broken_is_named(dataset):
    (dataset / "val" / "index.json").write_text("{")
    (dataset / "train" / "index.json").unlink()
    train, val = find_splits(dataset)
    with pytest.raises(ValueError, match=r"train: no index\.json found"):
        read_split(train)
    with pytest.raises(ValueError, match=r"val/index\.json: not a readable"):
        read_split(val)


def test_what_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for place, message in (("none", "does not exist"), ("file", "is a file"), ("", "no index")):
        with pytest.raises(ValueError, match=message):
            find_splits(tmp_path / place)
    with pytest.raises(ValueError, match="s3://BUCKET"):
        find_splits("http://example.org/set")


def test_a_data_set_in_s3_is_read_like_one_on_disk(dataset, s3):
    folder = s3.new_folder()
    for file in (file for file in dataset.rglob("*") if file.is_file()):
        folder.write(str(file.relative_to(dataset)), file.read_bytes())
    assert [split.name for split in find_splits(folder)] == ["train", "val"]
    there, here = read_splits(folder), read_splits(dataset)
    assert {name: index.shards for name, index in there.items()} == {
        name: index.shards for name, index in here.items()
    }
    assert there["val"].path == f"{folder.url}/val/index.json"
    shard, group = a_group(dataset / "train")
    for wanted in (None, ["meta.json", "light001.png"]):
        held = read_members(folder.child("train"), shard, group, wanted)
        assert held == read_members(dataset / "train", shard, group, wanted)
    assert name_of(folder) == folder.url.rpartition("/")[2]
    folder.child("train").delete("index.json")
    assert [split.name for split in find_splits(folder)] == ["train", "val"]
