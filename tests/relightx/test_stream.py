"""A stream gives whole portraits or stops, equally many on every rank, and repeats itself."""

import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import fault_proxy as faults
import numpy as np
import pytest
from balls import ball
from streamed_split import (
    LIGHTS,
    ball_number,
    loader,
    pick_all,
    pick_first,
    streamed,
    visits,
    write,
)

from relightx.data import training_batches
from relightx.data.augment import AugmentConfig
from relightx.data.cache import ShardCache
from relightx.index import GroupEntry, ShardEntry, read_index, write_index
from relightx.settings.data import DataConfig
from relightx.sh import shade
from relightx.storage import Folder
from shards.write import Packed

PORTRAITS_OF_SHARDS = (4, 1, 3)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def packed() -> list[list[Packed]]:
    """Portraits of uneven shards."""
    numbers = iter(range(sum(PORTRAITS_OF_SHARDS)))
    return [[ball_number(next(numbers)) for _ in range(count)] for count in PORTRAITS_OF_SHARDS]


@pytest.fixture(scope="module")
def split(packed, tmp_path_factory) -> Path:
    """Their split, for tests that only read."""
    return write(tmp_path_factory.mktemp("streamed") / "train", packed)


# -- what comes ---------------------------------------------------------------------------------


def test_portraits_come_as_they_were_written_under_the_lights_drawn(split):
    for draw, portrait, told in streamed(split):
        written = ball(f"ball{draw.number}", "", LIGHTS, size=16, seed=draw.number)
        assert portrait.key == written.key and portrait.subject == f"person{draw.number}"
        np.testing.assert_array_equal(portrait.image, written.image[draw.lights])
        np.testing.assert_allclose(portrait.sh, written.sh[draw.lights], atol=1e-6)
        np.testing.assert_allclose(portrait.normal, written.normal, atol=1e-4)
        assert told == ()


@pytest.mark.parametrize("num_workers", [0, 2, 3])
def test_every_rank_has_equally_many_full_batches(split, num_workers):
    """Five batches from eight portraits in uneven shards, of which every reader draws some."""
    for rank in range(3):
        stream = streamed(split, batch_size=3, num_batches=5, rank=rank)
        batches = loader(stream, num_workers)
        assert len(batches) == 5
        assert [len(batch) for batch in batches] == [3] * 5


def test_more_readers_than_batches_are_idle(split):
    assert len(list(loader(streamed(split, batch_size=2, num_batches=1), 3))) == 1


def test_no_batches_asked_are_none(split):
    assert list(streamed(split, visits=0)) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_is_the_same_each_time(split, num_workers):
    stream = streamed(split, batch_size=2, num_batches=8)
    first, second, other = (
        visits(one for batch in loader(each, num_workers) for one in batch)
        for each in (stream, stream, streamed(split, batch_size=2, num_batches=8))
    )
    assert first == second == other
    assert len(first) == 16


@pytest.mark.parametrize("other", [{"rank": 1}, {"seed": 1}, {"start_step": 1}])
def test_another_rank_seed_or_start_is_another_stream(split, other):
    first, second = visits(streamed(split)), visits(streamed(split, **other))
    assert [visit[0] for visit in first] != [visit[0] for visit in second]
    assert not {visit[2] for visit in first} & {visit[2] for visit in second}


def test_two_readers_of_a_rank_differ(split):
    batches = list(loader(streamed(split, batch_size=5, num_batches=8), 2))
    first, second = (visits(one for batch in batches[i::2] for one in batch) for i in (0, 1))
    assert [visit[0] for visit in first] != [visit[0] for visit in second]
    assert not {visit[2] for visit in first} & {visit[2] for visit in second}


def test_a_visit_of_the_same_portrait_draws_anew(split):
    seen = visits(streamed(split, visits=80))
    assert len({visit[2] for visit in seen}) == 80
    assert len({tuple(visit[1]) for visit in seen if visit[0] == 0}) > 3


def test_a_stream_travels_to_another_process(split):
    stream = streamed(split)
    again = pickle.loads(pickle.dumps(stream))
    assert visits(again) == visits(stream)


def test_each_portrait_has_the_same_chance_though_shards_are_uneven(split):
    count = Counter(visit[0] for visit in visits(streamed(split, visits=800)))
    # 800 visits are about 300 draws of a shard, a third of which each portrait takes part in.
    assert len(count) == 8 and all(70 < each < 130 for each in count.values())


