"""A receiver of webhooks on this machine."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Told:
    """One POST as it came; names of headers in lower case. `at_s` is on the monotonic clock."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float = field(default_factory=time.monotonic)


class Receiver(ThreadingHTTPServer):
    """Takes notices, and answers what a test says.

    Attributes:
        told: all that came.
        statuses: of the answers: one for each POST, the last one again and again.
        headers: of each answer.
        drip_s: a pause before every byte of the answer's head.
    """

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Answering)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https" if context is not None else "http"
        self.url = f"{scheme}://localhost:{self.server_port}/hook?a=b"
        self.told: list[Told] = []
        self.statuses = [204]
        self.headers: dict[str, str] = {}
        self.drip_s = 0.0
        self.came = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def wait_for(self, number: int, timeout_s: float = 20.0) -> list[Told]:
        """Wait until so many came, and return all."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.told) >= number, timeout_s), self.told
        return list(self.told)

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """A client that breaks off is what some tests are about."""


class _Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        receiver = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with receiver.came:
            number = len(receiver.told)
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.told.append(Told(self.path, headers, body))
            receiver.came.notify_all()
        status = receiver.statuses[min(number, len(receiver.statuses) - 1)]
        if receiver.drip_s:
            for sign in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
                self.wfile.write(bytes([sign]))
                time.sleep(receiver.drip_s)
            return
        self.send_response(status)
        for name, value in receiver.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
