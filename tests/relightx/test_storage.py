"""Both kinds of folder keep the same promises; S3 keeps them through every fault of a network."""

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fault_proxy as faults
import pytest
from s3_server import free_ports

from relightx.storage import Folder, LocalFolder, S3Options, open_folder
from relightx.storage.connection import PART_BYTES

SMALL = bytes(range(256)) * 40
LARGE = os.urandom(PART_BYTES + 12345)  # two parts


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_with(directory: Path, data: bytes, name: str = "upload") -> Path:
    file = directory / name
    file.write_bytes(data)
    return file


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> Folder:
    """An empty folder of each kind."""
    if request.param == "local":
        return open_folder(tmp_path / "data")
    return request.getfixturevalue("s3").new_folder()


@pytest.fixture
def broken(s3, fault_proxy) -> Folder:
    """An empty folder behind the proxy, which is told what to break."""
    return s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=8.0)


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


# -- causes that do not pass are said at once ---------------------------------------------------


def uses(folder: Folder, tmp_path: Path) -> list:
    return [
        lambda: folder.read("a"),
        lambda: folder.read("a", 1, 2),
        lambda: folder.size("a"),
        lambda: list(folder.names()),
        lambda: folder.fetch("a", tmp_path / "fetched"),
        lambda: folder.write("a", b"a"),
        lambda: folder.put("a", file_with(tmp_path, b"a"), digest(b"a")),
        lambda: folder.delete("a"),
    ]


def refusals(folder: Folder, tmp_path: Path) -> list[OSError]:
    """What each use of the folder raises, all within seconds."""
    errors = []
    started = time.monotonic()
    for use in uses(folder, tmp_path):
        with pytest.raises(OSError) as caught:
            use()
        errors.append(caught.value)
    assert time.monotonic() - started < 10
    for error in errors:
        assert str(error).startswith(folder.url) and "\n" not in str(error)
    return errors


def test_a_missing_bucket_is_said_and_not_made(s3, tmp_path):
    folder = open_folder("s3://no-such-bucket/x", s3.options())
    for error in refusals(folder, tmp_path):
        assert f"there is no bucket 'no-such-bucket' at {s3.endpoint}" in str(error)
        assert not isinstance(error, FileNotFoundError)
    names = [bucket["Name"] for bucket in s3.client.list_buckets()["Buckets"]]
    assert "no-such-bucket" not in names


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_said(s3, new_credentials, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "wrong")
    for error in refusals(s3.new_folder(), tmp_path):
        assert isinstance(error, PermissionError)
        assert f"{s3.endpoint} refused access" in str(error) and "--profile" in str(error)


