"""Folders of files by URL: a directory of this machine or a prefix in S3, behind one interface.

What is written is there whole or not at all, under either. What goes to S3 is compared with what
the server holds afterwards, what comes from it with the digest that was stored beside it; what
fails for a cause that passes is tried again, what will not pass is said at once.
"""

import re
from pathlib import Path

from relightx.storage.flags import add_storage_flags, storage_options
from relightx.storage.folder import (
    Folder,
    S3Options,
    WrongBytes,
    checked_name,
    is_partial,
    saying_full,
)
from relightx.storage.local import LocalFolder
from relightx.storage.tries import retries_of_process

__all__ = [
    "Folder",
    "LocalFolder",
    "S3Options",
    "WrongBytes",
    "add_storage_flags",
    "is_partial",
    "open_folder",
    "retries_of_process",
    "saying_full",
    "storage_options",
]

# Two letters at least, so that nobody's drive letter is one.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_S3_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9._-]{1,255})(?:/+(?P<prefix>.*?))?/*")


def open_folder(url: str | Path, options: S3Options | None = None) -> Folder:
    """The folder that "s3://bucket/prefix" or a local path names; nothing is read or made yet.

    options: how S3 is reached; means nothing to a local path.
    Raises ValueError for a URL of another kind or a malformed one.
    """
    text = str(url)
    scheme = _SCHEME.match(text)
    if scheme is None:
        if not text or "\0" in text:
            raise ValueError(f"{text!r} is no place; give a directory or s3://BUCKET/PREFIX")
        return LocalFolder(text)
    found = _S3_URL.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text}: a directory of this machine or s3://BUCKET/PREFIX is needed, the bucket's"
            f" name of letters, digits, '.', '_' and '-'; {_advice(scheme[1])}"
        )
    prefix = found["prefix"] or ""
    if prefix:
        checked_name(prefix, text)
    # boto3 takes a third of a second to load, and S3 is not everybody's.
    from relightx.storage.s3 import S3Folder

    url = f"s3://{found['bucket']}/{prefix}".rstrip("/")
    return S3Folder(url, options or S3Options())


def _advice(scheme: str) -> str:
    if scheme == "file":
        return "give the path without file:"
    if scheme.lower() == "s3":
        return "write it as s3://BUCKET/PREFIX, with two slashes"
    return f"{scheme}: is not read here; copy the data to one of these first"
