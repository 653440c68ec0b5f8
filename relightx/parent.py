"""That a process does not outlive the one that started it.

`python -m relightx.parent PID COMMAND ...` runs a program for the process PID, which starts it. The
program is asked to end, with SIGTERM, when PID is gone in whatever way. It is not PID's child, but
a child's: a worker of Ray's kills its own children as it exits, before they could save anything.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def signal_when_parent_ends(number: int) -> None:
    """Have the kernel send this process a signal when the one that started it is gone.

    Linux alone knows how; elsewhere nothing is done. Who is gone already is not noticed.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(number))


def below(command: Sequence[str]) -> list[str]:
    """The command that runs another for this process, until it is gone."""
    return [sys.executable, "-m", "relightx.parent", str(os.getpid()), *command]


def _exit_without(parent: int) -> None:
    signal_when_parent_ends(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(f"relightx.parent: process {parent} is gone")


def main(parent: int, command: Sequence[str]) -> None:
    """Run a program for a process, and end as it does, by the same signal too."""
    _exit_without(parent)
    own = os.getpid()
    # Files that this process was given to hold, a lock say, are the program's to hold.
    program = subprocess.Popen(command, close_fds=False, preexec_fn=lambda: _exit_without(own))
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    status = program.wait()
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(own, -status)
    sys.exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
