"""The limiter: what it reserves, refuses, charges and tells."""

from __future__ import annotations

import logging
import threading
import time
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.calls import Bill, Caller
from gateway.core.endpoint import BEGUN, SEEN, Endpoint
from gateway.core.endpoints import COUNT_TOKENS, EMBEDDINGS, ENDPOINTS, MESSAGES
from gateway.core.rules import MICRO, PARALLEL, REQUESTS, TOKENS, Match
from gateway.errors import BudgetExceeded, LimitExceeded, ModelNotPriced
from gateway.limits import Policy
from gateway.storage.memory import MemoryCounters
from tests.limits.ruled import (
    DOLLAR,
    MODEL,
    Removable,
    Told,
    Watched,
    asked,
    billed,
    budget,
    ended,
    limit,
    limiter,
    meter,
    planned,
    used,
)

KEY = Caller("key_k1", "t", "key", key_id="k1")
OTHER = Caller("key_k2", "t", "key", key_id="k2")


# What is reserved.


def test_a_call_that_no_rule_is_about_asks_no_store() -> None:
    store = Removable()
    it = limiter(limit(match=Match(caller="another")), counters=store)
    ticket = it.admit(asked(), planned())
    ticket.settle(ended(5))
    assert store.asked == []
    assert (ticket.headers(), ticket.rules) == ({}, ())


def test_a_limit_of_2_requests_lets_2_through_and_each_key_has_its_own() -> None:
    it = limiter(limit(each=("key",)))
    for caller in (KEY, OTHER):
        for _ in range(2):
            it.admit(asked(caller=caller), planned()).settle(ended(1))
        with pytest.raises(LimitExceeded) as refused:
            it.admit(asked(caller=caller), planned())
        assert refused.value.retry_after_ms is not None
        assert 59_000 <= int(refused.value.retry_after_ms) <= 62_000


def test_tokens_are_reserved_by_the_callers_maximum_and_charged_by_what_was_used() -> None:
    it = limiter(limit(TOKENS, 1000))
    ticket = it.admit(asked(300, body={"n": 2}), planned())
    assert used(it) == [601], "the prompt has a token at least"
    ticket.settle(ended(40))
    assert used(it) == [50]


def test_calls_at_once_are_counted_until_they_end() -> None:
    it = limiter(limit(PARALLEL, 2, None))
    first, second = (it.admit(asked(), planned()) for _ in range(2))
    with pytest.raises(LimitExceeded, match="2 calls at once"):
        it.admit(asked(), planned())
    first.settle(ended())
    third = it.admit(asked(), planned())
    assert used(it) == [2]
    for ticket in (second, third, third):
        ticket.settle(ended())
    assert used(it) == [0]


def test_a_call_that_reached_no_model_takes_a_request_and_no_tokens_and_no_money() -> None:
    it = limiter(limit(), limit(TOKENS, 1000, id="lim_2"), budget())
    it.admit(asked(9), planned()).settle(ended())
    assert used(it) == [1, 0, 0]


def test_a_budget_of_10_lets_10_through() -> None:
    it = limiter(budget())
    for _ in range(10):
        it.admit(asked(1), planned()).settle(ended(1))
    with pytest.raises(BudgetExceeded) as refused:
        it.admit(asked(1), planned())
    assert "10.00 USD are used" in refused.value.message
    assert used(it) == [10 * MICRO]


def test_of_many_calls_at_once_a_budget_of_10_lets_10_through() -> None:
    it, gate, admitted = limiter(budget()), threading.Barrier(20), list[bool]()

    def ask() -> None:
        gate.wait()
        for _ in range(10):
            try:
                it.admit(asked(1), planned()).settle(ended(1))
                admitted.append(True)
            except BudgetExceeded:
                admitted.append(False)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(admitted), sum(admitted)) == (200, 10)


def test_a_reservation_that_was_too_high_is_given_back() -> None:
    it = limiter(budget())
    first = it.admit(asked(9), planned())
    with pytest.raises(BudgetExceeded):
        it.admit(asked(2), planned())
    first.settle(ended(1))
    it.admit(asked(9), planned())


