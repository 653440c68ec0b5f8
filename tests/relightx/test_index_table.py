"""The table of an index is made of nothing but checked rows, and these only when asked for."""

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_edit import change_columns, seal_table
from made_shards import made_shard, three_portraits
from safetensors.numpy import load_file

from relightx.index import TABLE, GroupEntry, Index, read_index, write_columns, write_index


@pytest.fixture
def split(tmp_path) -> Path:
    write_index(tmp_path, "train", three_portraits())
    return tmp_path


def change_header(split: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what the head of the table says; index.json follows."""
    data = (split / TABLE).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (split / TABLE).write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    seal_table(split)


def everything(index: Index) -> list[Any]:
    groups = [(g.key, g.subject, g.lights, dict(g.members)) for g in index.groups]
    return [groups, index.subjects, index.subject_of.tolist(), index.lights.tolist()]


def test_the_safetensors_library_reads_the_table(split):
    columns = load_file(split / TABLE)
    assert columns["lights"].tolist() == [2, 5, 2]
    assert columns["key"].tobytes() == b"abc"
    assert columns["subject_name"].tobytes() == b"annabert"
    assert columns["subject"].tolist() == [1, 0, 1]
    assert columns["size"][:3].tolist() == [700, 701, 702]


def test_columns_say_what_the_portraits_say(split):
    index = read_index(split)
    assert index.num_groups == 3 and index.num_subjects == 2
    assert index.groups_per_shard.tolist() == [2, 1]
    assert index.lights.tolist() == [2, 5, 2]
    assert index.subject_of.tolist() == [1, 0, 1]
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in index.subjects]
    assert index.subject_digest.tobytes() == b"".join(digests)
    for values in (index.lights, index.subject_of, index.subject_digest):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 0


def test_portraits_are_a_sequence(split):
    groups = read_index(split).groups
    held = [group for shard in three_portraits() for group in shard.groups]
    assert len(groups) == 3 and list(groups) == held
    assert groups[-1] == held[-1] and groups[np.int64(1)] == held[1]
    assert groups[1:] == held[1:] and groups[::-2] == held[::-2] and groups[:0] == []
    assert groups != held[1:] and groups != 3 and held[1] in groups
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            groups[beyond]


def test_shards_are_a_sequence(split):
    shards, held = read_index(split).shards, three_portraits()
    assert len(shards) == 2 and shards[-1] == held[1] and shards[1:] == tuple(held[1:])
    assert [shard.name for shard in shards] == ["shard-000000.tar", "shard-000001.tar"]
    assert shards == held and shards != held[:1]
    with pytest.raises(IndexError):
        shards[2]


def test_members_are_a_mapping_in_the_order_of_the_shard(split):
    members = read_index(split).groups[1].members
    held = three_portraits()[0].groups[1].members
    assert members == held and dict(members) == held and list(members) == list(held)
    assert "light004.png" in members and "light005.png" not in members
    assert members.get("light005.png") is None and len(members) == 6
    with pytest.raises(KeyError):
        members["light005.png"]


@pytest.mark.parametrize("length", [1, 86, 87, 88, 100, 511, 600, 1100])
def test_members_are_where_tar_finds_them_however_long_a_key_is(tmp_path, length):
    shard = made_shard(0, [("k" * length, "anna", 3), ("j", "anna", 2)])
    write_index(tmp_path, "train", [shard])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for group in shard.groups:
            for name, (_, size) in group.members.items():
                member = tarfile.TarInfo(f"{group.key}.{name}")
                member.size = size
                tar.addfile(member, io.BytesIO(bytes(size)))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        found = {member.name: (member.offset_data, member.size) for member in tar}
    held = {
        f"{group.key}.{name}": place
        for group in read_index(tmp_path).groups
        for name, place in group.members.items()
    }
    assert held == found


def test_an_index_pickles_as_its_place(split):
    index = read_index(split)
    sent = pickle.dumps(index)
    assert len(sent) < 500
    assert everything(pickle.loads(sent)) == everything(index)
    assert pickle.loads(sent) == index
    write_index(split, "train", three_portraits()[:1])
    with pytest.raises(ValueError, match=r"index.json: was replaced while it was in use"):
        pickle.loads(sent)


def test_portraits_pickle_without_their_table(split):
    shard = read_index(split).shards[0]
    sent, entry = pickle.dumps(shard), pickle.dumps(shard.groups[1])
    copied = deepcopy(shard.groups[1])
    for file in split.iterdir():
        file.unlink()
    assert pickle.loads(sent) == three_portraits()[0]
    assert pickle.loads(entry) == copied == three_portraits()[0].groups[1]


def test_an_index_in_use_outlives_its_replacement(split):
    index = read_index(split)
    before = everything(index)
    write_index(split, "train", [made_shard(0, [("z", "zoe", 1)])])
    assert everything(index) == before
    assert read_index(split).groups[0].key == "z"


def test_a_table_that_is_missing_cut_or_longer_is_refused_by_name(split):
    table = split / TABLE
    data = table.read_bytes()
    for changed in (data[:-1], data[:4], b"", data + b"\0"):
        table.write_bytes(changed)
        message = rf"{table}: has {len(changed)} bytes, its index says {len(data)}"
        with pytest.raises(ValueError, match=message):
            read_index(split)
    table.unlink()
    with pytest.raises(ValueError, match=rf"{table}: is missing; index.json needs it beside it"):
        read_index(split)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("size"), "column size is missing"),
        (lambda h: h.update(extra=h["size"]), "column extra is unknown"),
        (lambda h: h["size"].update(dtype="U64"), "column size is U64, U32 needed"),
        (lambda h: h["size"].update(dtype="F32"), "column size is F32, U32 needed"),
        (lambda h: h["size"].update(shape=[12, 1]), "too many values"),
        (lambda h: h["size"].update(shape=[11]), "11 values of column size cannot be"),
        (lambda h: h["size"].update(shape=[12.0]), "not in whole numbers"),
        (lambda h: h["size"].update(shape=[-1]), "-1 values of column size"),
        (lambda h: h["size"].update(data_offsets=[4, 52]), "column .* begins at byte"),
        (lambda h: h["size"].update(data_offsets=[10**9, 10**9 + 48]), "cannot be at bytes"),
        (lambda h: h["size"].update(data_offsets=[-48, 0]), "cannot be at bytes -48"),
        (lambda h: h["size"].update(data_offsets=None), "."),
        (lambda h: h.update(size=[]), "."),
        (lambda h: h["key_end"].update(h["offset"]), "begins at byte"),
        (lambda h: h.update(lights={**h["lights"], "shape": [0], "data_offsets": [0, 0]}), "."),
    ],
)
def test_a_table_with_another_head_is_refused(split, change, message):
    change_header(split, change)
    where = f"{split / TABLE}: not a table of portraits"
    with pytest.raises(ValueError, match=f"{where}: .*{message}"):
        read_index(split)


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 200,
        bytes(200),
        (1 << 63).to_bytes(8, "little") + bytes(200),
        (16).to_bytes(8, "little") + b"{" * 16,
        (16).to_bytes(8, "little") + b"null            ",
        (1 << 16).to_bytes(8, "little") + b"[" * (1 << 16),
        (2).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_file_that_is_no_table_is_refused(split, data):
    (split / TABLE).write_bytes(data)
    seal_table(split)
    with pytest.raises(ValueError, match=r"groups.safetensors: not a table of portraits"):
        read_index(split)


def test_notes_in_a_tables_head_do_no_harm(split):
    change_header(split, lambda header: header.update(__metadata__={"made": "elsewhere"}))
    assert everything(read_index(split))[0] == [
        (g.key, g.subject, g.lights, g.members) for s in three_portraits() for g in s.groups
    ]


def set_value(name: str, place: int, value: int) -> Callable[[dict[str, np.ndarray]], None]:
    def change(columns: dict[str, np.ndarray]) -> None:
        columns[name][place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("key_end", 1, 9), "row 1 has values 1 to 9 of 3|does not part column key"),
        (set_value("key_end", 1, 0), "row 1 has values 1 to 0|does not part column key"),
        (set_value("size_end", 1, 2**63), "row 1 has values|does not part column size"),
        (set_value("size_end", 1, 8), "portrait 1 has 5 sizes for 6 members|not a size for each"),
        (set_value("layout", 1, 2), "layout 2 of 2"),
        (set_value("layout", 1, 0), "portrait 1 has 6 sizes for 3|not a size for each"),
        (set_value("subject", 1, 2), "subject 2 of 2"),
        (set_value("key", 1, 0xFF), "the key of portrait 1 is no text"),
        (set_value("subject_name", 0, 0xFF), "the name of subject 0 is no text"),
    ],
)
def test_a_row_that_cannot_be_is_refused_when_it_is_used_and_harms_no_other(split, change, message):
    before = read_index(split).groups[0]
    change_columns(split, change)
    index = read_index(split)
    assert index.groups[0] == before
    where = rf"{split / TABLE}: damaged: .*({message})"
    with pytest.raises(ValueError, match=where):
        index.groups[1]
    with pytest.raises(ValueError, match=where):
        index.check_table()


def test_names_that_are_not_parted_are_refused(split):
    change_columns(split, set_value("subject_end", 0, 99))
    index = read_index(split)
    for use in (lambda: index.groups[0], lambda: index.subjects, index.check_table):
        with pytest.raises(ValueError, match=r"damaged: (row|column subject_end)"):
            use()


def test_a_number_of_a_subject_that_is_not_there_is_refused_before_it_is_used(split):
    change_columns(split, set_value("subject", 2, 7))
    with pytest.raises(ValueError, match=r"damaged: subject 7 of 2"):
        _ = read_index(split).subject_of


def test_a_changed_byte_is_found_by_the_check_of_the_table(split):
    read_index(split).check_table()
    data = bytearray((split / TABLE).read_bytes())
    data[-20] ^= 1
    (split / TABLE).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{split / TABLE}: damaged: its sha256 is"):
        read_index(split).check_table()


@given(st.data())
def test_whatever_a_table_holds_it_is_read_or_refused(tmp_path_factory, data):
    split = tmp_path_factory.mktemp("split")
    write_index(split, "train", three_portraits())
    table = bytearray((split / TABLE).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    (split / TABLE).write_bytes(table)
    seal_table(split)
    try:
        index = read_index(split)
        held = everything(index)
        index.check_table()
    except ValueError as error:
        assert str(split / TABLE) in str(error)
    else:
        assert all(isinstance(group, GroupEntry) for group in index.groups) and held


def test_columns_of_another_kind_are_not_written(split):
    columns = {name: np.array(values) for name, values in load_file(split / TABLE).items()}
    for change, message in (
        ({"lights": columns["lights"].astype(np.int16)}, "column lights is int16"),
        ({"lights": columns["lights"][:, None]}, "column lights is uint16"),
        ({"lights": columns["lights"][:1]}, "columns of groups differ in length"),
        ({"other": columns["lights"]}, "needed are"),
    ):
        with pytest.raises(ValueError, match=message):
            write_columns(split / "new", {**columns, **change})
    assert not (split / "new").exists()
