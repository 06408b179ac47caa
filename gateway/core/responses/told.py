"""A chat completion, told in OpenAI's Responses wire: as a Response, or as the events of its stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway.core.responses.asked import toolbox_of, wants_logprobs
from gateway.core.responses.document import response
from gateway.core.responses.items import COMPLETED, IN_PROGRESS, INCOMPLETE, Call, Item, Message, Reasoning
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage, usage_of

JSON = dict[str, Any]

#: Why an answer is not whole (`incomplete_details.reason`), by chat's `finish_reason`.
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}
#: Where chat's old `function_call` stands among the tool calls, whose indexes count from 0.
_OLD_CALL = -1


class FromChat:
    """Tells one answer (Teller), in the order and with the numbers of OpenAI's own stream.

    An item is done when the next one begins; only calls whose arguments come interleaved stay open beside each
    other. Of a chat completion with several choices the first one is told, as this wire has no more.

    Args:
        body: the caller's, of `/v1/responses`, which `asked.to_chat` has read.
        response_id: `resp_…`; the ids of the items are made from it.
        created_s: seconds since the epoch.
        history: as `to_chat` had it.

    Raises:
        InvalidRequest: the body's tools are of the wrong shape.
    """

    def __init__(self, body: JSON, response_id: str, created_s: int, history: Sequence[JSON] = ()) -> None:
        self._body = body
        self._response_id = response_id
        self._created_s = created_s
        self._toolbox = toolbox_of(body, history)
        self._logprobs = wants_logprobs(body)
        self._tail = response_id.removeprefix("resp_")
        self._sequence = 0
        self._begun = False
        self._output: list[Item] = []
        self._calls: dict[int, Call] = {}
        self._speaking: Message | Reasoning | None = None
        self._finish_reason: str | None = None
        self._model: str | None = None
        self._service_tier: str | None = None
        self._usage: Usage | None = None

    def whole(self, completion: Mapping[str, Any]) -> JSON:
        """Tell an answer that was not streamed, as a Response.

        Raises:
            Malformed: it has no choice that ended, or is none.
        """
        choices = [choice for choice in _choices(completion) if choice.get("index", 0) == 0]
        if not choices or not isinstance(choices[0].get("message"), Mapping):
            raise Malformed("the answer has no message")
        message = dict(choices[0]["message"])
        if message.get("tool_calls") is not None:
            message["tool_calls"] = [{**call, "index": at} for at, call in enumerate(_mappings(message["tool_calls"]))]
        self.feed({**completion, "choices": [{**choices[0], "index": 0, "delta": message}]})
        told: JSON = self.end()[-1]["response"]
        return told

    def feed(self, chunk: Mapping[str, Any]) -> list[JSON]:
        """Return the events that one chunk of the stream makes; the first chunk also opens the stream.

        Raises:
            Malformed: it is no chunk, or takes back what was told.
        """
        begun, told = self._begun, self._sequence
        try:
            return self._fed(chunk)
        except Malformed:
            # nobody hears of what this chunk made: the next event is the next in number
            self._begun, self._sequence = begun, told
            raise

    def _fed(self, chunk: Mapping[str, Any]) -> list[JSON]:
        if self._model is None and isinstance(chunk.get("model"), str):
            self._model = chunk["model"]
        if isinstance(chunk.get("service_tier"), str):
            self._service_tier = chunk["service_tier"]
        if (usage := usage_of(chunk.get("usage"))) is not None:
            self._usage = usage
        events = self._numbered(self._opening())
        for choice in _choices(chunk):
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta")
            if delta is not None and not isinstance(delta, Mapping):
                raise Malformed("a delta is no object")
            events += self._numbered(self._told(delta or {}, self._logprobs_of(choice)))
            if isinstance(reason := choice.get("finish_reason"), str) and reason:
                self._finish_reason = reason
        return events

    def end(self) -> list[JSON]:
        """Return the events that close the stream; the last is `response.completed` or `response.incomplete`.

        Raises:
            Malformed: the chat completion never said why it ends.
        """
        if self._finish_reason is None:
            raise Malformed("the chat completion has no finish_reason")
        reason = _REASONS.get(self._finish_reason)
        status = COMPLETED if reason is None else INCOMPLETE
        events = self._numbered(self._opening())
        for call in self._calls.values():
            if not call.open:
                events += self._numbered(self._opened(call))
        for item in self._output:
            if not item.done:
                events += self._numbered(item.end(status))
        last = {"type": f"response.{status}", "response": self._response(status, incomplete=reason)}
        return events + self._numbered([last])

    def failed(self, message: str, code: str | None) -> JSON:
        """Return the event that ends a stream which fails on its way, with the output so far.

        Args:
            message: one sentence for the caller.
            code: the error's public code; None stands for `server_error`.
        """
        error = {"code": code or "server_error", "message": message}
        [event] = self._numbered([{"type": "response.failed", "response": self._response("failed", error=error)}])
        return event

    def _opening(self) -> Iterator[JSON]:
        if not self._begun:
            self._begun = True
            yield {"type": "response.created", "response": self._response(IN_PROGRESS)}
            yield {"type": "response.in_progress", "response": self._response(IN_PROGRESS)}

    def _told(self, delta: Mapping[str, Any], logprobs: list[JSON]) -> Iterator[JSON]:
        # providers send one of these names, some of them both with the same text
        thought = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        if thought:
            if not isinstance(self._speaking, Reasoning):
                reasoning = Reasoning(*self._next("rs"))
                yield from self._begun_with(reasoning)
                self._speaking = reasoning
            yield self._speaking.grow(thought)
        for name in ("content", "refusal"):
            if text := _text(delta.get(name)):
                if not isinstance(self._speaking, Message):
                    message = Message(*self._next("msg"))
                    yield from self._begun_with(message)
                    self._speaking = message
                refusal = name == "refusal"
                yield from self._speaking.grow(text, refusal=refusal, logprobs=None if refusal else logprobs)
        if delta.get("tool_calls") is not None:
            for call in _mappings(delta["tool_calls"]):
                yield from self._called(call.get("index", 0), call.get("id"), call.get("function"))
        if isinstance(function := delta.get("function_call"), Mapping):
            yield from self._called(_OLD_CALL, None, function)

    def _called(self, index: object, call_id: object, function: object) -> Iterator[JSON]:
        if isinstance(index, bool) or not isinstance(index, int):
            raise Malformed("a tool call's index is no integer")
        said = function if isinstance(function, Mapping) else {}
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = Call(self._toolbox, self._tail)
        yield from call.take(call_id, said.get("name"), said.get("arguments"))
        if call.ready and not call.open:
            yield from self._opened(call)

    def _opened(self, call: Call) -> Iterator[JSON]:
        index = len(self._output)
        call.place(index)
        yield from self._begun_with(call)

    def _begun_with(self, item: Item) -> Iterator[JSON]:
        """End what went before, as far as it has an end, and begin the next item."""
        if self._speaking is not None:
            yield from self._speaking.end(COMPLETED)
            self._speaking = None
        for call in self._calls.values():
            if call.open and not call.done and call is not item and call.finished:
                yield from call.end(COMPLETED)
        self._output.append(item)
        yield from item.begin()

    def _next(self, prefix: str) -> tuple[int, str]:
        index = len(self._output)
        return index, f"{prefix}_{self._tail}{index:04x}"

    def _logprobs_of(self, choice: Mapping[str, Any]) -> list[JSON]:
        given = choice.get("logprobs")
        if not self._logprobs or not isinstance(given, Mapping) or not isinstance(given.get("content"), list):
            return []
        return [{"bytes": [], "top_logprobs": [], **token} for token in given["content"] if isinstance(token, Mapping)]

    def _numbered(self, events: Iterable[JSON]) -> list[JSON]:
        numbered = []
        for event in events:
            numbered.append({"type": event["type"], "sequence_number": self._sequence, **event})
            self._sequence += 1
        return numbered

    def _response(self, status: str, incomplete: str | None = None, error: JSON | None = None) -> JSON:
        return response(
            self._body,
            response_id=self._response_id,
            created_s=self._created_s,
            status=status,
            model=self._model,
            output=[item.whole(IN_PROGRESS if status == IN_PROGRESS else INCOMPLETE) for item in self._output],
            usage=self._usage if status != IN_PROGRESS else None,
            incomplete=incomplete,
            error=error,
            service_tier=self._service_tier,
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _choices(piece: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [] if piece.get("choices") is None else _mappings(piece["choices"])


def _mappings(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Malformed("choices or tool calls are no array of objects")
    return value
