"""`relightx-shards build|plan SOURCE`: their flags, and the call of shards.building.build."""

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from relightx.storage import add_storage_flags, storage_options
from shards.commands.flags import add_flags, given, takes_folder
from shards.parallel import one_thread
from shards.progress import progress_of
from shards.sources import SOURCES, SPLIT_FILES, source, source_module
from shards.splits import FRACTIONS, SPLITS, Assign, file_split, hash_split, parse_fractions

PROG = "relightx-shards"
REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_SPLIT = ",".join(f"{name}={share:g}" for name, share in FRACTIONS.items())
SHARD_MB = 256


def add_build(commands: "argparse._SubParsersAction", command: str, chosen: str | None) -> None:
    """Add `build` or `plan`; only the chosen source's module is loaded and gets its flags."""
    text = {
        "build": "make shards of a source",
        "plan": "say what a build would make: groups, shards, bytes, time, advice for a cluster",
    }[command]
    parser = commands.add_parser(command, help=text, description=text, allow_abbrev=False)
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, summary in SOURCES.items():
        child = sources.add_parser(
            name,
            help=summary,
            description=f"Shards of {summary}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == chosen:
            _fill(child, command, name)


def _fill(parser: argparse.ArgumentParser, command: str, name: str) -> None:
    function = source(name)
    parser.epilog = source_module(name).__doc__
    group = parser.add_argument_group("source")
    if takes_folder(function):
        group.add_argument(
            "--in", dest="root", type=Path, required=True, metavar="DIR", help="folder of the set"
        )
    names = add_flags(group, function)
    group.add_argument("--limit", type=at_least_one, metavar="N", help="the first N groups alone")
    _add_split_flags(parser.add_argument_group("splits"), name)
    _add_recipe_flags(parser.add_argument_group("steps"))
    _add_output_flags(parser.add_argument_group("output"), needs_out=command == "build")
    _add_engine_flags(parser.add_argument_group("where it runs"))
    _add_cluster_flags(parser.add_argument_group("cluster that --dry-run advises for"))
    add_storage_flags(parser.add_argument_group("object storage"), reads=False)
    parser.set_defaults(run=run_plan if command == "plan" else run_build, source_flags=names)


def _add_split_flags(group: argparse._ArgumentGroup, name: str) -> None:
    split = group.add_mutually_exclusive_group()
    file = SPLIT_FILES.get(name)
    split.add_argument(
        "--split",
        metavar="NAME=FRACTION,...",
        help="share of the subjects in train, val and test, chosen by hash"
        f" ({'instead of a file' if file else 'default: ' + DEFAULT_SPLIT})",
    )
    split.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE",
        help="JSON with lists of subjects under train, val and test"
        + (f" (default: {file})" if file else ""),
    )
    group.add_argument("--split-seed", type=int, default=0, help="of the hash (default: 0)")
    group.add_argument(
        "--fold-subjects",
        action="store_true",
        help="take subjects that differ in spelling only (Anna, anna_) for one person; otherwise"
        " groups under the later spelling are skipped",
    )


def _add_recipe_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--align",
        type=at_least_one,
        metavar="PX",
        help="find the face, once for all lights of a group, and store a square crop of so many"
        " pixels; the way back is kept in meta.json",
    )
    group.add_argument(
        "--mask",
        choices=("face", "skin", "keep"),
        default="face",
        help="mask of an aligned portrait: the face's oval, its skin alone, or the source's"
        " (default: face)",
    )
    group.add_argument(
        "--min-face",
        type=at_least_one,
        default=40,
        metavar="PX",
        help="smallest face that is aligned, chin to forehead, in the photograph (default: 40)",
    )
    group.add_argument(
        "--stereo",
        choices=("given", "estimated"),
        help="make missing labels by photometric stereo: from the lights' given directions, or"
        " from directions estimated too, known up to the bas-relief ambiguity",
    )
    group.add_argument(
        "--jpeg",
        type=at_least_one,
        metavar="QUALITY",
        help="store images as 8-bit sRGB JPEG, 1 to 100, instead of PNG as they are: smaller, with"
        " loss; labels always stay lossless",
    )


def _add_output_flags(group: argparse._ArgumentGroup, needs_out: bool) -> None:
    group.add_argument(
        "--out",
        required=needs_out,
        metavar="URL",
        help="data set to make: a directory or s3://bucket/prefix",
    )
    group.add_argument(
        "--shard-mb",
        type=float,
        default=SHARD_MB,
        metavar="MIB",
        help=f"size that shards come close to (default: {SHARD_MB})",
    )
    group.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of the groups that may be unusable before the build stops (default: 0.01);"
        " build-report.json lists them",
    )
    group.add_argument(
        "--resume", action="store_true", help="go on with a build that was interrupted"
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the data set that --out holds: a directory once the new one is whole; in S3"
        " its indexes go first, so that nobody reads a mixture",
    )
    group.add_argument("--dry-run", action="store_true", help="plan only, write nothing")


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--workers",
        type=at_least_one,
        default=1,
        metavar="N",
        help="processes on this machine (default: 1)",
    )
    group.add_argument(
        "--engine",
        choices=("here", "ray"),
        default="here",
        help="build on this machine or as tasks of a Ray cluster (default: here)",
    )
    group.add_argument(
        "--address", metavar="ADDRESS", help="of the Ray cluster (default: RAY_ADDRESS, or local)"
    )
    group.add_argument(
        "--part",
        metavar="K/N",
        help="build the shards of job K of N (from 0), as launch/shards.sbatch does; the last one"
        " to finish publishes the set",
    )


