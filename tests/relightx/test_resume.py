"""A run goes on with the data where it stood, and not with others unless it is told to."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from relightx.checkpoint import load_checkpoint
from relightx.data import DataConfig, training_batches
from relightx.data.resume import DataState
from relightx.runlog import read_log
from relightx.train import main

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def state() -> DataState:
    return DataState(row=48, indexes=["ab", "cd"], seed=0, window=16, streams=1, weights=[])


@pytest.fixture
def stopped(tiny_run, tmp_path) -> Path:
    """A run that stopped after 12 of 16 steps."""
    directory = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(directory / "checkpoints" / "step-00000016")
    return directory


def test_the_same_data_and_order_have_no_changes(state):
    assert state.changes(replace(state, row=7)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indexes": ["cd", "ab"]}, "it was trained on other shards than data.train names now"),
        ({"seed": 1}, "its data.seed was 0, the config says 1"),
        ({"window": 8}, "its data.window was 16, the config says 8"),
        ({"streams": 4}, "its data.streams was 1, the config says 4"),
        ({"weights": [1.0, 2.0]}, "its data.weights was [], the config says [1.0, 2.0]"),
    ],
)
def test_what_makes_another_order_is_named(state, change, message):
    (found,) = state.changes(replace(state, **change))
    assert found == message


def test_a_checkpoint_holds_a_row_and_what_the_order_is_made_of(stopped):
    newest = load_checkpoint(stopped / "checkpoints" / "step-00000012")
    state = DataState(**newest.about["data"])
    assert state.row == 12 * 4 and len(state.indexes) == 1 and len(state.indexes[0]) == 64


@pytest.mark.parametrize("option", ["--data.seed=5", "--data.window=2", "--data.streams=2"])
def test_another_order_is_refused_unless_asked_for(stopped, tiny_options, option, capsys):
    options = [*tiny_options(stopped), "--run.resume=true", option]
    assert main(options) == 2
    said = capsys.readouterr().err
    assert "cannot go on with the same data" in said and option[2:].split("=")[0] in said
    assert "--run.allow_changed_data true" in said
    assert main([*options, "--run.allow_changed_data=true"]) == 0


def test_other_shards_are_taken_where_that_is_asked_for(stopped, tiny_options, tiny_shards):
    options = [*tiny_options(stopped), f"--data.train=[{tiny_shards}/test]", "--run.resume=true"]
    assert main([*options, "--run.allow_changed_data=true"]) == 0
    assert [record["step"] for record in read_log(stopped / "metrics.jsonl")][-1] == 16


def test_a_run_goes_on_with_another_batch_size_at_the_row_where_it_stood(tiny_shards):
    config = DataConfig(
        train=[f"{tiny_shards}/train"], image_size=32, batch_size=4, num_workers=0, streams=2
    )
    row = training_batches(config, 0, 100).state(6).row
    before = [visit for visits in training_batches(config, 0, 6)._batches for visit in visits]
    larger = training_batches(replace(config, batch_size=6), 6, 8, first_row=row)
    after = [visit for visits in larger._batches for visit in visits]
    # Three epochs of 12 portraits, none twice in one of them.
    assert len(before) == 24
    assert sorted(before + after) == [(number, epoch) for number in range(12) for epoch in range(3)]
