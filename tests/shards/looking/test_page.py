import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from relightx.sample import without_labels
from shards.looking.preview import preview
from shards.looking.tiles import EMPTY, ball_under, difference_code
from shards.write import write_dataset, write_split


class Page(HTMLParser):
    """Pictures by their alt text, the text, and every address of a page."""

    def __init__(self, text):
        super().__init__()
        self.source, self.text, self.pictures, self.addresses = text, "", {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        self.addresses += [held[name] for name in ("src", "href", "srcset") if name in held]
        if tag == "img":
            data = base64.b64decode(held["src"].partition("base64,")[2])
            self.pictures[held["alt"]] = np.asarray(Image.open(io.BytesIO(data)))

    def handle_data(self, data):
        self.text += data


def page_of(directory, tmp_path, **options):
    return Page(preview(directory, tmp_path / "page.html", **options).read_text())


@pytest.fixture
def one(make_portrait, tmp_path):
    """make(portrait) packs it; its page."""

    def make(portrait, **options):
        write_split([portrait], tmp_path / "set", "train")
        return page_of(tmp_path / "set", tmp_path, **options)

    return make


def test_true_labels_look_like_the_photograph_and_the_difference_is_white(make_portrait, one):
    ball = make_portrait(size=64)
    page = one(ball)
    for name in ball.light_name:
        image, relit, differs = (
            page.pictures[f"{row} under {name}"].astype(int)[ball.mask]
            for row in ("photograph", "albedo × shading", "difference")
        )
        assert np.abs(image - relit).mean() < 3 and np.ptp(image) > 100  # WebP changes a little
        assert differs.mean() > 250
    assert "off by 0.0%" in page.text


def test_wrong_labels_have_a_difference_that_is_seen(make_portrait, one):
    ball = make_portrait(size=64)
    page = one(replace(ball, sh=ball.sh[::-1].copy()))
    differs = page.pictures[f"difference under {ball.light_name[0]}"].astype(int)[ball.mask]
    assert differs.mean() < 235
    off = float(re.search(r"off by ([\d.]+)%", page.text)[1])
    assert off > 10


def test_too_bright_is_orange_and_too_dark_is_blue():
    image = np.full((2, 1, 3), 0.5, np.float32)
    relit = image + np.float32([0.2, -0.2])[:, None, None]
    code = difference_code(relit, image, np.ones((2, 1), bool), 0.2).astype(int)
    bright, dark = code[0, 0], code[1, 0]
    assert bright[0] > bright[2] + 100 and dark[2] > dark[0] + 60
    assert (difference_code(image, image, np.zeros((2, 1), bool), 1.0) == EMPTY).all()


def test_the_ball_is_bright_where_the_light_stands(make_portrait):
    ball = make_portrait()
    for sh, toward in zip(ball.sh, ball.direction, strict=True):
        pixels = ball_under(sh)
        y, x = np.unravel_index(pixels[..., 1].argmax(), pixels.shape[:2])
        seen = np.array([x - 23.5, 23.5 - y]) / 24
        assert np.linalg.norm(seen - toward[:2]) < 0.35
        assert pixels[0, 0, 3] == 0 and pixels[24, 24, 3] == 255


def test_the_page_tells_what_the_portrait_is(make_portrait, one):
    ball = make_portrait("key1", "anna")
    provenance = replace(ball.provenance, crop="the face alone", albedo="pseudo")
    page = one(replace(ball, provenance=provenance))
    for text in ("key1", "anna", "balls 1", "CC0", "the face alone", "pseudo", "all 3 lights"):
        assert text in page.text
    assert "32x32, 16-bit RGB, linear light" in page.text
    assert "shard-000000.tar" in page.text


def test_lights_are_placed_as_the_camera_sees_them(make_portrait, one):
    ball = make_portrait(lights=4)
    directions = np.float32([[0.6, 0, 0.8], [0, 0.6, -0.8], [0, 0, 1], [-0.6, -0.64, 0.48]])
    page = one(replace(ball, direction=directions))
    for text in ("37° right", "180° right, 37° up", "straight ahead", "51° left, 40° down"):
        assert text in page.text
    assert re.search(r'class="dot" cx="60\.0\d*" cy="-?0\.0"', page.source)
    assert re.search(r'class="behind" cx="0\.0" cy="-60\.0\d*"', page.source)


def test_only_some_of_many_lights_are_shown_and_it_is_said(make_portrait, one):
    page = one(make_portrait(lights=20, size=16))
    shown = [alt for alt in page.pictures if alt.startswith("photograph")]
    assert len(shown) == 8 and "8 of 20 lights" in page.text
    assert "photograph under lamp0" in shown and "photograph under lamp19" in shown


def test_what_a_portrait_lacks_is_said_to_be_none(portrait, one):
    bare = replace(
        without_labels(portrait, ("albedo", "normal", "light")), mask=None, direction=None
    )
    page = one(bare)
    assert page.text.count("none") >= 4 and "off by" not in page.text
    assert set(page.pictures) == {f"photograph under {name}" for name in portrait.light_name}


def test_nothing_in_a_data_set_becomes_part_of_the_page(portrait, one):
    bad = '<script>alert("x")</script>'
    provenance = replace(portrait.provenance, source=bad, licence=bad, crop=f'" onload="{bad}')
    evil = replace(
        portrait,
        subject=bad,
        light_name=(bad, "'\"><img src=x>", "&lt;b&gt;"),
        provenance=provenance,
    )
    page = one(evil)
    assert "<script" not in page.source and bad in page.text
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def test_the_page_loads_nothing(make_portrait, tmp_path):
    balls = [make_portrait(f"b{i}", f"p{i}", seed=i) for i in range(3)]
    write_dataset(balls, tmp_path / "d", lambda subject: "train")
    page = page_of(tmp_path / "d", tmp_path)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert [a for a in page.addresses if a[:1] == "#"] == [f"#portrait-{i + 1}" for i in range(3)]


def test_the_same_data_gives_the_same_page(portrait, one, tmp_path):
    assert one(portrait).source == page_of(tmp_path / "set", tmp_path).source


def test_pictures_are_made_smaller_and_never_larger(make_portrait, one):
    page = one(make_portrait(size=64), tile_px=40)
    sizes = {p.shape[:2] for alt, p in page.pictures.items() if "ball under" not in alt}
    assert sizes == {(40, 40)}


def test_pictures_keep_their_size_when_there_is_room(make_portrait, one):
    page = one(make_portrait(size=24), tile_px=400)
    assert page.pictures["photograph under lamp0"].shape[:2] == (24, 24)


def test_a_data_set_in_s3_is_shown_like_one_on_disk(make_portrait, tmp_path, s3):
    write_dataset([make_portrait()], tmp_path / "d", lambda subject: "train")
    folder = s3.new_folder()
    for file in (file for file in (tmp_path / "d").rglob("*") if file.is_file()):
        folder.write(str(file.relative_to(tmp_path / "d")), file.read_bytes())
    here, there = page_of(tmp_path / "d", tmp_path), page_of(folder, tmp_path)
    assert list(here.pictures) == list(there.pictures)
    for alt, pixels in here.pictures.items():
        np.testing.assert_array_equal(pixels, there.pictures[alt])
