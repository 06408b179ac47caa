"""The turns of a Messages request as the messages of a chat completion.

Sources: Anthropic's API reference, "Create a Message" (content blocks), and OpenAI's, "Create chat completion".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.messages.reading import Reading, checked
from gateway.core.messages.tools import sent_name
from gateway.core.wire import dumps
from gateway.errors import InvalidRequest

JSON = dict[str, Any]
_Block = Mapping[str, Any]

_THINKING = ("thinking", "redacted_thinking")
#: What chat completions have no word for: a tool message has no flag of failure, and holds text alone.
_FAILED = "Error"
_ELSEWHERE = "The result is in the next message."


def chat_messages(body: Mapping[str, Any], reading: Reading) -> list[JSON]:
    """Turn `system` and `messages` into messages of a chat completion.

    A user's turn becomes a tool message for each result in it and then one of the user for the rest, as chat
    completions want results right behind their calls. Images and documents in a result move into the user's message,
    since a tool message holds text alone. A failed result says so at the head of its text. Text that came as one
    string or one block goes out as one string. Turns of which nothing can be carried are left out. A last turn of
    the assistant's goes as it is; only some models take it up (Anthropic's "prefill").

    Raises:
        InvalidRequest: something has a wrong type, or there is nothing left to send; `param` is the path to it.
    """
    messages: list[JSON] = []
    if body.get("system") is not None:
        messages += _system(body["system"], "system", reading)
    turns = checked(body.get("messages"), "messages", list)
    before = len(messages)
    for number, turn in enumerate(turns):
        at = f"messages.{number}"
        checked(turn, at, dict)
        role = checked(turn.get("role"), f"{at}.role", str)
        reading.drop_rest(turn, ("role", "content"), "messages")
        if role == "user":
            messages += _user(turn.get("content"), f"{at}.content", reading)
        elif role == "assistant":
            messages += _assistant(turn.get("content"), f"{at}.content", reading)
        elif role == "system":
            messages += _system(turn.get("content"), f"{at}.content", reading)
        else:
            raise InvalidRequest(f"{at}.role must be user, assistant or system", param=f"{at}.role")
    if len(messages) == before:
        raise InvalidRequest("messages holds nothing that can be given to this model", param="messages")
    return messages


def _system(content: Any, at: str, reading: Reading) -> list[JSON]:
    parts = [part for part in _parts(content, at, reading) if part["type"] == "text"]
    return [{"role": "system", "content": _content(parts)}] if parts else []


def _user(content: Any, at: str, reading: Reading) -> list[JSON]:
    results: list[JSON] = []
    parts: list[JSON] = []
    rest: list[JSON] = []
    for block, where in _blocks(content, at):
        if block["type"] == "tool_result":
            result, media = _tool_result(block, where, reading)
            results.append(result)
            parts += media
        else:
            rest += _block_parts(block, where, reading)
    parts += rest
    return [*results, {"role": "user", "content": _content(parts)}] if parts else results


def _assistant(content: Any, at: str, reading: Reading) -> list[JSON]:
    parts: list[JSON] = []
    calls: list[JSON] = []
    thoughts: list[JSON] = []
    for block, where in _blocks(content, at):
        if block["type"] == "tool_use":
            calls.append(_tool_use(block, where, reading))
        elif block["type"] in _THINKING:
            thoughts.append(_thought(block, where))
        elif block["type"] == "text":
            parts += _block_parts(block, where, reading)
        else:  # what Anthropic's own tools did and found; an assistant's message has no place for media either
            reading.drop("messages", block["type"])
    message: JSON = {"role": "assistant", "content": _content(parts) if parts else None}
    if calls:
        message["tool_calls"] = calls
    message |= _carried(thoughts, reading)
    return [message] if len(message) > 2 or parts else []


def _carried(thoughts: list[JSON], reading: Reading) -> JSON:
    """What the assistant thought, in the fields that the reader takes."""
    fields: JSON = {}
    if thoughts and "thinking_blocks" in reading.beyond:
        fields["thinking_blocks"] = thoughts
    if "reasoning_content" in reading.beyond and (text := "".join(each.get("thinking", "") for each in thoughts)):
        fields["reasoning_content"] = text
    if not fields:
        for thought in thoughts:
            reading.drop("messages", thought["type"])
    return fields


def _thought(block: _Block, at: str) -> JSON:
    fields = ("thinking", "signature") if block["type"] == "thinking" else ("data",)
    return {"type": block["type"], **{name: checked(block.get(name, ""), f"{at}.{name}", str) for name in fields}}


def _tool_use(block: _Block, at: str, reading: Reading) -> JSON:
    function = {
        "name": sent_name(checked(block.get("name"), f"{at}.name", str)),
        "arguments": dumps(checked(block.get("input"), f"{at}.input", dict)).decode(),
    }
    call_id = checked(block.get("id"), f"{at}.id", str)
    # `caller` says which of Anthropic's own tools called; those do not travel
    known = ("type", "id", "name", "input", "caller", "cache_control")
    reading.drop_rest(block, known, "messages", "tool_use")
    return reading.marked(block, {"id": call_id, "type": "function", "function": function})


def _tool_result(block: _Block, at: str, reading: Reading) -> tuple[JSON, list[JSON]]:
    """The tool message of a result, and what of the result only a user's message can hold."""
    call_id = checked(block.get("tool_use_id"), f"{at}.tool_use_id", str)
    content = block.get("content")
    parts = [] if content is None else _parts(content, f"{at}.content", reading)
    texts = [part for part in parts if part["type"] == "text"]
    media = [part for part in parts if part["type"] != "text"]
    if media:
        texts = texts or [_text(_ELSEWHERE)]
        media = [_text(f"From the result of the tool call {call_id}:"), *media]
    if checked(block.get("is_error") or False, f"{at}.is_error", bool):
        first = {**texts[0], "text": f"{_FAILED}: {texts[0]['text']}"} if texts else _text(_FAILED)
        texts = [first, *texts[1:]]
    known = ("type", "tool_use_id", "content", "is_error", "cache_control")
    reading.drop_rest(block, known, "messages", "tool_result")
    message: JSON = {"role": "tool", "tool_call_id": call_id, "content": _content(texts) if texts else ""}
    return reading.marked(block, message), media


