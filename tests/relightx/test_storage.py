"""Both kinds of folder keep the same promises."""

import json
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from moved_bytes import LARGE, SMALL, digest, file_with

from relightx.storage import Folder, LocalFolder, S3Options, open_folder


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> Folder:
    """An empty folder of each kind."""
    if request.param == "local":
        return open_folder(tmp_path / "data")
    return request.getfixturevalue("s3").new_folder()


# -- what every folder promises -----------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", SMALL], ids=["empty", "one byte", "some"])
def test_what_is_written_is_read(folder, data):
    folder.write("train/a.json", data)
    assert folder.read("train/a.json") == data
    assert folder.size("train/a.json") == len(data)


def test_a_file_is_replaced(folder):
    folder.write("a", SMALL)
    folder.write("a", b"new")
    assert folder.read("a") == b"new"


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "in parts"])
def test_a_file_is_moved_in_and_fetched_again(folder, tmp_path, data):
    file = file_with(tmp_path, data)
    folder.put("train/shard.tar", file, digest(data))
    assert not file.exists()
    assert folder.size("train/shard.tar") == len(data)
    fetched = tmp_path / "new directory" / "shard.tar"
    folder.fetch("train/shard.tar", fetched, digest(data))
    assert fetched.read_bytes() == data
    assert os.listdir(fetched.parent) == ["shard.tar"]
    assert list(folder.names()) == ["train/shard.tar"]


def test_a_range_is_exactly_what_was_asked(folder):
    folder.write("a", SMALL)
    assert folder.read("a", 3, 5) == SMALL[3:8]
    assert folder.read("a", 0, 1) == SMALL[:1]
    assert folder.read("a", 100) == SMALL[100:]
    assert folder.read("a", 7, 0) == b""
    assert folder.read("a", len(SMALL)) == b""
    assert folder.read("a", len(SMALL), 0) == b""


@pytest.mark.parametrize("start, size", [(0, 10241), (10239, 2), (10241, None), (10241, 0)])
def test_a_range_beyond_the_end_is_an_error_and_not_short(folder, start, size):
    folder.write("a", SMALL)
    with pytest.raises(OSError, match=r"/a: bytes .* were asked, but it has 10240") as caught:
        folder.read("a", start, size)
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("start, size", [(-1, None), (0, -1)])
def test_a_negative_range_is_refused(folder, start, size):
    with pytest.raises(ValueError, match="neither may be negative"):
        folder.read("a", start, size)


def test_an_absent_file_is_said_to_be_absent(folder, tmp_path):
    folder.write("train/a", b"a")
    for name in ("b", "train", "train/a/b"):
        assert folder.size(name) is None
        folder.delete(name)
        for read in (
            lambda name=name: folder.read(name),
            lambda name=name: folder.read(name, 2, 0),
            lambda name=name: folder.fetch(name, tmp_path / "b"),
            lambda name=name: folder.local(name).__enter__(),
        ):
            with pytest.raises(FileNotFoundError) as caught:
                read()
            assert f"{folder.url}/{name}" in str(caught.value)
    assert not (tmp_path / "b").exists()
    assert folder.read("train/a") == b"a"


def test_a_deleted_file_is_gone(folder):
    folder.write("a", b"a")
    folder.delete("a")
    folder.delete("a")
    assert folder.size("a") is None


NAMES = ["a", "a-b", "a.txt", "b/c/d", "b/c.x", "b/é", ".hidden", "b/a b", "b/%41+?#&=", "c/\n"]


def test_names_come_in_order_and_none_is_missing(folder):
    # An object may have the name of a directory, a file may not.
    names = [*NAMES, *(["b"] if not isinstance(folder, LocalFolder) else [])]
    for name in names:
        folder.write(name, name.encode())
    assert list(folder.names()) == sorted(names)
    assert all(folder.read(name) == name.encode() for name in names)
    assert list(folder.child("b").names()) == sorted(n[2:] for n in names if n.startswith("b/"))


def test_a_folder_that_is_not_there_has_no_names(folder):
    assert list(folder.child("nothing").names()) == []


