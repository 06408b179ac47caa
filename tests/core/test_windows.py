"""Windows: what counts, what fits, when there is room again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.windows import (
    LARGEST_AMOUNT,
    SLOTS,
    Claim,
    Window,
    counted,
    distinct,
    fits,
    is_name,
    lease_ms,
    live,
    openable,
    standing,
    taken_back,
)
from gateway.storage.tabled import _window_of

MINUTE, ALL = Window(60.0), Window(None)
NOW_MS = 1_764_000_000_500


def claim(amount: int = 1, limit: int | None = 10, window: Window = MINUTE) -> Claim:
    return Claim("s", window, amount, limit)


@pytest.mark.parametrize(
    ("length_s", "slot_ms", "slots"),
    [(60.0, 1000, 60), (1.0, 17, 59), (0.06, 1, 60), (3600.0, 60_000, 60), (86_400.0, 1_440_000, 60), (0.121, 3, 41)],
)
def test_a_window_has_up_to_sixty_slots(length_s: float, slot_ms: int, slots: int) -> None:
    window = Window(length_s)
    assert (window.slot_ms, window.slots) == (slot_ms, slots)
    assert window.slot_ms * window.slots >= length_s * 1000


@given(st.floats(0.06, 1e8))
def test_the_slots_of_any_window_span_it_and_its_name_says_all(length_s: float) -> None:
    window = Window(length_s)
    assert 1 <= window.slots <= SLOTS
    assert round(length_s * 1000) <= window.slot_ms * window.slots < round(length_s * 1000) + window.slot_ms
    other = _window_of(Claim("a|3x4", window, 1).counter)
    assert (other.slot_ms, other.slots) == (window.slot_ms, window.slots)


def test_a_window_without_end_has_one_slot() -> None:
    assert (ALL.slot_ms, ALL.slots, ALL.slot_at(NOW_MS), ALL.keep_ms) == (0, 0, 0, 86_400_000)
    assert Window(None, 5.0).ends_ms(0, NOW_MS) == NOW_MS + 5000
    assert _window_of(Claim("a", ALL, 1).counter).length_s is None


@pytest.mark.parametrize("length_s", [0.0, 0.0599, -1.0, math.nan, math.inf])
def test_a_length_that_is_none_is_refused(length_s: float) -> None:
    with pytest.raises(ValueError, match="long at least"):
        Window(length_s)
    with pytest.raises(ValueError, match="kept"):
        Window(None, min(length_s, 0.0) if math.isfinite(length_s) else length_s)


@pytest.mark.parametrize("wrong", [{"amount": -1}, {"amount": 1.0}, {"amount": True}, {"limit": LARGEST_AMOUNT + 1}])
def test_a_claim_of_what_is_no_amount_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        Claim(**{"subject": "s", "window": MINUTE, "amount": 1, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", "x" * 513])
def test_what_can_name_nothing_in_some_store_is_no_name(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="subject"):
        Claim(name, MINUTE, 1)


def test_counters_are_told_apart_by_subject_and_window() -> None:
    claims = [Claim(subject, window, 1) for subject in ("a", "b") for window in (MINUTE, Window(1.0), ALL)]
    assert len({one.counter for one in claims}) == 6
    distinct(claims)
    for wrong in ([], [claims[0], Claim("a", Window(60.0004), 5)]):
        with pytest.raises(ValueError, match="one of each"):
            distinct(wrong)


def test_a_slot_counts_until_all_of_it_has_left() -> None:
    now = MINUTE.slot_at(NOW_MS)
    slots = {now - 61: 1, now - 60: 2, now - 1: 4, now: 8}
    assert live(MINUTE, slots, NOW_MS) == {now - 60: 2, now - 1: 4, now: 8}
    assert live(MINUTE, slots, NOW_MS + 499) == live(MINUTE, slots, NOW_MS)
    assert live(MINUTE, slots, NOW_MS + 500) == {now - 1: 4, now: 8}
    assert live(ALL, {0: 5}, NOW_MS) == {0: 5}


def test_what_lies_ahead_of_the_clock_counts_as_now() -> None:
    now = MINUTE.slot_at(NOW_MS)
    assert live(MINUTE, {now + 3600: 5, now: 2}, NOW_MS) == {now: 7}
    assert taken_back(MINUTE, {now + 3600: 5, now: 2}, now + 3600, 5, NOW_MS) == {now: 2}


def test_taking_back_goes_below_no_0_and_makes_no_slot() -> None:
    now = MINUTE.slot_at(NOW_MS)
    assert taken_back(MINUTE, {now: 2}, now, 5, NOW_MS) == {now: 0}
    assert taken_back(MINUTE, {now: 2}, now - 3, 5, NOW_MS) == {now: 2}


@pytest.mark.parametrize(
    ("used", "amount", "limit", "fit"),
    [(9, 1, 10, True), (10, 1, 10, False), (10, 0, 10, True), (0, 11, 10, False), (99, 9, None, True)],
)
def test_a_claim_fits_up_to_its_limit(used: int, amount: int, limit: int | None, fit: bool) -> None:
    assert fits(claim(amount, limit), {1: used - used // 2, 2: used // 2}) is fit


def test_who_was_refused_is_told_when_enough_will_have_left() -> None:
    now = MINUTE.slot_at(NOW_MS)
    slots = {now - 50: 3, now - 20: 3, now: 4}
    told = [standing(claim(amount), slots, NOW_MS, admitted=False).wait_s for amount in (1, 3, 4, 6, 7, 10, 11)]
    assert told == [10.5, 10.5, 40.5, 40.5, 60.5, 60.5, None]
    assert standing(claim(1, 10, ALL), {0: 10}, NOW_MS, admitted=False).wait_s is None


def test_a_standing_says_what_is_used_and_left_and_when_it_is_empty() -> None:
    now = MINUTE.slot_at(NOW_MS)
    told = standing(claim(2), {now - 50: 3}, NOW_MS, admitted=True)
    assert (told.used, told.remaining, told.wait_s, told.empty_s) == (5, 5, 0.0, 60.5)
    told = standing(claim(2), {now - 50: 3}, NOW_MS, admitted=False)
    assert (told.used, told.remaining, told.wait_s, told.empty_s) == (3, 7, 0.0, 10.5)
    told = standing(claim(2, 1), {now: 0}, NOW_MS, admitted=False)
    assert (told.used, told.remaining, told.wait_s, told.empty_s) == (0, 1, None, 0.0)
    assert standing(claim(1, None, ALL), {0: 1}, NOW_MS, admitted=True).empty_s is None


@given(st.dictionaries(st.integers(-70, 5), st.integers(0, 9), max_size=12), st.integers(0, 9), st.integers(0, 999))
def test_after_the_wait_it_fits_and_a_millisecond_before_it_does_not(
    ages: dict[int, int], amount: int, offset_ms: int
) -> None:
    now_ms = NOW_MS + offset_ms
    now = MINUTE.slot_at(now_ms)
    slots = live(MINUTE, {now + age: much for age, much in ages.items()}, now_ms)
    wanted = claim(amount)
    told = standing(wanted, slots, now_ms, admitted=False)
    assert told.wait_s is not None
    later_ms = now_ms + round(told.wait_s * 1000)
    assert fits(wanted, live(MINUTE, slots, later_ms))
    if told.wait_s:
        assert not fits(wanted, live(MINUTE, slots, later_ms - 1))
    assert told.empty_s is not None
    assert sum(live(MINUTE, slots, now_ms + round(told.empty_s * 1000)).values()) == 0


def test_counting_changes_nothing_that_was_given() -> None:
    now = MINUTE.slot_at(NOW_MS)
    slots = {now: 1}
    assert counted(MINUTE, slots, 2, NOW_MS) == {now: 3}
    assert slots == {now: 1}


@pytest.mark.parametrize("wrong", [0.0, -1.0, 600.1, math.nan])
def test_a_lease_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        lease_ms(wrong)
    assert lease_ms(0.0001) == 1


def test_a_counter_that_has_to_be_opened_is_told_from_one_of_0() -> None:
    wanted = Claim("s", ALL, 0, None, opened=True)
    assert (fits(wanted, {}), fits(wanted, {0: 0})) == (False, True)
    assert [standing(wanted, slots, NOW_MS, admitted=False).missing for slots in ({}, {0: 0})] == [True, False]
    assert standing(wanted, {}, NOW_MS, admitted=False).wait_s is None


def test_only_a_window_without_end_can_be_opened() -> None:
    with pytest.raises(ValueError, match="without end"):
        Claim("s", MINUTE, 1, opened=True)
    assert openable(Claim("s", ALL, 1, opened=True), 0).opened
    for amount in (-1, LARGEST_AMOUNT + 1):
        with pytest.raises(ValueError, match="opened"):
            openable(Claim("s", ALL, 1, opened=True), amount)
    with pytest.raises(ValueError, match="opened"):
        openable(claim(window=ALL), 0)