def _content(parts: list[JSON]) -> str | list[JSON]:
    """One text goes as a string, which every server reads; parts stay parts."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        text: str = parts[0]["text"]
        return text
    return parts


def _blocks(content: Any, at: str) -> list[tuple[_Block, str]]:
    """The blocks of a content, each with its path; a string is short for one block of text."""
    if isinstance(content, str):
        return [(_text(content), at)]
    blocks = []
    for number, block in enumerate(checked(content, at, str, list)):
        where = f"{at}.{number}"
        checked(block, where, dict)
        checked(block.get("type"), f"{where}.type", str)
        blocks.append((block, where))
    return blocks


def _parts(content: Any, at: str, reading: Reading) -> list[JSON]:
    return [part for block, where in _blocks(content, at) for part in _block_parts(block, where, reading)]


def _block_parts(block: _Block, at: str, reading: Reading) -> list[JSON]:
    """The parts of a chat message that one block becomes; none where it cannot be carried."""
    kind: str = block["type"]
    known: tuple[str, ...]
    if kind == "text":
        parts, known = [_text(checked(block.get("text"), f"{at}.text", str))], ("text",)
    elif kind == "image":
        parts, known = _image(block, at), ("source",)
    elif kind == "document":
        parts, known = _document(block, at, reading), ("source", "title", "context")
    elif kind == "search_result":
        parts, known = _search_result(block, at, reading), ("source", "title", "content")
    else:
        parts = []
    if not parts:
        reading.drop("messages", kind)
        return []
    reading.drop_rest(block, ("type", "cache_control", *known), "messages", kind)
    reading.marked(block, parts[-1])
    return parts


def _text(text: str) -> JSON:
    return {"type": "text", "text": text}


def _image(block: _Block, at: str) -> list[JSON]:
    source = checked(block.get("source"), f"{at}.source", dict)
    kind = checked(source.get("type"), f"{at}.source.type", str)
    if kind == "base64":
        url = _data_url(source, f"{at}.source")
    elif kind == "url":
        url = checked(source.get("url"), f"{at}.source.url", str)
    else:  # a file that Anthropic keeps
        return []
    return [{"type": "image_url", "image_url": {"url": url}}]


def _document(block: _Block, at: str, reading: Reading) -> list[JSON]:
    source = checked(block.get("source"), f"{at}.source", dict)
    kind = checked(source.get("type"), f"{at}.source.type", str)
    heads = [checked(block[name], f"{at}.{name}", str) for name in ("title", "context") if block.get(name) is not None]
    if kind == "base64":
        name = block.get("title") or "document.pdf"  # a file part that is sent whole must have a name
        file = {"filename": name, "file_data": _data_url(source, f"{at}.source")}
        return [*map(_text, filter(None, [block.get("context")])), {"type": "file", "file": file}]
    if kind == "text":
        data = checked(source.get("data"), f"{at}.source.data", str)
        return [_text("\n\n".join([*filter(None, heads), data]))]
    if kind == "content":
        parts = _parts(source.get("content"), f"{at}.source.content", reading)
        return [*map(_text, filter(None, heads)), *parts] if parts else []
    return []  # by address or as a file that Anthropic keeps: chat completions have neither


def _search_result(block: _Block, at: str, reading: Reading) -> list[JSON]:
    heads = [checked(block.get(name), f"{at}.{name}", str) for name in ("title", "source")]
    found = _parts(checked(block.get("content"), f"{at}.content", list), f"{at}.content", reading)
    return [_text("\n\n".join(["\n".join(heads), *(part["text"] for part in found if part["type"] == "text")]))]


def _data_url(source: _Block, at: str) -> str:
    media_type = checked(source.get("media_type"), f"{at}.media_type", str)
    return f"data:{media_type};base64,{checked(source.get('data'), f'{at}.data', str)}"
