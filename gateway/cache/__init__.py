"""Answers of before in the place of calls: exact, of one tenant, where a caller or the operator asks for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from gateway.cache.content import Answer
from gateway.cache.flights import Flight, Flights, Tries, raise_if_stopped
from gateway.cache.stores import Stores
from gateway.core import cachekey
from gateway.core.cachekey import NAMED_TTL_S, NEVER, Wish
from gateway.core.calls import CALLER_GONE, Attempt, Call, Cancellation, Chunk, Remembered
from gateway.errors import GatewayError, NameReused, NotCached
from gateway.metrics import Metrics
from gateway.offload import LARGE_BYTES, offload
from gateway.storage.answers import Answers, KeptAnswer, MemoryAnswers

JSON = dict[str, Any]

log = logging.getLogger(__name__)

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
        self.flights = Flights(_JOINED_SIZES * largest_bytes)

    def start(self) -> None:
        """Make ready in this process, after the fork."""
        self.stores.start()

    def close(self) -> None:
        """Let go of what is held."""
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

    def look(self, call: Call, planned: Sequence[Attempt], revision: str) -> JSON | None:
        """Say whether a call would be answered from here; nothing is counted, kept or waited for.

        Returns:
            `{"answer": "hit", "miss" or "off", "age_s": of a hit, "ttl_s": for how long it is kept}`; None where
            nothing would be tried.

        Raises:
            InvalidRequest: its Idempotency-Key is another request's.
        """

        def none(_cancellation: Cancellation | None) -> Tries:
            raise AssertionError("nothing is tried")

        return Recalled(self, call, planned[0], revision, none).look() if planned else None

    def keep(self, call: Call, wish: Wish, digest: str, answer: Answer) -> None:
        """Keep an answer for who asks the same."""
        made_s = self.clock()
        kept = KeptAnswer(call.caller.tenant, digest, made_s, made_s + wish.ttl_s, answer.packed())
        if len(kept.content) <= self.largest_bytes and self.stores.keep(kept):
            self.count("store")


class Recalled:
    """One call on its way through the cache; it stands before the call's attempts."""

    def __init__(
        self,
        cache: ResponseCache,
        call: Call,
        planned: Attempt,
        revision: str,
        tries: Callable[[Cancellation | None], Tries],
    ) -> None:
        self._cache = cache
        self._call = call
        self._wish = call.cache or Wish(use=NEVER)
        self._fingerprint = ""
        self._tries = tries
        self._own: Tries | None = None
        self._flight: Flight | None = None
        self._leads = False
        self._hit: Answer | None = None
        self._follows = False
        self._age_s = 0.0
        #: Seconds that it waited for an answer that another call asked for.
        self.waited_s = 0.0
        operation, body, deployment = call.endpoint.name, call.body, planned.deployment
        self.asked = self._wish.use != NEVER
        self._digests: tuple[str, ...] = ()
        self._form = cachekey.form_of(
            stream=call.stream, usage_asked=call.usage_asked, named_events=bool(call.endpoint.ends)
        )
        # to write a large body anew would hold up every other call
        large = call.body_bytes > LARGE_BYTES
        if call.name is not None:
            self._wish = Wish(ttl_s=NAMED_TTL_S, only=self._wish.only)
            of_name = (call.caller.tenant, operation, call.name, self._form, call.query, body)
            if large:
                digest, self._fingerprint = offload(cachekey.named, *of_name, call.raw)
            else:
                digest, self._fingerprint = cachekey.named(*of_name, None)
            self._digests = (digest,)
        elif cachekey.applies(self._wish, operation, body) and not large:
            self._digests = cachekey.digests(
                call.caller.tenant,
                operation,
                call.model,
                (deployment.name, deployment.api_base, deployment.api_version),
                body,
                cachekey.forms_that_do(operation, self._form, body),
                query=call.query,
                headers=call.provider_headers,
                revision=revision,
            )

    @property
    def remembered(self) -> Remembered | None:
        """The answer that stands in for a call of one's own; None where there is none."""
        if self._hit is not None:
            return Remembered(self._hit.attempt(self._call.endpoint), self._age_s)
        if not self._follows or self._flight is None:
            return None
        if self._flight.answer is not None:
            return Remembered(self._flight.answer.attempt(self._call.endpoint), self._flight.age_s)
        if (asked := self._flight.tries) is None or not asked.tried:
            return None
        last = asked.tried[-1]  # under way, or cut on its way
        told = last.told or last.transcript
        return Remembered(Attempt(last.deployment, transcript=told, dropped=last.dropped, metered=False), 0.0)

    def headers(self) -> dict[str, str]:
        """What the answer says of the cache (RFC 9111, section 5.1, for `Age`)."""
        if self._hit is not None or self._follows:
            age_s = self._flight.age_s if self._flight is not None else self._age_s
            replayed = {"idempotent-replayed": "true"} if self._call.name is not None else {}
            return {"x-bt-cached": "HIT", "Age": str(int(age_s)), **replayed}
        return {"x-bt-cached": "MISS"} if self.asked else {}

    def look(self) -> JSON:
        """Say what would become of it (`ResponseCache.look`)."""
        cache, wish = self._cache, self._wish
        told: JSON = {"answer": "off", "age_s": None, "ttl_s": None}
        if not self._digests or not (wish.reads or wish.keeps):
            return told
        kept = cache.stores.find(self._call.caller.tenant, self._digests) if wish.reads else None
        if kept is None or self._fitting(kept) is None:
            return {**told, "answer": "miss", "ttl_s": wish.ttl_s if wish.keeps and not wish.only else None}
        now_s = cache.clock()
        age_s, left_s = max(0.0, now_s - kept.made_s), kept.ends_s - now_s
        return {"answer": "hit", "age_s": round(age_s, 1), "ttl_s": round(left_s, 1)}

    def whole(self) -> bytes:
        """Answer a call that is not streamed.

        Raises:
            GatewayError: no deployment answered, or only what is kept was wanted.
        """
        if (found := self._begin()) is not None:
            return found.body
        flight = self._flight
        if flight is None:
            return self._ask().whole()
        if not self._leads:
            began_s = time.time()
            try:
                answer = flight.wait(self._call)
            finally:
                self.waited_s = time.time() - began_s
            if answer is None:
                self._go_on(flight)
                return self._ask().whole() if self._call.name is None else self.whole()
            self._cache.count("shared")
            return answer.body
        answer = None
        try:
            asked = self._ask_for(flight)
            body = asked.whole()
            answer = self._kept(asked, body)
        finally:
            flight.end(answer)
        raise_if_stopped(self._call)  # the others have it
        return body

    def chunks(self) -> Generator[Chunk | None]:
        """Answer a streamed call.

        Raises:
            GatewayError: no deployment answered, the one that did failed, or only what is kept was wanted.
        """
        if (found := self._begin()) is not None:
            yield from found.chunks()
            return
        flight = self._flight
        if flight is None:
            yield from self._ask().chunks()
            return
        if self._leads:
            asked = self._ask_for(flight)
            flight.begin(asked.chunks(), lambda chunks: self._finished(asked, chunks))
            yield from flight.read(self._call, self._cache.silence_s)
            return
        told, began_s = False, time.time()
        try:
            for chunk in flight.read(self._call, self._cache.silence_s):
                told = told or chunk is not None
                yield chunk
        except GatewayError:
            if told or self._call.cancellation.reason is not None or isinstance(flight.error, NameReused):
                raise
        else:
            self._cache.count("shared")
            return
        finally:
            self.waited_s = time.time() - began_s
        self._go_on(flight)
        yield from self._ask().chunks() if self._call.name is None else self.chunks()

    def when_over(self, settle: Callable[[], object]) -> None:
        """Settle the call: now, or when those who share its answer have it too, which this call is charged for."""
        if self._leads and self._flight is not None:
            self._flight.when_over(settle)
        else:
            settle()

    def close(self) -> None:
        """Let go of the answer; who shares it goes on. Safe to repeat."""
        own, flight = self._own, self._flight
        if flight is not None:
            self._call.cancellation.unsubscribe(self._stopped)
            flight.leave(self)
        if own is None:
            return
        if self._leads and flight is not None:
            flight.when_over(own.close)
        else:
            own.close()

    def _begin(self) -> Answer | None:
        """Look for an answer; else join who asks for the same, or lead. No flight: it asks for itself."""
        cache, wish, digests = self._cache, self._wish, self._digests
        if digests and wish.reads:
            if (found := self._usable(cache.stores.at_hand(self._call.caller.tenant, digests))) is not None:
                return found
            if wish.keeps and not wish.only:
                # what a caller gives less time than the gateway does ends for all when that is over
                shared = not self._call.hurried or self._call.name is not None
                self._flight, self._leads = cache.flights.join(digests[0], self, self._fingerprint, shared=shared)
                if self._flight.fingerprint != self._fingerprint:
                    raise _reused()
                if not self._leads:
                    self._follows = True
                    return None
            if (found := self._looked_up()) is not None:
                return found
        elif digests and wish.keeps:
            self._flight, self._leads = cache.flights.alone(self), True
        if wish.only:
            raise NotCached("There is no kept answer to this request, and it wants no other (only-if-cached).")
        if self.asked:
            cache.count("miss")
        return None

    def _looked_up(self) -> Answer | None:
        """Look into both stores; a flight that is led is over where there is an answer."""
        found, well, reused = None, False, None
        try:
            found = self._usable(self._cache.stores.find(self._call.caller.tenant, self._digests))
            well = True
        except NameReused as error:
            reused = error
            raise
        finally:
            if self._flight is not None and (found is not None or not well):
                self._flight.age_s = self._age_s
                self._flight.end(found, reused)
                self._flight, self._leads = None, False
        return found

    def _usable(self, kept: KeptAnswer | None) -> Answer | None:
        """The answer that was kept, where it will do and can be told in the form that is asked for."""
        found = self._fitting(kept) if kept is not None else None
        if kept is not None and found is not None:
            self._hit, self._age_s = found, max(0.0, self._cache.clock() - kept.made_s)
            self._cache.count("hit")
        return found

    def _fitting(self, kept: KeptAnswer) -> Answer | None:
        now_s = self._cache.clock()
        if not self._wish.takes(max(0.0, now_s - kept.made_s), kept.ends_s - now_s):
            return None
        try:
            answer = Answer.unpacked(kept.content)
            same = answer.facts["fingerprint"] == self._fingerprint
            found = answer.in_form(self._form) if same else None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("a kept answer cannot be read", extra={"fields": {"why": type(error).__name__}})
            return None
        if not same:
            raise _reused()
        return found

    def _ask(self) -> Tries:
        """The attempts of this call alone."""
        self._own = self._tries(None)
        return self._own

    def _ask_for(self, flight: Flight) -> Tries:
        """The attempts of a call whose answer others may wait for: this call's end is not theirs."""
        self._own = flight.tries = self._tries(flight.cancellation)
        self._call.cancellation.subscribe(self._stopped)
        return self._own

    def _stopped(self) -> None:
        assert self._flight is not None
        if (reason := self._call.cancellation.reason) == CALLER_GONE:
            if self._call.name is None or self._call.stream:
                self._flight.leave(self)  # else its caller may ask for it again, and is not to pay again
        elif reason is not None:
            self._flight.stop(reason)

    def _go_on(self, flight: Flight) -> None:
        """The one that was waited for has failed, or may not be kept.

        Raises:
            NameReused: there is an answer of its name, to another request.
        """
        if isinstance(flight.error, NameReused):
            raise _reused()
        self._follows = False
        if self._call.name is None:
            self._cache.count("miss")
        else:
            self._flight = None  # of those that wait the next one asks, and the others wait for it

    def _finished(self, asked: Tries, chunks: Sequence[Chunk]) -> Answer | None:
        body = b"".join(chunk.data for chunk in chunks if not chunk.last)
        return self._kept(asked, body, b"".join(chunk.data for chunk in chunks if chunk.last))

    def _kept(self, asked: Tries, body: bytes, last: bytes = b"") -> Answer | None:
        """Keep an answer that ended well; None for any other."""
        attempt = asked.tried[-1]
        if attempt.error is not None or not attempt.transcript.complete:
            return None
        try:
            answer = Answer.of(self._form, attempt, body, last, self._fingerprint)
            self._cache.keep(self._call, self._wish, self._digests[0], answer)
        except Exception:  # the caller has its answer, whatever becomes of the copy
            log.exception("an answer could not be kept")
            self._cache.count("error")
            return None
        return answer


def _reused() -> NameReused:
    return NameReused("Another request had this Idempotency-Key within 24 hours.", param=cachekey.NAME_HEADER)
