"""To join a Ray cluster, or start one of this machine, for as long as a `with` statement."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

_ANSWER_S = 10


@contextmanager
def ray_cluster(address: str | None, **options: Any) -> Iterator[None]:
    """Within it this process works on the cluster at HOST:PORT; None: RAY_ADDRESS, or this machine
    alone, with as many CPUs as the process may use.

    options: of ray.init. Raises OSError for a cluster that cannot be joined.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, behind all else on the node
    # "local" and not None: that would join whatever cluster was last started here, also a dead one.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        options |= {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False}
    try:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level="warning", **options)
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise OSError(
            f"Ray cluster {address}: cannot be joined: {first}. Start one with ray start --head, or"
            " leave --address out to use this machine alone"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """OSError when nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
