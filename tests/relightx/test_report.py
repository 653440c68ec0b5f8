"""A report shows what a run has, leaves out what it has not, and loads nothing."""

import json
import re
from html.parser import HTMLParser

import pytest

from relightx.evaluate import Evaluation
from relightx.losses import LOSSES
from relightx.measures import METRICS
from relightx.metrics import Summary
from relightx.report import (
    Stage,
    Step,
    chart,
    metric_table,
    read_evaluation,
    write_report,
)


def evaluation(**means):
    """An evaluation in which each contestant has the same mean of every metric."""
    return Evaluation(
        data="test of shards",
        portraits=3,
        image_size=64,
        summaries={
            name: {metric: Summary(mean, 0.5, 3) for metric in METRICS}
            for name, mean in means.items()
        },
        per_portrait={name: {} for name in means},
    ).as_dict()


@pytest.fixture
def run(tmp_path):
    """A run of 40 steps: losses at each tenth, validation twice."""
    records = [
        {"step": step, **{f"loss/{name}": 10 / step for name in (*LOSSES, "total")}}
        for step in (10, 20, 30, 40)
    ]
    records += [{"step": step, "val/normal_error_deg": 400 / step} for step in (20, 40)]
    directory = tmp_path / "run"
    directory.mkdir()
    lines = [json.dumps(record) for record in records]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (directory / "config.yaml").write_text("run:\n  steps: 40\n")
    return directory


def page(run, **parts):
    return write_report(run, run / "report.html", title="A run", **parts).read_text()


class Links(HTMLParser):
    """What a page would load, and whether its tags are balanced."""

    VOID = ("meta", "link", "img", "source", "line", "circle", "polyline", "polygon")

    def __init__(self, text):
        super().__init__()
        self.loaded, self.anchors, self.ids, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loaded += [values[name] for name in ("src", "srcset") if name in values]
        self.loaded += [values["href"]] if tag == "link" else []
        self.anchors += [values["href"]] if tag == "a" else []
        self.ids += [values["id"]] if "id" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_page_is_well_formed_and_loads_nothing(run):
    text = page(
        run,
        evaluation=evaluation(model=1.0, mean_face=2.0),
        stages=[Stage("training", "40 steps", 61.0, "relightx train")],
        remarks=["Small."],
        steps=[Step("Go on", "Now.", "relightx --help")],
    )
    found = Links(text)
    assert not found.open
    assert all(address.startswith("data:") for address in found.loaded)
    assert {link.removeprefix("#") for link in found.anchors} <= set(found.ids)
    assert "<script" not in text
    assert "@import" not in text


def test_every_loss_and_every_metric_is_on_the_page(run):
    text = page(run, evaluation=evaluation(model=1.0))
    assert all(f"<b>{name}</b>" in text for name in LOSSES)
    assert all(f"<code>{name}</code>" in text for name in METRICS)


def test_a_run_with_a_log_alone_still_gives_a_page(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    found = Links(page(tmp_path))
    assert not found.open
    assert found.ids == ["run"]


def test_a_run_without_validation_says_so(run):
    log = run / "metrics.jsonl"
    log.write_text("\n".join(line for line in log.read_text().splitlines() if "val/" not in line))
    assert "no validation split" in page(run)


def test_text_from_outside_is_escaped(run):
    text = page(run, lead="<script>alert(1)</script>")
    assert "<script" not in text


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no metrics\.jsonl"):
        page(tmp_path)


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_of_a_row_follows_the_metrics_direction(metric):
    table = metric_table(evaluation(model=1.0, untrained=2.0))
    (row,) = [row for row in table["rows"] if row["name"] == metric]
    assert [cell["best"] for cell in row["cells"]] == [
        not METRICS[metric].higher_is_better,
        METRICS[metric].higher_is_better,
    ]


def test_a_number_that_nobody_has_leaves_no_row():
    values = evaluation(model=1.0)
    values["summaries"]["model"]["normal_error_deg"] = {"mean": None, "std": None, "count": 0}
    assert "normal_error_deg" not in [row["name"] for row in metric_table(values)["rows"]]


@pytest.mark.parametrize(
    "values", [(3.0, 1.0, 2.0), (1e-6, 5.0, 100.0), (4.0, 4.0, 4.0), (0.0, 0.0, 1.0), (-5.0, 5.0)]
)
def test_a_curve_stays_in_its_frame_and_larger_is_higher(values):
    drawn = chart("loss", list(enumerate(values, start=1)))
    places = [tuple(map(float, place.split(","))) for place in drawn["line"].split()]
    assert all(40 <= x <= 312 and 8 <= y <= 132 for x, y in places)
    by_value = sorted(zip(values, places, strict=True))
    heights = [-y for _, (_, y) in by_value]
    assert heights == sorted(heights)


def test_no_points_give_no_curve():
    assert chart("loss", []) is None


def test_an_evaluation_file_is_read_back_and_another_is_refused(tmp_path):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(evaluation(model=1.0)))
    assert read_evaluation(file) == evaluation(model=1.0)
    file.write_text(json.dumps({"other": 1}))
    with pytest.raises(ValueError, match=re.escape(str(file))):
        read_evaluation(file)
