"""The `relightx` command: parsing only, each subcommand a thin shell around a function.

Nothing heavy is imported before the subcommand is known, so that --help answers at once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from relightx.storage import add_storage_flags, storage_options

PROG = "relightx"


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; 0 when it worked, 2 and a message for bad input, 1 for a failed run."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["train"]:  # its options are the config's, parsed by the program itself
        from relightx.train import main as train

        return train(arguments[1:], prog=f"{PROG} train")
    if arguments[:1] == ["bench-data"]:  # likewise
        from relightx.benchdata import main as bench_data

        return bench_data(arguments[1:], prog=f"{PROG} bench-data")
    if arguments[:1] == ["bench-train"]:
        from relightx.benchtrain import main as bench_train

        return bench_train(arguments[1:], prog=f"{PROG} bench-train")
    if arguments[:1] in (["sweep"], ["sweep-report"], ["sweep-best"]):
        from relightx.sweep import commands as sweep

        own = {"sweep": sweep.sweep_main, "sweep-report": sweep.report_main}
        return own.get(arguments[0], sweep.best_main)(arguments[1:], f"{PROG} {arguments[0]}")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"{PROG} {options.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROG} {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        allow_abbrev=False,
        description="Train a model that decomposes a portrait into albedo, normals and light, and"
        " relights it, from photographs of faces under several lights.",
        epilog="Shards are built with relightx-shards; a cluster trains with"
        " accelerate launch -m relightx.train.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_quickstart(commands)
    _add(
        commands,
        "train",
        _never,
        "train on shards (as accelerate launch -m relightx.train does)",
        "All options are keys of the config: see relightx train --help.",
    )
    _add(
        commands,
        "bench-data",
        _never,
        "how fast the batches of a training configuration come",
        "All options are train's, and a few: see relightx bench-data --help.",
    )
    _add(
        commands,
        "bench-train",
        _never,
        "how fast a training configuration trains, and what limits it",
        "All options are train's, and a few: see relightx bench-train --help.",
    )
    _add_evaluate(commands)
    _add_decompose(commands)
    _add_relight(commands)
    _add_pseudolabel(commands)
    _add_report(commands)
    _add_runs(commands)
    sweeps = {
        "sweep": "train many times, with other losses, labels or data, and compare (Ray Tune)",
        "sweep-report": "what a sweep has found: one HTML file and a CSV file",
        "sweep-best": "the training of a sweep's best trial, as a file of relightx train",
    }
    for name, summary in sweeps.items():
        _add(commands, name, _never, summary, f"See relightx {name} --help.")
    return parser


def _add(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _add_quickstart(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "quickstart",
        _quickstart,
        "from nothing to a trained model and a report, in under ten minutes",
        "Builds synthetic shards, trains a small model with accelerate launch, evaluates it on"
        " people it has not seen, relights them and a photograph, and writes one report.html.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/quickstart"),
        metavar="DIR",
        help="new directory for everything it makes (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="minutes of training (default: %(default)s)",
    )
    parser.add_argument(
        "--heads",
        type=int,
        default=240,
        metavar="N",
        help="synthetic people (default: %(default)s)",
    )
    parser.add_argument(
        "--photo",
        type=Path,
        metavar="FILE",
        help="a portrait of yours to decompose and relight (default: one that"
        " comes with the program)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=128,
        metavar="PX",
        help="side of the heads and of the network's pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of everything random (default: %(default)s)",
    )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "evaluate",
        _evaluate,
        "measure a model on a split of shards",
        "Scores normals, albedo, light, reconstruction, relighting to every other light of the"
        " group and consistency across lights, inside the mask; every portrait once.",
    )
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="DIR",
        help="finished run, or its model/ or best/ directory",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="split to score, a directory or s3:// URL with index.json",
    )
    parser.add_argument(
        "--baselines",
        metavar="DIR",
        help="training split: also score its mean face and a gain-matched copy of the input",
    )
    parser.add_argument(
        "--untrained", action="store_true", help="also score the same network before training"
    )
    parser.add_argument(
        "--lights",
        type=int,
        metavar="N",
        help="at most so many lights of each portrait (default: all)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="also write the numbers, each portrait's too, as JSON",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that read (default: none but this one)",
    )
    add_storage_flags(parser, reads=True)


def _add_decompose(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "decompose",
        _decompose,
        "albedo, normals, shading and light of a photograph",
        "Writes albedo.png, normal.png, shading.png, mask.png (sRGB where it is colour, normals as"
        " (n + 1) / 2), sheet.png with all side by side, and light.json.",
    )
    _add_model_and_photo(parser)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new or empty directory"
    )


def _add_relight(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "relight",
        _relight,
        "a photograph under another light",
        "Writes the photograph with its face under another light.",
    )
    _add_model_and_photo(parser)
    parser.add_argument(
        "--light",
        required=True,
        metavar="SPEC",
        help="a JSON file of SH coefficients (9, 27 or 3 x 9 numbers, or an object"
        " with 'sh', as decompose writes it), direction:AZ,EL[,AMBIENT] (degrees;"
        " azimuth toward the picture's right, elevation up), an .hdr or .exr"
        " environment map, or another photograph",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="picture to write (.png or .jpg)"
    )


def _add_pseudolabel(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "pseudolabel",
        _pseudolabel,
        "label photographs with a model's answers, to train on them too",
        "Writes albedo, normals and light of every portrait of a split, as the model sees them, and"
        " how far each can be trusted: how well they rebuild the picture, and how much the answers"
        " for its lights and its mirror image agree. relightx-shards build celeba --pseudolabels"
        " DIR puts them into shards; the head of configs/train/sfs_joint.yaml has all the steps.",
    )
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="DIR",
        help="finished run, or its model/ or best/ directory",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="split to label, a directory or s3:// URL with index.json",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="new or empty directory"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run into --out that was stopped"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        metavar="N",
        help="processes that read, and threads that write (default: %(default)s)",
    )
    add_storage_flags(parser, reads=True)


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "report",
        _report,
        "one HTML file of a training run: curves, metrics, configuration",
        "Writes a page that needs no other file, from the log of a run, finished or not, and the"
        " numbers of relightx evaluate, where given.",
    )
    parser.add_argument("directory", type=Path, metavar="RUN", help="directory of a training run")
    parser.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="what relightx evaluate --out wrote"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="page to write (default: RUN/report.html)"
    )


def _add_model_and_photo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="DIR",
        help="finished run, or its model/ or best/ directory",
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="a portrait (sRGB)")


def _add_runs(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "runs",
        _runs,
        "runs side by side: how far, how good, and in what they differ",
        "A table of the runs at and below some directories: state, step, loss, speed, best"
        " validation, and the keys of the config that are not the same in all.",
    )
    parser.add_argument(
        "directories",
        type=Path,
        nargs="*",
        default=[Path("runs")],
        metavar="DIR",
        help="runs, or directories that hold some (default: runs)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _never(_options: argparse.Namespace) -> int:
    raise AssertionError("dispatched before parsing")


def _quickstart(options: argparse.Namespace) -> int:
    from relightx.quickstart import quickstart
    from relightx.stage import StageFailed

    try:
        quickstart(
            out=options.out,
            minutes=options.minutes,
            heads=options.heads,
            photo=options.photo,
            size=options.size,
            seed=options.seed,
        )
    except StageFailed as error:
        print(f"{PROG} quickstart: error: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(options: argparse.Namespace) -> None:
    from relightx.evaluate import evaluate, print_evaluation, write_evaluation

    evaluation = evaluate(
        options.model,
        options.data,
        baseline_data=options.baselines,
        untrained=options.untrained,
        max_lights=options.lights,
        workers=options.workers,
        s3=storage_options(options),
    )
    print_evaluation(evaluation)
    if options.out:
        write_evaluation(evaluation, options.out)


def _decompose(options: argparse.Namespace) -> None:
    from relightx.pictures import refuse_used_directory, write_decomposition
    from relightx.portrait import load

    refuse_used_directory(options.out)
    result = load(options.model).decompose(options.photo)
    _warn_without_face(result.face_found, options.photo)
    write_decomposition(result, options.out)


def _relight(options: argparse.Namespace) -> None:
    from relightx.light import Light
    from relightx.pictures import check_picture_name, write_picture
    from relightx.portrait import load

    check_picture_name(options.out)
    model = load(options.model)
    light = Light.from_spec(options.light, model)
    result = model.decompose(options.photo)
    _warn_without_face(result.face_found, options.photo)
    write_picture(result.relit(light), options.out)


def _pseudolabel(options: argparse.Namespace) -> None:
    from relightx.pseudolabel import pseudolabel

    summary = pseudolabel(
        options.model,
        options.data,
        options.out,
        resume=options.resume,
        workers=options.workers,
        s3=storage_options(options),
    )
    for key, fault in sorted(summary.unreadable.items()):
        print(f"{PROG} pseudolabel: warning: left out {key}: {fault}", file=sys.stderr)
    low, middle, high = (summary.confidence["quantiles"][q] for q in ("0.05", "0.5", "0.95"))
    print(
        f"{options.out}: {summary.portraits} portraits; confidence {summary.confidence['mean']:.2f}"
        f" on average, median {middle:.2f}, 9 of 10 from {low:.2f} to {high:.2f}"
    )


def _report(options: argparse.Namespace) -> None:
    from relightx.report import read_evaluation, write_report

    evaluation = read_evaluation(options.evaluation) if options.evaluation else None
    out = options.out or options.directory / "report.html"
    title = f"Training run {options.directory.resolve().name}"
    print(write_report(options.directory, out, title=title, evaluation=evaluation))


def _runs(options: argparse.Namespace) -> None:
    from rich.console import Console

    from relightx.runs import as_json, find_runs, show_runs

    runs = find_runs(options.directories)
    if options.json:
        print(as_json(runs))
    else:
        console = Console()
        # A pipe has no width; a table cut to 80 columns is of no use to grep.
        show_runs(runs, console if console.is_terminal else Console(width=200))


def _warn_without_face(found: bool, photo: Path) -> None:
    if not found:
        print(
            f"{PROG}: warning: {photo}: no face found; the whole picture is taken for one",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main())
