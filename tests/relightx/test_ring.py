"""The ring between reader processes and the training process: no batch is lost or overwritten."""

from collections import deque

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from relightx.data.ring import Ring

_BYTES = 5000


class Numbers(Dataset):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, number: int) -> int:
        return number


def written(ring: Ring, numbers: list[int]) -> int:
    place, memory = ring.free_place() or (-1, None)
    if memory is not None:
        memory[:] = numbers[0]
    return place


def loader(ring: Ring, ahead: int) -> DataLoader:
    return DataLoader(
        Numbers(),
        batch_size=1,
        num_workers=ring.readers,
        prefetch_factor=ahead,
        collate_fn=lambda numbers: written(ring, numbers),
        multiprocessing_context="fork",
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("in_use", [2, 5])
def test_a_batch_in_use_stays_as_it_was_written(readers, ahead, in_use):
    ring = Ring(readers, ahead + in_use, _BYTES)
    used: deque[tuple[int, torch.Tensor]] = deque(maxlen=in_use - 1)
    for number, place in enumerate(loader(ring, ahead)):
        used.append((number, ring.take(place)[7:]))  # a part holds the whole
        for wanted, block in used:
            assert block.unique().tolist() == [wanted]
        assert len(used[-1][1]) == _BYTES - 7


def test_places_are_used_again():
    ring = Ring(1, 6, _BYTES)
    places = []
    for place in loader(ring, 2):
        places.append(place)
        ring.take(place)
    assert len(places) == 60
    assert set(places) <= set(range(6))
    assert not ring._in_use.any()


def test_batches_that_are_kept_leave_no_place():
    """And nothing of them is written over."""
    ring = Ring(1, 6, _BYTES)
    kept = [ring.take(place) for place in loader(ring, 2) if place >= 0]
    assert [block.unique().tolist() for block in kept] == [[number] for number in range(6)]


def test_places_do_not_overlap():
    ring = Ring(2, 2, _BYTES)
    places = [ring._at(number) for number in range(4)]
    for number, place in enumerate(places):
        place[:] = number + 1
    assert not ring._in_use.any()
    assert [np.unique(place).tolist() for place in places] == [[1], [2], [3], [4]]
    assert torch.equal(ring.take(2), torch.from_numpy(places[2]))
