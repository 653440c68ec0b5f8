"""A page of portraits as they lie in a data set: lights, labels, how well both agree, provenance.

The file is complete in itself: styles are inline and pictures are data URIs. The same data gives
the same page.
"""

import base64
import io
import math
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from relightx.color import to_srgb8
from relightx.sample import Portrait
from shards.looking.agreement import agreement
from shards.looking.tiles import (
    ball_under,
    difference_code,
    gray_code,
    inside_of,
    normal_code,
    relit_of,
    show,
)

_QUALITY = 88
_TEMPLATE = Path(__file__).with_name("preview_template.html")


class Shown(NamedTuple):
    """A portrait to show, some of its lights alone.

    shard: where it lies. numbers: of the lights it has here, of `lights` in all.
    """

    shard: str
    portrait: Portrait
    numbers: tuple[int, ...]
    lights: int


@dataclass(frozen=True)
class Picture:
    """A picture with its caption; uri: None where the portrait lacks it."""

    title: str
    caption: str
    uri: str | None
    width: int
    height: int


@dataclass(frozen=True)
class LightColumn:
    """One light: its photograph, what the labels make of it, and where they differ."""

    number: int
    name: str
    direction: str
    ball: str | None
    pictures: tuple[Picture, ...]

    @property
    def name_parts(self) -> list[str]:
        """The name where a line may break."""
        return re.split(r"(?<=[+/_,-])(?=[A-Za-z])", self.name)


@dataclass(frozen=True)
class Dot:
    """A light on the disc: where the camera sees it, +y up in [-1, 1]."""

    number: int
    x: float
    y: float
    is_behind: bool


def render_page(title: str, note: str, shown: list[Shown], tile_px: int) -> str:
    """The page's HTML. tile_px: the longer side of a picture, which is not enlarged."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    return page.render(
        title=title,
        note=note,
        portraits=[_portrait(one, tile_px) for one in shown],
        version=version("relightx"),
    )


def _portrait(shown: Shown, tile_px: int) -> dict:
    portrait, has = shown.portrait, shown.portrait.provenance
    found = agreement(portrait)
    off = float("nan") if found is None else found.residual
    _, height, width, channels = portrait.image.shape
    bits = portrait.image.dtype.itemsize * 8
    colour = "gray" if channels == 1 else "RGB"
    return {
        "key": portrait.key,
        "subject": portrait.subject,
        "shard": shown.shard,
        "off": "" if math.isnan(off) else f"{off:.1%}",
        "of_lights": f"{len(shown.numbers)} of {shown.lights} lights"
        if len(shown.numbers) < shown.lights
        else f"all {shown.lights} lights"
        if shown.lights > 1
        else "its only light",
        "labels": [(name, getattr(has, name)) for name in ("albedo", "normal", "light")],
        "maps": _maps(portrait, tile_px),
        "columns": _columns(shown, tile_px),
        "rows": _rows(portrait),
        "dots": _dots(shown),
        "facts": [
            ("source", has.source),
            ("licence", has.licence),
            ("crop", has.crop),
            ("stored", f"{width}x{height}, {bits}-bit {colour}, {_TRANSFER[has.transfer]}"),
            ("source's picture", "x".join(map(str, has.source_size)) if has.source_size else ""),
        ],
    }


_TRANSFER = {"srgb": "sRGB", "linear": "linear light"}


def _maps(portrait: Portrait, tile_px: int) -> list[Picture]:
    inside, has = inside_of(portrait), portrait.provenance
    confidence = portrait.confidence
    sure = "" if confidence is None else f"{confidence[inside].mean():.2f} in the mean"
    share = "" if portrait.mask is None else f"{inside.mean():.0%} of the picture"
    return [
        _picture("albedo", has.albedo, show(portrait.albedo, inside), tile_px),
        _picture("normal", has.normal, normal_code(portrait), tile_px),
        _picture("mask", share, gray_code(portrait.mask, None), tile_px),
        _picture("confidence", sure, gray_code(confidence, inside), tile_px),
    ]


def _columns(shown: Shown, tile_px: int) -> list[LightColumn]:
    portrait, linear = shown.portrait, shown.portrait.linear_image()
    inside = inside_of(portrait)
    full = max(float(np.median(linear[:, inside].mean((0, -1)))), 1e-6) if inside.any() else 1.0
    columns = []
    for place, number in enumerate(shown.numbers):
        relit = relit_of(portrait, place)
        pictures = [_picture("photograph", "", to_srgb8(linear[place]), tile_px)]
        if relit is not None:
            differs = difference_code(relit, linear[place], inside, full)
            pictures.append(_picture("albedo x shading", "", show(relit, inside), tile_px))
            pictures.append(_picture("difference", "", differs, tile_px))
        direction = None if portrait.direction is None else portrait.direction[place]
        ball = None if portrait.sh is None else _uri(ball_under(portrait.sh[place]))
        name = portrait.light_name[place]
        columns.append(LightColumn(number + 1, name, _angles(direction), ball, tuple(pictures)))
    return columns


def _rows(portrait: Portrait) -> list[str]:
    if portrait.albedo is None or portrait.normal is None or portrait.sh is None:
        return ["photograph"]
    return ["photograph", "albedo × shading", "difference"]


def _dots(shown: Shown) -> list[Dot]:
    if shown.portrait.direction is None:
        return []
    return [
        Dot(number + 1, round(float(x), 4), round(float(y), 4), bool(z < 0))
        for number, (x, y, z) in zip(shown.numbers, shown.portrait.direction, strict=True)
    ]


def _angles(direction: np.ndarray | None) -> str:
    """Where a light stands, from the camera's place: '30° right, 12° up'."""
    if direction is None:
        return ""
    x, y, z = map(float, direction)
    across, upward = math.degrees(math.atan2(x, z)), math.degrees(math.asin(max(-1, min(1, y))))
    sides = [
        f"{abs(angle):.0f}° {names[angle > 0]}"
        for angle, names in ((across, ("left", "right")), (upward, ("down", "up")))
        if abs(angle) >= 0.5
    ]
    return ", ".join(sides) or "straight ahead"


def _picture(title: str, caption: str, pixels: np.ndarray | None, tile_px: int) -> Picture:
    if pixels is None:
        return Picture(title, "absent", None, tile_px, tile_px)
    image = Image.fromarray(pixels)
    image.thumbnail((tile_px, tile_px), Image.Resampling.LANCZOS)
    return Picture(title, caption, _uri(np.asarray(image)), image.width, image.height)


def _uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
