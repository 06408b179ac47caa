"""Models that say what their name tells: the demo, with no account anywhere.

They answer deterministically, stream word by word and count tokens as words. `demo/echo` repeats the last message
(or calls the first tool when the message asks to "use the tool"); `demo/slow` takes its time; `demo/error-<status>`
fails with that status; `demo/cut` breaks off in the middle. Only these names reach them.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

from gateway.core.calls import Attempt, Call, Chunk, Deployment
from gateway.core.endpoints import CHAT, Endpoint
from gateway.core.transcript import JSON
from gateway.core.wire import data_event, dumps
from gateway.errors import GatewayError, ProviderFailed, ProviderLimited, ProviderRefused
from gateway.upstream.failures import stopped
from gateway.upstream.relay import ended_early

ERRORS = (400, 429, 500, 503)

#: Names under `demo/`, each with what it shows.
MODELS = {
    "echo": "repeats the last message; calls the first tool when asked to use the tool",
    "slow": "the same, a word every 250 ms",
    "cut": "breaks off in the middle of a stream",
    **{f"error-{status}": f"fails with {status}" for status in ERRORS},
}

_SLOW_S = 0.25
_ECHO_S = 0.01


class Scripted:
    """An upstream (upstream.Upstream) without a provider."""

    def start(self) -> None:
        """Nothing to make ready."""

    def serves(self, endpoint: Endpoint, _deployment: Deployment) -> bool:
        """Whether the demo has the operation itself."""
        return endpoint is CHAT

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        """No: it takes its time, as providers do (Upstream.opens_in_time)."""
        return False

    def open(self, attempt: Attempt, call: Call) -> _Answer:
        """Answer as the model's name says (Upstream.open)."""
        model = attempt.deployment.model
        if model.startswith("error-"):
            raise _error(int(model.removeprefix("error-")))
        answer = _Answer(attempt, call, _SLOW_S if model == "slow" else _ECHO_S, cut=model == "cut")
        if not call.stream:
            answer.read()
        return answer


def count(_deployment: Deployment, text: str) -> int:
    """The demo's tokens are words."""
    return len(text.split())


def _error(status: int) -> GatewayError:
    if status == 429:
        return ProviderLimited("The demo model's rate limit is used up.", retry_after="1", provider="demo")
    if status == 400:
        return ProviderRefused("The demo model refuses every request.", code="demo_refused", provider="demo")
    return ProviderFailed(f"The demo model fails with {status}.", status=status, code="demo_failed", provider="demo")


class _Answer:
    """What the model says (upstream.Answer)."""

    tells_silence = False

    def __init__(self, attempt: Attempt, call: Call, pause_s: float, *, cut: bool) -> None:
        self._attempt = attempt
        self._call = call
        self._pause_s = pause_s
        self._cut = cut
        self._stopped = threading.Event()
        self._head: JSON = {
            "id": f"chatcmpl-{uuid.uuid5(uuid.NAMESPACE_OID, call.id).hex}",
            "created": int(call.started_s),
            "model": attempt.deployment.name,
        }
        self._said = _last_text(call.body["messages"])
        self._tool = _tool(call.body) if "use the tool" in self._said.lower() else None
        words = self._said.split(" ") if self._tool is None else []
        prompt = sum(len(_text_of(message).split()) for message in call.body["messages"])
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": max(1, len(words)),
            "total_tokens": prompt + max(1, len(words)),
        }
        self._words = [word + " " for word in words[:-1]] + words[-1:]
        self.body = b""
        call.cancellation.subscribe(self._stopped.set)

    def read(self) -> None:
        """Make the whole answer at once."""
        self._wait(self._pause_s * len(self._words))
        if self._cut:
            raise ended_early("demo")
        message: JSON = {"role": "assistant", "content": self._said if self._tool is None else None}
        if self._tool is not None:
            message["tool_calls"] = [self._tool]
        document = {
            **self._head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish_reason}],
            "usage": self._usage,
        }
        self._attempt.transcript.take(document)
        self.body = dumps(document)
        self.close()

    @property
    def _finish_reason(self) -> str:
        return "stop" if self._tool is None else "tool_calls"

    def chunks(self) -> Iterator[Chunk]:
        """Stream the answer (upstream.Answer)."""
        yield self._chunk({"role": "assistant", "content": ""})
        if self._tool is not None:
            yield self._chunk({"tool_calls": [{"index": 0, **self._tool}]})
        for number, word in enumerate(self._words):
            if self._cut and number * 2 >= len(self._words):
                raise ended_early("demo")
            self._wait(self._pause_s)
            yield self._chunk({"content": word})
        yield self._chunk({}, finish_reason=self._finish_reason)
        usage = {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage}
        self._attempt.transcript.add(usage)
        yield Chunk(data_event(usage) if self._call.usage_asked else b"", piece=usage)

    def _chunk(self, delta: JSON, finish_reason: str | None = None) -> Chunk:
        chunk = {
            **self._head,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        }
        content = self._attempt.transcript.add(chunk)
        return Chunk(data_event(chunk), content, piece=chunk)

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)
        if (error := stopped(self._call.cancellation)) is not None:
            raise error

    def close(self) -> None:
        """Nothing is held but the subscription (upstream.Answer)."""
        self._call.cancellation.unsubscribe(self._stopped.set)


def _text_of(message: JSON) -> str:
    content = message.get("content")
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _last_text(messages: list[JSON]) -> str:
    return _text_of(messages[-1]) or "(nothing)"


def _tool(body: JSON) -> Any:
    """A call of the first function that the caller offers, or None."""
    for tool in body.get("tools") or ():
        function = tool.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return {
                "id": "call_demo",
                "type": "function",
                "function": {"name": function["name"], "arguments": "{}"},
            }
    return None
