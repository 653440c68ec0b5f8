"""The index of a split is there whole or not at all, and says of a broken one what is wrong."""

import hashlib
import json
import shutil
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_edit import change_contents
from made_shards import made_group, made_shard, three_portraits

from relightx.index import (
    NAME,
    TABLE,
    ShardEntry,
    parse_shard,
    read_index,
    shard_as_dict,
    totals_of,
    write_atomically,
    write_index,
)
from relightx.storage import LocalFolder

KEY = st.text("abcXYZ019_-", min_size=1, max_size=120)
SUBJECT = st.text(min_size=1, max_size=12)
GROUPS = st.lists(st.tuples(KEY, SUBJECT, st.integers(0, 4)), unique_by=lambda group: group[0])


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@given(st.lists(GROUPS, min_size=1, max_size=4), st.randoms())
def test_an_index_comes_back_as_it_was_written(tmp_path_factory, groups, random):
    keys = {group[0] for shard in groups for group in shard}
    if len(keys) < sum(map(len, groups)) or not keys:
        groups = [[("only", "one", 1)]]
    directory = tmp_path_factory.mktemp("split")
    shards = [made_shard(number, shard) for number, shard in enumerate(groups)]
    index = read_index(write_index(directory, "train", shards))
    assert index.split == "train"
    assert list(index.shards) == shards
    held = [group for shard in shards for group in shard.groups]
    assert list(index.groups) == held
    assert index.totals == totals_of(shards)
    assert index.subjects == sorted({group.subject for group in held})
    assert [index.subjects[number] for number in index.subject_of] == [g.subject for g in held]
    number = random.randrange(len(held))
    shard, group = index.place_of(number)
    assert group == held[number] and group in shard.groups
    shutil.rmtree(directory)


def test_names_that_are_no_unicode_come_back(tmp_path):
    shards = [made_shard(0, [("a", "caf\udce9", 1), ("b", "zoë", 1)])]  # from a file's name
    write_index(tmp_path, "train", shards)
    assert read_index(tmp_path).subjects == ["caf\udce9", "zoë"]


def test_an_index_is_found_in_its_directory_and_named_by_its_hash(tmp_path, monkeypatch):
    file = write_index(tmp_path, "train", three_portraits())
    index = read_index(tmp_path)
    for place in (str(file), file, f"{tmp_path}/", LocalFolder(str(tmp_path))):
        assert read_index(place) == index
    monkeypatch.chdir(tmp_path)
    assert read_index("index.json").sha256 == index.sha256
    assert index.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert index.path == str(file)
    assert index.folder == LocalFolder(str(tmp_path))


def test_the_same_portraits_elsewhere_are_another_index(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_index(tmp_path / name, "train", three_portraits())
    here, there = read_index(tmp_path / "here"), read_index(tmp_path / "there")
    assert here != there and here.sha256 == there.sha256
    assert len({here, there, read_index(tmp_path / "here")}) == 2


def test_the_same_shards_give_the_same_bytes(tmp_path):
    write_index(tmp_path, "train", three_portraits())
    first = contents(tmp_path)
    write_index(tmp_path, "train", iter(three_portraits()))
    assert contents(tmp_path) == first
    write_index(tmp_path, "train", read_index(tmp_path).shards)
    assert contents(tmp_path) == first
    assert set(first) == {NAME, TABLE}


def test_totals_are_those_of_the_shards(tmp_path):
    content = json.loads(write_index(tmp_path, "train", three_portraits()).read_text())
    assert content["totals"] == {
        "shards": 2,
        "groups": 3,
        "images": 9,
        "subjects": 2,
        "bytes": sum(shard.bytes for shard in three_portraits()),
    }
    assert content["totals"] == asdict(read_index(tmp_path).totals)


def test_a_key_in_two_shards_is_refused_by_name_and_nothing_is_written(tmp_path):
    twice = [*three_portraits(), made_shard(2, [("b", "carl", 1)])]
    with pytest.raises(ValueError, match=rf"{tmp_path}.*occur twice: b"):
        write_index(tmp_path, "train", twice)
    assert list(tmp_path.iterdir()) == []
    write_index(tmp_path, "train", three_portraits())
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="occur twice"):
        write_index(tmp_path, "train", twice)
    assert contents(tmp_path) == before


