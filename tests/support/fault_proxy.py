"""A proxy before a real HTTP server that breaks the next requests in the ways networks do."""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from s3_server import S3Server

_UNAVAILABLE = b"<Error><Code>ServiceUnavailable</Code><Message>Please try again</Message></Error>"
_PIECES = 8


@dataclass
class Answer:
    """What the server said to a request."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """One client; `server` is a FaultProxy."""

    protocol_version = "HTTP/1.1"
    server: "FaultProxy"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client went away, or was sent away
            self.close_connection = True

    def relay(self) -> None:
        """Do the fault whose turn it is, or nothing but pass on."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        gone = self.server.ended.is_set()
        fault = reset if gone else self.server.next_fault(self.command, self.path)
        (fault or pass_on)(self, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay

    def asked(self, body: bytes) -> Answer:
        """The server's answer to this request."""
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            hop = ("transfer-encoding", "connection")
            headers = [pair for pair in answer.getheaders() if pair[0].lower() not in hop]
            return Answer(answer.status, headers, answer.read())
        finally:
            upstream.close()

    def begin(self, answer: Answer) -> None:
        """Send an answer's head."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Fault = Callable[[Handler, bytes], None]


def pass_on(handler: Handler, body: bytes) -> None:
    """No fault."""
    answer = handler.asked(body)
    handler.begin(answer)
    handler.wfile.write(answer.body)


def reset(handler: Handler, _body: bytes) -> None:
    """The connection is reset before there is an answer."""
    at_once = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    handler.close_connection = True
    handler.connection.close()


def unavailable(handler: Handler, _body: bytes) -> None:
    """503, and the server hears nothing."""
    handler.begin(Answer(503, [("Content-Type", "application/xml")], _UNAVAILABLE))
    if handler.command != "HEAD":
        handler.wfile.write(_UNAVAILABLE)


def cut(handler: Handler, body: bytes) -> None:
    """The connection ends in the middle of the answer's body."""
    answer = handler.asked(body)
    handler.begin(answer)
    handler.wfile.write(answer.body[: len(answer.body) // 2])
    handler.close_connection = True


def reset_in_body(handler: Handler, body: bytes) -> None:
    """The connection is reset in the middle of the answer's body."""
    answer = handler.asked(body)
    handler.begin(answer)
    handler.wfile.write(answer.body[: len(answer.body) // 2])
    handler.wfile.flush()
    time.sleep(0.05)  # or the half would be lost with the connection
    reset(handler, body)


def flip_answer(handler: Handler, body: bytes) -> None:
    """A byte of the answer's body is another."""
    answer = handler.asked(body)
    answer.body = flipped(answer.body)
    handler.begin(answer)
    handler.wfile.write(answer.body)


def slow(handler: Handler, body: bytes) -> None:
    """The answer's body comes in pieces, with pauses between them."""
    answer = handler.asked(body)
    handler.begin(answer)
    size = -(-len(answer.body) // _PIECES) or 1
    for start in range(0, len(answer.body), size):
        handler.wfile.write(answer.body[start : start + size])
        handler.wfile.flush()
        time.sleep(0.03)


def stall(handler: Handler, body: bytes) -> None:
    """Half of the answer's body comes, then nothing, and the connection stays open."""
    answer = handler.asked(body)
    handler.begin(answer)
    handler.wfile.write(answer.body[: len(answer.body) // 2])
    handler.wfile.flush()
    handler.server.ended.wait(60)
    handler.close_connection = True


def silent(handler: Handler, _body: bytes) -> None:
    """No answer comes, and the connection stays open."""
    handler.server.ended.wait(60)
    handler.close_connection = True


def flipped(data: bytes) -> bytes:
    """The same bytes but for one in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :] if data else data


class FaultProxy(ThreadingHTTPServer):
    """Passes on everything but what `next` says.

    met: how often each fault, by its function's name, was done. requests: (method, path) of all.
    """

    daemon_threads = True

    def __init__(self, upstream: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        address = urlsplit(upstream)
        self.upstream = (address.hostname, address.port)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.met: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self.ended = threading.Event()
        self._planned: list[list] = []
        self._lock = threading.Lock()

    def next(self, fault: Fault, times: int = 1, *, method: str = "", path: str = "") -> None:
        """Do it to the next requests of this method whose path and query contain `path`."""
        with self._lock:
            self._planned.append([fault, times, method, path])

    def next_fault(self, method: str, path: str) -> Fault | None:
        """What the handler has to do to a request."""
        with self._lock:
            self.requests.append((method, path))
            for plan in self._planned:
                fault, times, of_method, of_path = plan
                if times and of_method in ("", method) and of_path in path:
                    plan[1] -= 1
                    self.met[fault.__name__] += 1
                    return fault
        return None


@contextmanager
def serving(upstream: str, port: int = 0) -> Iterator[FaultProxy]:
    """A proxy in a thread of this process, on a free port if none is given."""
    proxy = FaultProxy(upstream, port)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ended.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.fixture
def fault_proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """A proxy before the S3 server; reach it with `s3.options(endpoint_url=proxy.endpoint)`."""
    with serving(s3.endpoint) as proxy:
        yield proxy
