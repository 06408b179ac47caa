"""The Response object and its usage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from gateway.core.responses.document import response, usage_as_told
from gateway.core.usage import MOST_TOKENS, Usage, usage_of_responses

JSON = dict[str, Any]


def made(**body: Any) -> JSON:
    """A finished Response to this body."""
    return response(
        {"model": "asked", **body}, response_id="resp_1", created_s=7, status="completed", model=None, output=[]
    )


def test_every_field_of_openais_model_is_there() -> None:
    """But those of features that are never used here."""
    beyond = {
        *("access_programs", "conversation", "image", "input_transformations", "moderation", "prompt"),
        *("prompt_cache_diagnostics", "prompt_cache_options", "tool_usage"),
    }
    unlisted = {"store"}  # on the wire, though the model does not have it
    assert (set(Response.model_fields) - beyond) | unlisted == set(made())


def test_the_api_s_defaults_stand_where_the_caller_said_nothing() -> None:
    got = made(tools=None, metadata=None, text={"verbosity": None})
    Response.model_validate(got)
    assert {name: value for name, value in got.items() if value is not None} == {
        "id": "resp_1",
        "object": "response",
        "created_at": 7,
        "status": "completed",
        "model": "asked",
        "output": [],
        "background": False,
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
        "metadata": {},
    }


def test_what_the_caller_asked_is_repeated() -> None:
    asked = {
        "instructions": "be brief",
        "max_output_tokens": 5,
        "max_tool_calls": 2,
        "parallel_tool_calls": False,
        "previous_response_id": "resp_0",
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "service_tier": "flex",
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "f"},
        "tools": [{"type": "function", "name": "f", "description": None, "parameters": {}, "strict": True}],
        "top_logprobs": 3,
        "top_p": 0.25,
        "user": "u",
        "metadata": {"a": "b"},
    }
    got = made(**asked)
    Response.model_validate(got)
    assert {name: got[name] for name in asked} == asked


def test_a_function_has_all_its_fields() -> None:
    assert made(tools=[{"type": "function", "name": "f"}, {"type": "web_search"}])["tools"] == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
        {"type": "web_search"},
    ]


# Usage.


def test_usage_comes_back_as_it_was_told() -> None:
    usage = Usage(prompt=10, completion=7, cached=4, cache_write=3, reasoning=5)
    told = usage_as_told(usage)
    assert told["total_tokens"] == 17
    assert usage_of_responses(told) == usage


@pytest.mark.parametrize("claimed", [None, {}, [], "10", 10])
def test_no_usage_is_none_and_not_zero(claimed: object) -> None:
    assert usage_of_responses(claimed) is None


def test_parts_are_never_more_than_their_whole() -> None:
    claimed = {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 9},
    }
    assert usage_of_responses(claimed) == Usage(prompt=1, completion=2, cached=1, reasoning=2)


counts = st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.booleans() | st.lists(st.integers())


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"input_tokens": counts},
        optional={
            "output_tokens": counts,
            "input_tokens_details": counts | st.fixed_dictionaries({"cached_tokens": counts}),
            "output_tokens_details": counts | st.fixed_dictionaries({"reasoning_tokens": counts}),
        },
    )
)
def test_whatever_is_claimed_counts_between_nothing_and_the_most(claimed: JSON) -> None:
    usage = usage_of_responses(claimed)
    assert usage is not None
    assert 0 <= usage.cached <= usage.prompt <= MOST_TOKENS
    assert 0 <= usage.reasoning <= usage.completion <= MOST_TOKENS
