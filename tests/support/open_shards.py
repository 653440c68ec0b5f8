"""Which shards a process holds open."""

import os
from contextlib import suppress
from pathlib import Path


def open_shards(directory: Path) -> list[str]:
    """Names of the shards below a directory that this process has open."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that lists them
            path = Path(os.readlink(entry.path))
            found += [path.name] * (path.suffix == ".tar" and path.is_relative_to(directory))
    return sorted(found)
