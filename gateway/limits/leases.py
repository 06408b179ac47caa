"""What is reserved and not settled, in this process: renewed while its calls last, charged again where that failed."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.limits import Part, Position
from gateway.errors import StoreUnavailable
from gateway.limits.link import StoreLink
from gateway.limits.local import Local
from gateway.limits.ticket import Ticket
from gateway.storage.counters import Counters, Reservation

log = logging.getLogger(__name__)

#: A reservation that is not renewed frees itself after this.
LEASE_S = 45.0
_RENEW_EVERY_S = 15.0
#: How often a store is looked for that is away.
_PROBE_EVERY_S = 1.0
_MOST_UNSETTLED = 50_000
_MOST_TOLD = 20_000
#: Of what was noticed and could not be told yet, as many wait.
_MOST_NOTICED = 1000


class Leases:
    """A thread that looks after the reservations of one process.

    Args:
        link: the store.
        local: what is counted without it.
        reopen: opens counters that are not there.
        told: called once for each budget and period that is used beyond its soft share, by whoever notices first.
    """

    def __init__(
        self,
        link: StoreLink,
        local: Local,
        reopen: Callable[[Sequence[Part]], None],
        told: Callable[[Position], None],
    ) -> None:
        self._link = link
        self._local = local
        self._reopen = reopen
        self._told = told
        self._lock = threading.Lock()
        self._live: dict[int, Ticket] = {}
        self._unsettled: deque[tuple[Reservation, Sequence[int]]] = deque()
        self._dropped = False
        self._noticed: deque[Position] = deque(maxlen=_MOST_NOTICED)
        self._known_soft: OrderedDict[str, None] = OrderedDict()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; safe to call again."""
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="limits-leases", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Charge what can still be charged, and stop; safe to call again."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)
        self._charge()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def add(self, ticket: Ticket) -> None:
        """Renew its lease until `remove`."""
        with self._lock:
            self._live[id(ticket)] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Renew it no more."""
        with self._lock:
            self._live.pop(id(ticket), None)

    def settle(self, reservation: Reservation, amounts: Sequence[int]) -> None:
        """Settle in the store, now or once it is back."""
        try:
            self._link.ask(lambda it: it.settle(reservation, amounts))
        except StoreUnavailable:
            self._later(reservation, amounts)
            self._wake.set()

    def notice(self, position: Position) -> None:
        """A budget is used beyond its soft share; told aside, since a call has no time for it."""
        subject = position.part.claim.subject
        with self._lock:
            if subject in self._known_soft:
                return
            self._known_soft[subject] = None
            if len(self._known_soft) > _MOST_TOLD:
                self._known_soft.popitem(last=False)
            self._noticed.append(position)
        self._wake.set()

    def _later(self, reservation: Reservation, amounts: Sequence[int]) -> None:
        with self._lock:
            if len(self._unsettled) < _MOST_UNSETTLED:
                self._unsettled.append((reservation, amounts))
                return
            first, self._dropped = not self._dropped, True
        if first:
            log.error("more calls wait to be settled than are kept: what the others have used is not counted")

    # What the thread does.

    def _run(self) -> None:
        renew_s = time.monotonic() + _RENEW_EVERY_S
        while not self._closed.is_set():
            self._wake.wait(min(_PROBE_EVERY_S if self._link.away else _RENEW_EVERY_S, renew_s - time.monotonic()))
            self._wake.clear()
            try:
                if self._link.probe():
                    self._charge()
                    self._tell()
                if time.monotonic() >= renew_s:
                    renew_s = time.monotonic() + _RENEW_EVERY_S
                    self.renew()
            except Exception:
                log.exception("leases could not be looked after")
            if self._link.away:
                self._closed.wait(_PROBE_EVERY_S)  # however many calls have something for it to do

    def renew(self) -> None:
        """Let all leases run anew whose calls go on: one statement for each place where is counted."""
        by_place: dict[int, tuple[Counters, dict[str, Ticket]]] = {}
        now_s = time.monotonic()
        with self._lock:
            live = list(self._live.values())
        for ticket in live:
            held, counters = ticket.held, ticket.counters
            if held is not None and counters is not None and ticket.deadline_s > now_s:
                by_place.setdefault(id(counters), (counters, {}))[1][held.id] = ticket
        for counters, tickets in by_place.values():
            ids = list(tickets)
            if counters is not self._link.counters:
                counters.renew(ids, LEASE_S)
                continue
            try:
                kept = self._link.ask(lambda it, ids=ids: it.renew(ids, LEASE_S))  # type: ignore[misc]
                for lost in [ticket for id, ticket in tickets.items() if id not in kept]:
                    self._reserve_anew(lost)
            except StoreUnavailable:
                log.debug("leases could not be renewed: the store is away")

    def _reserve_anew(self, ticket: Ticket) -> None:
        """Reserve what the store has lost, without a limit: the call is under way."""
        held, counters = ticket.held, ticket.counters
        if held is None or counters is None:
            return
        claims = [replace(claim, limit=None) for claim in held.claims]
        admission = self._link.ask(lambda it: it.reserve(claims, LEASE_S))
        if admission.reservation is None:
            self._reopen([part for part, one in zip(ticket.parts, admission.standings, strict=True) if one.missing])
            admission = self._link.ask(lambda it: it.reserve(claims, LEASE_S))
        if (made := admission.reservation) is not None and not ticket.replace(made):
            self._link.ask(lambda it: it.settle(made, [0] * len(claims)))

    def _charge(self) -> None:
        """Settle what could not be, and charge to budgets what was counted here alone."""
        try:
            while True:
                with self._lock:
                    if not self._unsettled:
                        break
                    reservation, amounts = self._unsettled[0]
                self._link.ask(lambda it, of=reservation, by=amounts: it.settle(of, by))  # type: ignore[misc]
                with self._lock:
                    self._unsettled.popleft()
        except StoreUnavailable:
            return
        debts = self._local.owed()
        while debts:
            claim, amount = debts[-1]
            # a reservation that nobody knows is charged in full; a counter that is gone asks the ledger, which has it
            charge = Reservation(uuid.uuid4().hex, (claim,))
            try:
                self._link.ask(lambda it, of=charge, by=amount: it.settle(of, [by]))  # type: ignore[misc]
            except StoreUnavailable:
                self._local.owe_again(debts)
                return
            debts.pop()

    def _tell(self) -> None:
        """Tell of budgets that are nearly used up; of all processes that notice, the first one does."""
        while self._noticed:
            position = self._noticed[0]
            claim = position.part.claim
            name = f"soft/{claim.subject}"[:512]
            try:
                first = self._link.ask(lambda it, of=name, keep=claim.window.keep_s: it.swap(of, None, "1", keep))  # type: ignore[misc]
            except StoreUnavailable:
                return
            self._noticed.popleft()
            if first:
                self._told(position)
