"""Items of a response's conversation, put down as the messages of chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.responses.shape import array, full, mapping, text, unsupported
from gateway.core.responses.tools import BRINGING_TOOLS, Toolbox, packed
from gateway.core.wire import dumps
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}

#: Calls of tools that chat has not: what the model did stays in the conversation, as calls of functions.
_BUILT_IN_CALLS = {
    "local_shell_call": ("local_shell", "action"),
    "shell_call": ("shell", "action"),
    "apply_patch_call": ("apply_patch", "operation"),
}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_BUILT_IN_OUTPUTS = frozenset(f"{call}_output" for call in _BUILT_IN_CALLS)

#: What tools of OpenAI's own left behind. The answers that came of it are messages, which stay.
_LEFT_OUT = frozenset(
    {
        "code_interpreter_call",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "tool_search_call",
        "web_search_call",
    }
)


def kind_of(item: Mapping[str, Any], where: str) -> str:
    """Return an item's type; messages and references may come without one.

    Raises:
        InvalidRequest: it is no string, or missing where it is needed.
    """
    if item.get("type") is not None:
        return text(item["type"], f"{where}.type")
    if "role" in item:
        return "message"
    if set(item) <= {"id", "type"} and "id" in item:
        return "item_reference"
    raise InvalidRequest(f"{where}.type is required", param=f"{where}.type")


@dataclass
class _Turn:
    """One message of chat, and behind it the outputs of the tools that it calls.

    `waiting` has the calls that have no output yet, and where they stand.
    """

    role: str
    parts: list[JSON] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    calls: list[JSON] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    outputs: list[JSON] = field(default_factory=list)

    def messages(self) -> list[JSON]:
        message: JSON = {"role": self.role, "content": _content(self.parts)}
        if self.role == "assistant" and not self.parts:
            message["content"] = None
        if self.refusals:
            message["refusal"] = "".join(self.refusals)
        if self.calls:
            message["tool_calls"] = self.calls
        return [message, *self.outputs]


def _content(parts: list[JSON]) -> str | list[JSON]:
    if not parts:
        return ""
    if len(parts) == 1 and parts[0]["type"] == "text":
        only: str = parts[0]["text"]
        return only
    return parts


class Conversation:
    """Takes in items, oldest first.

    Calls that stand side by side become one message, and each output follows the message of its call, wherever it
    stood: chat has no other order. Reasoning is left out without a word, as its text is written for people and its
    encrypted form for OpenAI alone.

    Attributes:
        dropped: types of the items that chat cannot carry, as `input.<type>`.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self.dropped: dict[str, None] = {}
        self._toolbox = toolbox
        self._turns: list[_Turn] = []
        self._calls: dict[str, _Turn] = {}
        self._ids: set[str] = set()

    def instruct(self, instructions: str) -> None:
        """Take in the instructions, which stand in front of all."""
        self._turns.append(_Turn("system", [{"type": "text", "text": instructions}]))

    def add(self, item: object, where: str) -> None:
        """Take in one item.

        Args:
            item: of the input or of an earlier output.
            where: its place in the caller's body, such as `input.2`.

        Raises:
            InvalidRequest: its shape is wrong, or without it the answer would be one to another question.
        """
        given = mapping(item, where)
        kind = kind_of(given, where)
        if kind == "message":
            self._message(given, where)
        elif kind == "function_call":
            self._call(given, where, text(given.get("arguments"), f"{where}.arguments"))
        elif kind == "custom_tool_call":
            self._call(given, where, packed(text(given.get("input"), f"{where}.input")))
        elif kind in _BUILT_IN_CALLS:
            name, part = _BUILT_IN_CALLS[kind]
            arguments = dumps(mapping(given.get(part), f"{where}.{part}")).decode()
            self._call({"call_id": given.get("call_id"), "name": name}, where, arguments)
        elif kind in _OUTPUTS:
            call_id = full(given.get("call_id"), f"{where}.call_id")
            self._output(call_id, f"{where}.call_id", _output_of(given.get("output"), f"{where}.output"))
        elif kind in _BUILT_IN_OUTPUTS:
            self._built_in_output(given, where)
        elif kind == "item_reference":
            if full(given.get("id"), f"{where}.id") not in self._ids:
                raise InvalidRequest(f"{where} refers to an item that is not stored here", param=f"{where}.id")
        elif kind in _LEFT_OUT:
            self.dropped[f"input.{kind}"] = None
        elif kind not in BRINGING_TOOLS and kind != "reasoning":
            raise unsupported(
                f"{where} is of the type {kind!r}, which cannot be carried to this model", f"{where}.type"
            )
        if isinstance(given.get("id"), str):
            self._ids.add(given["id"])

    def messages(self) -> list[JSON]:
        """Return the messages.

        Raises:
            InvalidRequest: a call of a tool has no output, which no provider takes.
        """
        for turn in self._turns:
            for call_id, where in turn.waiting.items():
                raise InvalidRequest(f"{where} is a call without an output (call_id {call_id!r})", param=where)
        return [message for turn in self._turns for message in turn.messages()]

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role = _ROLES.get(text(item.get("role"), f"{where}.role"))
        if role is None:
            raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
        content = item.get("content")
        # the outputs must follow the calls at once, so what is said between them joins the calls
        turn = self._last() if role == "assistant" else None
        if turn is None or not turn.calls:
            turn = _Turn(role)
            self._turns.append(turn)
        if isinstance(content, str):
            turn.parts.append({"type": "text", "text": content})
            return
        for number, entry in enumerate(array(content, f"{where}.content")):
            here = f"{where}.content.{number}"
            part = mapping(entry, here)
            if role == "assistant" and part.get("type") == "refusal":
                turn.refusals.append(text(part.get("refusal"), f"{here}.refusal"))
            else:
                turn.parts.append(_part(part, here, only_text=role != "user"))

    def _last(self) -> _Turn | None:
        """The message of the assistant that goes on, where one does."""
        last = self._turns[-1] if self._turns else None
        return last if last is not None and last.role == "assistant" and not last.outputs else None

    def _call(self, item: Mapping[str, Any], where: str, arguments: str) -> None:
        call_id = full(item.get("call_id"), f"{where}.call_id")
        name = full(item.get("name"), f"{where}.name")
        namespace = item.get("namespace")
        if namespace is not None:
            namespace = text(namespace, f"{where}.namespace")
        turn = self._last()
        if turn is None:
            turn = _Turn("assistant")
            self._turns.append(turn)
        if call_id in turn.waiting:
            raise InvalidRequest(f"{where}.call_id is that of another call", param=f"{where}.call_id")
        function = {"name": self._toolbox.chat_name(name, namespace), "arguments": arguments}
        turn.calls.append({"id": call_id, "type": "function", "function": function})
        turn.waiting[call_id] = where
        self._calls[call_id] = turn

    def _output(self, call_id: str, where: str, content: str | list[JSON]) -> None:
        turn = self._calls.get(call_id)
        if turn is None or call_id not in turn.waiting:
            raise InvalidRequest(f"{where} is of no call that waits for an output", param=where)
        del turn.waiting[call_id]
        turn.outputs.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _built_in_output(self, item: Mapping[str, Any], where: str) -> None:
        # a local shell's output has its call's id as its own (API reference, "Local shell tool call output")
        name = "call_id" if item.get("call_id") is not None else "id"
        call_id = full(item.get(name), f"{where}.{name}")
        output = item.get("output")
        if not isinstance(output, str):  # a shell's streams and exit codes; a patch may say nothing but its status
            output = dumps({"status": item.get("status")} if output is None else output).decode()
        self._output(call_id, f"{where}.{name}", output)


