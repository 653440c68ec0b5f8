"""That all processes of a run are of the same program and were told the same; or which is not."""

import hashlib
import socket
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

_PACKAGE = Path(__file__).parents[1]
_SHOWN = 3


def refuse_differences(accelerator: Accelerator, mine: Mapping[str, Any], advice: str) -> None:
    """Raise ValueError, in every process, when a value is not the same in all of them.

    It names the first values that differ, and for each of its contents the ranks and their nodes.
    """
    if accelerator.num_processes == 1:
        return
    everyone = gather_object([(socket.gethostname(), dict(mine))])
    names = dict.fromkeys(name for _, values in everyone for name in values)
    differ = [name for name in names if len({str(v.get(name)) for _, v in everyone}) > 1]
    if not differ:
        return
    said = "; ".join(_difference(name, everyone) for name in differ[:_SHOWN])
    more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
    raise ValueError(f"the processes differ in {said}{more}. {advice}")


@cache
def program() -> dict[str, str]:
    """What is computed with: the version of torch and a digest of this package's source."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return {"torch": torch.__version__, "relightx": digest.hexdigest()[:12]}


def _difference(name: str, everyone: list[tuple[str, dict[str, Any]]]) -> str:
    ranks: dict[str, list[str]] = defaultdict(list)
    for rank, (host, values) in enumerate(everyone):
        ranks[str(values.get(name))].append(f"{rank} ({host})")
    return f"{name}: " + ", ".join(
        f"{value} on rank {' '.join(of_value)}" for value, of_value in ranks.items()
    )