def test_every_attempt_is_charged_also_those_that_failed() -> None:
    it = limiter(budget(), limit(TOKENS, 1000))
    it.admit(asked(1), planned()).settle(ended(2, 3))
    assert used(it) == [5 * MICRO, 25]


def test_settling_again_changes_nothing() -> None:
    it = limiter(budget())
    ticket = it.admit(asked(1), planned())
    ticket.settle(ended(2))
    ticket.settle(ended(5))
    assert used(it) == [2 * MICRO]


def test_fractions_of_a_micro_dollar_are_rounded_up_for_each_call() -> None:
    it = limiter(budget())
    for _ in range(3):
        it.admit(asked(1), planned()).settle(billed(Bill(None, False, Decimal("0.0000005"))))
    assert used(it) == [3]


@pytest.mark.parametrize("endpoint", [COUNT_TOKENS])
def test_counting_tokens_takes_a_request_and_nothing_else(endpoint: Any) -> None:
    it = limiter(limit(), limit(TOKENS, 1, id="lim_2"), budget(most=0))
    ticket = it.admit(asked(endpoint=endpoint), planned("openai/unpriced"))
    assert ticket.rules == ("lim_abcdefghijkl",)


@pytest.mark.parametrize("endpoint", [row for row in ENDPOINTS if row.deferred == SEEN], ids=lambda row: row.name)
def test_a_call_that_sees_the_end_of_another_is_let_through_and_charged_for_it(endpoint: Endpoint) -> None:
    it = limiter(limit(), limit(TOKENS, 1, id="lim_2"), budget(most=3 * MICRO), budget(TOKENS, 0, id="bud_2"))
    for spent in (2, 4):
        ticket = it.admit(asked(endpoint=endpoint), planned())
        assert ticket.rules == ("lim_abcdefghijkl", "bud_abcdefghijkl", "bud_2")
        ticket.settle(ended(2))
        assert it.of(budget()).used == spent * MICRO
        assert it.of(budget(TOKENS, 0, id="bud_2")).used == 6 * spent, "10 of a prompt and 2 of an answer, each time"


@pytest.mark.parametrize("endpoint", [row for row in ENDPOINTS if row.deferred == BEGUN], ids=lambda row: row.name)
def test_what_is_billed_later_is_not_begun_where_nothing_is_left(endpoint: Endpoint) -> None:
    it = limiter(budget(most=2 * MICRO))
    it.admit(asked(endpoint=endpoint), planned("openai/files")).settle(ended())
    assert it.of(budget()).used == 0, "it takes nothing itself"
    it.admit(asked(2), planned()).settle(ended(2))
    with pytest.raises(BudgetExceeded):
        it.admit(asked(endpoint=endpoint), planned("openai/files"))


def test_embeddings_reserve_their_input_alone() -> None:
    row = {"litellm_provider": "openai", "input_cost_per_token": 1, "output_cost_per_token": 0}
    it = limiter(budget(), meter=meter(**{"openai/embed": row}))
    made = asked(None, endpoint=EMBEDDINGS, body={"input": [1, 2, 3]})
    it.admit(made, planned("openai/embed"))
    assert used(it) == [3 * MICRO]


# What is guessed.


def test_a_call_without_a_maximum_reserves_256_tokens_and_then_what_answers_had() -> None:
    it = limiter(budget(most=10_000 * MICRO))
    it.admit(asked(None), planned()).settle(ended(1000))
    assert used(it) == [1000 * MICRO]
    it.admit(asked(None), planned())
    assert used(it) == [2000 * MICRO], "the longest of the few that are known"
    it.admit(asked(None, caller=KEY), planned())
    assert used(it) == [2256 * MICRO], "another caller's are not known"


def test_a_guess_larger_than_a_limit_of_tokens_is_no_reason_to_refuse() -> None:
    it = limiter(limit(TOKENS, 100))
    it.admit(asked(None), planned()).settle(ended(20))
    assert used(it) == [30]


def test_the_models_own_maximum_is_reserved_where_the_operator_wants_it() -> None:
    policy = Policy(reserve_largest=True, models={MODEL: {"litellm_provider": "openai", "max_output_tokens": 4096}})
    it = limiter(budget(most=9999 * MICRO), policy=policy, meter=meter(**{"openai/small": DOLLAR}))
    it.admit(asked(None), planned())
    assert used(it) == [4096 * MICRO]
    it.admit(asked(5), planned())
    assert used(it) == [4101 * MICRO]
    it.admit(asked(None), planned("openai/small"))
    assert used(it) == [4357 * MICRO], "the map does not know it"