def test_what_the_table_cannot_hold_is_refused_by_shard_portrait_and_member(tmp_path):
    group = made_group("a", "anna", 2)
    offset, size = group.members["light001.png"]
    changes = {
        r"light001.png begins at byte 2560 of the shard, not at 2048": {
            "members": {**group.members, "light001.png": (offset + 512, size)}
        },
        r"meta.json begins at byte 3584": {
            "members": {name: group.members[name] for name in ("light000.png", "meta.json")}
        },
        r"has no members": {"members": {}},
        r"lights": {"lights": 1 << 16},
        r"meta.json": {"members": {"meta.json": (512, 1 << 32)}},
    }
    for number, (message, change) in enumerate(changes.items()):
        shard = ShardEntry("shard-7.tar", 9999, "ab" * 32, (replace(group, **change),))
        fault = rf"shard-7.tar: portrait 'a': .*{message if number < 3 else ''}"
        with pytest.raises(ValueError, match=fault):
            write_index(tmp_path, "train", [shard])
    assert list(tmp_path.iterdir()) == []


def test_an_old_index_does_not_stand_beside_a_table_that_is_half_replaced(tmp_path):
    write_index(tmp_path, "train", three_portraits())
    (tmp_path / TABLE).unlink()
    (tmp_path / TABLE).mkdir()  # so that the new one cannot take its place
    with pytest.raises(OSError):
        write_index(tmp_path, "train", three_portraits())
    assert [path.name for path in tmp_path.iterdir()] == [TABLE]


def test_a_directory_without_an_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no index.json found.*interrupted build"):
        read_index(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere: no index.json found"):
        read_index(tmp_path / "nowhere" / "index.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "format version 1, .*; build the data set anew"),
        ({"version": 3}, "format version 3, this program reads 2"),
        ({"shards": []}, "have 0 portraits|no portraits"),
        ({"shards": [{"name": "a.tar"}]}, "'sha256' is missing"),
        ({"shards": [{"name": "a.tar", "sha256": "ab" * 32, "bytes": 9}]}, "'groups' is missing"),
        ({"shards": 7}, "not a readable shard index"),
        ({"shards": [None]}, "not a readable shard index"),
        ({"split": 1}, "split 1 is no text"),
        ({"layouts": [["a.png", "a.png"]]}, "has a member twice"),
        ({"layouts": [[]]}, "empty"),
        ({"layouts": ["a.png"]}, "is no list of members"),
        ({"table": None}, "not a readable shard index"),
        ({"table": {"name": "../t", "bytes": 9, "sha256": "ab" * 32}}, r"its table is '\.\./t'"),
        ({"table": {"name": TABLE, "bytes": -9, "sha256": "ab" * 32}}, "-9 is no number"),
        ({"table": {"name": TABLE, "bytes": True, "sha256": "ab" * 32}}, "True is no number"),
        ({"table": {"name": TABLE, "bytes": 9, "sha256": "../" * 20 + "abcd"}}, "is no sha256"),
    ],
)
def test_an_unusable_index_is_refused_with_its_file_and_fault(tmp_path, changes, message):
    file = write_index(tmp_path, "train", three_portraits())
    change_contents(tmp_path, lambda content: content.update(changes))
    with pytest.raises(ValueError, match=message) as refusal:
        read_index(tmp_path)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_file_that_is_no_index_is_refused(tmp_path, data):
    (tmp_path / "index.json").write_bytes(data)
    with pytest.raises(ValueError, match="not a readable shard index"):
        read_index(tmp_path)


def test_an_index_of_another_tables_portraits_is_refused(tmp_path):
    write_index(tmp_path, "train", three_portraits())
    change_contents(tmp_path, lambda content: content["shards"].pop())
    with pytest.raises(ValueError, match=r"its shards have 2 portraits, groups.safetensors 3"):
        read_index(tmp_path)


@pytest.mark.parametrize("name", ["../secret.tar", "/etc/passwd", "deep/a.tar", "..", ".", "", 7])
def test_a_shard_outside_its_directory_is_refused(tmp_path, name):
    write_index(tmp_path, "train", three_portraits())
    change_contents(tmp_path, lambda content: content["shards"][0].update(name=name))
    with pytest.raises(ValueError, match=r"leads out of its directory|is no text"):
        read_index(tmp_path)


def test_a_shard_that_is_listed_twice_is_refused(tmp_path):
    write_index(tmp_path, "train", three_portraits())
    change_contents(
        tmp_path, lambda content: content["shards"][1].update(name=content["shards"][0]["name"])
    )
    with pytest.raises(ValueError, match="a shard is listed twice"):
        read_index(tmp_path)


def test_a_shard_comes_back_from_the_record_of_a_build(tmp_path):
    write_index(tmp_path, "train", three_portraits())
    for shard in (*three_portraits(), *read_index(tmp_path).shards):
        assert parse_shard(json.loads(json.dumps(shard_as_dict(shard)))) == shard


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
