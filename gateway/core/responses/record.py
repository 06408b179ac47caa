"""What a response said, joined from the events of its stream: the record that traces, prices and stores read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.transcript import Malformed
from gateway.core.usage import Usage, usage_of_responses, with_units

JSON = dict[str, Any]

#: The events that carry a whole Response and after which none comes (API reference, "Streaming events").
_ENDS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
_BEGINNINGS = frozenset({"response.created", "response.queued", "response.in_progress"})
_STATUSES = frozenset({"completed", "incomplete", "failed", "cancelled", "queued", "in_progress"})
#: A whole answer that is still being made comes of `background`, and is whole as an answer to its request.
_WHOLE = frozenset({"completed", "incomplete", "queued", "in_progress"})

#: Where the texts of events belong: the kind of item, its list, the kind of part and the field that grows.
_PARTS = {
    "response.output_text": ("message", "content", "output_text", "text"),
    "response.refusal": ("message", "content", "refusal", "refusal"),
    "response.reasoning_summary_text": ("reasoning", "summary", "summary_text", "text"),
    "response.reasoning_text": ("reasoning", "content", "reasoning_text", "text"),
}
#: The same for texts that are a field of the item itself.
_FIELDS = {
    "response.function_call_arguments": ("function_call", "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", "input"),
    "response.mcp_call_arguments": ("mcp_call", "arguments"),
    "response.code_interpreter_call_code": ("code_interpreter_call", "code"),
}


def is_terminal(event: Mapping[str, Any]) -> bool:
    """Tell whether nothing of the answer comes after this event: it carries the ended Response, or is an `error`."""
    kind = event.get("type")
    return isinstance(kind, str) and (kind in _ENDS or kind == "error")


class _Grown:
    """A text of which pieces come, or the whole."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def set(self, whole: str) -> None:
        self._pieces = [whole]

    def __str__(self) -> str:
        return "".join(self._pieces)


class _Part:
    """A part of an item, growing. `shape` is the part as it was announced."""

    __slots__ = ("field", "shape", "text")

    def __init__(self, shape: JSON, field: str) -> None:
        self.shape = shape
        self.field = field
        self.text = _Grown()

    def whole(self) -> JSON:
        return {**self.shape, self.field: str(self.text)}


class _Item:
    """An item of the output, growing. Once it is done it stands as it was sent."""

    __slots__ = ("done", "fields", "parts", "shape")

    def __init__(self, shape: JSON) -> None:
        self.shape = shape
        self.done = False
        self.parts: dict[tuple[str, int], _Part] = {}
        self.fields: dict[str, _Grown] = {}

    def whole(self) -> JSON:
        if self.done:
            return self.shape
        lists: dict[str, list[JSON]] = {}
        for (name, _), part in sorted(self.parts.items(), key=lambda entry: entry[0]):
            lists.setdefault(name, []).append(part.whole())
        return {**self.shape, **{name: str(text) for name, text in self.fields.items()}, **lists}


