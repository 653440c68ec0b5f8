"""Bytes that the tests of storage move about."""

import hashlib
import os
from pathlib import Path

from relightx.storage.connection import PART_BYTES

SMALL = bytes(range(256)) * 40
LARGE = os.urandom(PART_BYTES + 12345)
"""Two parts, in S3."""


def digest(data: bytes) -> str:
    """The sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_with(directory: Path, data: bytes, name: str = "upload") -> Path:
    """A new file that holds these bytes."""
    file = directory / name
    file.write_bytes(data)
    return file
