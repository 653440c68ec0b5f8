"""`relightx-shards verify|list|stats|preview`: their flags and what they print."""

import argparse
import json
from pathlib import Path
from typing import Any

from relightx.storage import add_storage_flags, storage_options
from shards.commands.build import at_least_one
from shards.parallel import one_thread
from shards.progress import progress_of


def add_looks(commands: "argparse._SubParsersAction") -> None:
    """Add the commands that read a data set and write nothing into it."""
    _add_verify(commands)
    _add_list(commands)
    _add_stats(commands)
    _add_preview(commands)


def add_reader(
    commands: "argparse._SubParsersAction", name: str, text: str
) -> argparse.ArgumentParser:
    """A command over one data set at a path or URL."""
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "place", metavar="URL", help="a data set or one split: a directory or s3://bucket/prefix"
    )
    add_storage_flags(parser.add_argument_group("object storage"), reads=True)
    return parser


def opened(args: argparse.Namespace) -> Any:
    """The folder of the data set; refuses what is none before the wait for heavy libraries."""
    from relightx.storage import open_folder
    from shards.read import find_splits  # numpy, before which `one_thread` is to be called

    folder = open_folder(args.place, storage_options(args))
    find_splits(folder)
    return folder


def _add_verify(commands: "argparse._SubParsersAction") -> None:
    parser = add_reader(
        commands, "verify", "re-read a data set and report every fault (exit code 1) and warning"
    )
    parser.add_argument("--workers", type=at_least_one, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--max-faults",
        type=at_least_one,
        default=50,
        help="faults, and warnings, that are printed (default: 50)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run_verify)


def _add_list(commands: "argparse._SubParsersAction") -> None:
    parser = add_reader(commands, "list", "show what a data set holds")
    parser.set_defaults(run=run_list)


def _add_stats(commands: "argparse._SubParsersAction") -> None:
    parser = add_reader(
        commands,
        "stats",
        "subjects, lights, resolution, labels, light directions, skin tones, head poses in numbers",
    )
    parser.add_argument(
        "--samples",
        type=at_least_one,
        default=400,
        help="portraits that are opened, spread over the set (default: 400)",
    )
    parser.add_argument("--workers", type=at_least_one, default=1, help="processes (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="also draw them")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.set_defaults(run=run_stats)


def _add_preview(commands: "argparse._SubParsersAction") -> None:
    parser = add_reader(
        commands, "preview", "draw a contact sheet: lights, labels and albedo x shading, or heads"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png|FILE.html")
    parser.add_argument("--split", help="of a data set (default: its first)")
    parser.add_argument(
        "--layout",
        choices=("rows", "heads", "lights"),
        default="rows",
        help="rows: a portrait each, with its labels (default); heads: many portraits, each under"
        " one of its lights; lights: one portrait under all of them (up to 64)",
    )
    parser.add_argument(
        "--portraits", type=at_least_one, help="that are shown (default: 6 rows, 64 heads)"
    )
    parser.add_argument("--key", help="of the portrait to show (default: several, or the first)")
    parser.add_argument(
        "--lights", type=at_least_one, help="of each (default: 3, a page 8, --layout lights 64)"
    )
    parser.add_argument("--tile", type=at_least_one, metavar="PX", help="side of each picture")
    parser.set_defaults(run=run_preview)


def run_verify(args: argparse.Namespace) -> int:
    """Print the faults of a data set; 1 when there are any."""
    one_thread()  # a checker multiplies small matrices, where several threads only wait
    folder = opened(args)
    from shards.looking.verify import verify  # heavy

    with progress_of("checked", None) as progress:
        report = verify(folder, args.workers, args.max_faults, progress)
    print(json.dumps(report.as_dict(), indent=1) if args.json else f"{args.place}: {report}")
    return 0 if report.passed else 1


def run_list(args: argparse.Namespace) -> int:
    """Print the table of a data set."""
    folder = opened(args)
    from shards.looking.listing import describe  # heavy

    print(describe(folder))
    return 0


def run_stats(args: argparse.Namespace) -> int:
    """Print the numbers of a data set, and draw them."""
    one_thread()
    folder = opened(args)
    from shards.looking.stats import stats  # heavy, as the next
    from shards.looking.stats_chart import draw

    numbers = stats(folder, args.samples, args.workers)
    print(json.dumps(numbers.as_dict(), indent=1) if args.json else numbers)
    if args.out is not None:
        draw(numbers, args.out)
    return 0


def run_preview(args: argparse.Namespace) -> int:
    """Write a contact sheet."""
    folder = opened(args)
    from shards.looking.preview import preview  # heavy

    file = preview(
        folder,
        args.out,
        args.split,
        args.portraits,
        args.lights,
        args.tile,
        layout=args.layout,
        key=args.key,
    )
    print(f"{file}: written")
    return 0
