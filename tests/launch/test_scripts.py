import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch"), ROOT / ".ci" / "run"])
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE"),
    *("relightx", "launch", "shards", "configs", "tests"),
}
# Joined here, so that this file does not hold what it forbids.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"))]
HOSTS.append(".".join(("download", "pytorch", "org")))


def tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout, to know which files are tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what install.sh reads, without the checkout's .venv."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT / "launch", copy / "launch")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH with what the scripts call, and no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "flock", "grep", "sha256sum", "tail", "tee"):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def install(project: Path, *extras: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("bash"), str(project / "launch" / "install.sh"), *extras]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_no_syntax_error_and_stops_at_the_first_failure(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run([shellcheck, "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_a_machine_without_python_is_refused(project, tools):
    refused = install(project, PATH=str(tools))
    assert refused.returncode == 2
    assert "Python 3.11 or newer is needed" in refused.stderr
    assert "python3-venv" in refused.stderr
    assert not (project / ".venv").exists()


def test_a_python_without_its_venv_package_is_refused(project, tools, tmp_path):
    (tools / "python3").symlink_to(sys.executable)
    # What Debian's python3 does before python3-venv is installed.
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "ensurepip.py").write_text("raise ModuleNotFoundError('ensurepip')\n")
    refused = install(project, PATH=str(tools), PYTHONPATH=str(missing))
    assert refused.returncode == 2
    assert "apt-get install python3-venv" in refused.stderr
    assert not (project / ".venv").exists()


def test_an_unknown_build_of_torch_is_refused(project):
    refused = install(project, RELIGHTX_TORCH="tpu")
    assert refused.returncode == 2
    assert "'tpu'" in refused.stderr and "cpu or gpu" in refused.stderr


def test_a_broken_environment_is_refused_and_left_as_it_is(project):
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    refused = install(project, RELIGHTX_TORCH="cpu")
    assert refused.returncode == 2
    assert "Move it away" in refused.stderr
    assert python.read_text() == "#!/bin/sh\nexit 1\n"


def test_an_unknown_extra_is_refused_before_anything_is_installed(project):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    refused = install(project, "synthetic,syntetic", RELIGHTX_TORCH="cpu")
    assert refused.returncode == 2
    assert "extras syntetic are unknown" in refused.stderr and "synthetic" in refused.stderr


def test_no_tracked_file_names_a_registry_host_or_a_path_of_this_machine():
    places = [re.escape(host) for host in HOSTS] + ["/home/[a-z]", "/Users/[A-Z]"]
    parent = str(ROOT.parent)
    if len(ROOT.parent.parts) > 1 and parent != "/tmp":
        places.append(rf"(?<![\w.]){re.escape(parent)}/")
    forbidden = re.compile("|".join(places).encode())
    found = [
        f"{name}: {match.group().decode()}"
        for name in tracked()
        if (match := forbidden.search((ROOT / name).read_bytes()))
    ]
    assert found == []


def test_the_top_level_holds_only_what_belongs_there():
    names = {Path(name).parts[0] for name in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
