"""The store is away, and back: what each worker does meanwhile, and what is charged then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.core.rules import MICRO, PARALLEL, TOKENS, Rule
from gateway.errors import BudgetExceeded, LimitExceeded, StoreUnavailable
from gateway.limits import Limiter, Policy
from tests.limits.ruled import Removable, Told, asked, budget, ended, limit, limiter, planned, used, within


@pytest.fixture
def store() -> Iterator[Removable]:
    made = Removable()
    yield made
    made.silent.set()


def gone(store: Removable, *rules: Rule, workers: int = 1, **more: Any) -> Limiter:
    """A limiter whose store has answered once and is away now."""
    it = limiter(*rules, counters=store, policy=Policy(workers=workers, **more.pop("policy", {})), **more)
    it.admit(asked(1), planned()).settle(ended(1))
    store.away = True
    return it


def admitted(it: Limiter, tries: int, tokens: int = 1) -> int:
    count = 0
    for _ in range(tries):
        try:
            it.admit(asked(tokens), planned()).settle(ended(tokens))
            count += 1
        except LimitExceeded:
            continue
    return count


def test_a_worker_goes_on_with_its_share_of_a_limit(store: Removable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.limits"):
        it = gone(store, limit(most=12), workers=3)
        assert admitted(it, 20) == 4
    assert store.asked.count("reserve") == 2, "the first finds out, the others do not ask"
    assert [record.message for record in caplog.records] == ["limits have lost their store"]


@pytest.mark.parametrize(("most", "share"), [(2, 1), (0, 0)])
def test_a_share_is_1_at_least_but_of_nothing(store: Removable, most: int, share: int) -> None:
    store.away = True
    assert admitted(limiter(limit(most=most), counters=store, policy=Policy(workers=4)), 5) == share


def test_tokens_and_calls_at_once_are_shared_as_well(store: Removable) -> None:
    it = gone(store, limit(TOKENS, 400), limit(PARALLEL, 8, None, id="lim_2"), workers=4)
    held = [it.admit(asked(1), planned()) for _ in range(2)]
    with pytest.raises(LimitExceeded, match="lim_2"):
        it.admit(asked(1), planned())
    held[0].settle(ended(85))
    with pytest.raises(LimitExceeded, match="100 tokens"):
        it.admit(asked(9), planned())


def test_a_budget_goes_on_from_what_was_last_seen(store: Removable) -> None:
    it = limiter(budget(), counters=store, policy=Policy(workers=2), spending=Told(4 * MICRO))
    it.admit(asked(2), planned()).settle(ended(2))
    store.away = True
    assert admitted(it, 10) == 2, "half of the 4 that are left"


def test_a_budget_of_which_nothing_was_seen_begins_with_the_ledger(store: Removable) -> None:
    store.away = True
    assert admitted(limiter(budget(), counters=store, spending=Told(7 * MICRO)), 10) == 3


def test_a_budget_of_which_nobody_knows_is_refused(store: Removable) -> None:
    store.away = True
    it = limiter(budget(), counters=store, spending=Told(None))
    with pytest.raises(StoreUnavailable):
        it.admit(asked(1), planned())


def test_no_call_waits_for_a_ledger_that_is_silent_too(store: Removable) -> None:
    ledger, asked_for = Told(0), threading.Event()

    def silent(*_args: Any) -> int:
        asked_for.wait(20)
        return 0

    ledger.spent = silent  # type: ignore[method-assign]
    store.away = True
    it = limiter(budget(), counters=store, spending=ledger)
    began_s = time.monotonic()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            it.admit(asked(1), planned())
    asked_for.set()
    assert time.monotonic() - began_s < 0.5


def test_where_the_ledger_is_away_too_a_lost_counter_is_opened_with_what_was_seen(store: Removable) -> None:
    ledger = Told(0)
    it = limiter(budget(), counters=store, spending=ledger)
    for _ in range(10):
        it.admit(asked(1), planned()).settle(ended(1))
    store.forget()
    ledger.amount = None
    with pytest.raises(BudgetExceeded):
        it.admit(asked(1), planned())


def test_calls_are_refused_where_the_operator_wants_none_uncounted(store: Removable) -> None:
    it = gone(store, limit(), policy={"fail_open": False})
    with pytest.raises(StoreUnavailable) as refused:
        it.admit(asked(), planned())
    assert (refused.value.http_status, refused.value.should_retry) == (503, True)
    free = limiter(counters=store, policy=Policy(fail_open=False))
    free.admit(asked(), planned())


def test_what_was_counted_alone_is_charged_when_the_store_is_back(
    store: Removable, caplog: pytest.LogCaptureFixture
) -> None:
    it = gone(store, budget(), limit(most=100))
    it.start()
    with caplog.at_level(logging.INFO, "gateway.limits"):
        assert admitted(it, 3, tokens=2) == 3
        going_on = it.admit(asked(1), planned())
        store.away = False
        within(5, lambda: not it._link.away)
        within(5, lambda: used(it) == [7 * MICRO, 1])
        going_on.settle(ended(1))
        within(5, lambda: used(it) == [8 * MICRO, 1])
    assert [record.message for record in caplog.records] == [
        "limits have lost their store",
        "limits have their store again",
    ]
    it.close()


def test_what_was_counted_alone_is_in_the_ledger_where_the_store_has_forgotten(store: Removable) -> None:
    ledger = Told(0)
    it = gone(store, budget(), spending=ledger)
    it.start()
    assert admitted(it, 3) == 3
    store.forget()
    ledger.amount = 4 * MICRO
    store.away = False
    within(5, lambda: not it._link.away and not it._local._owed)
    assert used(it) == [4 * MICRO], "and is not charged twice"
    it.close()


def test_a_call_that_ends_while_the_store_is_away_is_charged_later(store: Removable) -> None:
    it = limiter(budget(), counters=store)
    it.start()
    ticket = it.admit(asked(9), planned())
    store.away = True
    ticket.settle(ended(2))
    assert store.inner.look([part.claim for part in ticket.parts])[0].used == 9 * MICRO
    store.away = False
    within(5, lambda: not it._link.away)
    within(5, lambda: used(it) == [2 * MICRO])
    it.close()


def test_a_second_time_begins_with_what_is_seen_then(store: Removable) -> None:
    it = gone(store, budget())
    it.start()
    assert admitted(it, 4) == 4
    store.away = False
    within(5, lambda: not it._link.away and used(it) == [5 * MICRO])
    assert admitted(it, 1) == 1
    store.away = True
    assert admitted(it, 10) == 4
    it.close()


# A store that does not even say no.


def test_a_silent_store_costs_one_bound_and_then_nothing(store: Removable) -> None:
    it = limiter(limit(most=100), counters=store, bounded=False)
    it.admit(asked(), planned()).settle(ended())
    store.silent.clear()
    began_s = time.monotonic()
    it.admit(asked(), planned())
    assert 0.09 <= time.monotonic() - began_s < 1
    began_s = time.monotonic()
    assert admitted(it, 20) == 20
    assert time.monotonic() - began_s < 1, "a bound for each would be two"


def test_what_was_reserved_for_a_call_that_waited_no_more_is_given_back(store: Removable) -> None:
    it = limiter(limit(most=100), counters=store, bounded=False)
    store.silent.clear()
    it.admit(asked(), planned())
    store.silent.set()
    within(5, lambda: store.asked.count("settle") == 1)
    it._link.probe()
    within(5, lambda: used(it) == [0])


def test_a_store_that_is_slow_because_many_ask_is_waited_for(store: Removable) -> None:
    it = limiter(limit(most=100), counters=store, bounded=False)
    plain = store.inner.reserve

    def slow(*args: Any) -> Any:
        time.sleep(0.06)
        return plain(*args)

    store.inner.reserve = slow  # type: ignore[method-assign]
    threads = [threading.Thread(target=lambda: it.admit(asked(), planned())) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not it._link.away
    assert used(it) == [40]


def test_a_store_that_gives_signs_of_life_is_waited_for(store: Removable) -> None:
    it = limiter(limit(most=100), counters=store, bounded=False)
    plain = store.inner.reserve

    def held_by_others(*args: Any) -> Any:
        time.sleep(0.6)
        return plain(*args)

    store.inner.reserve = held_by_others  # type: ignore[method-assign]
    it.admit(asked(), planned())
    assert not it._link.away
    assert "get" in store.asked
    assert used(it) == [1]


def test_it_is_noticed_within_seconds_that_the_store_is_back_also_where_calls_are_refused(store: Removable) -> None:
    it = limiter(limit(most=100), counters=store, policy=Policy(fail_open=False))
    it.start()
    store.away = True
    with pytest.raises(StoreUnavailable):
        it.admit(asked(), planned())
    store.away = False
    within(4, lambda: not it._link.away)
    it.admit(asked(), planned())
    it.close()


# Leases.


def test_leases_are_renewed_in_one_call_and_none_beyond_its_deadline(store: Removable) -> None:
    it = limiter(limit(PARALLEL, 100, None), counters=store)
    going_on = [it.admit(asked(), planned()) for _ in range(5)]
    it.admit(asked(deadline_s=time.monotonic() - 1), planned())
    over = it.admit(asked(), planned())
    over.settle(ended())
    renewed: list[set[str]] = []
    plain = store.inner.renew

    def noted(ids: Any, lease_s: float) -> set[str]:
        renewed.append(set(ids))
        return plain(ids, lease_s)

    store.inner.renew = noted  # type: ignore[method-assign]
    it._leases.renew()
    assert renewed == [{ticket.held.id for ticket in going_on if ticket.held is not None}]


def test_what_the_store_has_lost_is_reserved_anew_whatever_the_limit(store: Removable) -> None:
    ledger = Told(0)
    it = limiter(budget(), limit(PARALLEL, 2, None), counters=store, spending=ledger)
    tickets = [it.admit(asked(4), planned()) for _ in range(2)]
    store.forget()
    ledger.amount = 9 * MICRO
    it._leases.renew()
    assert used(it) == [17 * MICRO, 2]
    for ticket in tickets:
        ticket.settle(ended(1))
    assert used(it) == [11 * MICRO, 0]


def test_a_call_that_ends_before_it_is_noticed_that_the_store_forgot_is_charged_to_the_ledger_alone(
    store: Removable,
) -> None:
    ledger = Told(0)
    it = limiter(budget(), counters=store, spending=ledger)
    ticket = it.admit(asked(4), planned())
    store.forget()
    ticket.settle(ended(3))
    ledger.amount = 3 * MICRO
    assert used(it) == [3 * MICRO]
