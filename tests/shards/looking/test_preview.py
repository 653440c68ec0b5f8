from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from relightx.color import to_srgb8
from relightx.sample import without_labels
from shards.looking.preview import preview
from shards.looking.sheet import CAPTION_PX, GAP_PX, GRID_HEAD_PX, HEAD_PX, MARGIN_PX, grid_shape
from shards.looking.tiles import EMPTY
from shards.write import write_dataset, write_split

TILE_PX = 64


@pytest.fixture
def dataset(make_portrait, tmp_path):
    balls = [make_portrait(f"ball{i}", f"person{i}", seed=i, size=TILE_PX) for i in range(4)]
    write_dataset(balls, tmp_path / "d", lambda subject: "val" if subject[-1] == "0" else "train")
    return tmp_path / "d"


def sheet_of(directory, tmp_path, **options):
    file = preview(directory, tmp_path / "sheet.png", tile_px=TILE_PX, **options)
    with Image.open(file) as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        return np.asarray(picture)


def columns_from_the_right(sheet, count):
    """The pixels of the last columns of pictures, rightmost first, over all rows."""
    ends = [sheet.shape[1] - MARGIN_PX - i * (TILE_PX + GAP_PX) for i in range(count)]
    return [sheet[:, end - TILE_PX : end].astype(int) for end in ends]


