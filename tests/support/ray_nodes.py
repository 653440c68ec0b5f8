"""A real Ray cluster of two nodes on this machine's loopback, made with `ray start`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

# Ray takes 127.0.0.1 for the address that others reach this machine by; not so its neighbours.
HEAD, WORKER = "127.0.0.2", "127.0.0.3"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",  # else the tests beside it leave it no core
}


class RayNodes:
    """A running cluster; all of a node's processes stem from the one that started it."""

    def __init__(self, address: str, nodes: list[subprocess.Popen]) -> None:
        self.address = address
        self._nodes = nodes

    def is_on_worker(self, process: int) -> bool:
        """Whether a process of Ray's, or one that it started, is the worker node's."""
        return any(other.pid == self._nodes[1].pid for other in psutil.Process(process).parents())

    def lose_worker(self) -> None:
        """Kill the worker node."""
        _kill(self._nodes.pop())


@contextmanager
def ray_cluster(cpus: int = 1, gpus: int = 0, workers: int = 1) -> Iterator[RayNodes]:
    """Start a head, and a worker node unless told not to. All end with it.

    gpus: that each node says it has.
    """
    # Ray's sockets lie in there, and a socket's path has 107 characters at most.
    directory = tempfile.mkdtemp(prefix="ray-")
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        address = f"{HEAD}:{probe.getsockname()[1]}"
    common = [
        f"--num-cpus={cpus}",
        f"--num-gpus={gpus}",
        "--object-store-memory=100000000",
        "--block",
    ]
    head = ["--head", f"--node-ip-address={HEAD}", f"--port={address.split(':')[1]}"]
    head += ["--include-dashboard=false", f"--temp-dir={directory}"]
    nodes: list[subprocess.Popen] = []
    try:
        nodes.append(_start([*head, *common], Path(directory) / "head.out"))
        _wait_for_nodes(address, 1)
        worker = [f"--address={address}", f"--node-ip-address={WORKER}"]
        if workers:
            nodes.append(_start([*worker, *common], Path(directory) / "worker.out"))
            _wait_for_nodes(address, 2)
        yield RayNodes(address, nodes)
    finally:
        for node in reversed(nodes):
            _kill(node)
        shutil.rmtree(directory, ignore_errors=True)


def _kill(node: subprocess.Popen) -> None:
    os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def _start(arguments: list[str], log: Path) -> subprocess.Popen:
    command = [str(Path(sys.executable).with_name("ray")), "start", *arguments]
    with open(log, "wb") as stream:
        # In a session of its own, so that all of Ray's processes end together.
        return subprocess.Popen(
            command,
            # The tests hide GPUs, and Ray hands out none that are hidden.
            env={**os.environ, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "0"},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def _wait_for_nodes(address: str, count: int, seconds: float = 90) -> None:
    host, port = address.split(":")
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            if _alive(address) >= count:
                return
        except OSError:
            pass
        if time.monotonic() > until:
            raise TimeoutError(f"Ray at {address} does not come up with {count} nodes")
        time.sleep(0.3)


def _alive(address: str) -> int:
    from ray._raylet import GcsClient

    os.environ.update(ENVIRONMENT)
    nodes = GcsClient(address=address).get_all_node_info(timeout=5)
    return sum(node.state == 0 for node in nodes.values())
