"""The ring between reader processes and the training process: no batch is lost or overwritten."""

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
    place, memory = ring.next_place()
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
def test_each_batch_arrives_as_it_was_written(readers, ahead):
    """And stays so, however long it is kept."""
    ring = Ring(readers, ahead + 1, _BYTES)
    kept = [ring.take(place) for place in loader(ring, ahead)]
    assert [block.unique().tolist() for block in kept] == [[number] for number in range(60)]
    assert all(block.shape == (_BYTES,) for block in kept)


def test_a_place_that_was_not_taken_is_not_written_again():
    ring = Ring(1, 3, _BYTES)
    with pytest.raises(RuntimeError, match="place 0 of 1 x 3 is in use"):
        for _ in loader(ring, 2):
            pass


def test_places_do_not_overlap():
    ring = Ring(2, 2, _BYTES)
    places = [ring._at(number) for number in range(4)]
    for number, place in enumerate(places):
        place[:] = number + 1
    assert not ring._full.any()
    assert [place.unique().tolist() for place in places] == [[1], [2], [3], [4]]
    assert torch.equal(ring.take(2), places[2])
