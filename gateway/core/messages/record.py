"""What an answer in the Messages wire said, joined from its events.

Source: Anthropic's API reference, "Create a Message", and its guide "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.messages.tools import read_input
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage, count_of, usage_of_messages

JSON = dict[str, Any]

_COUNTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
#: Blocks that begin empty; all others say something by being there.
_EMPTY = {"text": "text", "thinking": "thinking"}
#: Where a delta's field goes in the block; `partial_json` is read when it is asked for.
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
#: Fields of the message that a record has of its own, or that say nothing.
_OWN = frozenset({"id", "type", "role", "model", "content", "usage"})


class _Block:
    """One content block, growing."""

    __slots__ = ("_citations", "_fields", "_json", "_texts")

    def __init__(self, start: Mapping[str, Any]) -> None:
        self._fields = dict(start)
        self._texts: dict[str, list[str]] = {}
        self._citations: list[Any] = []
        self._json: list[str] = []

    def grow(self, delta: Mapping[str, Any]) -> bool:
        """Take in one delta; True when it said something."""
        kind = delta.get("type")
        if not isinstance(kind, str):
            raise Malformed("a delta has no type")
        if kind == "input_json_delta":
            return _append(self._json, delta.get("partial_json"))
        if kind == "citations_delta":
            self._citations.append(delta.get("citation"))
            return True
        if kind in _TEXTS:
            field = _TEXTS[kind]
            return _append(self._texts.setdefault(field, []), delta.get(field))
        said = False
        for name, value in delta.items():  # a kind that came after this was written
            if name == "type" or value is None:
                continue
            said = True
            if isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            else:
                self._fields[name] = value
        return said

    def whole(self) -> JSON:
        """The block as an answer that was not streamed would have it; input that is no JSON stays a text."""
        block = dict(self._fields)
        for name, texts in self._texts.items():
            begun = block.get(name)
            block[name] = (begun if isinstance(begun, str) else "") + "".join(texts)
        if self._citations:
            begun = block.get("citations")
            block["citations"] = [*(begun if isinstance(begun, list) else ()), *self._citations]
        if arguments := "".join(self._json):
            got = read_input(arguments)
            block["input"] = arguments if got is None else got
        return block


def _append(texts: list[str], text: object) -> bool:
    if not isinstance(text, str):
        raise Malformed("a delta has no text")
    texts.append(text)
    return text != ""


class MessagesTranscript:
    """A message of Anthropic's wire (Transcript)."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self._counted: JSON = {}
        self._fields: JSON = {}
        self._blocks: dict[int, _Block] = {}
        self._whole: list[JSON] | None = None

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take in one event.

        Returns:
            True when it has content: a delta that is not empty, a block of a tool or another kind that begins with
            what it has to say, or a `stop_reason`.

        Raises:
            Malformed: it is no event of a message. An `error` event is none either: it says that the stream failed.
        """
        match chunk.get("type"):
            case "content_block_delta":
                return self._block(chunk).grow(_object(chunk, "delta"))
            case "content_block_start":
                return self._begin(chunk)
            case "message_delta":
                self._count_in(chunk.get("usage"))
                delta = _object(chunk, "delta")
                others = {name: value for name, value in chunk.items() if name not in ("type", "delta", "usage")}
                self._keep({**others, **delta})
                return bool(delta.get("stop_reason"))
            case "message_start":
                self._note(_object(chunk, "message"))
                return False
            case "error":
                raise Malformed("the stream says that it failed")
            case str():  # the end, a ping, the end of a block; others may come by Anthropic's versioning policy
                return False
        raise Malformed("an event has no type")

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in a whole answer.

        Raises:
            Malformed: its content is no array of blocks.
        """
        content = document.get("content")
        if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
            raise Malformed("the content is no array of blocks")
        self._note(document)
        self._whole = [dict(block) for block in content]

    def _begin(self, event: Mapping[str, Any]) -> bool:
        start = _object(event, "content_block")
        kind = start.get("type")
        if not isinstance(kind, str):
            raise Malformed("a content block has no type")
        self._blocks[_index(event)] = _Block(start)
        return bool(start.get(_EMPTY[kind])) if kind in _EMPTY else True

    def _block(self, event: Mapping[str, Any]) -> _Block:
        block = self._blocks.get(_index(event))
        if block is None:
            raise Malformed("a delta belongs to no block")
        return block

    def _note(self, message: Mapping[str, Any]) -> None:
        if self.id is None and isinstance(message.get("id"), str):
            self.id = message["id"]
        if self.model is None and isinstance(message.get("model"), str):
            self.model = message["model"]
        self._count_in(message.get("usage"))
        self._keep(message)

    def _count_in(self, usage: object) -> None:
        """Counts of the end add up those of the start, and servers leave out or zero what they said before."""
        if not isinstance(usage, Mapping):
            return
        for name, value in usage.items():
            if name in _COUNTS:
                self._counted[name] = max(count_of(value), self._counted.get(name, 0))
            elif value is not None:
                self._counted[name] = value
        self.usage = usage_of_messages(self._counted)

    def _keep(self, fields: Mapping[str, Any]) -> None:
        self._fields |= {name: value for name, value in fields.items() if name not in _OWN and value is not None}

    @property
    def _stop_reason(self) -> str | None:
        reason = self._fields.get("stop_reason")
        return reason if isinstance(reason, str) and reason else None

    @property
    def started(self) -> bool:
        """At least one block was seen, or the reason of the end."""
        return self._whole is not None or bool(self._blocks) or self._stop_reason is not None

    @property
    def complete(self) -> bool:
        """It came whole, or its stream said why it ends."""
        return self._whole is not None or self._stop_reason is not None

    @property
    def finish_reasons(self) -> list[str | None]:
        """The `stop_reason`, alone; null until it came."""
        return [self._stop_reason]

    def said(self) -> JSON:
        """The message so far: `role`, `content`, and what stands beside them (`stop_reason`, `stop_sequence`, …)."""
        content = self._whole
        if content is None:
            content = [block.whole() for _, block in sorted(self._blocks.items())]
        return {"role": "assistant", "content": content, **self._fields}


def _object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = event.get(name)
    if not isinstance(value, Mapping):
        raise Malformed(f"{name} of an event is no object")
    return value


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    if isinstance(index, bool) or not isinstance(index, int):
        raise Malformed("the index of an event is no integer")
    return index
