"""A program that is run for a process: it ends as by itself, and does not outlive who wanted it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from relightx.parent import below

# Says that it is there, and at SIGTERM takes its time, as one who saves does.
SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(0.5)
    print("saved", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
print("runs", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(5)", 5),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_it_ends_as_the_program_does(text, status):
    assert subprocess.run(below([sys.executable, "-c", text])).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_program_can_save_whatever_ends_who_stands_between(number):
    between = subprocess.Popen(below([sys.executable, "-c", SAVES]), stdout=subprocess.PIPE)
    assert between.stdout.readline() == b"runs\n"
    between.send_signal(number)
    assert between.stdout.read() == b"saved\n"
    assert between.wait(10) == (3 if number == signal.SIGTERM else -signal.SIGKILL)


def test_the_program_can_save_when_who_wanted_it_is_killed():
    start = f"import subprocess; from relightx.parent import below; import sys;\
 subprocess.run(below([sys.executable, '-c', {SAVES!r}]))"
    wanted = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE)
    assert wanted.stdout.readline() == b"runs\n"
    started = psutil.Process(wanted.pid).children(recursive=True)
    assert len(started) == 2
    wanted.kill()
    assert wanted.stdout.read() == b"saved\n"  # to the end: nobody has the pipe any more


def test_nothing_is_begun_for_who_is_gone():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = below([sys.executable, "-c", "print('runs')"])
    assert command[3] == str(os.getpid())
    command[3] = str(gone.pid)
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 1 and not said.stdout
    assert f"process {gone.pid} is gone" in said.stderr
