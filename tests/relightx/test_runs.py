"""Runs are found, read and compared."""

import json
import shutil
from pathlib import Path

import pytest

from relightx.cli import main
from relightx.runs import differing_keys, find_runs


@pytest.fixture
def two_runs(tiny_run, tmp_path) -> Path:
    """A finished run and one, with another seed, that stopped after step 10."""
    shutil.copytree(tiny_run, tmp_path / "runs" / "whole")
    part = Path(shutil.copytree(tiny_run, tmp_path / "runs" / "sweep" / "part"))
    shutil.rmtree(part / "model")
    config = part / "config.yaml"
    config.write_text(
        config.read_text().replace("\n  seed: 0\n  precision", "\n  seed: 5\n  precision")
    )
    log = part / "metrics.jsonl"
    kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= 10]
    log.write_text("".join(f"{line}\n" for line in kept))
    return tmp_path / "runs"


def test_runs_are_found_and_read(two_runs, tiny_run, monkeypatch):
    monkeypatch.setattr("relightx.runs._SILENT_S", 0.0)
    part, whole = find_runs([two_runs])
    assert (part.path.name, part.state, part.step, part.steps) == ("part", "stopped", 10, 16)
    assert (whole.path.name, whole.state, whole.step) == ("whole", "finished", 16)
    records = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    errors = {r["step"]: r["val/normal_error_deg"] for r in records if "val/normal_error_deg" in r}
    step = min(errors, key=errors.get)
    assert whole.best["normal_error_deg"] == (errors[step], step)
    assert whole.loss == [r["loss/total"] for r in records if "loss/total" in r][-1]
    assert differing_keys([part, whole]) == ["run.seed"]


def test_a_run_that_logs_is_training(two_runs, monkeypatch):
    monkeypatch.setattr("relightx.runs._SILENT_S", 1e6)
    assert [run.state for run in find_runs([two_runs])] == ["training", "finished"]


def test_the_table_names_what_differs(two_runs, capsys):
    assert main(["runs", str(two_runs)]) == 0
    said = capsys.readouterr().out
    assert "run.seed" in said and "16/16" in said and "10/16" in said
    assert "normal_error_deg" in said and "optim.learning_rate" not in said


def test_the_same_as_json(two_runs, capsys):
    assert main(["runs", str(two_runs / "whole"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["state"] == "finished" and found["config"]["run.steps"] == 16


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "no such directory"), ("empty", "no run here")]
)
def test_a_place_without_runs_is_refused(tmp_path, capsys, name, message):
    (tmp_path / "empty").mkdir()
    assert main(["runs", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_run_is_named(two_runs, capsys):
    (two_runs / "whole" / "config.yaml").write_text("run: [")
    assert main(["runs", str(two_runs)]) == 2
    assert "whole: cannot be read as a run" in capsys.readouterr().err
