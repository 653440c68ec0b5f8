"""What a sweep found is told: curves over seeds, what matters, trade-offs, the best as a file."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from relightx.cli import main
from relightx.config import parse_config
from relightx.storage import S3Options
from relightx.sweep.charts import importance
from relightx.sweep.plan import Plan, trial_name
from relightx.sweep.results import over_seeds, pareto, ranked, read_results
from relightx.sweep.trial import Place, write_record

TERMS = {"with": {"loss.cross_relighting": 1.0}, "without": {"loss.cross_relighting": 0.0}}
SHARES = {text: {"data.supervision.normal": float(text)} for text in ("0", "0.1", "1")}
BASE = {
    "run": {"steps": 20},
    "data": {"train": ["t"], "val": ["v"]},
    "model": {"preset": "unet", "width": 8},
}


def error(point: dict) -> float:
    """Falls with labels; the terms are worth 2 degrees; seeds are a tenth apart."""
    worth = 2.0 if point["terms"] == "with" else 0.0
    return 20 - worth - 5 * float(point["labelled"]) + 0.1 * point["seed"]


@pytest.fixture
def sweep(tmp_path) -> tuple[Plan, Place]:
    """A sweep whose trials have these errors; one diverged, one was stopped early."""
    plan = Plan(
        base=BASE,
        space={"labelled": SHARES, "terms": TERMS},
        seeds=[0, 1],
        objectives=["normal_error_deg", "relighting_si_mse"],
        test=["x"],
    )
    place = Place(str(tmp_path / "sweep"), S3Options(), str(tmp_path))
    content = {"plan": asdict(plan), "directory": place.directory}
    place.folder.write("sweep.json", json.dumps(content).encode())
    lines = {"mean_face": {"normal_error_deg": 17.5}, "copy": {"relighting_si_mse": 0.04}}
    place.folder.write("baselines.json", json.dumps(lines).encode())
    states = ["diverged", "stopped early"] + ["finished"] * 10
    for state, point in zip(states, plan.points(), strict=True):
        value = error(point)
        scores = {"normal_error_deg": value, "relighting_si_mse": 1 / value}
        write_record(
            place.trial(trial_name(point)),
            name=trial_name(point),
            point=point,
            state=state,
            reason="" if state == "finished" else "because",
            seconds=60.0,
            best={**scores, "step": 20, "validation": 2},
            test=[scores] if state == "finished" else [],
        )
    return plan, place


def test_trials_are_in_the_plans_order_and_ranked(sweep):
    plan, place = sweep
    trials = read_results(plan, place)
    assert [trial.point for trial in trials] == list(plan.points())
    best = ranked(trials, "normal_error_deg")
    assert len(best) == 10 and best[0].point == {"labelled": "1", "terms": "with", "seed": 0}
    assert ranked(trials, "relighting_si_mse")[0].point["terms"] == "without"


def test_seeds_make_a_mean_and_a_spread(sweep):
    found = over_seeds(read_results(*sweep), "normal_error_deg")
    mean, spread, count = found["0.1", "with"]
    assert (mean, count) == (pytest.approx(17.55), 2)
    assert spread == pytest.approx(0.1 / 2**0.5)
    assert ("0", "with") not in found


def test_the_front_of_a_trade_off_holds_what_nothing_beats(sweep):
    plan, place = sweep
    trials = read_results(plan, place)
    # One metric is the other's inverse: to be better in one is to be worse in the other.
    assert len(pareto(trials, plan.objectives)) == 10
    (best,) = pareto(trials, ["normal_error_deg"])
    assert best.scores["normal_error_deg"] == pytest.approx(13.0)


def test_what_matters_most_is_named_first(sweep):
    plan, place = sweep
    shares = importance(plan, read_results(plan, place), "normal_error_deg")
    assert [name for name, _ in shares] == ["labelled", "terms"]
    assert shares[0][1] > 0.7 and 0 <= shares[1][1] < 0.4


def test_the_report_is_one_file_with_a_table_beside_it(sweep, tmp_path, capsys):
    _, place = sweep
    options = ["--out", str(tmp_path / "page.html"), "--figures", str(tmp_path / "figures")]
    assert main(["sweep-report", place.out, *options]) == 0
    assert "page.csv" in capsys.readouterr().out
    figures = sorted((tmp_path / "figures").iterdir())
    curves = ["curve_normal_error_deg", "curve_relighting_si_mse"]
    assert [file.stem for file in figures] == [*curves, "parallel", "trade_off"]
    assert all(ElementTree.parse(file).getroot().tag.endswith("svg") for file in figures)
    page = (tmp_path / "page.html").read_text()
    for text in ("Along labelled", "mean face", "10 finished", "What matters", "diverged"):
        assert text in page
    assert page.count("<svg") == 4  # two curves, parallel coordinates, the trade-off
    assert "http" not in page.replace("http://www.w3.org", "")
    rows = list(csv.DictReader((tmp_path / "page.csv").open()))
    assert len(rows) == 12
    assert float(rows[-1]["test/normal_error_deg"]) == pytest.approx(15.1)
    assert rows[0]["state"] == "diverged" and rows[0]["test/normal_error_deg"] == ""


def test_the_best_is_a_file_that_train_takes(sweep, tmp_path, capsys):
    _, place = sweep
    out = tmp_path / "best.yaml"
    assert main(["sweep-best", place.out, "--out", str(out)]) == 0
    assert "normal_error_deg 13" in capsys.readouterr().out
    config = parse_config([f"--config={out}", "--run.dir=elsewhere"])
    assert config.data.supervision.normal == 1 and config.loss.cross_relighting == 1
    assert config.run.steps == 20 and config.run.dir == "elsewhere"
    options = ["--out", str(out), "--objective", "relighting_si_mse"]
    assert main(["sweep-best", place.out, *options]) == 0
    assert parse_config([f"--config={out}"]).loss.cross_relighting == 0


def test_nothing_to_report_is_said(tmp_path, capsys):
    plan = Plan(base=BASE, space={"labelled": SHARES})
    content = {"plan": asdict(plan), "directory": str(tmp_path)}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    assert main(["sweep-report", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    assert "no trial has ended yet" in capsys.readouterr().err
    assert main(["sweep-best", str(tmp_path), "--out", str(tmp_path / "best.yaml")]) == 2
    assert "no finished trial has normal_error_deg" in capsys.readouterr().err
    assert not Path(tmp_path / "page.html").exists()
