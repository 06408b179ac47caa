"""The stores of the cache as a call sees them: one that is slow or broken is a miss."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.storage.answers import Answers, KeptAnswer, MemoryAnswers
from gateway.storage.faults import StorageError

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

#: What a call waits for a store that all workers share.
PATIENCE_S = 0.05
#: So many answers of a store that were too late or failed, one after the other, and it is left alone for so long.
_MOST_FAILURES, _PAUSE_S = 5, 5.0
#: A worker looks again at what it found in a shared store after so long, so that what was cleared is gone by then.
FRONT_S = 10.0


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

    def start(self) -> None:
        """Make ready in this process, after the fork."""
        if self._shared is not None:
            self._shared.start()

    def close(self) -> None:
        """Let go of what is held."""
        if self._shared is not None:
            self._shared.close()

    def at_hand(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """Return what this worker has itself; it waits for nothing."""
        found = self._front.find(tenant, digests)
        return found.kept if isinstance(found, _Fronted) else found

    def find(self, tenant: str, digests: Sequence[str]) -> KeptAnswer | None:
        """Return the first of these that there is, in either store."""
        if (found := self.at_hand(tenant, digests)) is not None or (shared := self._shared) is None:
            return found
        found = self._asked(lambda: shared.find(tenant, digests))
        if found is not None:
            self._front.keep(self._fronted(found))
        return found

    def keep(self, answer: KeptAnswer) -> bool:
        """Keep an answer in both; False: only in this worker's, for now."""
        shared = self._shared
        if shared is None:
            self._front.keep(answer)
            return True
        self._front.keep(self._fronted(answer))

        def work() -> bool:
            shared.keep(answer)
            return True

        return self._asked(work) is True

    def _fronted(self, answer: KeptAnswer) -> KeptAnswer:
        ends_s = min(answer.ends_s, self._clock() + FRONT_S)
        return _Fronted(answer.tenant, answer.digest, answer.made_s, ends_s, answer.content, answer)

    def _asked(self, work: Callable[[], _Result]) -> _Result | None:
        """Ask the shared store, aside: what it does on its own may take longer than a call has patience."""
        if time.monotonic() < self._paused_until_s:
            return None
        question = _Question(work)
        threading.Thread(target=question.ask, name="cache-store", daemon=True).start()
        if question.answered.wait(self._patience_s) and question.error is None:
            if self._failures:
                log.info("the store of the cache answers again")
            self._failures = 0
            return question.result
        self._note(question.error)
        return None

    def _note(self, error: StorageError | None) -> None:
        self._failed()
        self._failures += 1
        if self._failures == 1:
            why = str(error) if error is not None else f"no answer within {1000 * self._patience_s:g} ms"
            log.warning("the store of the cache cannot be used: calls go on without it", extra={"fields": {"why": why}})
        if self._failures >= _MOST_FAILURES:
            self._paused_until_s = time.monotonic() + _PAUSE_S


@dataclass(frozen=True)
class _Fronted(KeptAnswer):
    """What is at hand of `kept`, which a shared store keeps for longer."""

    kept: KeptAnswer


class _Question(Generic[_Result]):
    """What a store is asked in a thread of its own."""

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self.answered = threading.Event()
        self.result: _Result | None = None
        self.error: StorageError | None = None

    def ask(self) -> None:
        try:
            self.result = self._work()
        except StorageError as error:
            self.error = error
        finally:
            self.answered.set()