def test_missing_credentials_are_said(s3, new_credentials, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for error in refusals(s3.new_folder(), tmp_path):
        assert isinstance(error, PermissionError)
        assert "no credentials" in str(error) and "--unsigned" in str(error)


def test_a_private_bucket_refuses_the_unsigned(s3, tmp_path):
    for error in refusals(s3.new_folder(unsigned=True), tmp_path):
        assert isinstance(error, PermissionError)


def test_a_public_bucket_is_read_unsigned_and_not_written(
    s3, new_credentials, monkeypatch, tmp_path
):
    url = f"s3://{s3.new_bucket(public=True)}/data"
    open_folder(url, s3.options()).write("a", SMALL)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    folder = open_folder(url, s3.options(unsigned=True))
    assert folder.read("a") == SMALL
    assert folder.read("a", 1, 2) == SMALL[1:3]
    assert folder.size("a") == len(SMALL)
    assert list(folder.names()) == ["a"]
    folder.fetch("a", tmp_path / "a", digest(SMALL))
    with pytest.raises(PermissionError, match="refused access"):
        folder.write("a", b"")


def test_an_endpoint_that_never_answered_is_said(s3, tmp_path):
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    folder = s3.new_folder(endpoint_url=nobody)
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        folder.read("a")
    assert f"{nobody} cannot be reached" in str(caught.value)
    assert "--endpoint-url" in str(caught.value)
    assert time.monotonic() - started < 10


# -- faults that pass ---------------------------------------------------------------------------

ANY = [faults.reset, faults.unavailable]
IN_BODY = [faults.cut, faults.reset_in_body]


@pytest.mark.parametrize("fault", ANY, ids=lambda fault: fault.__name__)
def test_every_use_survives_a_request_that_fails(broken, fault_proxy, fault, tmp_path):
    def met() -> int:
        assert fault_proxy.met[fault.__name__] == broken.retries
        return broken.retries

    file = file_with(tmp_path, SMALL)
    for number, use in enumerate(
        (
            lambda: broken.write("a", SMALL),
            lambda: broken.put("b", file, digest(SMALL)),
            lambda: broken.read("a") == SMALL,
            lambda: broken.read("a", 5, 6) == SMALL[5:11],
            lambda: broken.size("a") == len(SMALL),
            lambda: list(broken.names()) == ["a", "b"],
            lambda: broken.fetch("a", tmp_path / "a", digest(SMALL)),
            lambda: broken.delete("a"),
        ),
        start=1,
    ):
        fault_proxy.next(fault)
        assert use() in (None, True)
        assert met() == number
    assert (tmp_path / "a").read_bytes() == SMALL
    assert list(broken.names()) == ["b"]


@pytest.mark.parametrize("fault", ANY, ids=lambda fault: fault.__name__)
def test_more_failures_than_the_client_bears_are_survived(broken, fault_proxy, fault):
    fault_proxy.next(fault, times=8, method="PUT")
    broken.write("a", SMALL)
    assert broken.read("a") == SMALL
    assert fault_proxy.met[fault.__name__] == 8
    assert broken.retries >= 8


@pytest.mark.parametrize("fault", IN_BODY, ids=lambda fault: fault.__name__)
def test_a_body_that_breaks_off_is_survived(broken, fault_proxy, fault, tmp_path):
    broken.write("a", SMALL)
    fault_proxy.next(fault, method="GET", path="/a")
    assert broken.read("a") == SMALL
    assert broken.retries > 0
    before = broken.retries
    fault_proxy.next(fault, method="GET", path="/a")
    assert broken.read("a", 11, 9000) == SMALL[11:9011]
    assert broken.retries > before
    before = broken.retries
    fault_proxy.next(fault, method="GET", path="/a")
    broken.fetch("a", tmp_path / "a", digest(SMALL))
    assert (tmp_path / "a").read_bytes() == SMALL
    assert broken.retries > before
    assert fault_proxy.met[fault.__name__] == 3


def test_a_long_read_goes_on_where_it_broke_off(broken, fault_proxy):
    asked = []

    def cut(handler: faults.Handler, body: bytes) -> None:
        asked.append(handler.headers.get("Range"))
        faults.cut(handler, body)

    broken.write("a", LARGE)
    fault_proxy.next(cut, times=2, method="GET", path="/a")
    assert broken.read("a") == LARGE
    begun = int(asked[1].removeprefix("bytes=").rstrip("-"))
    assert asked[0] is None and 0 < begun <= len(LARGE) // 2


def test_a_file_replaced_while_it_is_read_is_never_mixed(s3, broken, fault_proxy):
    def replaced(handler: faults.Handler, body: bytes) -> None:
        faults.cut(handler, body)
        s3.client.put_object(**broken.place("a"), Body=b"B" * 8_000_000)

    broken.write("a", b"A" * 8_000_000)
    fault_proxy.next(replaced, method="GET", path="/a")
    assert broken.read("a") == b"B" * 8_000_000


def test_a_silent_body_is_given_up_and_asked_again(broken, fault_proxy, tmp_path):
    broken.write("a", SMALL)
    fault_proxy.next(faults.stall, method="GET", path="/a")
    broken.fetch("a", tmp_path / "a", digest(SMALL))
    assert (tmp_path / "a").read_bytes() == SMALL
    assert fault_proxy.met["stall"] == broken.retries == 1


def test_a_server_that_answered_before_is_waited_for(s3):
    with faults.serving(s3.endpoint) as proxy:
        folder = s3.new_folder(endpoint_url=proxy.endpoint)
        folder.write("a", SMALL)
    ended = threading.Event()

    def come_back() -> None:
        time.sleep(2)  # longer than the client itself tries
        with faults.serving(s3.endpoint, proxy.server_port):
            ended.wait(20)

    back = threading.Thread(target=come_back)
    back.start()
    try:
        assert folder.read("a") == SMALL
        assert folder.retries > 0
    finally:
        ended.set()
        back.join()


def test_what_never_passes_is_given_up_at_the_deadline(s3, fault_proxy):
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=1.0)
    folder.write("a", SMALL)
    fault_proxy.next(faults.unavailable, times=10_000)
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        folder.read("a")
    assert time.monotonic() - started < 10
    said = str(caught.value)
    assert said.startswith(f"{folder.url}/a: {fault_proxy.endpoint} failed")
    assert "ServiceUnavailable" in said and "\n" not in said


@pytest.mark.parametrize("fault", [faults.reset, faults.unavailable, faults.cut])
def test_parts_that_fail_are_survived(broken, fault_proxy, fault, tmp_path):
    file = file_with(tmp_path, LARGE)
    fault_proxy.next(fault, times=2, method="PUT", path="partNumber")
    broken.put("a", file, digest(LARGE))
    fault_proxy.next(fault, times=2, method="GET", path="/a")
    broken.fetch("a", tmp_path / "a", digest(LARGE))
    assert (tmp_path / "a").read_bytes() == LARGE
    assert fault_proxy.met[fault.__name__] == 4
    assert broken.retries > 0


