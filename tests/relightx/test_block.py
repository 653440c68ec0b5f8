"""Arrays in one block of memory."""

import pytest
import torch

from relightx.data.block import Block, new_memory

ARRAYS = [((2, 3), torch.float32), ((5,), torch.bool), ((0, 4), torch.float32), ((7,), torch.uint8)]


def test_arrays_do_not_overlap_and_keep_what_is_written():
    block = Block(ARRAYS)
    memory = new_memory(block.bytes)
    written = [
        torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        for shape, dtype in ARRAYS
    ]
    for array, value in zip(block.of(memory), written, strict=True):
        array.copy_(value)
    for array, value in zip(block.of(memory.clone()), written, strict=True):
        assert array.dtype == value.dtype
        assert torch.equal(array, value)
        assert array.is_contiguous() and array.data_ptr() % 4 == 0


def test_memory_of_another_size_is_refused():
    block = Block(ARRAYS)
    with pytest.raises(ValueError, match=f"{block.bytes} bytes needed, {block.bytes + 1} found"):
        block.of(new_memory(block.bytes + 1))
