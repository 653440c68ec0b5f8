"""Points that are found while the sweep runs: Optuna's, and trials that ASHA ends early."""

import signal

from processes import ended
from tiny_sweeps import records, sweep, wait_until, wait_until_gone

from relightx.sweep.trial import EARLY, FINISHED


def test_optuna_learns_and_bad_trials_end_early_also_after_a_kill(write, tmp_path):
    space = {
        "optim.learning_rate": {"log_uniform": [1e-7, 3e-3]},
        "loss.cross_relighting": {"uniform": [0.0, 2.0]},
        "data.supervision.normal": [0, 1],
    }
    settings = {"run.validate_every": 10, "run.log_every": 10, "run.checkpoint_every": 10}
    searched = {"search": "optuna", "trials": 8, "early": {"grace": 1, "reduction": 2}}
    file = write(40, space=space, set=settings, **searched)
    out = tmp_path / "out"
    program = sweep("--config", file, "--out", out)
    wait_until(lambda: len(records(out)) >= 3, program, 240)
    program.send_signal(signal.SIGKILL)
    program.communicate()
    wait_until_gone(out)
    kept = {name: (out / "trials" / name / "trial.json").read_bytes() for name in records(out)}
    said = ended(sweep("--resume", out), 400)
    found = records(out)
    assert len(found) == 8, said
    assert all((out / "trials" / n / "trial.json").read_bytes() == b for n, b in kept.items())
    points = [tuple(record["point"].items()) for record in found.values()]
    assert len(set(points)) == 8
    states = [record["state"] for record in found.values()]
    assert set(states) == {FINISHED, EARLY} and states.count(FINISHED) >= 2, states
    for record in found.values():
        assert 1e-7 <= record["point"]["optim.learning_rate"] <= 3e-3
        if record["state"] == EARLY:
            assert record["best"]["step"] < 40 and "worse than others" in record["reason"]
    rates = {r["state"]: [] for r in found.values()}
    for record in found.values():
        rates[record["state"]].append(record["point"]["optim.learning_rate"])
    assert max(rates[FINISHED]) > max(min(rates[EARLY]), 1e-5)
