import numpy as np
import pytest
from PIL import Image

from relightx.color import from_integer
from shards.layouts.frames import read_frames, without_ambient


def test_pictures_of_one_kind_are_stacked_as_stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for file, picture in zip(files, pixels, strict=True):
        Image.fromarray(picture).save(file)
    np.testing.assert_array_equal(read_frames(files), pixels)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (np.zeros((8, 6), np.uint8), "6x8 8-bit gray"),
        (np.zeros((6, 8, 3), np.uint8), "8x6 8-bit colour"),
        (np.zeros((6, 8), np.uint16), "8x6 16-bit gray"),
    ],
)
def test_a_picture_of_another_kind_is_named(tmp_path, other, found):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(other).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=rf"b\.png: is {found}, a\.png beside it 8x6 8-bit gray"):
        read_frames([tmp_path / "a.png", tmp_path / "b.png"])


@pytest.mark.parametrize("transfer", ["linear", "srgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_lamp_is_left_when_the_light_of_the_room_is_taken_away(transfer, dtype):
    generator, top = np.random.default_rng(1), np.iinfo(dtype).max
    image = generator.integers(top // 2, top, (4, 5, 6, 3)).astype(dtype)
    ambient = generator.integers(0, top // 3, (2, 5, 6, 3)).astype(dtype)
    left = without_ambient(image, ambient, transfer)
    assert left.dtype == dtype
    room = from_integer(ambient, transfer).mean(axis=0)
    error = from_integer(left, transfer) + room - from_integer(image, transfer)
    steepest = 1.2 if transfer == "linear" else 2.3  # slope of the transfer function at white
    assert np.abs(error).max() < steepest * 0.5 / top + 1e-6


def test_nothing_is_below_zero():
    image, ambient = np.full((1, 2, 2, 1), 10, np.uint8), np.full((1, 2, 2, 1), 20, np.uint8)
    assert (without_ambient(image, ambient, "linear") == 0).all()
