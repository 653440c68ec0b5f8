"""Portraits for all contestants: rendered heads, each under lights of its own.

To render a head takes 0.2 s, to light it again a few milliseconds. So a head comes several times,
under other lights, and no two pictures of lights are the same; its albedo and normals are, and
every contestant decodes them each time.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import cv2
import numpy as np
import torch

from relightx.color import to_srgb8
from relightx.sample import Portrait
from relightx.sh import ambient_light, directional_light, shade
from shards.rendering.synthetic import synthetic_one
from shards.write import Packed, pack

SIZE = 128
_LEVELS = 1 << 14
"""Steps in which linear light is looked up as sRGB."""


class Amount(NamedTuple):
    """Portraits of a data set, lights of each, and how many heads they are of."""

    groups: int
    lights: int
    heads: int

    @property
    def name(self) -> str:
        """Of the directory that holds them."""
        return f"{self.groups}x{self.lights}"


def packed_heads(amount: Amount) -> Iterator[Packed]:
    """The portraits in order, encoded; by two processes."""
    with get_context("spawn").Pool(2, _use_one_thread) as pool:
        heads = min(amount.heads, amount.groups)
        # All visits of a head by one process, which keeps it.
        jobs = [
            [(head, n, amount.lights) for n in range(head, amount.groups, heads)]
            for head in range(heads)
        ]
        for done in pool.imap(_packed, jobs):
            yield from done


def _packed(jobs: list[tuple[int, int, int]]) -> list[Packed]:
    return [pack(relit(_head(head), number, lights)) for head, number, lights in jobs]


@cache
def _head(number: int) -> Portrait:
    return synthetic_one(number, lights=1, size=SIZE)


def relit(head: Portrait, number: int, lights: int) -> Portrait:
    """A head under that many random lamps."""
    generator = torch.Generator().manual_seed(number)
    toward = torch.randn(lights, 3, 3, generator=generator)
    toward[..., 2] = toward[..., 2].abs()
    strength = torch.rand(lights, 3, 3, 1, generator=generator)
    sh = (directional_light(toward)[:, :, None] * strength).sum(1) + ambient_light(0.1)
    normal = torch.from_numpy(head.normal[head.mask].T[None, :, :, None])
    shading = shade(normal, sh)[..., 0].clamp_min(0).numpy().transpose(0, 2, 1)
    seen = shading * head.albedo[head.mask]
    gain = 0.9 / np.quantile(seen.reshape(lights, -1), 0.99, axis=1).astype(np.float32)
    level = np.minimum(seen * (gain * (_LEVELS - 1))[:, None, None], _LEVELS - 1)
    image = np.zeros((lights, SIZE, SIZE, 3), np.uint8)
    image[:, head.mask] = _srgb()[np.rint(level).astype(np.intp)]
    key = f"g{number:06d}"
    return replace(
        head,
        key=key,
        subject=head.key,
        image=image,
        light_name=tuple(f"lamps {light}" for light in range(lights)),
        sh=sh.numpy() * gain[:, None, None],
        direction=torch.nn.functional.normalize(sh[:, 1, [3, 1, 2]], dim=-1).numpy(),
    )


@cache
def _srgb() -> np.ndarray:
    return to_srgb8(np.arange(_LEVELS) / (_LEVELS - 1))


def _use_one_thread() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
