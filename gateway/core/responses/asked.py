"""A request of `/v1/responses`, asked as a chat completion (API reference, "Create a model response")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from gateway.core.bridge import Bridged
from gateway.core.responses.messages import Conversation, kind_of
from gateway.core.responses.shape import array, full, mapping, text, unsupported
from gateway.core.responses.tools import Toolbox
from gateway.core.wire import dumps
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

#: Parameters that chat has under the same name, and with the same meaning.
_ALIKE = (
    "model",
    "stream",
    "temperature",
    "top_p",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
#: Parameters that are read one by one below.
_READ = frozenset(
    {
        *("input", "instructions", "previous_response_id", "tools", "tool_choice", "parallel_tool_calls"),
        *("max_output_tokens", "text", "reasoning", "include", "top_logprobs"),
    }
)
#: Without these the model would be asked something else.
_REFUSED = {
    "background": "an answer in the background cannot be had from this model",
    "conversation": "conversations are not kept for this model; send previous_response_id or the items themselves",
    "prompt": "stored prompts are not known to this model; send instructions and input",
}
#: Values that ask for nothing beyond what chat does anyway.
_NOTHING_ASKED: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "truncation": ("disabled",),
    "stream_options": ({}, {"include_obfuscation": False}),
}
_LOGPROBS = "message.output_text.logprobs"

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fc",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctc",
    "reasoning": "rs",
}


def to_chat(body: JSON, history: Sequence[JSON] = ()) -> Bridged:
    """Ask with a chat completion what a body of `/v1/responses` asks.

    `instructions` stand first, as the system's message; then come the history and the input. Developers' messages
    become the system's, which every provider knows. A custom tool becomes a function with one string; a namespace
    gives its name to the functions in it; `told.FromChat` turns both back.

    Args:
        body: the caller's, its parameters' types already checked.
        history: the input and output items of the responses before it, oldest first.

    Raises:
        InvalidRequest: a value is of the wrong shape (`param` is its place, such as `input.2.content.0`), or the
            body asks for what no chat completion gives and cannot be left out: `background`, `conversation`,
            `prompt`, an image by `file_id`, a file by `file_url`, items that only OpenAI can read, a reference to an
            item that is not in `history`.
    """
    dropped: dict[str, None] = {}
    chat: JSON = {}
    for name, value in body.items():
        if value is None or name in _READ or value in _NOTHING_ASKED.get(name, ()):
            continue
        if name in _REFUSED:
            raise unsupported(_REFUSED[name], name)
        if name in _ALIKE:
            chat[name] = value
        else:
            dropped[name] = None
    items = _conversation(body, history)
    toolbox = Toolbox(body, items)
    conversation = Conversation(toolbox)
    if body.get("instructions") is not None:
        conversation.instruct(text(body["instructions"], "instructions"))
    for where, item in items:
        conversation.add(item, where)
    chat["messages"] = conversation.messages()
    if not items or not chat["messages"]:
        raise InvalidRequest("input is required", param="input")
    tools, choice = toolbox.choice(body.get("tool_choice"))
    if tools:  # without tools, providers refuse what is said about them
        chat["tools"] = tools
        if choice is not None:
            chat["tool_choice"] = choice
        if body.get("parallel_tool_calls") is not None:
            chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    for part in (_text_of(body, dropped), _reasoning_of(body, dropped), _logprobs_of(body, dropped)):
        chat.update(part)
    return Bridged(chat, tuple({**dropped, **toolbox.dropped, **conversation.dropped}))


def toolbox_of(body: Mapping[str, Any], history: Sequence[JSON] = ()) -> Toolbox:
    """Gather the tools of a call, as `to_chat` does.

    Raises:
        InvalidRequest: see `to_chat`.
    """
    return Toolbox(body, _conversation(body, history))


def wants_logprobs(body: Mapping[str, Any]) -> bool:
    """Tell whether the caller asked for the log probabilities of the answer's tokens."""
    include, top = body.get("include"), body.get("top_logprobs")
    listed = isinstance(include, list) and _LOGPROBS in include
    return listed or (isinstance(top, int) and not isinstance(top, bool) and top > 0)


def item_id(position: int, item: Mapping[str, Any]) -> str:
    """Make an id from an item's place and content: the same for the same, of 32 hex digits behind its prefix."""
    prefix = _PREFIXES.get(str(item.get("type")), "item")
    return f"{prefix}_{sha256(dumps([position, item])).hexdigest()[:32]}"


def items_of(body: JSON, name: Callable[[int, JSON], str] = item_id) -> list[JSON]:
    """Return the input as items, as `GET /v1/responses/{id}/input_items` lists them, oldest first.

    Messages have their `type`, and their content as parts.

    Args:
        body: the caller's; its history is not part of its input.
        name: makes the id of an item that has none, from its place (from 0) and itself.

    Raises:
        InvalidRequest: the input is neither a string nor an array of items.
    """
    given = body.get("input")
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    items = []
    for number, entry in enumerate(array(given, "input")):
        where = f"input.{number}"
        item = dict(mapping(entry, where))
        item["type"] = kind_of(item, where)
        if item["type"] == "message":
            item.setdefault("status", "completed")
            if isinstance(item.get("content"), str):
                item["content"] = [_text_part(item.get("role"), item["content"])]
        if not isinstance(item.get("id"), str) or not item["id"]:
            item["id"] = name(number, {key: value for key, value in item.items() if key != "id"})
        items.append(item)
    return items


