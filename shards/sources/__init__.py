"""The sources of portraits that `relightx-shards build` knows, one module each.

The source NAME is the generator function NAME in shards/sources/NAME.py: it takes `root`, the
folder given as --in, where it reads files, and keyword-only options, and yields `Group`s. Its
signature gives the flags, the section Args of its docstring their help, the module's docstring the
rest of --help: the layout, where the data is had and under what terms. To add a source, write that
one function and add its line here.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

SOURCES = {
    "synthetic": "heads rendered from the MakeHuman mesh, with exact labels",
    "folder": "your own multi-lit photographs, a folder per subject",
    "olat": "one-light-at-a-time stacks of a light stage, and portraits relit from them",
    "sfsnet": "the SfSNet synthetic set, with its labels",
    "celeba": "CelebA and CelebA-HQ, one photograph a portrait, with or without pseudo-labels",
    "photoface": "Photoface, four lights a capture, with its normals and albedo",
    "dpr": "the DPR relit CelebA-HQ set, five lights a face",
    "yaleb": "the cropped Extended Yale B photographs, labels by photometric stereo",
    "multipie": "CMU Multi-PIE, nineteen flashes a pose",
}

SPLIT_FILES = {"yaleb": "configs/splits/yaleb.json"}
"""Split that is used when the command line names none, relative to the repository."""


def source_module(name: str) -> ModuleType:
    """The module of a source; imported only when it is used, since most need heavy libraries."""
    return import_module(f"shards.sources.{name}")


def source(name: str) -> Callable[..., Iterator[Any]]:
    """The generator function of a source; it yields shards.group.Group, heavy to import here."""
    return getattr(source_module(name), name)