def test_shards_are_drawn_with_replacement(split):
    order = [visit[0] for visit in visits(streamed(split, visits=400, buffer=1))]
    begun = [{0: 0, 4: 1, 5: 2}[number] for number in order if number in (0, 4, 5)]
    assert any(one == next_one for one, next_one in pairwise(begun))
    assert Counter(begun).keys() == {0, 1, 2}


def test_splits_have_the_shares_that_weights_say(packed, tmp_path):
    splits = [write(tmp_path / "a", packed[:1]), write(tmp_path / "b", packed[1:])]
    indexes = [read_index(path) for path in splits]
    for weights, share in ((None, 0.5), ([1.0, 3.0], 0.25), ([9.0, 1.0], 0.9)):
        seen = visits(streamed(indexes, visits=500, weights=weights))
        assert np.mean([number < 4 for number, _, _ in seen]) == pytest.approx(share, abs=0.08)


def test_the_buffer_mixes_portraits_and_one_of_one_does_not(split):
    straight = [visit[0] for visit in visits(streamed(split, buffer=1))]
    steps = Counter(np.diff(straight).tolist())
    assert steps[1] > len(straight) / 2  # in the order of their shard
    mixed = Counter(np.diff([visit[0] for visit in visits(streamed(split, buffer=30))]).tolist())
    assert mixed[1] < len(straight) / 3


def test_a_buffer_of_nothing_is_refused(split):
    with pytest.raises(ValueError, match="a buffer of 0 portraits asked; 1 or more"):
        streamed(split, buffer=0)


# -- what is not whole --------------------------------------------------------------------------


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    """A split to damage."""
    return write(tmp_path / "train", packed)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_cut_short_is_refused_by_name(copied, num_workers):
    shard = copied / "shard-0.tar"
    size = shard.stat().st_size
    with open(shard, "rb+") as file:
        file.truncate(size - 512)
    with pytest.raises(
        ValueError, match=rf"{shard}: .*has {size - 512} bytes, its index says {size}"
    ):
        list(loader(streamed(copied), num_workers))


def test_one_wrong_byte_is_refused_before_the_shard_gives_a_portrait(copied):
    shard = copied / "shard-2.tar"
    data = bytearray(shard.read_bytes())
    data[-2000] ^= 1
    shard.write_bytes(data)
    seen = []
    with pytest.raises(ValueError, match=rf"{shard}: .*has sha256 .* its index says"):
        seen.extend(one.draw.number for one in streamed(copied, buffer=1))
    assert not set(seen) & {5, 6, 7}


def test_a_shard_that_is_gone_is_refused_by_name(copied):
    (copied / "shard-1.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-1.tar: shard cannot be opened: No such file"):
        list(streamed(copied))


def without(packed: Packed, *extensions: str, lights: int = LIGHTS) -> Packed:
    members = {name: data for name, data in packed.members.items() if name not in extensions}
    return replace_packed(packed, members, lights)


def replace_packed(packed: Packed, members: dict[str, bytes], lights: int = LIGHTS) -> Packed:
    return Packed(packed.key, packed.subject, lights, members)


def rehashed(split: Path, data: bytes, groups: tuple[GroupEntry, ...]) -> None:
    """The split's only shard holds other bytes, and its index their size and hash."""
    (split / "shard-0.tar").write_bytes(data)
    entry = ShardEntry("shard-0.tar", len(data), hashlib.sha256(data).hexdigest(), groups)
    write_index(split, "train", [entry])


def test_members_that_the_index_knows_and_the_shard_has_not_are_named(tmp_path):
    """Also one of a light that is not drawn: a portrait is whole or refused."""
    whole, other = ball_number(0), ball_number(1)
    groups = read_index(write(tmp_path / "whole", [[whole, other]])).shards[0].groups
    for name in whole.members:
        split = tmp_path / name
        write(split, [[without(whole, name), other]])
        rehashed(split, (split / "shard-0.tar").read_bytes(), tuple(groups))
        says = rf"{split}/shard-0.tar: portrait 'ball0': member {name} is missing"
        with pytest.raises(ValueError, match=says):
            list(streamed(split, draw=pick_first))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (("light003.png",), "meta.json names 4 lights, light003.png is missing"),
        (("light000.png",), "meta.json names 4 lights, light000.png is missing"),
        (("meta.json",), "member meta.json is missing"),
        (("albedo.png",), "albedo label is absent, its provenance says 'real'"),
        (("normal.png",), "normal label is absent, its provenance says 'real'"),
    ],
)
def test_members_that_meta_names_and_an_index_of_the_damaged_shard_has_not(tmp_path, members, says):
    split = write(tmp_path / "train", [[ball_number(0), without(ball_number(1), *members)]])
    with pytest.raises(ValueError, match=rf"{split}/shard-0.tar: portrait 'ball1': {says}"):
        list(streamed(split, draw=pick_first))


