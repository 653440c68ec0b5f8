"""Examples stacked, compared with numpy's stacking."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from relightx.data.collate import Layout, collate
from relightx.data.fit import Views
from relightx.data.portraits import Example

_SIZE, _LIGHTS = 7, 3


def example(seed: int, **changes: object) -> Example:
    rng = np.random.default_rng(seed)
    views = Views(
        image=rng.random((_LIGHTS, _SIZE, _SIZE, 3), np.float32),
        mask=rng.random((_SIZE, _SIZE)) > 0.5,
        albedo=rng.random((_SIZE, _SIZE, 3), np.float32),
        normal=rng.random((_SIZE, _SIZE, 3), np.float32),
        confidence=rng.random((_SIZE, _SIZE), np.float32),
        sh=rng.random((_LIGHTS, 3, 9), np.float32),
    )
    return Example(replace(views, **changes), True, seed % 2 == 0, False)


def stacked(examples: list[Example], name: str) -> np.ndarray:
    return np.stack([getattr(each.views, name) for each in examples])


def test_a_batch_is_its_examples_stacked():
    examples = [example(seed) for seed in range(4)]
    batch = collate(examples)
    for name, found in (("image", batch.image), ("albedo", batch.truth.albedo)):
        np.testing.assert_array_equal(found, np.moveaxis(stacked(examples, name), -1, -3))
    np.testing.assert_array_equal(
        batch.truth.normal, np.moveaxis(stacked(examples, "normal"), -1, -3)
    )
    np.testing.assert_array_equal(batch.mask[:, 0], stacked(examples, "mask"))
    np.testing.assert_array_equal(batch.truth.confidence[:, 0], stacked(examples, "confidence"))
    np.testing.assert_array_equal(batch.truth.sh, stacked(examples, "sh"))
    assert batch.valid.tolist() == [True] * 4
    assert batch.truth.has_albedo.tolist() == [True] * 4
    assert batch.truth.has_normal.tolist() == [True, False, True, False]
    assert batch.truth.has_light.tolist() == [False] * 4


def test_a_mirrored_picture_is_stacked_as_it_is_seen():
    plain = example(0)
    mirrored = replace(plain, views=replace(plain.views, image=plain.views.image[:, :, ::-1]))
    assert torch.equal(collate([mirrored]).image, collate([plain]).image.flip(-1))


def test_absent_labels_are_zeros_and_absent_confidence_is_trust():
    truth = collate([example(1, albedo=None, normal=None, sh=None, confidence=None)]).truth
    assert not truth.albedo.any() and not truth.normal.any() and not truth.sh.any()
    assert (truth.confidence == 1).all()


def test_given_memory_is_written_whole():
    """What a batch before left there is nowhere to be seen."""
    examples = [example(seed, albedo=None, sh=None) for seed in range(3)]
    layout = Layout(3, _LIGHTS, _SIZE)
    batches = []
    for before in (0, 255):
        memory = torch.full((layout.bytes,), before, dtype=torch.uint8)
        collate(examples, memory)
        batches.append(layout.batch(memory))
    for first, second in zip(*((*b[:3], *b.truth) for b in batches), strict=True):
        assert torch.equal(first, second)


def test_memory_of_another_size_is_refused():
    memory = torch.empty(100, dtype=torch.uint8)
    with pytest.raises(ValueError, match="bytes needed, 100 found"):
        collate([example(0)], memory)
