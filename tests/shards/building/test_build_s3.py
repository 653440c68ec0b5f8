"""Data sets built into a real S3 server: whole or not at all, also when the network is not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import fault_proxy as faults
import pytest
from ball_groups import HALF, groups, one_thread  # noqa: F401 (a fixture)
from balls import ball

from relightx.sample import encode
from relightx.storage import Folder, open_folder
from shards.building.build import Part, Settings, build

SMALL = 30_000


def contents(folder: Folder) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.names()}


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> dict[str, bytes]:
    """What the same build makes in a directory."""
    out = tmp_path_factory.mktemp("disk") / "d"
    build(groups, out, HALF, Settings(shard_bytes=SMALL))
    return contents(open_folder(out))


def settings(s3, **changes) -> Settings:
    return Settings(shard_bytes=SMALL, storage=s3.options(), **changes)


def test_the_bytes_are_those_of_a_directory(s3, on_disk):
    url = s3.new_url()
    build(groups, url, HALF, settings(s3))
    assert contents(open_folder(url, s3.options())) == on_disk


def test_jobs_of_an_array_share_a_prefix_and_the_last_publishes(s3, on_disk):
    url = s3.new_url()
    folder = open_folder(url, s3.options())
    for number in range(3):
        assert not any(name.endswith("index.json") for name in folder.names())
        build(groups, url, HALF, settings(s3, part=Part(number, 3)))
    assert contents(folder) == on_disk


@pytest.mark.parametrize(
    "fault",
    [
        faults.reset,
        faults.unavailable,
        faults.cut,
        faults.flip_answer,
        faults.slow,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_bad_network_changes_no_byte(s3, fault_proxy, on_disk, fault):
    url = s3.new_url()
    method = "GET" if fault in (faults.cut, faults.flip_answer) else "PUT"
    # The same wrong bytes twice in a row are no passing fault any more.
    fault_proxy.next(fault, times=1 if fault is faults.flip_answer else 2, method=method)
    options = s3.options(endpoint_url=fault_proxy.endpoint)
    build(groups, url, HALF, Settings(shard_bytes=SMALL, storage=options))
    assert contents(open_folder(url, s3.options())) == on_disk


def test_a_set_is_replaced_when_asked_and_nothing_of_the_old_one_stays(s3, on_disk):
    url = s3.new_url()
    build(partial(groups, 60), url, HALF, settings(s3))
    with pytest.raises(ValueError, match="already holds a data set"):
        build(groups, url, HALF, settings(s3))
    build(groups, url, HALF, settings(s3, overwrite=True))
    assert contents(open_folder(url, s3.options())) == on_disk


def test_an_index_appears_after_its_table_and_goes_before_it(s3, fault_proxy):
    url, options = s3.new_url(), s3.options(endpoint_url=fault_proxy.endpoint)
    build(groups, url, HALF, settings(s3))
    build(groups, url, HALF, Settings(shard_bytes=SMALL, storage=options, overwrite=True))
    names = ("index.json", "groups.safetensors")
    order = {
        split: [
            (method, name)
            for method, path in fault_proxy.requests
            for name in names
            if method in ("PUT", "DELETE") and path.partition("?")[0].endswith(f"{split}/{name}")
        ]
        for split in ("train", "val", "test")
    }
    index, table = names
    wanted = [("DELETE", index), ("DELETE", table), ("PUT", table), ("PUT", index)]
    assert order == dict.fromkeys(order, wanted)


def test_what_a_stopped_build_left_is_thrown_away_with_its_tables(s3, on_disk):
    url = s3.new_url()
    build(groups, url, HALF, settings(s3))
    folder = open_folder(url, s3.options())
    for split in ("train", "val", "test"):
        folder.delete(f"{split}/index.json")  # as when it is killed before it wrote the first
    folder.write(".build/plan.json", b"{}")
    build(partial(groups, 4), url, lambda _: "val", settings(s3, overwrite=True))
    held = {name.partition("/")[0] for name in folder.names()}
    assert held == {"val", "build-report.json"}


def test_a_prefix_with_something_else_is_refused_and_left_alone(s3):
    folder = s3.new_folder()
    folder.write("thesis.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"holds thesis\.txt, which no build makes"):
            build(groups, folder.url, HALF, settings(s3, overwrite=overwrite))
    assert contents(folder) == {"thesis.txt": b"mine"}


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> Path:
    """Three hundred subjects that share the files of one."""
    root = tmp_path_factory.mktemp("captures")
    members = encode(ball(size=48))
    for number in range(300):
        subject = root / f"s{number:04d}"
        subject.mkdir(parents=True)
        for name in ("light000.png", "light001.png", "light002.png"):
            if number:
                os.link(root / "s0000" / name, subject / name)
            else:
                (subject / name).write_bytes(members[name])
    return root


def command(captures: Path, url: str, s3, *flags: str) -> list[str]:
    start = [sys.executable, "-m", "shards.cli", "build", "folder", "--in", str(captures)]
    return [*start, "--out", url, "--endpoint-url", s3.endpoint, "--shard-mb", "0.3", *flags]


def test_a_killed_build_shows_nothing_and_goes_on(s3, captures):
    url = s3.new_url()
    folder = open_folder(url, s3.options())
    child = subprocess.Popen(command(captures, url, s3))
    while folder.size("train/shard-000001.tar") is None:
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not any(name.endswith("index.json") for name in folder.names())
    again = subprocess.run(command(captures, url, s3), capture_output=True, text=True)
    assert again.returncode == 2 and "an unfinished build is there" in again.stderr
    done = subprocess.run(
        command(captures, url, s3, "--resume", "--workers", "2"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    other = s3.new_url()
    assert subprocess.run(command(captures, other, s3)).returncode == 0
    assert contents(folder) == contents(open_folder(other, s3.options()))
    assert not any(name.startswith(".build") for name in folder.names())
    shown = [sys.executable, "-m", "shards.cli", "verify", url, "--endpoint-url", s3.endpoint]
    verified = subprocess.run(shown, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout
    assert "no fault" in verified.stdout and "in 300 portraits, 900 images" in verified.stdout


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("s3://no-such-bucket-here/d", {}, "no-such-bucket-here"),
        ("s3://shards/d", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://shards/d"),
        ("s3://shards/d", {"AWS_ACCESS_KEY_ID": "nobody"}, "s3://shards/d"),
        ("s3:/shards", {}, "two slashes"),
        ("gs://shards/d", {}, "gs:"),
    ],
)
def test_storage_that_refuses_is_one_line_and_exit_code_2(
    s3, captures, monkeypatch, url, environment, message
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    done = subprocess.run(
        command(captures, url, s3, "--limit", "3"), capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert message in line
    assert time.monotonic() - begun < 30


def test_the_report_of_a_build_that_fails_is_beside_its_shards(s3, captures, tmp_path):
    spoilt = shutil.copytree(captures, tmp_path / "spoilt", copy_function=os.link)
    for number in range(40, 50):
        (spoilt / f"s{number:04d}" / "light001.png").unlink()
        (spoilt / f"s{number:04d}" / "light001.png").write_bytes(b"")
    url = s3.new_url()
    done = subprocess.run(command(spoilt, url, s3), capture_output=True, text=True)
    assert done.returncode == 2 and "s0040/light001.png" in done.stderr
    folder = open_folder(url, s3.options())
    report = json.loads(folder.read("build-report.json"))
    assert not report["complete"] and report["skipped"]["groups"] > 3
    assert not any(name.endswith("index.json") for name in folder.names())
