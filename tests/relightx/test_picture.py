import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from relightx.picture import read_picture
from relightx.sample import MAX_SIDE_PX


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_eight_bits_come_back_exactly(tmp_path, rng, suffix):
    pixels = rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_picture(tmp_path / f"a.{suffix}"), pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_come_back_exactly(tmp_path, rng, channels):
    pixels = rng.integers(0, 65536, (7, 5, channels), dtype=np.uint16)
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., order])
    read = read_picture(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., :3])


def test_gray_stays_gray_and_a_palette_becomes_colour(tmp_path, rng):
    gray = rng.integers(0, 256, (4, 6), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "gray.png")[..., 0], gray)
    Image.fromarray(gray).convert("RGB").quantize(256).save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png").shape == (4, 6, 3)


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    read = read_picture(tmp_path / "a.png")
    assert read.shape == (16, 8, 3)
    assert read[:8].min() == 255 and read[8:].max() == 0


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    buffer = io.BytesIO()
    Image.new("1", (MAX_SIDE_PX + 1, 1)).save(buffer, "PNG")
    (tmp_path / "wide.png").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match=r"wide\.png: is 8193x1"):
        read_picture(tmp_path / "wide.png")
    head = bytearray(buffer.getvalue())
    head[16:24] = (60000).to_bytes(4, "big") * 2  # claims 3.6 gigapixels
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(head)
    with pytest.raises(ValueError, match=r"bomb\.png: is too large"):
        read_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG16"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_picture_cut_short_is_refused(tmp_path, rng, kind, share):
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if kind == "PNG16":
        data = cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()
    else:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        data = buffer.getvalue()
    (tmp_path / "cut.png").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"cut\.png"):
        read_picture(tmp_path / "cut.png")


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_refused(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.png"):
        read_picture(tmp_path / "a.png")


def test_a_missing_file_and_other_colours_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png.*cannot be read"):
        read_picture(tmp_path / "none.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(ValueError, match="colour mode CMYK"):
        read_picture(tmp_path / "print.jpg")
