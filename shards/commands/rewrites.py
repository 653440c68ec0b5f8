"""`relightx-shards merge|reshard|split|stereo`: data made of data, as commands."""

import argparse
import json
from pathlib import Path
from typing import Any

from relightx.storage import add_storage_flags, storage_options
from shards.commands.build import SHARD_MB
from shards.progress import progress_of
from shards.splits import FRACTIONS, Assign, file_split, hash_split, parse_fractions


def add_rewrites(commands: "argparse._SubParsersAction") -> None:
    """Add the commands that make a data set of others, and labels of photographs."""
    _add_merge(commands)
    _add_reshard(commands)
    _add_split(commands)
    _add_stereo(commands)


def _add_writer(
    commands: "argparse._SubParsersAction", name: str, text: str, several: bool = False
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    sets = "data sets or splits: directories or s3:// URLs" if several else "a data set or split"
    parser.add_argument("places", metavar="URL", nargs="+" if several else 1, help=sets)
    parser.add_argument("--out", required=True, metavar="URL", help="data set to make")
    parser.add_argument(
        "--shard-mb",
        type=float,
        default=SHARD_MB,
        metavar="MIB",
        help=f"largest shard (default: {SHARD_MB})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what --out holds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_storage_flags(parser.add_argument_group("object storage"), reads=False)
    return parser


def _add_merge(commands: "argparse._SubParsersAction") -> None:
    text = "make one data set of several; pictures and labels are copied byte by byte"
    parser = _add_writer(commands, "merge", text, several=True)
    parser.add_argument(
        "--prefix", action="store_true", help="put the name of its data set before each key"
    )
    _add_assignment(parser, "everybody stays in the split they are in")
    parser.set_defaults(run=run_merge)


def _add_reshard(commands: "argparse._SubParsersAction") -> None:
    text = "the same portraits in shards of another size"
    _add_writer(commands, "reshard", text).set_defaults(run=run_reshard)


def _add_split(commands: "argparse._SubParsersAction") -> None:
    text = "give each subject another split, and report who and what is in several"
    parser = _add_writer(commands, "split", text)
    shares = ",".join(f"{name}={share:g}" for name, share in FRACTIONS.items())
    _add_assignment(parser, shares)
    parser.add_argument(
        "--apart",
        action="store_true",
        help="let names that differ in spelling only go to different splits",
    )
    parser.set_defaults(run=run_split)


def _add_assignment(parser: argparse.ArgumentParser, default: str) -> None:
    group = parser.add_argument_group("splits")
    split = group.add_mutually_exclusive_group()
    split.add_argument(
        "--split",
        metavar="NAME=FRACTION,...",
        help=f"share of the subjects in train, val and test, by hash (default: {default})",
    )
    split.add_argument(
        "--split-file", type=Path, metavar="FILE", help="JSON with lists of subjects"
    )
    group.add_argument("--split-seed", type=int, default=0, help="of the hash (default: 0)")


def _add_stereo(commands: "argparse._SubParsersAction") -> None:
    text = "photometric stereo of one folder of photographs: normals, albedo and confidence"
    parser = commands.add_parser("stereo", help=text, description=text, allow_abbrev=False)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a group as the source folder reads it"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new directory: the same, labelled"
    )
    parser.add_argument(
        "--lights",
        choices=("given", "estimated"),
        default="given",
        help="directions from group.json, or estimated up to the bas-relief ambiguity"
        " (default: given)",
    )
    parser.set_defaults(run=run_stereo)


def run_merge(args: argparse.Namespace) -> int:
    """Merge data sets."""
    from shards.rewriting.rewrite import merge  # heavy

    with progress_of("merged", None) as progress:
        places = _opened(args)
        done = merge(places, _target(args, progress), args.prefix, _assign(args))
    return _print(args, done)


def run_reshard(args: argparse.Namespace) -> int:
    """Cut a data set into other shards."""
    from shards.rewriting.rewrite import reshard  # heavy

    with progress_of("copied", None) as progress:
        done = reshard(_opened(args)[0], _target(args, progress))
    return _print(args, done)


def run_split(args: argparse.Namespace) -> int:
    """Split a data set anew."""
    from shards.rewriting.rewrite import split  # heavy

    assign = _assign(args) or hash_split(FRACTIONS, args.split_seed)
    with progress_of("copied", None) as progress:
        target = _target(args, progress)
        done = split(_opened(args)[0], target, assign, fold_subjects=not args.apart)
    return _print(args, done)


def run_stereo(args: argparse.Namespace) -> int:
    """Label one folder of photographs."""
    from shards.labelling.stereo_folder import stereo_folder  # heavy

    print(f"{stereo_folder(args.folder, args.out, args.lights)}: written")
    return 0


def _opened(args: argparse.Namespace) -> list[Any]:
    from relightx.storage import open_folder

    options = storage_options(args)
    return [open_folder(place, options) for place in args.places]


def _target(args: argparse.Namespace, progress: Any) -> Any:
    from shards.rewriting.copying import Target  # heavy

    return Target(
        out=args.out,
        shard_bytes=int(args.shard_mb * 2**20),
        overwrite=args.overwrite,
        storage=storage_options(args),
        progress=progress,
    )


def _assign(args: argparse.Namespace) -> Assign | None:
    if args.split is not None:
        return hash_split(parse_fractions(args.split), args.split_seed)
    return None if args.split_file is None else file_split(args.split_file)


def _print(args: argparse.Namespace, done: Any) -> int:
    print(json.dumps(done.as_dict(), indent=1) if args.json else f"{args.out}: written\n{done}")
    return 0
