"""What limits and budgets count in: reservations over several windows at once, leases, small shared values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.windows import Claim, Standing, is_amount, is_name

#: For how long it is remembered that a reservation was settled, so that settling it again changes nothing.
SETTLED_KEEP_S = 60.0
LARGEST_VALUE_BYTES = 64 << 10

#: What a caller is told; the error's `__cause__` tells the operator why.
AWAY = "The store of limits does not answer; send the request again."


@dataclass(frozen=True)
class Reservation:
    """Amounts that are counted for a call under way, until it is settled or its lease ends.

    Attributes:
        id: one of its own.
        claims: what is counted; settling names the real amounts in this order.
    """

    id: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Admission:
    """The answer to some claims.

    Attributes:
        reservation: None where a claim had no room; then nothing is counted.
        standings: how each window stands now, in the order of the claims.
    """

    reservation: Reservation | None
    standings: tuple[Standing, ...]


class Counters(Protocol):
    """A store of counters that all workers share; every verb is atomic, also between processes and hosts.

    Every verb raises `gateway.errors.StoreUnavailable` where the store does not answer in its time: a caller can be
    told its message, and its `__cause__` says why, in a line without passwords. The work may have been done then; but
    for `add` and `swap`, each may be asked for again: what was reserved unseen ends with its lease, and settling twice
    is settling once, for a minute.
    """

    def start(self) -> None:
        """Begin what lives in one process, after the fork; safe to call again."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; safe to call again."""
        ...

    def check(self) -> None:
        """Ask the store for a sign of life, by writing to it.

        Raises:
            StoreUnavailable: it gives none; its `__cause__` says why.
        """
        ...

    def reserve(self, claims: Sequence[Claim], lease_s: float) -> Admission:
        """Count all of these claims, or none where one has no room.

        They count at once, in the slot that is now, whatever their call takes.

        Args:
            claims: each about a counter of its own.
            lease_s: what is neither settled nor renewed within it is taken back, up to 600 s.

        Raises:
            ValueError: a lease that is none, or claims that are not `distinct`.
        """
        ...

    def open(self, claim: Claim, amount: int) -> bool:
        """Make the counter of a claim that is `opened` where there is none, and say whether there was none.

        It begins with this amount and with what is reserved of it and still held: a store can lose a counter alone.

        Raises:
            ValueError: a claim that wants no such counter, or an amount that is none.
        """
        ...

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> bool:
        """Put the real amounts in the place of those that were reserved.

        What was reserved too much goes from the slot where it was counted, if that still counts; what comes on top is
        counted in the slot that is now. After the lease all of it is counted now; but not in a counter that has to be
        opened and is not there.

        Args:
            reservation: as `reserve` gave it.
            amounts: the real ones, one for each claim. All 0: as if the call had never been.

        Returns:
            False: it was settled before, and nothing is changed.

        Raises:
            ValueError: amounts that are none, or not as many as claims.
        """
        ...

    def renew(self, ids: Collection[str], lease_s: float) -> set[str]:
        """Let the leases of reservations run anew from now, and return the ids of those that were still held."""
        ...

    def look(self, claims: Sequence[Claim]) -> tuple[Standing, ...]:
        """Say how the windows of these claims stand, and reserve nothing."""
        ...

    def add(self, key: str, amount: int, ttl_s: float) -> int:
        """Add to a number and return it; it begins with 0, and is forgotten `ttl_s` after it was first added to."""
        ...

    def get(self, key: str) -> int:
        """Return a number that `add` makes; 0 where there is none."""
        ...

    def fetch(self, keys: Collection[str]) -> dict[str, str]:
        """Return the values of those keys that have one, which `swap` publishes."""
        ...

    def swap(self, key: str, old: str | None, new: str | None, ttl_s: float) -> bool:
        """Publish a value where the one that is there is `old`, and say whether it was.

        Args:
            key: its name; numbers and values have names of their own.
            old: None: there has to be none.
            new: 64 KiB of text without NUL at most; None removes it.
            ttl_s: after how long it is forgotten.

        Raises:
            ValueError: a value that is too large, or no text.
        """
        ...


def checked_amounts(reservation: Reservation, amounts: Sequence[int]) -> Sequence[int]:
    """Check the real amounts of a reservation.

    Raises:
        ValueError: as `Counters.settle` says.
    """
    if len(amounts) != len(reservation.claims) or not all(is_amount(amount) for amount in amounts):
        raise ValueError("one real amount for each claim, from 0 on")
    return amounts


def checked_key(key: str, ttl_s: float = 1.0, amount: int = 0, values: Sequence[str | None] = ()) -> str:
    """Check what `add`, `get`, `fetch` and `swap` are given.

    Raises:
        ValueError: a key, a time, an amount or a value that is none.
    """
    if not is_name(key):
        raise ValueError("a key has 1 to 512 characters")
    if not 0 < ttl_s <= 366 * 86_400:
        raise ValueError("a value is kept above 0 s and for a year at most")
    if not is_amount(abs(amount)):
        raise ValueError("an amount is a whole number")
    for value in values:
        if value is not None and (len(value.encode(errors="replace")) > LARGEST_VALUE_BYTES or not _is_text(value)):
            raise ValueError("a value is text without NUL, 64 KiB at most")
    return key


def _is_text(value: str) -> bool:
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


def with_room(admitted: bool, id: str, claims: Sequence[Claim], standings: Sequence[Standing]) -> Admission:
    """Make the answer of `Counters.reserve`."""
    return Admission(Reservation(id, tuple(claims)) if admitted else None, tuple(standings))


def by_counter(reservation: Reservation, amounts: Sequence[int]) -> Mapping[str, tuple[Claim, int]]:
    """Return the claims of a reservation with their real amounts, by the names of their counters."""
    return {claim.counter: (claim, amount) for claim, amount in zip(reservation.claims, amounts, strict=True)}
