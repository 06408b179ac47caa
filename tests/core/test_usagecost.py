"""One member is put into the usage of an answer, and no other byte changes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.usagecost import RESPONSE_USAGE, USAGE, event_with_cost, with_cost
from gateway.core.wire import named_event

JSON = dict[str, Any]

COST = Decimal("0.00123")
ADDED = b',"cost":0.00123'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"usage":{"a":1', b"}}"),
        (b'{"id":"x","usage" : \n{"a":{"b":[1,{}]}, "c": "}"\n ', b'}, "z": 1}\n'),
        (b'{"usage":null,"usage":{"a":1', b"}}"),
        (b'{"content":"\\"usage\\":{\\"a\\":1}","usage":{"a":1', b"}}"),
        (b'{"content":{"usage":{"a":1}},"usage":{"b":2', b'},"more":[{"usage":{"c":3}}]}'),
        (b'{"us\\u0061ge":{"a":1', b'},"content":{"usage":{"c":3}}}'),
        (b'{"x \\"usage":{"a":1},"usage":{"a":1', b"}}"),
        (b'{"x":["usage",{"usage":{"a":1}}],"usage":{"a":1', b"}}"),
        (b'{"a":"\\\\","usage":{"a":"\\\\"', b'},"b":{"usage":{"a":1}}}'),
        (b'{"usage":{"x":1},"usage":{"a":1', b"}}"),
    ],
)
def test_it_stands_at_the_end_of_the_usage_wherever_that_is(before: bytes, after: bytes) -> None:
    assert with_cost(before + after, COST) == before + ADDED + after


@pytest.mark.parametrize(
    "text",
    [
        b'{"usage":null}',
        b'{"usage":{}}',
        b'{"usage":[{"a":1}]}',
        b'{"usage":{"a":1},"usage":{"a":1},"usage":5}',
        b'{"content":{"usage":{"a":1}},"more":{"usage":{"a":1}}}',
        b'[{"usage":{"a":1}},{"usage":{"a":1}}]',
        b'{"usage":"{\\"usage\\":{\\"a\\":1}}"}',
        b"",
        b"{",
        b'{"usage":{"a":1',
        b'{"usage":{"a":nothing}}',
    ],
)
def test_where_there_is_no_usage_nothing_changes(text: bytes) -> None:
    assert with_cost(text, COST) == text


@pytest.mark.parametrize("cost", [b"0.5", b"null", b'{"total_cost":0.006}'])
def test_the_cost_that_a_provider_tells_itself_stands(cost: bytes) -> None:
    text = b'{"usage":{"prompt_tokens":1,"cost":' + cost + b"}}"
    assert with_cost(text, COST) == text


def test_all_digits_are_written_and_no_exponent() -> None:
    assert with_cost(b'{"usage":{"a":1}}', Decimal("1.25E-9")) == b'{"usage":{"a":1,"cost":0.00000000125}}'
    assert with_cost(b'{"usage":{"a":1}}', Decimal("0E-12")) == b'{"usage":{"a":1,"cost":0}}'
    assert with_cost(b'{"usage":{"a":1}}', Decimal("1E+2")) == b'{"usage":{"a":1,"cost":100}}'


def test_a_response_has_its_usage_one_level_down() -> None:
    event = {"type": "response.completed", "response": {"output": [{"usage": {"a": 1}}], "usage": {"b": 2}}}
    added = {**event, "response": {**event["response"], "usage": {"b": 2, "cost": 0.00123}}}  # type: ignore[dict-item]
    assert event_with_cost(named_event(event), COST, RESPONSE_USAGE) == named_event(added)


# Events.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'data: {"usage":{"a":1', b"}}\n\n"),
        (b'event: message_delta\ndata: {"usage":{"a":1', b"}}\n\n"),
        (b'event: message_delta\r\ndata:{"usage":{"a":1', b"}}\r\nid: 5\r\n\r\n"),
        (b'id: "{\ndata: {"usage":{"a":1', b'}}\nid: {"usage":{"a":1}}\n\n'),
    ],
)
def test_the_data_of_an_event_is_found_among_its_lines(before: bytes, after: bytes) -> None:
    assert event_with_cost(before + after, COST) == before + ADDED + after


@pytest.mark.parametrize("event", [b": usage\n\n", b'data: {"usage":\ndata: {"a":1}}\n\n', b"data: [DONE]\n\n", b""])
def test_an_event_without_it_or_over_several_lines_stays(event: bytes) -> None:
    assert event_with_cost(event, COST) == event


# Whatever else an answer says.

texts = st.text(max_size=6) | st.sampled_from(
    ["usage", '"usage":{"a":1}', '{"usage":{"a":1}}', "\\", '"', '\\"usage\\": {', "}", "cost", "u\u0073age", "\\u0075"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
usages = st.dictionaries(texts.filter(lambda name: name != "cost"), values, min_size=1, max_size=3)
spaced = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])


@given(st.dictionaries(texts, values, max_size=4), usages, st.integers(0, 4), spaced, st.booleans())
@settings(deadline=None, max_examples=400)
def test_a_reader_finds_the_cost_and_all_else_as_it_was(
    others: JSON, usage: JSON, place: int, separators: tuple[str, str], escaped: bool
) -> None:
    members = [(name, value) for name, value in others.items() if name != "usage"]
    document = dict([*members[:place], ("usage", usage), *members[place:]])
    text = json.dumps(document, separators=separators, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    got = with_cost(text, COST)
    assert json.loads(got, parse_float=str) == json.loads(
        json.dumps({**document, "usage": {**usage, "cost": 0.00123}}), parse_float=str
    )
    assert got in [text[:at] + ADDED + text[at:] for at in range(len(text))]


@given(values, st.sampled_from([USAGE, RESPONSE_USAGE]))
@settings(deadline=None, max_examples=200)
def test_an_answer_without_a_usage_of_its_own_is_never_touched(value: Any, path: tuple[str, ...]) -> None:
    """However many there are further down."""
    document = {"content": [value, {"usage": {"a": 1}}], "input": {"usage": {"usage": {"b": 2}}}, "response": [value]}
    text = json.dumps(document).encode()
    assert with_cost(text, COST, path) == text


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\ usage1', max_size=60).map(str.encode))
@settings(deadline=None, max_examples=300)
def test_whatever_bytes_come_none_of_them_is_lost(text: bytes) -> None:
    got = with_cost(text, COST)
    assert got in (text, *(text[:place] + ADDED + text[place:] for place in range(len(text))))
