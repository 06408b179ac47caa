"""What may be cached, what a caller can say of it, and which requests are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import cachekey
from gateway.core.cachekey import (
    ALWAYS,
    AUTO,
    LONGEST_TTL_S,
    NEVER,
    STREAM,
    STREAM_WITH_USAGE,
    WHOLE,
    Wish,
    applies,
    digests,
    form_of,
    forms_that_do,
    may_be_kept,
    wish_of,
)
from gateway.core.endpoints import ENDPOINTS
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

CHAT_BODY: JSON = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def key(body: JSON = CHAT_BODY, **more: Any) -> str:
    parts: JSON = {
        "tenant": "tok_1",
        "operation": "chat",
        "model": "m",
        "deployment": ("openai/m", None, None),
        "forms": (WHOLE,),
        **more,
    }
    return digests(body=body, **parts)[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(st.text(max_size=8), values, max_size=6)
names = st.text(max_size=12)


@given(bodies, names, names)
def test_two_tenants_never_share_a_key(body: JSON, one: str, other: str) -> None:
    assert (key(body, tenant=one) == key(body, tenant=other)) is (one == other)


@given(names, names, names, names)
def test_no_part_of_a_key_runs_over_into_the_next(tenant: str, model: str, query: str, revision: str) -> None:
    made = key(tenant=tenant, model=model, query=query, revision=revision)
    assert (key(tenant=tenant + model, model="", query=query, revision=revision) == made) is (model == "")
    assert (key(tenant=tenant, model=model, query=query + revision, revision="") == made) is (revision == "")


@given(bodies, bodies)
def test_bodies_share_a_key_only_where_they_are_the_same_json(one: JSON, other: JSON) -> None:
    left = {name: value for name, value in one.items() if name not in ("model", "stream", "stream_options")}
    right = {name: value for name, value in other.items() if name not in ("model", "stream", "stream_options")}
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (key(one, operation="responses") == key(other, operation="responses")) is same


@given(bodies)
def test_the_order_of_fields_does_not_count(body: JSON) -> None:
    assert key(body) == key(dict(reversed(body.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 1}, {"seed": 1.0}),
        ({"seed": 1}, {"seed": True}),
        ({"seed": 2**70}, {"seed": 2**70 + 1}),
        ({"temperature": 0.0}, {"temperature": -0.0}),
        ({"stop": None}, {}),
        ({"unknown": 1}, {"unknown": 2}),
        ({"stop": "\u00e9"}, {"stop": "e\u0301"}),
    ],
)
def test_what_could_change_an_answer_is_another_key(one: JSON, other: JSON) -> None:
    assert key(CHAT_BODY | one) != key(CHAT_BODY | other)


@pytest.mark.parametrize(
    "other",
    [
        {"operation": "completions"},
        {"model": "n"},
        {"deployment": ("openai/n", None, None)},
        {"deployment": ("openai/m", "http://a", None)},
        {"deployment": ("openai/m", None, "2024")},
        {"forms": (STREAM,)},
        {"query": "beta=true"},
        {"headers": {"anthropic-beta": "a"}},
        {"revision": "2"},
    ],
)
def test_everything_around_the_body_counts(other: JSON) -> None:
    assert key(**other) != key()


@pytest.mark.parametrize("field", ["user", "metadata", "safety_identifier", "prompt_cache_key"])
def test_labels_of_a_chat_say_nothing_of_its_answer_and_those_of_a_response_are_told_in_it(field: str) -> None:
    assert key(CHAT_BODY | {field: "a"}) == key()
    assert key(CHAT_BODY | {field: "a"}, operation="responses") != key(operation="responses")


def test_how_a_stream_is_asked_for_is_its_form_and_not_its_body() -> None:
    options = {"include_usage": True}
    assert key(CHAT_BODY | {"stream": True, "stream_options": options}, forms=(STREAM,)) == key(forms=(STREAM,))
    more = {**options, "include_obfuscation": False}
    assert key(CHAT_BODY | {"stream": True, "stream_options": more}, forms=(STREAM,)) != key(forms=(STREAM,))


def test_each_form_has_a_key_of_its_own_that_does_not_depend_on_which_is_asked() -> None:
    forms = (WHOLE, STREAM, STREAM_WITH_USAGE)
    parts: Any = ("tok_1", "chat", "m", ("openai/m", None, None), CHAT_BODY)
    whole, stream, with_usage = digests(*parts, forms)
    assert len({whole, stream, with_usage}) == 3
    assert digests(*parts, (STREAM, WHOLE)) == (stream, whole)
    assert all(len(one) == 64 for one in (whole, stream, with_usage))


def test_forms_that_can_be_told_anew_are_those_of_chats_without_logprobs() -> None:
    assert forms_that_do("chat", WHOLE, {}) == (WHOLE, STREAM_WITH_USAGE, STREAM)
    assert forms_that_do("chat", STREAM, {}) == (STREAM, WHOLE, STREAM_WITH_USAGE)
    assert forms_that_do("chat", STREAM, {"logprobs": True}) == (STREAM,)
    assert forms_that_do("messages", STREAM, {}) == (STREAM,)


@pytest.mark.parametrize(
    ("asked", "form"),
    [((False, True, False), WHOLE), ((True, False, False), STREAM), ((True, True, False), STREAM_WITH_USAGE)],
)
def test_a_form_is_how_an_answer_was_asked_for(asked: tuple[bool, bool, bool], form: str) -> None:
    assert form_of(stream=asked[0], usage_asked=asked[1], named_events=asked[2]) == form
    assert form_of(stream=True, usage_asked=True, named_events=True) == STREAM


@pytest.mark.parametrize(
    ("operation", "body", "kept"),
    [
        ("chat", {}, True),
        ("chat", {"store": True}, False),
        ("chat", {"store": False}, True),
        ("messages", {}, True),
        ("messages", {"container": "c"}, False),
        ("embeddings", {}, True),
        ("completions", {}, True),
        ("responses", {}, False),
        ("responses", {"store": False}, True),
        ("responses", {"store": False, "previous_response_id": "resp_1"}, False),
        ("responses", {"store": False, "background": True}, False),
        ("responses", {"store": False, "conversation": "conv_1"}, False),
        ("responses", {"store": False, "input": [{"type": "item_reference", "id": "msg_1"}]}, False),
    ],
)
def test_only_answers_that_stand_for_themselves_are_kept(operation: str, body: JSON, kept: bool) -> None:
    assert may_be_kept(operation, body) is kept
    assert applies(Wish(use=ALWAYS), operation, body) is kept
    assert not applies(Wish(use=NEVER, only=True), operation, body)


def test_no_other_operation_is_kept() -> None:
    known = {row.name for row in ENDPOINTS if may_be_kept(row.name, {"store": False})}
    assert known == {"chat", "completions", "embeddings", "messages", "responses"}


@pytest.mark.parametrize(
    ("operation", "body", "is_it"),
    [
        ("chat", {}, False),
        ("chat", {"temperature": 0}, True),
        ("chat", {"temperature": 0.0}, True),
        ("chat", {"temperature": 0.1}, False),
        ("chat", {"temperature": False}, False),
        ("chat", {"temperature": None}, False),
        ("chat", {"seed": 0}, True),
        ("chat", {"seed": None}, False),
        ("chat", {"seed": True}, False),
        ("chat", {"seed": 1, "web_search_options": {"a": 1}}, False),
        ("chat", {"seed": 1, "tools": [{"type": "function"}, {"type": "custom"}]}, True),
        ("chat", {"seed": 1, "tools": [{"type": "function"}, {"type": "web_search"}]}, False),
        ("messages", {"temperature": 0, "tools": [{"name": "own"}]}, True),
        ("messages", {"temperature": 0, "tools": [{"type": "web_search_20250305"}]}, False),
        ("messages", {"temperature": 0, "mcp_servers": [{}]}, False),
        ("responses", {"temperature": 0, "store": False, "tools": [{"type": "mcp"}]}, False),
        ("embeddings", {}, True),
    ],
)
def test_auto_is_for_what_a_provider_would_say_again(operation: str, body: JSON, is_it: bool) -> None:
    assert applies(Wish(use=AUTO), operation, body) is is_it


def wish(use: str = NEVER, **headers: str) -> Wish | None:
    return wish_of({name.replace("_", "-"): value for name, value in headers.items()}.get, use, 3600)


def test_without_headers_the_settings_decide() -> None:
    assert wish() is None
    assert wish(AUTO) == Wish(use=AUTO, ttl_s=3600)
    assert wish(ALWAYS, x_bt_use_cache=" Never ") is None
    assert wish(x_bt_use_cache="always", x_bt_cache_ttl="60") == Wish(use=ALWAYS, ttl_s=60)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("no-store", Wish(keeps=False)),
        ("no-cache", Wish(reads=False)),
        ("No-Cache , NO-STORE", Wish(reads=False, keeps=False)),
        ("max-age=5", Wish(max_age_s=5)),
        ('max-age="5"', Wish(max_age_s=5)),
        ("max-age=5, max-age=9", Wish(max_age_s=5)),
        ("max-age=soon", Wish(max_age_s=0)),
        ("max-age=-1", Wish(max_age_s=0)),
        ("max-age", Wish(max_age_s=0)),
        (f"max-age={'9' * 5000}", Wish(max_age_s=2**31)),
        ("min-fresh=5", Wish(min_fresh_s=5)),
        ("min-fresh=x", Wish(min_fresh_s=LONGEST_TTL_S + 1)),
        ("only-if-cached", Wish(only=True)),
        ("max-stale=5, no-transform, private, ,=", Wish()),
    ],
)
def test_cache_control_is_read_as_http_has_it(header: str, wanted: Wish) -> None:
    assert wish(ALWAYS, cache_control=header) == wanted


def test_cache_control_switches_nothing_on_but_the_refusal_of_all_else() -> None:
    assert wish(cache_control="max-age=60") is None
    assert wish(cache_control="only-if-cached") == Wish(use=NEVER, only=True)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_bt_use_cache": ""},
        {"x_bt_use_cache": "on"},
        {"x_bt_cache_ttl": ""},
        {"x_bt_cache_ttl": "0"},
        {"x_bt_cache_ttl": "1.5"},
        {"x_bt_cache_ttl": "\u0661"},
        {"x_bt_cache_ttl": str(LONGEST_TTL_S + 1)},
        {"x_bt_cache_ttl": "9" * 5000},
    ],
)
def test_a_header_of_ours_that_says_nothing_is_refused_by_its_name(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wish(ALWAYS, **headers)
    assert caught.value.param == next(iter(headers)).replace("_", "-")


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_stands_in_cache_control_it_is_read(header: str, value: str) -> None:
    found = wish(ALWAYS, cache_control=f"{header}={value}")
    assert isinstance(found, Wish)


def test_an_answer_will_do_by_its_age_and_by_what_is_left() -> None:
    assert Wish().takes(1e9, 0.1)
    assert Wish(max_age_s=5).takes(5.0, 1)
    assert not Wish(max_age_s=5).takes(5.1, 1)
    assert not Wish(min_fresh_s=5).takes(0, 4.9)
    assert not Wish(reads=False).takes(0, 100)


def test_the_longest_time_is_a_week() -> None:
    assert cachekey.LONGEST_TTL_S == 604_800


@pytest.mark.parametrize("text", ["", "a" * 256, "a\n", "\u00e9"])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        cachekey.name_of({"idempotency-key": text}.get, "chat")
    assert caught.value.param == "idempotency-key"


def test_a_name_is_read_where_an_answer_can_be_given_again() -> None:
    header = {"idempotency-key": "order 1"}.get
    assert cachekey.name_of(header, "chat") == "order 1"
    assert cachekey.name_of(header, "responses.delete") is None
    assert cachekey.name_of({}.get, "chat") is None


@given(bodies, bodies)
def test_named_requests_are_told_apart_by_all_of_their_body(one: JSON, other: JSON) -> None:
    left, right = (cachekey.named("t", "chat", "n", WHOLE, "", body, None) for body in (one, other))
    assert left[0] == right[0]
    assert (left[1] == right[1]) is (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@given(names, names)
def test_names_are_the_tenants_own(one: str, other: str) -> None:
    left, right = (cachekey.named(tenant, "chat", "n", WHOLE, "", {}, None)[0] for tenant in (one, other))
    assert (left == right) is (one == other)
