"""The stores of the cache as a call sees them: one that is slow or broken is a miss."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.storage.answers import Answers, Claim, KeptAnswer, MemoryAnswers
from gateway.storage.faults import StorageError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: What a call waits for a store that all workers share.
PATIENCE_S = 0.05
#: So many answers of a store that were too late or failed, one after the other, and it is left alone for so long.
_MOST_FAILURES, _PAUSE_S = 5, 5.0
#: A worker looks again at what it found in a shared store after so long, also where that was away when it was cleared.
FRONT_S = 10.0
#: A worker that has something at hand asks so often whether it was cleared.
CLEARED_WITHIN_S = 1.0


class Stores:
    """What this worker has at hand and, behind it, what all workers share.

    Args:
        front: of this worker.
        shared: of all; None where the worker's own is all there is.
        failed: called for each answer of the shared store that was too late, or an error.
        clock: seconds since the epoch.
        patience_s: what a call waits for the shared store.
    """

    def __init__(
        self,
        front: MemoryAnswers,
        shared: Answers | None,
        failed: Callable[[], None],
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._front = front
        self._shared = shared
        self._failed = failed
        self._clock = clock
        self._patience_s = patience_s
        self._failures = 0
        self._paused_until_s = 0.0
        self._lock = threading.Lock()
        self._cleared = ""
        self._fronted_until_s = 0.0  # on the monotonic clock
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make ready in this process, after the fork."""
        if self._shared is not None:
            self._shared.start()

    def close(self) -> None:
        """Let go of what is held."""
        self._closed.set()
        if self._shared is not None:
            self._shared.close()

    @property
    def shared(self) -> bool:
        """Whether other workers see what is kept and claimed."""
        return self._shared is not None

    @property
    def failing(self) -> bool:
        """Whether the shared store has failed when it was asked last."""
        return self._failures > 0

    @property
    def left_alone(self) -> bool:
        """Whether the shared store has failed so often that it is not asked for a while."""
        return time.monotonic() < self._paused_until_s

    def at_hand(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """Return what this worker has itself; it waits for nothing."""
        found = self._front.find(tenant, digests)
        return found.kept if isinstance(found, _Fronted) else found

    def find(self, tenant: str, digests: Sequence[str], patience_s: float = 0.0) -> KeptAnswer | None:
        """Return the first of these that there is, in either store; `patience_s` as in `claim`."""
        if (found := self.at_hand(tenant, digests)) is not None or (shared := self._shared) is None:
            return found
        before = self._cleared
        found = self._asked(lambda: shared.find(tenant, digests), patience_s=patience_s)
        if found is not None:
            self._put_in_front(found, before)
        return found

    def claim(
        self, wanted: Claim, digests: Sequence[str], lease_s: float, patience_s: float = 0.0
    ) -> KeptAnswer | Claim | None:
        """Find an answer, or claim the making of it, as `Answers.claim` has it; None: nobody knows.

        A claim that comes later than `patience_s`, or the patience of all calls where that is longer, is given up.
        """
        if (answer := self.at_hand(wanted.tenant, digests)) is not None or (shared := self._shared) is None:
            return answer

        def too_late(told: KeptAnswer | Claim) -> None:
            if told == wanted:  # whoever asked went on without it
                shared.release(wanted)

        before = self._cleared
        found = self._asked(lambda: shared.claim(wanted, digests, lease_s), too_late, patience_s)
        if isinstance(found, KeptAnswer):
            self._put_in_front(found, before)
        return found

    def renew(self, claims: Collection[Claim], lease_s: float) -> None:
        """Let the leases of claims run anew; no call waits for it.

        Raises:
            StorageError: the store does not answer.
        """
        if self._shared is not None:
            self._shared.renew(claims, lease_s)

    def release(self, claim: Claim) -> None:
        """Give up a claim; no call waits for it.

        Raises:
            StorageError: the store does not answer.
        """
        if self._shared is not None:
            self._shared.release(claim)

    def keep(self, answer: KeptAnswer, claim: Claim | None = None) -> bool:
        """Keep an answer in both, and give up the claim to make it; False: only in this worker's, for now."""
        shared = self._shared
        if shared is None:
            self._front.keep(answer)
            return True
        self._put_in_front(answer, self._cleared)

        def work() -> bool:
            shared.keep(answer, claim)
            return True

        return self._asked(work) is True

    def _put_in_front(self, answer: KeptAnswer, before: str) -> None:
        """Have an answer at hand, unless something was cleared since `before`, which it may have been among."""
        self._front.keep(self._fronted(answer))
        with self._lock:
            self._fronted_until_s = time.monotonic() + FRONT_S
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="cache-cleared", daemon=True)
                self._thread.start()
        if before != self._cleared:
            self._front.clear()

    def _run(self) -> None:
        while not self._closed.wait(CLEARED_WITHIN_S):
            if time.monotonic() < self._fronted_until_s:
                self.look_for_clearing()

    def look_for_clearing(self) -> None:
        """Let go of what is at hand where something was cleared; while the store is away, in `FRONT_S`."""
        assert self._shared is not None
        cleared = self._asked(self._shared.clearing)
        if cleared is not None and cleared != self._cleared:
            self._cleared = cleared
            self._front.clear()

    def _fronted(self, answer: KeptAnswer) -> KeptAnswer:
        ends_s = min(answer.ends_s, self._clock() + FRONT_S)
        return _Fronted(answer.tenant, answer.digest, answer.made_s, ends_s, answer.content, answer)

    def _asked(
        self,
        work: Callable[[], _Result],
        too_late: Callable[[_Result], None] = lambda _result: None,
        patience_s: float = 0.0,
    ) -> _Result | None:
        """Ask the shared store, aside: what it does on its own may take longer than a call has patience.

        Args:
            work: the question.
            too_late: is told what it answered when nobody waited for that any more.
            patience_s: where that is longer than that of all calls.
        """
        if self.left_alone:
            return None
        question = _Question(work, too_late)
        threading.Thread(target=question.ask, name="cache-store", daemon=True).start()
        patience_s = max(self._patience_s, patience_s)
        if question.wait(patience_s) and question.error is None:
            if self._failures:
                log.info("the store of the cache answers again")
            self._failures = 0
            return question.result
        self._note(question.error, patience_s)
        return None

    def _note(self, error: StorageError | None, patience_s: float) -> None:
        self._failed()
        self._failures += 1
        if self._failures == 1:
            why = str(error) if error is not None else f"no answer within {1000 * patience_s:g} ms"
            log.warning("the store of the cache cannot be used: calls go on without it", extra={"fields": {"why": why}})
        if self._failures >= _MOST_FAILURES:
            self._paused_until_s = time.monotonic() + _PAUSE_S


@dataclass(frozen=True)
class _Fronted(KeptAnswer):
    """What is at hand of `kept`, which a shared store keeps for longer."""

    kept: KeptAnswer


class _Question(Generic[_Result]):
    """What a store is asked in a thread of its own."""

    def __init__(self, work: Callable[[], _Result], too_late: Callable[[_Result], None]) -> None:
        self._work = work
        self._too_late = too_late
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._left = False
        self.result: _Result | None = None
        self.error: StorageError | None = None

    def wait(self, patience_s: float) -> bool:
        """Wait for the answer; False: it is not wanted any more."""
        waits = False
        try:
            self._answered.wait(patience_s)
            waits = True
        finally:  # a greenlet that is killed wants none either
            with self._lock:
                self._left = not (waits and self._answered.is_set())
        return not self._left

    def ask(self) -> None:
        try:
            result = self._work()
            with self._lock:
                self.result, left = result, self._left
                self._answered.set()
            if left:
                self._too_late(result)
        except StorageError as error:
            self.error = error
        finally:
            self._answered.set()