def test_a_slow_body_is_waited_for(broken, fault_proxy, tmp_path):
    broken.write("a", SMALL)
    fault_proxy.next(faults.slow, times=3, method="GET", path="/a")
    assert broken.read("a") == SMALL
    assert broken.read("a", 5, 1000) == SMALL[5:1005]
    broken.fetch("a", tmp_path / "a", digest(SMALL))
    assert fault_proxy.met["slow"] == 3
    assert broken.retries == 0


def test_wrong_bytes_are_fetched_again(broken, fault_proxy, tmp_path):
    broken.write("a", SMALL)
    fault_proxy.next(faults.flip_answer, method="GET", path="/a")
    broken.fetch("a", tmp_path / "a", digest(SMALL))
    assert (tmp_path / "a").read_bytes() == SMALL
    fault_proxy.next(faults.flip_answer, method="GET", path="/a")
    broken.fetch("a", tmp_path / "b")  # the digest beside the file tells as well
    assert (tmp_path / "b").read_bytes() == SMALL
    fault_proxy.next(faults.flip_answer, method="GET", path="/a")
    assert broken.read("a") == SMALL
    assert fault_proxy.met["flip_answer"] == 3
    assert broken.retries == 3


def test_a_body_that_belies_its_checksum_is_read_again(broken, fault_proxy):
    def belied(handler: faults.Handler, body: bytes) -> None:
        answer = handler.asked(body)
        answer.headers.append(("x-amz-checksum-crc32", "AAAAAA=="))
        handler.begin(answer)
        handler.wfile.write(answer.body)

    broken.write("a", SMALL)
    fault_proxy.next(belied, method="GET", path="/a")
    assert broken.read("a") == SMALL
    assert broken.retries > 0


def test_a_wrong_part_is_fetched_again(broken, fault_proxy, tmp_path):
    broken.put("a", file_with(tmp_path, LARGE), digest(LARGE))
    fault_proxy.next(faults.flip_answer, method="GET", path="/a")
    broken.fetch("a", tmp_path / "a", digest(LARGE))
    assert (tmp_path / "a").read_bytes() == LARGE
    assert broken.retries > 0


@pytest.mark.parametrize("data, path", [(SMALL, "/a"), (LARGE, "partNumber=2")])
def test_bytes_that_changed_on_the_way_up_are_refused_and_sent_again(
    broken, fault_proxy, tmp_path, data, path
):
    answers = []

    def flip_request(handler: faults.Handler, body: bytes) -> None:
        answer = handler.asked(faults.flipped(body))
        answers.append(answer.status)
        handler.begin(answer)
        handler.wfile.write(answer.body)

    fault_proxy.next(flip_request, method="PUT", path=path)
    broken.put("a", file_with(tmp_path, data), digest(data))
    assert broken.read("a") == data
    assert answers == [400]
    assert broken.retries > 0


def _spoiling(s3, folder) -> faults.Fault:
    def spoilt(handler: faults.Handler, body: bytes) -> None:
        faults.pass_on(handler, body)
        s3.client.put_object(**folder.place("a"), Body=faults.flipped(SMALL))

    return spoilt


def test_bytes_that_the_server_holds_wrong_are_found_and_sent_again(
    s3, broken, fault_proxy, tmp_path
):
    for upload in (
        lambda: broken.put("a", file_with(tmp_path, SMALL), digest(SMALL)),
        lambda: broken.write("a", SMALL),
    ):
        fault_proxy.next(_spoiling(s3, broken), method="PUT", path="/a")
        before = broken.retries
        upload()
        assert s3.client.get_object(**broken.place("a"))["Body"].read() == SMALL
        assert broken.retries == before + 1
    assert fault_proxy.met["spoilt"] == 2


def test_bytes_that_stay_wrong_are_an_error_and_the_file_is_kept(s3, broken, fault_proxy, tmp_path):
    file = file_with(tmp_path, SMALL)
    fault_proxy.next(_spoiling(s3, broken), times=100, method="PUT", path="/a")
    with pytest.raises(OSError) as caught:
        broken.put("a", file, digest(SMALL))
    for said in (f"{broken.url}/a", digest(SMALL), digest(faults.flipped(SMALL))):
        assert said in str(caught.value)
    assert file.read_bytes() == SMALL


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "in parts"])
def test_an_etag_of_another_kind_is_no_error(broken, fault_proxy, tmp_path, data):
    def other_etag(handler: faults.Handler, body: bytes) -> None:
        answer = handler.asked(body)
        answer.headers = [(n, v) for n, v in answer.headers if n.lower() != "etag"]
        answer.headers.append(("ETag", '"encrypted"'))
        handler.begin(answer)

    fault_proxy.next(other_etag, method="HEAD", path="/a")
    broken.put("a", file_with(tmp_path, data), digest(data))
    assert fault_proxy.met["other_etag"] == 1 and broken.retries == 0
    reads = [path for method, path in fault_proxy.requests if method == "GET"]
    assert len(reads) == 1  # it was read back and compared


