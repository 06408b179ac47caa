"""What an answer said, joined from its pieces: the record that traces, prices and the stream's own checks read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.core.usage import Usage, usage_of

JSON = dict[str, Any]

#: Names and kinds, which each piece of a stream may repeat.
_SENT_ANEW = frozenset({"id", "type", "name", "format", "object", "role"})
#: Nobody nests deeper; a provider that does is not followed.
_DEEPEST = 64

#: Fields of a delta that are text and grow by appending.
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
#: Fields that say nothing of the answer itself.
_SILENT = {"role", "tool_calls", "function_call", "provider_specific_fields", *_TEXTS}


class Malformed(ValueError):
    """A piece that is no chat completion (chunk) at all."""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Function:
    """The name and the arguments of a call, growing."""

    __slots__ = ("arguments", "name")

    def __init__(self) -> None:
        self.name = ""
        self.arguments: list[str] = []

    def grow(self, piece: Mapping[str, Any]) -> None:
        if isinstance(piece.get("name"), str) and piece["name"]:
            self.name = piece["name"]
        if isinstance(piece.get("arguments"), str):
            self.arguments.append(piece["arguments"])

    def whole(self) -> JSON:
        return {"name": self.name, "arguments": "".join(self.arguments)}


class _Tool:
    """One tool call, growing."""

    __slots__ = ("function", "id")

    def __init__(self) -> None:
        self.id: str | None = None
        self.function = _Function()

    def whole(self) -> JSON:
        return {"id": self.id, "type": "function", "function": self.function.whole()}


class _Choice:
    """One choice of a stream, growing."""

    __slots__ = ("extra", "finish_reason", "function_call", "role", "texts", "tools")

    def __init__(self) -> None:
        self.role = "assistant"
        self.texts: dict[str, list[str]] = {}
        self.tools: dict[int, _Tool] = {}
        self.function_call: _Function | None = None
        self.extra: dict[str, list[Any]] = {}
        self.finish_reason: str | None = None

    def grow(self, delta: Mapping[str, Any]) -> bool:
        """Take in one delta; True when it said something."""
        said = False
        if len(delta) == 1 and (text := delta.get("content")).__class__ is str:  # nearly every one
            if text:
                self.texts.setdefault("content", []).append(text)
            return bool(text)
        for name in _TEXTS:
            text = delta.get(name)
            if isinstance(text, str) and text:
                self.texts.setdefault(name, []).append(text)
                said = True
        if isinstance(role := delta.get("role"), str) and role:
            self.role = role
        if isinstance(calls := delta.get("tool_calls"), list):
            for call in calls:
                said = self._grow_tool(call) or said
        if isinstance(function := delta.get("function_call"), Mapping):
            if self.function_call is None:
                self.function_call = _Function()
            self.function_call.grow(function)
            said = True
        for name, value in delta.items():
            if name not in _SILENT and value is not None:
                self.extra.setdefault(name, []).append(value)
                said = True
        return said

    def _grow_tool(self, call: object) -> bool:
        if not isinstance(call, Mapping):
            raise Malformed("a tool call is no object")
        index = call.get("index", 0)
        if isinstance(index, bool) or not isinstance(index, int):
            raise Malformed("a tool call's index is no integer")
        tool = self.tools.get(index)
        if tool is None:
            tool = self.tools[index] = _Tool()
        if isinstance(call.get("id"), str) and call["id"]:
            tool.id = call["id"]
        tool.function.grow(_mapping(call.get("function")))
        return True

    def message(self) -> JSON:
        """The choice as an answer that was not streamed would have it."""
        joined = {name: "".join(parts) for name, parts in self.texts.items()}
        message: JSON = {"role": self.role, "content": joined.pop("content", None), **joined}
        if self.tools:
            message["tool_calls"] = [self.tools[index].whole() for index in sorted(self.tools)]
        if self.function_call is not None:
            message["function_call"] = self.function_call.whole()
        return {**message, **{name: _joined(name, pieces) for name, pieces in self.extra.items()}}


def _joined(name: str, pieces: list[Any], depth: int = 0) -> Any:
    """Join the pieces of a field that is no text of its own: objects by their fields, lists end to end, texts too.

    Names and kinds (`id`, `type`) are sent anew with each piece; of them the last one stands.
    """
    if len(pieces) == 1 or depth > _DEEPEST or name in _SENT_ANEW:
        return pieces[-1]
    if all(isinstance(piece, Mapping) for piece in pieces):
        fields: dict[str, list[Any]] = {}
        for piece in pieces:  # once: each piece may have a field of its own
            for field, value in piece.items():
                fields.setdefault(field, []).append(value)
        return {field: _joined(field, values, depth + 1) for field, values in fields.items()}
    if all(isinstance(piece, list) for piece in pieces):
        return [item for piece in pieces for item in piece]
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(pieces)
    return pieces[-1]


class Transcript(Protocol):
    """One answer, whole or growing, in whichever wire it came.

    Attributes:
        id: the provider's id of the answer.
        model: the model that the provider says answered.
        usage: what the provider counted; None where it did not.
    """

    id: str | None
    model: str | None
    usage: Usage | None

    @property
    def started(self) -> bool:
        """Something of the answer itself was seen."""

    @property
    def complete(self) -> bool:
        """The answer is whole: it came so, or its stream said why it ends."""

    @property
    def finish_reasons(self) -> list[str | None]:
        """In the wire's own words, one for each choice."""

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take in one piece of a stream; True when it has content.

        Raises:
            Malformed: it is no piece of such a stream.
        """

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in a whole answer.

        Raises:
            Malformed: it is none.
        """

    def said(self) -> Any:
        """The answer so far as a value of JSON, as a trace shows it."""


