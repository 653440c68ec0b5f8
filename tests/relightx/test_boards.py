"""A run on other boards: the real W&B (offline), MLflow, Trackio, read back from what they keep."""

import json
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from accelerate import PartialState
from PIL import Image
from processes import curves, trained

from relightx.boards import Boards, check_boards
from relightx.train import main

BOARDS = ("wandb", "mlflow", "trackio")


@pytest.fixture
def services(tmp_path, monkeypatch) -> Path:
    """Where each keeps its runs, without a server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


@pytest.fixture
def picture(tmp_path) -> Path:
    file = tmp_path / "panel.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    return file


def mlflow_history(run: Path, name: str) -> dict[int, float]:
    from mlflow import MlflowClient

    known = json.loads((run / "boards.json").read_text())["mlflow"]
    return {m.step: m.value for m in MlflowClient().get_metric_history(known, name)}


def test_a_run_is_on_every_board_and_goes_on_there_after_a_stop(tiny_options, services, one_core):
    run = services / "run"
    options = [*tiny_options(run), f"--run.boards=[tensorboard,{','.join(BOARDS)}]"]
    options += ["--run.project=heads", "--run.steps=8"]
    trained("single", [*options, "--run.device=cpu"])
    known = json.loads((run / "boards.json").read_text())
    assert set(known) == set(BOARDS)

    for path in (run / "model", run / "checkpoints" / "step-00000008"):
        shutil.rmtree(path)
    trained("single", [*options, "--run.device=cpu", "--run.resume=true"])
    assert json.loads((run / "boards.json").read_text()) == known

    losses = {step: value for (step, name), value in curves(run).items() if name == "loss/total"}
    assert sorted(losses) == [2, 4, 6, 8]
    assert mlflow_history(run, "loss/total") == losses
    assert trackio_history(known["trackio"]) == losses
    on_disk = [file.read_bytes() for file in run.glob("wandb/offline-run-*/*.wandb")]
    assert len(on_disk) == 2  # one run of one name, in two parts
    for part in on_disk:
        assert all(word in part for word in (b"loss/total", b"val/decomposition", b"heads"))
        assert known["wandb"].encode() in part
    assert list((run / "tensorboard").iterdir())


def trackio_history(name: str) -> dict[int, float]:
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("heads", name)
    assert any("val/decomposition" in row for row in rows)
    return {row["step"]: row["loss/total"] for row in rows if "loss/total" in row}


def test_settings_and_pictures_are_shown(services, picture):
    from mlflow import MlflowClient

    PartialState()
    boards = Boards(["mlflow"], "heads", services, 0, {"run.steps": 8, "data.train": ["a", "b"]})
    boards.picture(4, "val/decomposition", picture)
    boards.close()
    known = json.loads((services / "boards.json").read_text())["mlflow"]
    run = MlflowClient().get_run(known)
    assert run.data.params == {"run.steps": "8", "data.train": "['a', 'b']"}
    assert run.info.status == "FINISHED"
    assert [f.path for f in MlflowClient().list_artifacts(known, "panels")] == ["panels/panel.png"]


def test_a_board_that_fails_is_told_once_and_training_goes_on(services, capsys):
    PartialState()
    boards = Boards(["mlflow"], "heads", services, 0, {})
    boards.log(1, {"loss/total": 3.0})
    wait_until(lambda: mlflow_history(services, "loss/total"))
    away = (services / "mlflow").rename(services / "away")
    (services / "mlflow").write_text("no directory")
    boards.log(2, {"loss/total": 2.0})
    boards.log(3, {"loss/total": 1.0})
    wait_until(lambda: boards._queue.empty())
    (services / "mlflow").unlink()
    away.rename(services / "mlflow")
    boards.log(4, {"loss/total": 0.5})
    boards.close()
    said = capsys.readouterr().err
    assert said.count("boards: mlflow fails and is left behind: ") == 1
    assert said.count("boards: mlflow can be reached again") == 1
    assert mlflow_history(services, "loss/total") == {1: 3.0, 4: 0.5}


def wait_until(is_so, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.2)


def test_a_board_that_is_stuck_does_not_hold_up_the_run(services, monkeypatch, capsys):
    """As MLflow is for minutes, when its server is gone."""
    monkeypatch.setattr("relightx.boards._END_S", 0.5)
    PartialState()
    boards = Boards(["mlflow"], "heads", services, 0, {})
    goes_on = threading.Event()
    monkeypatch.setattr(boards._boards["mlflow"], "log", lambda *_, **__: goes_on.wait(30))
    start = time.monotonic()
    for step in range(3000):
        boards.log(step, {"loss/total": 1.0})
    boards.close()
    assert 0.5 < time.monotonic() - start < 20  # and not 30 for each
    boards._queue.queue.clear()  # what is left would be shown where no test keeps it
    goes_on.set()
    assert "not all reached mlflow within" in capsys.readouterr().err


def test_a_board_that_does_not_start_ends_the_run_before_it_began(
    tiny_options, services, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main([*tiny_options(services / "run"), "--run.boards=[mlflow]"]) == 2
    assert "run.boards: mlflow does not start: " in capsys.readouterr().err
    assert not (services / "run" / "checkpoints").exists()


def test_boards_that_are_not_there_are_named(tiny_options, tmp_path, capsys):
    assert main([*tiny_options(tmp_path / "run"), "--run.boards=[wandbb]"]) == 2
    said = capsys.readouterr().err
    assert "run.boards names 'wandbb'; known are " in said and "wandb" in said
    with pytest.raises(ValueError, match="comet_ml, which is not installed here: pip install"):
        check_boards(["tensorboard", "comet_ml"])
    assert not (tmp_path / "run").exists()


def test_no_board_at_all(tiny_options, tmp_path):
    assert main([*tiny_options(tmp_path / "run"), "--run.boards=[]", "--run.steps=2"]) == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert curves(tmp_path / "run")
