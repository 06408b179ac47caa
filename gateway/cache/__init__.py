"""Answers of before in the place of calls: exact, of one tenant, where a caller or the operator asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway.cache.claims import LEASE_S, Claims
from gateway.cache.content import Answer
from gateway.cache.flights import Flights, Tries
from gateway.cache.recalled import Recalled
from gateway.cache.stores import Stores
from gateway.core import cachekey
from gateway.core.cachekey import NEVER, Wish
from gateway.core.calls import Attempt, Call, Cancellation
from gateway.metrics import Metrics
from gateway.storage.answers import Answers, Claim, KeptAnswer, MemoryAnswers

__all__ = ["Recalled", "ResponseCache"]

JSON = dict[str, Any]

#: What a worker keeps at hand of what all workers share.
_FRONT_BYTES = 32 << 20
#: Of a stream that others may join, in answers of the largest size that is kept.
_JOINED_SIZES = 4


class ResponseCache:
    """The cache of one worker, and what it shares with others.

    Args:
        shared: the store of all workers; None for a cache of each worker's own.
        metrics: counts hits and misses.
        use: what is cached where a caller says nothing: a mode of `core/cachekey.py`.
        ttl_s: how long an answer is kept where a caller says nothing.
        room_bytes: of a worker's own answers.
        largest_bytes: of one answer; what is larger is not kept.
        silence_s: how long a stream may be silent before that is told.
        lease_s: so long after a worker was killed the others may make the answers that it had begun.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        shared: Answers | None,
        metrics: Metrics,
        *,
        use: str = NEVER,
        ttl_s: int = 3600,
        room_bytes: int = 256 << 20,
        largest_bytes: int = 1 << 20,
        silence_s: float = 15.0,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._use = use
        self._ttl_s = ttl_s
        self.count = metrics.cache_asked
        self.largest_bytes = largest_bytes
        self.silence_s = silence_s
        self.clock = clock
        front = MemoryAnswers(room_bytes if shared is None else min(room_bytes, _FRONT_BYTES), clock)
        self.stores = Stores(front, shared, lambda: self.count("error"), clock)
        self.claims = Claims(self.stores, lease_s)
        self.flights = Flights(_JOINED_SIZES * largest_bytes)

    def start(self) -> None:
        """Make ready in this process, after the fork."""
        self.stores.start()

    def close(self) -> None:
        """Let go of what is held."""
        self.claims.close()
        self.stores.close()

    def wish_of(self, header: Callable[[str], str | None]) -> Wish | None:
        """Read what a caller wants of the cache; see `cachekey.wish_of`."""
        return cachekey.wish_of(header, self._use, self._ttl_s)

    def recall(
        self, call: Call, planned: Sequence[Attempt], revision: str, tries: Callable[[Cancellation | None], Tries]
    ) -> Recalled:
        """Begin to answer a call that has a wish.

        Args:
            call: it may be answered, whoever does it.
            planned: its attempts; what is kept is that of the first one's deployment.
            revision: of the catalogue.
            tries: makes the attempts, to be stopped by the call itself or by what is given.
        """
        return Recalled(self, call, planned[0], revision, tries)

    def look(self, call: Call, planned: Sequence[Attempt], revision: str, *, patience_s: float = 0.0) -> JSON | None:
        """Say whether a call would be answered from here; nothing is counted, kept or waited for.

        Args:
            call: it may be answered.
            planned: as `recall` has it.
            revision: likewise.
            patience_s: for the shared store, where that is longer than a call's.

        Returns:
            `{"answer": "hit", "miss" or "off", "age_s": of a hit, "ttl_s": for how long it is kept}`; None where
            nothing would be tried.

        Raises:
            InvalidRequest: its Idempotency-Key is another request's.
        """

        def none(_cancellation: Cancellation | None) -> Tries:
            raise AssertionError("nothing is tried")

        return Recalled(self, call, planned[0], revision, none).look(patience_s) if planned else None

    def keep(self, call: Call, wish: Wish, digest: str, answer: Answer, claim: Claim | None = None) -> None:
        """Keep an answer for who asks the same, and give up the claim to make it; where it is too large, neither."""
        made_s = self.clock()
        kept = KeptAnswer(call.caller.tenant, digest, made_s, made_s + wish.ttl_s, answer.packed())
        if len(kept.content) > self.largest_bytes:
            return
        if claim is not None:
            self.claims.kept(claim)
        if self.stores.keep(kept, claim):
            self.count("store")
