"""A data set is built whole or not at all, with the same bytes however it was built."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import webdataset
from ball_groups import HALF, groups, one_thread, read  # noqa: F401 (a fixture)
from balls import ball

from relightx.index import read_index
from relightx.sample import Portrait
from shards.building.build import Part, Settings, build
from shards.building.destination import REPORT
from shards.building.recipe import Recipe
from shards.building.report import TooManySkipped
from shards.group import Group, faulty
from shards.looking.verify import verify

SMALL = 20_000


def contents(directory: Path) -> dict[str, bytes]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The data set of `groups`, built in one go; to read, not to change."""
    out = tmp_path_factory.mktemp("built") / "d"
    build(groups, out, HALF, Settings(shard_bytes=SMALL))
    return out


def test_a_data_set_has_what_the_source_gave_and_passes_its_checks(built):
    assert verify(built).passed
    entries = [g for split in ("train", "val", "test") for g in read_index(built / split).groups]
    assert sorted(entry.key for entry in entries) == [f"g{number:03d}" for number in range(40)]
    assert len(list(built.rglob("*.tar"))) > 6
    assert [path.name for path in built.parent.iterdir()] == ["d"]


def test_the_report_counts_what_was_built(built):
    report = json.loads((built / REPORT).read_text())
    assert report["complete"] and report["groups_found"] == 40
    assert sum(total["groups"] for total in report["splits"].values()) == 40
    assert report["skipped"]["groups"] == 0


def test_webdataset_and_tar_read_what_was_built(built, tmp_path):
    for split in ("train", "val", "test"):
        shards = sorted(str(path) for path in (built / split).glob("*.tar"))
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
        index = read_index(built / split)
        assert [sample["__key__"] for sample in samples] == [g.key for g in index.groups]
        assert all(sample["light001.png"].shape == (16, 16, 3) for sample in samples)
        assert all(sample["meta.json"]["subject"].startswith("person") for sample in samples)
    listed = subprocess.run(["tar", "-tf", shards[0]], capture_output=True, text=True, check=True)
    held = [f"{g.key}.{name}" for g in index.shards[0].groups for name in g.members]
    assert sorted(listed.stdout.split()) == sorted(held)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_do_not_change_a_byte(built, tmp_path, workers):
    build(groups, tmp_path / "d", HALF, Settings(shard_bytes=SMALL, workers=workers))
    assert contents(tmp_path / "d") == contents(built)


@pytest.mark.parametrize("count", [2, 5])
def test_jobs_of_an_array_make_the_same_bytes_and_the_last_publishes(built, tmp_path, count):
    out = tmp_path / "d"
    for number in reversed(range(count)):
        assert not out.exists()
        part = Settings(shard_bytes=SMALL, part=Part(number, count))
        ended = build(groups, out, HALF, part)
        assert (ended.totals is None) == (number > 0) == (ended.shards_left > 0)
    assert contents(out) == contents(built)
    assert os.listdir(tmp_path) == ["d"]
    again = build(groups, out, HALF, Settings(shard_bytes=SMALL, part=Part(0, count)))
    assert again.totals == ended.totals and contents(out) == contents(built)


def stop_after(number: int, marks: Path, count: int = 40) -> Iterator[Group]:
    for place, group in enumerate(groups(count, marks)):
        yield group if place != number else group._replace(read=_die)


def _die() -> Portrait:
    raise MemoryError


def test_a_build_that_was_stopped_goes_on_with_what_is_missing(built, tmp_path):
    marks, out = tmp_path / "marks", tmp_path / "d"
    marks.mkdir()
    settings = Settings(shard_bytes=SMALL)
    with pytest.raises(MemoryError):
        build(partial(stop_after, 30, marks), out, HALF, settings)
    assert not out.exists()
    read_before = {path.name for path in marks.iterdir()}
    finished = contents(tmp_path / ".d.partial")
    assert sum(name.endswith(".tar") for name in finished) >= 2
    assert not any("partial" in name or "writing" in name for name in finished)

    with pytest.raises(ValueError, match=r"unfinished build.*--resume.*--overwrite"):
        build(partial(groups, 40, marks), out, HALF, settings)
    shutil.rmtree(marks)
    marks.mkdir()
    build(partial(groups, 40, marks), out, HALF, replace(settings, resume=True))
    assert contents(out) == contents(built)
    again = {path.name for path in marks.iterdir()} & read_before
    # What is read again: samples for the plan, and shards that were open when it stopped.
    assert len(again) < 0.7 * len(read_before)


def test_a_finished_build_that_is_resumed_is_left_as_it_is(built, tmp_path):
    out = shutil.copytree(built, tmp_path / "d")
    ended = build(groups, out, HALF, Settings(shard_bytes=SMALL, resume=True))
    assert sum(total.groups for total in ended.totals.values()) == 40
    assert contents(out) == contents(built)


@pytest.mark.parametrize(
    ("count", "change", "named"),
    [
        (41, {}, "groups"),
        (40, {"recipe": Recipe(jpeg=80)}, "recipe"),
        (40, {"shard_bytes": 30_000}, "groups, shard_bytes"),
    ],
)
def test_another_build_is_not_gone_on_with(tmp_path, count, change, named):
    (tmp_path / "marks").mkdir()
    settings = Settings(shard_bytes=SMALL)
    with pytest.raises(MemoryError):
        build(partial(stop_after, 30, tmp_path / "marks"), tmp_path / "d", HALF, settings)
    other = replace(settings, resume=True, **change)
    with pytest.raises(ValueError, match=f"another one: its .*{named}"):
        build(partial(groups, count), tmp_path / "d", HALF, other)
    anew = replace(other, resume=False, overwrite=True)
    build(partial(groups, count), tmp_path / "d", HALF, anew)
    assert verify(tmp_path / "d").passed


