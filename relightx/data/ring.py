"""Memory in which reader processes hand over batches, used again and again.

torch's DataLoader makes a new shared file for every tensor, and the system gives its pages one by
one, zeroed: for a batch of 16 portraits of 128 pixels that takes longer than to read them from
disk. Here each reader process has a few places, shared with the training process, which uses a
batch where it lies; when nothing of the batch is in use any more, its place is written anew. The
memory belongs to no file system, so a container's small /dev/shm is no limit. The readers must be
forked, or they would not have it.
"""

import mmap
import weakref

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import get_worker_info

from relightx.data.block import new_memory


class Ring:
    """Places for `batches` batches, each of so many bytes, of each of `readers` processes.

    A DataLoader has prefetch_factor batches of a reader under way, and asks for one more when it
    gives one out. More places than that are for batches in use.
    """

    def __init__(self, readers: int, batches: int, bytes: int) -> None:
        self.readers, self.batches, self.bytes = readers, batches, bytes
        self._stride = -(-bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        places = readers * batches
        self._memory = mmap.mmap(-1, max(places * (self._stride + 1), 1))
        self._in_use = np.frombuffer(self._memory, np.uint8, places, places * self._stride)

    def free_place(self) -> tuple[int, UInt8[Tensor, " bytes"]] | None:
        """In a reader process: the number of a place that is its own from now on, and the memory
        there. None when all are in use, as they are when someone keeps batches."""
        first = get_worker_info().id * self.batches
        for number in range(first, first + self.batches):
            if not self._in_use[number]:
                self._in_use[number] = 1
                return number, torch.from_numpy(self._at(number))
        return None

    def take(self, number: int) -> UInt8[Tensor, " bytes"]:
        """In the training process: what was written there, which stays as it is as long as a tensor
        of it exists. With a GPU a pinned copy, so that it can go there unwaited."""
        found = self._at(number)
        freed = weakref.finalize(found, self._in_use.__setitem__, number, 0)
        freed.atexit = False
        memory = torch.from_numpy(found)
        if not torch.cuda.is_available():
            return memory
        return new_memory(self.bytes).copy_(memory)

    def _at(self, number: int) -> UInt8[np.ndarray, " bytes"]:
        return np.frombuffer(self._memory, np.uint8, self.bytes, number * self._stride)
