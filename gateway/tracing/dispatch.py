"""Hands rows to a destination: in batches that it takes, again where it cannot, and without those that it will not.

What it cannot take now is tried again, for ever; rows that it refuses for good, or fails on while it takes others, are
found by halving, are put aside, and hold nothing up.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from gateway.offload import offload
from gateway.tracing.closing import is_open
from gateway.tracing.complaints import Complaints
from gateway.tracing.delivery import Counts, Destination, Piece, Rejected, TooLarge, Unavailable
from gateway.tracing.frames import cut
from gateway.tracing.keeping import Quarantine, Receipts, State

log = logging.getLogger(__name__)

_MOST_ROWS = 1000
#: What the destination may add to each row.
_AROUND_BYTES = 300

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
#: Where the destination says that the gateway may not, waiting helps less.
_LONGEST_REFUSED_S = 30.0
_LONGEST_ASKED_S = 300.0
#: How often a row alone must fail while others are taken, so that a flaky destination is not taken for a bad row.
_MOST_PROOFS = 4
#: Faults of a destination's own code for the same rows; then the rows are at fault.
_MOST_FAULTS = 3

_CHANCE = random.Random()  # noqa: S311  # no secret hangs on it


class GivenUp(Exception):
    """The process ends, and there is no more time to deliver."""


class Ending:
    """That delivering is to end: said by one thread, minded by the one that delivers."""

    def __init__(self) -> None:
        self._said = threading.Event()
        self._end_s = 0.0
        self._insist = False

    def say(self, timeout_s: float, *, insist: bool) -> None:
        """Let it end within `timeout_s`; `insist`: try again after a failure, else the first one ends it."""
        self._end_s, self._insist = time.monotonic() + timeout_s, insist
        self._said.set()

    def is_said(self) -> bool:
        """Whether it is to end."""
        return self._said.is_set()

    def is_over(self) -> bool:
        """Whether its time is up."""
        return self._said.is_set() and time.monotonic() >= self._end_s

    def wait(self, seconds: float) -> bool:
        """Wait until it is said, so long at most. Returns whether it is."""
        return self._said.wait(seconds)

    def rest(self, seconds: float) -> None:
        """Wait after a failure.

        Raises:
            GivenUp: it is to end, and there is no time or no order to try again.
        """
        if self._said.wait(seconds):
            left_s = self._end_s - time.monotonic()
            if not self._insist or left_s <= 0:
                raise GivenUp
            time.sleep(min(seconds, left_s, 1.0))


class Dispatcher:
    """Hands pieces to one destination, in the thread that calls.

    Args:
        destination: where they go.
        name: of the destination, for the log.
        state: is told how it fares.
        quarantine: keeps what is refused for good.
        receipts: note what was taken.
        counts: of this sink.
        ending: bounds how long it tries.
        others: gives rows that wait, picked by the chance that it is handed; by one of them it is seen whether the
            destination fails on all rows or on some.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        name: str,
        state: State,
        quarantine: Quarantine,
        receipts: Receipts,
        counts: Counts,
        ending: Ending,
        others: Callable[[random.Random], Sequence[Piece]],
    ) -> None:
        self._destination = destination
        self._name = name
        self._state = state
        self._quarantine = quarantine
        self._receipts = receipts
        self._counts = counts
        self._ending = ending
        self._others = others
        self._complaints = Complaints(log)

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Deliver pieces, or put them aside; returns when each is one or the other.

        Raises:
            GivenUp: the process ends; some may be delivered already.
        """
        for batch in self._batches(pieces):
            self._send(batch)

    def _batches(self, pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
        """Split pieces so that a destination takes them: not too large, one place, no id twice."""
        batch: list[Piece] = []
        ids: set[str] = set()
        size = 0
        most = self._destination.limit_bytes
        for piece in pieces:
            grown = size + len(piece.row) + _AROUND_BYTES
            if batch and (grown > most or len(batch) >= _MOST_ROWS or piece.id in ids or piece.to != batch[0].to):
                yield batch
                batch, ids, grown = [], set(), len(piece.row) + _AROUND_BYTES
            batch.append(piece)
            ids.add(piece.id)
            size = grown
        if batch:
            yield batch

    def _send(self, batch: Sequence[Piece], *, suspected: bool = False) -> None:
        """Deliver a batch, or put it aside; returns when either is done.

        A row may make the destination fail for ever (its own fault, a firewall that dislikes a prompt). Where other
        rows are taken meanwhile, the batch is split until that row is alone.
        """
        failures = faults = proofs = 0
        while True:
            try:
                self._destination.deliver(batch)
            except Unavailable as error:
                # one that asks to wait is not to be asked twice
                ask = error.retry_after_s is None and (suspected or failures > 0)
                proofs = proofs + 1 if ask and self._takes_others(batch) else 0
                if proofs >= (_MOST_PROOFS if len(batch) == 1 else 1):
                    return self._send_without_the_bad(batch, f"{error} (others are taken)", suspected=True)
                self._wait(error, 0 if proofs else failures)
                failures += 1
                continue
            except TooLarge:
                return self._send_smaller(batch)
            except Rejected as error:
                return self._send_without_the_bad(batch, str(error))
            except Exception as error:
                faults += 1
                log.exception("handing traces to %s failed", self._name)
                if faults >= _MOST_FAULTS:
                    return self._send_without_the_bad(batch, f"a fault of the gateway: {type(error).__name__}")
                self._ending.rest(1.0)
                continue
            self._sent(len(batch))
            # here, and not for what was put aside or dropped: a receipt says that the destination has it
            self._receipts.add([piece.request for piece in batch if piece.request is not None])
            return None

    def _send_smaller(self, batch: Sequence[Piece]) -> None:
        if len(batch) > 1:
            self._send(batch[: len(batch) // 2])
            self._send(batch[len(batch) // 2 :])
            return
        [piece] = batch
        limit = min(self._destination.limit_bytes, len(piece.row)) * 3 // 4 - _AROUND_BYTES
        shorter = offload(cut, piece.row, limit) if limit > 0 else piece.row
        if len(shorter) >= len(piece.row):
            self._put_aside(piece, "too large, and cannot be cut")
            return
        log.warning("a trace row of %d bytes is too large for %s and was cut", len(piece.row), self._name)
        self._send([piece._replace(row=shorter)])

    def _send_without_the_bad(self, batch: Sequence[Piece], why: str, *, suspected: bool = False) -> None:
        if len(batch) == 1:
            self._put_aside(batch[0], why)
            return
        self._send(batch[: len(batch) // 2], suspected=suspected)
        self._send(batch[len(batch) // 2 :], suspected=suspected)

    def _takes_others(self, batch: Sequence[Piece]) -> bool:
        """Whether the destination takes a row now that is not of this batch, or is but one of it.

        That row is delivered again in its turn, which changes nothing. Where there is none, nothing is held up.
        """
        ids = {piece.id for piece in batch}
        others = [piece for piece in self._others(_CHANCE) if piece.id not in ids]
        others = [piece for piece in others if piece.to != batch[0].to] or others
        others = others or (list(batch) if len(batch) > 1 else [])
        # no root before what is under it
        others = [piece for piece in others if piece.request is None] or others
        if not others:
            return False
        try:
            self._destination.deliver([_CHANCE.choice(others)])
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing is proved
            log.debug("another row is not taken either: %s", error)
            return False
        return True

    def _put_aside(self, piece: Piece, why: str) -> None:
        if is_open(piece):  # its end is still to come; put back after that, this row would take its place
            log.error("%s does not take the row of a call that is open: %s", self._name, why)
            return
        log.error("%s does not take a row, which is put aside (gateway spool quarantine): %s", self._name, why)
        try:
            kept = offload(self._quarantine.add, piece, why)
        except OSError as error:
            log.error("nor can it be put aside: %s", error.strerror or error)
            kept = False
        if kept:
            self._state.quarantined += 1
            self._counts.quarantined(1)
        else:
            self._state.dropped += 1
            self._counts.dropped(1)

    def _sent(self, rows: int) -> None:
        if (trouble := self._state.trouble) is not None:
            log.info("%s takes traces again (before: %s)", self._name, trouble)
            self._complaints.over()
        self._state.sent_some(rows)
        self._counts.sent(rows)

    def _wait(self, error: Unavailable, failures: int) -> None:
        self._state.failed(str(error), refused=error.refused)
        level = "an operator has to act: " if error.refused else ""
        self._complaints.say("%s takes no traces; they are kept and tried again: %s%s", self._name, level, error)
        longest = _LONGEST_REFUSED_S if error.refused else _LONGEST_WAIT_S
        wait_s = min(longest, _FIRST_WAIT_S * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._ending.rest(max(wait_s, min(error.retry_after_s or 0.0, _LONGEST_ASKED_S)))
