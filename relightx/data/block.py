"""Several arrays in one block of memory, which is copied or pinned as one."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

_ALIGNMENT = 64
"""Bytes; what torch gives its own tensors."""


class Block:
    """Where arrays of these shapes and types lie, one after the other; bytes: of all of them."""

    def __init__(self, arrays: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> None:
        self.arrays = list(arrays)
        self._sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in arrays]
        padded = (-(-size // _ALIGNMENT) * _ALIGNMENT for size in self._sizes)
        *self._starts, self.bytes = accumulate(padded, initial=0)

    def of(self, memory: UInt8[Tensor, " bytes"]) -> list[Shaped[Tensor, "..."]]:
        """The arrays that lie in this memory. Raises ValueError when it has not as many bytes."""
        if len(memory) != self.bytes:
            raise ValueError(f"a block of {self.bytes} bytes needed, {len(memory)} found")
        return [
            memory[start : start + size].view(dtype).view(shape)
            for start, size, (shape, dtype) in zip(
                self._starts, self._sizes, self.arrays, strict=True
            )
        ]


def new_memory(bytes: int, pinned: bool = True) -> UInt8[Tensor, " bytes"]:
    """Memory for a block; pinned where there is a GPU, to which it can then go unwaited.

    pinned: False in a reader process, which may have nothing to do with a GPU.
    """
    return torch.empty(bytes, dtype=torch.uint8, pin_memory=pinned and torch.cuda.is_available())
