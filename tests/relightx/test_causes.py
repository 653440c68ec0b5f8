"""What S3 refuses for good is said at once, in one line, with what to do about it."""

import time
from pathlib import Path

import pytest
from moved_bytes import SMALL, digest, file_with
from s3_server import free_ports

from relightx.storage import Folder, open_folder


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
