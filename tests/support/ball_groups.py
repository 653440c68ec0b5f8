"""A source of balls for tests of whole builds, whose readers travel to worker processes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from balls import ball

from relightx.sample import Portrait
from shards.group import Group
from shards.splits import hash_split

HALF = hash_split({"train": 0.5, "val": 0.25, "test": 0.25})


def groups(count: int = 40, marks: Path | None = None) -> Iterator[Group]:
    """Groups of two lights, two of each person. marks: a folder where each reading is noted."""
    for number in range(count):
        key, subject = f"g{number:03d}", f"person {number // 2}"
        reader = read if marks is None else partial(read_once_marked, marks)
        yield Group(key, subject, 2, partial(reader, key, subject, number))


def read(key: str, subject: str, seed: int) -> Portrait:
    """A ball of 16 pixels."""
    return ball(key, subject, lights=2, size=16, seed=seed)


def read_once_marked(marks: Path, key: str, subject: str, seed: int) -> Portrait:
    """Leaves a mark for each time a group is read."""
    with open(marks / key, "a") as stream:
        stream.write("x")
    return read(key, subject, seed)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As in the command line and its workers: with more threads balls differ in a last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
