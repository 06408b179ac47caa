"""A row of a trace in OpenTelemetry's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.semconv import NoSpan, span_of

JSON = dict[str, Any]

ROOT = "0af7651916cd43dd8448eb211c80319c"
OWN, ABOVE = "b7ad6b7169203331", "00f067aa0ba902b7"


def row(kind: str = "llm", **fields: Any) -> JSON:
    return {
        "id": "r",
        "span_id": OWN,
        "root_span_id": ROOT,
        "span_parents": [ABOVE],
        "span_attributes": {"name": "Completion", "type": kind},
        "metadata": {"operation": "chat", "provider": "openai", "model": "gpt-4o"},
        "metrics": {"start": 10.0, "end": 11.0},
        **fields,
    }


def attributes(**fields: Any) -> Any:
    span = span_of(row(**fields), content=True)
    assert span is not None
    return span.attributes


def test_a_span_has_the_conventions_names() -> None:
    span = span_of(
        row(
            metadata={
                "operation": "messages",
                "provider": "bedrock",
                "model": "claude",
                "served_model": "claude-1",
                "response_id": "msg_1",
                "finish_reasons": ["stop"],
                "temperature": 0.5,
                "max_tokens": 7,
                "stop": ["a", "b"],
                "stream": True,
            },
            metrics={
                "start": 10.0,
                "end": 11.5,
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "prompt_cached_tokens": 2,
                "prompt_cache_creation_tokens": 1,
                "completion_reasoning_tokens": 1,
                "time_to_first_token": 0.25,
                "estimated_cost": 0.5,
            },
        ),
        content=False,
    )
    assert span is not None
    assert (span.name, span.entry, span.parent_span_id) == ("chat claude", False, ABOVE)
    assert (span.started_ns, span.ended_ns) == (10_000_000_000, 11_500_000_000)
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": "claude",
        "gen_ai.response.model": "claude-1",
        "gen_ai.response.id": "msg_1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.stop_sequences": ["a", "b"],
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.cache_creation.input_tokens": 1,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gateway.cost_usd": 0.5,
    }


def test_a_callers_own_trace_goes_on() -> None:
    theirs = "00-11111111111111111111111111111111-2222222222222222-01"
    root = span_of(row("task", span_parents=None, metadata={"traceparent": theirs}), content=False)
    child = span_of(row(metadata={"traceparent": theirs}), content=False)
    assert root is not None
    assert child is not None
    assert (root.trace_id, root.parent_span_id, root.span_id) == ("1" * 32, "2" * 16, OWN)
    assert (child.trace_id, child.parent_span_id) == ("1" * 32, ABOVE)


def test_a_call_that_is_open_is_no_span_yet() -> None:
    assert span_of(row(metrics={"start": 1.0}), content=True) is None


@pytest.mark.parametrize("field", ["span_id", "root_span_id"])
@pytest.mark.parametrize("value", [None, "", "0" * 32, "xyz", 7, "ABCDEF0123456789"])
def test_ids_that_are_none_are_said(field: str, value: object) -> None:
    with pytest.raises(NoSpan):
        span_of(row(**{field: value}), content=False)


def test_a_failure_has_a_type_that_can_be_counted() -> None:
    failed = span_of(row(error="Too many.", metadata={"error_code": "rate_limit_exceeded"}), content=False)
    assert failed is not None
    assert (failed.error, failed.attributes["error.type"]) == ("Too many.", "rate_limit_exceeded")


def test_messages_are_told_only_when_that_is_asked_for() -> None:
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    said = [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]
    quiet = span_of(row(input=asked, output=said), content=False)
    assert quiet is not None
    assert not any("messages" in name for name in quiet.attributes)
    told = attributes(input=asked, output=said)
    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {
            "role": "user",
            "parts": [{"type": "text", "content": "Hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "f", "arguments": {}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "42"}]},
    ]
    assert json.loads(told["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "stop"}
    ]


def test_what_is_too_long_to_be_told_is_counted() -> None:
    told = attributes(input="x" * 100_000, output=None)
    assert "gen_ai.input.messages" not in told
    assert told["gateway.input_left_out_bytes"] > 100_000


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
_NAMES = ("metadata", "metrics", "span_attributes", "input", "output", "tags", "error", "span_parents", "span_id")


@given(st.dictionaries(st.sampled_from(_NAMES), _ANYTHING, max_size=6))
def test_whatever_a_row_holds_it_is_a_span_or_said_to_be_none(fields: JSON) -> None:
    try:
        span = span_of(row(**fields), content=True)
    except NoSpan:
        return
    assert span is None or all(isinstance(value, str | bool | int | float | list) for value in span.attributes.values())
