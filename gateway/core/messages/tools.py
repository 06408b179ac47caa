"""Names and inputs of tools, which the Messages wire and chat completions write differently."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

#: OpenAI's limit (API reference, `function.name`); Anthropic's is 128, and names of MCP tools do get longer.
MOST_NAME_CHARS = 64

_HASH_CHARS = 8
_SIGNS = re.compile(r'\\.|[\\"{}\[\]]', re.DOTALL)


def sent_name(name: str) -> str:
    """Return a tool's name as chat completions can have it: itself, or cut off with a hash for its end.

    The same name becomes the same one in every request, so that earlier turns and caches fit.
    """
    if len(name) <= MOST_NAME_CHARS:
        return name
    end = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:_HASH_CHARS]
    return f"{name[: MOST_NAME_CHARS - _HASH_CHARS - 1]}_{end}"


def original_names(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the caller's names of the tools that `sent_name` changed, by the name that was sent.

    Args:
        body: of `/v1/messages`, whatever it holds.
    """
    tools = body.get("tools")
    names = [tool.get("name") for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else []
    return {sent_name(name): name for name in names if isinstance(name, str) and sent_name(name) != name}


def read_input(arguments: str) -> dict[str, Any] | None:
    """Read the arguments of a call as a tool's input.

    Returns:
        The object; an empty one for no arguments at all or null, as models call tools that take none; None where
        the arguments are no JSON object.
    """
    if not arguments.strip():
        return {}
    try:
        got = _DECODER.decode(arguments)
    except (ValueError, RecursionError):  # cut off, no JSON at all, or nested beyond what anybody means
        return None
    if got is None:
        return {}
    return got if isinstance(got, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class Arguments:
    """Follows the arguments of a call as they come, and knows when their object is whole. Each piece is read once."""

    __slots__ = ("_begun", "_depth", "_escaped", "_quoted")

    def __init__(self) -> None:
        self._begun = self._quoted = self._escaped = False
        self._depth = 0

    @property
    def whole(self) -> bool:
        """The object has ended: nothing but white space may follow."""
        return self._begun and self._depth <= 0

    def feed(self, piece: str) -> None:
        """Take in the next piece; it may end within an escape."""
        if not piece:
            return
        if self._escaped:
            piece, self._escaped = piece[1:], False
        for sign in _SIGNS.findall(piece):
            if sign == '"':
                self._quoted = not self._quoted
            elif sign == "\\":  # the last character: what it escapes comes with the next piece
                self._escaped = True
            elif self._quoted or len(sign) > 1:
                continue
            elif sign in "{[":
                self._begun = True
                self._depth += 1
            else:
                self._depth -= 1