class ChatTranscript:
    """A chat completion (Transcript)."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self._tier: object = None
        self._choices: dict[int, _Choice] = {}
        self._whole: list[JSON] | None = None

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take in one streamed chunk.

        Returns:
            True when it has content: text, a tool call, reasoning, a refusal, audio, or a `finish_reason`.

        Raises:
            Malformed: the chunk is none.
        """
        self._note(chunk)
        said = False
        for choice in _list(chunk.get("choices")):
            index = choice.get("index", 0)
            if isinstance(index, bool) or not isinstance(index, int):
                raise Malformed("a choice's index is no integer")
            growing = self._choices.get(index)
            if growing is None:
                growing = self._choices[index] = _Choice()
            delta = choice.get("delta")
            if isinstance(delta, dict | Mapping):  # the plain one first: it is told at once
                said = growing.grow(delta) or said
            elif delta is not None:
                raise Malformed("a delta is no object")
            if isinstance(reason := choice.get("finish_reason"), str) and reason:
                growing.finish_reason = reason
                said = True
        return said

    def say(self, index: int, text: str) -> None:
        """Take in a text, not empty, of a choice that has had one; the rest of its chunk is as that one's was."""
        self._choices[index].texts["content"].append(text)

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in a whole answer.

        Raises:
            Malformed: it has no choices, or they are none.
        """
        self._note(document)
        choices = _list(document.get("choices"))
        if not choices:
            raise Malformed("the answer has no choices")
        self._whole = [dict(choice) for choice in choices]

    def _note(self, piece: Mapping[str, Any]) -> None:
        if self.id is None and isinstance(piece.get("id"), str):
            self.id = piece["id"]
            self._tier = piece.get("service_tier")  # the chunk with the usage may have none
        if self.model is None and isinstance(piece.get("model"), str):
            self.model = piece["model"]
        if claimed := piece.get("usage"):
            usage = usage_of(claimed, piece.get("service_tier") or self._tier)
            self.usage = self.usage if usage is None else usage

    @property
    def started(self) -> bool:
        """At least one choice was seen."""
        return bool(self._choices or self._whole)

    @property
    def complete(self) -> bool:
        """Every choice that was seen has its `finish_reason`."""
        if self._whole is not None:
            return True
        return bool(self._choices) and all(choice.finish_reason for choice in self._choices.values())

    @property
    def finish_reasons(self) -> list[str | None]:
        """One entry per choice, in order of their indexes."""
        if self._whole is not None:
            return [choice.get("finish_reason") for choice in self._whole]
        return [choice.finish_reason for _index, choice in sorted(self._choices.items())]

    def said(self) -> list[JSON]:
        """The answer so far, in the shape of a chat completion's `choices`."""
        if self._whole is not None:
            return self._whole
        return [
            {"index": index, "message": choice.message(), "finish_reason": choice.finish_reason}
            for index, choice in sorted(self._choices.items())
        ]


class DocumentTranscript:
    """An answer in which no model says anything new: a count, a receipt, a stored answer (Transcript)."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self._document: Mapping[str, Any] | None = None

    @property
    def started(self) -> bool:
        """There is an answer."""
        return self._document is not None

    @property
    def complete(self) -> bool:
        """There is one: it never comes in pieces."""
        return self._document is not None

    @property
    def finish_reasons(self) -> list[str | None]:
        """None: nothing was said."""
        return []

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Take in an event of a stored response that is streamed again; its document is the latest that came.

        Raises:
            Malformed: it is no event.
        """
        if not isinstance(chunk.get("type"), str):
            raise Malformed("an event has no type")
        if isinstance(response := chunk.get("response"), Mapping):
            self.take(response)
        return True

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in the answer; any object is one."""
        self._document = document
        if isinstance(document.get("id"), str):
            self.id = document["id"]

    def said(self) -> Any:
        """The document."""
        return self._document


def _list(value: object) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed("choices is no array of objects")
    for item in value:
        if not isinstance(item, dict | Mapping):
            raise Malformed("choices is no array of objects")
    return value
