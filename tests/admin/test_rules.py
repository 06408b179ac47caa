"""Limits and budgets over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.operations import MANAGING
from gateway.core.rules import BUDGET, MEASURES, PERIODS, SUBJECTS
from gateway.storage.audit import Audit
from tests.managed import JSON, Managed, text

LIMITS, BUDGETS, AUDIT = "/admin/v1/limits", "/admin/v1/budgets", "/admin/v1/audit"
RATE: JSON = {"name": "a minute", "measure": "requests", "most": 60, "period": "minute"}
SPEND: JSON = {"name": "shop", "measure": "usd", "most": 12.5, "period": "month"}


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    made = Managed(tmp_path)
    yield made
    made.close()


def test_a_limit_is_made_shown_changed_and_deleted(managed: Managed) -> None:
    made = managed.got("POST", LIMITS, {**RATE, "each": ["model", "key"]}, status=201)
    assert made.items() >= {**RATE, "object": "limit", "each": ["key", "model"], "match": {}}.items()
    assert made["created_by"].startswith("adm_")
    path = f"{LIMITS}/{made['id']}"
    assert managed.got("GET", path) == made
    assert managed.got("PATCH", path, {"most": 5}) == {**made, "most": 5}
    assert managed.got("GET", LIMITS)["data"] == [{**made, "most": 5}]
    assert managed.got("DELETE", path) == {"object": "limit.deleted", "id": made["id"], "deleted": True}
    assert managed.got("GET", path, status=404)["error"]["code"] == "not_found"
    assert managed.got("GET", LIMITS)["data"] == []


def test_a_budgets_dollars_may_be_a_number_or_a_text_and_are_told_as_a_text(managed: Managed) -> None:
    hook = {"soft": 0.8, "webhook": "https://hooks.example.com/x"}
    made = managed.got("POST", BUDGETS, {**SPEND, **hook}, status=201)
    assert (made["most"], made["soft"], made["webhook"]) == ("12.5", 0.8, hook["webhook"])
    path = f"{BUDGETS}/{made['id']}"
    for sent, told in (("20.000001", "20.000001"), (3, "3"), (0.1, "0.1"), ("0", "0")):
        assert managed.got("PATCH", path, {"most": sent})["most"] == told
    cleared = managed.got("PATCH", path, {"soft": None, "webhook": None})
    assert (cleared["soft"], cleared["webhook"]) == (None, None)


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (LIMITS, {**RATE, "most": 1.5}, "most"),
        (LIMITS, {**RATE, "most": "60"}, "most"),
        (LIMITS, {**RATE, "measure": "usd"}, "measure"),
        (LIMITS, {**RATE, "period": "month"}, "period"),
        (LIMITS, {**RATE, "soft": 0.5}, "soft"),
        (LIMITS, {**RATE, "match": {"keys": "a"}}, "match.keys"),
        (LIMITS, {**RATE, "object": "budget"}, "object"),
        (LIMITS, {**RATE, "id": "lim_aaaaaaaaaaaa"}, "id"),
        (BUDGETS, {**SPEND, "most": "1.0000001"}, "most"),
        (BUDGETS, {**SPEND, "soft": 1.5}, "soft"),
        (BUDGETS, {**SPEND, "soft": 0.5, "webhook": "http://hooks.example.com"}, "webhook"),
        (BUDGETS, {**SPEND, "webhook": "https://hooks.example.com"}, "soft"),
        (BUDGETS, {**SPEND, "each": ["keys"]}, "each"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_the_field_at_fault(
    managed: Managed, path: str, asked: JSON, param: str
) -> None:
    assert managed.got("POST", path, asked, status=400)["error"]["param"] == param
    assert managed.got("GET", path)["data"] == managed.got("GET", AUDIT)["data"] == []


@pytest.mark.parametrize("field", ["key", "user", "project"])
def test_a_rule_about_nobody_is_not_found_by_its_field(managed: Managed, field: str) -> None:
    error = managed.got("POST", LIMITS, {**RATE, "match": {field: "nobody"}}, status=404)["error"]
    assert (error["param"], error["code"]) == (f"match.{field}", "not_found")


@pytest.mark.parametrize("field", ["measure", "period", "match", "each"])
def test_what_a_rule_counts_cannot_change(managed: Managed, field: str) -> None:
    made = managed.got("POST", LIMITS, RATE, status=201)
    error = managed.got("PATCH", f"{LIMITS}/{made['id']}", {field: made[field]}, status=400)["error"]
    assert error["param"] == field


def test_a_list_is_of_whom_one_asks_for(managed: Managed) -> None:
    key = managed.make().key.id
    ids = [managed.got("POST", LIMITS, {**RATE, "match": match}, status=201)["id"] for match in ({}, {"key": key})]
    assert [one["id"] for one in managed.got("GET", f"{LIMITS}?key={key}")["data"]] == ids[1:]
    assert [one["id"] for one in managed.got("GET", f"{LIMITS}?limit=1")["data"]] == ids[1:]
    assert managed.got("GET", f"{LIMITS}?project=%00")["data"] == []


def test_making_one_twice_under_one_name_makes_one(managed: Managed) -> None:
    first = managed.got("POST", BUDGETS, SPEND, status=201, Idempotency_Key="one")
    assert managed.got("POST", BUDGETS, SPEND, status=201, Idempotency_Key="one") == first
    other = managed.got("POST", BUDGETS, {**SPEND, "most": 1}, status=409, Idempotency_Key="one")["error"]
    assert (other["code"], other["param"]) == ("conflict", "idempotency-key")


# How they stand.


def test_one_that_is_not_counted_apart_is_shown_as_it_stands(managed: Managed) -> None:
    made = managed.got("POST", BUDGETS, SPEND, status=201)
    managed.standings.used[(made["id"],)] = 2_500_001
    shown = managed.got("GET", f"{BUDGETS}/{made['id']}")
    assert shown["standing"] == {"used": "2.500001", "remaining": "9.999999", "resets": 1_764_000_060.5}
    assert managed.got("GET", BUDGETS)["data"][0]["standing"] is None
    refused = managed.got("GET", f"{BUDGETS}/{made['id']}?subject=a", status=400)["error"]
    assert refused["param"] == "subject"


def test_one_that_is_counted_apart_is_shown_for_whom_one_asks(managed: Managed) -> None:
    made = managed.got("POST", LIMITS, {**RATE, "each": ["key", "model"]}, status=201)
    path = f"{LIMITS}/{made['id']}"
    managed.standings.used[(made["id"], "k1", "openai/gpt,mini")] = 12
    assert managed.got("GET", path)["standing"] is None
    assert managed.got("GET", f"{path}?subject=k1,openai/gpt,mini")["standing"]["used"] == 12
    assert managed.got("GET", f"{path}?subject=k2,openai/gpt")["standing"]["used"] == 0
    for wrong in ("k1", "k1,", ",a", "k1,%00", "k1," + "x" * 513):
        assert managed.got("GET", f"{path}?subject={wrong}", status=400)["error"]["param"] == "subject"


def test_while_the_counters_are_away_a_rule_is_shown_without_its_standing(managed: Managed) -> None:
    made = managed.got("POST", LIMITS, RATE, status=201)
    managed.standings.away = True
    assert managed.got("GET", f"{LIMITS}/{made['id']}") == {**made, "standing": None}


# Who is held to them.


def test_a_caller_is_told_what_it_is_held_to_and_no_webhook(managed: Managed) -> None:
    issued = managed.make()
    hook = {"soft": 0.5, "webhook": "https://hooks.example.com/canary"}
    mine = managed.got("POST", BUDGETS, {**SPEND, **hook, "match": {"key": issued.key.id}}, status=201)
    each = managed.got("POST", LIMITS, {**RATE, "each": ["key"], "match": {"model": "demo/*"}}, status=201)
    managed.got("POST", LIMITS, {**RATE, "match": {"caller": "tok_nobody"}}, status=201)
    managed.got("POST", LIMITS, {**RATE, "name": "by model", "each": ["model"]}, status=201)
    managed.standings.used = {(mine["id"],): 500_000, (each["id"], issued.key.id): 7}
    managed.rules.poll()
    answer = managed.ask("GET", "/v1/me", key=text(issued))
    assert "canary" not in answer.text
    told = answer.json
    assert told is not None
    assert [one["standing"] for one in told["budgets"]] == [
        {"used": "0.5", "remaining": "12", "resets": 1_764_000_060.5}
    ]
    assert [(one["name"], one["standing"] and one["standing"]["used"]) for one in told["limits"]] == [
        ("a minute", 7),
        ("by model", None),
    ]
    assert told["budgets"][0]["match"] == {"key": issued.key.id}


# Whatever is sent.

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_texts = st.text(max_size=20) | st.sampled_from(["a", "*", "*****", "\0", "\u202e", "x" * 300, "abcdefabcdef"])
_bodies = st.fixed_dictionaries(
    {},
    optional={
        "name": _texts | _json,
        "measure": st.sampled_from([*MEASURES["limit"], *MEASURES["budget"]]) | _json,
        "most": st.integers() | st.floats() | st.decimals().map(str) | st.sampled_from(["1e999", "1" * 400]) | _json,
        "period": st.sampled_from([*PERIODS["limit"], *PERIODS["budget"]]) | _json,
        "match": st.dictionaries(st.sampled_from([*SUBJECTS, "x"]), _texts | _json, max_size=5) | _json,
        "each": st.lists(st.sampled_from([*SUBJECTS, "x"]), max_size=7) | _json,
        "soft": st.floats() | _json,
        "webhook": st.sampled_from(["https://a.example/canary", "http://localhost:1", "https://["]) | _texts | _json,
        "other": _json,
    },
)
#: Some that are good but for one field, which chance alone hardly ever makes.
_nearly = st.tuples(st.sampled_from([RATE, SPEND]), _bodies, st.sets(st.sampled_from([*RATE, "match", "each"]))).map(
    lambda made: {**made[0], **{name: value for name, value in made[1].items() if name in made[2]}}
)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    made = Managed(tmp_path_factory.mktemp("any"))
    yield made
    made.close()


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["limits", "budgets"]), body=_nearly | _bodies | _json, change=_bodies)
def test_whatever_is_sent_is_taken_or_refused_and_every_write_is_in_the_audit(
    office: Managed, kind: str, body: Any, change: JSON
) -> None:
    audit = Audit(office.database)
    before = audit.page(limit=1).items
    seen = before[0].seq if before else 0
    answer = office.ask("POST", f"/admin/v1/{kind}", json.dumps(body).encode())
    assert answer.status_code in (201, 400, 404), answer.text
    lines = [line for line in audit.page(limit=3).items if line.seq > seen]
    assert len(lines) == (answer.status_code == 201)
    assert "canary" not in json.dumps([dict(line.details) for line in lines])
    assert answer.json is not None
    if answer.status_code != 201:
        assert answer.json["error"]["type"] == "invalid_request_error"
        return
    path = f"/admin/v1/{kind}/{answer.json['id']}"
    assert {**office.got("GET", path), "standing": None} == answer.json
    assert office.ask("PATCH", path, json.dumps(change).encode()).status_code in (200, 400)
    office.got("DELETE", path)
    assert audit.page(target=answer.json["id"]).items[0].action == "delete"


@settings(max_examples=60, deadline=None)
@given(
    id=st.text(max_size=20) | st.from_regex(r"lim_[0-9a-z]{12}", fullmatch=True),
    query=st.dictionaries(
        st.sampled_from(["key", "user", "project", "after", "limit", "subject"]), st.text(max_size=9)
    ),
    row=st.sampled_from([row for row in MANAGING if row.name.startswith(("limits", "budgets"))]),
)
def test_whatever_is_asked_for_is_found_or_not(office: Managed, id: str, query: dict[str, str], row: Any) -> None:
    path = row.path.replace("{id}", quote(id, safe="") or "x")
    answer = office.ask(row.method, f"{path}?{urlencode(query)}", {} if row.body is not None else None)
    # an id such as `a/b` makes a path another one's
    assert answer.status_code in (200, 308, 400, 404, 405), answer.text


def test_a_webhook_is_in_no_log_and_in_no_trace(managed: Managed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    hook = {"soft": 0.5, "webhook": "https://hooks.example.com/canary"}
    made = managed.got("POST", BUDGETS, {**SPEND, **hook}, status=201)
    managed.got("POST", BUDGETS, {**SPEND, **hook, "most": -1}, status=400)
    managed.got("PATCH", f"{BUDGETS}/{made['id']}", {"webhook": "https://hooks.example.com/canary2"})
    managed.got("DELETE", f"{BUDGETS}/{made['id']}")
    assert "canary" not in caplog.text
    assert "canary" not in json.dumps([managed.traced.traces, managed.traced.begun])
    assert "canary" not in managed.ask("GET", AUDIT).text
    assert len(managed.got("GET", f"{AUDIT}?kind={BUDGET}")["data"]) == 3
