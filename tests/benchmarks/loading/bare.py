"""The limit: members in memory, decoded and collated in bare processes, with no loader at all."""

import time
from multiprocessing import get_context
from typing import Any

import numpy as np
from loading.batch import BATCH, collate, decoded, draw, members_of
from loading.job import Job, Timing
from loading.tar import raw_members

from relightx.data.workers import prepare_reader
from relightx.index import read_index

_HELD = 8 * BATCH
"""Portraits in memory: more than the processor's caches hold."""


def bare_loop(job: Job) -> Timing:
    """All processes at once, and all their groups in the mean of their times."""
    held = _held(job)
    context = get_context("fork")
    ready, rates = context.Barrier(job.workers), context.Queue()
    started = [
        context.Process(target=_decode, args=(held, job.seconds, ready, rates), daemon=True)
        for _ in range(job.workers)
    ]
    for process in started:
        process.start()
    found = [rates.get() for _ in started]
    for process in started:
        process.join()
    groups, spent, cpu = map(sum, zip(*found, strict=True))
    return Timing(groups / spent * job.workers, 0.0, cpu / groups * 1e3, groups)


def _held(job: Job) -> list[tuple[str, dict[str, bytes], list[int]]]:
    rng = np.random.default_rng(0)
    index = read_index(job.place)
    held = []
    for number in rng.permutation(index.num_groups)[:_HELD]:
        chosen = draw(rng, job.lights)
        shard, group = index.place_of(int(number))
        held.append((group.key, raw_members(index, shard, group, members_of(chosen)), chosen))
    return held


def _decode(held: list, seconds: float, ready: Any, rates: Any) -> None:
    prepare_reader(0)
    batches = [held[start : start + BATCH] for start in range(0, len(held), BATCH)]
    collate([decoded(*each) for each in batches[0]])
    ready.wait()
    start, cpu, groups = time.perf_counter(), time.process_time(), 0
    while (spent := time.perf_counter() - start) < seconds:
        batch = batches[groups // BATCH % len(batches)]
        groups += len(collate([decoded(*each) for each in batch]).key)
    rates.put((groups, spent, time.process_time() - cpu))