class ResponsesTranscript:
    """A Response (Transcript).

    Attributes:
        stored: the Response says that it is kept, so that a later call may go on from it. False before the first
            event that has the Response.
        background: the Response says that it is made in the background, so that its end may be seen by a later call.
        failure: the `error` of a response that failed, or of an `error` event; empty where a failed one has none.
    """

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self.stored = False
        self.background = False
        self.failure: Mapping[str, Any] | None = None
        self._items: dict[int, _Item] = {}
        self._output: list[JSON] | None = None
        self._ended: str | None = None
        self._reason: str | None = None
        self._complete = False

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take in one event; its kinds that are not known here have no content.

        Returns:
            True when it has content: a delta that is not empty, an item that is no empty message, or the end.

        Raises:
            Malformed: the event is none.
        """
        kind = event.get("type")
        if not isinstance(kind, str):
            raise Malformed("an event has no type")
        if kind in _BEGINNINGS:
            self._note(_object(event.get("response"), "a response"))
            return False
        if kind in _ENDS:
            self._end(_object(event.get("response"), "a response"), _ENDS[kind])
            return True
        if kind == "error":
            # the error's fields stand in the event itself; some servers put them into an `error` object
            inner = event.get("error")
            self.failure = inner if isinstance(inner, Mapping) else event
            self._ended = "failed"
            return True
        if kind in {"response.output_item.added", "response.output_item.done"}:
            return self._item(event, done=kind.endswith("done"))
        if kind in {"response.content_part.added", "response.content_part.done"}:
            return self._part(event)
        name, _, step = kind.rpartition(".")
        if step in {"delta", "done"} and (name in _PARTS or name in _FIELDS):
            return self._text(event, name, done=step == "done")
        return False

    def take(self, document: Mapping[str, Any]) -> None:
        """Take in a whole Response.

        Raises:
            Malformed: it has no status, or no output though it ended well.
        """
        status = document.get("status")
        if not isinstance(status, str) or status not in _STATUSES:
            raise Malformed("the response has no status")
        if status in {"completed", "incomplete"} and document.get("output") is None:
            raise Malformed("the response has no output")
        self._end(document, status)
        self._complete = status in _WHOLE

    def _note(self, document: Mapping[str, Any]) -> None:
        if self.id is None and isinstance(document.get("id"), str):
            self.id = document["id"]
        if self.model is None and isinstance(document.get("model"), str):
            self.model = document["model"]
        if (usage := usage_of_responses(document.get("usage"), document.get("service_tier"))) is not None:
            self.usage = usage
        self.stored = document.get("store") is not False
        self.background = document.get("background") is True

    def _end(self, document: Mapping[str, Any], status: str) -> None:
        output = [] if document.get("output") is None else document["output"]
        if not isinstance(output, list) or not all(isinstance(item, Mapping) for item in output):
            raise Malformed("the output is no array of objects")
        self._note(document)
        # some servers tell of the items in the stream only, and end with an empty list
        self._output = [dict(item) for item in output] if output or not self._items else None
        if self.usage is not None:  # OpenAI bills each search, and its usage has no word of them
            searches = sum(item.get("type") == "web_search_call" for item in self.said())
            self.usage = with_units(self.usage, web_search=searches)
        self._ended = status
        self._complete = status in {"completed", "incomplete"}
        details = document.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        self._reason = reason if status == "incomplete" and isinstance(reason, str) else None
        if status == "failed":
            error = document.get("error")
            self.failure = error if isinstance(error, Mapping) else {}

    def _item(self, event: Mapping[str, Any], *, done: bool) -> bool:
        shape = dict(_object(event.get("item"), "an item"))
        index = _index(event, "output_index")
        item = self._items.get(index)
        if item is None or not item.done or done:
            item = self._items[index] = _Item(shape)
            item.done = done
            if not done:
                self._split(item)
        return shape.get("type") != "message" or bool(shape.get("content"))

    def _split(self, item: _Item) -> None:
        """Let an item grow from what it has when it is announced."""
        for kind, field in _FIELDS.values():
            if item.shape.get("type") == kind and isinstance(item.shape.get(field), str):
                item.fields[field] = _Grown()
                item.fields[field].set(item.shape[field])
        for name in ("content", "summary"):
            for at, part in enumerate(_parts_of(item.shape.get(name))):
                item.parts[name, at] = _grown_part(part)

    def _part(self, event: Mapping[str, Any]) -> bool:
        part = _object(event.get("part"), "a part")
        index = _index(event, "content_index")
        item = self._growing(event, "message")
        if item.done:
            return False
        grown = item.parts["content", index] = _grown_part(part)
        return bool(str(grown.text))

    def _text(self, event: Mapping[str, Any], name: str, *, done: bool) -> bool:
        kind = _PARTS[name][0] if name in _PARTS else _FIELDS[name][0]
        field = _PARTS[name][3] if name in _PARTS else _FIELDS[name][1]
        said = event.get(field if done else "delta")
        if not isinstance(said, str):
            raise Malformed("a text of the stream is no string")
        place = 0
        if name in _PARTS:
            place = _index(event, "summary_index" if _PARTS[name][1] == "summary" else "content_index")
        item = self._growing(event, kind)
        if item.done:
            return bool(said) and not done
        if name in _PARTS:
            _, where, part_kind, _ = _PARTS[name]
            part = item.parts.get((where, place))
            if part is None or part.field != field:
                part = item.parts[where, place] = _Part({"type": part_kind}, field)
            text = part.text
        else:
            text = item.fields.setdefault(field, _Grown())
        if done:
            text.set(said)
        else:
            text.add(said)
        return bool(said) and not done

    def _growing(self, event: Mapping[str, Any], kind: str) -> _Item:
        """The item that an event is about; one that was never announced is of the kind that has such events."""
        index = _index(event, "output_index")
        item = self._items.get(index)
        if item is None:
            shape: JSON = {"type": kind, "role": "assistant"} if kind == "message" else {"type": kind}
            if isinstance(event.get("item_id"), str):
                shape["id"] = event["item_id"]
            item = self._items[index] = _Item(shape)
        return item

    @property
    def started(self) -> bool:
        """An item was seen, or the end."""
        return bool(self._items) or self._ended is not None

    @property
    def complete(self) -> bool:
        """The Response ended as completed or incomplete, and nothing failed; also a whole one still being made."""
        return self._complete and self.failure is None

    @property
    def finish_reasons(self) -> list[str | None]:
        """One entry: the status at the end, or why it is incomplete; None while there is no end."""
        return [self._reason or self._ended] if self.started else []

    def said(self) -> list[JSON]:
        """The items of the output: as the ended Response has them, else as far as they were told."""
        if self._output is not None:
            return self._output
        return [item.whole() for _, item in sorted(self._items.items())]


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Malformed(f"{what} of the stream is no object")
    return value


def _index(event: Mapping[str, Any], name: str) -> int:
    index = event.get(name)
    if isinstance(index, bool) or not isinstance(index, int):
        raise Malformed(f"an event's {name} is no integer")
    return index


def _parts_of(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (part for part in value if isinstance(part, Mapping))


def _grown_part(part: Mapping[str, Any]) -> _Part:
    field = "refusal" if part.get("type") == "refusal" else "text"
    grown = _Part(dict(part), field)
    if isinstance(part.get(field), str):
        grown.text.set(part[field])
    return grown
