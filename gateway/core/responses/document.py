"""The Response object (API reference, "The response object")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.usage import Usage

JSON = dict[str, Any]

_FUNCTION: JSON = {"type": "function", "description": None, "parameters": None, "strict": None}


def response(
    body: Mapping[str, Any],
    *,
    response_id: str,
    created_s: int,
    status: str,
    model: object,
    output: list[JSON],
    usage: Usage | None = None,
    incomplete: str | None = None,
    error: JSON | None = None,
    service_tier: str | None = None,
) -> JSON:
    """Make a Response.

    What the caller left out stands there with the API's default; null where the provider has one of its own.

    Args:
        body: the caller's, of which the answer repeats the parameters.
        response_id: `resp_…`.
        created_s: seconds since the epoch.
        status: `in_progress`, `completed`, `incomplete` or `failed`.
        model: the one that answers; None or no string means the one that was asked for.
        output: its items so far.
        usage: the tokens of the answer; None where nobody counted them.
        incomplete: why the answer is not whole: `max_output_tokens` or `content_filter`.
        error: `code` and `message` of a failure.
        service_tier: the tier that the provider says it served; else the caller's stands.
    """

    def asked(name: str, default: Any = None) -> Any:
        value = body.get(name)
        return default if value is None else value

    return {
        "id": response_id,
        "object": "response",
        "created_at": created_s,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": error,
        "incomplete_details": None if incomplete is None else {"reason": incomplete},
        "instructions": asked("instructions"),
        "max_output_tokens": asked("max_output_tokens"),
        "max_tool_calls": asked("max_tool_calls"),
        "model": model if isinstance(model, str) and model else asked("model", ""),
        "output": output,
        "parallel_tool_calls": asked("parallel_tool_calls", True),
        "previous_response_id": asked("previous_response_id"),
        "prompt_cache_key": asked("prompt_cache_key"),
        "prompt_cache_retention": asked("prompt_cache_retention"),
        "reasoning": {"effort": None, "summary": None, **_mapping(body.get("reasoning"))},
        "safety_identifier": asked("safety_identifier"),
        "service_tier": service_tier or asked("service_tier"),
        "store": body.get("store") is not False,
        "temperature": asked("temperature"),
        "text": {"format": {"type": "text"}, **_given(body.get("text"))},
        "tool_choice": asked("tool_choice", "auto"),
        "tools": [_tool(tool) for tool in asked("tools", [])],
        "top_logprobs": asked("top_logprobs", 0),
        "top_p": asked("top_p"),
        "truncation": "disabled",
        "usage": None if usage is None else usage_as_told(usage),
        "user": asked("user"),
        "metadata": asked("metadata", {}),
    }


def usage_as_told(usage: Usage) -> JSON:
    """Write tokens as this wire has them. OpenAI's convention: cached ones are part of the input."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def _tool(tool: Any) -> Any:
    return {**_FUNCTION, **tool} if isinstance(tool, Mapping) and tool.get("type") == "function" else tool


def _given(value: object) -> JSON:
    return {name: part for name, part in _mapping(value).items() if part is not None}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
