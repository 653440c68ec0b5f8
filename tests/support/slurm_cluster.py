"""A real SLURM of two virtual nodes on this machine, Debian's, for as long as a test needs it.

All its state lies in one temporary directory; its ports are free ones, and are closed at the end.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo", "scontrol")
NODES = ("n1", "n2")
_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"

_CONFIGURATION = """\
ClusterName=relightx
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SwitchType=switch/none
MpiDefault=none
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobRequeue=1
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Slurm:
    """A running cluster; `environment` is what its commands need."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(root / "slurm.conf")}

    def run(self, *command: str, **options: object) -> str:
        """What a command prints; CalledProcessError when it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, **options
        )
        if done.returncode:
            said = done.stdout + done.stderr
            raise RuntimeError(f"{command} ended with {done.returncode}: {said}")
        return done.stdout

    def submit(self, *arguments: str, cwd: Path) -> str:
        """Submit a batch job; its number."""
        return self.run("sbatch", "--parsable", *arguments, cwd=cwd).strip().split(";")[0]

    def requeue(self, task: str) -> None:
        """Take a running task from its node, as preemption does, and let it begin again soon."""
        self.run("scontrol", "requeue", task)
        until = time.monotonic() + 60
        while self.states(task.split("_")[0])[task] != "PENDING":
            assert time.monotonic() < until
            time.sleep(0.1)
        # SLURM itself would wait for two minutes; its node refuses a job in the second of its end.
        self.run("scontrol", "update", f"JobId={task}", "StartTime=now+4")

    def states(self, job: str) -> dict[str, str]:
        """State of each task of a job, by its name such as 12_0."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job)
        states = {}
        for line in shown.splitlines():
            values = dict(item.split("=", 1) for item in line.split() if "=" in item)
            if "JobState" in values:
                task = values.get("ArrayTaskId")
                states[f"{job}_{task}" if task else values["JobId"]] = values["JobState"]
        return states

    def wait(self, job: str, seconds: float = 120) -> dict[str, str]:
        """States of a job's tasks once none of them runs or waits."""
        until = time.monotonic() + seconds
        while True:
            states = self.states(job)
            busy = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"}
            if states and not busy & set(states.values()):
                return states
            if time.monotonic() > until:
                raise TimeoutError(f"job {job} is still {states}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        """Ends of the daemons' logs, for a failure's message."""
        return "\n".join(f"{f.name}: {f.read_text()[-1500:]}" for f in self.root.glob("*.log"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    """A cluster for a file's tests; without SLURM they fail in CI and are skipped elsewhere."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing or os.geteuid():
        why = f"needs root and Debian's slurm-wlm and munge (not found: {', '.join(missing)})"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@contextmanager
def slurm_cluster(root: Path, cpus: int = 2) -> Iterator[Slurm]:
    """Start munge, a controller and two node daemons; end them all."""
    controller, *ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port}"
        f" CPUs={cpus} RealMemory=4000 State=UNKNOWN"
        for name, port in zip(NODES, ports, strict=True)
    )
    (root / "state").mkdir(parents=True)
    munge = root / "munge" / "socket"
    (root / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=socket.gethostname(), controller=controller, root=root, munge=munge, nodes=nodes
        )
    )
    cluster, started = Slurm(root), []
    try:
        started.append(_start_munge(munge, cluster))
        started.append(_start(cluster, "slurmctld", "-D", "-i"))
        started += [_start(cluster, "slurmd", "-D", "-N", name) for name in NODES]
        _wait_for_nodes(cluster)
        yield cluster
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start_munge(munge: Path, cluster: Slurm) -> subprocess.Popen:
    # Root's own daemon on its own socket: munge refuses directories that others may write to.
    munge.parent.mkdir(mode=0o755)
    key = munge.with_name("key")
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    options = [f"--socket={munge}", f"--key-file={key}"]
    options += [f"--{name}-file={munge.with_name(name)}" for name in ("pid", "log", "seed")]
    return _start(cluster, "munged", "--foreground", "--force", *options)


def _start(cluster: Slurm, program: str, *arguments: str) -> subprocess.Popen:
    path = shutil.which(program, path=_PATH)
    name = f"{program}-{arguments[-1]}.out" if program == "slurmd" else f"{program}.out"
    log = open(cluster.root / name, "ab")  # noqa: SIM115
    return subprocess.Popen([path, *arguments], env=cluster.environment, stdout=log, stderr=log)


def _wait_for_nodes(cluster: Slurm, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            states = cluster.run("sinfo", "--noheader", "--Node", "--format=%N %T").split()
            if states[1::2] == ["idle"] * len(NODES):
                return
            problem = " ".join(states)
        except RuntimeError as error:
            problem = str(error)
        if time.monotonic() > until:
            raise TimeoutError(f"SLURM does not come up: {problem}\n{cluster.logs()}")
        time.sleep(0.3)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
