"""`relightx-shards`: parsing, printing and exit codes, no more.

Exit codes: 0 done, 1 faults found by verify, 2 bad usage or input, 130 and 143 interrupted.
Heavy libraries are imported by the subcommand that needs them, so that --help is quick.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shards.build_cli import PROG, add_build, at_least_one
from shards.progress import progress_of
from shards.read import find_splits
from shards.sources import SOURCES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code."""
    arguments = sys.argv[1:] if arguments is None else [*arguments]
    args = build_parser(_chosen_source(arguments)).parse_args(arguments)
    _exit_on_hang_up_and_termination()
    try:
        return args.run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: be quiet
        return 141
    except (ValueError, OSError) as error:
        text = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
        print(f"{PROG}: error: {text}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _extra_of(error.name)
        print(
            f"{PROG}: error: the package {error.name!r} is not installed;"
            f" pip install 'relightx{extra}' brings it",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130


def build_parser(source: str | None = None) -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `run`. source: the one whose flags are needed."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Pack multi-lit portraits into WebDataset shards, and look after them.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_build(commands, "build", source)
    add_build(commands, "plan", source)
    _add_verify(commands)
    _add_list(commands)
    _add_preview(commands)
    return parser


def _chosen_source(arguments: list[str]) -> str | None:
    if len(arguments) > 1 and arguments[0] in ("build", "plan") and arguments[1] in SOURCES:
        return arguments[1]
    return None


def _extra_of(package: str | None) -> str:
    extras = {"anny": "[synthetic]", "ray": "[ray]"}
    return extras.get((package or "").split(".")[0], "")


def _add_verify(commands: "argparse._SubParsersAction") -> None:
    text = "re-read a data set and report every fault (exit code 1)"
    parser = commands.add_parser("verify", help=text, description=text, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a data set or one split")
    parser.add_argument("--workers", type=at_least_one, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--max-faults", type=at_least_one, default=50, help="faults that are printed (default: 50)"
    )
    parser.set_defaults(run=run_verify)


def _add_list(commands: "argparse._SubParsersAction") -> None:
    text = "show what a data set holds"
    parser = commands.add_parser("list", help=text, description=text, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a data set or one split")
    parser.set_defaults(run=run_list)


def _add_preview(commands: "argparse._SubParsersAction") -> None:
    text = "draw a contact sheet: lights, labels and albedo x shading of some portraits"
    parser = commands.add_parser("preview", help=text, description=text, allow_abbrev=False)
    parser.add_argument("directory", type=Path, metavar="DIR", help="a data set or one split")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--split", help="of a data set (default: its first)")
    parser.add_argument("--portraits", type=at_least_one, default=6, help="rows (default: 6)")
    parser.add_argument("--lights", type=at_least_one, default=3, help="per row (default: 3)")
    parser.add_argument("--tile", type=at_least_one, default=144, help="side in px (default: 144)")
    parser.set_defaults(run=run_preview)


def run_verify(args: argparse.Namespace) -> int:
    """Print the faults of a data set; 1 when there are any."""
    find_splits(args.directory)  # refuses other directories before the wait for heavy libraries
    from shards.verify import verify  # heavy

    with progress_of("checked", None) as progress:
        report = verify(args.directory, args.workers, args.max_faults, progress)
    for fault in report.faults:
        print(fault)
    if report.num_faults > len(report.faults):
        print(f"... and {report.num_faults - len(report.faults)} more")
    checked = (
        f"{report.groups} portraits, {report.images} images in {report.shards} shards"
        f" of {', '.join(report.splits) or 'no readable split'}"
    )
    verdict = "no fault" if report.passed else f"{report.num_faults} faults"
    print(f"{args.directory}: {verdict} in {checked}")
    return 0 if report.passed else 1


def run_list(args: argparse.Namespace) -> int:
    """Print the table of a data set."""
    find_splits(args.directory)
    from shards.listing import describe  # heavy

    print(describe(args.directory))
    return 0


def run_preview(args: argparse.Namespace) -> int:
    """Write a contact sheet."""
    find_splits(args.directory)
    from shards.preview import preview  # heavy

    file = preview(args.directory, args.out, args.split, args.portraits, args.lights, args.tile)
    print(f"{file}: written")
    return 0


def _exit_on_hang_up_and_termination() -> None:
    """Leave through the clean-up of what is half-written, as on Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda got, _: sys.exit(128 + got))


if __name__ == "__main__":
    sys.exit(main())
