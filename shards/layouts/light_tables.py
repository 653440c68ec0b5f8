"""Tables of light directions beside the pictures of a one-light-at-a-time stack.

Forms that are read, all lines in the order of the lights, `#` beginning a remark:

    light_directions.txt    x y z a line, the pictures in the order of their names (1, 2, 10) or of
                            filenames.txt beside it; light_intensities.txt beside it has one number
                            or three (red, green, blue) a line (the DiLiGenT benchmark and others)
    lights.lp, any *.lp     the count, then: name x y z (reflectance transformation imaging)
    lights.csv, lights.txt  with a line of column names: file or index; x, y, z or azimuth,
                            elevation; optional strength, or red, green, blue. Without: x y z, or
                            file x y z. Separated by commas, semicolons, tabs or blanks
    lights.json             [{"file": "a.png", "direction": [x, y, z], "strength": 1.2}, ...], with
                            "azimuth" and "elevation" in place of "direction" if so measured;
                            "file" and "strength" are optional, strength is one number or three.
                            The list may also be under the key "lights"

Directions point to the light and have any length but zero, so places of lights about the head's
centre will do. Azimuth and elevation are in degrees: azimuth 0 toward the camera and 90 toward the
picture's right, elevation 90 above. An index counts the pictures in the order of their names, from
0 if there is a 0 and from 1 if not.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

NAMES = ("lights.csv", "lights.txt", "lights.json", "light_directions.txt")
MAX_TABLE_BYTES = 4 << 20
_SAME_DIRECTION = 1 - 1e-9
_FILE_COLUMNS = ("file", "filename", "name", "image")
_AXES = re.compile(r"([+-]?)([xyz]),([+-]?)([xyz]),([+-]?)([xyz])")
_PARSED = {"x", "y", "z", "azimuth", "elevation", "strength", "red", "green", "blue"}


class Lamp(NamedTuple):
    """A light of a stage.

    file: name of its picture. direction: unit vector toward it, in the frame of the pictures.
    strength: of its red, green and blue, relative to the others.
    """

    file: str
    direction: tuple[float, float, float]
    strength: tuple[float, float, float]


class _Row(NamedTuple):
    """A light of a table; its picture is told by a file's name, an index or the order."""

    picture: str | int | None
    direction: tuple[float, ...]
    strength: tuple[float, ...]


def find_table(folders: Sequence[Path]) -> Path:
    """The table in the first of these folders that has one.

    Raises ValueError when none has, or when a folder has several.
    """
    for folder in folders:
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        found += sorted(folder.glob("*.lp"))
        if len(found) > 1:
            listed = ", ".join(file.name for file in found)
            raise ValueError(f"{folder}: has several tables of lights ({listed}); leave one")
        if found:
            return found[0]
    raise ValueError(
        f"{folders[0]}: no table of light directions here or above; put a {', '.join(NAMES)} or"
        " .lp beside the pictures or in the root, or name one with --lights"
    )


def read_lamps(
    table: Path, pictures: Sequence[str], axes: Float[np.ndarray, "3 3"]
) -> tuple[Lamp, ...]:
    """The lamp of each picture, in the order of the pictures.

    pictures: names of the files, in natural order. axes: makes the table's directions ours.
    Raises ValueError naming the table for what cannot be read, counts that differ, a picture or
    light without its partner, directions of length zero, that are not finite or occur twice, and
    strengths that are not positive.
    """
    rows = _read_json(table) if table.suffix.lower() == ".json" else _read_text(table)
    matched = _matched(table, rows, pictures)
    lamps = tuple(_lamp(table, name, matched[name], axes) for name in pictures)
    direction = np.array([lamp.direction for lamp in lamps])
    same = np.triu(direction @ direction.T, 1) > _SAME_DIRECTION
    if same.any():
        first, second = (lamps[int(index)].file for index in np.argwhere(same)[0])
        raise ValueError(f"{table}: {first} and {second} have the same light direction")
    return lamps


def axes_matrix(text: str) -> Float[np.ndarray, "3 3"]:
    """What makes a table's directions ours, of our x, y, z in its terms, such as 'x,-y,-z'.

    Raises ValueError for another text.
    """
    terms = _AXES.fullmatch(text.lower().replace(" ", ""))
    if not terms or len(set(terms.group(2, 4, 6))) < 3:
        raise ValueError(
            f"axes is {text!r}; needed are our x (right), y (up) and z (to the camera) in terms of"
            " the table's axes, such as 'x,-y,-z'"
        )
    matrix = np.zeros((3, 3))
    for ours in range(3):
        sign, name = terms.group(2 * ours + 1, 2 * ours + 2)
        matrix[ours, "xyz".index(name)] = -1 if sign == "-" else 1
    return matrix