def test_a_stopped_build_that_finished_no_shard_leaves_nothing(tmp_path):
    (tmp_path / "marks").mkdir()
    with pytest.raises(MemoryError):
        build(partial(stop_after, 2, tmp_path / "marks"), tmp_path / "d", HALF)
    assert os.listdir(tmp_path) == ["marks"]


def some_faulty(faults: int, count: int = 40) -> Iterator[Group]:
    for number, group in enumerate(groups(count)):
        is_wrong = 10 <= number < 10 + faults
        yield faulty(group.key, group.subject, f"a/{group.key}.png: is cut") if is_wrong else group


def test_groups_that_cannot_be_read_are_left_out_and_reported(tmp_path):
    settings = Settings(shard_bytes=SMALL, max_skipped=0.1)
    ended = build(partial(some_faulty, 3), tmp_path / "d", HALF, settings)
    assert sorted(fault.key for fault in ended.faults) == ["g010", "g011", "g012"]
    assert verify(tmp_path / "d").passed
    skipped = json.loads((tmp_path / "d" / REPORT).read_text())["skipped"]
    assert skipped["groups"] == 3 and skipped["share"] == 0.075
    reasons = {entry["key"]: entry["reason"] for entry in skipped["list"]}
    assert reasons["g011"] == "a/g011.png: is cut"
    assert list(skipped["kinds"].values()) == [3]


@pytest.mark.parametrize("workers", [1, 2])
def test_too_many_of_them_stop_the_build_with_the_first_named(tmp_path, workers):
    settings = Settings(shard_bytes=10**9, max_skipped=0.1, workers=workers)
    with pytest.raises(TooManySkipped, match=r"a/g010.png: is cut.*--max-skipped 0.1 allows 4"):
        build(partial(some_faulty, 5), tmp_path / "d", HALF, settings)
    assert os.listdir(tmp_path) == [f"d.{REPORT}"]
    report = json.loads((tmp_path / f"d.{REPORT}").read_text())
    assert report["complete"] is False and report["skipped"]["groups"] == 5
    build(groups, tmp_path / "d", HALF)
    assert os.listdir(tmp_path) == ["d"]


def test_a_source_of_faults_alone_is_refused(tmp_path):
    find = partial(some_faulty, 40)
    settings = Settings(max_skipped=1.0)
    only_faults = [group for group in find() if group.lights == 0]
    with pytest.raises(ValueError, match="no group could be used"):
        build(lambda: iter(only_faults), tmp_path / "d", HALF, settings)
    assert os.listdir(tmp_path) == [f"d.{REPORT}"]


def several(key: str, subject: str) -> list[Portrait]:
    return [ball(f"{key}_{light}", subject, lights=1, size=16, seed=light) for light in range(3)]


def test_a_group_may_turn_out_to_be_several_portraits(tmp_path):
    found = [Group(f"k{n}", f"s{n}", 3, partial(several, f"k{n}", f"s{n}")) for n in range(4)]
    build(lambda: iter(found), tmp_path / "d", lambda _: "train")
    keys = [entry.key for entry in read_index(tmp_path / "d/train").groups]
    assert keys == [f"k{group}_{light}" for group in range(4) for light in range(3)]


def test_portraits_of_two_groups_with_one_key_are_refused_before_the_set_appears(tmp_path):
    found = [
        Group("k1", "s1", 3, partial(several, "k1", "s1")),
        Group("k1_2", "s1", 2, partial(read, "k1_2", "s1", 0)),
    ]
    with pytest.raises(ValueError, match="'k1_2' occurs twice"):
        build(lambda: iter(found), tmp_path / "d", lambda _: "train")
    assert not (tmp_path / "d").exists()


def test_a_portrait_that_calls_itself_otherwise_is_a_fault_of_its_source(tmp_path):
    found = [Group("k1", "s1", 2, partial(read, "other", "s1", 0))]
    with pytest.raises(TooManySkipped, match="group 'k1': its portrait calls itself 'other'"):
        build(lambda: iter(found), tmp_path / "d", lambda _: "train")


def test_jpeg_is_smaller_and_its_loss_is_small(built, tmp_path):
    def large(key: str) -> Portrait:
        return ball(key, key, lights=2, size=64)

    found = [Group(f"k{n}", f"k{n}", 2, partial(large, f"k{n}")) for n in range(2)]
    settings = Settings(recipe=Recipe(jpeg=95))
    build(lambda: iter(found), tmp_path / "d", lambda _: "train", settings)
    (group, _) = read_index(tmp_path / "d/train").groups
    assert {"light000.jpg", "light001.jpg", "albedo.png", "meta.json"} <= set(group.members)
    assert verify(tmp_path / "d").passed
    assert group.members["light000.jpg"][1] < 3000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_skipped": 1.5}, "share from 0 to 1"),
        ({"workers": 0}, "at least 1"),
        ({"part": Part(2, 2)}, "from 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [({"align": 4}, "16 to 4096"), ({"jpeg": 101}, "1 to 100"), ({"min_face": 0}, "at least 1")],
)
def test_an_impossible_recipe_is_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**recipe)


def test_two_builds_of_one_place_do_not_mix(tmp_path):
    def meanwhile() -> Portrait:
        with pytest.raises(ValueError, match="another process is building it"):
            build(groups, tmp_path / "d", HALF, Settings(shard_bytes=SMALL, resume=True))
        return read("g000", "person 0", 0)

    def found() -> Iterator[Group]:
        first, *others = groups()
        yield first._replace(read=meanwhile if (tmp_path / ".d.partial").exists() else first.read)
        yield from others

    build(found, tmp_path / "d", HALF, Settings(shard_bytes=SMALL))
    assert np.all([path.name == "d" for path in tmp_path.iterdir()])
