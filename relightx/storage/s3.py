"""A prefix of a bucket in S3, or in a server that speaks its language, as a folder."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError, FlexibleChecksumError
from s3transfer.utils import ChunksizeAdjuster

from relightx.storage.causes import code_of
from relightx.storage.connection import PART_BYTES, Connection, connection
from relightx.storage.folder import (
    Folder,
    S3Options,
    WrongBytes,
    appearing,
    checked_name,
    checked_range,
    sha256_of,
    too_short,
)

_CHUNK = 1 << 20
Result = TypeVar("Result")


class Digests(NamedTuple):
    """What is sent; etag is what servers call an object that arrived with these bytes."""

    size: int
    sha256: str
    etag: str


class Stored(NamedTuple):
    """What the server says of an object; sha256 is what was noted beside it, None for others'."""

    size: int
    etag: str
    sha256: str | None


@dataclass(frozen=True)
class S3Folder(Folder):
    """Files below "s3://bucket/prefix"; the client is made at the first use in each process."""

    options: S3Options

    @property
    def retries(self) -> int:
        """How often this process, with these options, met a failure and tried again."""
        return connection(self.options).retries

    def read(self, name: str, start: int = 0, size: int | None = None) -> bytes:
        """See Folder; the whole of a file is compared with the digest beside it, a part is not."""
        checked_range(start, size)
        if size and size <= PART_BYTES:  # of more, what came before a failure is worth keeping
            url, place = self.url_of(name), self.place(name)
            data = self._connection.read_range(url, place, start, size)
            if data is not None:
                return data
        return self._persist(name, _Reading(self, name, start, size).go_on)

    def write(self, name: str, data: bytes) -> None:
        digests = Digests(len(data), hashlib.sha256(data).hexdigest(), _md5(data).hexdigest())

        def upload() -> None:
            self.client.put_object(**self.place(name), Body=data, Metadata=_note(digests))
            self._check(name, digests)

        self._persist(name, upload)

    def put(self, name: str, file: Path, sha256: str) -> None:
        digests = _digests_of(file)
        if digests.sha256 != sha256:
            raise WrongBytes(
                f"{file}: has sha256 {digests.sha256}, expected {sha256}; it changed since it was"
                " written and was not uploaded"
            )

        def upload() -> None:
            bucket, key = self.place(name).values()
            with self._connection.transfers() as transfers:
                # Of an upload that fails, it takes back the parts that had arrived.
                transfers.upload(str(file), bucket, key, {"Metadata": _note(digests)}).result()
            self._check(name, digests)

        self._persist(name, upload)
        file.unlink()

    def fetch(self, name: str, file: Path, sha256: str | None = None) -> None:
        self._persist(name, partial(self._download, name, file, sha256))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="relightx-") as directory:
            file = Path(directory) / PurePosixPath(name).name
            self.fetch(name, file)
            yield file

    def size(self, name: str) -> int | None:
        try:
            return self._persist(name, partial(self.stored, name)).size
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        self._persist(name, partial(self.client.delete_object, **self.place(name)))

    def _entries(self, directory: str) -> Iterator[str]:
        below = self._key(directory)
        page = {"Bucket": self._bucket, "Prefix": below, "Delimiter": "/"}
        while True:
            listing = self._persist("", partial(self.client.list_objects_v2, **page))
            for entry in listing.get("CommonPrefixes", ()):
                yield entry["Prefix"].removeprefix(below)
            for entry in listing.get("Contents", ()):
                # A key that ends in a slash is what some programs make to show a directory.
                if not entry["Key"].endswith("/"):
                    yield entry["Key"].removeprefix(below)
            if "NextContinuationToken" not in listing:
                return
            page["ContinuationToken"] = listing["NextContinuationToken"]

    @property
    def client(self) -> Any:
        """boto3's client of this process."""
        return self._connection.client

    @property
    def _connection(self) -> Connection:
        return connection(self.options)

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    def _key(self, name: str) -> str:
        prefix = self.url.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/{name}" if prefix else name

    def place(self, name: str) -> dict[str, str]:
        """Bucket and key of a file, as the client's methods want them."""
        checked_name(name, self.url)
        return {"Bucket": self._bucket, "Key": self._key(name)}

    def stored(self, name: str) -> Stored:
        """What the server says of a file; raises what the client raises."""
        head = self.client.head_object(**self.place(name))
        return Stored(head["ContentLength"], head["ETag"].strip('"'), _noted(head))

    def _persist(self, name: str, action: Callable[[], Result]) -> Result:
        url = self.url_of(name) if name else self.url
        self._connection.find_bucket(url, self._bucket)
        return self._connection.persist(url, action)

    def _download(self, name: str, file: Path, sha256: str | None) -> None:
        stored = self.stored(name)
        expected = sha256 or stored.sha256
        with appearing(file) as whole:
            with open(whole, "wb") as stream, self._connection.transfers() as transfers:
                transfers.download(*self.place(name).values(), stream).result()
            if whole.stat().st_size != stored.size:
                raise WrongBytes(
                    f"{self.url_of(name)}: {whole.stat().st_size} bytes came, expected"
                    f" {stored.size}; it was replaced meanwhile"
                )
            if expected is not None and (found := sha256_of(whole)) != expected:
                raise _damaged(self.url_of(name), found, expected)

    def _check(self, name: str, sent: Digests) -> None:
        """Raise WrongBytes unless the server now holds what was sent."""
        stored = self.stored(name)
        if (stored.size, stored.etag) == (sent.size, sent.etag):
            return
        # An ETag need not be an MD5: encryption and some servers make others. So read it back.
        found = self._persist(name, partial(self._sha256_held, name))
        if found != sent.sha256:
            raise WrongBytes(
                f"{self.url_of(name)}: the server holds other bytes than it was sent: sha256"
                f" {found}, expected {sent.sha256}; upload it again"
            )

    def _sha256_held(self, name: str) -> str:
        body = self.client.get_object(**self.place(name))["Body"]
        digest = hashlib.sha256()
        while chunk := body.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()


