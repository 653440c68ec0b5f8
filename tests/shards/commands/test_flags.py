import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from shards.commands.flags import add_flags, given, takes_folder
from shards.sources import SOURCES, source, source_module


def example(
    root: Path,
    *,
    heads: int,
    transfer: Literal["srgb", "linear"] = "srgb",
    share: float = 0.5,
    labels: Path | None = None,
    subtract: bool = True,
    note: str = "",
) -> Iterator[int]:
    """An example.

    Args:
        heads: number of heads,
            50% of them women
        labels: folder of labels
    """


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(allow_abbrev=False)


def test_a_signature_becomes_flags_of_its_types_and_defaults(parser):
    names = add_flags(parser, example)
    assert names == ["heads", "transfer", "share", "labels", "subtract", "note"]
    values = given(parser.parse_args(["--heads", "3"]), names)
    assert values == {
        "heads": 3,
        "transfer": "srgb",
        "share": 0.5,
        "labels": None,
        "subtract": True,
        "note": "",
    }
    line = [
        "--heads",
        "3",
        "--labels",
        "a/b",
        "--no-subtract",
        "--transfer",
        "linear",
        "--share",
        "0.25",
        "--note",
        "x",
    ]
    values = given(parser.parse_args(line), names)
    assert values["labels"] == Path("a/b") and values["subtract"] is False
    assert (values["transfer"], values["share"], values["note"]) == ("linear", 0.25, "x")


def test_the_help_is_the_docstrings(parser):
    add_flags(parser, example)
    text = " ".join(parser.format_help().split())
    assert "number of heads, 50% of them women" in text and "folder of labels" in text
    assert "(default: 0.5)" in text


@pytest.mark.parametrize(
    "line", [[], ["--heads", "many"], ["--heads", "1", "--transfer", "gamma"], ["--head", "1"]]
)
def test_what_does_not_fit_the_signature_is_refused(parser, line, capsys):
    add_flags(parser, example)
    with pytest.raises(SystemExit) as leaving:
        parser.parse_args(line)
    assert leaving.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_an_annotation_that_is_no_flag_is_a_mistake_of_the_source(parser):
    def wrong(*, sizes: list[int]) -> None:
        """Wrong."""

    with pytest.raises(TypeError, match="parameter sizes has type"):
        add_flags(parser, wrong)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_flags_with_help_and_says_where_its_data_is_had(name, parser):
    pytest.importorskip("anny") if name == "synthetic" else None
    function, about = source(name), source_module(name).__doc__
    add_flags(parser, function)
    for action in parser._actions[1:]:
        assert action.help, f"{name}: {action.option_strings} needs a line under Args"
    assert takes_folder(function) == (name != "synthetic")
    assert name == "folder" or re.search("[Tt]erms|research|licen[cs]e", about)
