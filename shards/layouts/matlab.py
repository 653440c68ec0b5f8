"""Pictures of numbers out of MATLAB files, of versions 4 to 7 and 7.3 (HDF5), and out of scripts.

Nothing in such a file is run, and nothing is larger in memory than its caller expects: shapes are
compared before values are read, and compressed parts are measured before they are taken.
"""

import re
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

MAX_FILE_BYTES, MAX_SCRIPT_BYTES = 256 << 20, 1 << 16
_NUMBERS = ("double", "single", "logical", "int8", "int16", "int32", "int64")
_NUMBERS += tuple(f"u{kind}" for kind in _NUMBERS if kind.startswith("int"))
_HEADER, _TAG, _COMPRESSED = 128, 8, 15  # bytes and type of MAT-file level 5
_BYTES_PER_NUMBER, _SLACK = 8, 1 << 16
_MAX_MAPS = 64  # a file may hold larger variables than those asked for
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_maps(
    file: Path, names: tuple[str, ...], shape: tuple[int, int], optional: tuple[str, ...] = ()
) -> dict[str, Float[np.ndarray, "height width"]]:
    """Variables of a file by name, those that are optional where they are there.

    shape: rows and columns that each must have. Values that are not finite are kept.
    Raises ValueError naming the file for one that is no MATLAB file, broken or too large, and for
    a variable that is missing, no real numbers or of another shape.
    """
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(
            f"{file}: has {size >> 20} MiB; a file of at most {MAX_FILE_BYTES >> 20} MiB is read"
        )
    read = _read_hdf5 if _is_hdf5(file) else _read_level_5
    try:
        found = read(file, (*names, *optional), shape)
    except _Fault as fault:
        raise ValueError(f"{file}: {fault}") from None
    except ModuleNotFoundError:
        raise
    except Exception as error:  # parsers meet broken content with errors of any kind
        raise ValueError(f"{file}: cannot be read as a MATLAB file: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{file}: has no variable {', '.join(missing)}")
    return found


def read_matrix(file: Path) -> Float[np.ndarray, "rows columns"]:
    """The matrix that a script sets last, [1 2; 3 4]; the script is read, not run.

    Raises ValueError naming the file where there is none, or one of other than finite numbers.
    """
    size = file.stat().st_size
    if size > MAX_SCRIPT_BYTES:
        raise ValueError(
            f"{file}: has {size} bytes; a script of at most {MAX_SCRIPT_BYTES} is read"
        )
    script = re.sub(r"%.*", "", file.read_text("latin-1"))
    found = re.findall(r"\[([^\[\]]*)\]", script)
    if not found:
        raise ValueError(f"{file}: sets no matrix, as [1 2; 3 4] is")
    rows = [row.replace(",", " ").split() for row in re.split(r"[;\n]", found[-1])]
    try:
        matrix = np.array([row for row in rows if row], np.float64)
    except ValueError:
        matrix = np.zeros(0)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"{file}: its matrix [{found[-1].strip()[:80]}] is not rows of numbers")
    return matrix


class _Fault(Exception):
    """What is wrong with a file, to be told with its name."""


def _is_hdf5(file: Path) -> bool:
    """MATLAB puts 512 bytes of its own before the signature."""
    with open(file, "rb") as stream:
        head = stream.read(512 + len(_HDF5))
    return head.startswith(_HDF5) or head[512:] == _HDF5


def _read_level_5(
    file: Path, names: tuple[str, ...], shape: tuple[int, int]
) -> dict[str, np.ndarray]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import matfile_version

    if matfile_version(file, appendmat=False)[0] == 1:
        with open(file, "rb") as stream:
            _check_compressed(stream, shape)
    wanted = []
    for name, found, kind in whosmat(file, appendmat=False):
        if name in names:
            _check(name, found, shape, kind in _NUMBERS)
            wanted.append(name)
    values = loadmat(file, appendmat=False, variable_names=wanted)
    if any(np.iscomplexobj(values[name]) for name in wanted):
        raise _Fault("has complex numbers; real ones are needed")
    return {name: _single(values[name]) for name in wanted}


def _check_compressed(stream: BinaryIO, shape: tuple[int, int]) -> None:
    """Refuse a compressed variable that unpacks to many times the numbers of this shape."""
    limit = shape[0] * shape[1] * _BYTES_PER_NUMBER * _MAX_MAPS + _SLACK
    order = "little" if stream.read(_HEADER)[-2:] == b"IM" else "big"
    while len(tag := stream.read(_TAG)) == _TAG:
        kind, size = (int.from_bytes(part, order) for part in (tag[:4], tag[4:]))
        content = stream.read(size)
        if kind == _COMPRESSED and len(zlib.decompressobj().decompress(content, limit)) == limit:
            raise _Fault(
                f"a variable unpacks to {limit} bytes or more, {_MAX_MAPS} times what numbers of"
                f" {shape[0]} x {shape[1]} need"
            )


def _read_hdf5(file: Path, names: tuple[str, ...], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    import h5py

    found: dict[str, np.ndarray] = {}
    with h5py.File(file, "r") as content:
        for name in names:
            if not isinstance(content.get(name, getlink=True), h5py.HardLink):
                continue  # missing, or a link that leaves the file
            variable = content[name]
            if not isinstance(variable, h5py.Dataset) or variable.external or variable.is_virtual:
                raise _Fault(f"{name} is no plain variable; numbers are needed")
            # MATLAB stores columns first.
            _check(name, variable.shape[::-1], shape, variable.dtype.kind in "fiub")
            found[name] = _single(variable[()]).T
    return found


def _single(values: np.ndarray) -> np.ndarray:
    """What single precision cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)


def _check(name: str, found: tuple[int, ...], shape: tuple[int, int], numbers: bool) -> None:
    if not numbers:
        raise _Fault(f"{name} does not hold numbers")
    if tuple(found) != shape:
        raise _Fault(
            f"{name} has {' x '.join(map(str, found))} values, {shape[0]} x {shape[1]} needed, the"
            " rows and columns of the photographs"
        )
