"""The bound on a picture's size, held before memory is spent on its pixels."""

from relightx.sample import MAX_SIDE_PX


def check_size(width: int, height: int) -> None:
    """Refuse a size from a header: ValueError without the file's name."""
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise ValueError(f"is {width}x{height}; 1 to {MAX_SIDE_PX} pixels on a side are read")
