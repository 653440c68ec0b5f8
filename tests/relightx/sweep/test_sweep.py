"""A sweep on a real Ray: the trainings are those made by hand, and it survives what is killed."""

import os
import signal

import psutil
import pytest
from processes import curves, ended, trained
from tiny_sweeps import records, steps, sweep, trainings, wait_until, wait_until_gone

from relightx.storage import S3Options
from relightx.sweep.begin import go_on
from relightx.sweep.commands import UNFINISHED
from relightx.sweep.results import read_results


def test_trials_are_the_trainings_made_by_hand_and_a_bad_one_is_noted(write, tmp_path, tiny_shards):
    space = {
        "data.supervision.normal": [0, 1],
        "speed": {"right": {}, "mad": {"optim.learning_rate": 1e30}},
    }
    out = tmp_path / "out"
    said = ended(sweep("--config", write(space=space, test=[f"{tiny_shards}/test"]), "--out", out))
    found = records(out)
    states = {
        (r["point"]["data.supervision.normal"], r["point"]["speed"]): r["state"]
        for r in found.values()
    }
    assert states == {
        ("0", "right"): "finished",
        ("1", "right"): "finished",
        ("0", "mad"): "diverged",
        ("1", "mad"): "diverged",
    }
    assert "all trials are done" in said and "loss not finite" in str(found)
    right = next(name for name, r in found.items() if r["state"] == "finished")
    asked = out / "trials" / right / "asked.yaml"
    by_hand = tmp_path / "by_hand"
    trained("single", ["--config", str(asked), f"--run.dir={by_hand}", "--run.device=cpu"])
    assert curves(by_hand) == curves(out / "trials" / right)
    last = max(step for step, name in curves(by_hand) if name == "val/normal_error_deg")
    assert found[right]["best"]["normal_error_deg"] <= curves(by_hand)[last, "val/normal_error_deg"]
    assert found[right]["test"][0]["normal_error_deg"] > 0
    plan, place = go_on(str(out), S3Options())
    assert [t.point["speed"] for t in read_results(plan, place)] == ["right", "mad"] * 2


def test_whatever_is_killed_only_what_is_missing_is_done_again(write, tmp_path):
    space = {"loss.cross_relighting": [0, 0.5, 1, 2]}
    file = write(space=space, set={"run.steps": 120, "run.checkpoint_every": 5, "run.log_every": 1})
    out = tmp_path / "out"

    # Ctrl-C, when the first trials have made some steps.
    program = sweep("--config", file, "--out", out)
    wait_until(lambda: [run for run in out.glob("trials/*") if steps(run) > 10], program)
    program.send_signal(signal.SIGINT)
    said, _ = program.communicate(timeout=120)
    assert program.returncode == 3, said
    assert f"go on with relightx sweep --resume {out}" in said
    assert not trainings(out) and not records(out)
    begun = {run.name: steps(run) for run in out.glob("trials/*")}

    # The driver is killed, when one trial is done.
    program = sweep("--resume", out)
    wait_until(lambda: records(out), program, 240)
    program.kill()
    program.communicate()
    wait_until_gone(out)
    kept = {name: (out / "trials" / name / "trial.json").stat().st_mtime for name in records(out)}
    assert 1 <= len(kept) < 4

    # A worker of Ray's is killed, then a training.
    program = sweep("--resume", out)
    process = wait_until(lambda: next(iter(trainings(out)), None), program)
    psutil.Process(process).parent().parent().kill()
    process = wait_until(lambda: next(iter(trainings(out).keys() - {process}), None), program)
    os.kill(process, signal.SIGKILL)
    said = ended(program)
    found = records(out)
    assert {r["state"] for r in found.values()} == {"finished"} and len(found) == 4, said
    for name, time_written in kept.items():
        assert (out / "trials" / name / "trial.json").stat().st_mtime == time_written
    for name, step in begun.items():  # what was stopped had saved
        text = (out / "trials" / name / "training.log").read_text()
        assert f": step {step} to 120" in text, text
    assert "all trials are done" in ended(sweep("--resume", out))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gpus": 1}, "a trial asks for 1 GPUs, the largest node has 0"),
        ({"cpus": 500}, "a trial asks for 500 CPUs"),
        ({"set": {"data.train": ["/nowhere"]}}, "/nowhere"),
        ({"test": ["/nowhere"]}, "/nowhere"),
        ({"processes": 2, "backend": "zero9"}, "there is no file"),
    ],
)
def test_what_cannot_run_is_said_before_any_trial(write, tmp_path, changed, message):
    program = sweep("--config", write(**changed), "--out", tmp_path / "out")
    said, _ = program.communicate(timeout=120)
    assert program.returncode == 2 and message in said and "Traceback" not in said
    assert not list((tmp_path / "out").glob("*"))  # once it is put right, the place is still free


def test_interrupted_while_ray_starts_nothing_is_begun(write, tmp_path):
    out = tmp_path / "out"
    # A shell may have started the tests with SIGINT ignored, and that would be inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    program = sweep("--config", write(), "--out", out)
    signal.signal(signal.SIGINT, before)
    below = psutil.Process(program.pid)
    wait_until(
        lambda: any("gcs_server" in p.name() for p in below.children(recursive=True)), program
    )
    program.send_signal(signal.SIGINT)
    said, _ = program.communicate(timeout=120)
    assert program.returncode == UNFINISHED and "before the sweep began" in said, said
    assert "Traceback" not in said and not list(out.glob("*"))


def test_places_and_requests_that_are_wrong_are_refused(write, tmp_path, capsys):
    from relightx.cli import main

    file = str(write())
    (tmp_path / "file").write_text("")
    (tmp_path / "used" / "a").mkdir(parents=True)
    (tmp_path / "used" / "a" / "b").write_text("")
    for arguments, message in [
        (["--config", file, "--out", str(tmp_path / "file" / "x")], str(tmp_path / "file")),
        (["--config", file, "--out", str(tmp_path / "used")], "is already used"),
        (["--resume", str(tmp_path / "nowhere")], "no sweep here"),
        (["--config", str(tmp_path / "none.yaml"), "--out", "x"], "no such file"),
    ]:
        assert main(["sweep", *arguments]) == 2
        assert message in capsys.readouterr().err
    for arguments in (["--config", file], ["--resume", "x", "--out", "y"], []):
        with pytest.raises(SystemExit) as error:
            main(["sweep", *arguments])
        assert error.value.code == 2
    for command in (["sweep-report"], ["sweep-best", "--out", "b.yaml"]):
        assert main([*command, str(tmp_path / "nowhere")]) == 2
