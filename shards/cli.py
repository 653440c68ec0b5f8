"""`relightx-shards build|verify|list|preview`: parsing, printing and exit codes, no more.

Exit codes: 0 done, 1 faults found by verify, 2 bad usage or input, 130 and 143 interrupted.
Heavy libraries are imported by the subcommand that needs them, so that --help is quick.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from shards.parallel import one_thread
from shards.progress import progress_of
from shards.read import find_splits
from shards.sources import SOURCES, Source, at_least_one
from shards.splits import FRACTIONS, SPLITS, Assign, file_split, hash_split, parse_fractions
from shards.staging import refuse_taken, unfinished

PROG = "relightx-shards"
REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_SPLIT = ",".join(f"{name}={share:g}" for name, share in FRACTIONS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code."""
    args = build_parser().parse_args(arguments)
    _exit_on_hang_up_and_termination()
    try:
        return args.run(args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: be quiet
        return 141
    except (ValueError, OSError) as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = f"[{args.source}]" if args.command == "build" else ""
        print(
            f"{PROG}: error: the package {error.name!r} is not installed;"
            f" pip install 'relightx{extra}' brings it",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets `run`."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Pack multi-lit portraits into WebDataset shards, and look after them.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_build(commands)
    _add_verify(commands)
    _add_list(commands)
    _add_preview(commands)
    return parser


def _add_build(commands: "argparse._SubParsersAction") -> None:
    text = "make shards of a source"
    parser = commands.add_parser("build", help=text, description=text, allow_abbrev=False)
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name, source in SOURCES.items():
        child = sources.add_parser(
            name,
            help=source.help,
            description=f"Make shards of {source.help}.",
            epilog=source.layout,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        source.add_flags(child.add_argument_group("source"))
        _add_build_flags(child, source)
        child.set_defaults(run=run_build)


def _add_build_flags(parser: argparse.ArgumentParser, source: Source) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, required=True, metavar="DIR", help="data set to make")
    split = group.add_mutually_exclusive_group()
    default = source.split_file or DEFAULT_SPLIT
    split.add_argument(
        "--split",
        metavar="NAME=FRACTION,...",
        help="share of the subjects in train, val and test, chosen by hash"
        f" ({'instead of a file' if source.split_file else 'default: ' + default})",
    )
    split.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE",
        help="JSON with lists of subjects under train, val and test"
        + (f" (default: {default})" if source.split_file else ""),
    )
    group.add_argument("--split-seed", type=int, default=0, help="of the hash (default: 0)")
    group.add_argument(
        "--shard-mb", type=float, default=256, help="largest shard in MiB (default: 256)"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace the data set that --out holds"
    )


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


def run_build(args: argparse.Namespace) -> int:
    """Build a data set and print what it holds."""
    assign = _assign(args)
    one_thread()  # with several workers each has one: the bytes must not depend on the number
    refuse_taken(args.out.resolve(), args.overwrite)
    for left in unfinished(args.out.resolve()):
        text = f"{left}: another build is under way, or one was killed; in that case delete this"
        print(f"{PROG}: note: {text}", file=sys.stderr)
    from shards.listing import totals_table  # heavy, as the next
    from shards.write import write_dataset

    stream = SOURCES[args.source].open(args)
    with closing(stream.packed) as packed, progress_of("built", stream.total) as progress:
        totals = write_dataset(
            packed, args.out, assign, int(args.shard_mb * 2**20), progress, args.overwrite
        )
    print(f"{args.out}: written")
    print(totals_table(totals))
    empty = [name for name in SPLITS if name not in totals]
    if empty:
        print(f"{PROG}: note: no subject fell to {' or '.join(empty)}", file=sys.stderr)
    return 0


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


def _assign(args: argparse.Namespace) -> Assign:
    if args.split is not None:
        return hash_split(parse_fractions(args.split), args.split_seed)
    if args.split_file is not None:
        return file_split(args.split_file)
    default = SOURCES[args.source].split_file
    if default is not None:
        return file_split(REPOSITORY / default)
    return hash_split(FRACTIONS, args.split_seed)


def _exit_on_hang_up_and_termination() -> None:
    """Leave through the clean-up of what is half-written, as on Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda got, _: sys.exit(128 + got))


if __name__ == "__main__":
    sys.exit(main())
