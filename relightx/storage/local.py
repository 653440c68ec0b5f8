"""A directory of this machine as a folder."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from relightx.storage.folder import (
    Folder,
    WrongBytes,
    appearing,
    checked_range,
    is_partial,
    saying_full,
    sha256_of,
    sync,
    too_short,
)


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A directory; it and those below it are made when something is written."""

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        checked_range(start, size)
        file = self._file(name)
        with open(file, "rb") as stream:
            held = os.fstat(stream.fileno()).st_size
            wanted = held - start if size is None else size
            if start + max(wanted, 0) > held:
                raise too_short(str(file), start, size, held)
            stream.seek(start)
            data = stream.read(wanted)
        if len(data) != wanted:
            raise too_short(str(file), start, size, start + len(data))
        return data

    def write(self, name: str, data: bytes) -> None:
        with appearing(self._path(name)) as partial:
            partial.write_bytes(data)

    def put(self, name: str, file: Path, sha256: str) -> None:
        target = self._path(name)
        with saying_full(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            sync(file)
            try:
                os.replace(file, target)
                sync(target.parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(file, target, sha256)
                file.unlink()

    def fetch(self, name: str, file: Path, sha256: str | None = None) -> None:
        _copy(self._file(name), file, sha256)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self._file(name)

    def size(self, name: str) -> int | None:
        path = self._path(name)
        return path.stat().st_size if path.is_file() else None

    def delete(self, name: str) -> None:
        path = self._path(name)
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return Path(self.url_of(name))

    def _file(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        return path

    def _entries(self, directory: str) -> Iterator[str]:
        place = Path(self.url) / directory
        if not place.is_dir():
            return
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield f"{entry.name}/"
                elif not is_partial(entry.name):
                    yield entry.name


def _copy(source: Path, file: Path, sha256: str | None) -> None:
    with appearing(file) as partial:
        shutil.copyfile(source, partial)
        if sha256 is not None and (found := sha256_of(partial)) != sha256:
            raise WrongBytes(f"{source}: has sha256 {found}, expected {sha256}; it is damaged")