def natural_order(name: str) -> tuple[Any, ...]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", name)
    return (*((int(part), "") if part.isdigit() else (-1, part) for part in parts), name)


def _lamp(table: Path, name: str, row: _Row, axes: Float[np.ndarray, "3 3"]) -> Lamp:
    given, strength = np.array(row.direction), np.array(row.strength)
    if not np.isfinite(given).all() or not given.any():
        raise ValueError(
            f"{table}: the direction of {name} is {list(row.direction)}; a vector is needed"
        )
    if not (np.isfinite(strength).all() and (strength > 0).all()):
        raise ValueError(f"{table}: the strength of {name} is {list(row.strength)}, not positive")
    x, y, z = (axes @ given / np.linalg.norm(given)).tolist()
    red, green, blue = np.broadcast_to(strength, 3).tolist()
    return Lamp(name, (x, y, z), (red, green, blue))


def _matched(table: Path, rows: list[_Row], pictures: Sequence[str]) -> dict[str, _Row]:
    """The row of each picture."""
    if len(rows) != len(pictures):
        raise ValueError(
            f"{table}: has {len(rows)} lights for {len(pictures)} pictures; each picture needs"
            " one line, and other pictures a place elsewhere"
        )
    names = [row.picture for row in rows]
    if all(name is None for name in names):
        return dict(zip(pictures, rows, strict=True))
    stems = [Path(name).stem for name in pictures]
    if all(str(name).isdigit() for name in names) and {str(name) for name in names} != set(stems):
        return _by_index(table, rows, pictures)
    by_name = {name: name for name in pictures}
    by_stem = {
        stem: name for stem, name in zip(stems, pictures, strict=True) if stems.count(stem) == 1
    }
    matched: dict[str, _Row] = {}
    for row in rows:
        # Tables made on Windows name whole paths.
        name = PurePosixPath(PureWindowsPath(str(row.picture)).name).name
        picture = by_name.get(name) or by_stem.get(name) or by_stem.get(Path(name).stem)
        if picture is None:
            raise ValueError(f"{table}: lists {name!r}, which is not among the pictures")
        if picture in matched:
            raise ValueError(f"{table}: lists {picture!r} twice")
        matched[picture] = row
    return matched


def _by_index(table: Path, rows: list[_Row], pictures: Sequence[str]) -> dict[str, _Row]:
    indices = [int(str(row.picture)) for row in rows]
    first = 0 if 0 in indices else 1
    if sorted(indices) != list(range(first, first + len(rows))):
        raise ValueError(
            f"{table}: its indices are not {first} to {first + len(rows) - 1}, each once"
        )
    return {pictures[index - first]: row for index, row in zip(indices, rows, strict=True)}


def _read_json(table: Path) -> list[_Row]:
    try:
        content = json.loads(_text(table))
    except ValueError as error:
        raise ValueError(f"{table}: cannot be read as JSON: {error}") from None
    lights = content.get("lights") if isinstance(content, dict) else content
    if not isinstance(lights, list) or not all(isinstance(light, dict) for light in lights):
        raise ValueError(f"{table}: is not a list of lights, each with 'direction'")
    return [_json_row(f"{table}: light {index}", light) for index, light in enumerate(lights)]


def _json_row(where: str, light: dict[str, Any]) -> _Row:
    picture = next((light[name] for name in (*_FILE_COLUMNS, "index") if name in light), None)
    if not isinstance(picture, str | int | None):
        raise ValueError(f"{where}: its picture is {picture!r}; a file's name is needed")
    try:
        if "direction" in light:
            direction = tuple(float(value) for value in light["direction"])
        else:
            direction = _of_angles(float(light["azimuth"]), float(light["elevation"]))
        strength = np.atleast_1d(np.array(light.get("strength", 1.0), float))
    except (KeyError, TypeError, ValueError):
        direction, strength = (), np.ones(1)
    if len(direction) != 3 or strength.shape not in ((1,), (3,)):
        raise ValueError(
            f"{where}: 'direction' of three numbers, or 'azimuth' and 'elevation', is needed, and"
            " 'strength' is one number or three"
        )
    return _Row(picture, direction, tuple(strength.tolist()))


