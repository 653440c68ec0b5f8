"""Ray Tune decides which trial runs when, where, and how long; this is how it is asked to.

Whether a trial is done is not Tune's to know but stands in its `trial.json`: a sweep that goes on
after anything, a killed driver too, gives Tune the points that have none. So nothing finished is
repeated, and what Tune kept of the first time is not needed (its restore has lost trials before).

Trials of several processes are started by accelerate's launcher, not by Ray Train: so they are the
very program that is launched by hand, with the same files of configs/accelerate/, and what ends one
process ends all. Each is on one node; a sweep gains more from trials side by side.
"""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from relightx.measures import METRICS
from relightx.raycluster import ray_cluster
from relightx.storage import LocalFolder
from relightx.sweep.plan import SEED, Axis, Early, Plan, first_point, trial_name
from relightx.sweep.training import await_ended
from relightx.sweep.trial import (
    EARLY,
    FINISHED,
    Place,
    ended_trials,
    run_trial,
    write_record,
)

_NODES_S = 300.0
_RETRIES = 3
_TIMES = ("step", "validation")
STOP_FILE = "STOP"
"""Beside the trials: asks the sweep to stop, as Ctrl-C does."""


def drive(
    plan: Plan,
    place: Place,
    address: str | None,
    nodes: int,
    meanwhile: Callable[[], None],
    begins: Callable[[], None],
) -> bool:
    """Run what is missing of a sweep; whether all of it is done now.

    address: of a Ray cluster, this machine alone when None. nodes: the cluster is waited for until
    it has so many. meanwhile: called while Ray starts; what it refuses is not begun. begins: called
    when nothing is left to refuse.

    Raises ValueError for more CPUs or GPUs than there are, OSError for a cluster or a place that
    cannot be reached.
    """
    done = ended_trials(place)
    points = [point for point in _all_points(plan) if trial_name(point) not in done]
    missing = plan.trials - len(done) if plan.search == "optuna" else len(points)
    if missing <= 0:
        return True
    place.folder.delete(STOP_FILE)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the table with the trials' values
    # Starting Ray is mostly waiting for processes of its own.
    beside = ThreadPoolExecutor(1)
    ready = beside.submit(meanwhile)
    with beside, ray_cluster(address):
        ready.result()
        _await_nodes(nodes)
        slots = _slots(plan)
        begins()
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, plan=plan, place=place), _resources(plan)
            ),
            param_space=None if plan.search == "optuna" else {"point": tune.grid_search(points)},
            tune_config=tune.TuneConfig(
                num_samples=missing if plan.search == "optuna" else 1,
                search_alg=_search(plan, done, slots),
                scheduler=_scheduler(plan, place),
                max_concurrent_trials=slots if plan.search == "optuna" else None,
                trial_dirname_creator=_trial_text,
                trial_name_creator=_trial_text,
            ),
            run_config=_run_config(plan, place),
        )
        try:
            tuner.fit()
        finally:
            # A node may be taken away when its Ray is gone, with what has not saved yet.
            await_ended(place.trial_directories)
    found = ended_trials(place)
    wanted = plan.trials if plan.search == "optuna" else len(points) + len(done)
    return len(found) >= wanted


def _all_points(plan: Plan) -> list[dict[str, Any]]:
    return [] if plan.search == "optuna" else list(plan.points())


def _trial(config: dict[str, Any], plan: Plan, place: Place) -> None:
    """What Tune runs on a node."""
    point = _point(config, plan)
    reported = False

    def report(values: dict[str, float]) -> None:
        nonlocal reported
        missing = {name: _worst(name) for name in plan.objectives if name not in values}
        tune.report({**values, **missing})
        reported = True

    record = run_trial(plan, point, place, report)
    if record["state"] != FINISHED or not reported:
        best = record["best"] or {}
        bad = record["state"] != FINISHED
        values = {n: _worst(n) if bad else best.get(n, _worst(n)) for n in plan.objectives}
        report({**values, "validation": best.get("validation", 0), "step": best.get("step", 0)})


