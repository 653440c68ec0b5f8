"""Which split a subject belongs to: by hash, or by a file that lists the subjects.

A split is a matter of the subject alone, so no person is ever in two splits, and the answer does
not depend on the order or the number of portraits.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}

Assign = Callable[[str], str]
"""subject -> name of its split."""


def spelling(subject: str) -> str:
    """What two ways to write one person's name have in common; '' for a name of marks alone.

    'Anna B', 'anna_b ' and 'ANNA-b.' give 'anna b'. Case, Unicode's variants of one character and
    invisible characters do not count, a run of spaces and punctuation is one space, none at the
    ends. Letters, accents, digits and signs such as '+' do count: 'anna1' is not 'anna 1'.
    """
    plain = unicodedata.normalize("NFKC", subject).casefold()
    return " ".join("".join(map(_spelt, unicodedata.normalize("NFKC", plain))).split())


def _spelt(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":  # zero-width spaces, byte-order marks, directions of writing
        return ""
    return " " if category[0] in "ZP" or category == "Cc" else character


def hash_split(fractions: dict[str, float], seed: int = 0) -> Assign:
    """Split by a hash of seed and subject, so that further subjects never move earlier ones.

    fractions: share of the subjects in 'train', 'val' and 'test'; they sum to 1. The splits take
    their part of the hash's range in alphabetical order: the test set stays what it is when the
    border between training and validation moves.
    Raises ValueError for other names, a fraction outside [0, 1] or another sum.
    """
    _check_fractions(fractions)
    names = sorted(name for name, share in fractions.items() if share > 0)

    def assign(subject: str) -> str:
        digest = hashlib.sha256(f"{seed}:{subject}".encode()).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64
        border = 0.0
        for name in names:
            border += fractions[name]
            if position < border:
                return name
        return names[-1]  # the borders' sum may round to a little below 1

    return assign


def file_split(path: Path) -> Assign:
    """Split by a JSON file {"train": [subject, ...], "val": [...], "test": [...]}.

    Other keys, such as "about", are ignored. Raises ValueError when the file is broken, lists a
    subject twice or lists none; the function returned raises it for a subject that is not listed.
    """
    split_of: dict[str, str] = {}
    for name, subjects in _split_lists(path).items():
        for subject in subjects:
            if subject in split_of:
                raise ValueError(
                    f"{path}: subject {subject!r} is listed twice, in {split_of[subject]!r} and"
                    f" {name!r}; a person belongs to one split"
                )
            split_of[subject] = name

    def assign(subject: str) -> str:
        if subject not in split_of:
            close = get_close_matches(subject, split_of, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{path}: subject {subject!r} is in none of train, val and test;"
                f" every subject of the source must be listed{hint}"
            )
        return split_of[subject]

    return assign


def parse_fractions(text: str) -> dict[str, float]:
    """The fractions written as 'train=0.8,val=0.1,test=0.1'; raises ValueError."""
    fractions: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise ValueError(f"split {part.strip()!r} is not NAME=FRACTION, as in train=0.8")
        if name in fractions:
            raise ValueError(f"split {name!r} is given twice in {text!r}")
        fractions[name] = value
    _check_fractions(fractions)
    return fractions


def _check_fractions(fractions: dict[str, float]) -> None:
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown:
        raise ValueError(f"split {unknown[0]!r} is unknown; there are {', '.join(SPLITS)}")
    for name, share in fractions.items():
        if not 0 <= share <= 1:
            raise ValueError(f"the fraction of split {name!r} is {share}; 0 to 1 needed")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-6:
        written = ",".join(f"{name}={share:g}" for name, share in fractions.items())
        raise ValueError(f"the split fractions {written} sum to {total:g}; they must sum to 1")


def _split_lists(path: Path) -> dict[str, list[str]]:
    try:
        content: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: the split file cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: the split file is not JSON: {error}") from None
    lists = {n: content[n] for n in SPLITS if n in content} if isinstance(content, dict) else {}
    for name, subjects in lists.items():
        if not isinstance(subjects, list) or not all(isinstance(s, str) for s in subjects):
            raise ValueError(f"{path}: {name!r} is not a list of subject names")
    if not any(lists.values()):
        raise ValueError(
            f'{path}: no subjects found; needed is {{"train": [...], "val": [...], "test": [...]}}'
        )
    return lists
