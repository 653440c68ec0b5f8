"""Data sets made of data sets: merged, cut into other shards, split anew.

Nothing is decoded: pictures and labels go over byte by byte (shards.rewriting.copying). What is
looked at are keys, which must differ, and people, who belong to one split each however their names
are spelt.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from shards.group import key_of
from shards.read import Place
from shards.rewriting.copying import Rewritten, Source, Target, copy, open_source
from shards.rewriting.leaks import People, Person
from shards.splits import Assign

_SHOWN = 5


def merge(
    places: list[Place], target: Target, prefix: bool = False, assign: Assign | None = None
) -> Rewritten:
    """One data set of several, one after the other.

    prefix: put the name of its data set before each key. assign: subject -> split; without it
    everybody stays where they are.
    Raises ValueError when a key occurs twice, and without `assign` when a person, however spelt, is
    in several splits; either names the data sets. See also `shards.rewriting.copying.copy`.
    """
    if len(places) < 2:
        raise ValueError(f"{len(places)} data set to merge; at least 2 needed")
    sources = [open_source(place) for place in places]
    if prefix:
        sources = _prefixed(sources)
    _refuse_same_keys(sources)
    people = People(_everybody(sources))
    if assign is None:
        _refuse_people_in_several_splits(sources, people)
    choose = _together(assign or people.split_of, people)
    about = {"merged": [source.name for source in sources]}
    return copy(sources, target, lambda copied: choose(copied.packed.subject), about)


def reshard(place: Place, target: Target) -> Rewritten:
    """The same portraits in the same splits and order, in shards of the target's size.

    Raises as `shards.rewriting.copying.copy`.
    """
    source = open_source(place)
    return copy([source], target, lambda copied: copied.split, {"resharded": source.name})


def split(place: Place, target: Target, assign: Assign, fold_subjects: bool = True) -> Rewritten:
    """The same portraits, each subject in the split that `assign` gives it.

    fold_subjects: names that differ in spelling alone go where the first of them goes.
    Raises as `shards.rewriting.copying.copy`, and what `assign` raises.
    """
    source = open_source(place)
    people = People(_everybody([source]))
    choose = _together(assign, people) if fold_subjects else assign
    about = {"split_anew": source.name}
    return copy([source], target, lambda copied: choose(copied.packed.subject), about)


def _everybody(sources: list[Source]) -> Iterator[tuple[str, str]]:
    return ((subject, split) for source in sources for _, subject, split in source.groups())


def _together(assign: Assign, people: People) -> Assign:
    """All spellings of a name go where its first one goes."""
    return lambda subject: assign(people.name(subject))


def _prefixed(sources: list[Source]) -> list[Source]:
    names = [key_of(source.name) for source in sources]
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise ValueError(
            f"two data sets are named {again[0]}, which cannot tell their keys apart; rename one"
        )
    return [replace(source, prefix=f"{name}_") for source, name in zip(sources, names, strict=True)]


def _refuse_same_keys(sources: list[Source]) -> None:
    holder: dict[str, str] = {}
    twice, example = 0, ""
    for source in sources:
        for key, _, _ in source.groups():
            if key in holder:
                twice += 1
                example = example or f"{key!r} in {holder[key]} and in {source.name}"
            else:
                holder[key] = source.name
    if twice:
        raise ValueError(
            f"{twice} keys occur twice, such as {example}; every portrait of a data set needs a key"
            " of its own: --prefix puts the names of the data sets before them"
        )


def _refuse_people_in_several_splits(sources: list[Source], people: People) -> None:
    several = people.in_several_splits()
    if several:
        listed = "".join(f"\n  {_whereabouts(person, sources)}" for person in several[:_SHOWN])
        more = f"\n  and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
        raise ValueError(
            f"{len(several)} people would be in several splits; a person belongs to one: have all"
            f" subjects split anew with --split or --split-file{listed}{more}"
        )


def _whereabouts(person: Person, sources: list[Source]) -> str:
    places = {
        f"{subject!r} in {split} of {source.name}": None
        for source in sources
        for _, subject, split in source.groups()
        if subject in person.names
    }
    return ", ".join(places)
