"""A chat completion as an answer of Anthropic's Messages API.

Source: Anthropic's API reference, "Create a Message", and its guide "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.messages.tools import Arguments, read_input
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage, usage_of
from gateway.core.wire import dumps

JSON = dict[str, Any]
_Piece = Mapping[str, Any]

#: Chat completions' reasons, and those of servers that have names of their own. An unknown one is told as it came.
_STOP_REASONS = {
    "stop": "end_turn",
    "eos": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_DELTAS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


class FromChat:
    """Tells a chat completion in the Messages wire (Teller). Of several choices only the first exists here.

    Blocks of a Messages stream never interleave, deltas of a chat completion may. So one block is open at a time and
    grows live. A text or thinking block ends as soon as something else can begin; a tool's ends when its arguments
    are a whole JSON object, and until then what comes beside it waits in order.

    Args:
        message_id: begins with `msg_`; told where the provider gave no such id.
        model: told where the provider names none.
        names: the caller's names of tools by those that were sent (`tools.original_names`).
    """

    def __init__(self, message_id: str, model: str, names: Mapping[str, str] | None = None) -> None:
        self._id = message_id
        self._model = model
        self._names = names or {}
        self._usage: Usage | None = None
        self._reason: str | None = None
        self._refused = self._called = False
        self._started = False
        self._told = 0
        self._open: _Block | None = None
        self._waiting: list[_Block] = []
        self._tools: dict[int, _Block] = {}

    def whole(self, completion: Mapping[str, Any]) -> JSON:
        """Tell an answer that was not streamed.

        Raises:
            Malformed: it has no first choice with a message, or a tool call without a name or whose arguments are no
                JSON object (cut off by `length` they are told as an empty one, as no client runs such a call).
        """
        self._note(completion)
        choice = _first_choice(completion)
        message = choice.get("message") if choice is not None else None
        if choice is None or not isinstance(message, Mapping):
            raise Malformed("the answer has no first choice with a message")
        self._finish(choice.get("finish_reason"))
        content: list[JSON] = [dict(thought) for thought in _thoughts(message)]
        if text := _text(message.get("content")) + self._refusal(message):
            content.append({"type": "text", "text": text})
        for call in _calls(message):
            block = _Block("tool_use")
            block.grow_call(call)
            content.append(self._tool_use(block, len(content)))
        return {
            **self._head(),
            "content": content,
            "stop_reason": self._stop_reason(),
            "usage": _told_usage(self._usage),
        }

    def feed(self, chunk: Mapping[str, Any]) -> list[JSON]:
        """Tell one chunk of a stream.

        Raises:
            Malformed: its choices, their delta or its tool calls are none, or arguments go on after their end.
        """
        self._note(chunk)
        choice = _first_choice(chunk)
        if choice is None:  # the usage's chunk, or what a server says of the prompt before it answers
            return []
        delta = choice.get("delta")
        if delta is not None and not isinstance(delta, Mapping):
            raise Malformed("a delta is no object")
        events = self._start()
        for thought in _thoughts(delta or {}):
            events += self._grow_thinking(thought)
        if text := _text((delta or {}).get("content")) + self._refusal(delta or {}):
            events += self._grow("text", text)
        for call in _calls(delta or {}):
            events += self._grow_tool(call)
        if self._finish(choice.get("finish_reason")):
            events += self._advance(all_of_it=True)
        return events

    def end(self) -> list[JSON]:
        """Tell the end: blocks that are open, `message_delta` with the usage, `message_stop`.

        The `stop_reason` is null where no `finish_reason` came, and counts are 0 where no usage came.

        Raises:
            Malformed: a tool call never got its name.
        """
        events = [*self._start(), *self._advance(all_of_it=True)]
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": _told_usage(self._usage)})
        return [*events, {"type": "message_stop"}]

    # -- the message ---------------------------------------------------------------------------------------------

    def failed(self, message: str, code: str | None) -> None:
        """Nothing: an `error` event ends this wire."""

    def _note(self, piece: _Piece) -> None:
        if (usage := usage_of(piece.get("usage"))) is not None:
            self._usage = usage
        if self._started:
            return
        if isinstance(own := piece.get("id"), str) and own.startswith("msg_"):
            self._id = own
        if isinstance(model := piece.get("model"), str) and model:
            self._model = model

    def _head(self) -> JSON:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _start(self) -> list[JSON]:
        if self._started:
            return []
        self._started = True
        message = {**self._head(), "usage": _told_usage(self._usage)}
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def _finish(self, reason: object) -> bool:
        if not isinstance(reason, str) or not reason:
            return False
        self._reason = reason
        return True

    def _stop_reason(self) -> str | None:
        if self._reason is None:
            return None
        told = _STOP_REASONS.get(self._reason, self._reason)
        if told == "end_turn" and self._refused:
            return "refusal"
        # OpenAI says "stop" where the request named the function to call, others always do
        return "tool_use" if told == "end_turn" and self._called else told

    def _refusal(self, piece: _Piece) -> str:
        refusal = piece.get("refusal")
        if not isinstance(refusal, str) or not refusal:
            return ""
        self._refused = True
        return refusal

    def _tool_use(self, block: _Block, index: int) -> JSON:
        told = self._tool_start(block, index)
        told["input"] = read_input(block.take())
        if told["input"] is None:
            if self._reason != "length":
                raise Malformed("the arguments of a tool call are no JSON object")
            told["input"] = {}
        return told

    def _tool_start(self, block: _Block, index: int) -> JSON:
        if not block.name:
            raise Malformed("a tool call has no name")
        self._called = True
        call_id = block.id or f"toolu_{self._id.removeprefix('msg_')}_{index}"  # each call of an answer needs its own
        return {"type": "tool_use", "id": call_id, "name": self._names.get(block.name, block.name), "input": {}}

    # -- blocks of the stream ------------------------------------------------------------------------------------

    def _grow_thinking(self, thought: _Piece) -> list[JSON]:
        if thought["type"] == "redacted_thinking":
            self._waiting.append(_Block("redacted_thinking", data=thought["data"]))
            return self._advance()
        events = self._grow("thinking", thought["thinking"]) if thought["thinking"] else []
        if thought["signature"]:
            events += self._grow("thinking", "", signature=thought["signature"])
        return events

    def _grow(self, kind: str, text: str, signature: str = "") -> list[JSON]:
        block = self._waiting[-1] if self._waiting else self._open
        if self._open is not None and self._open.kind == kind:  # a call that still has no name must not hold text back
            block = self._open
        if block is None or block.kind != kind or block.signature:
            block = _Block(kind)
            self._waiting.append(block)
        block.pieces.append(text)
        block.signature = signature
        return self._advance()

    def _grow_tool(self, call: _Piece) -> list[JSON]:
        index = call.get("index", 0)
        if isinstance(index, bool) or not isinstance(index, int):
            raise Malformed("a tool call's index is no integer")
        block = self._tools.get(index)
        if block is None or block.is_another(call):
            block = self._tools[index] = _Block("tool_use")
            self._waiting.append(block)
        before = len(block.pieces)
        block.grow_call(call)
        if block.closed and "".join(block.pieces[before:]).strip():
            raise Malformed("the arguments of a tool call go on after their end")
        return self._advance()

    def _advance(self, *, all_of_it: bool = False) -> list[JSON]:
        """Tell what can be told now: the open block's growth, and of those that wait each whose turn has come."""
        events = self._growth()
        while self._waiting and (all_of_it or self._has_turn(self._waiting[0])):
            events += self._close()
            events += self._begin(self._waiting.pop(0))
        return [*events, *self._close()] if all_of_it else events

    def _has_turn(self, block: _Block) -> bool:
        return (self._open is None or self._open.over) and (block.kind != "tool_use" or bool(block.name))

    def _begin(self, block: _Block) -> list[JSON]:
        index, self._told = self._told, self._told + 1
        block.index = index
        self._open = block
        start = self._tool_start(block, index) if block.kind == "tool_use" else block.empty()
        return [{"type": "content_block_start", "index": index, "content_block": start}, *self._growth()]

    def _growth(self) -> list[JSON]:
        block = self._open
        if block is None:
            return []
        deltas: list[JSON] = []
        if grown := block.take():
            kind, field = _DELTAS.get(block.kind, ("input_json_delta", "partial_json"))
            deltas.append({"type": kind, field: grown})
        if block.signature and not block.signed:
            block.signed = True
            deltas.append({"type": "signature_delta", "signature": block.signature})
        return [{"type": "content_block_delta", "index": block.index, "delta": delta} for delta in deltas]

    def _close(self) -> list[JSON]:
        block, self._open = self._open, None
        if block is None:
            return []
        block.closed = True
        return [{"type": "content_block_stop", "index": block.index}]


