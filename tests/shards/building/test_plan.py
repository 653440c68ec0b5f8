"""Groups get their shards before any is read, from their names and the size of a few alone."""

import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from balls import ball

from relightx.sample import Portrait
from shards.building.plan import SAMPLES, Plan, make_plan
from shards.building.recipe import Recipe
from shards.group import Group, faulty, key_of
from shards.splits import hash_split

THIRDS = hash_split({"train": 0.4, "val": 0.3, "test": 0.3})
READ: list[str] = []


def read(key: str, subject: str, lights: int) -> Portrait:
    READ.append(key)
    return ball(key, subject, lights, size=8)


def group(number: int, subject: str | None = None, lights: int = 2) -> Group:
    key, person = f"g{number:05d}", subject or f"person {number // 2}"
    return Group(key, person, lights, partial(read, key, person, lights))


def finder(*groups: Group) -> Callable[[], Iterator[Group]]:
    return lambda: iter(groups)


def all_to_train(subject: str) -> str:
    return "train"


def planned(find: Callable[[], Iterator[Group]], **options) -> Plan:
    defaults = {"assign": THIRDS, "recipe": Recipe(), "shard_bytes": 40_000}
    return make_plan(find, **(defaults | options))


def test_every_group_gets_one_place_and_a_subject_one_split():
    find = finder(*map(group, range(60)))
    with planned(find) as plan:
        placed = list(plan.placed(find))
        shards = plan.shards()
        counts = plan.counts()
    assert [found.key for _, found in placed] == [f"g{number:05d}" for number in range(60)]
    splits: dict[str, set[str]] = {}
    for place, found in placed:
        splits.setdefault(found.subject, set()).add(place.split)
    assert all(len(held) == 1 for held in splits.values()) and len(counts) == 3
    assert sum(shard.groups for shard in shards) == 60
    assert sum(shard.images for shard in shards) == 120
    assert {s: (g, i) for s, (g, _, i) in counts.items()} == {
        split: (
            sum(shard.groups for shard in shards if shard.split == split),
            sum(shard.images for shard in shards if shard.split == split),
        )
        for split in counts
    }


def test_shards_are_numbered_through_and_come_close_to_their_size():
    find = finder(*(group(number, lights=1 + number % 3) for number in range(90)))
    with planned(find, assign=all_to_train, shard_bytes=60_000) as plan:
        shards = plan.shards()
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert len(shards) > 3
    assert all(0.7 * 60_000 < shard.bytes <= 60_000 for shard in shards[:-1])


def test_a_group_larger_than_a_shard_has_one_of_its_own():
    with planned(finder(*map(group, range(3))), assign=all_to_train, shard_bytes=1) as plan:
        assert [shard.groups for shard in plan.shards()] == [1, 1, 1]


def test_only_some_groups_are_read():
    READ.clear()
    with planned(finder(*map(group, range(200)))) as plan:
        assert plan.estimate.samples == SAMPLES
    assert len(READ) == SAMPLES and max(READ) > "g00050"


def test_the_same_groups_give_the_same_plan_and_others_another():
    fingerprints = []
    for count in (30, 30, 31):
        with planned(finder(*map(group, range(count)))) as plan:
            fingerprints.append(plan.fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_key_that_comes_twice_is_left_out_and_named():
    find = finder(group(1), group(2), group(1), group(3))
    with planned(find) as plan:
        (fault,) = plan.faults()
        assert [found.key for _, found in plan.placed(find)] == ["g00001", "g00002", "g00003"]
    assert fault.ordinal == 2 and "'g00001'" in fault.fault and "occurs twice" in fault.fault


def test_a_subject_under_two_spellings_is_left_out_or_taken_for_one_person():
    find = finder(group(0, "Anna Bell"), group(1, "anna_bell"), group(2, "ANNA-BELL "))
    with planned(find) as plan:
        faults = list(plan.faults())
        assert [place.subject for place, _ in plan.placed(find)] == ["Anna Bell"]
    assert [fault.key for fault in faults] == ["g00001", "g00002"]
    assert "'anna_bell' is spelt 'Anna Bell' in group 'g00000'" in faults[0].fault
    assert "--fold-subjects" in faults[0].fault
    with planned(find, fold_subjects=True) as plan:
        assert {place.subject for place, _ in plan.placed(find)} == {"Anna Bell"}
        assert list(plan.faults()) == []


def test_a_source_that_finds_other_groups_the_second_time_is_refused():
    with planned(finder(*map(group, range(9)))) as plan:
        for second in (map(group, range(5)), map(group, range(1, 9))):
            with pytest.raises(ValueError, match="source changed while it was read"):
                list(plan.placed(finder(*second)))


def test_a_source_without_groups_is_refused():
    with pytest.raises(ValueError, match="gave no portraits"):
        planned(finder())


def test_groups_that_cannot_be_read_do_not_hinder_the_plan():
    find = finder(*(faulty(f"f{n}", f"p{n}", "broken") for n in range(30)), group(1))
    with planned(find) as plan:
        assert plan.num_groups == 31


def test_memory_does_not_grow_with_the_number_of_groups():
    def find(count: int) -> Iterator[Group]:
        return (faulty(f"k{number}", f"s{number}", "unread") for number in range(count))

    peaks = []
    for count in (1_000, 20_000):
        tracemalloc.start()
        with planned(partial(find, count)):
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Python's own share: SQLite's page cache has a bound of its own.
    assert peaks[1] - peaks[0] < 19_000 * 60


@pytest.mark.parametrize(
    ("parts", "key"),
    [(("anna", 3), "anna_3"), (("a.b/c d",), "a-b-c-d"), (("ä", "x"), "-_x")],
)
def test_a_key_keeps_letters_digits_underscore_and_hyphen(parts, key):
    assert key_of(*parts) == key
