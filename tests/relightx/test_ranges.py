"""Ranges are asked for as the client would ask, and whatever is unusual is left to the client."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import fault_proxy as faults
import pytest
from moved_bytes import LARGE, SMALL

from relightx.storage import open_folder
from relightx.storage.connection import connection


def is_quick(folder) -> bool:
    """Whether ranges of this folder's bucket are asked for without the client."""
    return folder.place("a")["Bucket"] in connection(folder.options)._ranges._seen


@pytest.fixture
def folder(s3, fault_proxy):
    """A folder with a file `a`, behind a proxy."""
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=4.0)
    folder.write("a", SMALL)
    return folder


def test_the_client_goes_first_and_is_repeated(folder, fault_proxy):
    authorizations = []

    def noting(handler, body):
        authorizations.append(handler.headers.get("Authorization"))
        faults.pass_on(handler, body)

    fault_proxy.next(noting, times=3, method="GET")
    assert not is_quick(folder)
    assert folder.read("a", 5, 100) == SMALL[5:105]
    assert is_quick(folder)
    assert folder.read("a", 0, 1) == SMALL[:1]
    assert folder.read("a", 1000, 3000) == SMALL[1000:4000]
    assert len(authorizations) == 3 and len(set(authorizations)) == 3
    assert all(said.startswith("AWS4-HMAC-SHA256 Credential=tests/") for said in authorizations)
    assert folder.retries == 0


def test_names_with_any_characters_are_asked_for(s3):
    folder = s3.new_folder()
    names = ["plain", "a b", "a+b", "100%", "ä", "x/y~z", "q?r=s", "h#i", "(1)*!'"]
    for name in names:
        folder.write(name, name.encode() + SMALL)
    for _ in range(2):
        for name in names:
            assert folder.read(name, 0, 30) == (name.encode() + SMALL)[:30]
    assert is_quick(folder) and connection(folder.options)._ranges._refusals == 0


def test_a_public_bucket_is_read_without_credentials(s3, new_credentials, monkeypatch):
    bucket = s3.new_bucket(public=True)
    open_folder(f"s3://{bucket}/x", s3.options()).write("a", SMALL)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    folder = open_folder(f"s3://{bucket}/x", s3.options(unsigned=True))
    for start in range(3):
        assert folder.read("a", start, 50) == SMALL[start : start + 50]
    assert is_quick(folder)


def test_what_is_not_there_is_told_as_ever(folder):
    folder.read("a", 0, 1)
    with pytest.raises(FileNotFoundError, match=f"^{folder.url}/b: no such file$"):
        folder.read("b", 0, 10)
    with pytest.raises(OSError, match=f"^{folder.url}/a: bytes {len(SMALL) - 5} to"):
        folder.read("a", len(SMALL) - 5, 10)
    with pytest.raises(OSError, match=rf"/a: bytes {len(SMALL)} to .* it has {len(SMALL)}"):
        folder.read("a", len(SMALL), 10)
    assert folder.retries == 0


def test_after_refusals_in_a_row_the_client_alone_is_asked(folder, fault_proxy):
    folder.read("a", 0, 1)

    def wrong(handler, _body):
        handler.begin(faults.Answer(403, [("Content-Type", "application/xml")], b""))

    for _ in range(3):
        fault_proxy.next(wrong, method="GET")
        assert folder.read("a", 0, 10) == SMALL[:10]
    before = len(fault_proxy.requests)
    assert folder.read("a", 0, 10) == SMALL[:10]
    assert len(fault_proxy.requests) == before + 1
    assert connection(folder.options)._ranges._refusals == 3
    assert folder.retries == 0


def test_an_answer_of_another_range_is_not_taken(folder, fault_proxy):
    def whole(handler, body):
        del handler.headers["Range"]
        faults.pass_on(handler, body)

    folder.read("a", 0, 1)
    fault_proxy.next(whole, method="GET")
    assert folder.read("a", 7, 10) == SMALL[7:17]
    assert fault_proxy.met["whole"] == 1


def test_a_large_range_goes_on_where_it_broke_off(s3, fault_proxy):
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=8.0)
    folder.write("a", LARGE)
    folder.read("a", 0, 1)
    asked = []

    def cut(handler, body):
        asked.append(handler.headers["Range"])
        faults.cut(handler, body)

    fault_proxy.next(cut, times=2, method="GET")
    assert folder.read("a", 1, len(LARGE) - 1) == LARGE[1:]
    assert asked[0] == f"bytes=1-{len(LARGE) - 1}" and asked[1] != asked[0]


def test_many_threads_ask_at_a_time(s3):
    folder = s3.new_folder()
    folder.write("a", SMALL)
    folder.read("a", 0, 1)
    with ThreadPoolExecutor(16) as pool:
        starts = range(0, 4000, 20)
        found = list(pool.map(lambda start: folder.read("a", start, 33), starts))
    assert found == [SMALL[start : start + 33] for start in starts]
    assert folder.retries == 0


def test_a_child_asks_on_connections_of_its_own(folder):
    folder.read("a", 0, 1)
    child = os.fork()
    if child == 0:
        well = not is_quick(folder) and folder.read("a", 9, 9) == SMALL[9:18]
        os._exit(0 if well and folder.read("a", 1, 2) == SMALL[1:3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert folder.read("a", 3, 4) == SMALL[3:7]


@pytest.mark.parametrize("fault", [faults.unavailable, faults.reset, faults.cut, faults.stall])
def test_what_never_passes_is_given_up_within_the_deadline(folder, fault_proxy, fault):
    folder.read("a", 0, 1)
    fault_proxy.next(fault, times=10_000)
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        folder.read("a", 5, 100)
    assert 2.9 < time.monotonic() - started < 4.5
    said = str(caught.value)
    assert said.startswith(f"{folder.url}/a: {fault_proxy.endpoint} failed")
    assert f"failed {folder.retries + 1} times, at last with: " in said and "\n" not in said


def test_a_server_that_is_gone_is_told_at_once(s3):
    with faults.serving(s3.endpoint) as proxy:
        folder = s3.new_folder(endpoint_url=proxy.endpoint, deadline_s=2.0)
        folder.write("a", SMALL)
        folder.read("a", 0, 1)
    started = time.monotonic()
    with pytest.raises(OSError, match=r"cannot be reached|failed"):
        folder.read("a", 5, 100)
    assert time.monotonic() - started < 3
