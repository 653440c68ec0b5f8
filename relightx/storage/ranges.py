"""One range of a file in S3, asked for with little more than the request itself.

The client spends 1.5 ms of a core on a request, in its parameters, rules and events, which is as
much as decoding the picture that was asked for; a request signed here and sent on kept connections
takes a third of that. The client goes first in each bucket, and what it was seen to do, address,
region and way of signing, is repeated, through the same proxies and certificates and with the same
credentials. Whatever is answered but the bytes themselves, or a failure that passes, is left to the
client again: it knows what the answer means, where a bucket went, and what to tell the user.
"""

import re
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from botocore.response import StreamingBody
from botocore.session import Session
from botocore.utils import get_environ_proxies

from relightx.storage.folder import S3Options

CONNECTIONS = 32
"""Kept open in each process; as many threads may ask at a time without opening others."""
_SILENCE_S = 10.0
_REFUSALS = 3
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,300})</Message>")


class _Seen(NamedTuple):
    """How the client asks for the files of a bucket; region: None where nothing is signed."""

    address: str
    region: str | None


class RangeRequests:
    """Requests of one process with some options; may be used by several threads at a time.

    silence_s: for so many seconds nothing may come before a request counts as failed.
    """

    def __init__(self, client: Any, session: Session, options: S3Options) -> None:
        self.silence_s = min(_SILENCE_S, options.deadline_s / 4)
        self._session = session
        self._http = URLLib3Session(
            verify=session.get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(client.meta.endpoint_url),
            timeout=self.silence_s,
            max_pool_connections=CONNECTIONS,
        )
        self._seen: dict[str, _Seen] = {}
        self._refusals = 0
        client.meta.events.register("before-sign.s3.GetObject", self._see)

    def ask(self, place: dict[str, str], start: int, size: int) -> bytes | None:
        """`size` bytes from `start` on; None when the client should be asked instead.

        place: bucket and key, as the client's methods want them. Raises what the client would
        raise for a failure that may pass.
        """
        seen = self._seen.get(place["Bucket"])
        if seen is None or self._refusals >= _REFUSALS:
            return None
        request = self._request(seen, place["Key"], start, size)
        if request is None:
            return None
        answer = self._http.send(request)
        status = answer.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
            raise _failure(answer)
        span = f"bytes {start}-{start + size - 1}/"
        found = answer.headers.get("Content-Range", "")
        if status != HTTPStatus.PARTIAL_CONTENT or not found.startswith(span):
            answer.raw.close()
            self._refusals += 1
            return None
        self._refusals = 0
        return StreamingBody(answer.raw, str(size)).read()

    def _request(self, seen: _Seen, key: str, start: int, size: int) -> Any:
        headers = {"Range": f"bytes={start}-{start + size - 1}", "Accept-Encoding": "identity"}
        request = AWSRequest("GET", seen.address + _quoted(key), headers, stream_output=True)
        if seen.region is not None:
            credentials = self._session.get_credentials()
            if credentials is None:
                return None
            frozen = credentials.get_frozen_credentials()
            S3SigV4Auth(frozen, "s3", seen.region).add_auth(request)
        return request.prepare()

    def _see(
        self, request: AWSRequest, region_name: str | None, signature_version: Any, **_: Any
    ) -> None:
        """Note what the client is about to do, where it is something that can be repeated."""
        place = request.context.get("input_params", {})
        bucket, key = place.get("Bucket", ""), _quoted(place.get("Key", ""))
        url = request.url.partition("?")[0]
        if not bucket or not key or not url.endswith(f"/{key}"):
            return
        region = request.context.get("signing", {}).get("region") or region_name
        if signature_version is UNSIGNED:
            region = None
        elif signature_version != "s3v4" or region is None:
            return
        self._seen[bucket] = _Seen(url.removesuffix(key), region)


def _quoted(key: str) -> str:
    return quote(key, safe="/~")


def _failure(answer: AWSResponse) -> ClientError:
    body = answer.content
    code, message = _CODE.search(body), _MESSAGE.search(body)
    said = {
        "Code": code[1].decode() if code else str(answer.status_code),
        "Message": message[1].decode(errors="replace") if message else "",
    }
    return ClientError(
        {"Error": said, "ResponseMetadata": {"HTTPStatusCode": answer.status_code}}, "GetObject"
    )
