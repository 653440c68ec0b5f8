"""Tables of what a data set holds, for people."""

from collections import Counter
from collections.abc import Iterable

from relightx.index import Index, Totals
from relightx.sample import Portrait, decode, extensions
from shards.read import Place, SplitPlace, find_splits, read_members, read_split
from shards.table import size_text, table

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


def describe(place: Place) -> str:
    """Totals, lights, picture sizes, labels, licence and source of each split.

    Labels and the like are those of up to 200 portraits spread over the split.
    Raises ValueError when the place holds no data set.
    """
    indexes = {split: read_split(split) for split in find_splits(place)}
    text = totals_table({split.name: index.totals for split, index in indexes.items()})
    for split, index in indexes.items():
        text += f"\n\n{split.name}" + _details(index, _portraits(split, index))
    return text


def _details(index: Index, opened: list[Portrait]) -> str:
    few, many = index.lights.min(), index.lights.max()
    lines = [("lights", f"{few}" if few == many else f"{few} to {many}")]
    lines.append(("pictures", _counted(_picture_kind(p) for p in opened)))
    for name in ("albedo", "normal", "light"):
        lines.append((name, _counted(getattr(p.provenance, name) for p in opened)))
    lines.append(("mask", _counted("absent" if p.mask is None else "present" for p in opened)))
    directions = ("absent" if p.direction is None else "present" for p in opened)
    lines.append(("direction", _counted(directions)))
    for name in ("source", "licence", "crop"):
        lines.append((name, _counted(getattr(p.provenance, name) for p in opened)))
    if len(opened) < index.num_groups:
        lines.append(("", f"(pictures to crop: of {len(opened)} of {index.num_groups} portraits)"))
    return "".join(f"\n  {name:<10} {value}" for name, value in lines)


def _portraits(split: SplitPlace, index: Index) -> list[Portrait]:
    """Some portraits, each with its first light and its mask alone."""
    step = max(1, -(-index.num_groups // MAX_READ))
    places = (index.place_of(number) for number in range(0, index.num_groups, step))
    return [
        decode(
            group.key,
            read_members(
                split.folder,
                shard.name,
                group,
                extensions(group.members, group.lights, [0], ("mask",)),
            ),
            [0],
        )
        for shard, group in places
    ]


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
