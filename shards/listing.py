"""Tables of what a data set holds, for people."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from relightx.index import Index
from relightx.sample import Portrait, decode
from shards.read import find_splits, read_members, read_splits
from shards.table import size_text, table
from relightx.index import Totals

MAX_READ = 200
"""Portraits of a split that are opened for their labels and licence."""

MAX_SHOWN = 3
"""Different values of one property that are named."""


def totals_table(totals: dict[str, Totals]) -> str:
    """A line for each split."""
    rows = [("split", "portraits", "subjects", "images", "shards", "size")]
    for split, t in totals.items():
        rows.append(
            (
                split,
                f"{t.groups}",
                f"{t.subjects}",
                f"{t.images}",
                f"{t.shards}",
                size_text(t.bytes),
            )
        )
    return table(rows)


def describe(directory: Path) -> str:
    """Totals, lights, picture sizes, labels, licence and source of each split.

    Labels and the like are those of up to 200 portraits spread over the split.
    Raises ValueError when the directory holds no data set.
    """
    indexes = read_splits(directory)
    text = totals_table({split: _totals(index) for split, index in indexes.items()})
    for place in find_splits(directory):
        index = indexes[place.name]
        opened = _portraits(place.directory, index)
        text += f"\n\n{place.name}" + _details(index, opened)
    return text


def _details(index: Index, opened: list[Portrait]) -> str:
    lights = [group.lights for group in index.groups]
    few, many = min(lights), max(lights)
    lines = [("lights", f"{few}" if few == many else f"{few} to {many}")]
    lines.append(("pictures", _counted(_picture_kind(p) for p in opened)))
    for name in ("albedo", "normal", "light"):
        lines.append((name, _counted(getattr(p.provenance, name) for p in opened)))
    lines.append(("mask", _counted("absent" if p.mask is None else "present" for p in opened)))
    directions = ("absent" if p.direction is None else "present" for p in opened)
    lines.append(("direction", _counted(directions)))
    for name in ("source", "licence", "crop"):
        lines.append((name, _counted(getattr(p.provenance, name) for p in opened)))
    if len(opened) < len(index.groups):
        lines.append(("", f"(pictures to crop: of {len(opened)} of {len(index.groups)} portraits)"))
    return "".join(f"\n  {name:<10} {value}" for name, value in lines)


def _portraits(directory: Path, index: Index) -> list[Portrait]:
    """Some portraits, each with its first light alone."""
    places = [(directory / shard.name, group) for shard in index.shards for group in shard.groups]
    step = max(1, -(-len(places) // MAX_READ))
    return [decode(group.key, read_members(path, group), [0]) for path, group in places[::step]]


def _totals(index: Index) -> Totals:
    return Totals(
        shards=len(index.shards),
        groups=len(index.groups),
        images=sum(group.lights for group in index.groups),
        subjects=len(index.subjects),
        bytes=sum(shard.bytes for shard in index.shards),
    )


def _picture_kind(portrait: Portrait) -> str:
    _, height, width, channels = portrait.image.shape
    colour = "gray" if channels == 1 else "RGB"
    bits = portrait.image.dtype.itemsize * 8
    return f"{width}x{height} {bits}-bit {colour} {portrait.provenance.transfer}"


def _counted(values: Iterable[str]) -> str:
    """The value when all agree, else the commonest with their counts."""
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{value} ({count})" for value, count in counts.most_common(MAX_SHOWN)]
    if len(counts) > MAX_SHOWN:
        shown.append(f"and {len(counts) - MAX_SHOWN} more")
    separator = "\n" + " " * 13 if any(len(value) > 20 for value in counts) else ", "
    return separator.join(shown)
