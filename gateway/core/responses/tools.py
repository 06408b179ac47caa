"""The tools of a response, under the names that they have in chat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from gateway.core.responses.shape import array, full, mapping, text
from gateway.core.wire import dumps
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

#: The longest name of a function (API reference, chat completions, `tools[].function.name`).
LONGEST_NAME = 64
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")

#: The namespace of tools that have no other: Codex names it, and calls of its tools come without one.
DEFAULT_NAMESPACE = "functions"

#: Items that bring tools with them, as a call's `tools` do.
BRINGING_TOOLS = ("additional_tools", "tool_search_output")


@dataclass(frozen=True)
class Tool:
    """One tool that the model may call.

    Attributes:
        name: its own name, within `namespace` where it has one.
        custom: takes free text; in chat it is a function with one string, `input`.
        chat: its definition in chat completions.
    """

    name: str
    namespace: str | None
    custom: bool
    chat: JSON


class Toolbox:
    """The tools of one call: those of its `tools`, and those that items of its conversation bring.

    What chat does not have (`web_search`, `mcp`, `shell`, `apply_patch`, …) is left out and named in `dropped`. A
    tool of a namespace is a function whose name holds both names; a tool whose loading is deferred is there at once.

    Args:
        body: of `/v1/responses`.
        items: the conversation, oldest first; of two tools with one name the later stands.

    Raises:
        InvalidRequest: a tool is of the wrong shape, or `tools` has a name twice.
    """

    def __init__(self, body: Mapping[str, Any], items: Sequence[tuple[str, object]] = ()) -> None:
        self.dropped: dict[str, None] = {}
        self._tools: dict[tuple[str | None, str], Tool] = {}
        found: list[tuple[str, str | None, Mapping[str, Any]]] = []
        if body.get("tools") is not None:
            found.extend(self._found(body["tools"], "tools"))
        self._refuse_twins(found)
        for where, item in items:
            if isinstance(item, Mapping) and item.get("type") in BRINGING_TOOLS:
                found.extend(self._found(item.get("tools"), f"{where}.tools"))
        # plain names are the caller's own and stay; those made of two names give way to them
        self._plain = {tool["name"] for _, namespace, tool in found if namespace is None}
        for where, namespace, tool in found:
            name: str = tool["name"]
            made = self._custom if tool["type"] == "custom" else self._function
            definition = {"type": "function", "function": made(self.chat_name(name, namespace), tool, where)}
            self._tools[namespace, name] = Tool(name, namespace, tool["type"] == "custom", definition)
        self._by_chat_name = {tool.chat["function"]["name"]: tool for tool in self._tools.values()}

    def _found(
        self, tools: object, where: str, within: str | None = None
    ) -> Iterator[tuple[str, str | None, Mapping[str, Any]]]:
        for number, entry in enumerate(array(tools, where)):
            here = f"{where}.{number}"
            tool = mapping(entry, here)
            kind = full(tool.get("type"), f"{here}.type")
            if kind == "namespace" and within is None:
                yield from self._found(tool.get("tools"), f"{here}.tools", full(tool.get("name"), f"{here}.name"))
            elif kind in {"function", "custom"}:
                full(tool.get("name"), f"{here}.name")
                yield here, _namespace(within), tool
            else:
                self.dropped[f"tools.{kind}"] = None

    def _refuse_twins(self, found: list[tuple[str, str | None, Mapping[str, Any]]]) -> None:
        seen = set()
        for where, namespace, tool in found:
            if (namespace, tool["name"]) in seen:
                raise InvalidRequest(f"{where}.name is the name of another tool too", param=f"{where}.name")
            seen.add((namespace, tool["name"]))

    def _function(self, chat_name: str, tool: Mapping[str, Any], where: str) -> JSON:
        function: JSON = {"name": chat_name}
        if tool.get("description") is not None:
            function["description"] = text(tool["description"], f"{where}.description")
        if tool.get("parameters") is not None:
            function["parameters"] = mapping(tool["parameters"], f"{where}.parameters")
        if tool.get("strict") is not None:
            if not isinstance(tool["strict"], bool):
                raise InvalidRequest(f"{where}.strict must be a boolean", param=f"{where}.strict")
            function["strict"] = tool["strict"]
        return function

    def _custom(self, chat_name: str, tool: Mapping[str, Any], where: str) -> JSON:
        argument: JSON = {"type": "string"}
        if tool.get("format") is not None:
            form = mapping(tool["format"], f"{where}.format")
            if form.get("type") == "grammar":
                syntax = text(form.get("syntax"), f"{where}.format.syntax")
                grammar = text(form.get("definition"), f"{where}.format.definition")
                # nobody holds the model to it here, so the model is at least told
                argument["description"] = f"Text that follows this {syntax} grammar:\n{grammar}"
                self.dropped["tools.custom.format"] = None
        function: JSON = {"name": chat_name}
        if tool.get("description") is not None:
            function["description"] = text(tool["description"], f"{where}.description")
        function["parameters"] = {
            "type": "object",
            "properties": {"input": argument},
            "required": ["input"],
            "additionalProperties": False,
        }
        return function

    @property
    def definitions(self) -> list[JSON]:
        """All tools as chat has them."""
        return [tool.chat for tool in self._tools.values()]

    def called(self, chat_name: str) -> Tool | None:
        """Find the tool that a model called; None where it made the name up."""
        return self._by_chat_name.get(chat_name)

    def chat_name(self, name: str, namespace: str | None) -> str:
        """Return the name that a tool has in chat, also of one that an earlier call had and this one has not.

        A name of two that is too long, or taken, is cut and told apart by eight digits of a hash.
        """
        namespace = _namespace(namespace)
        if namespace is None:
            return name
        joined = _FOREIGN.sub("_", f"{namespace}__{name}")
        if len(joined) <= LONGEST_NAME and joined == f"{namespace}__{name}" and joined not in self._plain:
            return joined
        digits = sha256(dumps([namespace, name])).hexdigest()[:8]
        return f"{joined[: LONGEST_NAME - 9]}_{digits}"

    def choice(self, asked: object) -> tuple[list[JSON], str | JSON | None]:
        """Read `tool_choice` in every form of the API reference.

        A list of allowed tools becomes the list of tools, since few providers know the former. A choice of a tool
        that was left out is left out too, and named in `dropped`.

        Returns:
            The tools of the call, and chat's `tool_choice`; None where nothing is to be said.

        Raises:
            InvalidRequest: it is none of the forms, or names a tool that the call does not have.
        """
        tools = self.definitions
        if asked is None:
            return tools, None
        if isinstance(asked, str):
            return tools, self._mode(asked, "tool_choice", ("none", "auto", "required"), tools)
        given = mapping(asked, "tool_choice")
        kind = full(given.get("type"), "tool_choice.type")
        if kind == "allowed_tools":
            allowed = [
                tool
                for number, entry in enumerate(array(given.get("tools"), "tool_choice.tools"))
                for tool in self._meant(mapping(entry, f"tool_choice.tools.{number}"), f"tool_choice.tools.{number}")
            ]
            kept = [tool for tool in tools if tool in allowed]
            mode = text(given.get("mode"), "tool_choice.mode")
            return kept, self._mode(mode, "tool_choice.mode", ("auto", "required"), kept)
        if kind in {"function", "custom"}:
            [tool] = self._meant(given, "tool_choice")
            return tools, {"type": "function", "function": {"name": tool["function"]["name"]}}
        self.dropped[f"tool_choice.{kind}"] = None
        return tools, None

    def _mode(self, mode: str, where: str, modes: tuple[str, ...], tools: list[JSON]) -> str | None:
        if mode not in modes:
            raise InvalidRequest(f"{where} must be one of {', '.join(modes)}", param=where)
        if tools:
            return mode
        if mode == "required":  # of nothing: the tools were left out
            self.dropped["tool_choice"] = None
        return None

    def _meant(self, reference: Mapping[str, Any], where: str) -> list[JSON]:
        kind = full(reference.get("type"), f"{where}.type")
        if kind == "namespace":
            within = _namespace(full(reference.get("name"), f"{where}.name"))
            return [tool.chat for tool in self._tools.values() if tool.namespace == within]
        if kind not in {"function", "custom"}:
            return []
        name = full(reference.get("name"), f"{where}.name")
        namespace = reference.get("namespace")
        if namespace is not None:
            namespace = _namespace(text(namespace, f"{where}.namespace"))
        tool = self._tools.get((namespace, name))
        if tool is None:
            raise InvalidRequest(f"{where} names {name!r}, which is none of the tools", param=f"{where}.name")
        return [tool.chat]


def _namespace(name: str | None) -> str | None:
    return None if name == DEFAULT_NAMESPACE else name


def packed(given: str) -> str:
    """Pack a custom tool's text into the arguments of the function that stands for it."""
    return dumps({"input": given}).decode()


def unpacked(arguments: str) -> str:
    """Return a custom tool's text; what is not packed as it was asked for is the text itself."""
    try:
        packed_ = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    given = packed_.get("input") if isinstance(packed_, dict) and len(packed_) == 1 else None
    return given if isinstance(given, str) else arguments
