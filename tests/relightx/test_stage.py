"""Stages name themselves in what goes wrong, and leave no process behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from relightx.stage import StageFailed, duration, run, stage


def test_an_error_leaves_its_stage_with_the_stages_name():
    told = "the stage 'shards' failed: no room"
    with pytest.raises(StageFailed, match=told), stage("shards", 1, 2):
        raise OSError("no room")


def test_an_interruption_is_no_failure():
    with pytest.raises(KeyboardInterrupt), stage("shards", 1, 2):
        raise KeyboardInterrupt


def test_the_clock_stops_with_the_stage():
    with stage("shards", 1, 2) as clock:
        time.sleep(0.02)
    taken = clock()
    time.sleep(0.02)
    assert taken >= 0.02
    assert clock() == taken


def test_a_programs_exit_status_is_told_with_its_command():
    with pytest.raises(StageFailed, match="exit status 3"):
        run([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_termination_ends_the_program_and_what_it_started(tmp_path):
    inner = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    program = (
        "import sys; from relightx.stage import leaving_on_termination, run\n"
        f"with leaving_on_termination(): run([sys.executable, '-c', {outer!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    inner_pid = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(inner_pid, 0)
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s")]
)
def test_durations_read_as_people_write_them(seconds, text):
    assert duration(seconds) == text
