import hashlib
import os
import resource
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import webdataset

from relightx.index import read_index
from relightx.sample import decode, encode
from shards.read import read_members
from shards.splits import SPLITS, hash_split
from shards.write import pack, write_dataset, write_split

HALVES = hash_split({"train": 0.5, "val": 0.25, "test": 0.25})
SMALL = 60_000  # bytes: two or three balls in a shard

BUILD_WITHOUT_END = """
import sys, time
from pathlib import Path
from shards.write import Packed, write_dataset

def endless():
    for number in range(10**9):
        yield Packed(f"k{number}", f"s{number}", 1, {"meta.json": bytes(900)})
        if number == 50:
            print("going", flush=True)
        if number > 50:
            time.sleep(0.01)

write_dataset(endless(), Path(sys.argv[1]), lambda subject: "train", 20_000)
"""


@pytest.fixture
def balls(make_portrait):
    """Twelve portraits of six subjects."""
    return [make_portrait(f"ball{i:02d}", f"person{i // 2}", seed=i) for i in range(12)]


def contents(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def test_the_same_portraits_give_the_same_bytes(balls, tmp_path):
    write_dataset(balls, tmp_path / "a", HALVES, SMALL)
    write_dataset(iter(map(pack, balls)), tmp_path / "b", HALVES, SMALL)
    assert len(contents(tmp_path / "a")) > 4
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_portraits_come_back_as_they_went_in(balls, tmp_path):
    write_split(balls, tmp_path / "s", "train", SMALL)
    index = read_index(tmp_path / "s")
    assert [group.key for group in index.groups] == [ball.key for ball in balls]
    for shard in index.shards:
        for group in shard.groups:
            stored = decode(group.key, read_members(tmp_path / "s", shard.name, group))
            ball = next(ball for ball in balls if ball.key == group.key)
            np.testing.assert_array_equal(stored.image, ball.image)
            assert (group.subject, group.lights) == (ball.subject, ball.num_lights)


def test_offsets_in_the_index_are_those_of_the_tar(balls, tmp_path):
    write_split(balls, tmp_path / "s", "train", SMALL)
    for shard in read_index(tmp_path / "s").shards:
        path = tmp_path / "s" / shard.name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256
        assert path.stat().st_size == shard.bytes
        named = {
            f"{group.key}.{extension}": data
            for group in shard.groups
            for extension, data in read_members(tmp_path / "s", shard.name, group).items()
        }
        with tarfile.open(path, "r:") as tar:
            assert {member.name: tar.extractfile(member).read() for member in tar} == named


def test_plain_webdataset_reads_every_group_whole(balls, tmp_path):
    write_split(balls, tmp_path / "s", "train", SMALL)
    shards = sorted(str(path) for path in (tmp_path / "s").glob("*.tar"))
    assert len(shards) > 2
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [ball.key for ball in balls]
    for sample, ball in zip(samples, balls, strict=True):
        assert {n: v for n, v in sample.items() if not n.startswith("__")} == encode(ball)


def test_tar_members_have_no_time_owner_or_mode_of_their_own(balls, tmp_path):
    write_split(balls[:1], tmp_path / "s", "train")
    with tarfile.open(tmp_path / "s" / "shard-000000.tar") as tar:
        traits = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar}
    assert traits == {(0, 0, 0, "", "", 0o644)}


def test_a_shard_stays_below_its_size_unless_one_group_is_larger(balls, tmp_path):
    write_split(balls, tmp_path / "many", "train", SMALL)
    for shard in read_index(tmp_path / "many").shards:
        assert shard.bytes <= SMALL + tarfile.RECORDSIZE + 1024
    write_split(balls, tmp_path / "single", "train", 1)
    assert [len(shard.groups) for shard in read_index(tmp_path / "single").shards] == [1] * 12


def test_a_subject_is_in_one_split_whole(make_portrait, tmp_path):
    balls = [make_portrait(f"k{i}", f"person{i % 20}", lights=1, size=8) for i in range(60)]
    totals = write_dataset(balls, tmp_path / "d", HALVES)
    subjects = {split: set(read_index(tmp_path / "d" / split).subjects) for split in totals}
    assert set(totals) == set(SPLITS)
    assert sum(len(held) for held in subjects.values()) == len(set.union(*subjects.values())) == 20
    assert all(total.groups == 3 * total.subjects for total in totals.values())