def test_a_child_is_the_folder_below(folder):
    child = folder.child("train").child("x")
    child.write("a", b"a")
    assert child.url == f"{folder.url}/train/x"
    assert folder.read("train/x/a") == b"a"


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "a//b", "", ".", "a/", "a\0b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder, name, tmp_path):
    file = file_with(tmp_path, b"a")
    for use in (
        lambda: folder.read(name),
        lambda: folder.write(name, b""),
        lambda: folder.put(name, file, digest(b"a")),
        lambda: folder.fetch(name, tmp_path / "b"),
        lambda: folder.local(name).__enter__(),
        lambda: folder.size(name),
        lambda: folder.delete(name),
        lambda: folder.child(name),
    ):
        with pytest.raises(ValueError, match="is no name in this folder"):
            use()
    assert file.exists()


def test_a_local_file_is_lent(folder):
    folder.write("train/a.tar", SMALL)
    with folder.local("train/a.tar") as file:
        assert file.name == "a.tar"
        assert file.read_bytes() == SMALL
    assert file.exists() == isinstance(folder, LocalFolder)


def test_a_file_with_another_digest_is_not_fetched(folder, tmp_path):
    folder.write("a", SMALL)
    file = tmp_path / "fetched" / "a"
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        folder.fetch("a", file, digest(b"other"))
    assert time.monotonic() - started < 10  # and not until the deadline
    for said in (f"{folder.url}/a", digest(SMALL), digest(b"other")):
        assert said in str(caught.value)
    assert os.listdir(file.parent) == []


def test_what_fails_to_be_fetched_leaves_the_earlier_file(folder, tmp_path):
    folder.write("a", SMALL)
    earlier = file_with(tmp_path, b"earlier")
    with pytest.raises(OSError, match="sha256"):
        folder.fetch("a", earlier, digest(b"other"))
    assert earlier.read_bytes() == b"earlier"


def _use_in_process(folder: Folder, number: int) -> bytes:
    folder.write(f"process{number}", bytes([number]) * 1000)
    return folder.read("shared")


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_processes_share_a_folder(folder, start):
    folder.write("shared", SMALL)  # so that a fork happens with a client in use
    with multiprocessing.get_context(start).Pool(2) as pool:
        got = pool.starmap(_use_in_process, [(folder, 1), (folder, 2)])
    assert got == [SMALL, SMALL]
    assert folder.read("process2") == bytes([2]) * 1000
    assert list(folder.names()) == ["process1", "process2", "shared"]


def test_threads_share_a_folder(folder, tmp_path):
    def move_in(number: int) -> None:
        data = LARGE if number == 0 else bytes([number]) * 5000
        folder.put(f"{number}", file_with(tmp_path, data, f"upload{number}"), digest(data))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(move_in, range(8)))
    assert folder.read("0") == LARGE
    assert all(folder.read(f"{number}") == bytes([number]) * 5000 for number in range(1, 8))


def test_a_folder_can_be_pickled_after_use(folder):
    folder.write("a", b"a")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert again.read("a") == b"a"


FULL = 200_000


def _as_on_a_full_disk(action: str, folder: Folder, file: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))
    try:
        if action == "fetch":
            folder.fetch("big", file)
        else:
            folder.write("big2", b"x" * (2 * FULL))
    except OSError as error:
        print(json.dumps([error.errno, str(error)]))


def test_a_fetch_that_does_not_fit_says_so_and_leaves_nothing(folder, tmp_path, capfd):
    folder.write("big", b"x" * (2 * FULL))
    file = tmp_path / "fetched" / "big"
    process = multiprocessing.get_context("spawn").Process(
        target=_as_on_a_full_disk, args=("fetch", folder, file)
    )
    process.start()
    process.join()
    _, said = json.loads(capfd.readouterr().out)
    assert f"{file}: " in said and "free some space or choose another directory" in said
    assert os.listdir(file.parent) == []


# -- local only ---------------------------------------------------------------------------------


def test_a_write_that_does_not_fit_says_so_and_leaves_nothing(tmp_path, capfd):
    folder = open_folder(tmp_path / "data")
    process = multiprocessing.get_context("spawn").Process(
        target=_as_on_a_full_disk, args=("write", folder, tmp_path)
    )
    process.start()
    process.join()
    _, said = json.loads(capfd.readouterr().out)
    assert f"{tmp_path}/data/big2: " in said and "free some space" in said
    assert list(folder.names()) == [] and os.listdir(tmp_path / "data") == []


