from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from relightx.sample import without_labels
from shards.looking.preview import CAPTION_PX, EMPTY, GAP_PX, HEAD_PX, MARGIN_PX, preview
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
    ],
)
def test_impossible_sheets_are_refused(dataset, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        preview(dataset, tmp_path / "a.png", **options)
    with pytest.raises(ValueError, match=r"a\.jpg: a contact sheet is a PNG, a page is HTML"):
        preview(dataset, tmp_path / "a.jpg")
