"""A reverse proxy on loopback that spoils a share of the requests on their way to S3."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

ERRORS = {
    "throttle": (503, "SlowDown"),
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
    "no-bucket": (404, "NoSuchBucket"),
}
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *client: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # as of clients that are killed
            super().handle_error(*client)


class FaultProxy:
    """``fault``: one of ``ERRORS``, or ``reset`` (no answer), ``lost-answer`` (done, but no
    answer), ``cut`` (the body ends early), ``timeout`` (silence), ``slow`` (a trickle).
    ``only``: the method that it strikes.
    """

    def __init__(
        self,
        upstream: str,
        fault: str,
        *,
        rate: float,
        seed: int = 0,
        only: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.fault = fault
        self.only = only
        self.rate = rate
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server((host, 0), self._handler(upstream))
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def strike(self, method: str) -> bool:
        with self._lock:
            self.counts["requests"] += 1
            hit = self._random.random() < self.rate and self.only in (None, method)
            self.counts["faults"] += hit
            return hit

    def _handler(self, upstream: str) -> type[BaseHTTPRequestHandler]:
        proxy, address = self, urlsplit(upstream).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.read_body()
                fault = proxy.fault if proxy.strike(self.command) else None
                if fault in ERRORS:
                    self.fail(*ERRORS[fault])
                elif fault == "reset":
                    self.reset()
                elif fault == "timeout":
                    time.sleep(1.5)
                    self.reset()
                else:
                    self.forward(body, fault)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any  # noqa: N815

            def read_body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():  # trailers
                    pass
                return b"".join(parts)

            def fail(self, status: int, code: str) -> None:
                text = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text.encode())

            def reset(self) -> None:
                """RST in place of an answer."""
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True
                self.connection.close()

            def forward(self, body: bytes, fault: str | None) -> None:
                connection = http.client.HTTPConnection(address, timeout=30)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                connection.request(self.command, self.path, body=body, headers=headers)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if fault == "lost-answer":
                    self.reset()
                    return
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                size = answer.getheader("Content-Length") or str(len(data))
                self.send_header("Content-Length", size)
                self.end_headers()
                self.answer_body(data, fault)

            def answer_body(self, data: bytes, fault: str | None) -> None:
                if fault == "cut" and len(data) > 1:
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.reset()
                elif fault == "slow":
                    for start in range(0, len(data), max(1, len(data) // 20)):
                        self.wfile.write(data[start : start + max(1, len(data) // 20)])
                        self.wfile.flush()
                        time.sleep(0.15)
                else:
                    self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Quiet."""

        return Handler
