"""The command answers at once, explains itself, and refuses bad input in one line with status 2."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from relightx.checkpoint import save_model
from relightx.cli import main
from relightx.model import IntrinsicNet, ModelConfig

COMMANDS = ("quickstart", "train", "evaluate", "decompose", "relight")
LEAN = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, as a person starts it."""
    command = str(Path(sys.executable).parent / "relightx")
    return subprocess.run([command, *arguments], env=LEAN, capture_output=True, text=True)


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.effect_mandelbrot((48, 40), (-2, -1.2, 1, 1.2), 20).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def refusal(arguments: list[object], capsys) -> str:
    """What a wrong request is told: one line, nothing on standard output, status 2."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr()
    assert status == 2 and said.out == ""
    assert "Traceback" not in said.err
    last = said.err.strip().splitlines()[-1]
    assert ": error: " in last
    return last


def test_help_answers_in_under_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = run("--help")
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert all(f"\n    {command}" in done.stdout for command in COMMANDS)
    assert min(times) < 1


@pytest.mark.parametrize("command", ["", "quickstart", "evaluate", "decompose", "relight"])
def test_help_imports_nothing_heavy(command):
    program = (
        "import sys\nfrom relightx.cli import main\n"
        f"try:\n    main({[command] if command else []} + ['--help'])\n"
        "except SystemExit as stopped:\n    assert stopped.code == 0\n"
        "print('HEAVY', {'torch', 'numpy', 'cv2', 'accelerate', 'rich'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=LEAN, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "HEAVY set()", done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: relightx {command}") and len(said) > 400


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "relightx", "--help"], env=LEAN, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: relightx ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dekompose"],
        ["decompose"],
        ["decompose", "--model", "m", "photo.png"],
        ["decompose", "--mod", "m", "photo.png", "--out", "o"],
        ["relight", "--model", "m", "photo.png", "--out", "o.png"],
        ["evaluate", "--model", "m"],
        ["evaluate", "--model", "m", "--data", "d", "--lights", "many"],
        ["quickstart", "--minutes", "soon"],
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_loaded(arguments, capsys):
    refusal(arguments, capsys)


def test_decompose_writes_its_pictures(tiny_model, photo, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["decompose", "--model", str(tiny_model), str(photo), "--out", str(out)]) == 0
    assert len(list(out.iterdir())) == 6
    with Image.open(out / "albedo.png") as picture:
        assert picture.size == (48, 40)
    assert "no face found; the whole picture is taken for one" in capsys.readouterr().err


def test_relight_takes_every_kind_of_light(tiny_model, photo, tmp_path):
    out = tmp_path / "out"
    request = ["--model", str(tiny_model), str(photo)]
    assert main(["decompose", *request, "--out", str(out)]) == 0
    seen = set()
    for number, spec in enumerate(("direction:60,20", str(out / "light.json"), str(photo))):
        file = tmp_path / f"relit{number}.png"
        assert main(["relight", *request, "--light", spec, "--out", str(file)]) == 0
        with Image.open(file) as picture:
            assert picture.size == (48, 40)
            seen.add(picture.tobytes())
    assert len(seen) == 2  # the light read off the photograph is that of its light.json


def test_evaluate_prints_a_table_and_writes_json(tiny_run, tiny_shards, tmp_path, capsys):
    arguments = ["evaluate", "--model", tiny_run, "--data", tiny_shards / "test"]
    arguments += ["--baselines", tiny_shards / "train", "--out", tmp_path / "result.json"]
    assert main([str(argument) for argument in arguments]) == 0
    assert "mean_face" in capsys.readouterr().out
    assert (tmp_path / "result.json").stat().st_size > 1000


@pytest.mark.parametrize("command", ["decompose", "relight"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"Dear sir or madam", "is not a picture that can be read"),
        (b"", "is empty"),
    ],
)
def test_a_photograph_that_is_none_is_refused(
    tiny_model, tmp_path, command, content, message, capsys
):
    file = tmp_path / "portrait.png"
    if content is not None:
        file.write_bytes(content)
    out = tmp_path / ("out" if command == "decompose" else "out.png")
    light = ["--light", "direction:0,0"] if command == "relight" else []
    said = refusal([command, "--model", tiny_model, file, *light, "--out", out], capsys)
    assert said.startswith(f"relightx {command}: error: {file}: ") and message in said
    assert not out.exists()


def test_a_truncated_photograph_is_refused(tiny_model, photo, tmp_path, capsys):
    photo.write_bytes(photo.read_bytes()[:-400])
    out = tmp_path / "out"
    said = refusal(["decompose", "--model", tiny_model, photo, "--out", out], capsys)
    assert f"{photo}: is broken (" in said
    assert not out.exists()


def test_a_model_of_another_architecture_is_refused(photo, tmp_path, capsys):
    unet = IntrinsicNet(ModelConfig("unet", 8)).state_dict()
    save_model(tmp_path / "m", ModelConfig("sfsnet"), unet, 32, {})
    said = refusal(["decompose", "--model", tmp_path / "m", photo, "--out", tmp_path / "o"], capsys)
    assert "weights of another architecture than {'preset': 'sfsnet'" in said
    assert not (tmp_path / "o").exists()


def test_what_is_no_model_is_refused(photo, tmp_path, tiny_shards, capsys):
    for command in (
        ["decompose", "--model", photo, photo, "--out", tmp_path / "o"],
        ["relight", "--model", tmp_path, photo, "--light=direction:0,0", "--out", "o.png"],
        ["evaluate", "--model", tmp_path, "--data", tiny_shards / "test"],
    ):
        assert "no model here (config.json is missing)" in refusal(command, capsys)


@pytest.mark.parametrize("spec", ["direction:400,0", "direction:1", "the sun", "photo.txt"])
def test_an_impossible_light_is_refused(tiny_model, photo, tmp_path, spec, capsys):
    out = tmp_path / "out.png"
    arguments = ["relight", "--model", tiny_model, photo, "--light", spec, "--out", out]
    assert "light" in refusal(arguments, capsys)
    assert not out.exists()


def test_a_used_directory_is_refused_untouched(tiny_model, photo, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    said = refusal(["decompose", "--model", tiny_model, photo, "--out", out], capsys)
    assert f"{out}: already there and not empty" in said
    assert [entry.name for entry in out.iterdir()] == ["mine.txt"]


def test_a_picture_of_another_ending_is_refused_before_any_work(tmp_path, capsys):
    arguments = ["relight", "--model", "nowhere", "none.png", "--light", "direction:0,0"]
    assert "ends in '.gif'" in refusal([*arguments, "--out", tmp_path / "o.gif"], capsys)


def test_evaluate_refuses_what_is_no_split_or_broken(tiny_model, tiny_shards, tmp_path, capsys):
    request = ["evaluate", "--model", tiny_model, "--data"]
    assert "no index.json found" in refusal([*request, tmp_path], capsys)
    shutil.copytree(tiny_shards / "val", tmp_path / "val")
    shard = next((tmp_path / "val").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1])
    said = refusal([*request, tmp_path / "val", "--out", tmp_path / "result.json"], capsys)
    assert f"{shard}: portrait" in said and "the shard has" in said
    assert not (tmp_path / "result.json").exists()


def test_train_is_the_training_program(tmp_path, capsys):
    said = refusal(["train", f"--run.dir={tmp_path / 'run'}", "--loss.cross_relightin=1"], capsys)
    assert said.startswith("relightx train: error: unknown option --loss.cross_relightin; did you")
    said = refusal(["train", f"--run.dir={tmp_path / 'run'}"], capsys)
    assert "data.train is empty" in said
    assert not (tmp_path / "run").exists()
