"""What a trial meets: too little memory, several processes, a shared GPU, a lost node, S3."""

import signal
from pathlib import Path

import pytest
from processes import curves, ended, trained
from ray_nodes import ray_cluster
from s3_server import ACCESS_KEY, SECRET_KEY
from tiny_sweeps import records, steps, sweep, trainings, wait_until, wait_until_gone

from relightx.cli import main


def test_a_trial_that_does_not_fit_into_memory_is_noted_and_the_sweep_goes_on(write, tmp_path):
    # The second layer of the wide one has 72 million megabytes of weights.
    file = write(space={"model.width": [8, 1_000_000]})
    ended(sweep("--config", file, "--out", tmp_path / "out"))
    found = {r["point"]["model.width"]: r for r in records(tmp_path / "out").values()}
    assert found["8"]["state"] == "finished"
    assert found["1000000"]["state"] == "out of memory", found
    assert "memory" in found["1000000"]["reason"]


def test_a_trial_of_several_processes_stops_and_goes_on_as_one_by_hand(write, tmp_path):
    often = {"run.checkpoint_every": 5, "run.log_every": 1}
    file = write(
        60, space={"loss.cross_relighting": [1]}, seeds=[0, 1], set=often, processes=2, cpus=0.5
    )
    out = tmp_path / "out"
    program = sweep("--config", file, "--out", out)
    run = wait_until(
        lambda: next((r for r in out.glob("trials/*") if steps(r) > 10), None), program, 240
    )
    program.send_signal(signal.SIGINT)
    said, _ = program.communicate(timeout=120)
    assert program.returncode == 3, said
    wait_until_gone(out)
    assert not records(out)
    said = ended(sweep("--resume", out))
    assert {r["state"] for r in records(out).values()} == {"finished"}, said
    assert ": step 0 to 60, 2 process(es)" in (run / "training.log").read_text()
    by_hand = tmp_path / "by_hand"
    trained("ddp_cpu", ["--config", str(run / "asked.yaml"), f"--run.dir={by_hand}"])
    assert curves(by_hand) == curves(run)


def test_a_diverging_trial_of_several_processes_is_noted_as_such(write, tmp_path):
    file = write(space={"optim.learning_rate": [1e30, 1e31]}, set={}, processes=2, cpus=0.5)
    ended(sweep("--config", file, "--out", tmp_path / "out"))
    found = records(tmp_path / "out").values()
    assert [r["state"] for r in found] == ["diverged"] * 2
    assert all("loss not finite" in r["reason"] for r in found)


def test_trials_share_a_gpu_when_each_asks_for_half_of_it(write, tmp_path):
    """Ray hands out what nodes say they have, so that this needs no real one."""
    file = write(40, set={"run.threads": 1}, gpus=0.5, cpus=0.5)
    out = tmp_path / "out"
    with ray_cluster(cpus=2, gpus=1, workers=0) as cluster:
        program = sweep("--config", file, "--out", out, "--address", cluster.address)
        found = wait_until(lambda: len(trainings(out)) == 2 and trainings(out), program)
        for process in found:
            asked = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
            assert b"CUDA_VISIBLE_DEVICES=0" in asked
        ended(program)
    assert [r["state"] for r in records(out).values()] == ["finished"] * 2


def test_a_sweep_goes_on_without_a_node_that_is_lost(write, tmp_path):
    often = {"run.checkpoint_every": 5, "run.log_every": 1}
    file = write(60, space={"loss.cross_relighting": [0, 0.5, 1, 2]}, set=often)
    out = tmp_path / "out"
    with ray_cluster(cpus=1) as cluster:
        program = sweep("--config", file, "--out", out, "--address", cluster.address)
        wait_until(lambda: len([r for r in out.glob("trials/*") if steps(r) > 6]) == 2, program)
        lost = {trainings(out)[p] for p in trainings(out) if cluster.is_on_worker(p)}
        cluster.lose_worker()
        said = ended(program)
    assert len(lost) == 1
    found = records(out)
    assert [r["state"] for r in found.values()] == ["finished"] * 4, said
    text = (out / "trials" / lost.pop() / "training.log").read_text()
    assert text.count("training in ") == 2 and ": step 0 to 60" in text


@pytest.mark.usefixtures("new_credentials")
def test_a_sweep_is_kept_in_s3(write, tmp_path, s3_server, monkeypatch):
    (tmp_path / "keys").write_text(
        f"[ours]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    out, endpoint = s3_server.new_url(), ["--endpoint-url", s3_server.endpoint]
    endpoint += ["--profile", "ours"]
    file = write()
    program = sweep("--config", file, "--out", "s3://no-such-bucket/x", *endpoint)
    said, _ = program.communicate(timeout=120)
    assert program.returncode == 2 and "no-such-bucket" in said
    said = ended(sweep("--config", file, "--out", out, *endpoint))
    assert "all trials are done" in said
    assert "all trials are done" in ended(sweep("--resume", out, *endpoint))
    assert main(["sweep-report", out, *endpoint, "--out", str(tmp_path / "r.html")]) == 0
    assert main(["sweep-best", out, *endpoint, "--out", str(tmp_path / "b.yaml")]) == 0
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert len(lines) == 3 and all("finished" in line for line in lines[1:])
    assert "data:image" in (tmp_path / "r.html").read_text()
