import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from balls import ball

from relightx.index import read_index
from relightx.sample import encode

SUBJECTS = [f"s{i:02d}" for i in range(12)]


def relightx_shards(*arguments, **options):
    command = [sys.executable, "-m", "shards.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def error_of(finished):
    """The one line of error, and the exit code is 2."""
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    (line,) = [line for line in finished.stderr.splitlines() if ": error: " in line]
    return line.partition(": error: ")[2]


@pytest.fixture(scope="session")
def session_root(tmp_path_factory):
    return tmp_path_factory.mktemp("photographs") / "root"


@pytest.fixture
def root(session_root, make_portrait):
    """A folder of twelve subjects under three lights each, without labels."""
    if not session_root.exists():
        for number, subject in enumerate(SUBJECTS):
            members = encode(make_portrait(seed=number))
            (session_root / subject).mkdir(parents=True)
            for name in ("light000.png", "light001.png", "light002.png"):
                (session_root / subject / name).write_bytes(members[name])
    return session_root


@pytest.fixture
def copy(root, tmp_path):
    """A copy of the folder to spoil."""
    return shutil.copytree(root, tmp_path / "copy")


def build(root, out, *flags):
    return relightx_shards("build", "folder", "--in", root, "--out", out, *flags)


def contents(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture
def built(root):
    """A data set of the folder in several shards; to read, not to change."""
    out = root.parent / "built"
    if not out.exists():
        assert build(root, out, "--shard-mb", "0.03", "--licence", "mine").returncode == 0
    return out


def test_a_data_set_is_verified_listed_and_shown(built, tmp_path):
    verified = relightx_shards("verify", built)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "no fault in 12 portraits, 36 images" in verified.stdout
    listed = relightx_shards("list", built)
    assert listed.returncode == 0 and "mine" in listed.stdout
    shown = relightx_shards("preview", built, "--out", tmp_path / "sheet.png")
    assert shown.returncode == 0 and (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize("layout", ["heads", "lights"])
def test_heads_and_lights_are_shown_as_a_picture(built, tmp_path, layout):
    shown = relightx_shards("preview", built, "--layout", layout, "--out", tmp_path / "a.png")
    assert shown.returncode == 0 and (tmp_path / "a.png").stat().st_size > 1000
    page = relightx_shards("preview", built, "--layout", layout, "--out", tmp_path / "a.html")
    assert "a page has rows" in error_of(page) and not (tmp_path / "a.html").exists()


def test_the_bytes_do_not_depend_on_the_number_of_workers(root, built, tmp_path):
    flags = ("--workers", 2, "--shard-mb", "0.03", "--licence", "mine")
    assert build(root, tmp_path / "d", *flags).returncode == 0
    assert len(contents(built)) > 6
    assert contents(tmp_path / "d") == contents(built)


def test_synthetic_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    pytest.importorskip("anny")
    for workers in (1, 2):
        flags = ("--heads", 3, "--lights", 2, "--size", 48, "--workers", workers)
        out = tmp_path / f"w{workers}"
        built = relightx_shards("build", "synthetic", *flags, "--out", out)
        assert built.returncode == 0, built.stderr
    assert contents(tmp_path / "w1") == contents(tmp_path / "w2")


def test_verify_exits_with_1_and_names_the_fault(built, tmp_path):
    shutil.copytree(built, tmp_path / "d")
    shard = tmp_path / "d" / "train" / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    verified = relightx_shards("verify", tmp_path / "d")
    assert verified.returncode == 1
    assert "train/shard-000000.tar: sha256 is" in verified.stdout


def test_a_split_file_is_followed(root, tmp_path):
    split = {"train": SUBJECTS[:6], "val": SUBJECTS[6:8], "test": SUBJECTS[8:]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    built = build(root, tmp_path / "d", "--split-file", tmp_path / "split.json")
    assert built.returncode == 0, built.stderr
    for name, subjects in split.items():
        assert read_index(tmp_path / "d" / name).subjects == subjects


def test_help_is_quick_and_imports_nothing_heavy():
    command = (
        "import sys; from shards.cli import build_parser;"
        "build_parser().format_help();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'cv2', 'numpy', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0
    for arguments in ([], ["build"], ["build", "folder"], ["verify"], ["list"], ["preview"]):
        shown = relightx_shards(*arguments, "--help")
        assert shown.returncode == 0 and shown.stdout.startswith("usage: relightx-shards")


def test_every_source_is_offered():
    shown = relightx_shards("build", "--help").stdout
    assert all(name in shown for name in ("synthetic", "yaleb", "folder"))


def test_a_file_that_is_no_picture_is_refused(copy, tmp_path):
    (copy / "s03" / "light001.png").write_bytes(b"no picture at all")
    assert "s03/light001.png: is not a picture" in error_of(build(copy, tmp_path / "d"))
    assert sorted(os.listdir(tmp_path)) == ["copy", "d.build-report.json"]


def test_a_file_that_is_no_picture_costs_its_group_where_that_is_allowed(copy, tmp_path):
    (copy / "s03" / "light001.png").write_bytes(b"no picture at all")
    done = build(copy, tmp_path / "d", "--max-skipped", "0.1")
    assert done.returncode == 0, done.stderr
    assert "skipped s03: " in done.stderr and "s03/light001.png: is not a picture" in done.stderr
    report = json.loads((tmp_path / "d" / "build-report.json").read_text())
    assert [entry["key"] for entry in report["skipped"]["list"]] == ["s03"]
    assert sum(total["groups"] for total in report["splits"].values()) == 11
    assert relightx_shards("verify", tmp_path / "d").returncode == 0


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty: is empty" in error_of(build(tmp_path / "empty", tmp_path / "d"))
    assert "none: does not exist" in error_of(build(tmp_path / "none", tmp_path / "d"))
    assert os.listdir(tmp_path) == ["empty"]


@pytest.mark.parametrize("workers", [1, 2])
def test_sizes_that_differ_are_refused(copy, tmp_path, make_portrait, workers):
    smaller = encode(make_portrait(size=16))["light002.png"]
    (copy / "s11" / "light002.png").write_bytes(smaller)
    message = error_of(build(copy, tmp_path / "d", "--workers", workers))
    assert "s11/light002.png: is 16x16" in message and "32x32" in message
    assert sorted(os.listdir(tmp_path)) == ["copy", "d.build-report.json"]


def test_a_missing_light_is_refused(copy, tmp_path):
    lights = [{"file": f"light00{i}.png"} for i in range(4)]
    (copy / "s05" / "group.json").write_text(json.dumps({"lights": lights}))
    message = error_of(build(copy, tmp_path / "d"))
    assert "s05/group.json: lists light 'light003.png', which is not in the folder" in message


def test_a_directory_in_use_is_refused_before_any_work(root, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("mine")
    assert "already exists and is not empty" in error_of(build(root, tmp_path / "d"))
    message = error_of(build(root, tmp_path / "d", "--overwrite"))
    assert "will not be overwritten" in message
    assert contents(tmp_path / "d") == {"mine.txt": b"mine"}


def test_a_data_set_is_overwritten_when_asked(root, built, tmp_path):
    shutil.copytree(built, tmp_path / "d")
    again = build(root, tmp_path / "d", "--overwrite", "--split", "test=1")
    assert again.returncode == 0, again.stderr
    assert sorted(os.listdir(tmp_path / "d")) == ["build-report.json", "test"]
    assert "no subject fell to train or val" in again.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "train=0.8,val=0.1"], "sum to 0.9"),
        (["--split", "train=0.8,dev=0.2"], "'dev' is unknown"),
        (["--split-file", "/nowhere.json"], "/nowhere.json: the split file cannot be read"),
        (["--split", "test=1", "--split-file", "a.json"], "not allowed with"),
        (["--workers", "0"], "0 given, at least 1 needed"),
        (["--workers", "two"], "'two' is not a whole number"),
        (["--shard-mb", "0"], "at least 1"),
        (["--split-see", "1"], "unrecognized arguments: --split-see"),
        (["--transfer", "gamma"], "invalid choice: 'gamma'"),
    ],
)
def test_impossible_flags_are_refused(root, tmp_path, flags, message):
    assert message in error_of(build(root, tmp_path / "d", *flags))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["verify", "list"])
def test_a_directory_that_is_no_data_set_is_refused(tmp_path, command):
    assert "no index.json" in error_of(relightx_shards(command, tmp_path))
    assert "does not exist" in error_of(relightx_shards(command, tmp_path / "none"))


def test_a_command_and_a_source_are_needed():
    assert "COMMAND" in error_of(relightx_shards())
    assert "SOURCE" in error_of(relightx_shards("build"))


def test_preview_refuses_before_it_writes(tmp_path):
    shown = relightx_shards("preview", tmp_path, "--out", tmp_path / "a.png")
    assert "no index.json" in error_of(shown)
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """A thousand subjects that share the files of one, and the data set that they make."""
    root = tmp_path_factory.mktemp("many")
    members = encode(ball(size=48))
    for number in range(1000):
        subject = root / "many" / f"s{number:04d}"
        subject.mkdir(parents=True)
        for name in ("light000.png", "light001.png", "light002.png"):
            if number:
                os.link(root / "many/s0000" / name, subject / name)
            else:
                (subject / name).write_bytes(members[name])
    assert build(root / "many", root / "undisturbed", "--shard-mb", "0.3").returncode == 0
    return root


def stopped(many, out, number, *flags):
    """A build that got a signal as soon as its second shard was finished."""
    command = [sys.executable, "-m", "shards.cli", "build", "folder", "--in", many / "many"]
    command += ["--out", out, "--shard-mb", "0.3", *flags]
    # Where the tests run in the background, a shell has them, and what they start, ignore Ctrl-C.
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeded)
    second = out.with_name(f".{out.name}.partial") / "train/shard-000001.tar"
    while not second.exists():
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert not out.exists() and not list(out.parent.rglob("index.json"))
    return child.returncode, errors


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_stopped_shows_nothing_and_goes_on_when_asked(
    many, tmp_path, workers, sign
):
    out = tmp_path / "d"
    status, errors = stopped(many, out, sign, "--workers", workers)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[sign]
    assert "Traceback" not in errors
    if sign != signal.SIGKILL:
        assert "finished shards are kept; --resume goes on with them" in errors
        left = [path.name for path in (tmp_path / ".d.partial").rglob("*")]
        assert not any("partial" in name or "writing" in name for name in left)
    assert "unfinished build is there" in error_of(build(many / "many", out, "--shard-mb", "0.3"))
    done = build(many / "many", out, "--shard-mb", "0.3", "--resume", "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(many / "undisturbed")
    assert os.listdir(tmp_path) == ["d"]


def test_an_unfinished_build_is_thrown_away_when_asked(many, root, tmp_path):
    stopped(many, tmp_path / "d", signal.SIGKILL)
    assert "unfinished build there is another one" in error_of(
        build(root, tmp_path / "d", "--resume")
    )
    built = build(root, tmp_path / "d", "--overwrite")
    assert built.returncode == 0, built.stderr
    assert os.listdir(tmp_path) == ["d"] and read_index(tmp_path / "d" / "train").groups


def test_a_terminal_gets_a_bar(root, tmp_path):
    above, below = pty.openpty()
    command = [sys.executable, "-m", "shards.cli", "build", "folder", "--in", root]
    child = subprocess.Popen(
        [*command, "--out", tmp_path / "d"], stdout=subprocess.DEVNULL, stderr=below
    )
    assert child.wait() == 0
    assert b"12/12" in os.read(above, 2**16)
    os.close(above)
    os.close(below)
