"""The index of a split is there whole or not at all, and says of a broken one what is wrong."""

import hashlib
import json
import threading
from pathlib import Path

import pytest

from relightx.index import GroupEntry, ShardEntry, read_index, write_atomically, write_index


def group(key: str, subject: str = "anna", lights: int = 2) -> GroupEntry:
    members = {f"light{i:03d}.png": (512 + 1024 * i, 700) for i in range(lights)}
    return GroupEntry(key, subject, lights, {**members, "meta.json": (4096, 300)})


def shards() -> list[ShardEntry]:
    return [
        ShardEntry("train-000000.tar", 10_240, "ab" * 32, (group("a"), group("b", "bert", 5))),
        ShardEntry("train-000001.tar", 20_480, "cd" * 32, (group("c"),)),
    ]


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_index_comes_back_as_it_was_written(tmp_path):
    index = read_index(write_index(tmp_path, "train", shards()))
    assert index.split == "train"
    assert list(index.shards) == shards()
    assert [entry.key for entry in index.groups] == ["a", "b", "c"]
    assert index.subjects == ["anna", "bert"]


def test_an_index_is_found_in_its_directory_and_named_by_its_hash(tmp_path):
    file = write_index(tmp_path, "train", shards())
    index = read_index(tmp_path)
    assert index == read_index(str(file))
    assert index.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert index.path == str(file)


def test_the_same_shards_give_the_same_bytes(tmp_path):
    first = write_index(tmp_path, "train", shards()).read_bytes()
    assert write_index(tmp_path, "train", shards()).read_bytes() == first


def test_totals_are_those_of_the_shards(tmp_path):
    content = json.loads(write_index(tmp_path, "train", shards()).read_text())
    assert content["totals"] == {
        "shards": 2,
        "groups": 3,
        "images": 9,
        "subjects": 2,
        "bytes": 30_720,
    }


def test_a_key_in_two_shards_is_refused_by_name_and_nothing_is_written(tmp_path):
    twice = [*shards(), ShardEntry("train-000002.tar", 1, "ef" * 32, (group("b"),))]
    with pytest.raises(ValueError, match="occur twice: b"):
        write_index(tmp_path, "train", twice)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_an_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no index.json found.*interrupted build"):
        read_index(tmp_path)
    with pytest.raises(ValueError, match=r"no index.json found"):
        read_index(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "format version 2, this program reads 1"),
        ({"shards": []}, "no portraits"),
        ({"shards": [{"name": "a.tar"}]}, "not a readable shard index"),
        ({"shards": 7}, "not a readable shard index"),
        ({"shards": [None]}, "not a readable shard index"),
    ],
    ids=["future version", "no shards", "shard without groups", "a number", "nothing"],
)
def test_an_unusable_index_is_refused_with_its_file_and_fault(tmp_path, changes, message):
    file = write_index(tmp_path, "train", shards())
    rewrite(file, **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        read_index(tmp_path)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00"])
def test_a_file_that_is_no_index_is_refused(tmp_path, data):
    (tmp_path / "index.json").write_bytes(data)
    with pytest.raises(ValueError, match="not a readable shard index"):
        read_index(tmp_path)


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "deep/a.tar", "..", ".", ""])
def test_a_shard_outside_its_directory_is_refused(tmp_path, name):
    file = write_index(tmp_path, "train", shards())
    entry = {**json.loads(file.read_text())["shards"][0], "name": name}
    rewrite(file, shards=[entry])
    with pytest.raises(ValueError, match="leads out of its directory"):
        read_index(tmp_path)


def test_a_reader_never_sees_half_a_file(tmp_path):
    file = tmp_path / "index.json"
    contents = [b"a" * 300_000, b"b" * 200_000]
    write_atomically(file, contents[0])

    def write_in_turn() -> None:
        for turn in range(60):
            write_atomically(file, contents[turn % 2])

    writer = threading.Thread(target=write_in_turn)
    writer.start()
    seen = {file.read_bytes() for _ in range(2000)}
    while writer.is_alive():
        seen.add(file.read_bytes())
    writer.join()
    assert seen <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_remains(tmp_path):
    (tmp_path / "index.json").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "index.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
