"""Bytes of shards from files, from the node's cache and from S3 are the same, or a fault."""

import os
import pickle
import shutil
import time
from itertools import pairwise
from pathlib import Path

import fault_proxy as faults
import numpy as np
import pytest
from balls import ball
from hypothesis import given
from hypothesis import strategies as st
from open_shards import open_shards

from relightx.data.cache import ShardCache
from relightx.data.fault import ReadFault
from relightx.data.read import ShardReader
from relightx.data.sources import (
    GAP_BYTES,
    CachedShards,
    LocalShards,
    RangedShards,
    Source,
    Wanted,
    runs,
)
from relightx.index import Index, read_index
from relightx.storage import Folder
from shards.write import write_split

BUDGET = 1 << 30


def upload(directory: Path, folder: Folder) -> Folder:
    for path in sorted(directory.iterdir()):
        folder.write(path.name, path.read_bytes())
    return folder


def wanted(index: Index, number: int = 0, spans=((0, 512), (1000, 24))) -> Wanted:
    return Wanted(index.folder, index.shards[number], list(spans))


def expected(index: Index, directory: Path, number: int = 0, spans=((0, 512), (1000, 24))):
    data = (directory / index.shards[number].name).read_bytes()
    return [data[offset : offset + size] for offset, size in spans]


@pytest.fixture
def split(tiny_shards) -> Path:
    """The training split on this machine."""
    return tiny_shards / "train"


@pytest.fixture
def local(split, tmp_path) -> Index:
    """A copy of it, to damage."""
    shutil.copytree(split, tmp_path / "train")
    return read_index(tmp_path / "train")


@pytest.fixture
def far(split, s3) -> Index:
    """The same in S3."""
    return read_index(upload(split, s3.new_folder()))


@pytest.fixture
def broken(split, s3, fault_proxy) -> Index:
    """The same behind a proxy that is told what to break, from which was read before."""
    folder = upload(split, s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=4.0))
    assert folder.read("index.json", 0, 1) == b"{"
    return read_index(folder)