class _Block:
    """A content block that is being told, or waits until it can be."""

    __slots__ = ("_arguments", "closed", "data", "id", "index", "kind", "name", "pieces", "signature", "signed")

    def __init__(self, kind: str, data: str = "") -> None:
        self.kind = kind
        self.data = data
        self.id = self.name = self.signature = ""
        self.index = 0
        self.pieces: list[str] = []
        self.closed = self.signed = False
        self._arguments = Arguments()

    @property
    def over(self) -> bool:
        """Nothing more belongs to it once something else has come."""
        return self.kind != "tool_use" or self._arguments.whole

    def is_another(self, call: _Piece) -> bool:
        """The call is a new one: some servers give all of them the same index."""
        call_id = call.get("id")
        return self.over and isinstance(call_id, str) and "" not in (call_id, self.id) and call_id != self.id

    def grow_call(self, call: _Piece) -> None:
        function = call.get("function")
        if isinstance(call_id := call.get("id"), str) and call_id:
            self.id = call_id
        if not isinstance(function, Mapping):
            return
        if isinstance(name := function.get("name"), str) and name:
            self.name = name
        arguments = function.get("arguments")
        piece = dumps(arguments).decode() if isinstance(arguments, Mapping) else arguments
        if isinstance(piece, str) and piece:
            self.pieces.append(piece)
            self._arguments.feed(piece)

    def take(self) -> str:
        grown = "".join(self.pieces)
        self.pieces.clear()
        return grown

    def empty(self) -> JSON:
        """The block as its `content_block_start` shows it."""
        if self.kind == "text":
            return {"type": "text", "text": ""}
        if self.kind == "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": self.kind, "data": self.data}