def _add_cluster_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--nodes", type=at_least_one, default=1, metavar="N")
    group.add_argument("--gpus-per-node", type=at_least_one, default=1, metavar="N")
    group.add_argument(
        "--window", type=at_least_one, default=16, metavar="N", help="data.window of the training"
    )


def run_plan(args: argparse.Namespace) -> int:
    """Print what a build would make; nothing is written."""
    one_thread()
    from shards.building.advice import Cluster, describe_plan  # heavy, as the next
    from shards.building.plan import make_plan

    cluster = Cluster(args.nodes, args.gpus_per_node, args.window, args.workers)
    size = int(args.shard_mb * 2**20)
    with (
        progress_of("found", None, "groups") as progress,
        make_plan(
            _finder(args),
            _assign(args),
            _recipe(args),
            size,
            fold_subjects=args.fold_subjects,
            progress=progress,
        ) as plan,
    ):
        text = describe_plan(plan, size, cluster)
    print(text)
    return 0


def run_build(args: argparse.Namespace) -> int:
    """Build a data set and print what it holds."""
    if args.dry_run:
        return run_plan(args)
    assign = _assign(args)
    one_thread()  # with several workers each has one: the bytes must not depend on the number
    from shards.building.build import Part, Settings, build  # heavy, as the next
    from shards.building.destination import REPORT
    from shards.building.job import here
    from shards.building.report import lines
    from shards.looking.listing import totals_table

    settings = Settings(
        recipe=_recipe(args),
        shard_bytes=int(args.shard_mb * 2**20),
        workers=args.workers,
        part=Part(*_part(args.part)) if args.part else Part(),
        max_skipped=args.max_skipped,
        fold_subjects=args.fold_subjects,
        resume=args.resume,
        overwrite=args.overwrite,
        storage=storage_options(args),
    )
    engine = here
    if args.engine == "ray":
        from shards.building.ray_engine import ray_engine

        engine = ray_engine(args.address)
    with ExitStack() as stack:

        def progress(total: int, done: int) -> Any:
            return stack.enter_context(progress_of("built", total, "groups", already=done))

        try:
            built = build(_finder(args), args.out, assign, settings, _about(args), engine, progress)
        except BaseException as error:
            for note in getattr(error, "__notes__", ()):
                print(f"{PROG}: note: {note}", file=sys.stderr)
            raise
    report = f"{args.out.rstrip('/')}/{REPORT}"
    for line in lines(built.faults, report):
        print(f"{PROG}: {line}", file=sys.stderr)
    if built.totals is None:
        print(f"{args.out}: this part is done; {built.shards_left} shards of other parts are not")
        return 0
    print(f"{args.out}: written")
    print(totals_table(built.totals))
    empty = [name for name in SPLITS if name not in built.totals]
    if empty:
        print(f"{PROG}: note: no subject fell to {' or '.join(empty)}", file=sys.stderr)
    return 0


def _finder(args: argparse.Namespace) -> Any:
    function, options = source(args.source), given(args, args.source_flags)

    def find() -> Iterator[Any]:
        groups = function(args.root, **options) if "root" in args else function(**options)
        return itertools.islice(groups, args.limit)

    return find


def _about(args: argparse.Namespace) -> dict[str, Any]:
    """What the report says of a build's input."""
    options = given(args, args.source_flags) | {"limit": args.limit}
    split = {"fractions": args.split or DEFAULT_SPLIT, "seed": args.split_seed}
    file = args.split_file or (SPLIT_FILES.get(args.source) if args.split is None else None)
    return {
        "source": args.source,
        "options": {name: _plain(value) for name, value in options.items()},
        "split": split if file is None else {"file": Path(file).name},
        "fold_subjects": args.fold_subjects,
    }


def _plain(value: Any) -> Any:
    # Of paths the name alone: the same data set in another place gives the same report.
    return value.name if isinstance(value, Path) else value


def _recipe(args: argparse.Namespace) -> Any:
    from shards.building.recipe import Recipe  # heavy

    return Recipe(args.align, args.mask, args.min_face, args.stereo, args.jpeg)


def _assign(args: argparse.Namespace) -> Assign:
    if args.split is not None:
        return hash_split(parse_fractions(args.split), args.split_seed)
    if args.split_file is not None:
        return file_split(args.split_file)
    if args.source in SPLIT_FILES:
        return file_split(REPOSITORY / SPLIT_FILES[args.source])
    return hash_split(FRACTIONS, args.split_seed)


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise ValueError(f"--part is {text!r}; K/N with K from 0 to N - 1 is needed, such as 0/8")
    return int(number), int(count)


def at_least_one(text: str) -> int:
    """A whole number of one or more, for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} given, at least 1 needed")
    return number