@pytest.fixture
def other_disk(tmp_path):
    """A directory on another file system, of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system can only be mounted by root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_is_moved_over_file_systems(tmp_path, other_disk):
    folder = open_folder(tmp_path / "data")
    file = file_with(other_disk, SMALL)
    folder.put("a", file, digest(SMALL))
    assert folder.read("a") == SMALL and not file.exists()


def test_a_file_that_changed_is_not_moved_over_file_systems(tmp_path, other_disk):
    folder = open_folder(tmp_path / "data")
    file = file_with(other_disk, SMALL)
    with pytest.raises(OSError, match=f"sha256 {digest(SMALL)}, expected {digest(b'')}"):
        folder.put("a", file, digest(b""))
    assert file.exists() and list(folder.names()) == []


def test_a_file_that_does_not_fit_is_not_moved(tmp_path, other_disk):
    folder = open_folder(other_disk / "data")
    file = file_with(tmp_path, LARGE)
    with pytest.raises(OSError, match=r"data/a: No space left on device: .* free some space"):
        folder.put("a", file, digest(LARGE))
    assert file.read_bytes() == LARGE and list(folder.names()) == []
    assert os.listdir(other_disk / "data") == []


def test_a_full_disk_under_a_download_is_said(s3, tmp_path, other_disk):
    folder = s3.new_folder()
    folder.write("a", LARGE[: 3 << 20])
    with pytest.raises(OSError, match=r"disk/a: No space left on device: .* free some space"):
        folder.fetch("a", other_disk / "a")
    assert os.listdir(other_disk) == []


def test_partial_files_are_the_only_ones_without_a_name(tmp_path):
    hidden = [".a.partial-0123456789abcdef", ".a.partial", ".partial-1", ".a.partial-12"]
    for name in hidden:
        (tmp_path / name).write_bytes(b"")
    assert list(open_folder(tmp_path).names()) == sorted(hidden[1:])


# -- URLs and options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, advice",
    [
        ("s3:/bucket/x", "two slashes"),
        (Path("s3://bucket/x"), "two slashes"),
        ("s3://", "two slashes"),
        ("s3:///x", "two slashes"),
        ("s3://buck et/x", "two slashes"),
        ("S3://bucket/x", "two slashes"),
        ("http://host/x", "http: is not read here"),
        ("gs://bucket/x", "gs: is not read here"),
        ("file:///x", "give the path without file:"),
        ("s3://bucket/../x", "no name in this folder"),
        ("s3://bucket/a//b", "no name in this folder"),
        ("", "give a directory or s3://BUCKET/PREFIX"),
    ],
)
def test_a_malformed_url_is_refused_with_advice(url, advice):
    with pytest.raises(ValueError) as caught:
        open_folder(url)
    assert advice in str(caught.value) and "\n" not in str(caught.value)
    assert str(url) in str(caught.value)


def test_a_slash_at_the_end_means_nothing(s3):
    for url in ("s3://bucket", "s3://bucket/", "s3://bucket//"):
        assert open_folder(url).url == "s3://bucket"
    assert open_folder("s3://bucket/a/b/").url == "s3://bucket/a/b"


def test_a_bucket_itself_is_a_folder(s3):
    folder = open_folder(f"s3://{s3.new_bucket()}", s3.options())
    folder.write("a/b", b"b")
    assert list(folder.names()) == ["a/b"]
    assert folder.read("a/b") == b"b"


@pytest.mark.parametrize(
    "options",
    [{"endpoint_url": "localhost:8333"}, {"endpoint_url": "http://"}, {"deadline_s": 0.0}],
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        S3Options(**options)


def test_a_profile_gives_the_credentials(s3, new_credentials, monkeypatch, tmp_path):
    credentials = tmp_path / "credentials"
    names = ("aws_access_key_id", "aws_secret_access_key")
    keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    pairs = "\n".join(f"{name} = {key}" for name, key in zip(names, keys, strict=True))
    credentials.write_text(f"[mine]\n{pairs}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3.new_folder(profile="mine", region="eu-central-1").write("a", b"a")
    with pytest.raises(ValueError, match=r"profile \(yours\) could not be found"):
        s3.new_folder(profile="yours").write("a", b"a")


def test_the_endpoint_may_come_from_the_environment(s3, new_credentials, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    folder = open_folder(s3.new_url())
    folder.write("a", b"a")
    assert folder.read("a") == b"a"


def test_the_package_alone_does_not_load_boto3():
    program = (
        "import sys, relightx.storage as s; s.open_folder('/x'); print('boto3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