def test_fewer_lights_in_the_index_than_in_meta_are_refused(tmp_path):
    fewer = without(ball_number(1), "light003.png", lights=3)
    split = write(tmp_path / "train", [[ball_number(0), fewer]])
    with pytest.raises(ValueError, match=r"'ball1': meta.json names 4 lights, its index 3"):
        list(streamed(split, draw=pick_first))


def test_a_shard_cut_anywhere_never_gives_a_short_portrait(tmp_path, packed):
    """Its size and hash in the index are those of the cut shard: contents alone can tell."""
    split = write(tmp_path / "train", [packed[2]])
    groups = tuple(read_index(split).shards[0].groups)
    data = (split / "shard-0.tar").read_bytes()
    last, size = max(member for group in groups for member in group.members.values())
    end = last + -(-size // 512) * 512
    whole = {"ball5", "ball6", "ball7"}
    for cut in [*range(512, end, 512), last + size - 1]:
        rehashed(split, data[:cut], groups)
        got = []
        with pytest.raises(ValueError, match=r"shard-0.tar: ") as refusal:
            for one in streamed(split, draw=pick_all, buffer=1):
                assert one.portrait.num_lights == LIGHTS and one.portrait.albedo is not None
                got.append(one.portrait.key)
        complete = sum(max(group.members.values())[0] + 512 <= cut for group in groups)
        assert len(got) <= complete and set(got) < whole, refusal
    rehashed(split, data[:end], groups)  # without tar's end mark, which says nothing of portraits
    assert {one.portrait.key for one in streamed(split, draw=pick_all)} == whole


def test_portraits_in_another_order_or_too_many_are_refused(tmp_path):
    one, two = ball_number(0), ball_number(1)
    split = write(tmp_path / "train", [[one, two]])
    groups = tuple(read_index(split).shards[0].groups)
    data = (write(tmp_path / "turned", [[two, one]]) / "shard-0.tar").read_bytes()
    rehashed(split, data, groups)
    with pytest.raises(ValueError, match=r"portrait 'ball0': it should be here, found is 'ball1'"):
        list(streamed(split))
    data = (write(tmp_path / "more", [[one, two, ball_number(2)]]) / "shard-0.tar").read_bytes()
    rehashed(split, data, groups)
    with pytest.raises(ValueError, match=r"portrait 'ball2': its index ends with portrait 2"):
        list(streamed(split))


def test_a_picture_is_decoded_only_when_its_light_is_drawn(tmp_path):
    members = dict(ball_number(0).members)
    members["light003.png"] = bytes(len(members["light003.png"]))
    split = write(tmp_path / "train", [[replace_packed(ball_number(0), members)]])
    assert len(list(streamed(split, draw=pick_first))) == 40
    with pytest.raises(ValueError, match=r"shard-0.tar: portrait 'ball0': light003.png "):
        list(streamed(split, draw=pick_all))


# -- faults that are skipped --------------------------------------------------------------------


def test_a_damaged_shard_is_skipped_when_asked_and_told(copied):
    (copied / "shard-1.tar").write_bytes(b"")
    seen = list(streamed(copied, on_fault="skip"))
    assert len(seen) == 40
    assert {one.draw.number for one in seen} == {0, 1, 2, 3, 5, 6, 7}
    told = [fault for one in seen for fault in one.faults]
    assert told and all(re.search(rf"{copied}/shard-1.tar: .*has 0 bytes", fault) for fault in told)


def test_a_damaged_picture_costs_its_portrait_alone_when_skipped(tmp_path):
    members = dict(ball_number(1).members)
    members["light000.png"] = members["light000.png"][:-40] + bytes(40)
    damaged = replace_packed(ball_number(1), members)
    split = write(tmp_path / "train", [[ball_number(0), damaged, ball_number(2)]])
    seen = list(streamed(split, draw=pick_first, on_fault="skip"))
    assert {one.draw.number for one in seen} == {0, 2}
    told = [fault for one in seen for fault in one.faults]
    assert len(told) > 5 and all("portrait 'ball1': light000.png" in fault for fault in told)


def test_skipping_stops_when_nothing_can_be_read(copied):
    for shard in copied.glob("*.tar"):
        shard.write_bytes(b"")
    with pytest.raises(ValueError, match="9 faults without a portrait between them; the first: "):
        list(streamed(copied, on_fault="skip"))


# -- from S3 ------------------------------------------------------------------------------------


@pytest.fixture
def upload(s3) -> Callable[[Path], Folder]:
    """upload(split): the split's folder in S3."""

    def upload(split: Path) -> Folder:
        folder = s3.new_folder()
        for file in sorted(split.iterdir()):
            folder.write(file.name, file.read_bytes())
        return folder

    return upload


@pytest.mark.parametrize("num_workers", [0, 2])
def test_from_s3_comes_what_comes_from_a_directory(
    s3, upload, split, fault_proxy, tmp_path, num_workers
):
    options = s3.options(endpoint_url=fault_proxy.endpoint)
    index = read_index(upload(split).url, options)
    cache = ShardCache(tmp_path / "cache", 10**7)
    fault_proxy.next(faults.cut, method="GET", path="shard-0.tar")
    fault_proxy.next(faults.reset_in_body, method="GET", path="shard-2.tar")
    batches = list(loader(streamed([index], cache=cache), num_workers))
    assert fault_proxy.met["cut"] == fault_proxy.met["reset_in_body"] == 1
    expected = list(loader(streamed(split), num_workers))
    for (got,), (wanted,) in zip(batches, expected, strict=True):
        assert got.draw == wanted.draw and got.portrait.key == wanted.portrait.key
        np.testing.assert_array_equal(got.portrait.image, wanted.portrait.image)
    names = [path.stem for path in (tmp_path / "cache").glob("??/*.tar")]
    assert sorted(names) == sorted(shard.sha256 for shard in index.shards)


def test_a_reader_holds_one_shard_of_the_cache_and_none_at_the_end(s3, upload, split, tmp_path):
    index = read_index(upload(split).url, s3.options())
    largest = max(shard.bytes for shard in index.shards)
    cache = ShardCache(tmp_path / "cache", largest, patience_s=0.2)
    stream = streamed([index], cache=cache)
    assert len(list(stream)) == 40
    assert cache.evictions > 5
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("??/*.tar")) <= largest
    for shard in index.shards:  # each needs the room of the one before
        cache.hold(index.folder, shard.name, shard.bytes, shard.sha256).close()