# Models without a price.


def test_a_model_without_a_price_is_refused_under_a_budget_of_money() -> None:
    watched = Watched()
    it = limiter(budget(), observer=watched)
    with pytest.raises(ModelNotPriced) as refused:
        it.admit(asked(), planned("openai/unpriced"))
    assert refused.value.refused_by == "bud_abcdefghijkl"
    assert watched.refusals == ["bud_abcdefghijkl"]
    limiter(budget(TOKENS, 1000)).admit(asked(), planned("openai/unpriced"))
    limiter(limit()).admit(asked(), planned("openai/unpriced"))


def test_of_several_deployments_those_without_a_price_are_left_out() -> None:
    it = limiter(budget())
    ticket = it.admit(asked(), planned("openai/unpriced", MODEL))
    assert [(one.deployment.name, one.number) for one in ticket.attempts] == [(MODEL, 1)]


def test_the_dearest_deployment_is_reserved() -> None:
    it = limiter(budget(), meter=meter(**{"openai/dear": {**DOLLAR, "output_cost_per_token": 7}}))
    it.admit(asked(1), planned(MODEL, "openai/dear"))
    assert used(it) == [7 * MICRO]


def test_a_model_without_a_price_counts_nothing_where_the_operator_allows_it() -> None:
    it = limiter(budget(), policy=Policy(allow_unpriced=True))
    it.admit(asked(), planned("openai/unpriced")).settle(ended(50, name="openai/unpriced"))
    assert used(it) == [0]


# Budgets that are opened.


def test_a_budget_begins_with_what_the_ledger_knows() -> None:
    ledger = Told(9 * MICRO)
    rule = budget(each=("key",), match=Match(model="openai/*"))
    it = limiter(rule, spending=ledger)
    it.admit(asked(1, caller=KEY), planned())
    with pytest.raises(BudgetExceeded):
        it.admit(asked(1, caller=KEY), planned())
    [(match, each, since_s, measure)] = ledger.asked
    assert (match, each, measure) == (rule.match, {"key": "k1"}, "usd")
    assert time.strftime("%d %H:%M:%S", time.gmtime(since_s)) == "01 00:00:00"


def test_a_store_that_has_forgotten_all_does_not_begin_a_budget_at_0() -> None:
    store, ledger = Removable(), Told(0)
    it = limiter(budget(), counters=store, spending=ledger)
    for _ in range(10):
        it.admit(asked(1), planned()).settle(ended(1))
    ledger.amount = 10 * MICRO
    store.forget()
    with pytest.raises(BudgetExceeded):
        it.admit(asked(1), planned())


def test_a_hundred_calls_at_once_ask_the_ledger_once() -> None:
    ledger = Told(0)
    it, gate = limiter(budget(most=200 * MICRO), spending=ledger), threading.Barrier(20)

    def ask() -> None:
        gate.wait()
        it.admit(asked(1), planned())

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ledger.asked) == 1
    assert used(it) == [20 * MICRO]


def test_a_changed_amount_holds_at_once_and_a_changed_match_is_counted_anew() -> None:
    ledger = Told(0)
    it = limiter(budget(most=1 * MICRO), spending=ledger)
    it.admit(asked(1), planned()).settle(ended(1))
    it.rules.rules[:] = [budget(most=2 * MICRO)]  # type: ignore[attr-defined]
    it.admit(asked(1), planned()).settle(ended(1))
    with pytest.raises(BudgetExceeded):
        it.admit(asked(1), planned())
    it.rules.rules[:] = [budget(most=2 * MICRO, match=Match(model="openai/*"))]  # type: ignore[attr-defined]
    it.admit(asked(1), planned())
    assert len(ledger.asked) == 2


# Clocks.


class Moved:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now_s: float) -> None:
        self.now_s = now_s
        monkeypatch.setattr("gateway.limits.time.time", lambda: self.now_s)


