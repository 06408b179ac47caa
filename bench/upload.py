"""What a large upload does to the streams beside it, and the memory that it takes.

    uv run python bench/upload.py

A caller reads one stream that has a chunk every 20 ms while others upload recordings of 200 MB, with `model` in front
of the file and behind it. Gateway, uploads and the two providers are processes of their own. Told are the longest gap
of the stream without and with an upload, how much the worker's memory grew at most, and how long an upload took.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

TOP = Path(__file__).resolve().parents[1]
_MB = 1 << 20
_TOKEN = "bench-token"
_BOUNDARY = "upload-bench-boundary"
_GAP_S = 0.02
_CHUNKS = 5000
_LOOK_S = 0.02
_PIECE = b"\x52" * (256 << 10)
ORDERS = ("model first", "model last")


class Provider(BaseHTTPRequestHandler):
    """Takes recordings and throws them away; a chat has a chunk every 20 ms, until its caller leaves."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        left = int(self.headers.get("Content-Length") or 0)
        while left > 0:
            left -= len(self.rfile.read(min(left, len(_PIECE))))
        if not self.path.endswith("/chat/completions"):
            self._tell("application/json", json.dumps({"text": "heard"}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        delta = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}
        line = b"data: " + json.dumps(delta).encode() + b"\n\n"
        try:
            for _ in range(_CHUNKS):
                self.wfile.write(line)
                time.sleep(_GAP_S)
        except OSError:
            self.close_connection = True

    def _tell(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def send(port: int, size_bytes: int, order: str) -> float:
    """Upload one recording and return how many seconds that took.

    Raises:
        RuntimeError: it was refused.
    """
    os.nice(10)  # whoever sends so much must not keep those who measure from a core
    model = _part('name="model"', b"openai/whisper-1\r\n")
    opened = _part('name="file"; filename="talk.wav"', b"")
    closed = b"\r\n" + (model if order == "model last" else b"") + f"--{_BOUNDARY}--\r\n".encode()
    before = opened if order == "model last" else model + opened
    began_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.putrequest("POST", "/v1/audio/transcriptions")
    connection.putheader("Authorization", f"Bearer {_TOKEN}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
    connection.putheader("Content-Length", str(len(before) + size_bytes + len(closed)))
    connection.endheaders()
    connection.send(before)
    left = size_bytes
    while left > 0:
        connection.send(_PIECE[:left])
        left -= min(left, len(_PIECE))
    connection.send(closed)
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    if answer.status != 200 or json.loads(told) != {"text": "heard"}:
        raise RuntimeError(f"{answer.status}: {told[:200]!r}")
    return time.monotonic() - began_s


def _part(disposition: str, content: bytes) -> bytes:
    return f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content


@dataclass
class Watched:
    """A stream that is read, and a process that is looked at, until `stop`."""

    port: int
    worker: psutil.Process

    def __post_init__(self) -> None:
        """Begin."""
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._look)]
        self.gaps_s: list[float] = []
        self.most_bytes = 0
        for thread in self._threads:
            thread.start()
        while len(self.gaps_s) < 10:
            time.sleep(_GAP_S)
        self.first_bytes = self.worker.memory_info().rss
        self.gaps_s.clear()

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        asked = {"model": "hosted_vllm/m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), {"Authorization": f"Bearer {_TOKEN}"})
        answer = connection.getresponse()
        last_s = time.monotonic()
        while not self._over.is_set():
            answer.readline()
            answer.readline()
            now_s = time.monotonic()
            self.gaps_s.append(now_s - last_s)
            last_s = now_s
        connection.close()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.most_bytes = max(self.most_bytes, self.worker.memory_info().rss)

    def stop(self) -> tuple[float, int]:
        """End it; return the longest gap in seconds, and by how many bytes the process grew at most."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return max(self.gaps_s), max(0, self.most_bytes - self.first_bytes)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(folder: Path, provider_ports: Sequence[int], port: int, relay: str) -> subprocess.Popen[bytes]:
    """Start the gateway with one worker, and wait until it answers."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GATEWAY_DATA_DIR": str(folder / "data"),
        "GATEWAY_AUTH_TOKEN": _TOKEN,
        "GATEWAY_RELAY": relay,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_API_BASE": f"http://127.0.0.1:{provider_ports[0]}/v1",
        "HOSTED_VLLM_API_BASE": f"http://127.0.0.1:{provider_ports[1]}/v1",
        "WEB_CONCURRENCY": "1",
    }
    command = [str(Path(sys.executable).with_name("gunicorn")), "wsgi:app", "-b", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=TOP, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health/readiness")
            if connection.getresponse().status == 200:
                return process
        except OSError:
            time.sleep(0.1)
    raise RuntimeError((folder / "log").read_text()[-2000:])


def measure(port: int, worker: psutil.Process, size_bytes: int, order: str, uploads: int) -> Sequence[str]:
    """Return the cells of one line of the table."""
    healthy = Watched(port, worker)
    time.sleep(3)
    healthy_s, _ = healthy.stop()
    took_s: list[float] = []
    beside = Watched(port, worker)
    for _ in range(uploads):
        done = subprocess.run(
            [sys.executable, __file__, "--send", str(port), "--bytes", str(size_bytes), "--order", order],
            capture_output=True,
            text=True,
            check=True,
        )
        took_s.append(float(done.stdout))
    beside_s, grown_bytes = beside.stop()
    took = f"{min(took_s):.1f} to {max(took_s):.1f}"
    return [order, f"{1000 * healthy_s:.0f} / {1000 * beside_s:.0f}", f"{grown_bytes / _MB:.1f}", took]


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200, help="of 1,048,576 bytes, of each upload")
    parser.add_argument("--uploads", type=int, default=3, help="of each order")
    parser.add_argument("--relay", default="all", help="GATEWAY_RELAY of the stream beside it")
    parser.add_argument("--provider", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--order", choices=ORDERS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.provider is not None:
        ThreadingHTTPServer(("127.0.0.1", chosen.provider), Provider).serve_forever()
    if chosen.send is not None:
        print(send(chosen.send, chosen.bytes, chosen.order))
        return 0
    provider_ports, port = [free_port(), free_port()], free_port()
    with tempfile.TemporaryDirectory(prefix="gateway-upload-") as place:
        providers = [subprocess.Popen([sys.executable, __file__, "--provider", str(one)]) for one in provider_ports]
        gateway = None
        try:
            gateway = start(Path(place), provider_ports, port, chosen.relay)
            (worker,) = psutil.Process(gateway.pid).children()
            measure(port, worker, _MB, ORDERS[0], 1)  # warms it
            print("| order | longest gap without / with, ms | memory grown, MB | an upload, s |")
            print("|---|---|---|---|")
            for order in ORDERS:
                cells = measure(port, worker, chosen.mb * _MB, order, chosen.uploads)
                print(f"| {' | '.join(cells)} |", flush=True)
        finally:
            for provider in providers:
                provider.terminate()
                provider.wait()
            if gateway is not None:
                gateway.send_signal(signal.SIGTERM)
                gateway.wait(40)
    return 0


if __name__ == "__main__":
    sys.exit(main())
