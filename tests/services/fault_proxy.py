"""An HTTP proxy with faults, for tests: it stands before a real server and, at a given rate, does harm.

What each fault does is said at `FAULTS`; every one of them happens on real networks and servers. The one that
finds most mistakes is `lose_answer`: the server has done what was asked, and the client cannot know.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.services.s3 import client_environment

FAULTS = (
    "drop",  # the connection breaks before the request has reached the server
    "lose_answer",  # the server has done it, and the connection breaks before the answer
    "error",  # 500
    "throttle",  # 503 SlowDown
    "cut_answer",  # half of the answer's body, then the connection breaks; answers without a body are left alone
    "cut_request",  # the server gets half of the request's body; requests without a body are left alone
    "hang",  # the server has done it, and no answer comes within the client's time-outs
    "delay",  # the answer comes late, but comes
)
_DELAY_SECONDS = 0.2
_FORWARD_SECONDS = 60.0
_BETWEEN_TWO = {"connection", "keep-alive", "transfer-encoding"}  # headers that are about one connection only


class FaultProxy:
    """A running proxy.

    Attributes:
        endpoint: Its URL.
        fault: What it does to the requests that it picks; None: nothing.
        rate: Share of requests that it picks.
        done: How often it did what.
        requests: How many requests came.
    """

    def __init__(self, upstream: str, seed: int = 1) -> None:
        """Name the server behind."""
        self.upstream = urlsplit(upstream).netloc
        self.fault: str | None = None
        self.rate = 0.0
        self.done: Counter[str] = Counter()
        self.requests = 0
        self.ended = threading.Event()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, in the names of the AWS chain."""
        return client_environment(self.endpoint)

    def do(self, fault: str | None, rate: float = 0.0) -> None:
        """From now on, do this to that share of the requests."""
        assert fault is None or fault in FAULTS
        self.fault, self.rate = fault, rate

    def pick(self) -> str | None:
        """Return what is to be done to the next request."""
        with self._lock:
            self.requests += 1
            return self.fault if self._random.random() < self.rate else None

    def count(self, fault: str) -> None:
        """Say that it was done."""
        with self._lock:
            self.done[fault] += 1

    def serve(self) -> None:
        """Serve until closed."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Stop, and let go of what hangs."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def fault_proxy(upstream: str, seed: int = 1) -> Iterator[FaultProxy]:
    """Start a proxy before a server, which does no harm yet; stop it at the end."""
    proxy = FaultProxy(upstream, seed)
    thread = threading.Thread(target=proxy.serve, name="fault proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is no news here."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client; each of its requests goes to the server on a connection of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _serve(self) -> None:
        proxy, fault = self.server.proxy, self.server.proxy.pick()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if (fault == "cut_request" and not body) or fault is None:
            self._answer(*self._forward(body, len(body)))
            return
        if fault != "cut_answer":
            proxy.count(fault)
        getattr(self, f"_{fault}")(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 (the names that http.server looks for)

    def _drop(self, body: bytes) -> None:
        self.close_connection = True

    def _lose_answer(self, body: bytes) -> None:
        self._forward(body, len(body))
        self.close_connection = True

    def _error(self, body: bytes) -> None:
        self._refuse(500, "InternalError", "We encountered an internal error. Please try again.")

    def _throttle(self, body: bytes) -> None:
        self._refuse(503, "SlowDown", "Please reduce your request rate.")

    def _cut_answer(self, body: bytes) -> None:
        status, headers, answer = self._forward(body, len(body))
        if not answer:
            self._answer(status, headers, answer)
            return
        self.server.proxy.count("cut_answer")
        self._answer(status, headers, answer[: len(answer) // 2])
        self.close_connection = True

    def _cut_request(self, body: bytes) -> None:
        self._forward(body, len(body) // 2)
        self.close_connection = True

    def _hang(self, body: bytes) -> None:
        self._forward(body, len(body))
        self.connection.settimeout(0.1)
        while not self.server.proxy.ended.is_set():
            try:
                if not self.connection.recv(1):
                    break  # the client has given up
            except TimeoutError:
                continue
        self.close_connection = True

    def _delay(self, body: bytes) -> None:
        answer = self._forward(body, len(body))
        time.sleep(_DELAY_SECONDS)
        self._answer(*answer)

    def _forward(self, body: bytes, bytes_sent: int) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send the request on, or a part of its body and then nothing; return status, headers and body."""
        server = http.client.HTTPConnection(self.server.proxy.upstream, timeout=_FORWARD_SECONDS)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _BETWEEN_TWO | {"expect"}:
                    server.putheader(name, value)
            server.endheaders()
            if bytes_sent:
                server.send(body[:bytes_sent])
            if bytes_sent < len(body):
                return 0, [], b""
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            server.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
        self._answer(status, headers, b"" if self.command == "HEAD" else text)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer with the server's own headers; the length that they say may be more than the body's."""
        self.send_response_only(status)
        given = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in _BETWEEN_TWO:
                self.send_header(name, value)
        if "content-length" not in given and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
