"""Whatever is done to a cache, in whatever order, it has what a list of a few lines says it has."""

import os
import shutil
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

from far_shards import digest, files, held_bytes, hold, shard
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relightx.data.cache import Held, NoRoom, ShardCache
from relightx.storage import LocalFolder

SIZES = (700, 1000, 1500, 2500, 700, 1000, 1500, 2500)
BUDGETS = (4000, 2600)
NUMBERS = st.integers(0, len(SIZES) - 1)


class Model(RuleBasedStateMachine):
    """Two jobs with budgets of their own use one directory.

    there: bytes of what lies in it, the longest unused first. held: what is held, and by whom.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.folder = LocalFolder(str(self.place / "far"))
        for number, size in enumerate(SIZES):
            self.folder.write(f"{number}.tar", shard(number, size))
        self.jobs = [ShardCache(self.place / "cache", budget, patience_s=0.0) for budget in BUDGETS]
        self.there: OrderedDict[int, int] = OrderedDict()
        self.held: list[tuple[int, Held]] = []
        self.is_littered = False
        self.downloads = 0

    @property
    def pinned(self) -> set[int]:
        return {number for number, _ in self.held}

    def path_of(self, number: int) -> Path:
        return self.jobs[0].path_of(digest(shard(number, SIZES[number])))

    @rule(number=NUMBERS, job=st.integers(0, 1))
    def take(self, number: int, job: int) -> None:
        fits = self.expect(number, BUDGETS[job])
        try:
            self.held.append((number, hold(self.jobs[job], self.folder, number, SIZES[number])))
            assert fits
        except NoRoom:
            assert not fits

    def expect(self, number: int, budget: int) -> bool:
        """Do in the model what `hold` has to do; whether it can."""
        if self.there.get(number) == SIZES[number]:
            self.there.move_to_end(number)
            return True
        self.there.pop(number, None)
        self.is_littered = False
        for other in [each for each in self.there if each not in self.pinned]:
            if sum(self.there.values()) + SIZES[number] > budget:
                del self.there[other]
        if sum(self.there.values()) + SIZES[number] > budget:
            return False
        self.there[number] = SIZES[number]
        self.downloads += 1
        return True

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 100))
    def let_go(self, place: int) -> None:
        self.held.pop(place % len(self.held))[1].close()

    @rule(number=NUMBERS, size=st.integers(0, 600))
    def damage(self, number: int, size: int) -> None:
        if number in self.there and number not in self.pinned:
            size = min(size, self.there[number])  # longer, it could break the budget by itself
            os.truncate(self.path_of(number), size)
            now = time.time_ns()
            os.utime(self.path_of(number), ns=(now, now))
            self.there[number] = size
            self.there.move_to_end(number)

    @rule(number=NUMBERS, granted=st.sampled_from([b"", b"99999", b"junk"]))
    def leave_what_the_dead_leave(self, number: int, granted: bytes) -> None:
        path = self.path_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.partial-0123456789abcdef").write_bytes(bytes(900))
        path.with_suffix(".lock").write_bytes(granted)
        self.is_littered = True

    @invariant()
    def what_is_there_is_what_is_to_be_there(self) -> None:
        here = {n: self.path_of(n).stat().st_size for n in range(8) if self.path_of(n).exists()}
        assert here == self.there
        assert sum(job.downloads for job in self.jobs) == self.downloads

    @invariant()
    def the_budget_is_kept(self) -> None:
        assert self.jobs[0].bytes <= max(BUDGETS)

    @invariant()
    def what_is_held_is_there_and_right(self) -> None:
        for number, held in self.held:
            assert held.path.exists()
            assert held_bytes(held) == shard(number, SIZES[number])

    @invariant()
    def nothing_else_is_left_by_a_download(self) -> None:
        if not self.is_littered:
            assert all(name.endswith(".tar") for name in files(self.jobs[0]))

    def teardown(self) -> None:
        for _, held in self.held:
            held.close()
        shutil.rmtree(self.place)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
