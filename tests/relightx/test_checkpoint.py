"""What is committed is whole, whenever the program dies; what is damaged is never loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from relightx.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_model,
    newest_checkpoint,
    save_checkpoint,
    save_model,
)
from relightx.model import IntrinsicNet, ModelConfig


def checkpoint(step: int) -> Checkpoint:
    weights = {"weight": torch.full((8, 4, 3, 3), float(step)), "steps": torch.tensor(step)}
    weights["weight"] = weights["weight"].contiguous(memory_format=torch.channels_last)
    average = {name: value / 2 for name, value in weights.items()}
    optimizer = {"exp_avg.weight": weights["weight"] * 3}
    return Checkpoint(step, weights, average, optimizer, {"best": None, "note": f"at {step}"})


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    saved = checkpoint(7)
    path = save_checkpoint(tmp_path, saved, keep=2)
    assert path.name == "step-00000007"
    found = load_checkpoint(path)
    assert (found.step, found.about) == (7, saved.about)
    for name in ("weights", "average", "optimizer"):
        torch.testing.assert_close(getattr(found, name), getattr(saved, name), rtol=0, atol=0)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path, keep):
    for step in range(10, 60, 10):
        save_checkpoint(tmp_path, checkpoint(step), keep)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == [f"step-{step:08d}" for step in range(10, 60, 10)][-keep:]


def test_what_a_killed_process_left_takes_no_room_for_long(tmp_path):
    for left in (".step-00000003.old", ".step-00000009.partial", ".sending-abc"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "model.safetensors").write_bytes(b"1")
    save_checkpoint(tmp_path, checkpoint(5), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_saving_a_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, checkpoint(5), keep=2)
    changed = Checkpoint(5, {"weight": torch.ones(1)}, {}, {}, {})
    save_checkpoint(tmp_path, changed, keep=2)
    assert newest_checkpoint(tmp_path)[0].weights.keys() == {"weight"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000005"]


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) == (None, [])
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "average.safetensors", "optimizer.safetensors"]
)
def test_a_damaged_newest_is_passed_over_with_a_reason(tmp_path, name, damage):
    for step in (1, 2):
        newest = save_checkpoint(tmp_path, checkpoint(step), keep=2)
    damage(newest / name)
    found, reasons = newest_checkpoint(tmp_path)
    assert found.step == 1
    assert reasons == [f"{newest}: {name} is missing or not as it was written"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"step": 2}'])
def test_a_record_that_cannot_be_read_is_passed_over_too(tmp_path, content):
    for step in (1, 2):
        newest = save_checkpoint(tmp_path, checkpoint(step), keep=2)
    (newest / "checkpoint.json").write_text(content)
    found, reasons = newest_checkpoint(tmp_path)
    assert found.step == 1
    assert len(reasons) == 1 and "checkpoint.json cannot be read" in reasons[0]


KILLED_WHILE_SAVING = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from relightx.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint

directory, rounds = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
random.seed(0)

def save_for_ever(first, report):
    for step in range(first, 10**6):
        weights = {"weight": torch.full((300, 300), float(step))}
        save_checkpoint(directory, Checkpoint(step, weights, weights, weights, {}), keep=2)
        os.write(report, step.to_bytes(8, "big"))

step = 0
for round in range(rounds):
    heard, report = os.pipe()
    child = os.fork()
    if child == 0:
        save_for_ever(step + 1, report)
    os.close(report)
    os.read(heard, 8)
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    committed = step + 1
    while data := os.read(heard, 8):
        committed = int.from_bytes(data, "big")
    os.close(heard)
    found, passed_over = newest_checkpoint(directory)
    remains = [entry.name for entry in directory.iterdir() if entry.name.startswith(".")]
    print(json.dumps({
        "committed": committed, "step": found.step, "passed_over": passed_over,
        "values": [found.weights["weight"].unique().tolist(),
                   found.average["weight"].unique().tolist(),
                   found.optimizer["weight"].unique().tolist()],
        "in_the_middle": bool(remains),
    }), flush=True)
    step = found.step
"""


def test_a_kill_while_saving_never_leaves_a_broken_newest_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), "30"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 30
    assert sum(found["in_the_middle"] for found in rounds) >= 2  # the kills did hit a saving
    for found in rounds:
        assert found["passed_over"] == []
        assert found["step"] in (found["committed"], found["committed"] + 1)
        assert found["values"] == [[float(found["step"])]] * 3
    assert len(list(tmp_path.glob("step-*"))) <= 3


def test_a_model_comes_back_with_the_same_answers(tmp_path):
    network = IntrinsicNet(ModelConfig("unet", 8)).eval()
    save_model(tmp_path / "run" / "model", network.config, network.state_dict(), 32, {"steps": 3})
    image = torch.rand(1, 2, 3, 32, 32)
    for path in ("run", "run/model", "run/model/model.safetensors", "run/model/config.json"):
        loaded, content = load_model(tmp_path / path)
        assert not loaded.training
        assert (content["image_size"], content["about"]) == (32, {"steps": 3})
        with torch.no_grad():
            torch.testing.assert_close(loaded(image).albedo, network(image).albedo)


def test_a_model_saved_again_is_replaced_whole(tmp_path):
    for width in (8, 16):
        network = IntrinsicNet(ModelConfig("unet", width))
        save_model(tmp_path / "model", network.config, network.state_dict(), 32, {})
    assert load_model(tmp_path / "model")[0].config.width == 16
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.fixture
def damaged(tiny_model, tmp_path):
    """A copy of a model, to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rewrite(directory: Path, **changes: object) -> None:
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"preset": "sfsnet", "width": 32}, r"another architecture than .*sfsnet.*tensors missing"),
        ({"preset": "unet", "width": 16}, r"another architecture than .*has shape .* needed"),
        ({"preset": "resnet", "width": 8}, r"the model cannot be read: .*preset"),
        ({"preset": "unet", "width": 7}, r"the model cannot be read: model.width is 7"),
        ({"preset": "unet", "depth": 7}, r"the model cannot be read: .*depth"),
    ],
)
def test_weights_of_another_architecture_are_refused(damaged, named, message):
    rewrite(damaged, model=named)
    with pytest.raises(ValueError, match=rf"(?s){damaged}.*{message}"):
        load_model(damaged)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a relightx model"),
        ("[1, 2]", "not of format relightx-model-1"),
        ('{"format": "relightx-model-1"}', "not a relightx model: 'model'"),
        ('{"architectures": ["BertModel"]}', "not of format relightx-model-1"),
    ],
)
def test_a_config_of_another_kind_is_refused(damaged, content, message):
    (damaged / "config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{damaged}/config.json: .*{message}"):
        load_model(damaged)


@pytest.mark.parametrize("size", ["64", 0, -32, 40, True, None])
def test_an_impossible_picture_size_is_refused(damaged, size):
    rewrite(damaged, image_size=size)
    with pytest.raises(ValueError, match=r"image_size is"):
        load_model(damaged)


@pytest.mark.parametrize("length", [0, 4, 100, 20_000])
def test_truncated_weights_are_refused(damaged, length):
    with open(damaged / "model.safetensors", "rb+") as stream:
        stream.truncate(length)
    with pytest.raises(ValueError, match=rf"{damaged}: the model cannot be read"):
        load_model(damaged)


def test_missing_weights_are_refused(damaged):
    (damaged / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"{damaged}: the model cannot be read: No such file"):
        load_model(damaged)


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"not a model")
    for path in (tmp_path, tmp_path / "photo.png", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"no model here \(config.json is missing\)"):
            load_model(path)
