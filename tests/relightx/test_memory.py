"""Activations computed again give the gradients and the statistics of those that were kept."""

import copy

import pytest
import torch

from relightx.backend.backend import _parts
from relightx.backend.memory import recompute_activations
from relightx.model import IntrinsicNet, ModelConfig


@pytest.mark.parametrize("preset", ["unet", "sfsnet"])
def test_nothing_changes_but_the_memory(preset):
    kept = IntrinsicNet(ModelConfig(preset, 8)).train()
    again = copy.deepcopy(kept)
    parts = _parts(again.backbone)
    assert len(parts) >= 4
    recompute_activations(parts)
    image = torch.rand(1, 2, 3, 64, 64)
    saved = {kept: 0, again: 0}
    for network in (kept, again):

        def note(value: torch.Tensor, network: IntrinsicNet = network) -> torch.Tensor:
            saved[network] += value.nbytes
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            answer = network(image)
        sum(part.square().sum() for part in answer).backward()
    assert saved[again] < 0.7 * saved[kept]
    for one, two in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad)
    for one, two in zip(kept.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(two, one)