class _Reading:
    """One range of a file, gone on with where the last try broke off."""

    def __init__(self, folder: S3Folder, name: str, start: int, size: int | None) -> None:
        self._folder, self._name, self._start, self._size = folder, name, start, size
        self._data = bytearray()
        self._etag: str | None = None

    def go_on(self) -> bytes:
        if self._size == 0:
            return self._nothing()
        try:
            answer = self._folder.client.get_object(**self._request())
            self._etag = answer["ETag"]
            while chunk := answer["Body"].read(_CHUNK):
                self._data += chunk
        except FlexibleChecksumError:
            self._forget()
            raise
        except ClientError as error:
            if code_of(error) in ("InvalidRange", "416") and not self._data:
                return self._nothing()
            if code_of(error) in ("PreconditionFailed", "412"):
                self._forget()  # it was replaced since it broke off
            raise
        return self._checked(_noted(answer))

    def _request(self) -> dict[str, Any]:
        request = self._folder.place(self._name)
        first = self._start + len(self._data)
        if first or self._size is not None:
            last = "" if self._size is None else self._start + self._size - 1
            request["Range"] = f"bytes={first}-{last}"
        if self._etag is not None:
            request["IfMatch"] = self._etag
        return request

    def _checked(self, sha256: str | None) -> bytes:
        data, url = bytes(self._data), self._folder.url_of(self._name)
        if self._size is not None and len(data) != self._size:
            raise too_short(url, self._start, self._size, self._start + len(data))
        is_whole = self._start == 0 and self._size is None
        if is_whole and sha256 is not None:
            found = hashlib.sha256(data).hexdigest()
            if found != sha256:
                self._forget()
                raise _damaged(url, found, sha256)
        return data

    def _forget(self) -> None:
        self._data.clear()
        self._etag = None

    def _nothing(self) -> bytes:
        """No bytes, where that is what there is; a range cannot ask for none."""
        held = self._folder.stored(self._name).size
        if self._start + (self._size or 0) > held:
            raise too_short(self._folder.url_of(self._name), self._start, self._size, held)
        return b""


def _digests_of(file: Path) -> Digests:
    size = file.stat().st_size
    part_bytes = ChunksizeAdjuster().adjust_chunksize(PART_BYTES, size)
    sha256, parts = hashlib.sha256(), []
    with open(file, "rb") as stream:
        while part := stream.read(part_bytes):
            sha256.update(part)
            parts.append(_md5(part))
    if size < PART_BYTES:
        etag = (parts[0] if parts else _md5(b"")).hexdigest()
    else:
        etag = f"{_md5(b''.join(part.digest() for part in parts)).hexdigest()}-{len(parts)}"
    return Digests(size, sha256.hexdigest(), etag)


def _md5(data: bytes) -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _note(digests: Digests) -> dict[str, str]:
    return {"sha256": digests.sha256}


def _noted(answer: dict[str, Any]) -> str | None:
    return answer.get("Metadata", {}).get("sha256")


def _damaged(url: str, found: str, expected: str) -> WrongBytes:
    return WrongBytes(
        f"{url}: has sha256 {found}, expected {expected}; it is damaged or another version:"
        " build or copy it anew"
    )