def _point(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """The point that Tune gives as it was given, or, where Optuna chose it, key by key."""
    return config.get("point") or {**config, SEED: plan.seeds[0]}


def _worst(metric: str) -> float:
    return -math.inf if METRICS[metric].higher_is_better else math.inf


class _Asha(ASHAScheduler):
    """ASHA that notes whom it stops, and lets those come to their end who are nearly there."""

    def __init__(self, plan: Plan, place: Place, early: Early, validations: int) -> None:
        self.plan, self.place, self.validations = plan, place, validations
        super().__init__(
            time_attr="validation",
            metric=plan.objectives[0],
            mode=_modes(plan)[0],
            max_t=max(early.grace + 1, validations),
            grace_period=early.grace,
            reduction_factor=early.reduction,
        )

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(controller, trial, result)
        if result["validation"] >= self.validations:
            return self.CONTINUE
        if decision == self.STOP:
            point = _point(trial.config, self.plan)
            write_record(
                self.place.trial(trial_name(point)),
                name=trial_name(point),
                point=point,
                state=EARLY,
                reason=f"worse than others after {result['validation']} validations",
                seconds=result["time_total_s"],
                best={k: v for k, v in result.items() if k in METRICS or k in _TIMES},
                test=[],
            )
        return decision


class _StopFile(tune.Stopper):
    """Ends all trials, which save and can go on, when there is a file STOP beside them."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.place.folder.size(STOP_FILE) is not None


def _search(plan: Plan, done: dict[str, dict[str, Any]], slots: int) -> Searcher | SearchAlgorithm:
    if plan.search != "optuna":
        return BasicVariantGenerator(max_concurrent=slots)
    known = [record for record in done.values() if record["state"] == FINISHED and record["best"]]
    values = [[record["best"].get(n, _worst(n)) for n in plan.objectives] for record in known]
    return OptunaSearch(
        space={axis.name: _domain(axis) for axis in plan.axes},
        metric=plan.objectives if len(plan.objectives) > 1 else plan.objectives[0],
        mode=_modes(plan) if len(plan.objectives) > 1 else _modes(plan)[0],
        points_to_evaluate=[{a.name: r["point"][a.name] for a in plan.axes} for r in known] or None,
        evaluated_rewards=[v if len(v) > 1 else v[0] for v in values] or None,
        seed=len(done),
    )


def _domain(axis: Axis) -> Any:
    if axis.draw == "uniform":
        return tune.uniform(*axis.bounds)
    if axis.draw == "log_uniform":
        return tune.loguniform(*axis.bounds)
    return tune.choice(list(axis.choices))


def _modes(plan: Plan) -> list[str]:
    return ["max" if METRICS[n].higher_is_better else "min" for n in plan.objectives]


def _scheduler(plan: Plan, place: Place) -> TrialScheduler:
    early = plan.asha
    if early is None:
        return FIFOScheduler()
    run = plan.config_of(first_point(plan)).run
    return _Asha(plan, place, early, math.ceil(run.steps / run.validate_every))


def _run_config(plan: Plan, place: Place) -> tune.RunConfig:
    columns = {
        f"point/{axis.name}" if plan.search != "optuna" else axis.name: axis.name
        for axis in plan.axes
    }
    if len(plan.seeds) > 1:
        columns[f"point/{SEED}"] = SEED
    reporter = tune.CLIReporter(
        parameter_columns=columns,
        metric_columns={
            **{name: name for name in plan.objectives},
            "step": "step",
            "time_total_s": "seconds",
        },
        max_report_frequency=15,
        max_progress_rows=30,
        sort_by_metric=False,
        metric=plan.objectives[0],
        mode=_modes(plan)[0],
    )
    path, system = _tune_storage(place)
    return tune.RunConfig(
        name="ray",
        storage_path=path,
        storage_filesystem=system,
        stop=_StopFile(place),
        failure_config=tune.FailureConfig(max_failures=_RETRIES),
        progress_reporter=reporter,
        verbose=1,
    )


def _tune_storage(place: Place) -> tuple[str, Any]:
    if isinstance(place.folder, LocalFolder):
        return place.out, None
    from pyarrow.fs import S3FileSystem

    keys: dict[str, Any] = {}
    if place.s3.profile:  # pyarrow knows of no profiles
        session = boto3.Session(profile_name=place.s3.profile)
        found = session.get_credentials().get_frozen_credentials()
        keys = {"access_key": found.access_key, "secret_key": found.secret_key}
        keys["session_token"] = found.token
    address = place.s3.endpoint_url
    return place.out.removeprefix("s3://"), S3FileSystem(
        endpoint_override=address and address.split("://")[-1],
        scheme=address.split("://")[0] if address else None,
        region=place.s3.region,
        anonymous=place.s3.unsigned,
        **keys,
    )


def _trial_text(trial: Any) -> str:
    return trial_name(trial.config["point"]) if "point" in trial.config else trial.trial_id


def _resources(plan: Plan) -> dict[str, float]:
    return {"CPU": plan.cpus * plan.processes, "GPU": plan.gpus * plan.processes}


def _slots(plan: Plan) -> int:
    """How many trials fit the cluster at a time. Raises ValueError when none does."""
    cluster = ray.cluster_resources()
    fits = []
    for name, asked in _resources(plan).items():
        nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
        held = max((resources.get(name, 0.0) for resources in nodes), default=0.0)
        if asked > held:
            raise ValueError(
                f"a trial asks for {asked:g} {name}s, the largest node has {held:g}: lower"
                f" processes, {name.lower()}s, or use another cluster"
            )
        if asked:
            fits.append(int(cluster.get(name, 0.0) / asked + 1e-9))
    return max(1, min(fits))


def _await_nodes(count: int) -> None:
    until = time.monotonic() + _NODES_S
    while (found := sum(node["Alive"] for node in ray.nodes())) < count:
        if time.monotonic() > until:
            raise OSError(
                f"the Ray cluster has {found} of {count} nodes after {_NODES_S:.0f} s; look at the"
                " output of ray start on the others"
            )
        time.sleep(0.5)
