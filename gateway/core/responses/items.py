"""Items of an answer that grow, and the events that tell of it (API reference, "Responses", streaming events).

Each event is yielded without its `sequence_number`, which is the stream's to give.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from gateway.core.responses.tools import Tool, Toolbox, unpacked
from gateway.core.transcript import Malformed

JSON = dict[str, Any]

IN_PROGRESS = "in_progress"
COMPLETED = "completed"
INCOMPLETE = "incomplete"


class Item(Protocol):
    """One item of the output.

    Attributes:
        done: all of it was told.
    """

    done: bool

    def begin(self) -> Iterator[JSON]:
        """Tell that it is there."""

    def end(self, status: str) -> Iterator[JSON]:
        """Tell that it is whole (`COMPLETED`), or that it will not become so (`INCOMPLETE`)."""

    def whole(self, status: str) -> JSON:
        """The item so far; once it is done, as it was told, whatever `status` says."""


class Reasoning:
    """What the model thought (Item), as a summary of one part."""

    def __init__(self, index: int, item_id: str) -> None:
        self.done = False
        self._at = {"item_id": item_id, "output_index": index}
        self._place = {**self._at, "summary_index": 0}
        self._texts: list[str] = []

    def begin(self) -> Iterator[JSON]:
        """Tell that it is there."""
        item: JSON = {"id": self._at["item_id"], "type": "reasoning", "summary": []}
        yield {"type": "response.output_item.added", "output_index": self._at["output_index"], "item": item}
        yield {"type": "response.reasoning_summary_part.added", **self._place, "part": _summary("")}

    def grow(self, text: str) -> JSON:
        """Take in a piece that is not empty."""
        self._texts.append(text)
        return {"type": "response.reasoning_summary_text.delta", **self._place, "delta": text}

    def end(self, status: str) -> Iterator[JSON]:
        """Tell the whole of it, once."""
        self.done = True
        text = "".join(self._texts)
        yield {"type": "response.reasoning_summary_text.done", **self._place, "text": text}
        yield {"type": "response.reasoning_summary_part.done", **self._place, "part": _summary(text)}
        item = self.whole(status)
        yield {"type": "response.output_item.done", "output_index": self._at["output_index"], "item": item}

    def whole(self, status: str) -> JSON:
        """The item so far."""
        return {"id": self._at["item_id"], "type": "reasoning", "summary": [_summary("".join(self._texts))]}


def _summary(text: str) -> JSON:
    return {"type": "summary_text", "text": text}


class _Part:
    """A part of a message: text, or a refusal."""

    def __init__(self, refusal: bool) -> None:
        self.refusal = refusal
        self.texts: list[str] = []
        self.logprobs: list[JSON] = []

    def whole(self) -> JSON:
        text = "".join(self.texts)
        if self.refusal:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self.logprobs)}


class Message:
    """What the model says to the caller (Item)."""

    def __init__(self, index: int, item_id: str) -> None:
        self.done = False
        self._status = IN_PROGRESS
        self._index = index
        self._id = item_id
        self._parts: list[_Part] = []

    def begin(self) -> Iterator[JSON]:
        """Tell that it is there."""
        yield {"type": "response.output_item.added", "output_index": self._index, "item": self.whole(IN_PROGRESS)}

    def grow(self, text: str, *, refusal: bool = False, logprobs: list[JSON] | None = None) -> Iterator[JSON]:
        """Take in a piece that is not empty, with the log probabilities of its tokens where they were asked for."""
        if not self._parts or self._parts[-1].refusal is not refusal:
            yield from self._end_part()
            self._parts.append(_Part(refusal))
            yield {"type": "response.content_part.added", **self._place, "part": self._parts[-1].whole()}
        part = self._parts[-1]
        part.texts.append(text)
        if refusal:
            yield {"type": "response.refusal.delta", **self._place, "delta": text}
            return
        part.logprobs.extend(logprobs or [])
        yield {"type": "response.output_text.delta", **self._place, "delta": text, "logprobs": logprobs or []}

    @property
    def _place(self) -> JSON:
        return {"item_id": self._id, "output_index": self._index, "content_index": len(self._parts) - 1}

    def _end_part(self) -> Iterator[JSON]:
        if not self._parts:
            return
        part = self._parts[-1].whole()
        if self._parts[-1].refusal:
            yield {"type": "response.refusal.done", **self._place, "refusal": part["refusal"]}
        else:
            said = {"text": part["text"], "logprobs": part["logprobs"]}
            yield {"type": "response.output_text.done", **self._place, **said}
        yield {"type": "response.content_part.done", **self._place, "part": part}

    def end(self, status: str) -> Iterator[JSON]:
        """Tell the whole of it, once."""
        yield from self._end_part()
        self.done, self._status = True, status
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.whole(status)}

    def whole(self, status: str) -> JSON:
        """The item so far."""
        return {
            "id": self._id,
            "type": "message",
            "status": self._status if self.done else status,
            "role": "assistant",
            "content": [part.whole() for part in self._parts],
        }


class Call:
    """A call of a tool (Item), which may have to wait until its name is known.

    Args:
        tail: what ids of this answer end with, but for the index.
    """

    def __init__(self, toolbox: Toolbox, tail: str) -> None:
        self.done = False
        self.open = False
        self._status = IN_PROGRESS
        self._toolbox = toolbox
        self._tail = tail
        self._call_id = ""
        self._name = ""
        self._arguments: list[str] = []
        self._index = 0
        self._id = ""
        self._tool: Tool | None = None

    def take(self, call_id: object, name: object, arguments: object) -> Iterator[JSON]:
        """Take in a piece of chat's tool call, whatever it has of these."""
        more = arguments if isinstance(arguments, str) else ""
        if self.done:
            if more.strip():
                raise Malformed("a tool call goes on after its arguments were whole")
            return
        if not self.open:
            self._call_id = call_id if isinstance(call_id, str) and call_id else self._call_id
            self._name = name if isinstance(name, str) and name else self._name
        if more:
            self._arguments.append(more)
            if self.open and not self._custom:
                yield {"type": "response.function_call_arguments.delta", **self._place, "delta": more}

    @property
    def ready(self) -> bool:
        """Enough is known to tell that it is there."""
        return bool(self._name and (self._call_id or self._arguments))

    @property
    def finished(self) -> bool:
        """Its arguments are a whole object, to which nothing can be added."""
        try:
            return isinstance(json.loads("".join(self._arguments)), dict)
        except (ValueError, RecursionError):
            return False

    def place(self, index: int) -> None:
        """Give it its place in the output."""
        self._tool = self._toolbox.called(self._name)
        self._index = index
        self._id = f"{'ctc' if self._custom else 'fc'}_{self._tail}{index:04x}"
        self._call_id = self._call_id or f"call_{self._tail}{index:04x}"
        self.open = True

    def begin(self) -> Iterator[JSON]:
        """Tell that it is there."""
        item = self._item(IN_PROGRESS, "")
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
        if self._arguments and not self._custom:
            delta = "".join(self._arguments)
            yield {"type": "response.function_call_arguments.delta", **self._place, "delta": delta}

    def end(self, status: str) -> Iterator[JSON]:
        """Tell the whole of it, once."""
        said = self._said()
        if self._custom:  # packed in JSON, it can be read when it is whole
            if said:
                yield {"type": "response.custom_tool_call_input.delta", **self._place, "delta": said}
            yield {"type": "response.custom_tool_call_input.done", **self._place, "input": said}
        else:
            yield {"type": "response.function_call_arguments.done", **self._place, "arguments": said}
        self.done, self._status = True, status
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.whole(status)}

    def whole(self, status: str) -> JSON:
        """The item so far."""
        return self._item(self._status if self.done else status, self._said())

    @property
    def _custom(self) -> bool:
        return self._tool is not None and self._tool.custom

    @property
    def _place(self) -> JSON:
        return {"item_id": self._id, "output_index": self._index}

    def _said(self) -> str:
        arguments = "".join(self._arguments)
        return unpacked(arguments) if self._custom else arguments

    def _item(self, status: str, said: str) -> JSON:
        item: JSON = {
            "id": self._id,
            "type": "custom_tool_call" if self._custom else "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._tool.name if self._tool is not None else self._name,
            "input" if self._custom else "arguments": said,
        }
        if self._tool is not None and self._tool.namespace is not None:
            item["namespace"] = self._tool.namespace
        return item