def references_of(body: Mapping[str, Any]) -> set[str]:
    """The ids of the items that the input only refers to; whose they are is for the provider's side to know."""
    given = body.get("input")
    items = [item for item in given if isinstance(item, Mapping)] if isinstance(given, list) else []
    ids = (item.get("id") for item in items if item.get("type") in (None, "item_reference") and "role" not in item)
    return {one for one in ids if isinstance(one, str)}


def response_of(item_id: str) -> str:
    """The id of the response that an item of `told.FromChat`'s belongs to; of any other item one that there is not."""
    return "resp_" + item_id.partition("_")[2][:-4]


def with_items(body: JSON, items: Mapping[str, JSON]) -> JSON:
    """Put items in the places that only refer to them, without their ids, which no provider knows.

    Args:
        body: the caller's, whose input is an array.
        items: what is to be put in, by id; other references stay.
    """

    def told(item: Any) -> Any:
        refers = isinstance(item, Mapping) and item.get("type") in (None, "item_reference") and "role" not in item
        found = items.get(item.get("id")) if refers else None
        return item if found is None else {name: value for name, value in found.items() if name not in ("id", "status")}

    return {**body, "input": [told(item) for item in body["input"]]}


def continued(body: JSON, history: Sequence[JSON]) -> JSON:
    """Put a conversation that the provider does not know in front of a body's input.

    Ids of its items mean nothing there, and reasoning can be read only by whoever made it.
    """
    known = [
        {name: value for name, value in item.items() if name not in ("id", "status")}
        for item in history
        if item.get("type") not in ("reasoning", "item_reference")  # what is referred to stands there itself
    ]
    given = body.get("input") or []
    asked = [{"role": "user", "content": given}] if isinstance(given, str) else given
    rest = {name: value for name, value in body.items() if name != "previous_response_id"}
    return {**rest, "input": [*known, *asked]}


def _text_part(role: object, content: str) -> JSON:
    if role == "assistant":
        return {"type": "output_text", "text": content, "annotations": []}
    return {"type": "input_text", "text": content}


def _conversation(body: Mapping[str, Any], history: Sequence[JSON]) -> list[tuple[str, object]]:
    given = body.get("input")
    before: list[tuple[str, object]] = [(f"previous_response_id.{at}", item) for at, item in enumerate(history)]
    if given is None:
        return before
    if isinstance(given, str):
        return [*before, ("input", {"type": "message", "role": "user", "content": given})]
    return [*before, *((f"input.{at}", item) for at, item in enumerate(array(given, "input")))]


def _text_of(body: Mapping[str, Any], dropped: dict[str, None]) -> JSON:
    chat: JSON = {}
    if body.get("text") is None:
        return chat
    for name, value in mapping(body["text"], "text").items():
        if value is None:
            continue
        if name == "format":
            chat.update(_format_of(mapping(value, "text.format")))
        elif name == "verbosity":
            chat["verbosity"] = text(value, "text.verbosity")
        else:
            dropped[f"text.{name}"] = None
    return chat


def _format_of(form: Mapping[str, Any]) -> JSON:
    kind = text(form.get("type"), "text.format.type")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    if kind != "json_schema":
        raise InvalidRequest("text.format.type must be one of text, json_object, json_schema", param="text.format.type")
    full(form.get("name"), "text.format.name")
    mapping(form.get("schema"), "text.format.schema")
    names = ("name", "description", "schema", "strict")
    schema = {name: form[name] for name in names if form.get(name) is not None}
    return {"response_format": {"type": kind, kind: schema}}


def _reasoning_of(body: Mapping[str, Any], dropped: dict[str, None]) -> JSON:
    chat: JSON = {}
    if body.get("reasoning") is None:
        return chat
    for name, value in mapping(body["reasoning"], "reasoning").items():
        if value is None:
            continue
        if name == "effort":
            chat["reasoning_effort"] = text(value, "reasoning.effort")
        elif name not in {"summary", "generate_summary"}:  # what a provider tells of its reasoning is told anyway
            dropped[f"reasoning.{name}"] = None
    return chat


def _logprobs_of(body: Mapping[str, Any], dropped: dict[str, None]) -> JSON:
    include = body.get("include")
    if include is not None and any(name != _LOGPROBS for name in array(include, "include")):
        dropped["include"] = None
    if not wants_logprobs(body):
        return {}
    top = body.get("top_logprobs")
    return {"logprobs": True} if top is None else {"logprobs": True, "top_logprobs": top}
