"""Rights: what they allow, and when one set lies within another."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoints import ENDPOINTS
from gateway.core.rights import (
    ADMIN,
    ALL,
    CALL,
    EVERYTHING,
    METRICS,
    UNLIMITED,
    Rights,
    kept_rights,
    matches,
    read_rights,
)
from gateway.errors import InvalidRequest

few = st.text(alphabet="ab/*", max_size=6)
lists = st.lists(few, max_size=3).map(tuple)


@given(few, st.text(alphabet="ab/\n", max_size=8))
def test_a_star_stands_for_any_text_and_everything_else_for_itself(pattern: str, text: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
    assert matches(pattern, text) is expected


@given(lists, st.text(alphabet="ab/*", max_size=6))
def test_models_are_allowed_as_their_patterns_match(patterns: tuple[str, ...], name: str) -> None:
    assert Rights(models=patterns).allows_model(name) is any(matches(pattern, name) for pattern in patterns)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("openai/*", "openai/gpt-4o", True),
        ("openai/*", "openai/", True),
        ("openai/*", "xopenai/gpt", False),
        ("*/gpt-*-mini", "azure/gpt-4o-mini", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "GPT-4o", False),
        ("a*a", "a", False),
        ("gpt.4", "gpt-4", False),
        ("[a-z]", "b", False),
    ],
)
def test_patterns_of_models(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected
    assert Rights(models=(pattern,)).allows_model(text) is expected


def test_a_pattern_made_to_hurt_takes_no_time() -> None:
    began_s = time.process_time()
    assert not matches("*a*a*a*b", "a" * 200_000)
    assert time.process_time() - began_s < 1


@given(lists, lists, st.text(alphabet="ab/", max_size=6))
def test_what_lies_within_allows_nothing_that_the_other_does_not(
    inner: tuple[str, ...], outer: tuple[str, ...], name: str
) -> None:
    less, more = Rights(models=inner, parents=inner), Rights(models=outer, parents=outer)
    if less.within(more):
        assert not less.allows_model(name) or more.allows_model(name)
        assert not less.allows_parent(name) or more.allows_parent(name)
    assert less.within(less)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (Rights(), Rights(), True),
        (Rights(), UNLIMITED, True),
        (UNLIMITED, Rights(), False),
        (UNLIMITED, ALL, True),
        (ALL, UNLIMITED, False),
        (Rights(frozenset({CALL, ADMIN})), Rights(), False),
        (Rights(models=("openai/gpt-*",)), Rights(models=("openai/*",)), True),
        (Rights(models=("openai/*",)), Rights(models=("openai/gpt-*",)), False),
        (Rights(models=EVERYTHING), Rights(models=("openai/*", "anthropic/*")), False),
        (Rights(models=()), Rights(models=()), True),
        (Rights(endpoints=("responses.retrieve",)), Rights(endpoints=("responses",)), True),
        (Rights(endpoints=("responses",)), Rights(endpoints=("responses.retrieve",)), False),
        (Rights(endpoints=("chat",)), Rights(endpoints=("messages",)), False),
        (Rights(parents=("project_name:a",)), Rights(), False),
        (Rights(parents=("project_name:a",)), Rights(parents=("project_name:*",)), True),
    ],
)
def test_rights_within_rights(inner: Rights, outer: Rights, expected: bool) -> None:
    assert inner.within(outer) is expected


def test_an_operation_covers_those_below_it_and_no_other_that_begins_alike() -> None:
    responses = Rights(endpoints=("responses",))
    allowed = {row.name for row in ENDPOINTS if responses.allows_endpoint(row.name)}
    assert allowed == {row.name for row in ENDPOINTS if row.name.startswith("responses")} | {"models", "model"}
    assert not Rights(endpoints=("message",)).allows_endpoint("messages")
    assert not Rights(endpoints=()).allows_endpoint("chat")


def test_the_defaults_call_everything_and_choose_no_parent() -> None:
    assert (Rights().allows(CALL), Rights().allows(METRICS), Rights().allows(ADMIN)) == (True, False, False)
    assert Rights().allows_model("anything/at all")
    assert not Rights().allows_parent("project_name:x")


@given(
    st.builds(
        Rights,
        st.frozensets(st.sampled_from([CALL, METRICS, ADMIN])),
        st.lists(st.sampled_from(["*", "openai/*", "fast"]), unique=True).map(tuple),
        st.lists(st.sampled_from(["*", "chat", "responses"]), unique=True).map(tuple),
        st.lists(st.sampled_from(["*", "project_id:1"]), unique=True).map(tuple),
    )
)
def test_what_is_written_is_read_again(rights: Rights) -> None:
    for again in (read_rights(rights.document()), kept_rights(rights.document())):
        assert again.within(rights)
        assert rights.within(again)


def test_rights_that_another_release_has_kept_can_be_read_and_allow_no_more() -> None:
    kept = kept_rights({"scopes": ["call", "fly"], "endpoints": ["dreams"], "more": 1})
    assert kept.allows(CALL)
    assert not kept.allows_model("openai/m")
    assert not kept.allows_endpoint("chat")


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"role": ["admin"]}, "rights"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": "admin"}, "scopes"),
        ({"models": "openai/*"}, "models"),
        ({"models": [1]}, "models"),
        ({"models": [""]}, "models"),
        ({"models": [" a"]}, "models"),
        ({"models": ["a\0b"]}, "models"),
        ({"models": ["a\ud800"]}, "models"),
        ({"models": ["x" * 257]}, "models"),
        ({"models": ["*a*b*c*d*"]}, "models"),
        ({"models": [str(number) for number in range(201)]}, "models"),
        ({"endpoints": ["chats"]}, "endpoints"),
        ({"endpoints": ["models"]}, "endpoints"),
        ({"parents": ["team-a"]}, "parents"),
        ({"parents": None}, "parents"),
    ],
)
def test_rights_that_cannot_be_used_are_refused_by_the_name_of_the_field(document: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_rights(document)
    assert raised.value.param == param


def test_what_is_not_written_is_as_it_was() -> None:
    before = Rights(models=("fast",), parents=("*",))
    assert read_rights({"endpoints": ["chat"]}, before) == Rights(models=("fast",), endpoints=("chat",), parents=("*",))
