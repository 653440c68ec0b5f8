"""What every contestant delivers: batches of torch tensors, made by the same collation.

There are two ways to a stored portrait's pixels, and both give the same bits. `decoded` is the
project's own decoder, on the members that are used alone. The contestants "by hand" have it, so
that they differ from relightx in nothing but the loader. `of_pictures` finishes what the others'
own decoders give: Pillow for 8 bits, and OpenCV for 16, which Pillow cannot decode in colour.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image

from relightx.color import from_integer
from relightx.sample import Portrait, decode, light_extension, unit

BATCH = 16
CHOSEN = 2
"""Lights of a visit."""
PREFETCH = 4
"""Batches that each worker makes ahead."""
LABELS = ("albedo.png", "normal.png", "mask.png")


class Sample(NamedTuple):
    """A portrait under the chosen lights; pixels uint8, maps float32 or bool, rows first."""

    key: str
    lights: list[int]
    image: np.ndarray
    albedo: np.ndarray
    normal: np.ndarray
    mask: np.ndarray
    sh: np.ndarray


class Batch(NamedTuple):
    """Pixels of 16 portraits, B x 2 x 3 x H x W and B x 3 x H x W, and their lights.

    image is uint8, mask bool with one channel, the rest float32; sh has 3 x 9 numbers a light.
    key, lights: which portraits these are, and which of their lights.
    """

    key: list[str]
    lights: list[list[int]]
    image: torch.Tensor
    albedo: torch.Tensor
    normal: torch.Tensor
    mask: torch.Tensor
    sh: torch.Tensor


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples, channels before rows."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))

    return Batch(
        key=[sample.key for sample in samples],
        lights=[sample.lights for sample in samples],
        image=stacked("image").movedim(-1, -3).contiguous(),
        albedo=stacked("albedo").movedim(-1, -3).contiguous(),
        normal=stacked("normal").movedim(-1, -3).contiguous(),
        mask=stacked("mask")[:, None],
        sh=stacked("sh"),
    )


def draw(rng: np.random.Generator, held: int) -> list[int]:
    """The lights of a visit."""
    return rng.choice(held, CHOSEN, replace=False).tolist()


def members_of(lights: Sequence[int]) -> list[str]:
    """The members that a visit under these lights uses, by extension."""
    return [*map(light_extension, lights), *LABELS, "meta.json"]


def of_portrait(portrait: Portrait, lights: list[int]) -> Sample:
    """What the project's reader gives."""
    return Sample(
        portrait.key,
        lights,
        portrait.image,
        portrait.albedo,
        portrait.normal,
        portrait.mask,
        portrait.sh,
    )


def decoded(key: str, members: dict[str, bytes], lights: list[int]) -> Sample:
    """By the project's own decoder."""
    return of_portrait(decode(key, members, lights), lights)


def of_pictures(key: str, pictures: Mapping[str, Any], lights: list[int]) -> Sample:
    """From decoded members: arrays, or Pillow pictures that decode themselves now, and a meta.json
    that is parsed."""
    image = np.stack([np.asarray(pictures[light_extension(light)]) for light in lights])
    mask = np.asarray(pictures["mask.png"])
    mask = mask if mask.ndim == 2 else mask[..., 0]
    sh = np.array([pictures["meta.json"]["lights"][light]["sh"] for light in lights], np.float32)
    albedo = from_integer(np.asarray(pictures["albedo.png"]), "linear")
    normal = unit(from_integer(np.asarray(pictures["normal.png"]), "linear") * 2 - 1)
    return Sample(key, lights, image, albedo, normal, mask > 127, sh)


def is_deep(extension: str) -> bool:
    """Whether a member is a 16-bit RGB picture, which Pillow cannot decode."""
    return extension in ("albedo.png", "normal.png")


def deep_pixels(data: bytes) -> np.ndarray:
    """Pixels of a 16-bit PNG by OpenCV."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def with_arrays(members: dict[str, bytes]) -> dict[str, Any]:
    """The members with albedo and normals decoded."""
    return {name: deep_pixels(data) if is_deep(name) else data for name, data in members.items()}


def pixels(extension: str, data: bytes) -> Any:
    """A member decoded as most programs would: by Pillow, OpenCV and json."""
    if extension == "meta.json":
        return json.loads(data)
    if is_deep(extension):
        return deep_pixels(data)
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)
