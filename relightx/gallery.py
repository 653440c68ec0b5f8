"""Pictures of what a model does, as sections of a report: unseen heads, a photograph.

Each picture is a WebP data URI, so that a page that holds it needs no other file.
"""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image
from torch import Tensor

from relightx.batch import Batch, Decomposition
from relightx.color import to_srgb8
from relightx.data import evaluation_batches
from relightx.data.fit import unit
from relightx.evaluate import decompose
from relightx.index import read_index
from relightx.light import Light
from relightx.portrait import Model, PortraitDecomposition
from relightx.sh import shade

AZIMUTHS_DEG = (-75.0, -50.0, -25.0, 0.0, 25.0, 50.0, 75.0)
"""Lamps of the rows that move from left to right."""
PHOTO_PX = 352
"""Side of a photograph's pictures."""
_LAMPS_DEG = (-70.0, -35.0, 0.0, 35.0, 70.0)
_NUM_FRAMES = 24
_RANK = ("best", "better third", "worse third", "worst")


@dataclass(frozen=True)
class Tile:
    """A picture with its caption; light: a ball under the light that the picture shows."""

    picture: str
    width: int
    height: int
    caption: str
    light: str | None = None
    still: str | None = None
    """A moving picture's first frame, for print and for readers who want no motion."""


@dataclass(frozen=True)
class Strip:
    """Tiles in rows of `columns`."""

    tiles: tuple[Tile, ...]
    columns: int
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Gallery:
    """A section of pictures; short is its name in the list of contents."""

    title: str
    short: str
    text: str
    strips: tuple[Strip, ...]
    moving: Tile | None = None


def heads_gallery(model: Model, split: Path, scores: dict[str, dict[str, float]]) -> Gallery:
    """Four heads of a split, from the best normals to the worst, each beside the truth.

    scores: metrics of each portrait by key, as an evaluation has them. Needs portraits with
    normals, albedo and light, under two lights or more.
    """
    ranked = sorted(scores, key=lambda key: scores[key]["normal_error_deg"])
    places = np.linspace(0, len(ranked) - 1, min(len(_RANK), len(ranked))).round().astype(int)
    chosen = {ranked[place]: name for place, name in zip(places, _RANK, strict=False)}
    found = {
        key: batch
        for key, batch in evaluation_batches([read_index(split)], model.image_size)
        if key in chosen
    }
    strips = []
    for key, name in chosen.items():
        pred = decompose(model.network, found[key], model.device)
        strips += _head_strips(key, name, found[key], pred, scores[key])
    return Gallery(
        title="Heads that it has never seen",
        short="Unseen heads",
        text=f"Four of the {len(ranked)} test people, from the one with the best normals to the"
        " one with the worst. In each block the upper row is the model's answer to one picture,"
        " the lower row the truth that the renderer knows. The small ball is white and hangs in"
        " the light that the picture shows; it and the shadings are shown at one exposure, since"
        " brightness may as well be the skin's. Where the albedo brightens toward the lamp, the"
        " model has left light in the skin.",
        strips=tuple(strips),
    )


def photo_gallery(
    whole: PortraitDecomposition, name: str, environments: dict[str, Light]
) -> Gallery:
    """A photograph taken apart and under other lights; environments by name."""
    result = around_face(whole)
    unsure = "" if whole.face_found else " No face was found: the whole picture was taken as one."
    parts = (
        tile(
            result.image,
            "the photograph; ball: the light that the model sees in it",
            None,
            whole.light,
        ),
        tile(result.albedo, "albedo: the skin without light", result.mask),
        normal_tile(result.normal, "normals: red right, green up, blue to you", result.mask),
        tile(_exposed(result.shading, result.mask), "shading: the light without skin", result.mask),
        tile(result.relit(whole.light), "rebuilt: albedo times shading"),
    )
    lamps = {_place(azimuth): Light.from_angles(azimuth, 15.0, 0.25) for azimuth in _LAMPS_DEG}
    return Gallery(
        title="A photograph",
        short="Photograph",
        text=f"{name}{unsure} There is no truth to compare with, and the model has only ever seen"
        " rendered heads: this shows how far it carries over.",
        strips=(
            Strip(parts, len(parts), "Taken apart"),
            Strip(
                _relit(result, lamps),
                len(lamps),
                "Under one lamp",
                "15 degrees above the eyes, with a little even light, as strong as the photograph's"
                " own. Only the face is relit.",
            ),
            Strip(
                _relit(result, environments),
                len(environments),
                "In other places",
                "Light measured in real places, by its second-order spherical harmonics.",
            ),
        ),
        moving=moving_tile(
            [result.relit(_as_bright(result, light)) for light in _around()],
            "One lamp moves round the face. Albedo and normals stay those of the row below; only"
            " the nine coefficients of the light change.",
        ),
    )


