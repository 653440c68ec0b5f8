"""S3 keeps a folder's promises through every fault of a network."""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fault_proxy as faults
import pytest
from moved_bytes import LARGE, SMALL, digest, file_with

from relightx.storage import Folder, S3Options, connection, open_folder


@pytest.fixture
def broken(s3, fault_proxy) -> Folder:
    """An empty folder behind the proxy, which is told what to break."""
    return s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=8.0)


def test_threads_that_begin_together_make_one_client(s3, monkeypatch):
    made = []
    whole = connection.Connection.__init__

    def counted(self: connection.Connection, options: S3Options) -> None:
        made.append(options)
        whole(self, options)

    folder = s3.new_folder(deadline_s=77.0)
    folder.write("a", SMALL)
    connection.connection_of_process.cache_clear()
    monkeypatch.setattr(connection.Connection, "__init__", counted)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: folder.read("a", 5, 6), range(8))) == {SMALL[5:11]}
    assert len(made) == 1


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


@pytest.mark.parametrize("fault", [faults.silent, faults.stall], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "parts"])
def test_a_silent_server_is_given_up_soon_after_the_deadline(
    s3, fault_proxy, tmp_path, fault, data
):
    """Whatever layers there are that try again."""
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=4.0)
    folder.put("a", file_with(tmp_path, data), digest(data))
    fault_proxy.next(fault, times=10_000, method="GET", path="/a")
    for ask in (lambda: folder.fetch("a", tmp_path / "b"), lambda: folder.read("a")):
        started = time.monotonic()
        with pytest.raises(OSError, match=r"failed \d+ times, at last with: .*[Rr]ead time"):
            ask()
        assert 2 < time.monotonic() - started < 11  # two deadlines, on a machine that is busy
    assert not (tmp_path / "b").exists()


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
