"""One call on its way through the cache: a kept answer, one that is being made, or one of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.cache.claims import Turn, name_reused
from gateway.cache.content import Answer
from gateway.cache.flights import Flight, Tries
from gateway.core import cachekey
from gateway.core.cachekey import NAMED_TTL_S, NEVER, Wish
from gateway.core.calls import CALLER_GONE, Attempt, Call, Cancellation, Chunk, Remembered
from gateway.errors import GatewayError, NameReused, NotCached
from gateway.offload import LARGE_BYTES, offload
from gateway.storage.answers import Claim, KeptAnswer
from gateway.upstream.failures import raise_if_stopped

if TYPE_CHECKING:
    from gateway.cache import ResponseCache

JSON = dict[str, Any]
_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


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
        #: What keeps other workers from making the answer, where this call makes it for them too.
        self._claim: Claim | None = None
        self._turn: Turn | None = None
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
        if self._hit is not None or self._follows or (self._turn is not None and self._turn.waits and not self._own):
            age_s = self._flight.age_s if self._flight is not None else self._age_s
            replayed = {"idempotent-replayed": "true"} if self._call.name is not None else {}
            return {"x-bt-cached": "HIT", "Age": str(int(age_s)), **replayed}
        return {"x-bt-cached": "MISS"} if self.asked else {}

    def look(self, patience_s: float = 0.0) -> JSON:
        """Say what would become of it (`ResponseCache.look`)."""
        cache, wish = self._cache, self._wish
        told: JSON = {"answer": "off", "age_s": None, "ttl_s": None}
        if not self._digests or not (wish.reads or wish.keeps):
            return told
        kept = cache.stores.find(self._call.caller.tenant, self._digests, patience_s) if wish.reads else None
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
        if (found := _over(self._begin())) is not None:
            return found.body
        flight = self._flight
        if flight is None:
            return self._ask().whole()
        if not self._leads:
            began_s = time.time()
            try:
                answer = flight.wait(self._call)
            finally:
                self.waited_s += time.time() - began_s
            if answer is None:
                return self._ask().whole() if self._goes_on(flight) else self.whole()
            self._cache.count("shared")
            return answer.body
        answer = None
        try:
            asked = self._ask_for(flight)
            body = asked.whole()
            answer = self._kept(asked, body)
        finally:
            flight.end(answer)
        raise_if_stopped(self._call.cancellation)  # the others have it
        return body

    def chunks(self) -> Generator[Chunk | None]:
        """Answer a streamed call.

        Raises:
            GatewayError: no deployment answered, the one that did failed, or only what is kept was wanted.
        """
        if (found := (yield from self._begin())) is not None:
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
            if not flight.unasked:
                self._cache.count("shared")
                return
        finally:
            self.waited_s += time.time() - began_s
        yield from self._ask().chunks() if self._goes_on(flight) else self.chunks()

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

    def _begin(self) -> Generator[None, None, Answer | None]:
        """Look for an answer; else join who asks for the same, or lead. No flight: it asks for itself.

        Gives None for silence while another worker makes the answer.
        """
        cache, wish, digests = self._cache, self._wish, self._digests
        if digests and wish.reads:
            if (found := self._usable(cache.stores.at_hand(self._call.caller.tenant, digests))) is not None:
                return found
            if wish.keeps and not wish.only:
                # what a caller gives less time than the gateway does ends for all when that is over
                shared = not self._call.hurried or self._call.name is not None
                self._flight, self._leads = cache.flights.join(digests[0], self, self._fingerprint, shared=shared)
                if self._flight.fingerprint != self._fingerprint:
                    raise name_reused()
                if not self._leads:
                    self._follows = True
                    return None
            if (found := (yield from self._looked_up())) is not None:
                return found
        elif digests and wish.keeps:
            self._flight, self._leads = cache.flights.alone(self), True
        if wish.only:
            raise NotCached("There is no kept answer to this request, and it wants no other (only-if-cached).")
        if self.asked:
            cache.count("miss")
        return None

    def _looked_up(self) -> Generator[None, None, Answer | None]:
        """Look into both stores; a flight that is led is over where there is an answer."""
        found, well, reused = None, False, None
        try:
            kept = (yield from self._claimed()) if self._claims else self._kept_before()
            found = self._usable(kept, "shared" if self._turn is not None and self._turn.waits else "hit")
            well = True
        except NameReused as error:
            reused = error
            raise
        finally:
            if self._flight is not None and (found is not None or not well):
                self._flight.age_s = self._age_s
                self._flight.end(found, reused, unasked=not well)
                self._flight, self._leads = None, False
        return found

    def _kept_before(self) -> KeptAnswer | None:
        return self._cache.stores.find(self._call.caller.tenant, self._digests)

    @property
    def _claims(self) -> bool:
        """Whether its answer is one that other workers wait for.

        Not streams, unless the request has a name: what other workers make is seen only when it is whole, and a stream
        of one's own has begun long before that.
        """
        if not self._leads or not self._cache.stores.shared:
            return False
        if self._call.name is not None:
            return True
        # who wants a young answer would wait for one, and then make its own
        return not self._call.stream and not self._call.hurried and self._wish.max_age_s is None

    def _claimed(self) -> Generator[None, None, KeptAnswer | None]:
        """Look for an answer, claim the making of it, or wait for who makes it; None: this call makes it."""
        claims, flight = self._cache.claims, self._flight
        assert flight is not None
        turn = self._turn = Turn(claims, self._call, self._digests, self._fingerprint, self._cache.silence_s)
        try:
            found = yield from turn.come()
        finally:
            self.waited_s += turn.waited_s
        if isinstance(found, Claim):
            self._claim, claim = found, found
            flight.when_over(lambda: claims.give_up(claim))
            return None
        return found

    def _usable(self, kept: KeptAnswer | None, result: str = "hit") -> Answer | None:
        """The answer that was kept, where it will do and can be told in the form that is asked for."""
        found = self._fitting(kept) if kept is not None else None
        if kept is not None and found is not None:
            self._hit, self._age_s = found, max(0.0, self._cache.clock() - kept.made_s)
            self._cache.count(result)
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
            raise name_reused()
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

    def _goes_on(self, flight: Flight) -> bool:
        """The one that was waited for has failed, or may not be kept: say whether the call asks for itself.

        Else it begins anew: of those that wait the next one asks, and the others wait for it.

        Raises:
            NameReused: there is an answer of its name, to another request.
        """
        if isinstance(flight.error, NameReused):
            raise name_reused()
        self._follows = False
        if self._call.name is None and not flight.unasked:
            self._cache.count("miss")
            return True
        self._flight = None
        return False

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
            self._cache.keep(self._call, self._wish, self._digests[0], answer, self._claim)
        except Exception:  # the caller has its answer, whatever becomes of the copy
            log.exception("an answer could not be kept")
            self._cache.count("error")
            return None
        return answer


def _over(steps: Generator[None, None, _Result]) -> _Result:
    """Run something to its end where nobody has to be told of silence, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
