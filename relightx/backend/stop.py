"""To be asked to stop in the middle of a run, and to stop at the same step in every process.

SLURM asks with SIGUSR1 before the time limit and with SIGTERM when it takes the nodes away, a
person with Ctrl-C or with a file RUN/STOP. A process that is asked only notes it. After each step
all exchange what they noted, and read the answer after the next: nobody waits for it.

Processes whose launcher is killed are asked by the kernel, with SIGTERM. Else they would train on,
unseen, beside the run that is resumed in the same directory.
"""

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from relightx.parent import signal_when_parent_ends

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOP_FILE = "STOP"
"""In the run's directory: asks it to stop."""
_LOOK_S = 1.0
_LAUNCHED = "TORCHELASTIC_RUN_ID"  # in the environment of torchrun's processes


class Stop:
    """In a `with` statement: signals are noted; a second SIGINT ends the process at once.

    directory: of the run, where the file is looked for. is_main: whether this process looks.
    """

    def __init__(self, directory: Path, is_main: bool) -> None:
        self._file = directory / STOP_FILE if is_main else None
        self._looked = 0.0
        self._cause = ""
        self._group = None
        self._answer: tuple[torch.Tensor, Any] | None = None
        self._going = ExitStack()

    def __enter__(self) -> "Stop":
        if dist.is_initialized() and dist.get_world_size() > 1:
            # Of its own: on that of the gradients, it would have to keep to their order.
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._going.callback(signal.signal, number, signal.signal(number, self._note))
            if _LAUNCHED in os.environ:
                signal_when_parent_ends(signal.SIGTERM)
        return self

    def __exit__(self, *_: object) -> None:
        self._going.close()

    @property
    def cause(self) -> str:
        """What this process was asked by; empty when another was, or none."""
        return self._cause

    def asked(self) -> bool:
        """Whether all stop now; to be called by all after each step."""
        if self._file is not None and not self._cause:
            self._look()
        if self._group is None:
            return bool(self._cause)
        noted = self._answer
        flag = torch.tensor([int(bool(self._cause))], dtype=torch.uint8)
        self._answer = (flag, dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True))
        if noted is None:
            return False
        noted[1].wait()
        return bool(noted[0].item())

    def _note(self, number: int, _frame: Any) -> None:
        if self._cause and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._cause = signal.Signals(number).name

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            if self._file.exists():
                self._cause = str(self._file)
