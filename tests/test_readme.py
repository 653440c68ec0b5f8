"""The README is run: every command in it, in order, in one directory, with smaller numbers.

What makes a command small is written in SMALLER; a command in the README without an entry there
fails, so none can be added untested. Two are run elsewhere too: the quickstart's own test runs it
longer, and launch/test.sh is what runs these tests.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relightx.losses import LOSSES
from relightx.measures import METRICS

ROOT = Path(__file__).parents[1]
YALE = ROOT.parent / "shared/data/yaleb"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
COMMANDS = [line for block in BLOCKS for line in block.strip().splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.S)
SNIPPET = next(block for block in PYTHON if block.startswith("import relightx"))
SOURCE = next(block for block in PYTHON if block.startswith('"""Source'))

# Beginning of a command -> options that make it small (a later option wins).
SMALLER = {
    "bash launch/quickstart.sh": "--minutes 0.05 --heads 24 --size 64"
    " --out {project}/runs/quickstart",
    "bash launch/test.sh": "--collect-only -q tests/relightx/test_color.py",
    "relightx-shards build synthetic": "--heads 24 --lights 3",
    "relightx-shards build synthetic --heads 64": "--heads 8 --lights 2 --size 64",
    "relightx-shards plan folder": "",
    "relightx-shards build folder": "--split train=1",
    "relightx-shards build yaleb": "",
    "relightx-shards verify": "",
    "relightx-shards list": "",
    "relightx-shards stats": "",
    "relightx-shards preview": "",
    "relightx-shards merge": "",
    "relightx-shards reshard": "",
    "relightx-shards split": "",
    "accelerate launch --config_file configs/accelerate/single.yaml": "--run.steps 3"
    " --data.batch_size 2 --data.image_size 32 --run.validate_lights 2",
    "accelerate launch --config_file configs/accelerate/ddp_cpu.yaml": "--run.steps 2"
    " --run.validate_every 2",
    "relightx bench-data": "--batches 2 --warm-up 1",
    "relightx bench-train": "--steps 1 --warm-up 1",
    "relightx runs": "",
    "relightx sweep --config configs/sweep/smoke.yaml": "",
    "relightx sweep --config configs/sweep/supervision.yaml": "--dry-run",
    "relightx sweep-report": "",
    "relightx sweep-best": "",
    "relightx evaluate": "--lights 3",
    "relightx pseudolabel": "",
    "relightx decompose": "",
    "relightx relight": "",
    "python tests/benchmarks/rendering.py": "--heads 4",
    "python tests/benchmarks/rendering.py --light": "--heads 2 --size 64 --one-by-one 2",
    "python tests/benchmarks/training.py": "--images 2 --size 32 --steps 1 --matrix 64",
    "python tests/benchmarks/training_recipe.py": "--size 32 --rounds 1",
    "python tests/benchmarks/training_processes.py": "--size 32 --portraits 1 --steps 1 --rounds 1",
    "python tests/benchmarks/checkpointing.py": "--width 8 --size 32 --rounds 1 --every 4",
    "python tests/benchmarks/sweeping.py --many": "--many 3",
    "python tests/benchmarks/sweeping.py": "--minutes 0.02 --size 32 --width 8",
    "python tests/benchmarks/training_gpu.py": "--size 32 --portraits 2 --steps 1"
    " --precision float32 --presets unet:8",
    "python tests/benchmarks/photometric_stereo.py": "",
    "python tests/benchmarks/shard_building.py --memory": "--memory 20 40",
    "python tests/benchmarks/shard_building.py": "--groups 12 --size 32 --repeats 1",
    "python tests/benchmarks/image_storage.py": "--heads 2 --size 64",
    "python tests/benchmarks/estimated_lights.py": "--help",
    "python tests/benchmarks/quickstart.py": "--help",
    "python tests/benchmarks/loaders.py": "--help",
    "python tests/benchmarks/loader_scale.py": "--groups 1000 2000",
    "python tests/benchmarks/index_scale.py": "--groups 1000 2000",
    "python tests/benchmarks/cluster_order.py": "--groups 4096 --shards 64 --batch-size 64"
    " --streams 8 --window 2 --ranks 8 16",
    "python tests/benchmarks/decoding.py": "--heads 1 --rounds 1",
}


