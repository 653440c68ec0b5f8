"""Stacks of pictures keep their integers, or become 16-bit linear with one white for all."""

from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile

from relightx.color import from_integer, to_srgb8
from shards.layouts.stack import WHITE_QUANTILE, read_stack, smaller_shape


def write_exr(file: Path, picture: np.ndarray) -> None:
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    with OpenEXR.File(header, {"RGB": picture}) as written:
        written.write(str(file))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def write(tmp_path):
    """write(pictures, ending): files of BGR-free pictures, in order."""

    def files(pictures, ending: str) -> list[Path]:
        made = []
        for index, picture in enumerate(pictures):
            made.append(tmp_path / f"{index}.{ending}")
            if ending == "exr":
                write_exr(made[-1], picture)
            elif ending == "tif":
                tifffile.imwrite(made[-1], picture, photometric="rgb")
            else:
                cv2.imwrite(str(made[-1]), picture[..., ::-1])
        return made

    return files


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_kept_as_they_are(write, rng, dtype):
    pictures = rng.integers(0, np.iinfo(dtype).max + 1, (3, 6, 8, 3), dtype=dtype)
    stack = read_stack(write(pictures, "png"), "srgb", None)
    np.testing.assert_array_equal(stack.image, pictures)
    assert (stack.transfer, stack.white, stack.source_size) == ("srgb", None, (8, 6))
    np.testing.assert_array_equal(np.stack(list(stack.linear())), from_integer(pictures, "srgb"))


@pytest.mark.parametrize("ending", ["exr", "tif"])
def test_floats_share_one_white_for_the_whole_stack(write, rng, ending):
    pictures = rng.uniform(0, 30, (4, 40, 50, 3)).astype(np.float32)
    pictures[1] *= 3
    pictures[1, 0, 0, 0] = 1e5  # the image of a lamp
    stack = read_stack(write(pictures, ending), "srgb", None)
    assert stack.image.dtype == np.uint16 and stack.transfer == "linear"
    assert stack.white == pytest.approx(np.quantile(pictures, WHITE_QUANTILE), rel=0.01)
    assert stack.white < 100
    expected = np.clip(pictures / stack.white, 0, 1)
    np.testing.assert_allclose(stack.image / 65535, expected, atol=0.51 / 65535)


def test_pictures_are_made_smaller_by_averaging_light_not_codes(write):
    board = np.zeros((8, 12, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255  # half of the light
    stack = read_stack(write([board, board], "png"), "srgb", 6)
    assert stack.image.shape == (2, 4, 6, 3)
    assert (stack.transfer, stack.source_size) == ("linear", (12, 8))
    np.testing.assert_allclose(stack.image / 65535, 0.5, atol=1e-4)


def test_pictures_are_never_made_larger(write, rng):
    pictures = rng.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_stack(write(pictures, "png"), "srgb", 50).image, pictures)
    assert smaller_shape((3000, 4096, 3), 1024) == (750, 1024, 3)
    assert smaller_shape((4096, 1, 1), 16) == (16, 1, 1)


def test_gray_is_as_under_white_lamps(write):
    """A white surface under lamps of any colour is as gray as the lamps are bright."""
    strength = np.array([[1, 1, 1], [0.5, 0.25, 1.0]], np.float32)
    pictures = np.rint(65535 * 0.6 * strength[:, None, None].repeat(4, 1).repeat(4, 2))
    stack = read_stack(write(pictures.astype(np.uint16), "png"), "linear", None)
    luminance = strength @ [0.2126, 0.7152, 0.0722]
    np.testing.assert_allclose(stack.gray(strength).mean(axis=(1, 2)), 0.6 * luminance, atol=1e-4)


def test_a_pixel_with_one_saturated_channel_is_saturated(write):
    picture = np.full((4, 4, 3), 20, np.uint8)
    picture[1, 2, 0] = 255
    gray = read_stack(write([picture], "png"), "linear", None).gray(np.ones((1, 3), np.float32))
    assert gray[0, 1, 2] == 1 and gray[0, 0, 0] < 0.1


@pytest.mark.parametrize(
    "other",
    [np.zeros((6, 9, 3), np.uint8), np.zeros((6, 8, 1), np.uint8), np.zeros((6, 8, 3), np.uint16)],
)
def test_pictures_of_another_kind_are_refused_by_name(write, other):
    files = write([np.zeros((6, 8, 3), np.uint8), other], "png")
    with pytest.raises(ValueError, match=r"1\.png: is .*, 0\.png beside it 8x6 with 3 channels"):
        read_stack(files, "srgb", None)


def test_floats_among_integers_are_refused(tmp_path, write, rng):
    files = write([np.zeros((6, 8, 3), np.uint8)], "png")
    write_exr(tmp_path / "b.exr", rng.random((6, 8, 3)).astype(np.float32))
    with pytest.raises(ValueError, match=r"b\.exr: holds radiance in floating point"):
        read_stack([*files, tmp_path / "b.exr"], "srgb", None)


def test_black_radiance_is_refused(write):
    with pytest.raises(ValueError, match="its pictures are black"):
        read_stack(write([np.zeros((6, 8, 3), np.float32)], "exr"), "srgb", None)


def test_srgb_is_decoded_before_pictures_are_made_smaller(write):
    code = to_srgb8(np.full((4, 4, 3), 0.25))
    stack = read_stack(write([code], "png"), "srgb", 2)
    np.testing.assert_allclose(stack.image / 65535, 0.25, atol=0.005)
