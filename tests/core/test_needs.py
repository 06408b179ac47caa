"""What a call needs of a deployment, and which calls a deployment is for."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.calls import Caller
from gateway.core.endpoints import RESPONSES
from gateway.core.needs import Facts
from gateway.core.policies import NEEDS, Condition
from tests.builders import call

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def of(body: dict[str, Any] | None = None, **more: Any) -> Facts:
    return Facts(call(body=body or {}, **more))


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({}, set()),
        ({"tools": [], "functions": None, "reasoning_effort": "none"}, set()),
        ({"response_format": {"type": "json_object"}}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"response_format": SCHEMA}, {"json_schema"}),
        ({"text": {"format": {"type": "json_schema"}}}, {"json_schema"}),
        ({"output_config": {"format": {"type": "json_schema"}}}, {"json_schema"}),
        ({"reasoning_effort": "low"}, {"reasoning"}),
        ({"reasoning": {"effort": "high"}}, {"reasoning"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, {"reasoning"}),
        ({"thinking": {"type": "disabled"}}, set()),
        ({"modalities": ["text", "audio"]}, {"audio"}),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, {"vision"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, {"audio"}),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, {"vision"}),
        ({"messages": [{"content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]}, {"vision"}),
        ({"messages": ["no", {"content": [None, 3]}], "input": 7, "text": "x", "thinking": []}, set()),
    ],
)  # fmt: skip
def test_needs_are_read_from_the_body_on_every_wire(body: dict[str, Any], needs: set[str]) -> None:
    assert of(body).needs == needs
    assert needs <= set(NEEDS)


def test_a_prompt_is_guessed_by_its_bytes_and_media_count_nothing() -> None:
    assert of(text="x" * 4000).prompt_tokens == 1000
    assert of({"messages": [{"role": "user", "content": [IMAGE]}]}).prompt_tokens == 0
    asked = {"input": "y" * 400, "instructions": "z" * 400}
    assert of(asked, endpoint=RESPONSES).prompt_tokens == 200


def test_the_bound_of_an_answer_is_the_callers_own() -> None:
    assert of().most_output is None
    assert of({"max_tokens": 7}).most_output == 7
    assert of({"max_tokens": 7, "max_completion_tokens": 9}).most_output == 9
    assert of({"max_tokens": True}).most_output is None


def test_a_condition_wants_all_of_what_it_sets() -> None:
    condition = Condition(frozenset({"a", "b"}), {"x-tier": "gold*"}, (10, 100))
    fits = {"tags": ("b", "c"), "headers": {"x-tier": "gold-1"}, "text": "x" * 200}
    assert of(**fits).meets(condition)
    assert of().meets(Condition())
    for other in (
        {"tags": ("c",)},
        {"headers": {}},
        {"headers": {"x-tier": "tin"}},
        {"text": "x"},
        {"text": "x" * 999},
    ):
        assert not of(**{**fits, **other}).meets(condition), other


def test_a_call_sticks_by_its_key_its_user_or_a_header() -> None:
    caller = Caller("key_1", "t", "key", key_id="k1", user="ann", user_id="u1")
    assert of(caller=caller).sticks_by("key") == "k1"
    assert of().sticks_by("key") == "tok_12345678"
    assert of(caller=caller).sticks_by("user") == "u1"
    assert of({"user": "bob"}, caller=caller).sticks_by("user") == "bob"
    assert of({"metadata": {"user_id": "eve"}}).sticks_by("user") == "eve"
    assert of().sticks_by("user") is None
    assert of(headers={"x-session": "s1"}).sticks_by("header:x-session") == "s1"
    assert of().sticks_by("header:x-session") is None
    assert of().sticks_by(None) is None
