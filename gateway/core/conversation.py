"""A conversation as parts, whatever wire it was spoken on: for readers of traces, and for OpenTelemetry.

The shape is that of OpenTelemetry's messages (https://github.com/open-telemetry/semantic-conventions-genai): a message
is `{"role", "parts"}`, a part `{"type": "text" | "reasoning", "content"}`, `{"type": "tool_call", "id", "name",
"arguments"}`, `{"type": "tool_call_response", "id", "response"}`, or what the wire has for anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

JSON = dict[str, Any]


def messages_of(asked: Any) -> list[JSON]:
    """Return what was asked, the `input` of a row, as messages: `{"role", "parts"}` each."""
    if isinstance(asked, str):
        return [{"role": "user", "parts": [{"type": "text", "content": asked}]}]
    if not isinstance(asked, list):
        return []
    return [_message(one) if isinstance(one, Mapping) else {"role": "user", "parts": _parts(one)} for one in asked]


def choices_of(said: Any) -> list[JSON]:
    """Return what was said, the `output` of a row, as messages that have a `finish_reason` as well."""
    choices = said if isinstance(said, list) else [said] if said is not None else []
    told = []
    for choice in choices:
        inner = choice.get("message") if isinstance(choice, Mapping) else None
        message = _message(inner if isinstance(inner, Mapping) else choice if isinstance(choice, Mapping) else {})
        if not isinstance(choice, Mapping):
            message["parts"] = _parts(choice)
        reason = choice.get("finish_reason") if isinstance(choice, Mapping) else None
        told.append({**message, "role": message.get("role") or "assistant", "finish_reason": str(reason or "")})
    return told


def _message(message: Mapping[str, Any]) -> JSON:
    parts: list[JSON] = []
    if isinstance(thought := message.get("reasoning_content"), str):
        parts.append({"type": "reasoning", "content": thought})
    if message.get("role") == "tool":
        parts.append(
            {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": message.get("content")}
        )
    else:
        parts += _parts(message.get("content"))
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = _mapping(_mapping(call).get("function"))
        parts.append(
            {
                "type": "tool_call",
                "id": _mapping(call).get("id"),
                "name": function.get("name"),
                "arguments": _read(function.get("arguments")),
            }
        )
    return {"role": str(message.get("role") or ""), "parts": parts}


def _parts(content: Any) -> list[JSON]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    if not isinstance(content, list):
        return [{"type": "text", "content": json.dumps(content, ensure_ascii=False)}]
    found: list[JSON] = []
    for part in content:
        if not isinstance(part, Mapping):
            found.append({"type": "text", "content": str(part)})
        elif isinstance(part.get("text"), str):
            found.append({"type": "text", "content": part["text"]})
        elif part.get("type") == "tool_use":
            call = {"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")}
            found.append({"type": "tool_call", **call})
        elif part.get("type") == "tool_result":
            answer = {"id": part.get("tool_use_id"), "response": part.get("content")}
            found.append({"type": "tool_call_response", **answer})
        else:
            found.append(dict(part))
    return found


def _read(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _mapping(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}
