"""The photographs of one group: read together, and freed of the light of the room."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer

from relightx.color import from_integer, linear_to_srgb
from relightx.picture import read_picture


def read_frames(files: list[Path]) -> Integer[np.ndarray, "lights height width channels"]:
    """The pictures as stored, one per light.

    Raises ValueError naming the file that is no picture, or whose size, bit depth or number of
    channels is not that of the first.
    """
    frames: list[np.ndarray] = []
    for file in files:
        frame = read_picture(file)
        if frames and (frame.shape, frame.dtype) != (frames[0].shape, frames[0].dtype):
            raise ValueError(
                f"{file}: is {kind_of(frame)}, {files[0].name} beside it {kind_of(frames[0])};"
                " the photographs of a group are of one kind"
            )
        frames.append(frame)
    return np.stack(frames)


def kind_of(frame: Integer[np.ndarray, "height width channels"]) -> str:
    """Size, bits and colour of a picture, for messages: '640x480 8-bit gray'."""
    height, width, channels = frame.shape
    colour = "gray" if channels == 1 else "colour"
    return f"{width}x{height} {frame.dtype.itemsize * 8}-bit {colour}"


def without_ambient(
    image: Integer[np.ndarray, "lights height width channels"],
    ambient: Integer[np.ndarray, "frames height width channels"],
    transfer: str,
) -> Integer[np.ndarray, "lights height width channels"]:
    """The images less the mean ambient frame, in linear light, as integers like those given.

    What would be below zero, by noise or movement, is zero. A saturated pixel loses the ambient
    light as well, though it had more than it shows.
    """
    room = from_integer(ambient, transfer).mean(axis=0)
    lamp = np.clip(from_integer(image, transfer) - room, 0, 1)
    encoded = linear_to_srgb(lamp) if transfer == "srgb" else lamp
    return np.rint(encoded * np.iinfo(image.dtype).max).astype(image.dtype)
