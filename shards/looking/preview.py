"""A look at a split: each portrait's lights, labels and how well they explain a light.

Either a page for a browser (shards.looking.page) or a contact sheet, one picture. On the sheet, the
last three columns of a row belong together: the shading of the first light shown, albedo times that
shading, and the photograph again. The two on the right look alike where the labels are right.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from relightx.color import to_srgb8
from relightx.index import GroupEntry, Index, write_atomically
from relightx.sample import Portrait, decode, extensions
from shards.looking.page import Shown, render_page
from shards.looking.tiles import (
    EMPTY,
    gray_code,
    inside_of,
    normal_code,
    relit_of,
    shading_of,
    show,
)
from shards.read import Place, SplitPlace, find_splits, folder_at, name_of, read_members, read_split

PAPER, INK, FAINT = (250, 250, 248), (34, 34, 38), (128, 128, 134)
GAP_PX, GROUP_GAP_PX, MARGIN_PX, TEXT_PX = 6, 18, 24, 13
HEAD_PX, CAPTION_PX = MARGIN_PX + 62, TEXT_PX + 10
MAX_SHEET_PX = 20000
DEFAULTS = {".png": (3, 144), ".html": (8, 320), ".htm": (8, 320)}
"""Ending of the file -> lights of a portrait and side of a picture in px."""


class Cell(NamedTuple):
    """One picture of a row; None where the portrait lacks what it shows.

    starts_group: a wider gap on its left.
    """

    heading: str
    caption: str
    pixels: UInt8[np.ndarray, "height width 3"] | None
    starts_group: bool = False


def preview(
    place: Place,
    out: Path,
    split: str | None = None,
    portraits: int = 6,
    lights: int | None = None,
    tile_px: int | None = None,
) -> Path:
    """Write a contact sheet of one split as a PNG, or a page as HTML, by the ending of `out`.

    place: a data set (split None means its first) or a split. portraits, lights: how many,
    spread evenly over the split and over each portrait's lights; 3 lights on a sheet, 8 on a page
    when None. tile_px: side of each picture, 144 on a sheet, at most 320 on a page when None.
    Raises ValueError for another kind of place or file, an unknown split, numbers below 1 and a
    sheet too large to look at.
    """
    if out.suffix.lower() not in DEFAULTS:
        raise ValueError(f"{out}: a contact sheet is a PNG, a page is HTML; name it FILE.png or"
                         " FILE.html")  # fmt: skip
    default_lights, default_px = DEFAULTS[out.suffix.lower()]
    lights = default_lights if lights is None else lights
    tile_px = default_px if tile_px is None else tile_px
    for name, value in (("portraits", portraits), ("lights", lights), ("tile size", tile_px)):
        if value < 1:
            raise ValueError(f"the number of {name} is {value}; at least 1 needed")
    chosen, index = _choose_split(place, split)
    groups = index.num_groups
    places = (index.place_of(number) for number in _spread(groups, portraits))
    entries = [(shard.name, group) for shard, group in places]
    title = f"{name_of(place)}, split {index.split}"
    count = f"{len(entries)} of {groups} portraits, {index.num_subjects} subjects"
    if out.suffix.lower() == ".png":
        data = _sheet(title, count, chosen, entries, lights, tile_px)
    else:
        shown = [_read(chosen, *entry, lights) for entry in entries]
        data = render_page(title, count, shown, tile_px).encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(out, data)


def _sheet(
    title: str,
    note: str,
    split: SplitPlace,
    entries: list[tuple[str, GroupEntry]],
    lights: int,
    tile_px: int,
) -> bytes:
    columns = min(lights, max(entry.lights for _, entry in entries))
    _check_size((columns + 6) * (tile_px + GROUP_GAP_PX), len(entries) * (tile_px + CAPTION_PX))
    rows = [_row(_read(split, *entry, lights).portrait, columns) for entry in entries]
    names = [(entry.key, entry.subject) for _, entry in entries]
    buffer = io.BytesIO()
    draw_sheet(title, note, names, rows, tile_px).save(buffer, "PNG")
    return buffer.getvalue()


def draw_sheet(
    title: str, note: str, names: list[tuple[str, str]], rows: list[list[Cell]], tile_px: int
) -> Image.Image:
    """Rows of cells under their headings, each row named by (key, subject)."""
    font = ImageFont.load_default(TEXT_PX)
    small, large = ImageFont.load_default(TEXT_PX - 2), ImageFont.load_default(TEXT_PX + 7)
    label_px = 16 + max(int(font.getlength(text)) for name in names for text in name)
    label_px = min(label_px, 220)
    left = [MARGIN_PX + label_px]
    for cell in rows[0][1:]:
        left.append(left[-1] + tile_px + (GROUP_GAP_PX if cell.starts_group else GAP_PX))
    pitch = tile_px + CAPTION_PX
    width = max(left[-1] + tile_px, MARGIN_PX + int(large.getlength(title))) + MARGIN_PX
    sheet = Image.new("RGB", (width, HEAD_PX + pitch * len(rows) + MARGIN_PX - 8), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX - 8), title, INK, large)
    draw.text((MARGIN_PX, MARGIN_PX + 18), note, FAINT, font)
    for x, cell in zip(left, rows[0], strict=True):
        draw.text((x, HEAD_PX - 20), _fit(cell.heading, font, tile_px), INK, font)
    for number, (row, (key, subject)) in enumerate(zip(rows, names, strict=True)):
        y = HEAD_PX + number * pitch
        draw.text((MARGIN_PX, y), _fit(key, font, label_px - 8), INK, font)
        if subject != key:
            draw.text((MARGIN_PX, y + 18), _fit(subject, font, label_px - 8), FAINT, font)
        for x, cell in zip(left, row, strict=True):
            _draw_cell(sheet, (x, y), cell, tile_px, small)
    return sheet


def _choose_split(place: Place, split: str | None) -> tuple[SplitPlace, Index]:
    places = {place.name: place for place in find_splits(place)}
    name = next(iter(places)) if split is None else split
    if name not in places:
        url = folder_at(place).url
        raise ValueError(f"{url}: has no split {name!r}; there are {', '.join(places)}")
    return places[name], read_split(places[name])


def _spread(count: int, wanted: int) -> list[int]:
    """Evenly spaced numbers below `count`, the first and the last among them."""
    if wanted >= count:
        return list(range(count))
    return [round(i * (count - 1) / max(wanted - 1, 1)) for i in range(wanted)]


def _read(split: SplitPlace, shard: str, entry: GroupEntry, lights: int) -> Shown:
    numbers = _spread(entry.lights, lights)
    wanted = extensions(entry.members, entry.lights, numbers)
    portrait = decode(entry.key, read_members(split.folder, shard, entry, wanted), numbers)
    return Shown(shard, portrait, tuple(numbers), entry.lights)


def _row(portrait: Portrait, columns: int) -> list[Cell]:
    linear = portrait.linear_image()
    inside, shading = inside_of(portrait), shading_of(portrait, 0)
    cells = [
        Cell(f"light {i + 1}", portrait.light_name[i], to_srgb8(linear[i]))
        if i < portrait.num_lights
        else Cell(f"light {i + 1}", "", None)
        for i in range(columns)
    ]
    has, first = portrait.provenance, portrait.light_name[0]
    mask, relit = gray_code(portrait.mask, None), relit_of(portrait, 0)
    return [
        *cells,
        Cell("albedo", has.albedo, show(portrait.albedo, inside), True),
        Cell("normal", has.normal, normal_code(portrait)),
        Cell("mask", "" if mask is None else f"{inside.mean():.0%}", mask),
        Cell("shading 1", *_shading_cell(shading, inside), True),
        Cell("albedo x shading 1", _difference(relit, linear[0], inside), show(relit, inside)),
        Cell("light 1 again", first, show(linear[0], inside)),
    ]


def _shading_cell(
    shading: Float[np.ndarray, "height width 3"] | None, inside: Bool[np.ndarray, "height width"]
) -> tuple[str, UInt8[np.ndarray, "height width 3"] | None]:
    """Caption and picture; shading may pass 1, so its brightest is shown as white."""
    if shading is None:
        return "", None
    white = max(float(np.percentile(shading[inside], 99.5)), 1e-6)
    return f"white is {white:.2f}", show(shading / white, inside)


def _difference(
    relit: np.ndarray | None, image: np.ndarray, inside: Bool[np.ndarray, "height width"]
) -> str:
    if relit is None:
        return ""
    return f"mean |diff| {np.abs(np.clip(relit, 0, 1) - image)[inside].mean():.3f}"


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SHEET_PX:
        raise ValueError(
            f"the sheet would be about {width}x{height} pixels, at most {MAX_SHEET_PX} on a side;"
            " ask for fewer portraits or lights or smaller pictures"
        )


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], cell: Cell, tile_px: int, font: object
) -> None:
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((x, y, x + tile_px - 1, y + tile_px - 1), EMPTY)
    if cell.pixels is None:
        middle = (x + tile_px / 2, y + tile_px / 2)
        draw.text(middle, cell.caption or "absent", FAINT, font, anchor="mm")
        return
    picture = Image.fromarray(cell.pixels)
    scale = tile_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    kind = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    place = (x + (tile_px - size[0]) // 2, y + (tile_px - size[1]) // 2)
    sheet.paste(picture.resize(size, kind), place)
    draw.text((x, y + tile_px + 2), _fit(cell.caption, font, tile_px), FAINT, font)
