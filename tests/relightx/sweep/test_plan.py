"""What a sweep's file says, and what is said of a wrong one before any trial."""

from pathlib import Path

import pytest
import yaml

from relightx.sweep.plan import Plan, read_plan, trial_name

BASE = {
    "run": {"steps": 20, "validate_every": 10},
    "data": {"train": ["t"], "val": ["v"]},
    "model": {"preset": "unet", "width": 8},
}


@pytest.fixture
def write(tmp_path):
    """write(**changed): a sweep's file, with the training's file beside it."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))

    def write(**changed: object) -> Path:
        values = {"train": ["base.yaml"], "space": {"loss.cross_relighting": [0, 1]}} | changed
        file = tmp_path / "sweep.yaml"
        file.write_text(
            yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False)
        )
        return file

    return write


def test_a_grid_is_every_combination_with_every_seed(write):
    terms = {"on": {"loss.albedo_consistency": 1.0}, "off": {"loss.albedo_consistency": 0.0}}
    space = {"loss.cross_relighting": [0, 0.5, 1], "terms": terms}
    points = list(read_plan(write(space=space, seeds=[3, 4])).points())
    assert len(points) == len({trial_name(point) for point in points}) == 3 * 2 * 2
    assert points[0] == {"loss.cross_relighting": "0", "terms": "on", "seed": 3}


def test_a_point_becomes_a_training(write):
    terms = {"on": {"loss.albedo_consistency": 1.0}, "off": {"loss.albedo_consistency": 0.0}}
    plan = read_plan(
        write(space={"optim.learning_rate": [0.1, 0.2], "terms": terms}, set={"run.steps": 30})
    )
    config = plan.config_of({"optim.learning_rate": "0.2", "terms": "off", "seed": 7})
    assert config.optim.learning_rate == 0.2 and config.loss.albedo_consistency == 0
    assert config.run.steps == 30 and config.run.threads == 1
    assert config.run.seed == config.data.supervision.seed == 7
    assert config.data.seed == 0  # the same data in the same order, whatever the seed
    assert plan.config_of({"optim.learning_rate": "0.1", "terms": "on", "seed": 0}).run.steps == 30


def test_random_points_lie_between_the_bounds_and_stay_the_same(write):
    space = {
        "loss.cross_relighting": {"uniform": [1, 2]},
        "optim.learning_rate": {"log_uniform": [1e-4, 1e-1]},
        "model.width": [8, 16],
    }
    plan = read_plan(write(space=space, search="random", trials=200))
    points = list(plan.points())
    assert points == list(read_plan(write(space=space, search="random", trials=200)).points())
    rates = sorted(point["optim.learning_rate"] for point in points)
    assert 1e-4 <= rates[0] < rates[100] < 1e-2 < rates[-1] <= 1e-1  # the middle near 3e-3
    assert all(1 <= point["loss.cross_relighting"] <= 2 for point in points)
    assert {point["model.width"] for point in points} == {"8", "16"}
    assert {plan.config_of(point).model.width for point in points} == {8, 16}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"space": {"loss.cross_relightin": [0, 1]}}, "did you mean 'loss.cross_relighting'"),
        ({"space": {"t": {"a": {"loss.nothing": 1}}}}, "loss.nothing is no key of the training"),
        ({"set": {"run.stepz": 3}}, "did you mean 'run.steps'"),
        ({"space": {"loss.cross_relighting": [0, -1]}}, "loss weights must be 0 or more"),
        ({"space": {"optim.learning_rate": ["fast"]}}, "optim.learning_rate"),
        ({"space": {"data.seed": [0, 1]}}, "data.seed is decided by the sweep itself"),
        ({"set": {"run.dir": "x"}}, "run.dir is decided by the sweep itself"),
        ({"objectives": ["normal_eror_deg"]}, "did you mean 'normal_error_deg'"),
        ({"objectives": ["total"]}, "objectives name 'total'; known are"),
        ({"objectives": []}, "objectives name ''"),
        ({"space": {}}, "space is empty"),
        ({"space": {"optim.learning_rate": {"uniform": [2, 1]}}}, "the lower first"),
        ({"space": {"optim.learning_rate": {"uniform": [1, 2]}}}, "a grid needs a list"),
        ({"space": {"optim.learning_rate": {"log_uniform": [0, 1]}}}, "numbers above 0"),
        ({"space": {"optim.learning_rate": 3}}, "a list of values"),
        ({"search": "random"}, "random and optuna need their number"),
        ({"trials": 3}, "a grid needs no trials"),
        ({"search": "optuna", "trials": 3, "seeds": [0, 1]}, "give it one seed"),
        ({"search": "tpe"}, "grid, random or optuna needed"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"processes": 2, "gpus": 0.5}, "trials of several processes need whole ones"),
        ({"early": {"grace": 0}}, "at least 1"),
        ({"set": {"run.validate_every": 0}}, "trials are compared by validation"),
        ({"objective": ["x"]}, "unknown key 'objective'; did you mean 'objectives'"),
        ({"train": None}, "train must list"),
        ({"train": ["nowhere.yaml"]}, "no such file"),
    ],
)
def test_what_cannot_be_run_is_said_with_the_file(write, changed, message):
    with pytest.raises(ValueError, match=r"sweep\.yaml: |nowhere") as error:
        read_plan(write(**changed))
    assert message in str(error.value)


@pytest.mark.parametrize("file", sorted(Path("configs/sweep").glob("*.yaml")), ids=lambda f: f.stem)
def test_the_ready_sweeps_are_right(file):
    assert isinstance(read_plan(file), Plan)
