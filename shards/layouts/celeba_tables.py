"""CelebA's text tables: who is on a picture, its official part, what CelebA-HQ was made of.

    identity_CelebA.txt               000001.jpg 2880           given on request
    list_eval_partition.txt           000001.jpg 0              0 train, 1 validation, 2 test
    CelebA-HQ-to-CelebA-mapping.txt   0  119613  119614.jpg     number in CelebA-HQ, -, in CelebA
    image_list.txt                    the same three columns and checksums

Their .csv variants, with commas and a header, are read as well. A person has one name in every set
made of CelebA, so that data sets that are merged cannot have one person in two splits.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

IDENTITY_NAMES = ("identity_CelebA.txt", "identity_CelebA.csv")
PARTITION_NAMES = ("list_eval_partition.txt", "list_eval_partition.csv")
HQ_NAMES = ("CelebA-HQ-to-CelebA-mapping.txt", "image_list.txt")
PARTS = {"0": "train", "1": "val", "2": "test"}

_PICTURE = re.compile(r"(\d{6})\.(?:jpg|png)")
_SEPARATOR = re.compile(r"[,\s]+")


class People(NamedTuple):
    """Who is on the pictures, as far as tables tell.

    identity: number of the person by the stem of the CelebA picture, '000001'.
    original: stem of the CelebA picture by the number in CelebA-HQ.
    """

    identity: dict[str, str]
    original: dict[int, str]

    def of_celeba(self, stem: str) -> str:
        """The person on a picture of CelebA; a name of the picture's own when nothing tells."""
        known = self.identity.get(stem)
        return f"celeba-picture{stem}" if known is None else f"celeba-person{known}"

    def of_hq(self, number: int) -> str:
        """The person on a picture of CelebA-HQ by its number there."""
        stem = self.original.get(number)
        return f"celebahq-picture{number:05d}" if stem is None else self.of_celeba(stem)


def read_people(identities: Path | None, mapping: Path | None) -> People:
    """The tables that are given. Raises ValueError naming file and line."""
    return People(
        {} if identities is None else read_identities(identities),
        {} if mapping is None else read_hq_pictures(mapping),
    )


def read_identities(file: Path) -> dict[str, str]:
    """Number of the person by stem of the picture."""
    identity: dict[str, str] = {}
    for where, (name, person) in _rows(file, 2):
        if not person.isdecimal():
            raise ValueError(f"{where}: {person!r} is no number of a person")
        _add(identity, where, _stem(where, name), str(int(person)))
    return identity


def read_partition(file: Path) -> dict[str, str]:
    """'train', 'val' or 'test' by stem of the picture."""
    part: dict[str, str] = {}
    for where, (name, number) in _rows(file, 2):
        if number not in PARTS:
            raise ValueError(f"{where}: {number!r} is not 0 (train), 1 (validation) or 2 (test)")
        _add(part, where, _stem(where, name), PARTS[number])
    return part


def read_hq_pictures(file: Path) -> dict[int, str]:
    """Stem of the CelebA picture by the number in CelebA-HQ."""
    original: dict[int, str] = {}
    for where, (number, _, name) in _rows(file, 3):
        if not number.isdecimal():
            raise ValueError(f"{where}: {number!r} is no number of CelebA-HQ")
        _add(original, where, int(number), _stem(where, name))
    return original


def find_table(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first table of these names beside a folder of pictures, in it or up to two levels above.

    At each level also in Anno and Eval, where CelebA as released keeps its tables.
    """
    for above in (folder, *folder.absolute().parents[:2]):
        for place in (above, above / "Anno", above / "Eval"):
            for name in names:
                if (place / name).is_file():
                    return place / name
    return None


def _rows(file: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """File and line, for messages, and the first columns of each row; a header is passed over."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                words = _SEPARATOR.split(line.strip())
                if words == [""] or (number == 1 and not any(map(_PICTURE.fullmatch, words))):
                    continue
                where = f"{file}, line {number}"
                if len(words) < columns:
                    raise ValueError(f"{where}: {line.strip()[:60]!r} has not {columns} columns")
                yield where, words[:columns]
    except OSError as error:
        raise ValueError(f"{file}: the table cannot be read: {error.strerror}") from None


def _stem(where: str, name: str) -> str:
    picture = _PICTURE.fullmatch(name)
    if not picture:
        raise ValueError(f"{where}: {name[:60]!r} is no picture of CelebA, such as 000001.jpg")
    return picture[1]


def _add(table: dict, where: str, key: object, value: str) -> None:
    if table.setdefault(key, value) != value:
        raise ValueError(f"{where}: {key} is given as {table[key]} before and as {value} here")
