"""What ties the splits of a data set together that should not: people and pictures in several.

A model that was trained on a face, or on the very picture, is no better for knowing it in a test.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from shards.looking.duplicates import Pictures, Shared
from shards.splits import SPLITS, spelling

MAX_LISTED = 1000
"""Leaks of a kind that are kept; all are counted."""
_SHOWN = 10


class Person(NamedTuple):
    """A subject by every name that it is written with, and the splits that it is in."""

    names: tuple[str, ...]
    splits: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' = '.join(map(repr, self.names))} in {', '.join(self.splits)}"


class People:
    """Who is in which split; names that differ in spelling alone are one person's."""

    def __init__(self, places: Iterable[tuple[str, str]] = ()) -> None:
        self._names: dict[str, dict[str, None]] = defaultdict(dict)
        self._splits: dict[str, set[str]] = defaultdict(set)
        for subject, split in places:
            self.add(subject, split)

    def add(self, subject: str, split: str) -> None:
        """Note that a subject is in a split."""
        known = spelling(subject) or subject
        self._names[known][subject] = None
        self._splits[known].add(split)

    def name(self, subject: str) -> str:
        """The first of the names of a subject, the one that decides on its split."""
        return next(iter(self._names.get(spelling(subject) or subject, (subject,))))

    def split_of(self, subject: str) -> str:
        """A split that the subject is in."""
        return self._person(spelling(subject) or subject).splits[0]

    def in_several_splits(self) -> list[Person]:
        """People who are in more than one split."""
        return [self._person(who) for who, splits in self._splits.items() if len(splits) > 1]

    def of_several_names(self) -> list[Person]:
        """People who are written in more than one way."""
        return [self._person(who) for who, names in self._names.items() if len(names) > 1]

    def _person(self, who: str) -> Person:
        splits = tuple(split for split in SPLITS if split in self._splits[who])
        return Person(tuple(self._names[who]), splits)


@dataclass(frozen=True)
class Leaks:
    """What splits have in common; the lists hold the first, the numbers count all.

    before, after: people in several splits, as it was and as it is now. written: people under
    several names. pictures: portraits of different people in different splits with the same
    picture. moved: portraits that changed their split.
    """

    before: tuple[Person, ...]
    after: tuple[Person, ...]
    written: tuple[Person, ...]
    pictures: tuple[Shared, ...]
    moved: int
    num_before: int
    num_after: int
    num_written: int
    num_pictures: int

    @property
    def found(self) -> bool:
        """Whether anything is in several splits now."""
        return bool(self.num_after or self.num_pictures)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        content = asdict(self)
        for name in ("before", "after", "written"):
            content[name] = [person._asdict() for person in getattr(self, name)]
        content["pictures"] = [
            {
                "first": shared.first._asdict(),
                "second": shared.second._asdict(),
                "pictures": shared.pictures,
            }
            for shared in self.pictures
        ]
        return content

    def __str__(self) -> str:
        parts = [
            (self.num_before, "people were in several splits", self.before),
            (self.num_after, "people are in several splits", self.after),
            (self.num_written, "people are written in several ways", self.written),
            (self.num_pictures, "pairs of portraits of different people in different splits share"
             " pictures", self.pictures),
        ]  # fmt: skip
        lines = [f"{self.moved} portraits changed their split"]
        for count, what, listed in parts:
            lines.append(f"{count} {what}")
            lines += [f"  {_text(leak)}" for leak in listed[:_SHOWN]]
            if count > len(listed[:_SHOWN]):
                lines.append(f"  and {count - len(listed[:_SHOWN])} more")
        return "\n".join(lines)


def find_leaks(before: People, after: People, pictures: Pictures, moved: int) -> Leaks:
    """Compare people before and after, and the pictures as they are now."""
    shared: list[Shared] = []
    num_shared = 0
    for pair in pictures.shared():
        apart = pair.first.split != pair.second.split
        if apart and spelling(pair.first.subject) != spelling(pair.second.subject):
            num_shared += 1
            shared += [pair] if num_shared <= MAX_LISTED else []
    several, still = before.in_several_splits(), after.in_several_splits()
    written = after.of_several_names()
    return Leaks(
        before=tuple(several[:MAX_LISTED]),
        after=tuple(still[:MAX_LISTED]),
        written=tuple(written[:MAX_LISTED]),
        pictures=tuple(shared),
        moved=moved,
        num_before=len(several),
        num_after=len(still),
        num_written=len(written),
        num_pictures=num_shared,
    )


def _text(leak: Person | Shared) -> str:
    if isinstance(leak, Person):
        return str(leak)
    first, second, count = leak
    return (
        f"{count}: {first.key} of {first.subject!r} in {first.split},"
        f" {second.key} of {second.subject!r} in {second.split}"
    )