def _output_of(output: object, where: str) -> str | list[JSON]:
    if isinstance(output, str):
        return output
    parts = enumerate(array(output, where))
    return _content([_part(mapping(entry, f"{where}.{number}"), f"{where}.{number}") for number, entry in parts])


def _part(part: Mapping[str, Any], where: str, *, only_text: bool = False) -> JSON:
    kind = text(part.get("type"), f"{where}.type")
    if kind in {"input_text", "output_text"}:
        return {"type": "text", "text": text(part.get("text"), f"{where}.text")}
    if only_text or kind not in _MEDIA:
        raise InvalidRequest(f"{where} is of the type {kind!r}, which cannot stand here", param=f"{where}.type")
    return _MEDIA[kind](part, where)


def _image(part: Mapping[str, Any], where: str) -> JSON:
    if part.get("file_id") is not None:
        raise unsupported(f"{where}.file_id names a file that this model cannot read", f"{where}.file_id")
    image = {"url": full(part.get("image_url"), f"{where}.image_url")}
    if part.get("detail") is not None:
        detail = text(part["detail"], f"{where}.detail")
        image["detail"] = "high" if detail == "original" else detail  # chat has no more than `high`
    return {"type": "image_url", "image_url": image}


def _file(part: Mapping[str, Any], where: str) -> JSON:
    if part.get("file_url") is not None:
        raise unsupported(f"{where}.file_url cannot be fetched for this model; send file_data", f"{where}.file_url")
    names = ("file_data", "file_id", "filename")
    file = {name: text(part[name], f"{where}.{name}") for name in names if part.get(name) is not None}
    if not {"file_data", "file_id"} & set(file):
        raise InvalidRequest(f"{where} has neither file_data nor file_id", param=where)
    return {"type": "file", "file": file}


def _audio(part: Mapping[str, Any], where: str) -> JSON:
    audio = mapping(part.get("input_audio"), f"{where}.input_audio")
    names = ("data", "format")
    return {
        "type": "input_audio",
        "input_audio": {name: text(audio.get(name), f"{where}.input_audio.{name}") for name in names},
    }


_MEDIA = {"input_image": _image, "input_file": _file, "input_audio": _audio}
