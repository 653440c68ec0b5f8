"""run.compile changes the speed of a run, not what it learns nor what it leaves."""

import pytest
from processes import curves, trained

from relightx.checkpoint import load_model
from relightx.train import main

pytestmark = pytest.mark.usefixtures("one_core")


def test_a_compiled_run_follows_the_plain_one_and_goes_on_without(tiny_options, tmp_path):
    def options(name: str, *more: str) -> list[str]:
        return [*tiny_options(tmp_path / name), "--run.steps=8", "--run.validate_every=8", *more]

    # In programs of their own: a compiler cannot look through the checks of shapes under pytest.
    trained("single", options("plain"))
    trained("single", options("compiled", "--run.compile=true"))
    plain, compiled = curves(tmp_path / "plain"), curves(tmp_path / "compiled")
    assert compiled == pytest.approx(plain, rel=2e-3, abs=1e-4)
    weights = [load_model(tmp_path / name)[0].state_dict() for name in ("plain", "compiled")]
    assert weights[0].keys() == weights[1].keys()
    (tmp_path / "compiled" / "model").rename(tmp_path / "away")
    trained("single", options("compiled", "--run.resume=true"))  # from its last checkpoint


def test_without_a_compiler_it_is_said_before_the_first_step(
    tiny_options, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert main([*tiny_options(tmp_path / "run"), "--run.compile=true"]) == 2
    said = capsys.readouterr().err
    assert "there is no C++ compiler here" in said and "Traceback" not in said
