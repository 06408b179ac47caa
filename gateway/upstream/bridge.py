"""Answers an operation that a provider does not serve by a chat completion, which every provider does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gateway.core import completions, messages, responses
from gateway.core.bridge import Bridged, Teller
from gateway.core.calls import JSON, Attempt, Call, Chunk, Deployment
from gateway.core.endpoints import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from gateway.core.providers import SAME_WIRE
from gateway.core.transcript import ChatTranscript, Malformed, Transcript
from gateway.core.wire import data_event, dumps, named_event
from gateway.errors import GatewayError, ProviderInvalid
from gateway.upstream import Answer, Upstream


@dataclass(frozen=True)
class _Way:
    """How one operation becomes a chat, and the chat's answer the operation's."""

    to_chat: Callable[[Attempt, Call], Bridged]
    teller: Callable[[Call], Teller]
    frame: Callable[[JSON], bytes]


#: OpenAI's models that take a `reasoning_effort`; the others refuse a request for having one.
_REASONS = re.compile(r"(ft:)?(o\d|gpt-[5-9]|gpt-oss|codex)", re.ASCII)

#: Where Claude models live that LiteLLM translates for; it takes more of them than OpenAI's reference has.
_CLAUDES_ELSEWHERE = frozenset(("bedrock", "vertex_ai", "azure_ai", "databricks"))


def _beyond(attempt: Attempt) -> frozenset[str]:
    """The fields of a message beyond OpenAI's reference that get to the model."""
    deployment = attempt.deployment
    is_claude = deployment.provider in _CLAUDES_ELSEWHERE and "claude" in deployment.model
    return messages.BEYOND - {"reasoning_content"} if is_claude else frozenset()


def _suited(chat: Bridged, deployment: Deployment) -> Bridged:
    """Leave out what the provider is known to refuse, where nobody else does: the body goes there as it is."""
    if deployment.provider not in SAME_WIRE:
        return chat
    body, dropped = dict(chat.body), list(chat.dropped)
    if deployment.provider != "openai" and "max_completion_tokens" in body:
        body["max_tokens"] = body.pop("max_completion_tokens")  # the name that every server knows
    if deployment.provider == "openai":
        refused = ("top_k",) if _REASONS.match(deployment.model) else ("top_k", "reasoning_effort")
        for name in refused:
            if body.pop(name, None) is not None:
                dropped.append(name)
    return Bridged(body, tuple(dropped))


_WAYS: dict[str, _Way] = {
    COMPLETIONS.name: _Way(
        lambda _attempt, call: completions.to_chat(call.body),
        lambda call: completions.FromChat(call.usage_asked),
        data_event,
    ),
    MESSAGES.name: _Way(
        lambda attempt, call: messages.to_chat(call.body, beyond=_beyond(attempt)),
        lambda call: messages.FromChat(
            "msg_" + call.id.removeprefix("req_"), call.model, messages.original_names(call.body)
        ),
        named_event,
    ),
    RESPONSES.name: _Way(
        lambda _attempt, call: responses.to_chat(call.body, call.history),
        lambda call: responses.FromChat(
            call.body, "resp_" + call.id.removeprefix("req_"), int(call.started_s), call.history
        ),
        named_event,
    ),
}


class Bridge:
    """An upstream that asks another one for a chat (upstream.Upstream).

    Args:
        chats: answers chat completions.
    """

    def __init__(self, chats: Upstream) -> None:
        self._chats = chats

    def start(self) -> None:
        """Nothing of its own to make ready."""

    @staticmethod
    def serves(endpoint_name: str) -> bool:
        """Whether a chat can stand in for the operation."""
        return endpoint_name in _WAYS

    def opens_in_time(self, attempt: Attempt, call: Call) -> bool:
        """As the chat does (Upstream.opens_in_time)."""
        return self._chats.opens_in_time(attempt, replace(call, endpoint=CHAT))

    def open(self, attempt: Attempt, call: Call) -> Answer:
        """Ask for the chat (Upstream.open)."""
        way = _WAYS[call.endpoint.name]
        chat = _suited(way.to_chat(attempt, call), attempt.deployment)
        attempt.sent = chat.body
        attempt.transcript = ChatTranscript()
        attempt.told = told = call.endpoint.transcript()
        asked = replace(call, endpoint=CHAT, body=chat.body, raw=None, usage_asked=True, provider_headers={})
        try:
            opened = self._chats.open(attempt, asked)
        finally:
            attempt.dropped = tuple(sorted({*chat.dropped, *attempt.dropped}))
        answer = _Answer(attempt.deployment.provider, opened, way.teller(call), way.frame, told)
        if not call.stream:
            answer.read()
        return answer


class _Answer:
    """The chat's answer, told in the caller's wire (upstream.Answer)."""

    def __init__(
        self, provider: str, chat: Answer, teller: Teller, frame: Callable[[JSON], bytes], told: Transcript
    ) -> None:
        self._provider = provider
        self._chat = chat
        self._teller = teller
        self._frame = frame
        self._told = told
        self.tells_silence = chat.tells_silence
        self.body = b""

    def read(self) -> None:
        """Tell an answer that is not streamed.

        Raises:
            ProviderInvalid: it cannot be told.
        """
        try:
            document = self._teller.whole(json.loads(self._chat.body))
            self._told.take(document)
        except Malformed as error:
            raise self._untold() from error
        self.body = dumps(document)

    def chunks(self) -> Iterator[Chunk | None]:
        """Tell the stream to its end (upstream.Answer)."""
        try:
            yield from self._telling()
        except GatewayError as error:
            if (failed := self._teller.failed(error.message, error.public_code)) is not None:
                yield Chunk(self._framed([failed]), last=True, piece=failed)
            raise

    def _telling(self) -> Iterator[Chunk | None]:
        try:
            for chunk in self._chat.chunks():
                if chunk is None:
                    yield None
                    continue
                events = self._teller.feed(chunk.piece) if chunk.piece is not None else []
                yield from self._told_in(events, content=chunk.content)
            if events := self._teller.end():
                yield from self._told_in(events[:-1])
                yield Chunk(self._framed(events[-1:]), content=True, last=True, piece=events[-1])
        except Malformed as error:
            raise self._untold() from error

    def _told_in(self, events: list[JSON], *, content: bool = False) -> Iterator[Chunk]:
        """Events as one chunk; but one that has the usage is a chunk of its own, which shows it."""
        if not any("usage" in event for event in events):
            yield Chunk(self._framed(events), content)
            return
        for event in events:
            yield Chunk(self._framed([event]), content, piece=event)

    def _framed(self, events: list[JSON]) -> bytes:
        for event in events:
            self._told.add(event)
        return b"".join(map(self._frame, events))

    def _untold(self) -> ProviderInvalid:
        return ProviderInvalid(f"{self._provider} sent an answer that cannot be read.", provider=self._provider)

    def close(self) -> None:
        """Free the provider's connection (upstream.Answer)."""
        self._chat.close()