def _read_text(table: Path) -> list[_Row]:
    lines = _lines(table)
    if not lines:
        raise ValueError(f"{table}: is empty; a direction for each picture is needed")
    columns = [cell.lower() for cell in lines[0]]
    if len(set(columns) & (_PARSED | {"index"})) > 1:
        rows = [
            _named_row(f"{table}: line {index + 2}", columns, line)
            for index, line in enumerate(lines[1:])
        ]
    else:
        if len(lines[0]) == 1 and lines[0][0].isdigit():  # .lp
            count = int(lines[0][0])
            # Names may hold blanks.
            lines = [[" ".join(line[:-3]), *line[-3:]] for line in lines[1:]]
            if count != len(lines):
                raise ValueError(f"{table}: says {count} lights and lists {len(lines)}")
        rows = [_plain_row(f"{table}: line {index + 1}", line) for index, line in enumerate(lines)]
    return _with_neighbours(table, rows) if table.name == "light_directions.txt" else rows


def _plain_row(where: str, line: list[str]) -> _Row:
    if len(line) not in (3, 4):
        raise ValueError(
            f"{where}: has {len(line)} columns; x y z or file x y z is needed, or a first line"
            " with the names of the columns"
        )
    picture = line[0] if len(line) == 4 else None
    return _Row(picture, tuple(_number(where, cell) for cell in line[-3:]), (1.0,))


def _named_row(where: str, columns: list[str], line: list[str]) -> _Row:
    if len(line) != len(columns):
        raise ValueError(f"{where}: has {len(line)} columns, the first line names {len(columns)}")
    cells = dict(zip(columns, line, strict=True))
    number = {name: _number(where, cell) for name, cell in cells.items() if name in _PARSED}
    picture = next((cells[n] for n in _FILE_COLUMNS if n in cells), None)
    if picture is None and "index" in cells:
        picture = cells["index"]
    if {"x", "y", "z"} <= number.keys():
        direction: tuple[float, ...] = (number["x"], number["y"], number["z"])
    elif {"azimuth", "elevation"} <= number.keys():
        direction = _of_angles(number["azimuth"], number["elevation"])
    else:
        raise ValueError(f"{where}: columns x, y, z or azimuth, elevation are needed")
    if {"red", "green", "blue"} <= number.keys():
        return _Row(picture, direction, (number["red"], number["green"], number["blue"]))
    return _Row(picture, direction, (number.get("strength", 1.0),))


def _with_neighbours(table: Path, rows: list[_Row]) -> list[_Row]:
    """The rows with what filenames.txt and light_intensities.txt beside the table add."""
    names, intensities = (
        table.with_name(name) for name in ("filenames.txt", "light_intensities.txt")
    )
    if names.is_file():
        listed = [line.strip() for line in _text(names).splitlines() if line.strip()]
        if len(listed) != len(rows):
            raise ValueError(f"{names}: has {len(listed)} names, {table.name} {len(rows)} lights")
        rows = [row._replace(picture=name) for row, name in zip(rows, listed, strict=True)]
    if intensities.is_file():
        lines = _lines(intensities)
        if len(lines) != len(rows) or {len(line) for line in lines} not in ({1}, {3}):
            raise ValueError(
                f"{intensities}: one number, or three, is needed for each of the {len(rows)} lights"
            )
        strength = [tuple(_number(f"{intensities}", cell) for cell in line) for line in lines]
        rows = [row._replace(strength=value) for row, value in zip(rows, strength, strict=True)]
    return rows


def _lines(table: Path) -> list[list[str]]:
    """The cells of each line that has any and is no remark."""
    lines = (line.strip() for line in _text(table).splitlines())
    return [_cells(line) for line in lines if line and not line.startswith("#")]


def _cells(line: str) -> list[str]:
    """Names may hold blanks where something else separates the columns."""
    between = r"[,;\t]" if re.search(r"[,;\t]", line) else r"\s+"
    return [cell.strip().strip('"') for cell in re.split(between, line)]


def _text(table: Path) -> str:
    if table.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"{table}: is larger than {MAX_TABLE_BYTES >> 20} MiB; no table of lights")
    try:
        return table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{table}: is not text in UTF-8") from None


def _number(where: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{where}: {cell!r} is not a number") from None


def _of_angles(azimuth_deg: float, elevation_deg: float) -> tuple[float, float, float]:
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    return (
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