def _first_choice(piece: _Piece) -> _Piece | None:
    choices = piece.get("choices")
    if choices is None:
        return None
    if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
        raise Malformed("choices is no array of objects")
    return next((choice for choice in choices if (choice.get("index") or 0) == 0), None)


def _text(content: object) -> str:
    """A content as text: itself, or its parts of that kind (Mistral's API has such)."""
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text")
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _thoughts(piece: _Piece) -> Iterator[_Piece]:
    """The thinking of a message or delta: LiteLLM's `thinking_blocks`, else its text under either of its names."""
    blocks = piece.get("thinking_blocks")
    known = False
    for block in blocks if isinstance(blocks, list) else ():
        if not isinstance(block, Mapping):
            raise Malformed("a thinking block is no object")
        if block.get("type") == "redacted_thinking":
            known = True
            yield {"type": "redacted_thinking", "data": _text(block.get("data"))}
        elif block.get("type") == "thinking":
            known = True
            fields = {name: _text(block.get(name)) for name in ("thinking", "signature")}
            if any(fields.values()):
                yield {"type": "thinking", **fields}
    text = _text(piece.get("reasoning_content")) or _text(piece.get("reasoning"))
    if text and not known:
        yield {"type": "thinking", "thinking": text, "signature": ""}


def _calls(piece: _Piece) -> list[_Piece]:
    calls = piece.get("tool_calls")
    if calls is None:
        function = piece.get("function_call")  # the older form of the only call
        return [{"function": function}] if isinstance(function, Mapping) else []
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise Malformed("a tool call is no object")
    return calls


def _told_usage(usage: Usage | None) -> JSON:
    """Anthropic's convention: the three counts of input do not overlap."""
    usage = usage or Usage()
    told: JSON = {
        "input_tokens": usage.prompt - usage.cached - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told
