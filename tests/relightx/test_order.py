"""The order is a pure function of index, seed and row; ranks and micro-batches only cut it."""

import pickle
import time
import tracemalloc
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relightx.data.order import Need, RankBatches, TrainingOrder, Visit

SIZES = np.array([5, 3, 7, 1, 4])  # 20 portraits in 5 shards

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any).map(np.array)
several = st.lists(sizes, min_size=2, max_size=5)
seeds, windows, many_streams = st.integers(0, 2**64 - 1), st.integers(1, 5), st.integers(1, 9)
weights_of_all = st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5)


def order_of(groups=SIZES, seed=3, window=2, streams=1, **others) -> TrainingOrder:
    return TrainingOrder([groups], seed=seed, window=window, streams=streams, **others)


def mixture_of(sets, weights, seed=3, streams=1) -> TrainingOrder:
    weights = weights[: len(sets)]
    return TrainingOrder(sets, seed=seed, window=2, streams=streams, weights=weights)


def shards_of_all(*sets) -> np.ndarray:
    """The shard of each portrait, both numbered through all sets."""
    return np.repeat(np.arange(sum(map(len, sets))), np.concatenate(sets))


def set_counts(sets, visits: list[Visit]) -> list[int]:
    """How many of the visits are to each set."""
    ends = np.cumsum([int(groups.sum()) for groups in sets])
    found = np.searchsorted(ends, [number for number, _ in visits], "right")
    return np.bincount(found, minlength=len(sets)).tolist()


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
@example(np.array([3]), 0, 1, 8)  # fewer portraits than streams, one shard
@example(np.array([0, 0, 2, 0]), 0, 3, 2)
def test_every_portrait_comes_exactly_once_an_epoch(groups, seed, window, streams):
    total = int(groups.sum())
    rows = -(-3 * total // streams) + 1
    counts = Counter(order_of(groups, seed, window, streams).batch(0, rows))
    assert set(counts.values()) == {1}
    for epoch in range(3):
        assert sorted(n for n, visited in counts if visited == epoch) == list(range(total))


@given(sizes, seeds, many_streams)
def test_streams_go_through_an_epoch_together(groups, seed, streams):
    total, order = int(groups.sum()), order_of(groups, seed, 2, streams)
    for row in range(2 * total):
        epochs = [epoch for _, epoch in order.batch(row, 1)]
        assert epochs == [(row * streams + stream) // total for stream in range(streams)]


@given(several, seeds, windows, many_streams, st.integers(0, 60))
def test_to_start_at_a_row_gives_the_same_tail(sets, seed, window, streams, row):
    for weights in (None, [1.0, 0.3, 2.5, 0.7, 4.1][: len(sets)]):
        whole, late = (
            TrainingOrder(sets, seed=seed, window=window, streams=streams, weights=weights)
            for _ in range(2)
        )
        for stream in reversed(range(streams)):
            assert late.visits(stream, row, 20) == whole.visits(stream, 0, row + 20)[row:]


@given(several, seeds, windows, st.sampled_from([1, 2, 4, 24]), st.booleans())
def test_global_batches_are_those_of_one_process(sets, seed, window, streams, is_mixture):
    def order() -> TrainingOrder:
        weights = [1.0, 0.3, 2.5, 0.7, 4.1][: len(sets)] if is_mixture else None
        return TrainingOrder(sets, seed=seed, window=window, streams=streams, weights=weights)

    expected = global_steps(order(), 24)
    for num_ranks, num_micro in [(1, 3), (2, 1), (3, 2), (4, 1), (8, 1), (8, 3), (24, 1)]:
        assert global_steps(order(), 24, num_ranks, num_micro) == expected


def test_a_batch_may_be_larger_than_an_epoch():
    steps = global_steps(order_of(streams=5), 50, num_ranks=2, stop=4)  # 200 places, 10 epochs
    assert [len(set(step)) for step in steps] == [50] * 4
    assert sorted(v for step in steps for v in step) == sorted(
        (number, epoch) for number in range(20) for epoch in range(10)
    )


@given(sizes, seeds, windows, many_streams)
def test_a_stream_never_needs_more_shards_than_a_window(groups, seed, window, streams):
    order, shard_of = order_of(groups, seed, window, streams), shards_of_all(groups)
    for stream in range(streams):
        visits = order.visits(stream, 0, 40)
        row = 0
        for first, last, shards in islice(order.blocks(stream, 0), 40):
            assert first == row and 1 <= len(shards) <= window and groups[shards].all()
            if last < 40:
                read = {shard_of[number] for number, _ in visits[first : last + 1]}
                assert read == set(shards)
            row = last + 1


@given(sizes, seeds, st.integers(1, 5))
def test_few_shards_lie_in_two_streams(groups, seed, streams):
    """So that an epoch fetches each shard once, and at most streams - 1 of them twice."""
    order, shard_of = order_of(groups, seed, 2, streams), shards_of_all(groups)
    rows = -(-int(groups.sum()) // streams) + 1
    readers = {
        (stream, shard_of[number])
        for stream in range(streams)
        for number, epoch in order.visits(stream, 0, rows)
        if epoch == 0
    }
    assert len(readers) <= np.count_nonzero(groups) + streams - 1


def test_a_block_is_shuffled_and_none_is_short():
    shards = [len(s) for _, _, s in islice(order_of(np.full(17, 50), window=16).blocks(0, 0), 4)]
    assert shards == [8, 9, 8, 9]
    numbers = np.array(order_of(np.array([50, 50]), window=2).visits(0, 0, 100))[:, 0]
    assert 20 < np.count_nonzero(np.diff(numbers // 50)) < 80
    assert np.count_nonzero(np.diff(numbers) == 1) < 10


def test_epochs_seeds_streams_and_sets_are_shuffled_each_in_its_way():
    def sequence(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(number for number, _ in order_of(seed=seed).visits(0, 20 * epoch, 20))

    assert len({sequence(seed, epoch) for seed in (0, 1, 2**64 - 1) for epoch in range(3)}) == 9
    one_shard = order_of(np.array([40]), streams=2)
    halves = [np.array(one_shard.visits(stream, 0, 20))[:, 0] % 20 for stream in range(2)]
    assert halves[0].tolist() != halves[1].tolist()
    twins = np.array(mixture_of([SIZES, SIZES], [1.0, 1.0]).visits(0, 0, 40))[:, 0]
    assert twins[twins < 20].tolist() != (twins[twins >= 20] - 20).tolist()


@given(st.tuples(sizes, sizes), weights_of_all, many_streams, st.integers(0, 10**12))
def test_two_sets_are_within_a_row_of_their_shares_at_any_row(sets, weights, streams, row):
    """Counted between two rows, so within one row at each."""
    order = mixture_of(sets, weights, streams=streams)
    counts = set_counts(sets, order.batch(row, 50))
    share = weights[0] / (weights[0] + weights[1])
    assert counts[0] == pytest.approx(50 * streams * share, abs=1 + 1e-6)
    assert sum(counts) == 50 * streams


@given(several, weights_of_all, seeds, many_streams)
def test_many_sets_are_within_a_few_rows_of_their_shares(sets, weights, seed, streams):
    order = mixture_of(sets, weights, seed, streams)
    total = sum(weights[: len(sets)])
    streamed = [order.visits(stream, 0, 60) for stream in range(streams)]
    for rows in (1, 7, 60):
        each = [set_counts(sets, visits[:rows]) for visits in streamed]
        for number, weight in enumerate(weights[: len(sets)]):
            shares = [counts[number] for counts in each]
            assert sum(shares) == pytest.approx(rows * streams * weight / total, abs=2 * len(sets))
            assert shares == pytest.approx([rows * weight / total] * streams, abs=len(sets))


def test_three_sets_keep_their_shares_over_many_streams():
    """With the same offset for every set, the second was 125 portraits off of 4096 in a batch."""
    sets, weights = [np.full(1000, 100)] * 3, [0.37, 0.42, 0.21]
    order, counts = mixture_of(sets, weights, streams=512), np.zeros(3)
    for row in range(100):
        counts += set_counts(sets, order.batch(row, 1))
        assert np.abs(counts - (row + 1) * 512 * np.array(weights)).max() < 6


@given(several, weights_of_all, seeds, many_streams)
def test_each_set_of_a_mixture_has_its_epochs(sets, weights, seed, streams):
    visits = mixture_of(sets, weights, seed, streams).batch(0, 80)
    assert len(set(visits)) == len(visits)
    ends = np.cumsum([int(groups.sum()) for groups in sets]).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        epochs = Counter(epoch for number, epoch in visits if start <= number < end)
        spread = -(-streams * len(sets) // (end - start))  # epochs that streams may be apart
        ended = range(max(epochs, default=-1) - spread)
        assert [epochs[epoch] for epoch in ended] == [end - start] * len(ended)


def test_shares_do_not_drift_however_long_the_run():
    sets = [SIZES, SIZES, SIZES]
    order = mixture_of(sets, [1.0, 3.0, 6.0], streams=2)
    far = 10**15
    for stream in range(2):
        number, epoch = order.visits(stream, 10 * far, 40)[0]
        assert set_counts(sets, order.visits(stream, 10 * far, 40)) == [4, 12, 24]
        exact = [place * far * 2 // 20 for place in (1, 3, 6)]  # epochs that each set has had
        assert epoch in (exact[number // 20], exact[number // 20] - 1)


@given(several, seeds, st.sampled_from([1, 2, 3, 12]), st.booleans())
def test_what_a_rank_needs_covers_what_it_reads(sets, seed, streams, is_mixture):
    weights = [1.0, 2.5, 0.4, 0.1, 9.0][: len(sets)] if is_mixture else None
    order = TrainingOrder(sets, seed=seed, window=2, streams=streams, weights=weights)
    shard_of = shards_of_all(*sets)
    for num_ranks in (1, 2, 3, 6):
        for rank in range(num_ranks):
            batches = RankBatches(order, 12, 5, 17, rank, num_ranks, 2, 7)
            needs = list(batches.needs())
            assert all(a.first_step <= b.first_step for a, b in pairwise(needs))
            assert all(5 <= need.first_step <= need.last_step < 17 for need in needs)
            for number, visits in enumerate(batches):
                step = batches.step_of(number)
                ready = {n.shard for n in needs if n.first_step <= step <= n.last_step}
                assert {shard_of[portrait] for portrait, _ in visits} <= ready


@given(sizes, seeds, windows, st.sampled_from([1, 2, 3, 6]))
def test_a_rank_needs_a_shard_in_the_steps_that_it_is_in_its_block_and_no_other(
    groups, seed, window, streams
):
    order = order_of(groups, seed, window, streams)
    for num_ranks, rank in [(1, 0), (2, 1), (3, 1), (4, 0), (12, 7)]:
        batches = RankBatches(order, 12, 5, 12, rank, num_ranks, first_row=7)
        rows, share = 12 // streams, 12 // num_ranks
        needed = set()
        for stream in range(streams):
            mine = [  # the steps of this rank's rows, by row
                5 + step if rank * share <= stream * rows + row < (rank + 1) * share else None
                for step in range(7)
                for row in range(rows)
            ]
            for first, last, shards in order.blocks(stream, 7):
                if first - 7 >= len(mine):
                    break
                steps = [step for step in mine[first - 7 : last - 6] if step is not None]
                if steps:
                    needed |= {Need(shard, steps[0], steps[-1]) for shard in shards}
        needs = list(batches.needs())
        assert set(needs) <= needed
        for shard, first, last in needed - set(needs):
            covering = [n for n in needs if n.shard == shard and n.last_step >= last]
            assert covering and covering[0].first_step <= first


def test_a_set_smaller_than_a_batch_is_needed_once():
    needs = list(RankBatches(order_of(), 200, 0, 5).needs())
    assert len(needs) == 5 * len(SIZES)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ranks_and_micro_batches_share_a_step_evenly(num_ranks):
    for rank in range(num_ranks):
        batches = RankBatches(order_of(), 8, 2, 7, rank, num_ranks, 2)
        assert [len(batch) for batch in batches] == [4 // num_ranks] * len(batches)
        assert [batches.step_of(n) for n in range(len(batches))] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_a_run_goes_on_at_its_row_with_another_batch_size():
    order = order_of(streams=2)
    row = RankBatches(order, 8, 0, 10).row_after(6)
    following = global_steps(order, 12, start=6, stop=9, first_row=row)
    assert sorted(v for step in following for v in step) == sorted(order.batch(24, 18))
    assert RankBatches(order, 12, 6, 9, first_row=row).row_after(9) == 42


def test_steps_before_the_first_count_where_no_row_is_said():
    order = order_of(streams=2)
    assert list(RankBatches(order, 8, 5, 9)) == list(RankBatches(order, 8, 0, 9))[5:]


def test_an_order_can_be_sent_to_another_process():
    order = order_of(streams=2)
    expected = order.batch(3, 20)
    assert pickle.loads(pickle.dumps(order)).batch(3, 20) == expected


def test_the_order_is_the_same_with_every_version_of_every_library():
    # Fixed for good: another order would make every checkpoint go on with other data.
    assert order_of(streams=2).batch(18, 4) == [
        *((19, 1), (18, 1), (4, 2), (3, 2)),
        *((14, 1), (15, 1), (12, 2), (13, 2)),
    ]
    mixture = mixture_of([SIZES, SIZES, np.array([2])], [1.0, 0.5, 0.2], seed=2**63 + 1, streams=3)
    assert mixture.batch(17 * 10**9, 3) == [
        *((40, 3000000000), (7, 1500000000), (26, 750000000)),
        *((32, 750000000), (4, 1500000000), (18, 1500000000)),
        *((12, 1500000000), (22, 750000000), (14, 1500000000)),
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


@pytest.mark.parametrize("weights", [None, [0.7, 0.2, 0.1]])
@pytest.mark.parametrize("streams", [8, 512])
def test_a_large_batch_is_made_in_milliseconds(streams, weights):
    sets = [np.full(count, 200) for count in (3_000, 1_500, 500)]
    order = TrainingOrder(sets, seed=0, window=16, streams=streams, weights=weights)
    batches = iter(RankBatches(order, 4096, 0, 100))
    times = []
    for _ in range(21):
        start = time.perf_counter()
        next(batches)
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.3  # 2 to 8 ms on an idle core


@pytest.mark.parametrize(
    ("batch_size", "streams", "rank", "num_ranks", "num_micro", "message"),
    [
        (8, 1, 0, 3, 1, "data.batch_size is 8, which 3 processes x 1 micro-batches do not divide"),
        (8, 1, 0, 2, 3, "data.batch_size is 8, which 2 processes x 3 micro-batches do not divide"),
        (8, 3, 0, 1, 1, "data.batch_size is 8, which data.streams 3 do not divide"),
        (8, 1, 4, 4, 1, "rank is 4; 0 to 3 needed"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(
    batch_size, streams, rank, num_ranks, num_micro, message
):
    with pytest.raises(ValueError, match=message):
        RankBatches(order_of(streams=streams), batch_size, 0, 1, rank, num_ranks, num_micro)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": [1.0, 1.0]}, "data.weights has 2 numbers for 1 training splits"),
        ({"weights": [0.0]}, "data.weights holds 0.0; each must be above 0"),
        ({"weights": [-1.0]}, "data.weights holds -1.0; each must be above 0"),
        ({"weights": [float("inf")]}, "data.weights holds inf; each must be above 0, and finite"),
        ({"weights": [float("nan")]}, "data.weights holds nan"),
        ({"groups": np.array([0, 0])}, "training split 1 of 1 has no portraits"),
        ({"groups": np.array([], int)}, "training split 1 of 1 has no portraits"),
        ({"window": 0}, "data.window is 0; 1 to"),
        ({"streams": 0}, "data.streams is 0; 1 to"),
        ({"seed": -1}, "data.seed is -1; 0 to"),
        ({"seed": 2**64}, "data.seed is 18446744073709551616; 0 to"),
    ],
)
def test_what_makes_no_order_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        order_of(**values)


def test_a_set_without_portraits_is_refused_in_a_mixture_only():
    sets = [SIZES, np.array([0])]
    assert TrainingOrder(sets, seed=0, window=1).num_groups == 20
    with pytest.raises(ValueError, match="training split 2 of 2 has no portraits"):
        mixture_of(sets, [1.0, 1.0])
