"""A caller without an SDK, who sees every byte and when it came."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

JSON = dict[str, Any]
CHAT = "/v1/chat/completions"
CONTENT = "Say something short."

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")


def body(model: str, content: Any = CONTENT, **fields: Any) -> JSON:
    """Build the body of a chat; `fields` may replace everything but the model."""
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


@dataclass
class Streamed:
    """A streamed answer, read to its end.

    Attributes:
        data: the data of each event, in order; comments are apart.
        times_s: when each of them came, counted from the moment that the request was sent.
        head_s: when the status line came.
    """

    status: int
    headers: httpx.Headers
    head_s: float
    raw: bytes = b""
    data: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[JSON]:
        """The events that are JSON."""
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def chunks(self) -> list[JSON]:
        """The events that are no error."""
        return [event for event in self.events if "error" not in event]

    @property
    def errors(self) -> list[JSON]:
        """The error objects of the error events."""
        return [event["error"] for event in self.events if "error" in event]

    @property
    def ends_well(self) -> bool:
        """One `[DONE]`, at the very end, and no error."""
        return self.data.count("[DONE]") == 1 and self.data[-1] == "[DONE]" and not self.errors

    @property
    def fails_once(self) -> bool:
        """One error event, at the very end, and no `[DONE]`."""
        return len(self.errors) == 1 and "error" in json.loads(self.data[-1]) and "[DONE]" not in self.data

    def choices(self, index: int = 0) -> list[JSON]:
        """All pieces of one choice."""
        return [choice for chunk in self.chunks for choice in chunk["choices"] if choice.get("index", 0) == index]

    def text(self, index: int = 0, name: str = "content") -> str:
        """Join one text of a choice's deltas."""
        return "".join((choice.get("delta") or {}).get(name) or "" for choice in self.choices(index))

    def finishes(self, index: int = 0) -> list[str]:
        """Every `finish_reason` that a choice was given."""
        return [choice["finish_reason"] for choice in self.choices(index) if choice.get("finish_reason")]


class Caller:
    """Sends chats and reads the answers."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=30,
            limits=httpx.Limits(keepalive_expiry=2),  # well before the server closes a connection that is idle
        )

    def chat(self, model: str, content: Any = CONTENT, **fields: Any) -> httpx.Response:
        """Ask for an answer that is not streamed."""
        return self.post(body(model, content, **fields))

    def post(self, asked: JSON, **headers: str) -> httpx.Response:
        """Send a body as it is; `_` in the name of a header stands for `-`."""
        return self.http.post(CHAT, json=asked, headers=_headers(headers))

    def stream(self, model: str, content: Any = CONTENT, **fields: Any) -> Streamed:
        """Ask for a stream and read it to its end, also where what comes is an error."""
        return self.read(body(model, content, **fields))

    def read(self, asked: JSON, **headers: str) -> Streamed:
        """Send a body with `stream` as it is, and read what comes to its end."""
        sent_s = time.monotonic()
        asked = {**asked, "stream": True}
        with self.http.stream("POST", CHAT, json=asked, headers=_headers(headers)) as response:
            got = Streamed(response.status_code, response.headers, time.monotonic() - sent_s)
            if response.status_code == 200:
                assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
                _read(response.iter_raw(), got, sent_s)
            else:
                got.raw = response.read()
        return got

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()


def _headers(named: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items()}


def _read(pieces: Iterable[bytes], got: Streamed, sent_s: float) -> None:
    left = b""
    for piece in pieces:
        got.raw += piece
        *blocks, left = _BLANK_LINE.split(left + piece)
        for block in blocks:
            _take(block.decode(), got, time.monotonic() - sent_s)
    assert not left, f"the stream ends within an event: {left!r}"


def _take(block: str, got: Streamed, now_s: float) -> None:
    lines = block.splitlines()
    if all(line.startswith(":") for line in lines):
        got.comments.append(block)
        return
    assert all(line.startswith("data:") for line in lines), f"no well-formed event: {block!r}"
    got.data.append("\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines))
    got.times_s.append(now_s)


def fault(response: httpx.Response) -> JSON:
    """Return the error object of an answer, which has to be one of OpenAI's shape."""
    assert response.headers["content-type"] == "application/json", response.text
    assert "Traceback" not in response.text
    assert list(response.json()) == ["error"]
    error: JSON = response.json()["error"]
    assert error["message"], error
    assert isinstance(error["message"], str)
    assert error["type"], error
    assert isinstance(error["type"], str)
    for name in ("param", "code"):
        assert error[name] is None or isinstance(error[name], str), error
    assert error["request_id"] == response.headers["request-id"]
    return error


def nonces(prefix: str, count: int) -> Iterator[str]:
    """Make texts that no other test and no other text of these holds."""
    return (f"{prefix}-{number:04d}." for number in range(count))
