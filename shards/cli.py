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

from shards.commands.build import PROG, add_build
from shards.commands.looks import add_looks
from shards.commands.rewrites import add_rewrites
from shards.sources import SOURCES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code."""
    args = parse(sys.argv[1:] if arguments is None else arguments)
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


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What a command line says; of all sources only the one it names is loaded."""
    return build_parser(_chosen_source(arguments)).parse_args(arguments)


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
    add_looks(commands)
    add_rewrites(commands)
    return parser


def _chosen_source(arguments: Sequence[str]) -> str | None:
    if len(arguments) > 1 and arguments[0] in ("build", "plan") and arguments[1] in SOURCES:
        return arguments[1]
    return None


def _extra_of(package: str | None) -> str:
    extras = {"anny": "[synthetic]", "ray": "[ray]"}
    return extras.get((package or "").split(".")[0], "")


def _exit_on_hang_up_and_termination() -> None:
    """Leave through the clean-up of what is half-written, as on Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda got, _: sys.exit(128 + got))


if __name__ == "__main__":
    sys.exit(main())
