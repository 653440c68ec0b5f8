"""One process's way to an S3 server: its client, and how long what fails is tried again.

Three layers try again, each what the one below cannot: botocore a request whose connection broke
or whose answer was 500 or above, s3transfer a part of a download that broke off or fell silent, and
`persist` everything that may pass, wrong bytes included, until the deadline. So that a silent
server does not cost each layer's tries times each other's, botocore gives up at the first silence,
and all tries of a part fit into three quarters of the deadline.
"""

import base64
import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from boto3.session import Session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    ReadTimeoutError,
)
from botocore.session import Session as CoreSession
from botocore.session import get_session
from s3transfer.manager import TransferManager
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from relightx.storage.causes import FOREIGN, UNREACHABLE, code_of, explained, missing_bucket, passes
from relightx.storage.folder import S3Options, WrongBytes
from relightx.storage.ranges import RangeRequests
from relightx.storage.tries import note_retry

PART_BYTES = 8 << 20
"""Files from this size on travel in parts of it."""
_CONCURRENT_PARTS = 8
_CHUNK = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 20.0
_ATTEMPTS = 6  # of one request in botocore, a second or two; of one part of a download
_SILENCE = 1 / 8
"""Share of the deadline for which a server may be silent."""

Result = TypeVar("Result")


class Connection:
    """A client of this process; get it from `connection`.

    retries: how often something failed here and was tried again, so far.
    """

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self.retries = 0
        self._answered = False
        self._buckets: set[str] = set()
        session, self.client = _client(options)
        self._ranges = RangeRequests(self.client, session, options)
        events = self.client.meta.events
        events.register_first("needs-retry.s3", _give_up_on_silence)
        events.register("needs-retry.s3", self._note_attempt)
        events.register("after-call.s3.GetObject", self._watch_body)
        for sending in ("PutObject", "UploadPart"):
            events.register(f"before-call.s3.{sending}", _add_md5)

    @property
    def endpoint(self) -> str:
        return self.client.meta.endpoint_url

    def transfers(self) -> TransferManager:
        """Uploads and downloads in parts, in a `with` statement."""
        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=_CONCURRENT_PARTS,
            num_download_attempts=_ATTEMPTS,
        )
        return create_transfer_manager(self.client, config)

    def persist(self, url: str, action: Callable[[], Result]) -> Result:
        """Do it, and again while it fails for causes that pass; OSError, saying why, otherwise."""
        retrying = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
            stop=_Patience(self.options.deadline_s),
            before_sleep=self._note_retry,
            reraise=True,
        )
        try:
            return retrying(action)
        except FOREIGN as error:
            tries = retrying.statistics["attempt_number"]
            raise explained(error, url, self.endpoint, tries) from None

    def read_range(self, url: str, place: dict[str, str], start: int, size: int) -> bytes | None:
        """`size` bytes of a file from `start` on; None when the client should be asked instead.

        Fails at the deadline, counted from now, since a range is soon read. url: for messages.
        """
        # A try begins while there is time for it to end.
        last, tries = time.monotonic() + self.options.deadline_s - self._ranges.silence_s, 0
        while True:
            tries += 1
            try:
                data = self._ranges.ask(place, start, size)
                self._answered = True
                return data
            except FOREIGN as error:
                self._answered |= isinstance(error, ClientError)
                if not self._may_pass(error):
                    return None
                left = last - time.monotonic()
                if left <= 0:
                    raise explained(error, url, self.endpoint, tries) from None
            self._note_retry()
            pause = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tries))
            time.sleep(min(pause, left))

    def find_bucket(self, url: str, bucket: str) -> None:
        """Raise OSError when there is no such bucket.

        Asked once, before anything else: some servers make a bucket that is written to, and all
        answer a question for the size of a file in it as if only the file were missing.
        """
        if bucket in self._buckets:
            return

        def ask() -> None:
            try:
                self.client.head_bucket(Bucket=bucket)
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchBucket"):
                    raise missing_bucket(url, self.endpoint) from None
                if passes(error):
                    raise
                # Who may read files need not be allowed this; the file's own request will tell.

        self.persist(url, ask)
        self._buckets.add(bucket)

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, UNREACHABLE):
            return self._answered
        return passes(error)

    def _note_retry(self, _state: RetryCallState | None = None) -> None:
        self.retries += 1
        note_retry()

    def _note_attempt(self, attempts: int, response: Any, **_: Any) -> None:
        self._answered |= response is not None
        if attempts > 1:
            self._note_retry()

    def _watch_body(self, parsed: dict[str, Any], **_: Any) -> None:
        if "Body" in parsed:
            parsed["Body"] = _WatchedBody(parsed["Body"], self._note_retry)


