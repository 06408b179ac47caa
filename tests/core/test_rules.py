"""Rules as they are written, and which calls they are about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import Caller
from gateway.core.rules import (
    BUDGET,
    LIMIT,
    MEASURES,
    MICRO,
    PARALLEL,
    PERIODS,
    SUBJECTS,
    USD,
    Match,
    Rule,
    RuleStanding,
    amount_of,
    changed_rule,
    is_webhook,
    read_most,
    read_rule,
)
from gateway.core.windows import LARGEST_AMOUNT
from gateway.errors import InvalidRequest

CALLER = Caller("key_k1", "p_1", "key", key_id="k1", project="Search", user="ada", project_id="p_1", user_id="u_1")
MODELS = ("fast", "openai/gpt-4o-mini")


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        (Match(), True),
        (Match(key="k1"), True),
        (Match(key="k2"), False),
        (Match(project="p_1"), True),
        (Match(project="Search"), True),
        (Match(project="p_2"), False),
        (Match(user="ada"), True),
        (Match(user="u_1"), True),
        (Match(user="eve"), False),
        (Match(caller="key_k1"), True),
        (Match(caller="tok_1"), False),
        (Match(model="fast"), True),
        (Match(model="openai/*"), True),
        (Match(model="anthropic/*"), False),
        (Match(project="p_1", model="*-mini"), True),
        (Match(project="p_2", model="*-mini"), False),
    ],
)
def test_a_rule_is_about_calls_that_have_all_of_what_it_names(match: Match, taken: bool) -> None:
    assert match.takes(CALLER, MODELS) is taken


def test_a_caller_without_a_project_is_not_in_one() -> None:
    assert not Match(project="Search").takes(Caller("tok_1", "tok_1"), MODELS)


# Rules as they are written.

WRITTEN: dict[str, Any] = {"object": "budget", "name": "shop", "measure": "usd", "most": "12.5", "period": "month"}
LIMITED: dict[str, Any] = {"object": "limit", "name": "shop", "measure": "tokens", "most": 9, "period": "day"}


def test_a_rule_is_read_as_it_is_written() -> None:
    match = {"key": "k1", "user": "u", "project": "p", "caller": "c", "model": "openai/*"}
    more = {"match": match, "each": ["model", "key"], "soft": 0.8, "webhook": "https://a.example/b?c=d"}
    assert read_rule({**WRITTEN, "id": "bud_1", **more}) == Rule(
        *("bud_1", BUDGET, USD, 12_500_000, "month", Match(**match), ("key", "model"), "shop", 0.8),
        webhook="https://a.example/b?c=d",
    )


@pytest.mark.parametrize(
    "document",
    [
        WRITTEN,
        {**WRITTEN, "soft": 0.5, "webhook": "http://127.0.0.1:9/x"},
        {**WRITTEN, "measure": "tokens", "most": 0, "period": "total", "match": {"model": "*"}},
        LIMITED,
        {**LIMITED, "measure": "parallel", "period": None, "each": ["caller"]},
    ],
)
def test_what_a_rule_says_of_itself_is_read_as_the_same_rule(document: dict[str, Any]) -> None:
    rule = read_rule(document)
    assert read_rule(rule.document()) == rule
    assert ("webhook" in rule.document()) is (rule.kind == BUDGET)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"object": "rule"}, "object"),
        ({"nmae": "a"}, "nmae"),
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a" * 257}, "name"),
        ({"name": "a\u202e"}, "name"),
        ({"id": 1}, "id"),
        ({"measure": "requests"}, "measure"),
        ({"measure": None}, "measure"),
        ({"measure": []}, "measure"),
        ({"most": None}, "most"),
        ({"most": True}, "most"),
        ({"most": -1}, "most"),
        ({"most": 0.0000001}, "most"),
        ({"most": "0.0000001"}, "most"),
        ({"most": "1e3"}, "most"),
        ({"most": " 1"}, "most"),
        ({"most": "\u0661"}, "most"),
        ({"most": 10**9 + 1}, "most"),
        ({"most": 10**400}, "most"),
        ({"most": float("nan")}, "most"),
        ({"most": float("inf")}, "most"),
        ({"period": "minute"}, "period"),
        ({"period": None}, "period"),
        ({"match": None}, "match"),
        ({"match": ["key"]}, "match"),
        ({"match": {"keys": "a"}}, "match.keys"),
        ({"match": {"key": 1}}, "match.key"),
        ({"match": {"user": ""}}, "match.user"),
        ({"match": {"project": " a"}}, "match.project"),
        ({"match": {"caller": "a\0"}}, "match.caller"),
        ({"match": {"caller": "a" * 257}}, "match.caller"),
        ({"match": {"model": "*" * 5}}, "match.model"),
        ({"each": "key"}, "each"),
        ({"each": ["keys"]}, "each"),
        ({"each": [["key"]]}, "each"),
        ({"soft": 0}, "soft"),
        ({"soft": 1}, "soft"),
        ({"soft": float("nan")}, "soft"),
        ({"soft": "0.5"}, "soft"),
        ({"soft": 0.5, "webhook": "http://a.example"}, "webhook"),
        ({"soft": 0.5, "webhook": 1}, "webhook"),
        ({"webhook": "https://a.example"}, "soft"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_the_field_at_fault(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_rule({**WRITTEN, **changes})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"measure": "usd"}, "measure"),
        ({"most": "9"}, "most"),
        ({"most": 9.0}, "most"),
        ({"most": LARGEST_AMOUNT + 1}, "most"),
        ({"period": "month"}, "period"),
        ({"measure": "parallel"}, "period"),
        ({"soft": 0.5}, "soft"),
        ({"webhook": "https://a.example"}, "webhook"),
    ],
)
def test_a_limit_is_no_budget(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_rule({**LIMITED, **changes})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("written", "micro"),
    [
        (0, 0),
        (1, MICRO),
        (0.1, 100_000),
        (0.000001, 1),
        (1.10, 1_100_000),
        (123456789.123456, 123_456_789_123_456),
        ("999999999.999999", LARGEST_AMOUNT - 1),
        ("1000000000", LARGEST_AMOUNT),
        ("0.50", 500_000),
        ("007", 7 * MICRO),
    ],
)
def test_dollars_are_exact_micro_dollars(written: object, micro: int) -> None:
    assert read_most(USD, written) == micro


@given(st.integers(0, LARGEST_AMOUNT))
def test_every_amount_of_money_is_told_as_the_text_that_means_it(micro: int) -> None:
    told = amount_of(USD, micro)
    assert isinstance(told, str)
    assert read_most(USD, told) == micro
    assert "." not in told or not told.endswith("0")


def test_amounts_that_are_no_money_are_whole_numbers() -> None:
    assert amount_of("tokens", 5) == 5
    assert RuleStanding(1_500_000, 0, 7.5).document(USD) == {"used": "1.5", "remaining": "0", "resets": 7.5}
    assert RuleStanding(1, 2, None).document("requests") == {"used": 1, "remaining": 2, "resets": None}


def test_a_change_keeps_what_it_does_not_name_and_what_is_counted() -> None:
    rule = read_rule({**WRITTEN, "id": "bud_1", "match": {"key": "a"}, "soft": 0.5, "webhook": "https://a.example"})
    assert changed_rule(rule, {}) == rule
    changed = changed_rule(rule, {"most": 3, "name": "b", "webhook": None})
    assert (changed.most, changed.name, changed.webhook, changed.soft) == (3 * MICRO, "b", None, 0.5)
    assert (changed.id, changed.match) == (rule.id, rule.match)
    assert changed_rule(rule, {"soft": None, "webhook": None}).soft is None
    for change in ({"period": "day"}, {"match": {}}, {"each": []}, {"measure": "tokens"}, {"id": "bud_2"}):
        with pytest.raises(InvalidRequest) as caught:
            changed_rule(rule, change)
        assert [caught.value.param] == list(change)
    with pytest.raises(InvalidRequest, match="A webhook needs soft"):
        changed_rule(rule, {"soft": None})
    with pytest.raises(InvalidRequest, match="no field of a limit"):
        changed_rule(read_rule(LIMITED), {"soft": 0.5})


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://hooks.example.com/a?b=c", True),
        ("HTTPS://hooks.example.com", True),
        ("https://10.0.0.1:8443/", True),
        ("http://localhost:9000/a", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:80/", True),
        ("http://127.0.0.2/", False),
        ("http://hooks.example.com/", False),
        ("http://localhost.example.com/", False),
        ("https://user@hooks.example.com/", False),
        ("https://:password@hooks.example.com/", False),
        ("https://hooks.example.com/#a", False),
        ("https://hooks.example.com:0/", False),
        ("https://hooks.example.com:99999/", False),
        ("https://[::1/", False),
        ("https://", False),
        ("https:///a", False),
        ("ftp://hooks.example.com/", False),
        ("//hooks.example.com/", False),
        ("https://hooks.example.com\\@localhost/", False),
        ("https://hooks.example.com/a b", False),
        ("https://hooks.example.com/a\r\nHost: b", False),
        ("https://b\u00fccher.example/", False),
        ("https://hooks.example.com/" + "a" * 2048, False),
    ],
)
def test_notices_go_by_https_or_to_this_machine(address: str, good: bool) -> None:
    assert is_webhook(address) is good


def test_words_of_rules_are_of_a_kind() -> None:
    assert set(MEASURES) == set(PERIODS) == {LIMIT, BUDGET}
    assert set(SUBJECTS) == set(Match.__dataclass_fields__)
    assert PARALLEL in MEASURES[LIMIT]
