"""The meter reports means since the last report, the tracker each step once, panels the truth."""

import json

import pytest
import torch
from accelerate import Accelerator

from relightx.color import linear_to_srgb
from relightx.meter import Meter
from relightx.panels import decomposition_panel
from relightx.runlog import read_log
from relightx.tracking import Tracker


@pytest.fixture
def tracker(tmp_path):
    tracker = Tracker(tmp_path, steps=10, start_step=0, is_main=True)
    yield tracker
    tracker.close()


@pytest.fixture
def meter(tracker) -> Meter:
    return Meter(Accelerator(cpu=True), tracker, 0)


def add(meter: Meter, step: int, value: float) -> None:
    meter.add(step, torch.tensor(2 * value), {"image_reconstruction": torch.tensor(value)}, 4)


def test_a_report_is_the_mean_since_the_last_one(meter, tmp_path):
    for step, value in enumerate((1.0, 2.0, 6.0, 10.0, 20.0), start=1):
        add(meter, step, value)
        if step in (3, 5):
            meter.log(step, {"grad_norm": torch.tensor(0.5)})
    records = read_log(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [3, 5]
    assert [record["loss/image_reconstruction"] for record in records] == [3.0, 15.0]
    assert [record["loss/total"] for record in records] == [6.0, 30.0]
    assert all(record["grad_norm"] == 0.5 and record["images_per_s"] > 0 for record in records)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_step_and_every_term_that_is_not_finite_are_named(meter, bad):
    for step in range(1, 5):
        losses = {"image_reconstruction": torch.tensor(bad if step > 2 else 1.0)}
        losses["albedo_consistency"] = torch.tensor(1.0)
        meter.add(step, torch.stack(list(losses.values())).sum(), losses, 4)
    with pytest.raises(
        FloatingPointError, match=r"step 3: loss not finite: \{'image_recon"
    ) as error:
        meter.flush()
    assert "'total'" in str(error.value) and "albedo_consistency" not in str(error.value)


def test_waiting_for_data_is_reported_as_a_share_of_time(meter, tmp_path):
    assert meter.waited(lambda: sum(range(300_000))) == sum(range(300_000))
    add(meter, 1, 1.0)
    meter.log(1, {})
    assert 0 < read_log(tmp_path / "metrics.jsonl")[0]["loader_wait"] <= 1


def test_a_log_that_goes_on_is_cut_at_its_step(tmp_path):
    lines = [json.dumps({"step": step, "loss/total": 0.1 * step}) for step in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 6, "lo')
    tracker = Tracker(tmp_path, steps=10, start_step=3, is_main=True)
    tracker.log(4, {"loss/total": 7.0}, "note")
    tracker.close()
    records = read_log(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["loss/total"]) for r in records] == [
        (1, 0.1),
        (2, 0.2),
        (3, 3 * 0.1),
        (4, 7.0),
    ]


def test_other_ranks_write_and_say_nothing(tmp_path, capsys):
    tracker = Tracker(tmp_path / "run", steps=10, start_step=0, is_main=False)
    tracker.log(1, {"loss/total": 1.0}, "note")
    tracker.say("hello")
    tracker.picture(1, "name", torch.zeros(3, 4, 4))
    tracker.close()
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr()
    assert said.out == said.err == ""


def test_a_panel_shows_a_true_answer_as_the_truth(perfect, batch):
    panel = decomposition_panel(perfect, batch)
    assert panel.shape == (3, 2 * 32, 9 * 32)
    assert panel.min() >= 0 and panel.max() <= 1
    names = (
        "first",
        "last",
        "albedo",
        "true_albedo",
        "normal",
        "true_normal",
        "shading",
        "rebuilt",
        "relit",
    )
    cells = dict(zip(names, panel[:, :32].split(32, dim=2), strict=True))
    for one, other in (
        ("albedo", "true_albedo"),
        ("normal", "true_normal"),
        ("rebuilt", "first"),
        ("relit", "last"),
    ):
        torch.testing.assert_close(cells[one], cells[other], atol=1e-4, rtol=0)
    torch.testing.assert_close(cells["first"], linear_to_srgb(batch.image[0, 0]))
    outside = ~batch.mask[0, 0]
    assert all((cell[:, outside] == 0).all() for cell in cells.values())


def test_a_panel_holds_at_most_the_portraits_asked_for(make_batch, make_perfect):
    batch = make_batch(portraits=5, lights=1, size=16)
    assert decomposition_panel(make_perfect(batch), batch, 3).shape == (3, 3 * 16, 9 * 16)
