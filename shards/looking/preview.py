"""A look at a split: each portrait's lights, labels and how well they explain a light.

Either a page for a browser (shards.looking.page) or a contact sheet, one picture. On the sheet, the
last three columns of a row belong together: the shading of the first light shown, albedo times that
shading, and the photograph again. The two on the right look alike where the labels are right.

A sheet can also be a grid of photographs alone: many portraits, each under one of its lights, or
one portrait under all of them.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from relightx.color import from_integer, to_srgb8
from relightx.index import GroupEntry, Index, write_atomically
from relightx.sample import Portrait, decode, extensions
from shards.looking.page import Shown, render_page
from shards.looking.sheet import Cell, check_size, draw_grid, draw_sheet, grid_shape
from shards.looking.tiles import gray_code, inside_of, normal_code, relit_of, shading_of, show
from shards.read import Place, SplitPlace, find_splits, folder_at, name_of, read_members, read_split

LAYOUTS = {"rows": (6, 3), "heads": (64, 1), "lights": (1, 64)}
"""Layout -> portraits, and lights of each, unless other numbers are asked for."""
_PAGE_LIGHTS = 8
_TILE_PX = {".png": 144, ".html": 320, ".htm": 320}
"""Ending of the file -> side of a picture in px."""


def preview(
    place: Place,
    out: Path,
    split: str | None = None,
    portraits: int | None = None,
    lights: int | None = None,
    tile_px: int | None = None,
    layout: str = "rows",
    key: str | None = None,
) -> Path:
    """Write a contact sheet of one split as a PNG, or a page as HTML, by the ending of `out`.

    place: a data set (split None means its first) or a split.
    portraits, lights: how many, spread evenly over the split and over each portrait's lights; None:
        as in LAYOUTS, and 8 lights on a page. Where there are fewer, fewer are shown.
    tile_px: side of each picture, 144 on a sheet, at most 320 on a page when None.
    layout: 'rows', a row for each portrait with its labels; 'heads', a grid of portraits, each
        under another of its lights than the one before; 'lights', a grid of one portrait's lights.
        A page has rows.
    key: of the portrait to show, instead of a number of them.
    Raises ValueError for another kind of place or file, an unknown split, key or layout, numbers
    below 1 or of what the layout has one of, and a sheet too large to look at.
    """
    ending = out.suffix.lower()
    _check_asked(out, ending, layout, portraits, lights, key)
    many, each = LAYOUTS[layout]
    each = each if ending == ".png" else _PAGE_LIGHTS
    portraits, lights = portraits or many, lights or each
    tile_px = _TILE_PX[ending] if tile_px is None else tile_px
    if tile_px < 1:
        raise ValueError(f"the number of tile size is {tile_px}; at least 1 needed")
    chosen, index = _choose_split(place, split)
    numbers = _spread(index.num_groups, portraits) if key is None else [_number(index, key)]
    places = map(index.place_of, numbers)
    entries = [(shard.name, group) for shard, group in places]
    title = f"{name_of(place)}, split {index.split}"
    count = f"{len(entries)} of {index.num_groups} portraits, {index.num_subjects} subjects"
    if ending != ".png":
        shown = [_read(chosen, *entry, lights) for entry in entries]
        data = render_page(title, count, shown, tile_px).encode()
    elif layout == "rows":
        data = _sheet(title, count, chosen, entries, lights, tile_px)
    elif layout == "heads":
        data = _heads(title, count, chosen, entries, tile_px)
    else:
        data = _lights(title, chosen, *entries[0], lights, tile_px)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(out, data)


def _check_asked(
    out: Path,
    ending: str,
    layout: str,
    portraits: int | None,
    lights: int | None,
    key: str | None,
) -> None:
    if ending not in _TILE_PX:
        raise ValueError(f"{out}: a contact sheet is a PNG, a page is HTML; name it FILE.png or"
                         " FILE.html")  # fmt: skip
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}, needed is one of {tuple(LAYOUTS)}")
    if layout != "rows" and ending != ".png":
        raise ValueError(f"{out}: a page has rows; name the file FILE.png for the layout {layout}")
    for name, value in (("portraits", portraits), ("lights", lights)):
        if value is not None and value < 1:
            raise ValueError(f"the number of {name} is {value}; at least 1 needed")
    if layout == "heads" and lights is not None:
        raise ValueError("the layout heads shows one light of each portrait; leave out the number"
                         " of lights")  # fmt: skip
    if portraits is not None and (layout == "lights" or key is not None):
        raise ValueError("one portrait is to be shown; leave out the number of portraits")


def _sheet(
    title: str,
    note: str,
    split: SplitPlace,
    entries: list[tuple[str, GroupEntry]],
    lights: int,
    tile_px: int,
) -> bytes:
    columns = min(lights, max(entry.lights for _, entry in entries))
    check_size(columns + 6, len(entries), tile_px)
    rows = [_row(_read(split, *entry, lights).portrait, columns) for entry in entries]
    names = [(entry.key, entry.subject) for _, entry in entries]
    return _png(draw_sheet(title, note, names, rows, tile_px))


def _heads(
    title: str, note: str, split: SplitPlace, entries: list[tuple[str, GroupEntry]], tile_px: int
) -> bytes:
    check_size(*grid_shape(len(entries)), tile_px)
    cells = []
    for place, (shard, entry) in enumerate(entries):
        portrait = _photographs(split, shard, entry, [place % entry.lights])
        cells.append(Cell("", entry.key, _photograph(portrait, 0)))
    return _png(draw_grid(title, f"{note}, each under one of its lights", cells, tile_px))


def _lights(
    title: str, split: SplitPlace, shard: str, entry: GroupEntry, lights: int, tile_px: int
) -> bytes:
    numbers = _spread(entry.lights, lights)
    check_size(*grid_shape(len(numbers)), tile_px)
    portrait = _photographs(split, shard, entry, numbers)
    who = entry.key if entry.subject == entry.key else f"{entry.key}, subject {entry.subject}"
    cells = [
        Cell("", f"{number + 1}  {portrait.light_name[place]}", _photograph(portrait, place))
        for place, number in enumerate(numbers)
    ]
    note = f"{who}: {len(numbers)} of its {entry.lights} lights"
    return _png(draw_grid(title, note, cells, tile_px))


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


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


def _number(index: Index, key: str) -> int:
    for number in range(index.num_groups):
        if index.table.key(number) == key:
            return number
    raise ValueError(f"split {index.split} has no portrait {key!r}")


def _read(split: SplitPlace, shard: str, entry: GroupEntry, lights: int) -> Shown:
    numbers = _spread(entry.lights, lights)
    wanted = extensions(entry.members, entry.lights, numbers)
    portrait = decode(entry.key, read_members(split.folder, shard, entry, wanted), numbers)
    return Shown(shard, portrait, tuple(numbers), entry.lights)


def _photographs(split: SplitPlace, shard: str, entry: GroupEntry, numbers: list[int]) -> Portrait:
    """A portrait with some of its lights and none of its maps."""
    wanted = extensions(entry.members, entry.lights, numbers, ())
    return decode(entry.key, read_members(split.folder, shard, entry, wanted), numbers)


def _photograph(portrait: Portrait, light: int) -> UInt8[np.ndarray, "height width 3"]:
    """One light alone: a portrait of a thousand in linear light would fill the memory."""
    linear = from_integer(portrait.image[light], portrait.provenance.transfer)
    return np.repeat(to_srgb8(linear), 3 // linear.shape[2], axis=2)


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
