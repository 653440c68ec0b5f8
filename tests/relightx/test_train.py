"""A run learns, continues after a kill as if nothing had been, and stops where it must."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import fault_proxy as faults
import pytest
import yaml
from processes import curves
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from relightx.backend import choose_precision
from relightx.checkpoint import load_checkpoint, load_model
from relightx.config import parse_config
from relightx.losses import LOSSES
from relightx.runlog import read_log
from relightx.sample import without_labels
from relightx.train import main
from shards.write import write_split

pytestmark = pytest.mark.usefixtures("one_core")


def refusal(arguments: list[str], capsys) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_a_run_leaves_logs_checkpoints_and_models(tiny_run):
    names = {"config.yaml", "metrics.jsonl", "tensorboard", "panels", "checkpoints", "README.md"}
    assert {entry.name for entry in tiny_run.iterdir()} == names | {"best", "model"}
    panels = sorted(path.name for path in (tiny_run / "panels").iterdir())
    assert panels == [f"decomposition-{step:08d}.png" for step in (4, 8, 12, 16)]
    steps = [path.name for path in sorted((tiny_run / "checkpoints").iterdir())]
    assert steps == ["step-00000012", "step-00000016"]
    assert load_model(tiny_run)[1]["about"]["steps"] == 16


def test_a_run_learns(tiny_run):
    found = curves(tiny_run)
    assert found[16, "loss/total"] < 0.9 * found[2, "loss/total"]
    assert found[16, "val/normal_error_deg"] < found[4, "val/normal_error_deg"]


def test_the_log_has_every_loss_in_use_by_name_on_every_report(tiny_run):
    found = curves(tiny_run)
    weights = asdict(parse_config([f"--config={tiny_run / 'config.yaml'}"]).loss)
    used = [name for name in LOSSES if weights[name]]
    assert LOSSES.keys() - used == {"convexity"}
    for step in range(2, 17, 2):
        for name in (*used, "total"):
            assert found[step, f"loss/{name}"] >= 0
    total = sum(weights[name] * found[16, f"loss/{name}"] for name in used)
    assert found[16, "loss/total"] == pytest.approx(total, rel=1e-5)
    assert [step for step, name in found if name == "val/relighting_si_mse"] == [4, 8, 12, 16]


def test_the_resolved_config_is_written_with_the_run(tiny_run, tiny_options):
    text = (tiny_run / "config.yaml").read_text()
    assert parse_config([f"--config={tiny_run / 'config.yaml'}"]) == parse_config(
        tiny_options(tiny_run)
    )
    assert "index sha256" in text.splitlines()[0]
    newest = load_checkpoint(tiny_run / "checkpoints" / "step-00000016")
    assert newest.about["config"] == yaml.safe_load(text)


def test_tensorboard_holds_the_same_numbers_and_pictures(tiny_run):
    board = EventAccumulator(str(tiny_run / "tensorboard"))
    board.Reload()
    found = curves(tiny_run)
    totals = {event.step: event.value for event in board.Scalars("loss/total")}
    assert totals == pytest.approx({s: found[s, "loss/total"] for s in range(2, 17, 2)}, rel=1e-5)
    pictures = board.Images("val/decomposition")
    assert [picture.step for picture in pictures] == [4, 8, 12, 16]
    assert (pictures[0].width, pictures[0].height) == (9 * 32, 3 * 32)  # three portraits


def test_the_best_model_is_that_of_the_best_validation(tiny_run):
    found = curves(tiny_run)
    errors = {
        step: value for (step, name), value in found.items() if name == "val/normal_error_deg"
    }
    best = load_model(tiny_run / "best")[1]["about"]["best"]
    step = min(errors, key=errors.get)
    assert best == {"metric": "normal_error_deg", "value": errors[step], "step": step}


def test_a_killed_run_continues_to_the_last_bit(tiny_run, tiny_options, tmp_path, capsys):
    directory = tmp_path / "killed"
    program = subprocess.Popen(
        [sys.executable, "-m", "relightx.train", *tiny_options(directory)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (directory / "checkpoints" / "step-00000004").is_dir():
            assert program.poll() is None
            time.sleep(0.002)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    assert program.returncode == -signal.SIGKILL
    assert not (directory / "model").exists()
    assert main([*tiny_options(directory), "--run.resume=true"]) == 0
    start = int(capsys.readouterr().err.split("step ")[1].split()[0])
    assert 4 <= start < 16
    assert curves(directory) == curves(tiny_run)
    for name in ("model", "best"):
        weights = [run / name / "model.safetensors" for run in (directory, tiny_run)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_lines_that_a_killed_run_wrote_beyond_its_checkpoint_are_cut(
    tiny_run, tiny_options, tmp_path
):
    directory = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(directory / "checkpoints" / "step-00000016")
    with open(directory / "metrics.jsonl", "a") as log:
        log.write('{"step": 18, "loss/to')  # killed while writing
    assert main([*tiny_options(directory), "--run.resume=true"]) == 0
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps) and len(set(steps)) == 8
    assert curves(directory) == curves(tiny_run)


def test_a_damaged_newest_checkpoint_is_passed_over_aloud(tiny_run, tiny_options, tmp_path, capsys):
    directory = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    broken = directory / "checkpoints" / "step-00000016" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    assert main([*tiny_options(directory), "--run.resume=true"]) == 0
    said = capsys.readouterr().err
    assert "checkpoint passed over" in said and "step-00000016: model.safetensors" in said
    assert "step 12 to 16" in said


def test_to_resume_a_finished_run_changes_nothing(tiny_run, tiny_options, tmp_path):
    directory = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert main([*tiny_options(directory), "--run.resume=true"]) == 0
    for name in ("model/model.safetensors", "metrics.jsonl"):
        assert (directory / name).read_bytes() == (tiny_run / name).read_bytes()


def test_a_used_directory_is_refused_untouched(tiny_run, tiny_options, capsys):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    said = refusal(tiny_options(tiny_run), capsys)
    assert f"run.dir {tiny_run} is already used" in said and "--run.resume true" in said
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.width=16", "its checkpoint is of the model"),
        ("--run.steps=10", "its checkpoint is at step 16, run.steps is 10"),
    ],
)
def test_another_run_cannot_continue_this_one(tiny_run, tiny_options, option, message, capsys):
    arguments = [*tiny_options(tiny_run), "--run.resume=true", option]
    assert message in refusal(arguments, capsys)


def test_other_shards_cannot_continue_a_run(tiny_run, tiny_options, tiny_shards, capsys):
    arguments = [*tiny_options(tiny_run), "--run.resume=true", f"--data.train=[{tiny_shards}/test]"]
    assert "was trained on other shards" in refusal(arguments, capsys)


def test_missing_data_are_refused_before_anything_is_made(tiny_options, tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    arguments = [*tiny_options(tmp_path / "run"), f"--data.train=[{nowhere}]"]
    assert f"{nowhere}: no index.json found" in refusal(arguments, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.train=[]", "data.train is empty"),
        ("--data.val=[nowhere]", "nowhere: no index.json found"),
        ("--data.num_lights=5", "has 4 lights, data.num_lights asks for 5"),
        ("--run.accumulation=3", "data.batch_size is 4"),
        ("--data.image_size=40", "data.image_size is 40; preset unet needs a multiple of 16"),
    ],
)
def test_data_that_do_not_fit_leave_no_directory_behind(
    tiny_options, tmp_path, option, message, capsys
):
    assert message in refusal([*tiny_options(tmp_path / "run"), option], capsys)
    assert not (tmp_path / "run").exists()


def test_a_file_in_place_of_the_directory_is_refused(tiny_options, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal(tiny_options(tmp_path / "file"), capsys)


def test_a_truncated_shard_stops_the_run_in_one_line(tiny_options, tiny_shards, tmp_path, capsys):
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    shard = sorted((tmp_path / "train").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-1000])
    options = [*tiny_options(tmp_path / "run"), f"--data.train=[{tmp_path / 'train'}]"]
    said = refusal([*options, "--data.num_workers=1"], capsys)
    assert f"{shard}: portrait" in said and "the shard has" in said and "its index says" in said
    assert "Traceback" not in said


@pytest.fixture
def damaged(tiny_options, tiny_shards, tmp_path) -> list[str]:
    """Options of a run whose portraits in one shard of several cannot be read."""
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    shard = sorted((tmp_path / "train").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-1000])
    options = [f"--data.train=[{tmp_path / 'train'}]", "--data.on_fault=skip"]
    return [*tiny_options(tmp_path / "run"), *options]


def test_few_portraits_that_cannot_be_read_are_replaced_counted_and_told(damaged, tmp_path, capsys):
    assert main([*damaged, "--data.max_skipped=0.6"]) == 0
    said = capsys.readouterr().err
    counts = [
        r["replaced"] for r in read_log(tmp_path / "run" / "metrics.jsonl") if "replaced" in r
    ]
    assert counts == sorted(counts) and 0 < counts[-1] < 64
    assert "replaced: " in said and "the shard has" in said


def test_too_many_that_cannot_be_read_stop_the_run(damaged, capsys):
    assert main([*damaged, "--data.max_skipped=0.01"]) == 2
    said = capsys.readouterr().err
    assert "could not be read and were replaced, more than data.max_skipped 0.01 allows" in said


def test_a_run_from_s3_is_the_run_from_disk(tiny_run, tiny_options, tiny_shards, s3, tmp_path):
    places = {split: s3.new_folder() for split in ("train", "val")}
    for split, folder in places.items():
        for file in sorted((tiny_shards / split).iterdir(), reverse=True):
            folder.write(file.name, file.read_bytes())
    options = [
        *tiny_options(tmp_path / "run"),
        f"--data.train=[{places['train'].url}]",
        f"--data.val=[{places['val'].url}]",
        f"--data.s3.endpoint_url={s3.endpoint}",
        f"--data.cache_dir={tmp_path / 'cache'}",
    ]
    assert main(options) == 0
    assert curves(tmp_path / "run") == curves(tiny_run)
    assert curves(tmp_path / "run")[16, "retries"] == 0


@pytest.mark.parametrize("fetch", ["shards", "members"])
def test_what_the_network_cost_stands_in_the_log(
    tiny_options, tiny_shards, s3, fault_proxy, tmp_path, fetch
):
    folder = s3.new_folder()
    for file in sorted((tiny_shards / "train").iterdir(), reverse=True):
        folder.write(file.name, file.read_bytes())
    fault_proxy.next(faults.unavailable, times=3, method="GET", path=".tar")
    options = [
        *tiny_options(tmp_path / "run"),
        f"--data.train=[{folder.url}]",
        f"--data.s3.endpoint_url={fault_proxy.endpoint}",
        f"--data.cache_dir={tmp_path / 'cache'}",
        f"--data.fetch={fetch}",
        "--data.num_workers=2",
    ]
    assert main(options) == 0
    counts = [r["retries"] for r in read_log(tmp_path / "run" / "metrics.jsonl") if "retries" in r]
    assert counts == sorted(counts) and counts[-1] == fault_proxy.met["unavailable"] == 3


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_term(
    tiny_options, tmp_path, log_every, capsys
):
    options = [*tiny_options(tmp_path / "run"), f"--run.log_every={log_every}"]
    assert main([*options, "--optim.learning_rate=1e30"]) == 1
    said = capsys.readouterr().err
    assert "step 2: loss not finite" in said
    assert "'image_reconstruction': " in said and "'total': " in said
    assert not (tmp_path / "run" / "model").exists()
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_what_a_spoilt_step_leaves_is_never_saved(tiny_options, tmp_path, capsys):
    """The loss of step 1 is finite, the weights after it are not fit to keep."""
    options = [
        *tiny_options(tmp_path / "run"),
        "--run.checkpoint_every=1",
        "--run.validate_every=1",
    ]
    assert main([*options, "--optim.learning_rate=1e38"]) == 1
    assert "step 1" in capsys.readouterr().err


def test_validation_without_labels_and_pairs_still_finds_a_best(
    make_portrait, tiny_options, tmp_path
):
    ball = without_labels(make_portrait(lights=1), ("albedo", "normal", "light"))
    write_split([ball], tmp_path / "val", "val")
    options = [*tiny_options(tmp_path / "run"), f"--data.val=[{tmp_path / 'val'}]"]
    assert main([*options, "--run.steps=2"]) == 0
    best = load_model(tmp_path / "run" / "best")[1]["about"]["best"]
    assert best["metric"] == "reconstruction_si_mse"


def test_micro_batches_give_the_losses_of_one_batch(tiny_run, tiny_options, tmp_path):
    options = tiny_options(tmp_path / "run")
    assert main([*options, "--run.accumulation=2"]) == 0
    whole, parts = curves(tiny_run), curves(tmp_path / "run")
    for step in (2, 4, 8):
        assert parts[step, "loss/total"] == pytest.approx(whole[step, "loss/total"], rel=1e-4)


def test_reports_are_plain_lines_where_there_is_no_terminal(tiny_options, tmp_path, capsys):
    assert main([*tiny_options(tmp_path / "run"), "--run.steps=4"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith(f"training in {tmp_path / 'run'}: step 0 to 4, 1 process(es) on")
    assert sum(line.startswith("step 4/4  loss ") for line in lines) == 1
    assert lines[-1] == f"model written to {tmp_path / 'run' / 'model'}"
    assert "\x1b" not in said.err and "\r" not in said.err


def test_a_wish_for_precision_is_kept():
    assert [choose_precision(wish) for wish in ("bf16", "float32")] == ["bf16", "float32"]
    assert choose_precision("auto") in ("bf16", "float32")
