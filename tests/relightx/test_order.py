"""The order is a pure function of index, seed and row; ranks and micro-batches only cut it."""

import time
import tracemalloc
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relightx.data.order import RankBatches, TrainingOrder, Visit

SIZES = np.array([5, 3, 7, 1, 4])  # 20 portraits in 5 shards

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any).map(np.array)
seeds, windows, many_streams = st.integers(0, 2**40), st.integers(1, 5), st.integers(1, 6)


def order_of(groups=SIZES, seed=3, window=2, streams=1, **others) -> TrainingOrder:
    return TrainingOrder([groups], seed=seed, window=window, streams=streams, **others)


def global_steps(
    order: TrainingOrder, batch_size: int, num_ranks=1, num_micro=1, start=0, stop=11, first_row=0
) -> list[list[Visit]]:
    """The visits of each step, put together from what every rank and micro-batch gets."""
    parts = [
        list(RankBatches(order, batch_size, start, stop, rank, num_ranks, num_micro, first_row))
        for rank in range(num_ranks)
    ]
    return [
        [v for rank in parts for micro in rank[s * num_micro : (s + 1) * num_micro] for v in micro]
        for s in range(stop - start)
    ]


@given(sizes, seeds, windows, many_streams)
def test_every_portrait_comes_exactly_once_an_epoch(groups, seed, window, streams):
    total = int(groups.sum())
    rows = -(-3 * total // streams) + 1
    counts = Counter(order_of(groups, seed, window, streams).batch(0, rows))
    assert set(counts.values()) == {1}
    for epoch in range(3):
        assert sorted(n for n, visited in counts if visited == epoch) == list(range(total))


@given(sizes, seeds, windows, many_streams, st.integers(0, 60))
def test_to_start_at_a_row_gives_the_same_tail(groups, seed, window, streams, row):
    whole = order_of(groups, seed, window, streams)
    late = order_of(groups, seed, window, streams)
    for stream in range(streams):
        assert late.visits(stream, row, 20) == whole.visits(stream, 0, row + 20)[row:]


@given(sizes, seeds, windows, st.sampled_from([1, 2, 4]))
def test_global_batches_are_those_of_one_process(groups, seed, window, streams):
    expected = global_steps(order_of(groups, seed, window, streams), 24)
    for num_ranks, num_micro in [(1, 3), (2, 1), (3, 2), (4, 1), (8, 1), (8, 3), (24, 1)]:
        again = order_of(groups, seed, window, streams)
        assert global_steps(again, 24, num_ranks, num_micro) == expected


@given(sizes, seeds, windows, many_streams)
def test_a_stream_never_needs_more_shards_than_a_window(groups, seed, window, streams):
    order = order_of(groups, seed, window, streams)
    shard_of = np.repeat(np.arange(len(groups)), groups)
    for stream in range(streams):
        visits = iter(order.visits(stream, 0, 40))
        blocks = order.blocks(stream, 0)
        row = 0
        while row < 40:
            first, last, shards = next(blocks)
            assert first == row and len(shards) <= window
            inside = [next(visits, None) for _ in range(first, last + 1)]
            assert {shard_of[v[0]] for v in inside if v} <= set(shards)
            row = last + 1


@given(sizes, seeds, st.integers(1, 5))
def test_few_shards_lie_in_two_streams(groups, seed, streams):
    """So that an epoch fetches each shard once, and at most streams - 1 of them twice."""
    order = order_of(groups, seed, 2, streams)
    shard_of = np.repeat(np.arange(len(groups)), groups)
    rows = -(-int(groups.sum()) // streams) + 1
    readers = {
        (stream, shard_of[number])
        for stream in range(streams)
        for number, epoch in order.visits(stream, 0, rows)
        if epoch == 0
    }
    assert len(readers) <= np.count_nonzero(groups) + streams - 1


@given(
    st.lists(sizes, min_size=1, max_size=4),
    st.data(),
    seeds,
    many_streams,
)
def test_a_mixture_has_its_shares_and_each_set_its_epochs(sets, data, seed, streams):
    weights = [data.draw(st.floats(0.05, 20)) for _ in sets]
    order = TrainingOrder(sets, seed=seed, window=2, streams=streams, weights=weights)
    rows = 60
    visits = order.batch(0, rows)
    first = np.cumsum([0, *(int(groups.sum()) for groups in sets)])
    parts = np.searchsorted(first, [number for number, _ in visits], "right") - 1
    for part, weight in enumerate(weights):
        mine = [visit for visit, p in zip(visits, parts, strict=True) if p == part]
        expected = rows * streams * weight / sum(weights)
        assert abs(len(mine) - expected) <= 1 + part * streams
        assert len(set(mine)) == len(mine)
        epochs = Counter(epoch for _, epoch in mine)
        ended = [epoch for epoch in epochs if epoch + 2 in epochs]
        assert all(epochs[epoch] == first[part + 1] - first[part] for epoch in ended)


@given(st.lists(sizes, min_size=2, max_size=3), seeds, st.integers(0, 10**15))
def test_a_mixture_starts_anywhere_without_drift(sets, seed, row):
    weights = [0.3, 0.2, 0.5][: len(sets)]
    order = TrainingOrder(sets, seed=seed, window=2, streams=2, weights=weights)
    assert order.visits(1, row, 12)[4:] == order.visits(1, row + 4, 8)
    first = int(sets[0].sum())
    start = RankBatches(order, 20, 0, 50, first_row=row)
    found = sum(number < first for visits in start for number, _ in visits)
    share = weights[0] / sum(weights)
    assert abs(found - 1000 * share) <= 2


@settings(max_examples=30)
@given(st.lists(sizes, min_size=1, max_size=3), seeds, st.sampled_from([1, 2, 3]), st.booleans())
def test_what_a_rank_needs_covers_what_it_reads(sets, seed, streams, is_mixture):
    weights = [1.0, 2.5, 0.4][: len(sets)] if is_mixture else None
    order = TrainingOrder(sets, seed=seed, window=2, streams=streams, weights=weights)
    shard_of = np.repeat(np.arange(sum(map(len, sets))), np.concatenate(sets))
    for num_ranks in (1, 2, 3):
        for rank in range(num_ranks):
            batches = RankBatches(order, 12, 5, 17, rank, num_ranks, 2, 7)
            needs = list(batches.needs())
            assert all(a.first_step <= b.first_step for a, b in pairwise(needs))
            for number, visits in enumerate(batches):
                step = batches.step_of(number)
                ready = {n.shard for n in needs if n.first_step <= step <= n.last_step}
                assert {shard_of[portrait] for portrait, _ in visits} <= ready


def test_ranks_and_micro_batches_share_a_step_evenly():
    for rank in range(2):
        batches = RankBatches(order_of(), 8, 2, 7, rank, 2, 2)
        assert [len(batch) for batch in batches] == [2] * len(batches) == [2] * 10


def test_a_run_goes_on_at_its_row_with_another_batch_size():
    order = order_of(streams=2)
    batches = RankBatches(order, 8, 0, 10)
    row = batches.row_after(6)
    following = [
        v for step in global_steps(order, 12, start=6, stop=9, first_row=row) for v in step
    ]
    assert sorted(following) == sorted(order.batch(24, 18))


def test_epochs_and_seeds_shuffle_anew():
    def sequence(seed: int, epoch: int) -> list[int]:
        return [number for number, _ in order_of(seed=seed).visits(0, 20 * epoch, 20)]

    found = {tuple(sequence(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(found) == 9


def test_the_order_is_the_same_with_every_version_of_every_library():
    # Fixed for good: another order would make every checkpoint go on with other data.
    assert order_of(streams=2).batch(18, 4) == [
        *((11, 1), (12, 1), (17, 2), (12, 2)),
        *((6, 1), (7, 1), (5, 2), (6, 2)),
    ]


def test_ten_million_portraits_cost_neither_time_nor_memory_to_begin_anywhere():
    def begin(row: int) -> tuple[float, int]:
        tracemalloc.start()
        start = time.perf_counter()
        order_of(np.full(50_000, 200), window=16, streams=8).batch(row, 512)
        elapsed = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return elapsed, peak

    for row in (0, 10**6, 10**12):
        elapsed, peak = min(begin(row) for _ in range(3))
        assert elapsed < 0.5 and peak < 20 << 20


def test_a_large_batch_is_made_in_milliseconds():
    order = order_of(np.full(5_000, 200), window=16, streams=8)
    batches = iter(RankBatches(order, 4096, 0, 100))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        next(batches)
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.02


@pytest.mark.parametrize(
    ("batch_size", "streams", "num_ranks", "num_micro", "message"),
    [
        (8, 1, 3, 1, "8, which 3 processes x 1 micro-batches do not divide"),
        (8, 1, 2, 3, "8, which 2 processes x 3 micro-batches do not divide"),
        (8, 3, 1, 1, "8, which data.streams 3 do not divide"),
    ],
)
def test_a_batch_size_that_cannot_be_shared_is_refused(
    batch_size, streams, num_ranks, num_micro, message
):
    with pytest.raises(ValueError, match=f"data.batch_size is {message}"):
        RankBatches(order_of(streams=streams), batch_size, 0, 1, 0, num_ranks, num_micro)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": [1.0, 1.0]}, "data.weights has 2 numbers for 1 training splits"),
        ({"weights": [0.0]}, "data.weights holds 0.0; each must be above 0"),
        ({"weights": [float("nan")]}, "data.weights holds nan"),
        ({"weights": [1e-9]}, "hold one below 1e-06"),
        ({"groups": np.array([0, 0])}, "training split 1 of 1 has no portraits"),
        ({"window": 0}, "data.window is 0; 1 or more needed"),
        ({"streams": 0}, "data.streams is 0; 1 or more needed"),
    ],
)
def test_what_makes_no_order_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        order_of(**values)
