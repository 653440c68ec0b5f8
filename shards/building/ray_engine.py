"""The engine that builds shards as tasks of a Ray cluster, a whole shard a task.

The destination must be reached from every node: an s3:// URL or a shared disk; so must the source.
A task that is lost with its node is run again elsewhere, which changes nothing: the bytes of a
shard are a function of the plan.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from relightx.raycluster import ray_cluster
from shards.building.destination import Destination, Record
from shards.building.job import Engine, Job, one_shard
from shards.building.recipe import Task

_RETRIES = 3
_AHEAD = 2  # shards in flight for each CPU of the cluster: bounds memory, keeps CPUs busy
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Failure(NamedTuple):
    """Why a task could not build its shard: a value, since an exception brings its trace."""

    message: str


def ray_engine(address: str | None = None) -> Engine:
    """An engine on the cluster at this address; None: RAY_ADDRESS, or a cluster of this machine."""
    return lambda job: _build(job, address)


def _build(job: Job, address: str | None) -> Iterator[int]:
    with (
        nullcontext()
        if ray.is_initialized()
        else ray_cluster(address, runtime_env={"env_vars": _ONE_THREAD})
    ):
        build = ray.remote(num_cpus=1, max_retries=_RETRIES)(_task)
        place = ray.put(job.destination)
        limit = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: dict[Any, int] = {}
        for split, number, tasks in _whole_shards(job):
            while len(waiting) >= limit:
                yield _finished(job, waiting)
            waiting[build.remote(split, number, tasks, place)] = len(tasks)
        while waiting:
            yield _finished(job, waiting)


def _whole_shards(job: Job) -> Iterator[tuple[str, int, list[Task]]]:
    """The tasks of each shard, as soon as the next one of its split begins."""
    gathered: dict[str, tuple[int, list[Task]]] = {}
    for place, task in job.tasks():
        number, tasks = gathered.setdefault(place.split, (place.shard, []))
        if number != place.shard:
            yield place.split, number, tasks
            gathered[place.split] = (place.shard, tasks := [])
        tasks.append(task)
    for split, (number, tasks) in gathered.items():
        yield split, number, tasks


def _task(split: str, number: int, tasks: list[Task], place: Destination) -> Record | Failure:
    try:
        return one_shard(split, number, tasks, place)
    except (OSError, ModuleNotFoundError) as error:
        return Failure(f"{type(error).__name__}: {error}")


def _finished(job: Job, waiting: dict[Any, int]) -> int:
    """Wait for a shard; how many groups it was made of."""
    (done,), _ = ray.wait(list(waiting), num_returns=1)
    try:
        record = ray.get(done)
    except RayError as error:
        first = str(error).strip().splitlines()[-1]
        raise OSError(f"a Ray task failed {_RETRIES + 1} times: {first}") from None
    if isinstance(record, Failure):
        raise OSError(f"a Ray task could not build its shard: {record.message}")
    job.leave_out(record.faults)
    return waiting.pop(done)