def test_totals_are_those_of_the_index(balls, tmp_path):
    totals = write_dataset(balls, tmp_path / "d", HALVES, SMALL)
    for split, total in totals.items():
        index = read_index(tmp_path / "d" / split)
        assert total.groups == len(index.groups)
        assert total.images == 3 * total.groups
        assert total.bytes == sum(f.stat().st_size for f in (tmp_path / "d" / split).glob("*.tar"))


def test_portraits_are_streamed(make_portrait, tmp_path):
    """The source is asked for the next portrait only when the last one is written."""
    asked, written = [], []

    def source():
        for number in range(5):
            assert written == asked
            asked.append(number)
            yield make_portrait(f"k{number}", size=8, lights=1)

    write_dataset(source(), tmp_path / "d", HALVES, progress=lambda done: written.append(done - 1))
    assert written == list(range(5))


def test_a_key_that_comes_twice_is_refused_as_it_comes(balls, tmp_path):
    def source():
        yield from (balls[0], balls[1], balls[0])
        raise AssertionError("asked for more after the second portrait of a key")

    with pytest.raises(ValueError, match=r"'ball00'.*twice"):
        write_dataset(source(), tmp_path / "d", HALVES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_source_fails(balls, tmp_path, error):
    def source():
        yield from balls[:8]
        raise error

    with pytest.raises(error):
        write_dataset(source(), tmp_path / "d", HALVES, SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no portraits"):
        write_dataset([], tmp_path / "d", HALVES)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_split_is_refused(balls, tmp_path):
    with pytest.raises(ValueError, match="'holdout' is unknown"):
        write_dataset(balls, tmp_path / "d", lambda subject: "holdout")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_stopped_leaves_nothing_that_looks_whole(tmp_path, sign):
    command = [sys.executable, "-c", BUILD_WITHOUT_END, str(tmp_path / "d")]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Tests that a shell started in the background ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout.readline() == "going\n"
    assert len(list(tmp_path.glob(".d.partial-*/train/shard-*.tar"))) > 1
    child.send_signal(sign)
    assert child.wait() != 0
    assert not (tmp_path / "d").exists()
    assert not list(tmp_path.rglob("index.json"))
    if sign == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_a_clear_error_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands for the end of the disk."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))

    child = subprocess.run(
        [sys.executable, "-c", BUILD_WITHOUT_END, str(tmp_path / "d")],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    last = child.stderr.strip().splitlines()[-1]
    assert last.startswith("OSError") and str(tmp_path / "d") in last and "did not fit" in last
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_is_refused(balls, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="not empty"):
        write_dataset(balls, tmp_path / "d", HALVES)
    with pytest.raises(ValueError, match=r"will not be overwritten.*no index\.json"):
        write_dataset(balls, tmp_path / "d", HALVES, overwrite=True)
    assert [file.name for file in (tmp_path / "d").iterdir()] == ["thesis.tex"]


def test_an_empty_directory_is_filled(balls, tmp_path):
    (tmp_path / "d").mkdir()
    write_dataset(balls, tmp_path / "d", HALVES)
    assert read_index(tmp_path / "d" / "train").groups


def test_overwriting_replaces_a_data_set_once_the_new_one_is_whole(balls, tmp_path):
    write_dataset(balls, tmp_path / "d", HALVES)
    before = contents(tmp_path / "d")

    def failing():
        yield balls[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_dataset(failing(), tmp_path / "d", HALVES, overwrite=True)
    assert contents(tmp_path / "d") == before
    write_dataset(balls[:2], tmp_path / "d", lambda subject: "test", overwrite=True)
    assert os.listdir(tmp_path / "d") == ["test"]
    assert os.listdir(tmp_path) == ["d"]


def test_a_data_set_with_a_foreign_file_is_not_overwritten(balls, tmp_path):
    write_dataset(balls, tmp_path / "d", HALVES)
    (tmp_path / "d" / "train" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"train/notes\.txt"):
        write_dataset(balls, tmp_path / "d", HALVES, overwrite=True)
    assert (tmp_path / "d" / "train" / "notes.txt").read_text() == "mine"
