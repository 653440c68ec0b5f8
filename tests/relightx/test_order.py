"""The order is a pure function of index, seed and step; ranks and micro-batches only cut it."""

import numpy as np
import pytest

from relightx.data.order import RankBatches, TrainingOrder, epoch_order

GROUPS = [5, 3, 7, 1, 4]  # 20 portraits in 5 shards
TOTAL = sum(GROUPS)


def global_steps(
    num_ranks: int = 1, num_micro: int = 1, start: int = 0, stop: int = 11, seed: int = 3
) -> list[list[tuple[int, int]]]:
    """The visits of each step, put together from what every rank and micro-batch gets."""
    parts = [
        list(
            RankBatches(TrainingOrder(GROUPS, seed, 2), 8, start, stop, rank, num_ranks, num_micro)
        )
        for rank in range(num_ranks)
    ]
    return [
        [
            visit
            for rank in parts
            for micro in rank[step * num_micro : (step + 1) * num_micro]
            for visit in micro
        ]
        for step in range(stop - start)
    ]


@pytest.mark.parametrize("window", [1, 2, 100])
def test_every_portrait_comes_exactly_once_an_epoch(window):
    visits = TrainingOrder(GROUPS, 0, window).visits(0, 3 * TOTAL)
    for epoch in range(3):
        part = visits[epoch * TOTAL : (epoch + 1) * TOTAL]
        assert {visited for _, visited in part} == {epoch}
        assert sorted(number for number, _ in part) == list(range(TOTAL))


def test_no_tail_is_dropped_where_the_batch_does_not_divide_the_set():
    visits = [visit for step in global_steps(stop=5) for visit in step]  # 40 places, 2 epochs
    assert sorted(visits) == [(number, epoch) for number in range(TOTAL) for epoch in range(2)]


@pytest.mark.parametrize("num_micro", [1, 2])
@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_global_batches_are_those_of_one_process(num_ranks, num_micro):
    assert global_steps(num_ranks, num_micro) == global_steps()


def test_ranks_and_micro_batches_share_a_step_evenly():
    for rank in range(2):
        batches = RankBatches(TrainingOrder(GROUPS, 0, 2), 8, 2, 7, rank, 2, 2)
        assert [len(batch) for batch in batches] == [2] * len(batches) == [2] * 10


@pytest.mark.parametrize("start", [1, 3, 10])
def test_to_start_at_a_step_gives_the_same_tail(start):
    assert global_steps(start=start) == global_steps()[start:]


def test_the_order_repeats_and_depends_on_seed_and_epoch():
    orders = {
        (seed, epoch): epoch_order(GROUPS, seed, epoch, 2).tolist()
        for seed in range(3)
        for epoch in range(3)
    }
    for (seed, epoch), order in orders.items():
        assert epoch_order(GROUPS, seed, epoch, 2).tolist() == order
    assert len({tuple(order) for order in orders.values()}) == 9


def test_a_window_touches_no_more_shards_than_it_says():
    shard_of = np.repeat(np.arange(len(GROUPS)), GROUPS)
    shards = shard_of[epoch_order(GROUPS, 0, 0, window=2)]
    first = list(dict.fromkeys(shards))  # in the order they are first needed
    for start in range(0, len(first), 2):
        block = first[start : start + 2]
        places = np.flatnonzero(np.isin(shards, block))
        assert len(places) == places[-1] - places[0] + 1


def test_portraits_of_one_window_are_mixed():
    shards = np.repeat([0, 1], 50)[epoch_order([50, 50], 0, 0, window=2)]
    assert 20 < np.count_nonzero(np.diff(shards)) < 80


@pytest.mark.parametrize(("num_ranks", "num_micro"), [(3, 1), (2, 8), (16, 1)])
def test_a_batch_that_does_not_divide_is_refused(num_ranks, num_micro):
    order = TrainingOrder(GROUPS, 0, 2)
    with pytest.raises(ValueError, match=rf"is 8, which {num_ranks} processes x {num_micro} micro"):
        RankBatches(order, 8, 0, 1, 0, num_ranks, num_micro)