def smaller(command: str, project: Path) -> list[str]:
    starts = [start for start in SMALLER if command.startswith(start)]
    assert starts, f"SMALLER needs an entry for the README's command: {command}"
    options = SMALLER[max(starts, key=len)]
    return shlex.split(command) + shlex.split(options.format(project=project))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A directory that looks like the project's root, with captures and a portrait in it."""
    directory = tmp_path_factory.mktemp("project")
    for name in ("configs", "tests"):
        (directory / name).symlink_to(ROOT / name)
    noise = np.random.default_rng(0)
    for subject in ("anna", "ben"):
        (directory / "captures" / subject).mkdir(parents=True)
        for light in ("left", "right"):
            pixels = noise.integers(0, 255, (64, 48, 3), np.uint8)
            Image.fromarray(pixels).save(directory / "captures" / subject / f"{light}.png")
    for name in ("portrait.jpg", "other.jpg"):
        shutil.copy(next((ROOT / "relightx/photos").glob("*.jpg")), directory / name)
    if YALE.is_dir():
        (directory / "yaleb").symlink_to(YALE)
    return directory


photographs = pytest.mark.skipif(
    not YALE.is_dir(), reason="needs the photographs of ../shared/data/yaleb"
)


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # other tests have the other core
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@photographs
@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda n: COMMANDS[n][:60])
def test_each_command_runs_after_those_before_it(number, project, on_one_core):
    command = COMMANDS[number]
    # The scripts install into the root that they lie in. What they train takes all cores it may,
    # and would wait for those that other tests have.
    is_script = command.startswith("bash launch/")
    with on_one_core() if is_script else nullcontext():
        done = run(smaller(command, project), ROOT if is_script else project)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@photographs
def test_the_commands_leave_what_is_told_and_the_python_lines_run(project):
    assert (project / "runs/quickstart/report.html").is_file()
    assert (project / "decomposed/albedo.png").is_file() and (project / "relit.png").is_file()
    done = run(
        [sys.executable, "-c", SNIPPET + "\nassert relit.shape == result.image.shape\n"], project
    )
    assert done.returncode == 0, done.stderr


def test_the_source_that_the_readme_adds_builds_a_data_set(tmp_path):
    assert len(SOURCE.splitlines()) < 30
    noise = np.random.default_rng(0)
    (tmp_path / "pairs").mkdir()
    for name in ("anna", "ben"):
        for light in ("flash", "plain"):
            pixels = noise.integers(0, 255, (64, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pairs" / f"{name}_{light}.jpg")
    # A copy of the package gets the module and the line, and nothing else.
    shutil.copytree(ROOT / "shards", tmp_path / "shards")
    (tmp_path / "shards/sources/flash.py").write_text(SOURCE)
    registry = tmp_path / "shards/sources/__init__.py"
    line = re.search(r'`("flash": "[^"]*",)`', README).group(1)
    registry.write_text(registry.read_text().replace("SOURCES = {", f"SOURCES = {{\n    {line}"))
    command = [sys.executable, "-m", "shards.cli", "build", "flash", "--in", "pairs", "--out", "d"]
    done = run([*command, "--split", "train=1", "--workers", "2", "--licence", "ours"], tmp_path)
    assert done.returncode == 0, done.stderr
    held = run([sys.executable, "-m", "shards.cli", "list", "d"], tmp_path).stdout
    assert "train          2         2       4" in held and "ours" in held


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_has_its_row_in_the_words_of_its_docstring(name):
    sentence = LOSSES[name].__doc__.splitlines()[0]
    assert f"| `{name}` | {sentence} |" in README


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_has_its_row_with_its_direction(name):
    about = METRICS[name]
    better = "higher" if about.higher_is_better else "lower"
    assert f"| `{name}` | {better} | {about.unit} | {about.meaning} |" in README


def test_each_picture_in_the_readme_is_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()
