"""What a source yields: groups that were found and not yet read.

Finding is quick and happens twice, once to plan a build and once to run it, so a source yields the
same groups in the same order each time. Reading decodes pictures and happens in worker processes,
on any machine; so what reads a group is picklable: a `functools.partial` of a module's function.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from relightx.sample import Portrait

_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9_-]+")


class Group(NamedTuple):
    """One subject, pose and expression under several lights, before a pixel of it is read.

    key: unique in the source; the portrait that is read has it, or several have it and a suffix.
    subject: the person; splits go by it.
    lights: how many images the group has, as far as its files tell.
    read: gives the portrait, or several where the images turn out not to be one multi-lit group.
        It raises ValueError or OSError, naming the file, for what is missing, broken or wrong: the
        build counts the group as skipped and reports why.
    """

    key: str
    subject: str
    lights: int
    read: Callable[[], Portrait | list[Portrait]]


def key_of(*parts: object) -> str:
    """A key of these parts joined by '_'; what a key may not have becomes '-'."""
    return "_".join(_NOT_IN_KEY.sub("-", str(part)) for part in parts)


def faulty(key: str, subject: str, fault: str) -> Group:
    """A group that is known to be wrong before it is read: reading it raises ValueError(fault)."""
    return Group(key, subject, 0, partial(_refuse, fault))


def _refuse(fault: str) -> Portrait:
    raise ValueError(fault)
