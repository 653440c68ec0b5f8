"""A function's keyword-only parameters as flags of a command line: they are written once."""

import argparse
import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse


def add_flags(parser: argparse._ActionsContainer, function: Callable[..., Any]) -> list[str]:
    """Add a flag for each keyword-only parameter; their names, as `given` takes them.

    The annotation gives the type (Path, str, int, float, bool, Literal, or one of these or None),
    the section Args of the docstring the help. Raises TypeError for another annotation.
    """
    hints, names = get_type_hints(function), []
    about = {entry.arg_name: entry.description for entry in parse(function.__doc__ or "").params}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        required = parameter.default is inspect.Parameter.empty
        text = " ".join((about.get(name) or "").split()).replace("%", "%%")
        if not required and parameter.default not in (None, "", False):
            text += " (default: %(default)s)"
        options = _type_options(function, name, hints[name])
        if not required:
            options["default"] = parameter.default
        elif "action" not in options:
            options["required"] = True
        parser.add_argument(f"--{name.replace('_', '-')}", help=text.strip(), **options)
        names.append(name)
    return names


def takes_folder(function: Callable[..., Any]) -> bool:
    """Whether a source reads a folder, its parameter `root`."""
    return "root" in inspect.signature(function).parameters


def given(args: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """The values that the flags of these names have."""
    return {name: getattr(args, name) for name in names}


def _type_options(function: Callable[..., Any], name: str, hint: Any) -> dict[str, Any]:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if isinstance(hint, type):
        return {"type": hint, "metavar": {"int": "N", "float": "X"}.get(hint.__name__, "TEXT")}
    raise TypeError(f"{function.__name__}: parameter {name} has type {hint}, which is no flag's")
