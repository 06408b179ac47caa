"""Streams of both wires, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.core.responses.told import FromChat

JSON = dict[str, Any]

OPENAI_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

#: What is opened in a stream, and what closes it.
PAIRS = {
    "response.output_item.added": "response.output_item.done",
    "response.content_part.added": "response.content_part.done",
    "response.reasoning_summary_part.added": "response.reasoning_summary_part.done",
}


def chunk(finish_reason: str | None = None, **delta: Any) -> JSON:
    """A chunk of the first choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "served", "choices": [choice]}


def tool(index: int, arguments: str = "", **named: str) -> JSON:
    """A delta's piece of a tool call; `id` and `name` where it has them."""
    function = {"arguments": arguments, **({"name": named.pop("name")} if "name" in named else {})}
    return {"index": index, "type": "function", "function": function, **named}


def told(chunks: Iterable[JSON], **body: Any) -> list[JSON]:
    """All events of a stream with these chunks, looked at as OpenAI's SDK and this wire's rules would."""
    teller = FromChat({"model": "asked", **body}, "resp_ab", 1_700_000_000)
    events = [event for piece in chunks for event in teller.feed(piece)] + teller.end()
    check(events)
    return events


def check(events: list[JSON]) -> None:
    """Every event is one of OpenAI's, in number; what was opened is closed, once, and is in the last event."""
    open_places: list[tuple[str, Any, Any]] = []
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        OPENAI_EVENT.validate_python(event)
        part = event.get("content_index", event.get("summary_index"))
        if event["type"] in PAIRS:
            open_places.append((PAIRS[event["type"]], event["output_index"], part))
        elif event["type"] in PAIRS.values():
            open_places.remove((event["type"], event["output_index"], part))
    assert open_places == []
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    assert events[-1]["response"]["output"] == [done[index] for index in sorted(done)]
