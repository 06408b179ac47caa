"""A steady load on the gateway: calls begin at fixed times, however long those before them take (an open loop).

It runs in a process of its own, so that neither the fakes nor the tests disturb what it measures:
`python -m tests.served.steady PORT TOKEN RATE`, until its stdin is closed. A line of JSON for each call comes out.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from tests.served.process import TOP

MODEL = "demo/echo"
#: Said in each call whose rows a sink of `bad_rows` does not take.
MARKER = "a-bad-row-7c1"
_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Called:
    """One call, ended.

    Attributes:
        nonce: a word that only this call holds.
        began_s, ended_s: monotonic, the same clock in every process.
        fault: what was wrong with the answer, or None.
        marked: whether it said MARKER.
    """

    nonce: str
    request_id: str
    stream: bool
    began_s: float
    ended_s: float
    fault: str | None
    marked: bool = False

    @property
    def took_ms(self) -> float:
        """From the moment that it was to be sent to the end of its answer."""
        return 1000 * (self.ended_s - self.began_s)


class Load:
    """A load that is on while this is open as a context; leaving waits for the calls under way.

    Args:
        port: the gateway's.
        token: the caller's.
        rate: calls a second, every other one a stream.
        mark_each: every so-manieth call says MARKER; 0 for none.
    """

    def __init__(self, port: int, token: str, rate: float, mark_each: int = 0) -> None:
        self._calls: list[Called] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.served.steady", str(port), token, str(rate), str(mark_each)],
            cwd=TOP,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def calls(self) -> list[Called]:
        """Those that have ended so far."""
        return list(self._calls)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._calls.append(Called(**json.loads(line)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(_TIMEOUT_S + 5)
        finally:
            self._process.kill()
            self._process.wait(5)
            self._reader.join(5)
            self._process.stdout.close()
        assert status == 0, f"the load ended with {status}"


async def _send(port: int, token: str, rate: float, mark_each: int) -> None:
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    calls: set[asyncio.Task[None]] = set()
    began_s, number = time.monotonic(), 0
    while not over.done():
        due_s = began_s + number / rate
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        marked = mark_each > 0 and number % mark_each == 0
        task = asyncio.create_task(_call(port, token, f"n{began_s:.6f}-{number:06d}.", due_s, number % 2 == 1, marked))
        calls.add(task)
        task.add_done_callback(calls.discard)
        number += 1
    await asyncio.gather(*calls)


async def _call(port: int, token: str, nonce: str, due_s: float, stream: bool, marked: bool) -> None:
    request_id, fault = "", None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            head, body = await _exchange(port, token, f"say {nonce}{' ' + MARKER if marked else ''} now", stream)
        lines = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").splitlines()[1:] if ": " in line)
        request_id = lines.get("request-id", "")
        fault = _fault_of(head, lines, body, nonce, stream)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    called = Called(nonce, request_id, stream, due_s, time.monotonic(), fault, marked)
    print(json.dumps(asdict(called)), flush=True)


def _fault_of(head: bytes, lines: dict[str, str], body: bytes, nonce: str, stream: bool) -> str | None:
    if not head.startswith(b"HTTP/1.1 200 "):
        return head.splitlines()[0].decode("latin-1")
    if not lines.get("request-id"):
        return "no request id"
    if nonce.encode() not in body:
        return "another answer"
    if stream and b"data: [DONE]" not in body:
        return "the stream broke off"
    return None


async def _exchange(port: int, token: str, content: str, stream: bool) -> tuple[bytes, bytes]:
    """One call on a connection of its own; returns the head of the answer, and its body without the framing."""
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": content}], "stream": stream}
    body = json.dumps(asked).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
            % (token.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head.lower():
            return head, await reader.read()
        got = b""
        while size := int(await reader.readline(), 16):
            got += await reader.readexactly(size)
            await reader.readline()
        return head, got
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(_send(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
