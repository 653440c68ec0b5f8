"""Contestants in processes of their own, where nothing of one can be left over for another.

For each module of contestants a process imports it once; each measurement then runs in a fork of
that process, so it begins with fresh memory and no threads, and no import is part of its time.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from loading.job import MOST_S, Job, timed
from loading.tar import check, read_raw

_FAULT_CHARACTERS = 1500
MODULES = ("bare", "ours", "web", "mds", "lit", "files")


class Served:
    """The process of one module."""

    def __init__(self, program: str, module: str, environment: dict[str, str]) -> None:
        command = [sys.executable, program, "--serve", module]
        pipe = subprocess.PIPE
        self.module = module
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **environment}
        )

    def ask(self, action: str, **values: Any) -> dict[str, Any]:
        """Have it done in a fork. Raises RuntimeError with what went wrong there."""
        self.process.stdin.write(json.dumps({"action": action, **values}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"fault": "its process has ended"}
        if "fault" in answer:
            raise RuntimeError(f"{self.module}: {action}: {answer['fault']}")
        return answer

    def close(self) -> None:
        """End it, by its input's end."""
        self.process.communicate()


@contextmanager
def all_served(program: str, environment: dict[str, str]) -> Iterator[dict[str, Served]]:
    """One process for each module."""
    with ExitStack() as going:
        served = {module: Served(program, module, environment) for module in MODULES}
        for each in served.values():
            going.callback(each.close)
        yield served


def serve(module_name: str) -> None:
    """Answer the questions on standard input, one line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    module = importlib.import_module(f"loading.{module_name}")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            answers.write(json.dumps(_answer(module, json.loads(line))) + "\n")
            answers.flush()
            sys.exit()  # not os._exit: some tidy up shared memory at exit
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            answers.write(json.dumps({"fault": f"ended by signal {os.WTERMSIG(status)}"}) + "\n")
            answers.flush()


def _answer(module: Any, asked: dict[str, Any]) -> dict[str, Any]:
    signal.alarm(2 * MOST_S if asked["action"] == "write" else MOST_S)
    try:
        return _ACTIONS[asked.pop("action")](module, **asked)
    except Exception:
        return {"fault": traceback.format_exc(limit=-2)[-_FAULT_CHARACTERS:]}
    finally:
        signal.alarm(0)


def _measure(module: Any, function: str, job: dict[str, Any]) -> dict[str, Any]:
    """Rates, of batches of which the last is compared with what was stored."""
    wanted = Job(**job)
    if function == "bare_loop":
        return module.bare_loop(wanted)._asdict()
    timing, batch = timed(getattr(module, function), wanted)
    check(batch, Path(wanted.reference))
    return timing._asdict()


def _fill(module: Any, function: str, job: dict[str, Any]) -> dict[str, Any]:
    """Leave the cache as a first run does that read everything."""
    wanted = Job(**job)
    if hasattr(module, "fill"):
        module.fill(wanted)
    else:
        for _ in getattr(module, function)(wanted):
            pass
    held = [path.stat().st_size for path in wanted.cache_path.rglob("*") if path.is_file()]
    return {"bytes": sum(held)}


def _write(module: Any, function: str, source: str, directory: str) -> dict[str, Any]:
    """Store the portraits in the module's format."""
    raw = list(read_raw(Path(source)))
    total = sum(len(data) for _, members in raw for data in members.values())
    getattr(module, function)(raw, Path(directory), total)
    return {"bytes": total}


_ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "measure": _measure,
    "fill": _fill,
    "write": _write,
}