def test_another_shard_in_s3_is_refused_by_url(s3, upload, split, tmp_path):
    folder = upload(split)
    folder.write("shard-0.tar", folder.read("shard-0.tar")[:-512] + bytes(511) + b"!")
    index = read_index(folder.url, s3.options())
    cache = ShardCache(tmp_path / "cache", 10**7)
    with pytest.raises(ValueError, match=rf"{folder.url}/shard-0.tar: .*sha256"):
        list(streamed([index], cache=cache))


def test_a_stream_from_s3_without_a_cache_is_refused(s3, upload, split):
    index = read_index(upload(split).url, s3.options())
    with pytest.raises(ValueError, match=r"index.json: a stream from S3 needs a cache .*cache_dir"):
        streamed([index])


# -- as a loader's option -----------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_stream_obey_the_physics(split, num_workers):
    config = DataConfig(
        train=[str(split)],
        reader="stream",
        image_size=16,
        batch_size=4,
        num_workers=num_workers,
        augment=AugmentConfig(shift=0.0, zoom=0.0, roll_deg=0.0, mix=0.5),
    )
    ranks = [list(training_batches(config, 3, 8, rank, 2)) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [5, 5]
    for batch in ranks[0] + ranks[1]:
        assert batch.image.shape == (2, 2, 3, 16, 16) and batch.truth.has_light.all()
        image = batch.truth.albedo[:, None] * shade(batch.truth.normal[:, None], batch.truth.sh)
        inside = batch.mask[:, None].expand_as(image)
        assert (image - batch.image).abs()[inside].max() < 2e-3
    sums = [[float(batch.image.sum()) for batch in batches] for batches in ranks]
    assert not set(sums[0]) & set(sums[1])
    again = [float(batch.image.sum()) for batch in training_batches(config, 3, 8, 0, 2)]
    assert again == sums[0]
