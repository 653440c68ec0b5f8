"""A contact sheet is drawn: pictures under a title, in rows with headings or in a grid."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from shards.looking.tiles import EMPTY

PAPER, INK, FAINT = (250, 250, 248), (34, 34, 38), (128, 128, 134)
GAP_PX, GROUP_GAP_PX, MARGIN_PX, TEXT_PX = 6, 18, 24, 13
HEAD_PX, CAPTION_PX = MARGIN_PX + 62, TEXT_PX + 10
GRID_HEAD_PX = HEAD_PX - 18  # columns of a grid have no headings
MAX_SHEET_PX = 20000


class Cell(NamedTuple):
    """One picture; None where the portrait lacks what it shows.

    starts_group: a wider gap on its left.
    """

    heading: str
    caption: str
    pixels: UInt8[np.ndarray, "height width 3"] | None
    starts_group: bool = False


def draw_sheet(
    title: str, note: str, names: list[tuple[str, str]], rows: list[list[Cell]], tile_px: int
) -> Image.Image:
    """Rows of cells under their headings, each row named by (key, subject)."""
    font, small, large = _fonts()
    label_px = 16 + max(int(font.getlength(text)) for name in names for text in name)
    label_px = min(label_px, 220)
    left = [MARGIN_PX + label_px]
    for cell in rows[0][1:]:
        left.append(left[-1] + tile_px + (GROUP_GAP_PX if cell.starts_group else GAP_PX))
    pitch = tile_px + CAPTION_PX
    width = max(left[-1] + tile_px, MARGIN_PX + int(large.getlength(title))) + MARGIN_PX
    sheet = _titled(title, note, width, HEAD_PX + pitch * len(rows) + MARGIN_PX - 8)
    draw = ImageDraw.Draw(sheet)
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


def draw_grid(title: str, note: str, cells: list[Cell], tile_px: int) -> Image.Image:
    """Cells in rows of about as many as there are rows, without headings."""
    font, small, large = _fonts()
    columns, rows = grid_shape(len(cells))
    across, down = tile_px + GAP_PX, tile_px + CAPTION_PX
    text_px = math.ceil(max(large.getlength(title), font.getlength(note)))
    width = max(columns * across - GAP_PX, text_px) + 2 * MARGIN_PX
    sheet = _titled(title, note, width, GRID_HEAD_PX + rows * down + MARGIN_PX - 8)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        corner = (MARGIN_PX + column * across, GRID_HEAD_PX + row * down)
        _draw_cell(sheet, corner, cell, tile_px, small)
    return sheet


def grid_shape(count: int) -> tuple[int, int]:
    """Columns and rows of a grid as near to a square as may be, wider than high if not one."""
    columns = math.isqrt(count - 1) + 1
    return columns, -(-count // columns)


def check_size(columns: int, rows: int, tile_px: int) -> None:
    """Refuse a sheet too large to look at, before anything is read for it: ValueError."""
    width, height = columns * (tile_px + GROUP_GAP_PX), rows * (tile_px + CAPTION_PX)
    if max(width, height) > MAX_SHEET_PX:
        raise ValueError(
            f"the sheet would be about {width}x{height} pixels, at most {MAX_SHEET_PX} on a side;"
            " ask for fewer portraits or lights or smaller pictures"
        )


def _fonts() -> tuple[ImageFont.FreeTypeFont, ImageFont.FreeTypeFont, ImageFont.FreeTypeFont]:
    """Of text, captions and the title."""
    text, small, large = (ImageFont.load_default(TEXT_PX + more) for more in (0, -2, 7))
    return text, small, large


def _titled(title: str, note: str, width: int, height: int) -> Image.Image:
    """Empty paper with its title."""
    font, _, large = _fonts()
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX - 8), title, INK, large)
    draw.text((MARGIN_PX, MARGIN_PX + 18), note, FAINT, font)
    return sheet


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
