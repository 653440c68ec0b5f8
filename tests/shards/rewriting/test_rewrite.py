import hashlib
import json
from dataclasses import replace

import pytest

from relightx.index import read_index
from relightx.sample import decode
from relightx.storage import open_folder
from shards.looking.verify import verify
from shards.read import find_splits, read_members, read_split
from shards.rewriting.copying import Target
from shards.rewriting.rewrite import merge, reshard, split
from shards.splits import file_split, hash_split
from shards.write import write_dataset, write_split

SMALL = 20_000  # bytes: two or three balls in a shard


def halves(subject):
    return "val" if subject[-1] in "02468" else "train"


def contents(place):
    """{key: (split, subject, members)} of a whole data set."""
    held = {}
    for found in find_splits(place):
        index = read_split(found)
        for shard in index.shards:
            for group in shard.groups:
                members = read_members(found.folder, shard.name, group)
                held[group.key] = (index.split, group.subject, members)
    return held


def files(directory):
    """Hash of each file below a directory."""
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != "build-report.json"
    }


@pytest.fixture
def make_set(make_portrait, tmp_path):
    """make(name, keys, subjects, assign, seed): a data set of balls."""

    def make(name, keys, subjects, assign=halves, seed=0):
        balls = [
            make_portrait(key, subject, size=16, seed=seed + number)
            for number, (key, subject) in enumerate(zip(keys, subjects, strict=True))
        ]
        write_dataset(balls, tmp_path / name, assign, SMALL)
        return tmp_path / name

    return make


@pytest.fixture
def first(make_set):
    return make_set("first", [f"a{i}" for i in range(6)], [f"anna{i}" for i in range(6)])


@pytest.fixture
def second(make_set):
    return make_set("second", [f"b{i}" for i in range(6)], [f"ben{i}" for i in range(6)], seed=50)


