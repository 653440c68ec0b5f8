"""Whatever is wrong with a group costs that group alone, is said with its file, and is reported."""

import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from balls import ball
from PIL import Image

from relightx.index import read_index
from relightx.sample import Portrait, decode, encode
from shards.building.build import Settings, build
from shards.building.destination import REPORT
from shards.building.recipe import Recipe
from shards.group import Group
from shards.looking.verify import verify
from shards.read import read_members
from shards.sources.folder import folder

LIGHTS = ("light000.png", "light001.png", "light002.png")
SIZE = 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten good groups of 8-bit pictures."""
    noise = np.random.default_rng(0)
    for number in range(10):
        directory = tmp_path / "root" / f"s{number}"
        directory.mkdir(parents=True)
        for name in LIGHTS:
            pixels = noise.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(directory / name)
    return tmp_path / "root"


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def corrupt(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def zero_bytes(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("<html>404 not found</html>")


def another_size(file: Path) -> None:
    Image.new("RGB", (SIZE, SIZE // 2)).save(file)


def another_depth(file: Path) -> None:
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint16)).save(file)


def cmyk(file: Path) -> None:
    Image.new("CMYK", (SIZE, SIZE)).save(file, "JPEG")


def turned_by_exif(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIZE, SIZE // 2)).save(file, "JPEG", exif=exif)


def bomb(file: Path) -> None:
    """A PNG of a few hundred bytes that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def gone(file: Path) -> None:
    file.with_name("group.json").write_text(json.dumps({"lights": [{"file": n} for n in LIGHTS]}))
    file.unlink()


