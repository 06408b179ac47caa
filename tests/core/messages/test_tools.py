"""Names and inputs of tools on both wires."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.messages.tools import MOST_NAME_CHARS, Arguments, original_names, read_input, sent_name

ALIKE = settings(deadline=None, derandomize=True, database=None, max_examples=100)
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=3)


def test_a_short_name_is_sent_as_it_is() -> None:
    assert sent_name("x" * MOST_NAME_CHARS) == "x" * MOST_NAME_CHARS


def test_a_long_name_is_cut_so_that_it_fits_and_stays_its_own() -> None:
    one, other = "mcp__" + "x" * 100 + "1", "mcp__" + "x" * 100 + "2"
    assert len(sent_name(one)) == len(sent_name(other)) == MOST_NAME_CHARS
    assert sent_name(one) != sent_name(other)
    assert sent_name(one).startswith("mcp__xxx")


def test_the_callers_names_are_found_again() -> None:
    long = "x" * 100
    assert original_names({"tools": [{"name": "short"}, {"name": long}]}) == {sent_name(long): long}


@pytest.mark.parametrize("tools", [None, 1, [1], [{}], [{"name": 1}]])
def test_tools_that_are_none_have_no_names(tools: object) -> None:
    assert original_names({"tools": tools}) == {}


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("", {}),
        (" ", {}),
        ("null", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": ', None),
        ("[]", None),
        ('{"a": NaN}', None),
        ('{"a": ' + "9" * 5000 + "}", None),
        ("[" * 100_000, None),
    ],
)
def test_arguments_are_an_object_or_nothing(arguments: str, read: object) -> None:
    assert read_input(arguments) == read


@given(value=OBJECTS, ascii_only=st.booleans(), cuts=st.lists(st.integers(0, 200), max_size=6))
@ALIKE
def test_arguments_are_whole_at_their_last_sign_and_never_before(
    value: object, ascii_only: bool, cuts: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    following = Arguments()
    edges = sorted({0, len(text) - 1, *(cut for cut in cuts if cut < len(text))})
    for start, end in zip(edges, [*edges[1:], len(text)], strict=True):
        assert not following.whole
        following.feed(text[start:end])
    assert following.whole
    following.feed(" \n")
    assert following.whole


@pytest.mark.parametrize("value", ['"}', "\\", '\\"}', "a}b{"])
def test_signs_within_a_text_end_nothing_however_they_are_cut(value: str) -> None:
    text = json.dumps({"q": value})
    following = Arguments()
    for place, sign in enumerate(text, 1):
        following.feed(sign)
        assert following.whole is (place == len(text)), text[:place]


def test_no_arguments_are_not_whole() -> None:
    following = Arguments()
    following.feed("")
    assert not following.whole, "they may still come"
