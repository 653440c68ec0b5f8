"""Every portrait of a split is labelled once, whatever interrupts, and one can train on it.

The last test goes SfSNet's three steps with everything small: train on shards with labels, label
photographs in CelebA's layout, train on both.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from index_edit import change_groups
from scipy.stats import spearmanr

from relightx.checkpoint import load_model, save_model
from relightx.cli import main
from relightx.codec import decode_picture, encode_jpeg
from relightx.color import to_srgb8
from relightx.data import DataConfig, training_batches
from relightx.index import read_index
from relightx.losses import LossWeights, total_loss
from relightx.model import IntrinsicNet, ModelConfig
from relightx.pseudolabel import pseudolabel
from relightx.sample import Portrait, without_labels
from relightx.sh import shade
from relightx.train import main as train
from shards.sources.celeba import celeba
from shards.write import write_split


def picture(file: Path, size: tuple[int, int]) -> np.ndarray:
    stored = decode_picture(file.read_bytes(), size)
    return stored / np.float32(np.iinfo(stored.dtype).max)


def light(directory: Path, key: str) -> dict:
    return json.loads((directory / f"{key}.light.json").read_text())


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def damage(split: Path, key: str) -> None:
    """Break a portrait's first picture; its shard keeps its size."""
    for shard in read_index(split).shards:
        for group in shard.groups:
            if group.key == key:
                offset, size = group.members["light000.png"]
                with open(split / shard.name, "r+b") as stream:
                    stream.seek(offset + size // 2)
                    stream.write(bytes(size - size // 2))


@pytest.fixture(scope="module")
def labelled(tiny_run, tiny_shards, tmp_path_factory) -> Path:
    """The labels of a trained model for four balls under four lights."""
    out = tmp_path_factory.mktemp("labels") / "test"
    pseudolabel(tiny_run, tiny_shards / "test", out)
    return out


def test_every_portrait_has_its_four_files_and_the_whole_its_summary(labelled, tiny_shards):
    keys = [group.key for group in read_index(tiny_shards / "test").groups]
    endings = ("albedo.png", "normal.png", "confidence.png", "light.json")
    expected = {f"{key}.{ending}" for key in keys for ending in endings}
    assert {file.name for file in labelled.iterdir()} == expected | {"pseudolabels.json"}
    assert [entry.name for entry in labelled.parent.iterdir()] == ["test"]  # nothing half-made


def test_the_summary_says_what_the_labels_were_made_of(labelled, tiny_run, tiny_shards):
    summary = json.loads((labelled / "pseudolabels.json").read_text())
    index = read_index(tiny_shards / "test")
    assert summary["version"] == 1 and summary["data"] == index.sha256
    assert summary["model"]["config"] == {"preset": "unet", "width": 8, "image_size": 32}
    assert len(summary["model"]["sha256"]) == 64
    assert summary["portraits"] == 4 and summary["unreadable"] == {}
    each = [light(labelled, group.key)["confidence"] for group in index.groups]
    assert summary["confidence"]["mean"] == pytest.approx(np.mean(each), abs=1e-3)
    assert min(each) <= summary["confidence"]["quantiles"]["0.5"] <= max(each)


def test_the_labels_explain_the_pictures_as_well_as_the_confidence_says(
    labelled, tiny_shards, make_portrait
):
    for number in range(15, 19):
        portrait = make_portrait(lights=4, seed=number)
        key = f"ball{number}"
        albedo = picture(labelled / f"{key}.albedo.png", (32, 32))
        normal = picture(labelled / f"{key}.normal.png", (32, 32)) * 2 - 1
        confidence = picture(labelled / f"{key}.confidence.png", (32, 32))[..., 0]
        sh = torch.tensor(light(labelled, key)["lights"])
        albedo, normal = (torch.from_numpy(v).movedim(-1, 0) for v in (albedo, normal))
        rebuilt = (albedo * shade(normal, sh).clamp(min=0)).movedim(1, -1).numpy()
        image = portrait.linear_image()
        error = np.sqrt(np.square(rebuilt - image).mean((0, 3)))
        residual = error / np.sqrt(np.square(image).mean((0, 3))).clip(1e-3)
        bright = portrait.mask & (image.mean((0, 3)) > 0.1)
        assert (confidence[bright] <= 1 / (1 + (residual[bright] / 0.1) ** 2) + 0.03).all()
        assert 0.02 < confidence[portrait.mask].mean() < 0.9
        assert (confidence[~portrait.mask] == 0).all()


def test_labels_are_of_the_size_of_the_stored_picture(tiny_model, make_portrait, tmp_path):
    square = replace(make_portrait("tall", lights=1, size=64), mask=None)
    tall = without_labels(square, ("albedo", "normal", "light"))
    tall = replace(tall, image=tall.image[:, :, 10:50])
    write_split([tall], tmp_path / "s", "train")
    pseudolabel(tiny_model, tmp_path / "s", tmp_path / "out")
    for name in ("albedo", "normal", "confidence"):
        picture(tmp_path / "out" / f"tall.{name}.png", (64, 40))
    assert "lights" not in light(tmp_path / "out", "tall")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_labels_do_not_depend_on_workers_or_company(tiny_run, tiny_shards, labelled, tmp_path):
    pseudolabel(tiny_run, tiny_shards / "test", tmp_path / "out", workers=3)
    assert contents(tmp_path / "out") == contents(labelled)


def test_confidence_falls_with_the_error_of_the_normals(tiny_run, make_portrait, tmp_path):
    """Balls that are more and more covered by noise, which the model has never seen."""
    noise, portraits, amounts = np.random.default_rng(0), [], (0.0, 0.1, 0.3, 1.0)
    for number in range(24):
        ball = make_portrait(f"k{number:02d}", lights=1, seed=number)
        amount = amounts[number % len(amounts)]
        mixed = (1 - amount) * ball.image + amount * noise.integers(0, 65535, ball.image.shape)
        portraits.append(replace(ball, image=mixed.astype(np.uint16)))
    write_split(portraits, tmp_path / "s", "train")
    pseudolabel(tiny_run, tmp_path / "s", tmp_path / "out")
    errors, trust = [], []
    for ball in portraits:
        normal = picture(tmp_path / "out" / f"{ball.key}.normal.png", (32, 32)) * 2 - 1
        cosine = (normal * ball.normal).sum(-1)[ball.mask].clip(-1, 1)
        errors.append(np.rad2deg(np.arccos(cosine)).mean())
        trust.append(light(tmp_path / "out", ball.key)["confidence"])
    assert spearmanr(trust, errors).statistic < -0.6
    assert np.mean(trust[::4]) > 2 * np.mean(trust[3::4])


@pytest.fixture
def stopped(tiny_model, tiny_shards, tmp_path) -> tuple[Path, Path]:
    """A split whose last shard is cut short, and where the labels were to go when that was seen."""
    split, out = tmp_path / "train", tmp_path / "labels"
    shutil.copytree(tiny_shards / "train", split)
    last = sorted(split.glob("*.tar"))[-1]
    os.truncate(last, last.stat().st_size - 1000)
    with pytest.raises(
        ValueError, match=rf"of 12 portraits cannot be read.*{last}: .* the shard has .* bytes"
    ):
        pseudolabel(tiny_model, split, out)
    return split, out


def test_a_run_that_was_stopped_is_not_taken_for_whole(stopped, tiny_model):
    split, out = stopped
    assert not out.exists()
    with pytest.raises(ValueError, match=r"labels: a run into it was stopped; .*--resume"):
        pseudolabel(tiny_model, split, out)


def test_resume_does_what_is_left_and_gives_what_one_run_gives(
    stopped, tiny_model, tiny_shards, tmp_path
):
    split, out = stopped
    staged = tmp_path / ".labels.partial"
    before = {file.name: file.stat().st_mtime_ns for file in staged.glob("*.json")}
    assert len(before) > 1  # a portrait, at least, besides the record of the run
    shutil.copytree(tiny_shards / "train", split, dirs_exist_ok=True)
    (staged / "ball11.albedo.png").write_bytes(b"half a pic")  # killed while it wrote
    pseudolabel(tiny_model, split, out, resume=True)
    done = set(before) & {file.name for file in out.iterdir()}
    assert done and all((out / name).stat().st_mtime_ns == before[name] for name in done)
    pseudolabel(tiny_model, split, tmp_path / "at once")
    assert contents(out) == contents(tmp_path / "at once")
    assert not staged.exists()


def test_a_stopped_run_is_not_gone_on_with_by_another_model(stopped, tiny_run):
    split, out = stopped
    with pytest.raises(ValueError, match=r"another model or other data; remove it"):
        pseudolabel(tiny_run, split, out, resume=True)


def test_resume_of_a_whole_run_leaves_it_as_it_is(tiny_run, tiny_model, tiny_shards, labelled):
    before = contents(labelled)
    summary = pseudolabel(tiny_run, tiny_shards / "test", labelled, resume=True)
    assert summary.portraits == 4 and contents(labelled) == before
    with pytest.raises(ValueError, match=r"is of another model or other data"):
        pseudolabel(tiny_model, tiny_shards / "test", labelled, resume=True)


def test_few_unreadable_portraits_are_left_out_and_named(
    tiny_model, make_portrait, tmp_path, capsys
):
    balls = [make_portrait(f"k{number:03d}", lights=1, size=16) for number in range(100)]
    write_split(balls, tmp_path / "s", "train")
    damage(tmp_path / "s", "k042")
    arguments = ["--model", tiny_model, "--data", tmp_path / "s", "--out", tmp_path / "out"]
    assert main(["pseudolabel", *map(str, arguments)]) == 0
    said = capsys.readouterr()
    assert "99 portraits; confidence 0." in said.out
    assert "left out k042:" in said.err and "light000.png" in said.err
    summary = json.loads((tmp_path / "out" / "pseudolabels.json").read_text())
    assert summary["portraits"] == 99 and list(summary["unreadable"]) == ["k042"]
    assert not list((tmp_path / "out").glob("k042*"))


def test_a_folder_that_holds_something_is_refused_and_left(tiny_model, tiny_shards, tmp_path):
    (tmp_path / "mine.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"already there and not empty"):
        pseudolabel(tiny_model, tiny_shards / "val", tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"hello"}
    (tmp_path / "empty").mkdir()
    assert pseudolabel(tiny_model, tiny_shards / "val", tmp_path / "empty").portraits == 3


def test_what_is_no_model_or_no_split_is_refused(tiny_model, tiny_shards, tmp_path):
    with pytest.raises(ValueError, match=r"no model here"):
        pseudolabel(tmp_path, tiny_shards / "val", tmp_path / "out")
    with pytest.raises(ValueError, match=r"no index.json found"):
        pseudolabel(tiny_model, tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match=r"0 workers asked"):
        pseudolabel(tiny_model, tiny_shards / "val", tmp_path / "out", workers=0)
    assert not list(tmp_path.iterdir())


def test_the_command_explains_itself_and_refuses_in_one_line(tiny_shards, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["pseudolabel", "--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "--resume" in said and "build celeba" in said
    options = ["--model", tmp_path, "--data", tiny_shards / "val", "--out", tmp_path / "out"]
    assert main(["pseudolabel", *map(str, options)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("relightx pseudolabel: error: ") and said.count("\n") == 1


def test_a_model_without_an_answer_is_refused(tiny_shards, tmp_path):
    config = ModelConfig("unet", 8)
    weights = {name: torch.full_like(v, torch.nan) for name, v in _weights(config).items()}
    broken = save_model(tmp_path / "model", config, weights, 32, {})
    with pytest.raises(ValueError, match=r"portrait 'ball12': the model's answer is not finite"):
        pseudolabel(broken, tiny_shards / "val", tmp_path / "out")


def test_a_key_that_leads_elsewhere_is_refused(tiny_model, tiny_shards, tmp_path):
    shutil.copytree(tiny_shards / "val", tmp_path / "val")
    change_groups(tmp_path / "val", lambda group: replace(group, key=f"../{group.key}"))
    with pytest.raises(ValueError, match=r"key '../ball12' leads out of a directory"):
        pseudolabel(tiny_model, tmp_path / "val", tmp_path / "out")


def _weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    return IntrinsicNet(config).state_dict()


@pytest.fixture
def celeba_folder(make_portrait, tmp_path) -> Path:
    """Four photographs in CelebA's layout: balls under one light, taller than wide."""
    folder = tmp_path / "celeba" / "Img" / "img_align_celeba"
    folder.mkdir(parents=True)
    for number in range(1, 5):
        ball = make_portrait(lights=1, size=48, seed=100 + number)
        pixels = to_srgb8(ball.linear_image()[0, :, 4:44])
        (folder / f"{number:06d}.jpg").write_bytes(encode_jpeg(pixels, 95))
    return tmp_path / "celeba"


def portraits_of(source: Callable, root: Path, **options) -> list[Portrait]:
    return [group.read() for group in source(root, **options)]


def test_three_steps_from_labelled_shards_to_training_with_photographs(
    tiny_run, tiny_shards, celeba_folder, tmp_path, one_core
):
    # 1: `tiny_run` is trained on `tiny_shards`. 2: its labels for photographs without any.
    write_split(portraits_of(celeba, celeba_folder), tmp_path / "photographs", "train")
    pseudolabel(tiny_run, tmp_path / "photographs", tmp_path / "labels", workers=1)
    labelled = portraits_of(celeba, celeba_folder, pseudolabels=tmp_path / "labels")
    assert all(portrait.provenance.normal == "pseudo" for portrait in labelled)
    write_split(labelled, tmp_path / "labelled", "train")
    # 3: both sets in one batch, the photographs weighing what they can be trusted.
    splits = [str(tiny_shards / "train"), str(tmp_path / "labelled")]
    config = DataConfig(train=splits, image_size=32, batch_size=16, num_workers=0, num_lights=1)
    batch = next(iter(training_batches(config, 0, 1)))
    trust = batch.truth.confidence.amax((1, 2, 3))
    assert (trust == 1).sum() == 12 and ((trust > 0) & (trust < 1)).sum() == 4
    model = load_model(tiny_run)[0].train()
    total, terms = total_loss(model(batch.image), batch, LossWeights())
    total.backward()
    assert total.isfinite() and terms["normal_supervision"] > 0
    data = f"--data.train=[{','.join(splits)}]"
    options = ["--run.steps=1", "--data.image_size=32", "--data.batch_size=16", "--model.width=8"]
    options += ["--data.num_lights=1", "--data.num_workers=0", "--run.precision=float32"]
    run = f"--run.dir={tmp_path / 'run'}"
    assert (
        train([run, data, f"--data.val=[{tiny_shards}/val]", "--model.preset=unet", *options]) == 0
    )
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
