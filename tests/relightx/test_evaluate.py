"""Every portrait is scored once, beside what learns nothing, and the numbers can be read again."""

import json
import math

import pytest
import torch

from relightx.checkpoint import load_model
from relightx.data import evaluation_batches
from relightx.evaluate import (
    decompose,
    evaluate,
    fresh_model,
    print_evaluation,
    score_split,
    summarise_portraits,
    write_evaluation,
)
from relightx.index import read_index
from relightx.measures import METRICS
from relightx.metrics import score
from relightx.model import ModelConfig
from relightx.sample import without_labels
from shards.write import write_split


def strict(text: str) -> dict:
    """JSON as the standard has it, without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def evaluation(tiny_run, tiny_shards):
    return evaluate(tiny_run, tiny_shards / "test", tiny_shards / "train", untrained=True)


def test_every_portrait_is_counted_once_for_every_contestant(evaluation):
    assert list(evaluation.summaries) == ["model", "untrained", "mean_face", "copy"]
    assert evaluation.portraits == 4
    for contestant in evaluation.summaries:
        assert list(evaluation.per_portrait[contestant]) == [f"ball{n}" for n in range(15, 19)]
        for summary in evaluation.summaries[contestant].values():
            assert summary.count in (0, 4)


def test_a_contestant_has_all_metrics_it_can_have(evaluation):
    for contestant in ("model", "untrained", "mean_face"):
        assert set(evaluation.summaries[contestant]) == set(METRICS)
        assert all(summary.count == 4 for summary in evaluation.summaries[contestant].values())
    assert all(name.startswith("relighting_") for name in evaluation.summaries["copy"])


def test_the_mean_of_one_shape_knows_its_normals_and_training_helps(evaluation):
    error = {
        name: s["normal_error_deg"].mean
        for name, s in evaluation.summaries.items()
        if name != "copy"
    }
    assert error["mean_face"] < 0.1  # all balls are alike
    assert error["model"] < error["untrained"]


def test_a_summary_is_the_mean_over_portraits(evaluation):
    for name in METRICS:
        values = [row[name] for row in evaluation.per_portrait["model"].values()]
        assert evaluation.summaries["model"][name].mean == pytest.approx(sum(values) / 4, rel=1e-5)


def test_numbers_are_those_of_the_metrics_module(evaluation, tiny_run, tiny_shards):
    model, _ = load_model(tiny_run)
    index = read_index(tiny_shards / "test")
    for key, batch in evaluation_batches([index], 32):
        expected = score(decompose(model, batch, torch.device("cpu")), batch)
        assert evaluation.per_portrait["model"][key] == pytest.approx(
            {name: value.item() for name, value in expected.items()}, rel=1e-4, abs=1e-6
        )


def test_the_result_is_written_as_valid_json(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path / "new" / "result.json")
    found = strict((tmp_path / "new" / "result.json").read_text())
    assert found == evaluation.as_dict()
    assert found["portraits"] == 4 and found["image_size"] == 32 and "test" in found["data"]
    model = evaluation.summaries["model"]["normal_error_deg"]
    assert found["summaries"]["model"]["normal_error_deg"]["mean"] == pytest.approx(model.mean)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["result.json"]


def test_the_table_shows_every_metric_with_its_direction(evaluation, capsys):
    print_evaluation(evaluation)
    said = capsys.readouterr().out
    assert "4 portraits at 32 px" in said
    for name, metric in METRICS.items():
        assert f"{name} {'↑' if metric.higher_is_better else '↓'}" in said
    for contestant in ("model", "untrained", "mean_face", "copy"):
        assert contestant in said


def test_numbers_that_do_not_exist_are_null(tiny_model, make_portrait, tmp_path, capsys):
    bare = [
        without_labels(make_portrait(f"k{n}", lights=1, seed=n), ("albedo", "normal", "light"))
        for n in range(2)
    ]
    write_split(bare, tmp_path / "s", "test")
    evaluation = evaluate(tiny_model, tmp_path / "s")
    found = strict(json.dumps(evaluation.as_dict()))["summaries"]["model"]
    for name in ("normal_error_deg", "albedo_si_mae", "light_sh_error", "relighting_psnr"):
        assert found[name] == {"mean": None, "std": None, "count": 0}
    assert found["reconstruction_mae"]["count"] == 2
    print_evaluation(evaluation)
    said = capsys.readouterr().out
    assert "nan" not in said and "normal_error_deg" not in said


def test_fewer_lights_may_be_asked_for(tiny_model, tiny_shards):
    some = evaluate(tiny_model, tiny_shards / "val", max_lights=2)
    every = evaluate(tiny_model, tiny_shards / "val")
    assert some.portraits == every.portraits == 3
    assert some.summaries["model"]["relighting_mae"] != every.summaries["model"]["relighting_mae"]


@pytest.mark.parametrize("lights", [0, -1])
def test_no_lights_are_refused(tiny_model, tiny_shards, lights):
    with pytest.raises(ValueError, match=rf"{lights} lights asked; 1 or more needed"):
        evaluate(tiny_model, tiny_shards / "val", max_lights=lights)


def test_two_ranks_measure_what_one_does(tiny_run, tiny_shards):
    model, _ = load_model(tiny_run)
    index = read_index(tiny_shards / "val")  # three portraits, so one rank fills up
    scorers = {"model": lambda batch: score(decompose(model, batch, torch.device("cpu")), batch)}
    alone = score_split(scorers, evaluation_batches([index], 32))["model"]
    ranks = [
        score_split(scorers, evaluation_batches([index], 32, None, rank, 2))["model"]
        for rank in range(2)
    ]
    assert [len(rank) for rank in ranks] == [2, 1]
    assert ranks[0] | ranks[1] == alone


def test_many_lights_are_decomposed_as_few_are(make_batch):
    batch = make_batch(portraits=1, lights=19)
    model = fresh_model(ModelConfig("unet", 8))
    parts = decompose(model, batch, torch.device("cpu"))
    with torch.no_grad():
        whole = model(batch.image)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_untrained_network_is_always_the_same_one():
    state = torch.random.get_rng_state()
    first, second = (fresh_model(ModelConfig("unet", 8)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_portrait_without_a_number_does_not_spoil_the_mean():
    rows = {"a": {"m": 1.0}, "b": {"m": math.nan}, "c": {"m": 3.0}}
    summary = summarise_portraits(rows)["m"]
    assert (summary.mean, summary.count) == (2.0, 2)


def test_what_is_no_split_is_refused(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"no index.json found"):
        evaluate(tiny_model, tmp_path)
