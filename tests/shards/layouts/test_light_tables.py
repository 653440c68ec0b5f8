"""Tables of lights in the forms that people publish, and what is wrong with them."""

import json

import numpy as np
import pytest

from shards.layouts.light_tables import axes_matrix, find_table, natural_order, read_lamps

PICTURES = ("1.png", "2.png", "10.png")
DIRECTIONS = ((1, 0, 0), (0, 2, 0), (0, 0.6, 0.8))
AS_THEY_ARE = np.eye(3)
FORMS = {
    "lights.txt": "1 0 0\n0 2 0\n0 0.6 0.8\n",
    "names.txt": "# remark\n2.png 0 2 0\n10.png 0 0.6 0.8\n1.png 1 0 0\n",
    "stems.txt": "2 0 2 0\n10 0 0.6 0.8\n1 1 0 0\n",
    "commas.csv": "1.png,1,0,0\n2.png,0,2,0\n10.png,0,0.6,0.8\n",
    "named.csv": "name;z;y;x\n10.png;0.8;0.6;0\n1.png;0;0;1\n2.png;0;2;0\n",
    "index.csv": "index,x,y,z\n2,0,2,0\n3,0,.6,.8\n1,1,0,0\n",
    "index0.csv": "\ufeffindex\tx\ty\tz\n0\t1\t0\t0\n1\t0\t2\t0\n2\t0\t6e-1\t.8\n",
    "angles.csv": '"file","azimuth","elevation"\n1.png,90,0\n2.png,33,90\n10.png,0,36.869897646\n',
    "dome.lp": "3\n1.png 1 0 0\nC:\\rti images\\2.JPG 0 2 0\nimages/10.png 0 0.6 0.8\n",
    "list.json": json.dumps([{"direction": d} for d in DIRECTIONS]),
    "object.json": json.dumps(
        {"lights": [{"file": n, "direction": d} for n, d in zip(PICTURES, DIRECTIONS, strict=True)]}
    ),
    "angles.json": json.dumps(
        [
            {"file": "2.png", "azimuth": 0, "elevation": 90},
            {"file": "1.png", "azimuth": 90, "elevation": 0},
            {"file": "10.png", "direction": [0, 3, 4]},
        ]
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_each_picture_its_direction(tmp_path, form):
    (tmp_path / form).write_text(FORMS[form], encoding="utf-8")
    lamps = read_lamps(tmp_path / form, PICTURES, AS_THEY_ARE)
    assert [lamp.file for lamp in lamps] == list(PICTURES)
    expected = np.array(DIRECTIONS) / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    np.testing.assert_allclose([lamp.direction for lamp in lamps], expected, atol=1e-9)
    assert all(lamp.strength == (1, 1, 1) for lamp in lamps)


def test_names_with_blanks_stand_between_commas(tmp_path):
    (tmp_path / "lights.csv").write_text("left lamp.png, -1, 0, 0\nright lamp.png, 1, 0, 0\n")
    lamps = read_lamps(tmp_path / "lights.csv", ("left lamp.png", "right lamp.png"), AS_THEY_ARE)
    assert [lamp.direction[0] for lamp in lamps] == [-1, 1]


def test_the_form_of_photometric_stereo_benchmarks_has_names_and_intensities_beside(tmp_path):
    (tmp_path / "light_directions.txt").write_text("0 2 0\n1 0 0\n0 0.6 0.8\n")
    (tmp_path / "filenames.txt").write_text("2.png\n1.png\n10.png\n")
    (tmp_path / "light_intensities.txt").write_text("1 2 3\n4 5 6\n7 8 9\n")
    lamps = read_lamps(tmp_path / "light_directions.txt", PICTURES, AS_THEY_ARE)
    assert [lamp.direction for lamp in lamps][:2] == [(1, 0, 0), (0, 1, 0)]
    assert [lamp.strength for lamp in lamps] == [(4, 5, 6), (1, 2, 3), (7, 8, 9)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file,x,y,z,strength\n1.png,1,0,0,2\n2.png,0,1,0,3\n10.png,0,0,1,4\n"),
        (
            "a.json",
            json.dumps(
                [
                    {"direction": d, "strength": s}
                    for d, s in zip(np.eye(3).tolist(), (2, 3, 4), strict=True)
                ]
            ),
        ),
    ],
)
def test_lamps_have_strengths(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    lamps = read_lamps(tmp_path / name, PICTURES, AS_THEY_ARE)
    assert [lamp.strength for lamp in lamps] == [(2, 2, 2), (3, 3, 3), (4, 4, 4)]


def test_axes_make_other_frames_ours(tmp_path):
    (tmp_path / "a.txt").write_text("1 0 0\n0 1 0\n0 0 1\n")
    lamps = read_lamps(tmp_path / "a.txt", PICTURES, axes_matrix(" x, -Y,-z"))
    np.testing.assert_array_equal([lamp.direction for lamp in lamps], np.diag([1, -1, -1]))
    lamps = read_lamps(tmp_path / "a.txt", PICTURES, axes_matrix("y,z,+x"))
    # Their x is our z: it stands third.
    np.testing.assert_array_equal(lamps[0].direction, [0, 0, 1])


@pytest.mark.parametrize(
    "text", ["", "x,y", "x,y,y", "x,y,z,x", "x y z", "a,b,c", "x,,y,z", "x,y,--z"]
)
def test_axes_that_are_no_axes_are_refused(text):
    with pytest.raises(ValueError, match="such as 'x,-y,-z'"):
        axes_matrix(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", "# only\n", "is empty"),
        ("a.txt", "1 0 0\n0 1 0\n", "has 2 lights for 3 pictures"),
        ("a.txt", "1 0 0\n0 1 0\n0 0 1\n1 1 1\n", "has 4 lights for 3 pictures"),
        ("a.txt", "1 0 0\n0 1 0\n0 0 0\n", r"direction of 10\.png is \[0.0, 0.0, 0.0\]"),
        ("a.txt", "1 0 0\n0 nan 0\n0 0 1\n", r"direction of 2\.png is .*a vector is needed"),
        ("a.txt", "1 0 0\n0 inf 0\n0 0 1\n", r"direction of 2\.png"),
        ("a.txt", "1 0 0\n0 1 0\n0 2 0\n", r"2\.png and 10\.png have the same light direction"),
        ("a.txt", "1 0 0\n0 1 0\n0 one 0\n", "line 3: 'one' is not a number"),
        ("a.txt", "1 0\n0 1\n0 0\n", "line 1: has 2 columns; x y z"),
        ("a.txt", "1.png 1 0 0\n2.png 0 1 0\n2.png 0 0 1\n", r"lists '2\.png' twice"),
        ("a.txt", "1.png 1 0 0\n2.png 0 1 0\n3.png 0 0 1\n", r"lists '3\.png', which is not among"),
        ("a.csv", "index,x,y,z\n1,1,0,0\n2,0,1,0\n4,0,0,1\n", "indices are not 1 to 3"),
        ("a.csv", "file,x,y,z\n1.png,1,0,0\n2.png,0,1\n10.png,0,0,1\n", "line 3: has 3 columns"),
        ("a.csv", "file,x,y\n1.png,1,0\n2.png,0,1\n10.png,0,0\n", "columns x, y, z or azimuth"),
        ("a.csv", "x,y,z,strength\n1,0,0,1\n0,1,0,0\n0,0,1,1\n", r"strength of 2\.png is \[0.0\]"),
        ("a.lp", "4\n1.png 1 0 0\n2.png 0 1 0\n10.png 0 0 1\n", "says 4 lights and lists 3"),
        ("a.json", "[", "cannot be read as JSON"),
        ("a.json", "7", "is not a list of lights"),
        ("a.json", "[1, 2, 3]", "is not a list of lights"),
        ("a.json", '[{"direction": [1, 0]}]', "light 0: 'direction' of three numbers"),
        ("a.json", '[{"direction": [1, 0, "a"]}]', "light 0: 'direction' of three numbers"),
        ("a.json", '[{"azimuth": 3}]', "light 0: 'direction' of three numbers"),
        ("a.json", '[{"file": [], "direction": [1, 0, 0]}]', "its picture is"),
        (
            "a.json",
            '[{"direction": [NaN, 0, 0]}, {"direction": [1, 0, 0]}, {"direction": [0, 1, 0]}]',
            r"direction of 1\.png",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_name(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"^{tmp_path / name}: .*{message}"):
        read_lamps(tmp_path / name, PICTURES, AS_THEY_ARE)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "lights.txt").write_bytes(b"\xff\xfe\0\0\x80")
    with pytest.raises(ValueError, match=r"lights\.txt: is not text"):
        read_lamps(tmp_path / "lights.txt", PICTURES, AS_THEY_ARE)


def test_wrong_neighbours_of_a_table_are_refused_by_their_names(tmp_path):
    table = tmp_path / "light_directions.txt"
    table.write_text("1 0 0\n0 1 0\n0 0 1\n")
    (tmp_path / "light_intensities.txt").write_text("1 1 1\n1 1\n1 1 1\n")
    with pytest.raises(ValueError, match=r"light_intensities\.txt: one number, or three"):
        read_lamps(table, PICTURES, AS_THEY_ARE)
    (tmp_path / "filenames.txt").write_text("1.png\n2.png\n")
    with pytest.raises(ValueError, match=r"filenames\.txt: has 2 names"):
        read_lamps(table, PICTURES, AS_THEY_ARE)


def test_the_nearest_table_counts_and_two_are_one_too_many(tmp_path):
    inner = tmp_path / "anna"
    inner.mkdir()
    with pytest.raises(ValueError, match=f"^{inner}: no table of light directions"):
        find_table((inner, tmp_path))
    (tmp_path / "dome.lp").write_text("")
    assert find_table((inner, tmp_path)).name == "dome.lp"
    (inner / "lights.csv").write_text("")
    assert find_table((inner, tmp_path)) == inner / "lights.csv"
    (inner / "lights.json").write_text("")
    with pytest.raises(ValueError, match=r"several tables of lights \(lights.csv, lights.json\)"):
        find_table((inner, tmp_path))


def test_pictures_are_counted_as_people_count():
    names = ["10.png", "2.png", "1.png", "b2.png", "a10.png", "a9.png"]
    expected = ["1.png", "2.png", "10.png", "a9.png", "a10.png", "b2.png"]
    assert sorted(names, key=natural_order) == expected
