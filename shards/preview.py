"""A contact sheet of a split: each portrait's lights, labels and how well they explain a light.

The last three columns of a row belong together: the shading of the first light shown, albedo times
that shading, and the photograph again. The two on the right look alike where the labels are right.
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from relightx.color import to_srgb8
from relightx.index import GroupEntry, Index, write_atomically
from relightx.sample import Portrait, decode, extensions
from relightx.sh import shade
from shards.read import Place, SplitPlace, find_splits, folder_at, name_of, read_members, read_split

PAPER, INK, FAINT, EMPTY = (250, 250, 248), (34, 34, 38), (128, 128, 134), (236, 236, 233)
GAP_PX, GROUP_GAP_PX, MARGIN_PX, TEXT_PX = 6, 18, 24, 13
HEAD_PX, CAPTION_PX = MARGIN_PX + 62, TEXT_PX + 10
MAX_SHEET_PX = 20000


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
    lights: int = 3,
    tile_px: int = 144,
) -> Path:
    """Write a contact sheet of one split as a PNG.

    place: a data set (split None means its first) or a split. portraits, lights: how many,
    spread evenly over the split and over each portrait's lights. tile_px: side of each picture.
    Raises ValueError for another kind of place, an unknown split, numbers below 1 and a sheet
    too large to look at.
    """
    for name, value in (("portraits", portraits), ("lights", lights), ("tile size", tile_px)):
        if value < 1:
            raise ValueError(f"the number of {name} is {value}; at least 1 needed")
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out}: the contact sheet is a PNG; name it so")
    chosen, index = _choose_split(place, split)
    entries = _spread(index.groups, portraits)
    shard_of = {group.key: shard.name for shard in index.shards for group in shard.groups}
    columns = min(lights, max(entry.lights for entry in entries))
    _check_size((columns + 6) * (tile_px + GROUP_GAP_PX), len(entries) * (tile_px + CAPTION_PX))
    rows = [_row(_read(chosen, shard_of[e.key], e, lights), columns) for e in entries]
    title = f"{name_of(place)}, split {index.split}"
    count = f"{len(entries)} of {len(index.groups)} portraits, {len(index.subjects)} subjects"
    sheet = draw_sheet(title, count, [(e.key, e.subject) for e in entries], rows, tile_px)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(out, buffer.getvalue())


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


def _spread(items: list, count: int) -> list:
    """Evenly spaced items, the first and the last among them."""
    if count >= len(items):
        return items
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]


def _read(split: SplitPlace, shard: str, entry: GroupEntry, lights: int) -> Portrait:
    chosen = _spread(list(range(entry.lights)), lights)
    wanted = extensions(entry.members, entry.lights, chosen)
    return decode(entry.key, read_members(split.folder, shard, entry, wanted), chosen)


def _row(portrait: Portrait, columns: int) -> list[Cell]:
    linear = portrait.linear_image()
    inside = np.ones(linear.shape[1:3], bool) if portrait.mask is None else portrait.mask
    shading = _shading(portrait)
    cells = [
        Cell(f"light {i + 1}", portrait.light_name[i], to_srgb8(linear[i]))
        if i < portrait.num_lights
        else Cell(f"light {i + 1}", "", None)
        for i in range(columns)
    ]
    has, first = portrait.provenance, portrait.light_name[0]
    normal = None if portrait.normal is None else (portrait.normal + 1) / 2
    mask = None if portrait.mask is None else np.repeat(portrait.mask[..., None], 3, -1)
    relit = None if shading is None or portrait.albedo is None else portrait.albedo * shading
    return [
        *cells,
        Cell("albedo", has.albedo, _show(portrait.albedo, inside), True),
        Cell("normal", has.normal, _coded(normal, inside)),
        Cell("mask", "" if mask is None else f"{inside.mean():.0%}", _coded(mask, None)),
        Cell("shading 1", *_shading_cell(shading, inside), True),
        Cell("albedo x shading 1", _difference(relit, linear[0], inside), _show(relit, inside)),
        Cell("light 1 again", first, _show(linear[0], inside)),
    ]


def _shading(portrait: Portrait) -> Float[np.ndarray, "height width 3"] | None:
    if portrait.normal is None or portrait.sh is None:
        return None
    normal = torch.from_numpy(np.ascontiguousarray(portrait.normal)).permute(2, 0, 1)
    return shade(normal, torch.from_numpy(portrait.sh[0])).permute(1, 2, 0).numpy()


def _show(
    linear: np.ndarray | None, inside: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"] | None:
    if linear is None:
        return None
    return _within(to_srgb8(linear), inside)


def _within(
    pixels: UInt8[np.ndarray, "height width 3"], inside: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    return np.where(inside[..., None], pixels, np.array(EMPTY, np.uint8))


def _coded(
    values: np.ndarray | None, inside: Bool[np.ndarray, "height width"] | None
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Values in [0, 1] that are no light: stored as they are, without the sRGB curve."""
    if values is None:
        return None
    stored = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return (
        stored if inside is None else np.where(inside[..., None], stored, np.array(EMPTY, np.uint8))
    )


def _shading_cell(
    shading: Float[np.ndarray, "height width 3"] | None, inside: Bool[np.ndarray, "height width"]
) -> tuple[str, UInt8[np.ndarray, "height width 3"] | None]:
    """Caption and picture; shading may pass 1, so its brightest is shown as white."""
    if shading is None:
        return "", None
    white = max(float(np.percentile(shading[inside], 99.5)), 1e-6)
    return f"white is {white:.2f}", _show(shading / white, inside)


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
