"""One call under way, and what goes back for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import replace

from gateway.attempts import Attempts
from gateway.cache import Recalled
from gateway.core.calls import CALLER_GONE, Call, Cancellation, Chunk, Outcome, plain
from gateway.core.pricing import Meter
from gateway.core.wire import header_value
from gateway.errors import CallerGone, GatewayError, ProviderTimeout
from gateway.limits import Ticket
from gateway.pipeline.settlement import Settlement
from gateway.tracing import Trace

#: Parameters that one header names; a caller may send thousands.
_MOST_NAMED = 32

#: Types of what is passed on as it came.
_MEDIA_TYPE = re.compile(
    r"(?:(?:audio|video)/[\w.+-]{1,64}|image/(?:png|jpeg|webp|gif)|text/(?:plain|vtt|csv)"
    r"|application/(?:json|jsonl|x-ndjson|x-subrip|octet-stream|pdf))(?:;[\w .=\"-]{0,64})?",
    re.ASCII | re.IGNORECASE,
)


class Run:
    """One call on its way through the gateway.

    Args:
        call: what is answered.
        trace: of the call.
        settle: what is owed when it ends.
        meter: says what it costs.
        attempts: makes what tries a call.
    """

    def __init__(
        self, call: Call, trace: Trace, settle: Settlement, meter: Meter, attempts: Callable[[Call], Attempts]
    ) -> None:
        self.call = call
        self.trace = trace
        self.settle = settle
        self.meter = meter
        self._attempts = attempts
        self.attempts = attempts(call)
        self.recalled: Recalled | None = None
        self._ticket: Ticket | None = None

    def hold(self, ticket: Ticket) -> None:
        """Keep what was reserved for the call until it is settled."""
        self.settle.add(ticket.settle)
        self._ticket = ticket
        self.attempts.planned = ticket.attempts

    def limits(self) -> dict[str, str]:
        """What the answer's headers say of limits and budgets."""
        return {} if self._ticket is None else self._ticket.headers()

    def tries(self, cancellation: Cancellation | None) -> Attempts:
        """The attempts, which `cancellation` stops in the place of the call's own where others wait for them too."""
        if cancellation is not None:
            plan = self.attempts.plan
            self.attempts = self._attempts(replace(self.call, cancellation=cancellation))
            self.attempts.follow(plan)
        return self.attempts

    @property
    def answers(self) -> Attempts | Recalled:
        """What the answer comes from."""
        return self.recalled or self.attempts

    def whole(self) -> Reply:
        """Answer a call that is not streamed."""
        body = self.answers.whole()
        tried = self.attempts.tried
        self.end(tried[-1].error if tried else None)  # an answer may say itself that it failed
        return Reply(self, body=body)

    def stream(self) -> Reply:
        """Answer a streamed call: with its first content in hand, or after `keepalive_s` of silence."""
        reply = Reply(self, chunks=self.answers.chunks())
        reply.begin()
        return reply

    def fail(self, error: GatewayError) -> None:
        """Settle a call that failed before its answer began."""
        self.end(error, status=error.http_status)
        self.answers.close()

    def end(self, error: GatewayError | None, *, status: int = 200) -> None:
        """Settle; only when they have it too, where others wait for the answer that this call is charged for."""
        if self.recalled is None:
            self.settle(self.outcome(error, status=status))
        else:
            self.recalled.when_over(lambda: self.settle(self.outcome(error, status=status)))

    def outcome(self, error: GatewayError | None = None, *, status: int = 200) -> Outcome:
        """What became of the call so far."""
        tried, recalled = self.attempts.tried, self.recalled
        waited_s = sum((attempt.ended_s or time.time()) - attempt.started_s for attempt in tried)
        return Outcome(
            status=status,
            attempts=tuple(tried),
            ended_s=time.time(),
            error=error,
            caller_gone=isinstance(error, CallerGone),
            waited_s=waited_s + self.attempts.paused_s + (recalled.waited_s if recalled is not None else 0.0),
            limits=self._ticket.rules if self._ticket is not None else error.held_to if error is not None else (),
            routed_by=self.attempts.routed_by,
            remembered=recalled.remembered if recalled is not None else None,
            cache_asked=recalled is not None and recalled.asked,
        )

    def counts(self) -> dict[str, str]:
        """What the headers of an answer say of how often the call was tried; nothing where it was not."""
        if not self.attempts.tried:
            return {}
        return {
            "x-gateway-attempted-retries": str(len(self.attempts.tried) - 1),
            "x-gateway-attempted-fallbacks": str(self.attempts.fallbacks),
        }


