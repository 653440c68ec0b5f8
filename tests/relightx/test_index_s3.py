"""An index in S3: its table comes once to a machine, and only as the index says it is."""

import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor

import fault_proxy as faults
import pytest
from made_shards import made_shard, three_portraits

from relightx.index import NAME, TABLE, read_index, write_index
from relightx.storage import Folder


@pytest.fixture
def local(tmp_path):
    split = tmp_path / "split"
    split.mkdir()
    write_index(split, "train", three_portraits())
    return split


@pytest.fixture
def folder(s3, local) -> Folder:
    """A split in S3."""
    folder = s3.new_folder()
    for name in (TABLE, NAME):
        folder.write(name, (local / name).read_bytes())
    return folder


def table_downloads(proxy) -> int:
    return sum(method == "GET" and TABLE in path for method, path in proxy.requests)


def test_an_index_in_s3_is_that_of_a_directory(s3, folder, local, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for place in (folder, folder.url, f"{folder.url}/index.json"):
        index = read_index(place, s3.options())
        assert index.shards == read_index(local).shards
        assert index.path == f"{folder.url}/index.json"
        assert index.folder == folder
        index.check_table()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_cached_table_is_downloaded_once(s3, folder, fault_proxy, tmp_path):
    options = s3.options(endpoint_url=fault_proxy.endpoint)
    first = read_index(folder.url, options, cache=tmp_path / "cache")
    again = read_index(folder.url, options, cache=tmp_path / "cache")
    sent = pickle.loads(pickle.dumps(first))
    assert table_downloads(fault_proxy) == 1
    assert first.shards == again.shards == sent.shards == tuple(three_portraits())
    (cached,) = (tmp_path / "cache").rglob("*.safetensors")
    assert cached.stem == first.table_file.sha256 and cached.parent.name == cached.stem[:2]


def test_processes_that_come_together_download_once(s3, folder, fault_proxy, tmp_path):
    options = s3.options(endpoint_url=fault_proxy.endpoint)
    fault_proxy.next(faults.slow, method="GET", path=TABLE)

    def opened(_: int) -> int:
        return read_index(folder.url, options, cache=tmp_path / "cache").num_groups

    with ThreadPoolExecutor(6) as threads:  # a lock on a file parts threads as it parts processes
        assert list(threads.map(opened, range(6))) == [3] * 6
    assert table_downloads(fault_proxy) == 1


def test_a_cached_table_that_was_cut_is_downloaded_again(s3, folder, tmp_path):
    read_index(folder, cache=tmp_path / "cache")
    (cached,) = (tmp_path / "cache").rglob("*.safetensors")
    cached.write_bytes(cached.read_bytes()[:-9])
    index = read_index(folder, cache=tmp_path / "cache")
    assert index.shards == tuple(three_portraits())


@pytest.mark.parametrize("cached", [False, True])
def test_another_table_than_the_indexs_is_refused_and_not_kept(folder, local, tmp_path, cached):
    cache = tmp_path / "cache" if cached else None
    table = bytearray((local / TABLE).read_bytes())
    table[-1] ^= 1
    folder.write(TABLE, bytes(table))
    with pytest.raises(ValueError, match=rf"{folder.url}/{TABLE}: has sha256"):
        read_index(folder, cache=cache)
    folder.write(TABLE, bytes(table)[:-1])
    with pytest.raises(ValueError, match=rf"{folder.url}/{TABLE}: has {len(table) - 1} bytes"):
        read_index(folder, cache=cache)
    folder.delete(TABLE)
    with pytest.raises(ValueError, match=rf"{folder.url}/{TABLE}: is missing"):
        read_index(folder, cache=cache)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["reset", "unavailable", "cut", "flip_answer"])
def test_a_bad_network_changes_nothing(s3, folder, fault_proxy, name):
    fault_proxy.next(getattr(faults, name), method="GET", path=TABLE)
    options = s3.options(endpoint_url=fault_proxy.endpoint)
    assert read_index(folder.url, options).shards == tuple(three_portraits())
    assert fault_proxy.met[name] == 1


def test_a_prefix_without_an_index_is_refused(folder):
    folder.delete(NAME)
    with pytest.raises(ValueError, match=rf"{folder.url}: no index.json found"):
        read_index(folder)


def test_an_index_that_was_replaced_is_not_taken_for_the_old_one(folder, local):
    sent = pickle.dumps(read_index(folder))
    write_index(local, "train", [made_shard(0, [("z", "zoe", 1)])])
    for name in (TABLE, NAME):
        folder.write(name, (local / name).read_bytes())
    with pytest.raises(ValueError, match=r"index.json: was replaced while it was in use"):
        pickle.loads(sent)
