"""What counts towards a limit: windows of time, what is claimed of them, and how they stand.

A rolling window is counted in slots of a sixtieth of its length, by the clock of the store. The oldest slot counts in
full until all of it has left, so no span of the window's length ever holds more than the limit, and a claim may wait
a sixtieth longer than it would have to.

Amounts are whole numbers: requests, tokens, micro-dollars. Times are milliseconds since the epoch. A clock that is set
back leaves slots behind that lie ahead of it; they count as the slot that is now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SLOTS = 60
#: A thousand million US dollars in micro-dollars; far below 2^53, above which Redis' scripts lose the last digit.
LARGEST_AMOUNT = 10**15
#: No lease is longer, so one that seems to be was given before the clock was set back.
LONGEST_LEASE_S = 600.0
_LONGEST_NAME = 512


@dataclass(frozen=True)
class Window:
    """The time over which a counter counts.

    Attributes:
        length_s: what was counted longer ago does not count, at least 0.06; None counts everything since the counter's
            first use, such as calls under way, or the money of a month that its name names.
        keep_s: where `length_s` is None: how long after its last use a counter is forgotten.

    Raises:
        ValueError: a length is too short or not finite.
    """

    length_s: float | None = None
    keep_s: float = 86_400.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.keep_s) and self.keep_s > 0):
            raise ValueError("a window is kept for some time")
        if self.length_s is not None and not (math.isfinite(self.length_s) and self.length_s >= SLOTS / 1000):
            raise ValueError(f"a window is {SLOTS / 1000} s long at least")

    @property
    def slot_ms(self) -> int:
        """How long a slot is; 0 where there is only one, the number 0."""
        return 0 if self.length_s is None else -(-round(self.length_s * 1000) // SLOTS)

    @property
    def slots(self) -> int:
        """How many whole slots before the one that is now count."""
        return 0 if self.length_s is None else -(-round(self.length_s * 1000) // self.slot_ms)

    @property
    def keep_ms(self) -> int:
        """How long after its last use a counter of this window may still be needed."""
        return self.slot_ms * (self.slots + 1) if self.slot_ms else math.ceil(self.keep_s * 1000)

    @property
    def name(self) -> str:
        """What tells the counters of one subject apart."""
        return f"{self.slot_ms}x{self.slots}" if self.slot_ms else "all"

    def slot_at(self, now_ms: int) -> int:
        """The slot that is now."""
        return now_ms // self.slot_ms if self.slot_ms else 0

    def ends_ms(self, slot: int, now_ms: int) -> int:
        """When what is counted in a slot does not count any more; for a window without end, when it is forgotten."""
        return (slot + self.slots + 1) * self.slot_ms if self.slot_ms else now_ms + self.keep_ms


@dataclass(frozen=True)
class Claim:
    """An amount of a limit that one call wants.

    Attributes:
        subject: whose limit of what, such as `key/k_1/tokens`: 1 to 512 characters without NUL.
        window: over which time.
        amount: 0 to `LARGEST_AMOUNT`.
        limit: the most that the window may hold, 0 to `LARGEST_AMOUNT`; None counts and does not limit.
        opened: it has room only in a counter that was opened (`Counters.open`), and settling makes none: what was
            counted before is known elsewhere, and a store that has lost it must not begin with 0. For a window without
            end.

    Raises:
        ValueError: a field is out of its range.
    """

    subject: str
    window: Window
    amount: int
    limit: int | None = None
    opened: bool = False

    def __post_init__(self) -> None:
        if not is_name(self.subject):
            raise ValueError(f"a subject has 1 to {_LONGEST_NAME} characters")
        if not is_amount(self.amount) or not (self.limit is None or is_amount(self.limit)):
            raise ValueError(f"amounts and limits are whole numbers from 0 to {LARGEST_AMOUNT}")
        if self.opened and self.window.length_s is not None:
            raise ValueError("only a window without end can be opened")

    @property
    def counter(self) -> str:
        """The name of what counts it."""
        return f"{self.subject}|{self.window.name}"


@dataclass(frozen=True)
class Standing:
    """How a window stands after a claim.

    Attributes:
        used: what it holds, with the claim where that was admitted.
        limit: the claim's.
        wait_s: 0 where there was room; else after how long there would be, if nothing else came; None where waiting
            alone makes none: what is claimed is above the limit itself, or the window has no end.
        empty_s: after how long it would hold nothing; None for a window without end that holds something.
        missing: the claim wants a counter that was opened, and there is none.
    """

    used: int
    limit: int | None
    wait_s: float | None
    empty_s: float | None
    missing: bool = False

    @property
    def remaining(self) -> int | None:
        """What is left of the limit, 0 at least; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.used)


