"""Memory in which reader processes hand over batches, used again and again.

torch's DataLoader makes a new shared file for every tensor, and the system gives its pages one by
one, zeroed: for a batch of 16 portraits of 128 pixels that takes longer than to read them from
disk. Here each reader process has a few places that are written anew when their batch was copied
out. The memory belongs to no file system, so a container's small /dev/shm is no limit. The readers
must be forked, or they would not have it.
"""

import mmap

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from relightx.data.block import new_memory

_PAGE = mmap.PAGESIZE


class Ring:
    """Places for `batches` batches of so many bytes of each of `readers` processes.

    A DataLoader has prefetch_factor batches of a reader under way, and asks for one more when it
    gives one out: prefetch_factor + 1 places are enough if each batch is taken before the next is
    asked for.
    """

    def __init__(self, readers: int, batches: int, bytes: int) -> None:
        self.readers, self.batches, self.bytes = readers, batches, bytes
        self._stride = -(-bytes // _PAGE) * _PAGE
        places = readers * batches
        self._memory = torch.frombuffer(
            mmap.mmap(-1, max(places * (self._stride + 1), 1)), dtype=torch.uint8
        )
        self._full = self._memory[places * self._stride :]
        self._written = 0

    def next_place(self) -> tuple[int, UInt8[Tensor, " bytes"]]:
        """In a reader process: the number of its next place, and the memory there.

        Raises RuntimeError when the batch there was not taken yet.
        """
        number = get_worker_info().id * self.batches + self._written % self.batches
        if self._full[number]:
            raise RuntimeError(f"place {number} of {self.readers} x {self.batches} is in use")
        self._full[number] = 1
        self._written += 1
        return number, self._at(number)

    def take(self, place: int) -> UInt8[Tensor, " bytes"]:
        """In the training process: a copy of what was written there, which is free from then on."""
        found = new_memory(self.bytes).copy_(self._at(place))
        self._full[place] = 0
        return found

    def _at(self, number: int) -> UInt8[Tensor, " bytes"]:
        return self._memory[number * self._stride :][: self.bytes]
