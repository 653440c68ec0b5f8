"""Examples as a batch, in one block of memory."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from relightx.batch import Batch, Truth
from relightx.data.block import Block
from relightx.data.portraits import Example


class Layout:
    """Where the arrays of a batch lie: so many portraits under so many lights, of `size` pixels."""

    def __init__(self, portraits: int, lights: int, size: int) -> None:
        self.portraits = portraits
        flag, plane = ((portraits,), torch.bool), (size, size)
        colours = ((portraits, 3, *plane), torch.float32)
        # In the order of Batch and Truth.
        self._block = Block(
            [
                ((portraits, lights, 3, *plane), torch.float32),
                ((portraits, 1, *plane), torch.bool),
                flag,
                colours,
                colours,
                ((portraits, lights, 3, 9), torch.float32),
                ((portraits, 1, *plane), torch.float32),
                *[flag] * 3,
            ]
        )
        self.bytes = self._block.bytes

    def batch(self, memory: UInt8[Tensor, " bytes"]) -> Batch:
        """The batch that lies in this memory. Raises ValueError when it has not as many bytes."""
        image, mask, valid, *truth = self._block.of(memory)
        return Batch(image, mask, valid, Truth(*truth))


def collate(examples: Sequence[Example], memory: UInt8[Tensor, " bytes"] | None = None) -> Batch:
    """Stack examples of equal size and number of lights; absent labels become zeros.

    A portrait without confidence is trusted: ones. memory: where to, all of which is written; None:
    new memory. Raises ValueError when it is not what the batch takes.
    """
    views = examples[0].views
    layout = Layout(len(examples), len(views.image), len(views.mask))
    if memory is None:
        memory = torch.empty(layout.bytes, dtype=torch.uint8)
    batch = layout.batch(memory)
    for row, example in enumerate(examples):
        views = example.views
        for image, target in zip(views.image, batch.image[row], strict=True):
            _put_planes(image, target)
        _put_planes(views.albedo, batch.truth.albedo[row])
        _put_planes(views.normal, batch.truth.normal[row])
        _put(views.mask, batch.mask[row, 0])
        _put(views.sh, batch.truth.sh[row])
        _put(views.confidence, batch.truth.confidence[row, 0], absent=1)
        batch.valid[row] = True
        batch.truth.has_albedo[row] = example.has_albedo
        batch.truth.has_normal[row] = example.has_normal
        batch.truth.has_light[row] = example.has_light
    return batch


def _put(value: Shaped[np.ndarray, "..."] | None, target: Tensor, absent: int = 0) -> None:
    target.numpy()[...] = absent if value is None else value


def _put_planes(value: Shaped[np.ndarray, "height width 3"] | None, target: Tensor) -> None:
    """Write pixels with their colours before rows and columns."""
    if value is None:
        target.zero_()
        return
    # Half the time of numpy's or torch's transposed copy.
    cv2.split(np.ascontiguousarray(value), list(target.numpy()))
