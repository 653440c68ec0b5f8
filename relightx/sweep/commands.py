"""The commands `relightx sweep`, `sweep-report` and `sweep-best`."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from relightx.storage import add_storage_flags, storage_options

UNFINISHED = 3
"""Exit status of a sweep that was interrupted and can go on."""


def sweep_main(arguments: list[str], prog: str) -> int:
    """0 when all trials are done; 2 for a wrong request, 3 when it was interrupted."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Train the same model many times, with other loss weights, less supervision or"
        " other data, on Ray Tune, and compare the trials by metrics of validation.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="of configs/sweep/")
    what.add_argument("--resume", metavar="SWEEP", help="do what is missing of a sweep")
    parser.add_argument(
        "--out", metavar="DIR", help="new directory that all nodes see, or an s3:// URL"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="a Ray cluster (default: this machine alone)"
    )
    parser.add_argument(
        "--nodes", type=int, default=1, metavar="N", help="wait until the cluster has so many"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be done, or what is wrong"
    )
    add_storage_flags(parser, reads=False)
    options = parser.parse_args(arguments)
    if options.config and not options.out:
        parser.error("--config needs --out, where the sweep is kept")
    if options.resume and options.out:
        parser.error("--resume names the sweep; leave --out away")
    return _saying(prog, lambda: _sweep(options))


def _sweep(options: argparse.Namespace) -> int:
    from relightx.sweep.begin import begin, check_trials, go_on, is_noted, note

    s3 = storage_options(options)
    plan, place = (
        begin(options.config, options.out, s3) if options.config else go_on(options.resume, s3)
    )
    if options.dry_run:
        check_trials(plan, place)
        count = plan.trials if plan.search == "optuna" else sum(1 for _ in plan.points())
        print(f"{place.out}: {count} trials, compared by {', '.join(plan.objectives)}")
        return 0
    try:
        from relightx.sweep.drive import drive
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed here: bash launch/install.sh sweep"
        ) from None
    from relightx.sweep.results import read_results, show_results

    # What is asked to end has its trials save and stop, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    interrupted = False
    try:
        is_done = drive(
            plan,
            place,
            options.address,
            options.nodes,
            meanwhile=lambda: check_trials(plan, place),
            begins=lambda: note(plan, place) if options.config else None,
        )
        if plan.baselines:
            from relightx.sweep.baselines import measure_baselines

            measure_baselines(plan, place)
    except KeyboardInterrupt:
        is_done, interrupted = False, True
        if not is_noted(place):
            print("interrupted before the sweep began", file=sys.stderr)
            return UNFINISHED
    show_results(read_results(plan, place))
    if is_done:
        print(f"all trials are done: relightx sweep-report {place.out}")
        return 0
    why = "interrupted" if interrupted else "trials are missing"
    print(f"{why}: go on with relightx sweep --resume {place.out}", file=sys.stderr)
    return UNFINISHED


def report_main(arguments: list[str], prog: str) -> int:
    """0; 2 for a wrong request."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Write what a sweep has found, finished or not: one HTML file, and a CSV file"
        " beside it with a row for each trial.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="directory or s3:// URL of a sweep")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("sweep.html"),
        metavar="FILE",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="its charts as SVG files too, for papers"
    )
    add_storage_flags(parser, reads=False)
    options = parser.parse_args(arguments)

    def write() -> None:
        from relightx.sweep.begin import go_on
        from relightx.sweep.report import write_sweep_report

        plan, place = go_on(options.sweep, storage_options(options))
        for path in write_sweep_report(plan, place, options.out, options.figures):
            print(path)

    return _saying(prog, write)


def best_main(arguments: list[str], prog: str) -> int:
    """0; 2 for a wrong request."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Write the training of a sweep's best trial as a file of relightx train.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="directory or s3:// URL of a sweep")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="YAML to write")
    parser.add_argument("--objective", metavar="NAME", help="(default: the sweep's first)")
    add_storage_flags(parser, reads=False)
    options = parser.parse_args(arguments)

    def write() -> None:
        from relightx.index import write_atomically
        from relightx.sweep.begin import go_on
        from relightx.sweep.report import best_yaml
        from relightx.sweep.results import ranked, read_results

        plan, place = go_on(options.sweep, storage_options(options))
        objective = options.objective or plan.objectives[0]
        best = ranked(read_results(plan, place), objective)
        if not best:
            raise ValueError(f"{options.sweep}: no finished trial has {objective}")
        write_atomically(options.out, best_yaml(plan, best[0]).encode())
        print(f"{options.out}: trial {best[0].name}, {objective} {best[0].scores[objective]:.4g}")

    return _saying(prog, write)


def _saying(prog: str, action: Callable[[], int | None]) -> int:
    """The action's exit status, 0 where it has none; 2 and a line for what is wrong."""
    try:
        return action() or 0
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