SPOILT = (
    *(truncated, corrupt, zero_bytes, text, another_size, another_depth),
    *(cmyk, turned_by_exif, bomb, a_pipe, gone),
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_one_bad_picture_costs_its_group_and_is_reported_by_name(root, tmp_path, spoil):
    spoil(root / "s4" / "light001.png")
    ended = build(partial(folder, root), tmp_path / "d", to_train, Settings(max_skipped=0.1))
    (fault,) = ended.faults
    assert fault.key == "s4" and "light001.png" in fault.fault and "s4" in fault.fault
    (listed,) = json.loads((tmp_path / "d" / REPORT).read_text())["skipped"]["list"]
    assert listed == {"key": "s4", "subject": "s4", "reason": fault.fault}
    keys = [group.key for group in read_index(tmp_path / "d/train").groups]
    assert keys == [f"s{number}" for number in range(10) if number != 4]
    assert verify(tmp_path / "d").passed


def with_alpha(file: Path) -> None:
    Image.open(file).convert("RGBA").save(file)


def named_wrongly(file: Path) -> None:
    Image.open(file).convert("RGB").save(file, "JPEG", quality=95)


def gray(file: Path) -> None:
    Image.open(file).convert("L").save(file)


@pytest.mark.parametrize("change", [with_alpha, named_wrongly, gray], ids=lambda c: c.__name__)
def test_what_can_be_read_without_doubt_is_read(root, tmp_path, change):
    change(root / "s4" / "light001.png")
    ended = build(partial(folder, root), tmp_path / "d", to_train, Settings())
    assert ended.faults == [] and ended.totals["train"].groups == 10
    (group,) = [g for g in read_index(tmp_path / "d/train").groups if g.key == "s4"]
    held = read_members(tmp_path / "d/train", "shard-000000.tar", group)
    assert decode("s4", held).image.shape == (3, SIZE, SIZE, 3)


def to_train(subject: str) -> str:
    return "train"


def test_names_that_are_no_keys_become_keys_and_stay_apart(root, tmp_path):
    (root / "s1").rename(root / "Dr. Anna B")
    (root / "s2").rename(root / "x.y,z")
    (root / "s3").rename(root / "Zoë")
    ended = build(partial(folder, root), tmp_path / "d", to_train, Settings())
    keys = {group.key: group.subject for group in read_index(tmp_path / "d/train").groups}
    assert keys["Dr-Anna-B"] == "Dr. Anna B" and keys["x-y-z"] == "x.y,z" and keys["Zo-"] == "Zoë"
    assert ended.faults == []
    (root / "s4").rename(root / "x.y-z")
    ended = build(partial(folder, root), tmp_path / "e", to_train, Settings(max_skipped=0.1))
    (fault,) = ended.faults
    assert "'x-y-z'" in fault.fault and "occurs twice" in fault.fault


def die() -> Portrait:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def one_dies(count: int = 9) -> Iterator[Group]:
    for number in range(count):
        key = f"g{number}"
        yield Group(key, key, 3, partial(ball, key, key, 3, 16))
    yield Group("killer", "killer", 3, die)


def test_a_killed_worker_is_a_clear_error_and_leaves_no_data_set(tmp_path):
    # Planning reads samples in this process, so the killer must not be one of them.
    script = (
        "import sys; sys.path[:0] = {path!r}\n"
        "from shards.building import plan\n"
        "plan._estimate = lambda groups, recipe: plan.Estimate(1e3, 0.1, 1)\n"
        "from test_bad_input import one_dies, to_train\n"
        "from shards.building.build import Settings, build\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        build(one_dies, {out!r}, to_train, Settings(workers=2))\n"
        "    except OSError as error:\n"
        "        print(error); sys.exit(2)\n"
    )
    here = Path(__file__).parent
    file = tmp_path / "script.py"
    paths = [str(here), str(here.parents[1] / "support"), str(here.parents[2])]
    file.write_text(script.format(path=paths, out=str(tmp_path / "d")))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "a worker process was killed" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["script.py"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    if os.geteuid():
        pytest.skip("needs root, to mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def large(count: int = 40) -> Iterator[Group]:
    for number in range(count):
        key = f"g{number:02d}"
        yield Group(key, key, 3, partial(ball, key, key, 3, 64, number))


def test_a_full_disk_is_a_clear_error_and_the_build_goes_on_once_there_is_room(small_disk):
    settings = Settings(shard_bytes=200_000)
    with pytest.raises(OSError, match="No space left on device") as caught:
        build(large, small_disk / "d", to_train, settings)
    assert str(small_disk) in str(caught.value)
    assert not (small_disk / "d").exists()
    assert any("--resume" in note for note in caught.value.__notes__)
    left = [path.name for path in (small_disk / ".d.partial").rglob("*") if path.is_file()]
    assert any(name.endswith(".tar") for name in left)
    assert not any("partial" in name for name in left)
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    build(large, small_disk / "d", to_train, Settings(shard_bytes=200_000, resume=True))
    assert verify(small_disk / "d").passed


def missing_package() -> Portrait:
    raise ModuleNotFoundError("No module named 'anny'", name="anny")


def test_a_package_that_is_missing_is_not_blamed_on_the_groups(tmp_path):
    found = [Group("a", "a", 1, missing_package)]
    with pytest.raises(ModuleNotFoundError):
        build(lambda: iter(found), tmp_path / "d", to_train, Settings(max_skipped=1.0))
    assert os.listdir(tmp_path) == []


def surprise() -> Portrait:
    raise KeyError("light")


def test_an_error_that_nobody_expected_names_its_kind(tmp_path):
    found = [Group("a", "a", 1, surprise), Group("b", "b", 1, partial(ball, "b", "b", 1, 16))]
    ended = build(
        lambda: iter(found), tmp_path / "d", to_train, Settings(max_skipped=0.5, recipe=Recipe())
    )
    assert ended.faults[0].fault == "KeyError: 'light'"


def test_a_good_portrait_is_what_the_source_gave(tmp_path):
    found = [Group("b", "b", 3, partial(ball, "b", "b", 3, 16))]
    build(lambda: iter(found), tmp_path / "d", to_train, Settings())
    (group,) = read_index(tmp_path / "d/train").groups
    held = read_members(tmp_path / "d/train", "shard-000000.tar", group)
    assert held == encode(ball("b", "b", 3, 16))