def connection(options: S3Options) -> Connection:
    """This process's connection with these options, made at the first call.

    Raises ValueError for options that no client can be made of.
    """
    with _making:
        return connection_of_process(options, os.getpid())


_making = threading.Lock()
"""A client costs a quarter of a second of a core: threads that begin together shall make one."""


def _renew_lock() -> None:
    """In a child of a fork: a thread of its parent's may have had the lock."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@lru_cache
def connection_of_process(options: S3Options, _pid: int) -> Connection:
    """See `connection`; by process, because a fork must not answer on its parent's sockets."""
    return Connection(options)


def _client(options: S3Options) -> tuple[CoreSession, Any]:
    address = options.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
    address = address or os.environ.get("AWS_ENDPOINT_URL")
    silence = min(60.0, max(0.5, options.deadline_s * _SILENCE))
    config = Config(
        signature_version=UNSIGNED if options.unsigned else None,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=min(10.0, silence),
        read_timeout=silence,
        max_pool_connections=2 * _CONCURRENT_PARTS,
        request_checksum_calculation="when_required",  # see _add_md5
        response_checksum_validation="when_supported",
        s3={"addressing_style": "path"} if address else None,
    )
    try:
        core = get_session()
        session = Session(
            profile_name=options.profile, region_name=options.region, botocore_session=core
        )
        return core, session.client("s3", endpoint_url=options.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ValueError(
            f"S3: {error}; check the profile, the region and the endpoint's URL"
        ) from None


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """Send a body's MD5 with it, so that other bytes are refused when they arrive.

    All servers know it. The checksums that boto3 would send instead are unknown to many that are
    not Amazon's, and some do not compare the digest in the signature.
    """
    body, digest = params["body"], hashlib.md5(usedforsecurity=False)
    if isinstance(body, bytes):
        digest.update(body)
    else:
        start = body.tell()
        while chunk := body.read(_CHUNK):
            digest.update(chunk)
        body.seek(start)
    params["headers"]["Content-MD5"] = base64.b64encode(digest.digest()).decode()


def _give_up_on_silence(caught_exception: BaseException | None, **_: Any) -> None:
    if isinstance(caught_exception, (ConnectTimeoutError, ReadTimeoutError)):
        raise caught_exception


class _Patience:
    """For tenacity: when to give up.

    When the next try, if it took as long to fail as the last, would end too long after the first
    failure; or when the same wrong bytes came twice: then they are not wrong on their way but where
    they lie.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._first_failure: float | None = None
        self._wrong_bytes: str | None = None

    def __call__(self, state: RetryCallState) -> bool:
        now, error = state.outcome_timestamp or 0.0, state.outcome and state.outcome.exception()
        before = self._wrong_bytes
        self._wrong_bytes = str(error) if isinstance(error, WrongBytes) else None
        if self._wrong_bytes is not None and self._wrong_bytes == before:
            return True
        if self._first_failure is None:
            self._first_failure = now
        # A long download that broke off late may be tried again; all silence takes is less.
        took = min(now - self._began, _ATTEMPTS * _SILENCE * self._seconds)
        self._began = now + state.upcoming_sleep
        return self._began + took - self._first_failure > self._seconds


class _WatchedBody:
    """The body of an answer, which tells when it breaks off; s3transfer keeps that to itself."""

    def __init__(self, body: Any, broke_off: Callable[[], None]) -> None:
        self._body, self._broke_off = body, broke_off

    def read(self, size: int | None = None) -> bytes:
        try:
            return self._body.read(size)
        except Exception:
            self._broke_off()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)
