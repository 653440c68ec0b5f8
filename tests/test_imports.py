"""Imports point one way. A new module gets a place in LAYERS; an upward import has another cure."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up: a module of relightx imports only from rows above its own. `data` and `model`
# are folders, whose own modules may import each other without a circle.
LAYERS = (
    ("color", "codec", "metatext", "parent", "pose", "raycluster", "sh", "stage", "storage"),
    ("ending", "measures", "runlog", "settings"),
    ("batch", "layers", "index"),
    ("sample",),
    ("picture", "boards"),
    ("environment", "data", "model", "losses", "metrics", "optim", "face", "tracking"),
    ("light", "confidence"),
    ("baselines", "checkpoint", "meter", "panels", "backend"),
    ("config", "saving"),
    ("evaluate", "portrait", "benchdata", "benchtrain"),
    ("validation",),
    ("train", "pictures", "gallery", "labelfiles"),
    ("report", "pseudolabel", "runs", "sweep"),
    ("quickstart",),
    ("cli",),
    ("__main__",),
)
LAYER = {f"relightx.{name}": level for level, row in enumerate(LAYERS) for name in row}

SHARDS_MAY_IMPORT = {
    *("color", "codec", "pose", "raycluster", "sh", "storage"),
    *("layers", "sample", "index", "environment", "picture", "face"),
}

# Named for an annotation under TYPE_CHECKING, never loaded: a light is read off a photograph by a
# model, and the model answers with a light.
ONLY_NAMED = {("relightx.light", "relightx.portrait")}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(file): file
    for package in ("relightx", "shards")
    for file in sorted((ROOT / package).rglob("*.py"))
}


def imported(module: str) -> set[str]:
    """Our own modules that a module imports, wherever in its file."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import; say the whole name"
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found |= (inner & FILES.keys()) or {node.module}
    ours = {name for name in found if name.split(".")[0] in ("relightx", "shards")}
    return {name for name in ours if (module, name) not in ONLY_NAMED}


def part(module: str) -> str:
    """The file or folder of relightx that has a layer."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", [m for m in FILES if m.startswith("relightx.")])
def test_a_module_imports_only_from_lower_layers(module):
    assert part(module) in LAYER, f"{module} has no place in LAYERS of {Path(__file__).name}"
    below = {name for name in imported(module) if part(name) != part(module)}
    upward = {
        name
        for name in below
        if name.startswith("relightx") and LAYER.get(part(name), 99) >= LAYER[part(module)]
    }
    assert not upward
    if module != "relightx.quickstart":
        assert not any(name.startswith("shards") for name in below)


@pytest.mark.parametrize("module", [m for m in FILES if m.split(".")[0] == "shards"])
def test_shards_stands_on_the_foundation_alone(module):
    ours = {name for name in imported(module) if name.startswith("relightx")}
    assert ours <= {f"relightx.{name}" for name in SHARDS_MAY_IMPORT}


def test_no_import_goes_in_a_circle():
    try:
        TopologicalSorter({module: imported(module) for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def loaded(module: str, names: tuple[str, ...]) -> str:
    """Which of some modules are loaded once a module is."""
    program = f"import sys, {module}; sys.exit(','.join(n for n in {names} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stderr.strip()


@pytest.mark.parametrize("package", ["relightx", "shards"])
def test_a_package_itself_loads_nothing_heavy(package):
    """The command lines answer --help at once because of this."""
    assert loaded(package, ("torch", "cv2", "accelerate", "webdataset", "torchmetrics")) == ""


@pytest.mark.parametrize("module", ["relightx.config", "relightx.sweep.drive"])
def test_what_begins_a_trial_loads_no_torch(module):
    """It takes two seconds, in the driver of a sweep and in each of its workers."""
    assert loaded(module, ("torch", "accelerate")) == ""
