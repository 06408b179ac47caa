"""A Messages request as a chat completion.

Sources: Anthropic's API reference, "Create a Message", and OpenAI's, "Create chat completion".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from gateway.core.bridge import Bridged
from gateway.core.messages.reading import Reading, checked
from gateway.core.messages.tools import sent_name
from gateway.core.messages.turns import chat_messages

JSON = dict[str, Any]

#: Fields beyond OpenAI's reference that some readers of a chat body take. LiteLLM's translations for Claude models
#: elsewhere (Bedrock, Vertex) take all but the last; `reasoning_content` on an assistant's message is what DeepSeek
#: and its like want back. Servers of OpenAI's wire may refuse a body for any of them.
BEYOND = frozenset({"cache_control", "thinking", "thinking_blocks", "reasoning_content"})

#: Thinking budgets in tokens from which on an effort is meant: LiteLLM turns each effort into the budget beside it,
#: where a model wants a budget again.
_EFFORTS = ((4096, "high"), (2048, "medium"), (0, "low"))

#: The caller's name, the name in chat completions and the type of what goes over unchanged. `max_tokens` is refused by
#: OpenAI's reasoning models under its old name; LiteLLM gives the old one to providers that have it alone.
_SAME = (
    ("model", "model", str),
    ("stream", "stream", bool),
    ("max_tokens", "max_completion_tokens", int),
    ("temperature", "temperature", float),
    ("top_p", "top_p", float),
    ("top_k", "top_k", int),
)
_TIERS = {"auto": "auto", "standard_only": "default"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_READ = frozenset(
    {
        *(theirs for theirs, _, _ in _SAME),
        *("messages", "metadata", "output_config", "output_format", "service_tier", "stop_sequences", "system"),
        *("thinking", "tool_choice", "tools"),
    }
)
#: OpenAI refuses a longer `user`.
_MOST_USER_CHARS = 64


def to_chat(body: Mapping[str, Any], *, beyond: Collection[str] = ()) -> Bridged:
    """Say a `/v1/messages` body in chat completions.

    `thinking` with a budget and `output_config.effort` become `reasoning_effort` (the effort counts where both are
    there; adaptive thinking is what other models do by themselves). A schema for the answer is `strict` where it is
    as closed as OpenAI's strict mode demands. A `metadata.user_id` that is too long for OpenAI goes as its SHA-256.
    Tools that Anthropic runs or defines are dropped; long names of others are cut (`tools.original_names` undoes it).

    Args:
        body: a body that has been read; fields that are null count as absent.
        beyond: which fields of `BEYOND` the reader of the chat body takes; what needs the others is dropped.

    Returns:
        The chat body, and the names of what it cannot carry; a name without an index stands for every such place
        (`cache_control`, `messages.redacted_thinking`, `tools.web_search`).

    Raises:
        InvalidRequest: something that is read has a wrong type; `param` is the path to it (`messages.2.content.0`).
    """
    reading = Reading(beyond)
    chat: JSON = {}
    for theirs, ours, kind in _SAME:
        if body.get(theirs) is not None:
            chat[ours] = checked(body[theirs], theirs, kind)
    chat["messages"] = chat_messages(body, reading)
    stops = [
        checked(stop, f"stop_sequences.{number}", str)
        for number, stop in enumerate(_optional(body, "stop_sequences", list) or [])
    ]
    if stops:
        chat["stop"] = stops
    chat |= _tools(body, reading)
    chat |= _effort_and_format(body, reading)
    chat |= _about_the_call(body, reading)
    reading.drop_rest(body, _READ)
    return Bridged(chat, reading.dropped)


def _optional(value: Mapping[str, Any], name: str, kind: type, at: str = "") -> Any:
    got = value.get(name)
    return None if got is None else checked(got, at or name, kind)


# -- tools ---------------------------------------------------------------------------------------------------


def _tools(body: Mapping[str, Any], reading: Reading) -> JSON:
    functions = []
    for number, tool in enumerate(_optional(body, "tools", list) or []):
        function = _function(checked(tool, f"tools.{number}", dict), f"tools.{number}", reading)
        if function is not None:
            functions.append(function)
    choice = _optional(body, "tool_choice", dict)
    if not functions:  # a choice without tools is refused
        if choice is not None:
            reading.drop("tool_choice")
        return {}
    return {"tools": functions, **(_choice(choice, functions, reading) if choice is not None else {})}


def _function(tool: Mapping[str, Any], at: str, reading: Reading) -> JSON | None:
    kind = _optional(tool, "type", str, f"{at}.type")
    if kind not in (None, "custom"):  # Anthropic runs it, or trained its models on it: there is no schema to give
        reading.drop("tools", _optional(tool, "name", str, f"{at}.name") or kind)
        return None
    function: JSON = {"name": sent_name(checked(tool.get("name"), f"{at}.name", str))}
    for name, wanted in (("description", str), ("strict", bool)):
        if tool.get(name) is not None:
            function[name] = checked(tool[name], f"{at}.{name}", wanted)
    function["parameters"] = checked(tool.get("input_schema"), f"{at}.input_schema", dict)
    known = ("type", "name", "description", "strict", "input_schema", "cache_control")
    reading.drop_rest(tool, known, "tools")
    return reading.marked(tool, {"type": "function", "function": function})


def _choice(choice: Mapping[str, Any], functions: list[JSON], reading: Reading) -> JSON:
    got: JSON = {}
    kind = checked(choice.get("type"), "tool_choice.type", str)
    if kind == "tool":
        name = sent_name(checked(choice.get("name"), "tool_choice.name", str))
        if any(function["function"]["name"] == name for function in functions):
            got["tool_choice"] = {"type": "function", "function": {"name": name}}
        else:
            reading.drop("tool_choice")
    elif kind in _CHOICES:
        got["tool_choice"] = _CHOICES[kind]
    else:
        reading.drop("tool_choice")
    one_at_a_time = "disable_parallel_tool_use"
    if _optional(choice, one_at_a_time, bool, f"tool_choice.{one_at_a_time}"):
        got["parallel_tool_calls"] = False
    reading.drop_rest(choice, ("type", "name", one_at_a_time), "tool_choice")
    return got


# -- thinking and the answer's form --------------------------------------------------------------------------


def _effort_and_format(body: Mapping[str, Any], reading: Reading) -> JSON:
    config = _optional(body, "output_config", dict) or {}
    thinking = _optional(body, "thinking", dict)
    got: JSON = {}
    effort = _optional(config, "effort", str, "output_config.effort")
    if thinking is not None and "thinking" in reading.beyond:
        got["thinking"] = thinking
        if effort is not None:  # LiteLLM would put a budget of its own in the place of the caller's
            reading.drop("output_config", "effort")
    elif (effort := effort or _effort_of(thinking, reading)) is not None:
        got["reasoning_effort"] = effort
    wanted = _optional(config, "format", dict, "output_config.format")
    older = _optional(body, "output_format", dict)  # the beta's name
    if wanted is not None and older is not None:
        reading.drop("output_format")
    for asked, at in ((wanted, "output_config.format"), (older, "output_format")):
        if asked is not None:
            got |= _response_format(asked, at, reading)
            break
    reading.drop_rest(config, ("effort", "format"), "output_config")
    return got


def _effort_of(thinking: Mapping[str, Any] | None, reading: Reading) -> str | None:
    if thinking is None:
        return None
    kind = checked(thinking.get("type"), "thinking.type", str)
    reading.drop_rest(thinking, ("type", "budget_tokens"), "thinking")
    if kind == "enabled":
        budget = checked(thinking.get("budget_tokens"), "thinking.budget_tokens", int)
        return next((effort for least, effort in _EFFORTS if budget >= least), _EFFORTS[-1][1])
    if kind != "adaptive":  # not to think is no effort that every reasoning model knows
        reading.drop("thinking")
    return None


def _response_format(asked: Mapping[str, Any], at: str, reading: Reading) -> JSON:
    kind = checked(asked.get("type"), f"{at}.type", str)
    if kind != "json_schema":
        reading.drop(*at.split("."))
        return {}
    schema = checked(asked.get("schema"), f"{at}.schema", dict)
    reading.drop_rest(asked, ("type", "schema"), *at.split("."))
    form: JSON = {"name": "answer", "schema": schema}  # chat completions want a name, and do nothing with it
    if _is_closed(schema):
        form["strict"] = True
    return {"response_format": {"type": "json_schema", "json_schema": form}}


def _is_closed(schema: Any) -> bool:
    """Every object of the schema names all its properties as required and allows no other.

    OpenAI's guide "Structured Outputs" demands it of a strict schema; Anthropic lets properties be optional.
    """
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if schema.get("additionalProperties") is not False:
            return False
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            return False
        if any(name not in required for name in properties):
            return False
    return all(map(_is_closed, schema.values()))


# -- about the call ------------------------------------------------------------------------------------------


def _about_the_call(body: Mapping[str, Any], reading: Reading) -> JSON:
    got: JSON = {}
    metadata = _optional(body, "metadata", dict) or {}
    user = _optional(metadata, "user_id", str, "metadata.user_id")
    if user:
        long = len(user) > _MOST_USER_CHARS
        got["user"] = hashlib.sha256(user.encode("utf-8", "replace")).hexdigest() if long else user
    reading.drop_rest(metadata, ("user_id",), "metadata")
    tier = _optional(body, "service_tier", str)
    if tier in _TIERS:
        got["service_tier"] = _TIERS[tier]
    elif tier is not None:
        reading.drop("service_tier")
    return got
