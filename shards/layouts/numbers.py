"""Small text files of numbers: light coefficients, read whole or refused."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

MAX_BYTES = 64 * 1024


def read_numbers(file: Path, count: int) -> Float[np.ndarray, " {count}"]:
    """The numbers of a text file, separated by spaces, tabs or line ends.

    Raises ValueError naming the file when it cannot be read, holds another number of them, or one
    that is no finite number.
    """
    try:
        with open(file, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{file}: is longer than {MAX_BYTES} bytes; {count} numbers needed")
    words = content.decode("utf-8", errors="replace").split()
    if len(words) != count:
        raise ValueError(f"{file}: holds {len(words)} numbers, {count} needed; it may be cut short")
    return np.array([_finite(file, word) for word in words], np.float32)


def _finite(file: Path, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{file}: {word[:40]!r} is not a number") from None
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{file}: {word[:40]!r} is not a finite number")
    return value
