"""Which subjects keep labels depends on subject and seed alone, and small shares lie in large."""

from itertools import pairwise

import numpy as np
import pytest

from relightx.data.supervision import SupervisionConfig, labelled_subjects

PEOPLE = [f"person{number:03d}" for number in range(60)]


def test_smaller_shares_lie_inside_larger_ones():
    shares = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9, 1.0]
    sets = [labelled_subjects(PEOPLE, share, seed=0) for share in shares]
    assert all(small <= large for small, large in pairwise(sets))
    assert [len(labelled) for labelled in sets] == [0, 1, 3, 6, 15, 30, 54, 60]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 1 / 3])
def test_rounding_errors_add_nobody(share):
    assert len(labelled_subjects(PEOPLE[:30], share, seed=0)) == round(30 * share)


def test_order_and_repetition_of_subjects_do_not_matter():
    expected = labelled_subjects(PEOPLE, 0.2, seed=5)
    shuffled = np.random.default_rng(0).permutation(PEOPLE * 3).tolist()
    assert labelled_subjects(shuffled, 0.2, seed=5) == expected


def test_seeds_choose_different_people():
    chosen = {labelled_subjects(PEOPLE, 0.1, seed) for seed in range(5)}
    assert len(chosen) == 5


def test_the_choice_is_even_over_seeds():
    counts = dict.fromkeys(PEOPLE, 0)
    for seed in range(200):
        for subject in labelled_subjects(PEOPLE, 0.25, seed):
            counts[subject] += 1
    assert min(counts.values()) > 25 and max(counts.values()) < 80


def test_the_choice_is_the_same_on_every_machine():
    # Fixed for good: another hash would change who is labelled between two versions.
    assert labelled_subjects(PEOPLE[:20], 0.15, seed=0) == {
        "person005",
        "person011",
        "person018",
    }


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", ["albedo", "normal", "light"])
def test_a_share_beyond_0_to_1_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"data.supervision.{name} is .* from 0 to 1"):
        SupervisionConfig(**{name: value})