def test_merging_keeps_every_byte_and_every_split(first, second, tmp_path):
    done = merge([first, second], Target(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(first) | contents(second)
    assert verify(tmp_path / "out").passed
    assert {name: total.groups for name, total in done.totals.items()} == {"train": 6, "val": 6}
    assert not done.leaks.found and done.leaks.moved == 0
    assert json.loads((tmp_path / "out" / "build-report.json").read_text())["merged"] == [
        "first",
        "second",
    ]


def test_resharding_to_the_same_size_gives_the_same_files(first, tmp_path):
    reshard(first, Target(tmp_path / "out", SMALL))
    assert files(tmp_path / "out") == files(first)


@pytest.mark.parametrize("size", [1, 40_000, 10**9])
def test_resharding_changes_the_shards_alone(first, tmp_path, size):
    reshard(first, Target(tmp_path / "out", size))
    assert contents(tmp_path / "out") == contents(first)
    shards = read_index(tmp_path / "out" / "train").shards
    assert len(shards) == {1: 3, 10**9: 1}.get(size, 1)
    assert verify(tmp_path / "out").passed


def test_resharding_there_and_back_gives_the_same_files(first, tmp_path):
    reshard(first, Target(tmp_path / "one", 10**9))
    reshard(tmp_path / "one", Target(tmp_path / "out", SMALL))
    assert files(tmp_path / "out") == files(first)


def test_a_key_in_both_names_both_sets(first, make_set, tmp_path):
    other = make_set("other", ["a1"], ["cleo1"], seed=9)
    with pytest.raises(ValueError, match="1 keys occur twice, such as 'a1' in first and in other"):
        merge([first, other], Target(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_prefixes_tell_the_same_keys_apart(first, make_set, tmp_path):
    other = make_set("other set", ["a1"], ["cleo1"], seed=9)
    merge([first, other], Target(tmp_path / "out"), prefix=True)
    held = contents(tmp_path / "out")
    assert set(held) == {f"first_a{i}" for i in range(6)} | {"other-set_a1"}
    assert held["other-set_a1"] == contents(other)["a1"]
    assert verify(tmp_path / "out").passed


def test_prefixes_that_are_the_same_are_refused(first, tmp_path):
    reshard(first, Target(tmp_path / "deep" / "first"))
    with pytest.raises(ValueError, match="two data sets are named first"):
        merge([first, tmp_path / "deep" / "first"], Target(tmp_path / "out"), prefix=True)


@pytest.mark.parametrize("name", ["anna1", "ANNA1", " anna1_"])
def test_a_person_in_different_splits_of_two_sets_is_refused(first, make_set, tmp_path, name):
    other = make_set("other", ["c"], [name], lambda subject: "test", seed=9)
    message = (
        rf"1 people would be in several splits.*'anna1' in train of first, '{name}' in test of"
    )
    with pytest.raises(ValueError, match=f"(?s){message}"):
        merge([first, other], Target(tmp_path / "out"))


@pytest.mark.parametrize("name", ["anna1", "ANNA1", " anna1_"])
def test_splitting_a_merged_set_anew_keeps_a_person_together(first, make_set, tmp_path, name):
    other = make_set("other", ["c"], [name], lambda subject: "test", seed=9)
    for seed in range(4):
        assign = hash_split({"train": 0.4, "val": 0.3, "test": 0.3}, seed)
        done = merge([first, other], Target(tmp_path / f"out{seed}"), assign=assign)
        held = contents(tmp_path / f"out{seed}")
        assert held["a1"][0] == held["c"][0] == assign("anna1")
        assert done.leaks.num_before == 1 and done.leaks.num_after == 0


def test_splitting_anew_moves_subjects_whole_and_keeps_every_byte(first, tmp_path):
    lists = {"train": ["anna0", "anna1"], "val": ["anna2"], "test": ["anna3", "anna4", "anna5"]}
    (tmp_path / "split.json").write_text(json.dumps(lists))
    done = split(first, Target(tmp_path / "out"), file_split(tmp_path / "split.json"))
    before, after = contents(first), contents(tmp_path / "out")
    assert {key: held[1:] for key, held in before.items()} == {
        key: held[1:] for key, held in after.items()
    }
    subjects = sorted((held[1], held[0]) for held in after.values())
    assert subjects == sorted((name, of) for of, names in lists.items() for name in names)
    assert done.leaks.moved == sum(before[key][0] != after[key][0] for key in before) == 4
    assert verify(tmp_path / "out").passed


def test_a_subject_that_the_file_lacks_stops_it_and_nothing_is_left(first, tmp_path):
    (tmp_path / "split.json").write_text('{"train": ["anna0", "anna1"]}')
    with pytest.raises(ValueError, match=r"subject 'anna[2-5]' is in none"):
        split(first, Target(tmp_path / "out"), file_split(tmp_path / "split.json"))
    assert {path.name for path in tmp_path.iterdir()} == {"first", "split.json"}


@pytest.fixture
def leaky(make_portrait, tmp_path):
    """Anna in two splits, once under another spelling; Ben's picture is Cleo's too."""
    anna, again = make_portrait("a", "Anna", size=16), make_portrait("b", "anna ", size=16, seed=1)
    ben, cleo = make_portrait("c", "ben", size=16, seed=2), make_portrait("d", "cleo", size=16)
    cleo = replace(cleo, image=ben.image, sh=ben.sh, albedo=ben.albedo, direction=ben.direction)
    write_split([anna, ben], tmp_path / "leaky" / "train", "train")
    write_split([again, cleo], tmp_path / "leaky" / "val", "val")
    return tmp_path / "leaky"


def test_leaks_are_reported_as_they_were_and_are(leaky, tmp_path):
    done = split(
        leaky, Target(tmp_path / "out"), {"Anna": "val", "ben": "train", "cleo": "val"}.get
    )
    leaks = done.leaks
    assert [(p.names, p.splits) for p in leaks.before] == [(("Anna", "anna "), ("train", "val"))]
    assert leaks.after == () and [p.names for p in leaks.written] == [("Anna", "anna ")]
    (shared,) = leaks.pictures
    assert (shared.first.key, shared.second.key, shared.pictures) == ("c", "d", 3)
    assert leaks.found
    content = json.loads(json.dumps(done.as_dict()))["leaks"]
    assert content["num_pictures"] == 1 and content["pictures"][0]["second"]["subject"] == "cleo"
    text = str(done)
    assert "1 people were in several splits\n  'Anna' = 'anna ' in train, val" in text
    assert "3: c of 'ben' in train, d of 'cleo' in val" in text


def test_a_split_that_keeps_them_together_has_no_leak(leaky, tmp_path):
    done = split(leaky, Target(tmp_path / "out"), lambda subject: "train")
    assert not done.leaks.found and done.leaks.num_before == 1


def test_names_may_be_taken_as_they_are_written(leaky, tmp_path):
    where = {"Anna": "train", "anna ": "test", "ben": "train", "cleo": "train"}
    done = split(leaky, Target(tmp_path / "out"), where.__getitem__, fold_subjects=False)
    assert [person.splits for person in done.leaks.after] == [("train", "test")]
    assert contents(tmp_path / "out")["b"][0] == "test"


def test_a_set_with_leaks_is_resharded_as_it_is(leaky, tmp_path):
    done = reshard(leaky, Target(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(leaky) and done.leaks.num_after == 1


@pytest.mark.parametrize("place", ["train/shard-000000.tar", "val/shard-000000.tar"])
def test_a_damaged_shard_is_found_and_not_sealed_anew(first, tmp_path, place):
    data = bytearray((first / place).read_bytes())
    data[len(data) // 2] ^= 1
    (first / place).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{place}: is damaged"):
        reshard(first, Target(tmp_path / "out"))
    assert {path.name for path in tmp_path.iterdir()} == {"first"}


def test_a_missing_shard_is_named(first, tmp_path):
    (first / "val" / "shard-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"val/shard-000000\.tar"):
        reshard(first, Target(tmp_path / "out"))


def test_a_place_that_is_taken_is_refused_until_it_may_be_overwritten(first, second, tmp_path):
    reshard(first, Target(tmp_path / "out"))
    with pytest.raises(ValueError, match="already exists"):
        reshard(second, Target(tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(first)
    reshard(second, Target(tmp_path / "out", overwrite=True))
    assert contents(tmp_path / "out") == contents(second)


@pytest.mark.parametrize("out", ["", "train"])
def test_a_set_is_not_written_over_itself(first, out):
    before = files(first)
    with pytest.raises(ValueError, match="is read from"):
        reshard(first, Target(first / out, overwrite=True))
    assert files(first) == before


def test_impossible_orders_are_refused(first, tmp_path):
    with pytest.raises(ValueError, match="at least 2"):
        merge([first], Target(tmp_path / "out"))
    with pytest.raises(ValueError, match="0 bytes"):
        Target(tmp_path / "out", 0)
    with pytest.raises(ValueError, match="split 'dev' is unknown"):
        split(first, Target(tmp_path / "out"), lambda subject: "dev")
    assert not (tmp_path / "out").exists()


def test_progress_counts_portraits(first, tmp_path):
    seen = []
    reshard(first, Target(tmp_path / "out", progress=seen.append))
    assert seen == list(range(1, 7))


def test_poses_are_copied_with_their_portraits(make_portrait, first, tmp_path):
    posed = [
        replace(make_portrait(f"k{i}", f"posed{i}", size=16), pose_deg=(float(i), 2.0, -1.0))
        for i in range(4)
    ]
    write_dataset(posed, tmp_path / "posed", halves, SMALL)
    assert verify(tmp_path / "posed").passed
    merge([first, tmp_path / "posed"], Target(tmp_path / "both", SMALL))
    reshard(tmp_path / "both", Target(tmp_path / "out", 1))
    assert verify(tmp_path / "out").passed
    held = contents(tmp_path / "out")
    poses = {key: decode(key, members).pose_deg for key, (_, _, members) in held.items()}
    assert [poses.pop(portrait.key) for portrait in posed] == [one.pose_deg for one in posed]
    assert set(poses.values()) == {None}


def test_sets_in_s3_are_merged_into_s3(first, second, tmp_path, s3):
    folder, out = s3.new_folder(), s3.new_url()
    for file in (file for file in first.rglob("*") if file.is_file()):
        folder.write(str(file.relative_to(first)), file.read_bytes())
    merge([folder, second], Target(out, SMALL, storage=s3.options()))
    merge([first, second], Target(tmp_path / "out", SMALL))
    there = open_folder(out, s3.options())
    assert {
        name: hashlib.sha256(there.read(name)).hexdigest()
        for name in there.names()
        if name != "build-report.json"
    } == files(tmp_path / "out")
    with pytest.raises(ValueError, match="already holds a data set"):
        reshard(first, Target(out, storage=s3.options()))
    with pytest.raises(ValueError, match="is read from"):
        reshard(there, Target(out, overwrite=True, storage=s3.options()))


def test_nothing_stays_in_s3_of_a_set_that_could_not_be_finished(first, s3):
    last = read_index(first / "val").shards[-1].name
    (first / "val" / last).write_bytes(b"")
    out = s3.new_url()
    with pytest.raises(ValueError, match="is damaged"):
        reshard(first, Target(out, 1, storage=s3.options()))
    assert list(open_folder(out, s3.options()).names()) == []
