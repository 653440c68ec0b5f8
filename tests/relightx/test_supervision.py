"""Which subjects keep labels depends on subject and seed alone, and small shares lie in large."""

import hashlib
import time
from itertools import pairwise

import numpy as np
import pytest

from relightx.data.supervision import labelled_subjects
from relightx.settings.supervision import SupervisionConfig


def digests(names: list[str]) -> np.ndarray:
    """As the index holds them."""
    heads = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(heads, "<u8")


NAMES = [f"person{number:03d}" for number in range(60)]
PEOPLE = digests(NAMES)


def chosen(share: float, seed: int, people: np.ndarray = PEOPLE) -> set[int]:
    """Digests of those who keep their labels."""
    return set(people[labelled_subjects(people, share, seed)].tolist())


def test_smaller_shares_lie_inside_larger_ones():
    shares = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0]
    sets = [chosen(share, seed=0) for share in shares]
    assert all(small <= large for small, large in pairwise(sets))
    assert [len(labelled) for labelled in sets] == [0, 1, 3, 6, 15, 30, 54, 60]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 1 / 3])
def test_rounding_errors_add_nobody(share):
    assert labelled_subjects(PEOPLE[:30], share, seed=0).sum() == round(30 * share)


def test_the_order_of_subjects_does_not_matter():
    shuffled = np.random.default_rng(0).permutation(PEOPLE)
    assert chosen(0.2, 5, shuffled) == chosen(0.2, 5)


def test_seeds_choose_different_people():
    assert len({frozenset(chosen(0.1, seed)) for seed in range(5)}) == 5


def test_the_choice_is_even_over_seeds():
    counts = np.zeros(60, int)
    for seed in range(200):
        counts += labelled_subjects(PEOPLE, 0.25, seed)
    assert counts.min() > 25 and counts.max() < 80


def test_the_choice_is_the_same_on_every_machine():
    # Fixed for good: another hash would change who is labelled between two versions.
    keeps = labelled_subjects(PEOPLE[:20], 0.15, seed=0)
    assert [name for name, kept in zip(NAMES, keeps, strict=False) if kept] == [
        "person005",
        "person007",
        "person018",
    ]


def test_ten_million_subjects_are_ranked_in_seconds():
    many = np.random.default_rng(0).integers(0, 2**64, 10**7, np.uint64)
    start = time.perf_counter()
    assert labelled_subjects(many, 0.05, seed=0).sum() == 500_000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", ["albedo", "normal", "light"])
def test_a_share_beyond_0_to_1_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"data.supervision.{name} is .* from 0 to 1"):
        SupervisionConfig(**{name: value})