def is_amount(value: int) -> bool:
    """Whether a number is an amount."""
    return type(value) is int and 0 <= value <= LARGEST_AMOUNT


def is_name(text: str) -> bool:
    """Whether a text can name something in every store."""
    whole = not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)
    return 0 < len(text) <= _LONGEST_NAME and whole


def distinct(claims: Sequence[Claim]) -> None:
    """Check that each claim of one call is about a counter of its own.

    Raises:
        ValueError: two are about the same, or there is none.
    """
    if not claims or len({claim.counter for claim in claims}) < len(claims):
        raise ValueError("one claim at least, and one of each counter")


def openable(claim: Claim, amount: int) -> Claim:
    """Check what a counter is to be opened with.

    Raises:
        ValueError: the claim wants none that is opened, or the amount is none.
    """
    if not claim.opened or not is_amount(amount):
        raise ValueError("what is opened is a counter that a claim wants so, with an amount")
    return claim


def lease_ms(lease_s: float) -> int:
    """Check how long a lease is, and return its milliseconds.

    Raises:
        ValueError: it is not above 0 and at most `LONGEST_LEASE_S`.
    """
    if not 0 < lease_s <= LONGEST_LEASE_S:
        raise ValueError(f"a lease is above 0 and at most {LONGEST_LEASE_S:g} s")
    return math.ceil(lease_s * 1000)


def live(window: Window, slots: Mapping[int, int], now_ms: int) -> dict[int, int]:
    """Return the slots that still count, those ahead of the clock as the one that is now."""
    now = window.slot_at(now_ms)
    found: dict[int, int] = {}
    for slot, amount in slots.items():
        if slot >= now - window.slots:
            counted = min(slot, now)
            found[counted] = found.get(counted, 0) + amount
    return found


def fits(claim: Claim, slots: Mapping[int, int]) -> bool:
    """Whether a claim has room beside slots that count; a counter that is there has a slot, be it of 0."""
    if claim.opened and not slots:
        return False
    return claim.limit is None or sum(slots.values()) + claim.amount <= claim.limit


def counted(window: Window, slots: Mapping[int, int], amount: int, now_ms: int) -> dict[int, int]:
    """Return the slots that count with an amount more, in the slot that is now."""
    now = window.slot_at(now_ms)
    found = live(window, slots, now_ms)
    return {**found, now: found.get(now, 0) + amount}


def taken_back(window: Window, slots: Mapping[int, int], slot: int, amount: int, now_ms: int) -> dict[int, int]:
    """Return the slots that count with an amount less, in the slot where it was counted; none goes below 0."""
    found = live(window, slots, now_ms)
    slot = min(slot, window.slot_at(now_ms))
    if slot in found:
        found[slot] = max(0, found[slot] - amount)
    return found


def standing(claim: Claim, slots: Mapping[int, int], now_ms: int, *, admitted: bool) -> Standing:
    """Say how a window stands.

    Args:
        claim: what was asked of it.
        slots: those that count (`live`), without the claim.
        now_ms: the store's clock.
        admitted: whether the claim is counted now.
    """
    missing = claim.opened and not slots
    held = counted(claim.window, slots, claim.amount, now_ms) if admitted else slots
    held = {slot: amount for slot, amount in held.items() if amount > 0}
    empty_s: float | None = 0.0
    if held:
        empty_s = _left_s(claim.window, max(held), now_ms)
    wait_s = 0.0 if admitted or fits(claim, slots) else _wait_s(claim, held, now_ms)
    return Standing(sum(held.values()), claim.limit, wait_s, empty_s, missing)


def _wait_s(claim: Claim, held: Mapping[int, int], now_ms: int) -> float | None:
    if claim.limit is None or claim.amount > claim.limit or claim.opened:
        return None
    excess = sum(held.values()) + claim.amount - claim.limit
    for slot in sorted(held):
        excess -= held[slot]
        if excess <= 0:
            return _left_s(claim.window, slot, now_ms)
    return None


def _left_s(window: Window, slot: int, now_ms: int) -> float | None:
    return None if not window.slot_ms else (window.ends_ms(slot, now_ms) - now_ms) / 1000