def test_a_clock_set_back_and_forth_begins_a_period_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Moved(monkeypatch, 1_795_696_200.0)  # 12:30
    ledger = Told(0)
    it = limiter(budget(period="hour"), spending=ledger)
    for moved_s in (0, 3600, -3600, -7200, 3600, 60, -86_400):
        clock.now_s += moved_s
        it.admit(asked(1), planned()).settle(ended(1))
    assert [since_s for _, _, since_s, _ in ledger.asked] == [1_795_694_400.0, 1_795_698_000.0]
    assert used(it) == [6 * MICRO]
    clock.now_s = 1_795_705_200.0
    it.admit(asked(1), planned())
    assert len(ledger.asked) == 3


# The limit of the settings.


def test_each_caller_has_the_settings_limit_unless_another_is_about_it() -> None:
    it = limiter(limit(REQUESTS, 5, match=Match(key="k2")), limit(TOKENS, 10**6, id="lim_2"), policy=Policy(rpm=1))
    it.admit(asked(caller=KEY), planned())
    with pytest.raises(LimitExceeded, match="GATEWAY_RATE_LIMIT_RPM"):
        it.admit(asked(caller=KEY), planned())
    it.admit(asked(caller=Caller("tok_1", "tok_1")), planned())
    for _ in range(5):
        it.admit(asked(caller=OTHER), planned())
    with pytest.raises(LimitExceeded, match="lim_abcdefghijkl"):
        it.admit(asked(caller=OTHER), planned())


# What is told.


def test_an_answer_says_how_limits_stood_in_the_callers_dialect() -> None:
    it = limiter(limit(REQUESTS, 10), limit(TOKENS, 1000, id="lim_2"))
    said = it.admit(asked(9), planned()).headers()
    assert (said["x-ratelimit-limit-requests"], said["x-ratelimit-remaining-requests"]) == ("10", "9")
    assert (said["x-ratelimit-limit-tokens"], said["x-ratelimit-remaining-tokens"]) == ("1000", "990")
    said = it.admit(asked(9, endpoint=MESSAGES), planned()).headers()
    assert (said["anthropic-ratelimit-requests-remaining"], said["anthropic-ratelimit-tokens-limit"]) == ("8", "1000")
    assert not any(name.startswith("x-ratelimit") for name in said)


def test_a_refusal_says_it_too_and_who_refused_and_what_else_held() -> None:
    watched = Watched()
    it = limiter(limit(most=1), limit(TOKENS, 100, id="lim_2"), observer=watched)
    it.admit(asked(9), planned())
    with pytest.raises(LimitExceeded) as refused:
        it.admit(asked(9), planned())
    error = refused.value
    assert error.reply_headers["x-ratelimit-remaining-requests"] == "0"
    assert error.reply_headers["x-ratelimit-remaining-tokens"] == "90", "what was refused is not counted"
    assert (error.refused_by, error.held_to) == ("lim_abcdefghijkl", ("lim_abcdefghijkl", "lim_2"))
    assert watched.refusals == ["lim_abcdefghijkl"]


def test_a_budget_that_is_nearly_used_up_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    store, watched, other = MemoryCounters(), Watched(), Watched()
    rule = budget(soft=0.5, each=("caller",), name="team")
    one, two = (limiter(rule, counters=store, observer=each) for each in (watched, other))
    with caplog.at_level(logging.WARNING, "gateway.limits"):
        for it in (one, two) * 4:
            ticket = it.admit(asked(1, caller=KEY), planned())
            ticket.settle(ended(1))
            it._leases._tell()
    assert ticket.headers()["x-gateway-budget-warning"] == "team 70%"
    assert [*watched.softs, *other.softs] == [("bud_abcdefghijkl", {"caller": "key_k1"}, 5 * MICRO, 10 * MICRO)]
    assert [record.message for record in caplog.records] == ["a budget is used beyond its soft share"]


def test_looking_reserves_nothing_and_opens_what_is_not_there() -> None:
    it = limiter(limit(), budget(), spending=Told(3 * MICRO))
    for _ in range(3):
        first, second = it.look(asked(4), planned())
        assert (first.standing.used, first.standing.wait_s) == (0, 0.0)
        assert (second.standing.used, second.part.claim.amount) == (3 * MICRO, 4 * MICRO)
    assert limiter().look(asked(), planned()) == ()