def test_all_sources_give_the_same_portraits(split, far, tmp_path):
    here = read_index(split)
    requests = [(number, [number % 4, 2]) for number in (3, 0, 11, 7, 7)]
    reference = ShardReader([here]).read_many(requests)
    for source in (CachedShards(ShardCache(tmp_path, BUDGET)), RangedShards(), RangedShards(1)):
        found = ShardReader([far], [source]).read_many(requests)
        for one, other in zip(found, reference, strict=True):
            assert (one.key, one.light_name) == (other.key, other.light_name)
            for name in ("image", "albedo", "normal", "mask", "sh"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_one_reader_takes_each_split_from_its_own_source(tiny_shards, far, tmp_path):
    here = read_index(tiny_shards / "val")
    reader = ShardReader([far, here], [RangedShards(), LocalShards()])
    requests = [(12, [0]), (1, [3]), (14, [1]), (0, [2])]
    assert [p.key for p in reader.read_many(requests)] == ["ball12", "ball01", "ball14", "ball00"]


def test_what_is_in_s3_is_read_by_ranges_when_nothing_is_said(far):
    reader = ShardReader([far])
    assert isinstance(reader.sources[0], RangedShards)
    assert reader.read(5, [1]).key == "ball05"


@pytest.mark.parametrize("kind", ["local", "cached", "ranged"])
def test_a_source_travels_and_is_used_after_a_fork(kind, local, far, split, tmp_path):
    index = local if kind == "local" else far
    source: Source = {
        "local": LocalShards(),
        "cached": CachedShards(ShardCache(tmp_path / "cache", BUDGET)),
        "ranged": RangedShards(),
    }[kind]
    right = expected(index, split)
    assert source.read(wanted(index)) == right
    assert pickle.loads(pickle.dumps(source)).read(wanted(index)) == right
    child = os.fork()
    if child == 0:
        two = wanted(index, 1, ((0, 10), (90_000, 10)))  # two requests, so threads of its own
        well = source.read(wanted(index)) == right
        well = well and source.read(two) == expected(index, split, 1, two.spans)
        os._exit(not well)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert source.read(wanted(index)) == right


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Index:
    """Two hundred shards of a portrait each."""
    directory = tmp_path_factory.mktemp("many") / "train"
    balls = (ball(f"b{n:03d}", f"p{n}", lights=2, size=8, seed=n) for n in range(200))
    write_split(balls, directory, "train", shard_bytes=1)
    return read_index(directory)


def test_open_files_stay_few_with_many_shards(many):
    directory = Path(many.folder.url)
    assert len(many.shards) == 200
    source = LocalShards(most_open=7)
    reader = ShardReader([many], [source])
    most = 0
    for number in [*range(200), *range(0, 200, 3), 199, 0]:
        assert reader.read(number, [1]).key == f"b{number:03d}"
        most = max(most, len(open_shards(directory)))
    assert most == 7
    source.close()
    assert open_shards(directory) == []
    assert reader.read(5, [0]).key == "b005"
    del source, reader
    assert open_shards(directory) == []


def test_a_child_does_not_keep_what_its_parent_opened(many):
    directory = Path(many.folder.url)
    source = LocalShards(most_open=5)
    for number in range(5):
        source.read(Wanted(many.folder, many.shards[number], [(0, 512)]))
    child = os.fork()
    if child == 0:
        source.read(Wanted(many.folder, many.shards[9], [(0, 512)]))
        os._exit(len(open_shards(directory)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert len(open_shards(directory)) == 5


def test_the_least_recently_used_file_is_closed(many):
    source = LocalShards(most_open=2)
    for number in (0, 1, 0, 2):
        source.read(Wanted(many.folder, many.shards[number], [(0, 512)]))
    held = [many.shards[number].name for number in (0, 2)]
    assert open_shards(Path(many.folder.url)) == held


def test_a_shard_is_hashed_before_its_first_use_where_that_is_asked_for(local, split):
    path = Path(local.folder.url) / local.shards[0].name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of no member: nothing but the hash can tell
    path.write_bytes(data)
    assert LocalShards().read(wanted(local)) == expected(local, split)
    with pytest.raises(ReadFault, match=rf"^{path}: the shard has sha256 [0-9a-f]{{64}}, its"):
        LocalShards(verify=True).read(wanted(local))
    assert LocalShards(verify=True).read(wanted(local, 1)) == expected(local, split, 1)


def test_a_shard_is_hashed_once_in_a_process(many, monkeypatch):
    hashed = []
    original = os.pread
    monkeypatch.setattr(
        os, "pread", lambda f, size, at: (hashed.append(size), original(f, size, at))[1]
    )
    source = LocalShards(most_open=1, verify=True)
    for number in (0, 1, 0, 1, 0):
        source.read(Wanted(many.folder, many.shards[number], [(0, 512)]))
    assert len([size for size in hashed if size > 512]) == 2 * 2  # its bytes, and its end


@pytest.mark.parametrize("source", [LocalShards, RangedShards])
def test_no_files_and_no_threads_are_refused(source):
    with pytest.raises(ValueError, match="1 or more needed"):
        source(0)


# -- the node's cache ---------------------------------------------------------------------------


def test_a_cached_shard_is_downloaded_once(far, split, tmp_path):
    cache = ShardCache(tmp_path / "cache", BUDGET)
    source = CachedShards(cache, most_open=1)
    for number in (0, 1) * 2:
        assert source.read(wanted(far, number)) == expected(far, split, number)
    assert cache.downloads == 2
    assert len(open_shards(tmp_path / "cache")) == 1


def test_a_shard_that_was_evicted_comes_back(far, split, tmp_path):
    largest = max(shard.bytes for shard in far.shards)
    cache = ShardCache(tmp_path / "cache", largest + 1, patience_s=0.2)
    source = CachedShards(cache, most_open=1)
    for number in (0, 1, 2, 0, 1, 2):
        assert source.read(wanted(far, number)) == expected(far, split, number)
    assert cache.downloads == 6 and cache.evictions == 5


def test_a_cached_copy_cut_anywhere_is_fetched_anew(local, tmp_path):
    shard = local.shards[0]
    cache = ShardCache(tmp_path / "cache", BUDGET)
    reader = ShardReader([local], [CachedShards(cache)])
    right = reader.read(0, [1]).image
    path = cache.path_of(shard.sha256)
    cuts = range(0, shard.bytes, 512)
    for size in cuts:
        os.truncate(path, size)
        np.testing.assert_array_equal(reader.read(0, [1]).image, right)
        assert path.stat().st_size == shard.bytes
    assert cache.downloads == 1 + len(cuts)


def test_a_cached_copy_cut_while_it_is_open_is_a_fault(local, tmp_path):
    cache = ShardCache(tmp_path / "cache", BUDGET)
    source = CachedShards(cache)
    source.read(wanted(local))
    os.truncate(cache.path_of(local.shards[0].sha256), 1005)
    with pytest.raises(ReadFault, match="only 5 bytes are there") as caught:
        source.read(wanted(local))
    assert (caught.value.start, caught.value.size) == (1000, 24)


def test_another_shard_of_equal_size_never_enters_the_cache(far, s3, tmp_path):
    shard = far.shards[0]
    data = bytearray(far.folder.read(shard.name))
    data[600] ^= 1
    far.folder.write(shard.name, bytes(data))
    with pytest.raises(ReadFault) as caught:
        CachedShards(ShardCache(tmp_path / "cache", BUDGET)).read(wanted(far))
    assert str(caught.value).startswith(f"{far.folder.url}/{shard.name}: ")
    assert shard.sha256 in str(caught.value)
    assert not list((tmp_path / "cache").glob("*/*.tar"))


def test_readers_of_a_tight_cache_do_not_wait_for_each_other(far, tmp_path):
    """Each holds shards while it reads, and none while it has nothing to read or waits."""
    room = sum(sorted(shard.bytes for shard in far.shards)[-2:])
    cache = ShardCache(tmp_path / "cache", room)
    readers = [ShardReader([far], [CachedShards(cache)]) for _ in range(2)]
    started = time.monotonic()
    for turn in range(3):
        for reader in readers:
            found = reader.read_many([(number, [turn]) for number in (0, 5, 11, 3, 8)])
            keys = " ".join(portrait.key for portrait in found)
            assert keys == "ball00 ball05 ball11 ball03 ball08"
            assert open_shards(tmp_path / "cache") == []
    assert time.monotonic() - started < 20  # a reader that cannot get room waits for a minute
    assert cache.evictions > 0


def test_a_cache_without_room_is_a_fault_that_names_the_shard(far, tmp_path):
    source = CachedShards(ShardCache(tmp_path / "cache", 1000, patience_s=0.1))
    with pytest.raises(ReadFault, match=rf"^{far.folder.url}/shard-000000.tar: .*cache_gb"):
        source.read(wanted(far))


# -- ranges -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 300)), min_size=1, max_size=12),
    st.integers(0, 200),
)
def test_runs_cover_their_spans_and_no_wider_gap(spans, gap):
    found = runs(spans, gap)
    assert sorted(place for run in found for place in run.places) == list(range(len(spans)))
    for run in found:
        inside = sorted(spans[place] for place in run.places)
        end = run.start
        for offset, size in inside:
            assert offset == end or offset - end < gap or offset < end
            end = max(end, offset + size)
        assert (run.start, run.end) == (inside[0][0], end)
    for one, next_one in pairwise(found):
        assert next_one.start - one.end >= gap


def test_a_portrait_is_few_requests(broken, fault_proxy):
    reader = ShardReader([broken])
    before = len(fault_proxy.requests)
    reader.read(0, [0, 3])  # its members lie within the gap
    assert len(fault_proxy.requests) == before + 1
    far_apart = [(0, 512), (512 + GAP_BYTES, 512)]
    RangedShards().read(wanted(broken, 0, far_apart))
    assert len(fault_proxy.requests) == before + 3


def test_many_portraits_are_asked_for_side_by_side(broken, fault_proxy):
    reader = ShardReader([broken], [RangedShards(threads=12)])
    reader.read(0, [0])
    fault_proxy.next(faults.slow, times=12)  # a quarter of a second each
    started = time.monotonic()
    found = reader.read_many([(number, [1]) for number in range(12)])
    assert [portrait.key for portrait in found] == [f"ball{number:02d}" for number in range(12)]
    assert time.monotonic() - started < 12 * 0.24
    assert fault_proxy.met["slow"] == 12


PASSING = [faults.reset, faults.unavailable, faults.cut, faults.reset_in_body, faults.stall]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.__name__)
def test_a_fault_of_the_network_changes_the_counter_of_retries_alone(
    broken, split, fault_proxy, fault
):
    source, reader = RangedShards(), ShardReader([broken])
    before = broken.folder.retries
    fault_proxy.next(fault, times=2, method="GET")
    assert source.read(wanted(broken)) == expected(broken, split)
    assert fault_proxy.met[fault.__name__] == broken.folder.retries - before == 2
    fault_proxy.next(fault, times=2, method="GET")
    for number, portrait in enumerate(reader.read_many([(n, [0, 3]) for n in range(6)])):
        right = ShardReader([read_index(split)]).read(number, [0, 3])
        np.testing.assert_array_equal(portrait.image, right.image)
    assert broken.folder.retries - before == 4
    assert reader.reread == 0


def test_wrong_bytes_on_the_way_are_read_once_more(broken, split, fault_proxy):
    """No digest says what a range should be: the tar's header and the PNG's checksum do."""
    lights = [0, 1, 2, 3]  # so that the byte in the middle is one of them
    right = ShardReader([read_index(split)]).read(0, lights)
    reader = ShardReader([broken])
    fault_proxy.next(faults.flip_answer, method="GET")
    np.testing.assert_array_equal(reader.read(0, lights).image, right.image)
    assert fault_proxy.met["flip_answer"] == reader.reread == 1


def test_bytes_that_stay_wrong_are_a_fault(broken, fault_proxy):
    reader = ShardReader([broken])
    fault_proxy.next(faults.flip_answer, times=2, method="GET")
    with pytest.raises(ReadFault, match=rf"^{broken.folder.url}/shard-000000.tar: portrait 'ball0"):
        reader.read(0, [0, 1, 2, 3])
    assert reader.read(0, [1]).key == "ball00"


@pytest.mark.parametrize("fault", [faults.unavailable, faults.reset, faults.stall])
def test_a_server_that_stays_ill_is_given_up_at_the_deadline(broken, fault_proxy, fault):
    fault_proxy.next(fault, times=10_000)
    started = time.monotonic()
    with pytest.raises(ReadFault) as caught:
        ShardReader([broken]).read(0, [1])
    assert time.monotonic() - started < 4.5  # deadline_s is 4
    fault, said = caught.value, str(caught.value)
    url = f"{broken.folder.url}/shard-000000.tar"
    assert said.startswith(f"{url}: portrait 'ball00': bytes {fault.start} to ")
    assert said.count(url) == 1 and "failed" in said and "at last with: " in said
    assert "\n" not in said and fault.url == url and fault.size > 0


def test_a_shard_that_is_not_in_s3_is_a_fault_at_once(far):
    far.folder.delete(far.shards[0].name)
    started = time.monotonic()
    with pytest.raises(ReadFault, match=r"shard-000000.tar: portrait 'ball00': .*no such file"):
        ShardReader([far]).read(0, [1])
    assert time.monotonic() - started < 2


def test_a_shard_in_s3_that_was_cut_is_a_fault(far):
    shard = far.shards[0]
    data = far.folder.read(shard.name)
    offset, size = shard.groups[-1].members["meta.json"]
    far.folder.write(shard.name, data[: offset + size - 1])
    with pytest.raises(ReadFault, match="were asked, but it has"):
        ShardReader([far]).read(len(shard.groups) - 1, [0])


def test_another_shard_in_s3_of_equal_size_is_a_fault(far):
    shard = far.shards[0]
    data = far.folder.read(shard.name)
    far.folder.write(shard.name, data.replace(b"ball0", b"best0"))
    with pytest.raises(ReadFault, match="should be here, found is best00"):
        ShardReader([far]).read(0, [1])
    assert far.folder.size(shard.name) == len(data)
