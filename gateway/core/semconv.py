"""A span of ours in the words of OpenTelemetry's semantic conventions for generative AI.

https://github.com/open-telemetry/semantic-conventions-genai (schema gen-ai/1.42.0, all of it still "Development").
What has no name there begins with `gateway.`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.conversation import choices_of, messages_of

JSON = dict[str, Any]
#: What an attribute may be.
Value = str | bool | int | float | Sequence[str]

_OPERATIONS = {
    **dict.fromkeys(("chat", "responses", "messages"), "chat"),
    "completions": "text_completion",
    "embeddings": "embeddings",
}
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
#: Parameters of a request, as callers name them.
_REQUEST = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
_METRICS = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "prompt_cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "prompt_cache_creation_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "completion_reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "time_to_first_token": "gen_ai.response.time_to_first_chunk",
    "estimated_cost": "gateway.cost_usd",
}
#: What the root and the LLM spans say besides; of the root's, as it stands in the metadata.
_GATEWAY = {
    "request_id": "gateway.request_id",
    "client_request_id": "gateway.client_request_id",
    "caller": "gateway.caller",
    "key_id": "gateway.key.id",
    "key_name": "gateway.key.name",
    "caller_project": "gateway.project",
    "caller_user": "gateway.user",
    "caller_gone": "gateway.caller_gone",
    "attempts": "gateway.attempts",
    "attempt": "gateway.attempt",
    "overhead_ms": "gateway.overhead_ms",
    "usage_estimated": "gateway.usage_estimated",
    "interrupted": "gateway.interrupted",
    "stream": "gen_ai.request.stream",
    "status": "http.response.status_code",
}
_LONGEST_TEXT = 64 << 10


@dataclass(frozen=True)
class Span:
    """A span as OpenTelemetry has it. Ids are hex, times nanoseconds since the epoch.

    Attributes:
        parent_span_id: empty for a root.
        entry: it stands for the request that came in, not for one that went out.
        error: what went wrong; None where nothing did.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    entry: bool
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Value]
    error: str | None = None


class NoSpan(ValueError):
    """A row that cannot be one; says why."""


def span_of(row: object, *, content: bool) -> Span | None:
    """Translate a row of a trace (`tracing.rows`).

    Args:
        row: as it was written for Braintrust, a JSON object.
        content: whether messages are told as well (the conventions have them off unless asked for).

    Returns:
        None for a row whose call is still open: here a span comes once, when it has ended.

    Raises:
        NoSpan: ids or times are missing or none.
    """
    if not isinstance(row, Mapping):
        raise NoSpan("a row is no JSON object")
    metadata, metrics = _mapping(row.get("metadata")), _mapping(row.get("metrics"))
    started_s, ended_s = _seconds(metrics.get("start")), _seconds(metrics.get("end"))
    if ended_s is None:
        return None
    named = _mapping(row.get("span_attributes"))
    entry = named.get("type") == "task"
    parents = row.get("span_parents")
    parent = parents[0] if isinstance(parents, list) and parents else ""
    trace_id, span_id = row.get("root_span_id"), row.get("span_id")
    if isinstance(continued := metadata.get("traceparent"), str):  # an OpenTelemetry client's trace goes on here
        trace_id, parent = continued[3:35], continued[36:52] if entry else parent
    if not (_is_hex(trace_id, 32) and _is_hex(span_id, 16) and started_s is not None):
        raise NoSpan("a row has no ids or no beginning that OpenTelemetry knows")
    error = row.get("error")
    attributes = _attributes(row, metadata, metrics, entry=entry)
    if error is not None:
        attributes["error.type"] = str(metadata.get("error_code") or "error")
    if content:
        attributes |= _content(row)
    return Span(
        str(trace_id),
        str(span_id),
        parent if _is_hex(parent, 16) else "",
        _name(str(named.get("name") or ""), attributes),
        entry,
        _ns(started_s),
        max(_ns(started_s), _ns(ended_s)),
        attributes,
        None if error is None else str(error)[:1024],
    )


def _attributes(row: Mapping[str, Any], metadata: JSON, metrics: JSON, *, entry: bool) -> dict[str, Value]:
    found: dict[str, Value] = {}
    operation = metadata.get("operation")
    if isinstance(operation, str):
        found["gen_ai.operation.name"] = _OPERATIONS.get(operation, operation)
    if isinstance(provider := metadata.get("provider"), str):
        found["gen_ai.provider.name"] = _PROVIDERS.get(provider, provider)
    for name, to in (("model", "gen_ai.request.model"), ("served_model", "gen_ai.response.model")):
        if isinstance(metadata.get(name), str):
            found[to] = metadata[name]
    for names, source in ((_GATEWAY, metadata), (_METRICS, metrics)):
        for name, to in names.items():
            if isinstance(value := source.get(name), str | bool | int | float):
                found[to] = value
    if isinstance(reasons := metadata.get("finish_reasons"), list):
        found["gen_ai.response.finish_reasons"] = [str(reason) for reason in reasons]
    if isinstance(tags := row.get("tags"), list):
        found["gateway.tags"] = [str(tag) for tag in tags]
    if isinstance(response_id := metadata.get("response_id"), str):
        found["gen_ai.response.id"] = response_id
    if not entry:
        for name, to in _REQUEST.items():
            if isinstance(value := metadata.get(name), int | float) and not isinstance(value, bool):
                found[to] = value
        if (stop := metadata.get("stop")) is not None:
            found["gen_ai.request.stop_sequences"] = (
                [str(one) for one in stop] if isinstance(stop, list) else [str(stop)]
            )
    return found


def _name(own: str, attributes: Mapping[str, Value]) -> str:
    """`chat gpt-4o`: the conventions' name of a span."""
    operation, model = attributes.get("gen_ai.operation.name"), attributes.get("gen_ai.request.model")
    return f"{operation} {model}" if operation is not None and model is not None else own


def _content(row: Mapping[str, Any]) -> dict[str, Value]:
    """The messages, in the conventions' JSON; large ones are left out, since half of one could not be read."""
    found: dict[str, Value] = {}
    for name, told in (("input", messages_of(row.get("input"))), ("output", choices_of(row.get("output")))):
        if told:
            text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
            if len(text) <= _LONGEST_TEXT:
                found[f"gen_ai.{name}.messages"] = text
            else:
                found[f"gateway.{name}_left_out_bytes"] = len(text)
    return found


def _mapping(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        return None
    return float(value)


def _ns(seconds: float) -> int:
    """A float of these days tells a quarter of a microsecond; what it says below that is chance."""
    return round(seconds * 1e6) * 1000


def _is_hex(text: Any, digits: int) -> bool:
    return (
        isinstance(text, str) and len(text) == digits and not set(text) - set("0123456789abcdef") and set(text) != {"0"}
    )