def test_a_file_that_is_not_what_its_digest_says_is_not_sent(s3, tmp_path):
    folder = s3.new_folder()
    file = file_with(tmp_path, SMALL)
    with pytest.raises(OSError, match=f"upload: has sha256 {digest(SMALL)}, expected"):
        folder.put("a", file, digest(b"other"))
    assert file.exists() and list(folder.names()) == []


# -- how it lies in S3 --------------------------------------------------------------------------


def test_a_large_file_goes_up_in_parts_with_its_digest_beside_it(s3, broken, fault_proxy, tmp_path):
    broken.put("a", file_with(tmp_path, LARGE), digest(LARGE))
    parts = [path for method, path in fault_proxy.requests if "partNumber=" in path]
    assert len(parts) == 2
    reads = [path for method, path in fault_proxy.requests if method == "GET"]
    assert reads == []  # the ETag says what it holds
    assert s3.client.head_object(**broken.place("a"))["Metadata"] == {"sha256": digest(LARGE)}


def test_an_upload_that_fails_leaves_no_parts_behind(s3, fault_proxy, tmp_path):
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=0.1)
    file = file_with(tmp_path, LARGE)
    fault_proxy.next(faults.unavailable, times=1000, path="partNumber=2")
    with pytest.raises(OSError, match="ServiceUnavailable"):
        folder.put("a", file, digest(LARGE))
    assert file.exists()
    assert folder.size("a") is None
    key = folder.place("a")["Key"]
    assert not s3.client.list_multipart_uploads(Bucket=s3.bucket, Prefix=key).get("Uploads")


def _fetch(folder: Folder, file: Path, sha256: str) -> None:
    folder.fetch("a", file, sha256)


def _put(folder: Folder, file: Path, sha256: str) -> None:
    folder.put("a", file, sha256)


def _kill_when(happened, target, *arguments) -> None:
    """Run it in a process that is killed in the middle."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    until = time.monotonic() + 30
    while not happened() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_fetch_that_is_killed_leaves_nothing_under_the_name(broken, fault_proxy, tmp_path):
    broken.put("a", file_with(tmp_path, LARGE), digest(LARGE))
    fault_proxy.next(faults.stall, method="GET", path="/a")
    file = tmp_path / "fetched" / "a"
    _kill_when(lambda: fault_proxy.met["stall"], _fetch, broken, file, digest(LARGE))
    assert not file.exists()
    assert len(os.listdir(file.parent)) == 1  # it had begun
    assert list(open_folder(file.parent).names()) == []


def test_an_upload_that_is_killed_leaves_nothing_under_the_name(broken, fault_proxy, tmp_path):
    file = file_with(tmp_path, LARGE)
    fault_proxy.next(faults.stall, method="PUT", path="partNumber=2")
    _kill_when(lambda: fault_proxy.met["stall"], _put, broken, file, digest(LARGE))
    assert broken.size("a") is None and list(broken.names()) == []
    assert file.exists()


def test_names_are_more_than_a_page(s3):
    folder = s3.new_folder()
    names = [f"x/{number:04d}" for number in range(1003)]
    prefix = folder.place("x")["Key"].removesuffix("x")

    def make(name: str) -> None:
        s3.client.put_object(Bucket=s3.bucket, Key=prefix + name, Body=b"")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, names))
    assert list(folder.names()) == names


def test_what_shows_a_directory_is_no_file(s3):
    folder = s3.new_folder()
    folder.write("train/a", b"a")
    prefix = folder.place("x")["Key"].removesuffix("x")
    s3.client.put_object(Bucket=s3.bucket, Key=f"{prefix}train/", Body=b"")
    s3.client.put_object(Bucket=s3.bucket, Key=prefix, Body=b"")
    assert list(folder.names()) == ["train/a"]


def test_what_others_uploaded_is_read(s3, tmp_path):
    folder = s3.new_folder()
    s3.client.put_object(**folder.place("a"), Body=SMALL)
    assert folder.read("a") == SMALL
    folder.fetch("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == SMALL


def test_a_key_that_leads_out_of_the_folder_is_refused(s3, fault_proxy):
    def hostile(handler: faults.Handler, body: bytes) -> None:
        answer = handler.asked(body)
        answer.body = answer.body.replace(b"/aaaaaaa<", b"/../../x<")
        handler.begin(answer)
        handler.wfile.write(answer.body)

    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint)
    folder.write("aaaaaaa", b"")
    fault_proxy.next(hostile, method="GET", path="list-type")
    with pytest.raises(ValueError, match=r"'\.\./\.\./x' is no name in this folder"):
        list(folder.names())