def row_tops(sheet):
    """First row of pixels of each portrait."""
    pitch = TILE_PX + CAPTION_PX
    return [HEAD_PX + i * pitch for i in range((sheet.shape[0] - HEAD_PX) // pitch)]


def test_true_labels_explain_the_light_beside_them(dataset, tmp_path):
    sheet = sheet_of(dataset, tmp_path)
    again, relit = columns_from_the_right(sheet, 2)
    tops = row_tops(sheet)
    assert len(tops) == 3
    for top in tops:
        tile, other = again[top : top + TILE_PX], relit[top : top + TILE_PX]
        assert np.abs(tile - other).max() <= 2
        assert np.ptp(tile) > 100


def test_wrong_labels_look_wrong(make_portrait, tmp_path):
    ball = make_portrait(size=TILE_PX)
    write_split([replace(ball, sh=ball.sh[::-1].copy())], tmp_path / "s", "train")
    sheet = sheet_of(tmp_path / "s", tmp_path)
    again, relit = columns_from_the_right(sheet, 2)
    (top,) = row_tops(sheet)
    assert np.abs(again - relit)[top : top + TILE_PX].max() > 40


def test_a_portrait_without_labels_has_empty_places(portrait, tmp_path):
    bare = replace(without_labels(portrait, ("albedo", "normal", "light")), mask=None)
    write_split([bare], tmp_path / "s", "train")
    sheet = sheet_of(tmp_path / "s", tmp_path)
    again, relit, shading = columns_from_the_right(sheet, 3)
    (top,) = row_tops(sheet)
    assert np.ptp(again[top : top + TILE_PX]) > 100
    for column in (relit, shading):
        assert (column[top : top + TILE_PX] == EMPTY).all(-1).mean() > 0.8  # the rest: "absent"


def test_the_sheet_has_a_row_for_each_portrait_asked_for(dataset, tmp_path):
    one, three = (sheet_of(dataset, tmp_path, portraits=n) for n in (1, 3))
    many = sheet_of(dataset, tmp_path, portraits=99)
    assert len(row_tops(one)) == 1 and len(row_tops(three)) == len(row_tops(many)) == 3


def tiles_of(sheet, count):
    """The pictures of a grid, in reading order."""
    columns, _ = grid_shape(count)
    for number in range(count):
        row, column = divmod(number, columns)
        top = GRID_HEAD_PX + row * (TILE_PX + CAPTION_PX)
        left = MARGIN_PX + column * (TILE_PX + GAP_PX)
        yield sheet[top : top + TILE_PX, left : left + TILE_PX]


def test_heads_are_shown_each_under_a_light_of_its_own(make_portrait, tmp_path):
    balls = [make_portrait(f"b{i}", lights=2 + i % 2, seed=i, size=TILE_PX) for i in range(5)]
    write_split(balls, tmp_path / "s", "train")
    sheet = sheet_of(tmp_path / "s", tmp_path, layout="heads")
    for tile, ball, light in zip(tiles_of(sheet, 5), balls, (0, 1, 0, 0, 0), strict=True):
        np.testing.assert_array_equal(tile, to_srgb8(ball.linear_image()[light]))
    few = sheet_of(tmp_path / "s", tmp_path, layout="heads", portraits=2)
    for tile, ball, light in zip(tiles_of(few, 2), (balls[0], balls[4]), (0, 1), strict=True):
        np.testing.assert_array_equal(tile, to_srgb8(ball.linear_image()[light]))


def test_one_portrait_is_shown_under_its_lights(make_portrait, tmp_path):
    balls = [make_portrait(f"b{i}", lights=7, seed=i, size=TILE_PX) for i in range(3)]
    write_split(balls, tmp_path / "s", "train")
    for options, ball, lights in (
        ({}, balls[0], range(7)),
        ({"key": "b1"}, balls[1], range(7)),
        ({"key": "b2", "lights": 3}, balls[2], (0, 3, 6)),
    ):
        sheet = sheet_of(tmp_path / "s", tmp_path, layout="lights", **options)
        for tile, light in zip(tiles_of(sheet, len(lights)), lights, strict=True):
            np.testing.assert_array_equal(tile, to_srgb8(ball.linear_image()[light]))


def test_a_page_of_heads_or_lights_holds_no_more_than_64(make_portrait, tmp_path):
    small = make_portrait(lights=70, size=8)
    many = [replace(small, key=f"b{i}", image=small.image[:1], light_name=("a",), sh=small.sh[:1],
                    direction=small.direction[:1]) for i in range(70)]  # fmt: skip
    for layout, portraits in (("lights", [small]), ("heads", many)):
        write_split(portraits, tmp_path / layout, "train")
        sheet = sheet_of(tmp_path / layout, tmp_path, layout=layout)
        side = 8 * TILE_PX + 7 * GAP_PX + 2 * MARGIN_PX
        assert sheet.shape[1] == side
        assert sheet.shape[0] == GRID_HEAD_PX + 8 * (TILE_PX + CAPTION_PX) + MARGIN_PX - 8


def test_a_gray_portrait_is_shown_in_a_grid(portrait, tmp_path):
    gray = replace(portrait, image=portrait.image[..., :1])
    write_split([gray], tmp_path / "s", "train")
    (tile, *_) = tiles_of(sheet_of(tmp_path / "s", tmp_path, layout="lights"), 3)
    assert np.ptp(tile) > 100 and (tile[..., 0] == tile[..., 2]).all()


def test_grids_are_near_to_square():
    shapes = {1: (1, 1), 2: (2, 1), 5: (3, 2), 9: (3, 3), 12: (4, 3), 63: (8, 8), 64: (8, 8)}
    assert {count: grid_shape(count) for count in shapes} == shapes


def test_the_chosen_portrait_has_the_only_row(dataset, tmp_path):
    chosen = sheet_of(dataset, tmp_path, key="ball2")
    np.testing.assert_array_equal(chosen, sheet_of(dataset, tmp_path, key="ball2"))
    assert len(row_tops(chosen)) == 1
    assert not np.array_equal(chosen, sheet_of(dataset, tmp_path, key="ball1"))


@pytest.mark.parametrize("layout", ["heads", "lights"])
def test_a_page_has_rows_alone(dataset, tmp_path, layout):
    with pytest.raises(ValueError, match=r"a\.html: a page has rows; name the file FILE\.png"):
        preview(dataset, tmp_path / "a.html", layout=layout)
    assert not (tmp_path / "a.html").exists()


def test_a_split_is_chosen_by_name_or_place(dataset, tmp_path):
    named = sheet_of(dataset, tmp_path, split="val")
    assert len(row_tops(named)) == len(row_tops(sheet_of(dataset / "val", tmp_path))) == 1
    with pytest.raises(ValueError, match="no split 'test'; there are train, val"):
        preview(dataset, tmp_path / "a.png", split="test")


def test_the_same_data_gives_the_same_picture(dataset, tmp_path):
    np.testing.assert_array_equal(sheet_of(dataset, tmp_path), sheet_of(dataset, tmp_path))


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no index\.json"):
        preview(tmp_path, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"portraits": 0}, "at least 1"),
        ({"lights": 0}, "at least 1"),
        ({"tile_px": 0}, "at least 1"),
        ({"tile_px": 9000}, "fewer portraits"),
        ({"tile_px": 11000, "layout": "heads"}, "fewer portraits"),
        ({"tile_px": 11000, "layout": "lights"}, "fewer portraits"),
        ({"layout": "columns"}, "needed is one of .*'rows', 'heads', 'lights'"),
        ({"layout": "heads", "lights": 2}, "leave out the number of lights"),
        ({"layout": "lights", "portraits": 2}, "leave out the number of portraits"),
        ({"key": "ball1", "portraits": 2}, "leave out the number of portraits"),
        ({"key": "ball9"}, "split train has no portrait 'ball9'"),
    ],
)
def test_impossible_sheets_are_refused(dataset, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        preview(dataset, tmp_path / "a.png", **options)
    with pytest.raises(ValueError, match=r"a\.jpg: a contact sheet is a PNG, a page is HTML"):
        preview(dataset, tmp_path / "a.jpg")