def around_face(result: PortraitDecomposition) -> PortraitDecomposition:
    """The part of a photograph around its face, at most PHOTO_PX on a side."""
    rows, columns = (np.flatnonzero(result.mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        rows, columns = (np.arange(side) for side in result.mask.shape)
    height, width = result.mask.shape
    side = min(int(1.9 * max(np.ptp(rows), np.ptp(columns))) + 1, height, width)
    top = _start(rows, side, height)
    left = _start(columns, side, width)
    size = min(PHOTO_PX, side)

    def cut(values: np.ndarray) -> np.ndarray:
        part = values[top : top + side, left : left + side].astype(np.float32)
        return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)

    return replace(
        result,
        image=cut(result.image),
        albedo=cut(result.albedo),
        normal=unit(cut(result.normal)),
        shading=cut(result.shading),
        mask=cut(result.mask) > 0.5,
        weight=cut(result.weight),
    )


def _start(inside: Integer[np.ndarray, " _"], side: int, length: int) -> int:
    """Where a window of `side` begins that has the face in its middle and lies in the picture."""
    middle = (int(inside[0]) + int(inside[-1]) + 1) / 2
    return int(min(max(middle - side / 2, 0), length - side))


def _head_strips(
    key: str, rank: str, batch: Batch, pred: Decomposition, scores: dict[str, float]
) -> list[Strip]:
    """One head: the answer above the truth, then its albedo and normals under moving lamps."""
    mask = batch.mask[0, 0].numpy()
    other = _most_different(batch)
    albedo, normal = pred.albedo[0, 0], pred.normal[0, 0]
    shading, true_normal = shade(normal, pred.sh[0, 0]), batch.truth.normal[0]
    true_shading = shade(true_normal, batch.truth.sh[0, 0])
    first, second = Light(batch.truth.sh[0, 0].numpy()), Light(batch.truth.sh[0, other].numpy())
    seen = Light(pred.sh[0, 0].numpy())
    reached = Light(pred.sh[0, other].numpy())
    tiles = (
        tile(_picture(batch.image[0, 0]), "picture given; ball: its light", mask, first),
        tile(_picture(albedo), "albedo", mask),
        normal_tile(_picture(normal), "normals", mask),
        tile(_exposed(_picture(shading), mask), "shading; ball: light seen", mask, seen),
        tile(_picture(albedo * shading), "rebuilt", mask),
        tile(_picture(albedo * shade(normal, pred.sh[0, other])), "relit", mask, reached),
        tile(_picture(batch.image[0, other]), "picture whose light is reached", mask, second),
        tile(_picture(batch.truth.albedo[0]), "true albedo", mask),
        normal_tile(_picture(true_normal), "true normals", mask),
        tile(_exposed(_picture(true_shading), mask), "true shading", mask, first),
        tile(_picture(batch.image[0, 0]), "true picture", mask),
        tile(_picture(batch.image[0, other]), "true picture under that light", mask, second),
    )
    lamps = [Light.from_angles(azimuth, 15.0, 0.2) for azimuth in AZIMUTHS_DEG]
    moved = tuple(
        tile(_picture(albedo * _shading(normal, lamp)), _place(azimuth), mask, lamp)
        for azimuth, lamp in zip(AZIMUTHS_DEG, lamps, strict=True)
    )
    numbers = (
        f"Normals {scores['normal_error_deg']:.1f} degrees off, relit pictures at"
        f" {scores['relighting_psnr']:.1f} dB, mean over all its pairs of lights."
    )
    return [
        Strip(tiles, len(tiles) // 2, f"{key}, the {rank} by its normals", numbers),
        Strip(moved, len(moved), "", "The same answer under a lamp that moves:"),
    ]


def _most_different(batch: Batch) -> int:
    """The light whose picture, at equal brightness, differs most from the first light's."""
    inside = batch.image[0] * batch.mask[0]
    level = inside / inside.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    return int((level - level[0]).abs().mean(dim=(1, 2, 3)).argmax())


def _relit(result: PortraitDecomposition, lights: dict[str, Light]) -> tuple[Tile, ...]:
    return tuple(
        tile(result.relit(_as_bright(result, light)), name, None, light)
        for name, light in lights.items()
    )


def _as_bright(result: PortraitDecomposition, light: Light) -> Light:
    """The light at the strength that lights the brightest part of the face as the photograph's."""
    normal = torch.from_numpy(np.ascontiguousarray(result.normal.transpose(2, 0, 1)))
    wanted = _brightest(result.shading, result.mask)
    return Light(light.sh * (wanted / _brightest(_picture(_shading(normal, light)), result.mask)))


def _around() -> list[Light]:
    """A lamp on a cone around the line of sight, once round."""
    turns = np.linspace(0, 2 * np.pi, _NUM_FRAMES, endpoint=False)
    return [Light.from_direction((np.sin(turn), 0.75 * np.cos(turn), 0.6), 0.15) for turn in turns]


def _shading(
    normal: Float[Tensor, "3 height width"], light: Light
) -> Float[Tensor, "3 height width"]:
    return shade(normal, torch.from_numpy(light.sh)).clamp(min=0)


def _picture(value: Float[Tensor, "3 height width"]) -> Float[np.ndarray, "height width 3"]:
    return value.permute(1, 2, 0).numpy()


def _exposed(
    shading: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width 3"]:
    """Shading scaled so that its brightest part is nearly white."""
    return shading * (np.float32(0.85) / _brightest(shading, mask))


def _brightest(
    shading: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> np.float32:
    level = shading.mean(axis=2)[mask]
    return np.float32(max(np.quantile(level, 0.95) if len(level) else 1.0, 1e-6))


def _place(azimuth_deg: float) -> str:
    if not azimuth_deg:
        return "from the front"
    return f"{abs(azimuth_deg):g}° from the {'left' if azimuth_deg < 0 else 'right'}"


def tile(
    image: Float[np.ndarray, "height width 3"],
    caption: str,
    mask: Bool[np.ndarray, "height width"] | None = None,
    light: Light | None = None,
) -> Tile:
    """A tile of linear RGB; what lies outside the mask is left transparent."""
    return _tile(to_srgb8(image), caption, mask, light)


def normal_tile(
    normal: Float[np.ndarray, "height width 3"],
    caption: str,
    mask: Bool[np.ndarray, "height width"] | None = None,
) -> Tile:
    """A tile of unit normals as colours: red to the right, green up, blue to the camera."""
    return _tile(np.rint((normal + 1) / 2 * 255).astype(np.uint8), caption, mask, None)


def moving_tile(frames: Iterable[Float[np.ndarray, "height width 3"]], caption: str) -> Tile:
    """Linear RGB pictures shown one after the other, for ever, ten a second."""
    pictures = [Image.fromarray(to_srgb8(frame)) for frame in frames]
    first, *rest = pictures
    moving = _uri(first, save_all=True, append_images=rest, duration=100, loop=0, quality=70)
    return Tile(moving, *first.size, caption, still=_uri(first, quality=85))


def light_ball(light: Light, size: int = 64) -> str:
    """Data URI of a white ball under a light, seen from the camera; its brightest part is white."""
    place = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-place, place, indexing="ij")
    normal = torch.stack((x, y, (1 - x * x - y * y).clamp(min=0).sqrt()))
    shading = _exposed(_picture(_shading(normal, light)), (x * x + y * y < 1).numpy())
    edge = ((1 - torch.sqrt(x * x + y * y)) * size / 2 + 0.5).clamp(0, 1).numpy()
    alpha = np.rint(edge * 255).astype(np.uint8)[..., None]
    return _uri(Image.fromarray(np.concatenate((to_srgb8(shading), alpha), axis=2)))


def _tile(
    pixels: UInt8[np.ndarray, "height width 3"],
    caption: str,
    mask: Bool[np.ndarray, "height width"] | None,
    light: Light | None,
) -> Tile:
    if mask is not None:
        pixels = np.concatenate((pixels, mask[..., None].astype(np.uint8) * 255), axis=2)
    height, width = pixels.shape[:2]
    uri = _uri(Image.fromarray(pixels), quality=88)
    return Tile(uri, width, height, caption, light and light_ball(light))


def _uri(picture: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", method=4, **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
