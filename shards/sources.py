"""The sources of portraits that `relightx-shards build` knows: their flags and how to open them.

A source is a module with one generator of portraits, sorted by key. To add one, write it and add
a line to SOURCES. Nothing heavy is imported before a source is opened.
"""

from argparse import ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

from shards.parallel import ordered_map

FOLDER_LAYOUT = """\
ROOT/SUBJECT/*.png, or ROOT/SUBJECT/GROUP/*.png for several groups of one subject. The pictures of
a group are one pose and expression under different lights and have one size. Optional beside them:
  albedo.png  same transfer function as the pictures
  normal.png  (normal + 1) / 2 with +x right, +y up, +z to the camera; 16 bits are better
  mask.png    white on the portrait
  group.json  {"lights": [{"file": "left.png", "name": "left", "direction": [-1, 0, 1],
                           "sh": [[9 numbers], [9], [9]]}, ...],
               "transfer": "srgb" or "linear", "licence": "...", "crop": "...", "source": "...",
               "labels": {"albedo": "real", "normal": "pseudo", "light": "real"}}
"""


class Stream(NamedTuple):
    """Portraits ready for the shards (shards.write.Packed), and how many, where that is known."""

    packed: Generator[Any, None, None]
    total: int | None


class Source(NamedTuple):
    """A source on the command line."""

    help: str
    add_flags: Callable[[_ArgumentGroup], None]
    open: Callable[[Namespace], Stream]
    split_file: str | None = None
    """Split that is used when the command line names none, relative to the repository."""
    layout: str = ""
    """What the files it reads look like, shown under its --help."""


def at_least_one(text: str) -> int:
    """A whole number of one or more, for argparse."""
    try:
        number = int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < 1:
        raise ArgumentTypeError(f"{number} given, at least 1 needed")
    return number


def _synthetic_flags(parser: _ArgumentGroup) -> None:
    parser.add_argument(
        "--heads", type=at_least_one, required=True, help="number of heads, one subject each"
    )
    parser.add_argument("--lights", type=at_least_one, default=8, help="per head (default: 8)")
    parser.add_argument("--size", type=at_least_one, default=128, help="side in px (default: 128)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument(
        "--environments", type=Path, help="folder of .hdr or .exr maps, instead of those shipped"
    )
    _workers_flag(parser)


def _yaleb_flags(parser: _ArgumentGroup) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder with yaleB11, yaleB12 ...")
    parser.add_argument(
        "--lights",
        choices=("frontal", "all"),
        default="frontal",
        help="which photographs are kept (default: frontal); all of them give the labels",
    )


def _folder_flags(parser: _ArgumentGroup) -> None:
    parser.add_argument("--root", type=Path, required=True, help="folder with a folder per subject")
    parser.add_argument(
        "--transfer",
        choices=("srgb", "linear"),
        default="srgb",
        help="of the pictures, where group.json says nothing (default: srgb)",
    )
    parser.add_argument(
        "--licence", default="not stated", help="terms of the pictures, where group.json is silent"
    )
    _workers_flag(parser)


def _workers_flag(parser: _ArgumentGroup) -> None:
    parser.add_argument(
        "--workers", type=at_least_one, default=1, help="processes; the bytes do not depend on it"
    )


def _open_folder(args: Namespace) -> Stream:
    from shards.folder import folder_groups  # heavy

    groups = folder_groups(args.root, transfer=args.transfer, licence=args.licence)
    return Stream(ordered_map(_pack_group, groups, args.workers), len(groups))


def _pack_group(group: Any) -> Any:
    from shards.folder import read_group
    from shards.write import pack

    return pack(read_group(group))


def _open_yaleb(args: Namespace) -> Stream:
    from shards.write import pack  # heavy, as the next
    from shards.yaleb import yaleb

    return Stream((pack(portrait) for portrait in yaleb(args.root, lights=args.lights)), None)


def _open_synthetic(args: Namespace) -> Stream:
    from shards.synthetic import synthetic_jobs  # heavy

    jobs = synthetic_jobs(
        heads=args.heads,
        lights=args.lights,
        size=args.size,
        seed=args.seed,
        environments=args.environments,
    )
    return Stream(ordered_map(_pack_head, jobs, args.workers), len(jobs))


def _pack_head(job: Any) -> Any:
    from shards.synthetic import render_head
    from shards.write import pack

    return pack(render_head(job))


SOURCES: dict[str, Source] = {
    "synthetic": Source(
        "heads rendered from the MakeHuman mesh, with exact labels",
        _synthetic_flags,
        _open_synthetic,
    ),
    "yaleb": Source(
        "photographs of the Extended Yale B set, labels by photometric stereo",
        _yaleb_flags,
        _open_yaleb,
        "configs/splits/yaleb.json",
    ),
    "folder": Source(
        "your own multi-lit photographs, a folder per subject",
        _folder_flags,
        _open_folder,
        layout=FOLDER_LAYOUT,
    ),
}