class Reply:
    """What goes back: one body, or the chunks of a stream, plus the one obligation to settle.

    Iterating a stream gives its chunks; None stands for silence that wants a sign of life. A failure is raised as
    GatewayError, once. The stream's end is reported when the call is settled: what ends the stream on the wire,
    `last_words`, is written after that.

    Attributes:
        body: the whole answer; None where it is streamed.
        last_words: what ends the stream, once all of it was read.
        told: the provider's own last words are that it failed, so the caller needs no others.
    """

    def __init__(self, run: Run, *, body: bytes | None = None, chunks: Generator[Chunk | None] | None = None) -> None:
        self._run = run
        self._chunks = chunks
        self._first: list[Chunk | None] = []
        self._over = chunks is None
        self.body = body
        self.last_words = run.call.endpoint.last_words
        self.told = False

    def begin(self) -> None:
        """Wait for the first piece; for a failure before it, raise."""
        assert self._chunks is not None
        try:
            first = next(self._chunks)
            while first is None and self._run.call.pieces:  # only its head tells what it is
                first = next(self._chunks)
            self._first.append(first)
        except StopIteration:
            self._over = True
            raise ProviderTimeout("The stream ended before it began.") from None
        except GatewayError:
            self._over = True
            raise

    @property
    def media(self) -> dict[str, str] | None:
        """The headers of an answer that is passed on in pieces and is no event stream; None where it is one."""
        last = self._run.attempts.tried[-1]
        if (media_type := last.media_type) is None or media_type.lower().startswith("text/event-stream"):
            return None
        # a type that a browser would run is none of these operations'
        plain = _MEDIA_TYPE.fullmatch(media_type)
        passed = {"Content-Type": media_type if plain else "application/octet-stream"}
        if last.disposition is not None:
            passed["Content-Disposition"] = header_value(last.disposition)
        return passed

    def headers(self) -> dict[str, str]:
        """What the answer's headers say of the call."""
        headers = {**self._run.limits(), **self._run.trace.headers()}
        attempts, recalled = self._run.attempts.tried, self._run.recalled
        remembered = None
        if recalled is not None:
            headers |= recalled.headers()
            remembered = recalled.remembered
        if attempts or remembered is not None:
            last = attempts[-1] if attempts or remembered is None else remembered.attempt
            headers.update({name: header_value(value) for name, value in last.provider_headers.items()})
            headers["x-gateway-provider"] = last.deployment.provider
            headers["x-gateway-model-id"] = header_value(last.deployment.name)
            headers.update(self._run.counts())
            if self.body is not None and (cost := self._run.meter.bill(self._run.call, last).cost_usd) is not None:
                headers["x-gateway-response-cost"] = plain(cost)
            if last.dropped:
                headers["x-gateway-dropped-params"] = ",".join(map(header_value, last.dropped[:_MOST_NAMED]))
            now_s = time.time()
            spent_s = sum((one.ended_s or one.first_content_s or now_s) - one.started_s for one in attempts)
            waited_s = self._run.attempts.paused_s + (recalled.waited_s if recalled is not None else 0.0)
            overhead_s = now_s - self._run.call.started_s - spent_s - waited_s
            headers["x-gateway-overhead-duration-ms"] = f"{1000 * max(0.0, overhead_s):.1f}"
        return headers

    def __iter__(self) -> Reply:
        return self

    def __next__(self) -> Chunk | None:
        if self._first:
            return self._passed(self._first.pop())
        if self._over or self._chunks is None:
            raise StopIteration
        try:
            return self._passed(next(self._chunks))
        except StopIteration:
            self._end(None)
            raise
        except GatewayError as error:
            if not isinstance(error, CallerGone) or not self._answered():
                self._end(error)
                raise
            self._end(None)
        raise StopIteration

    def _end(self, error: GatewayError | None) -> None:
        self._over = True
        self._run.end(error)

    def _passed(self, chunk: Chunk | None) -> Chunk | None:
        """Keep the last event back."""
        if chunk is None or not chunk.last:
            return chunk
        self.last_words, self.told = chunk.data, True
        return Chunk(b"")

    def _answered(self) -> bool:
        """Whether a caller that has left had its answer: every choice its finish_reason, but for the last words."""
        attempt = self._run.attempts.tried[-1] if self._run.attempts.tried else None
        if attempt is None or not attempt.transcript.complete:
            return False
        attempt.error = None
        return True

    def close(self) -> None:
        """Free what the answer held; stop early where the caller left, or never read. Safe to call again."""
        if not self._over and self._chunks is not None:
            self._over = True
            self._run.call.cancellation.abort(CALLER_GONE)
            self._chunks.close()
            error = None if self._answered() else CallerGone("The caller closed the connection.")
            self._run.end(error)
        self._run.answers.close()
