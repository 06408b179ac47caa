"""One row per operation that callers can ask for. Routes, checks, docs and tests read this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """What a known parameter may look like. Every bound that is not here is the provider's to judge.

    `types` are JSON types (`bool` is no `int`, an `int` is a `float`); null is always accepted where the field is
    not `required`.
    """

    types: tuple[type, ...]
    required: bool = False
    minimum: int | None = None
    maximum: int | None = None
    non_empty: bool = False
    items: type | None = None


@dataclass(frozen=True)
class Endpoint:
    """One operation.

    Attributes:
        name: the operation's name in traces (`chat gpt-4o-mini`).
        path: served as it is and without its `/v1`.
        method: the HTTP method.
        upstream: the function of LiteLLM that answers it.
        parameters: the fields that the operation knows; others travel as data.
        summary: one line for the docs.
    """

    name: str
    path: str
    method: str
    upstream: str
    parameters: dict[str, Field]
    summary: str


_TEXT = Field((str,))
_FLAG = Field((bool,))
_WHOLE = Field((int,))
_NUMBER = Field((float,))
_OBJECT = Field((dict,))
_CHOICES = Field((int,), minimum=1, maximum=128)  # n=1e30 has taken servers down; no provider allows more than 128

CHAT = Endpoint(
    name="chat",
    path="/v1/chat/completions",
    method="POST",
    upstream="completion",
    summary="Chat completions, streamed and not (OpenAI's dialect, any provider)",
    parameters={
        "model": Field((str,), required=True, non_empty=True),
        "messages": Field((list,), required=True, non_empty=True, items=dict),
        "audio": _OBJECT,
        "frequency_penalty": _NUMBER,
        "function_call": Field((str, dict)),
        "functions": Field((list,), items=dict),
        "logit_bias": _OBJECT,
        "logprobs": _FLAG,
        "max_completion_tokens": _WHOLE,
        "max_tokens": _WHOLE,
        "metadata": _OBJECT,
        "modalities": Field((list,), items=str),
        "moderation": Field((dict, bool, str)),
        "n": _CHOICES,
        "parallel_tool_calls": _FLAG,
        "prediction": _OBJECT,
        "presence_penalty": _NUMBER,
        "prompt_cache_key": _TEXT,
        "prompt_cache_options": _OBJECT,
        "prompt_cache_retention": _TEXT,
        "reasoning_effort": Field((str,)),
        "response_format": _OBJECT,
        "safety_identifier": _TEXT,
        "seed": _WHOLE,
        "service_tier": _TEXT,
        "stop": Field((str, list)),
        "store": _FLAG,
        "stream": _FLAG,
        "stream_options": _OBJECT,
        "temperature": _NUMBER,
        "thinking": _OBJECT,
        "tool_choice": Field((str, dict)),
        "tools": Field((list,), items=dict),
        "top_k": _WHOLE,
        "top_logprobs": _WHOLE,
        "top_p": _NUMBER,
        "user": _TEXT,
        "verbosity": _TEXT,
        "web_search_options": _OBJECT,
    },
)

MODELS = Endpoint(
    name="models",
    path="/v1/models",
    method="GET",
    upstream="",
    summary="The models that can be called here",
    parameters={},
)

ENDPOINTS: tuple[Endpoint, ...] = (CHAT, MODELS)


def fault_of(name: str, value: Any, field: Field) -> str | None:
    """Say what is wrong with one parameter, or None.

    Args:
        name: the parameter's name, for the sentence.
        value: a JSON value.
        field: its row.
    """
    if value is None:
        return f"{name} is required" if field.required else None
    if not _is_one_of(value, field.types):
        return f"{name} must be {_words(field.types)}"
    if field.non_empty and (not value or (isinstance(value, str) and not value.strip())):
        return f"{name} must not be empty"
    if field.items is not None and not all(_is_one_of(item, (field.items,)) for item in value):
        return f"every item of {name} must be {_words((field.items,))}"
    if field.minimum is not None and value < field.minimum:
        return f"{name} must be at least {field.minimum}"
    if field.maximum is not None and value > field.maximum:
        return f"{name} must be at most {field.maximum}"
    return None


_WORDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
}


def _is_one_of(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (isinstance(value, int) and float in types)


def _words(types: tuple[type, ...]) -> str:
    return " or ".join(_WORDS[kind] for kind in types)
