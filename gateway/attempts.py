"""One call, tried at one deployment after the other until an answer has begun."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, replace

from gateway.core.calls import SLOW_START, Attempt, Call, Cancellation, Chunk
from gateway.core.choosing import Plan
from gateway.core.pricing import Meter
from gateway.core.trying import Turns
from gateway.errors import GatewayError, InternalError, ProviderInvalid
from gateway.health import Health, Watching
from gateway.upstream import Answer, Upstream
from gateway.upstream.costed import Costed
from gateway.upstream.failures import pause, stopped
from gateway.watcher import Watcher

log = logging.getLogger(__name__)

#: Chunks read ahead of a caller that reads slowly; then the provider waits too.
_READ_AHEAD = 32
#: What may come before the first content; more of it is no beginning of an answer.
_MOST_HELD = 1000
#: How long a closing reply waits for its reader to notice; its connection has been shut down by then.
_READER_ENDS_S = 2.0
#: Of a call that was refused before it was planned.
_NOTHING = Plan(())


class Attempts:
    """The attempts of one call, in order.

    Args:
        call: what to answer.
        upstreams: the way to each provider, by its name; `litellm` for the others.
        around: entered around the opening of each attempt.
        silence_s: how long a stream may be silent before that is told.
        health: is told how the deployments do.
        watcher: looks after streams that do not begin.
        meter: says what answers cost, so that callers are told of it in their usage; None where they are not.

    Attributes:
        tried: what was, in order.
        paused_s: seconds that were waited between tries.
    """

    def __init__(
        self,
        call: Call,
        upstreams: Mapping[str, Upstream],
        around: Callable[[Attempt], AbstractContextManager[None]],
        silence_s: float,
        health: Health,
        watcher: Watcher,
        meter: Meter | None = None,
    ) -> None:
        self._call = call
        self._upstreams = upstreams
        self._around = around
        self._silence_s = silence_s
        self._meter = meter
        self._health = health
        self._watcher = watcher
        self._answer: Answer | None = None
        self._plan = _NOTHING
        self._watching: Watching
        self._turns: Turns
        self.tried: list[Attempt] = []
        self.paused_s = 0.0

    def follow(self, plan: Plan) -> None:
        """Take what is to be tried."""
        self._plan = plan
        self._watching = self._health.watch(self._call, plan.trying)
        self._turns = Turns(plan, self._watching, once=not self._call.fallback)

    @property
    def plan(self) -> Plan:
        """What is to be tried."""
        return self._plan

    @property
    def planned(self) -> Sequence[Attempt]:
        """What may be tried, the most wanted first; what is only tried after a refusal comes last."""
        plan = self._plan
        return (*plan.attempts, *plan.too_long, *plan.refused)

    @planned.setter
    def planned(self, allowed: Sequence[Attempt]) -> None:
        """Keep to those of them that may be tried after all."""
        ids = {id(attempt) for attempt in allowed}
        parts = (self._plan.attempts, self._plan.too_long, self._plan.refused)
        attempts, too_long, refused = (tuple(one for one in part if id(one) in ids) for part in parts)
        if len(attempts) + len(too_long) + len(refused) < sum(map(len, parts)):
            kept = attempts or too_long or refused
            self.follow(replace(self._plan, attempts=kept, too_long=too_long, refused=refused))

    @property
    def routed_by(self) -> str | None:
        """The strategy that ranked the deployments; None where there was nothing to choose."""
        return self._plan.strategy

    @property
    def fallbacks(self) -> int:
        """How many deployments were tried besides the first."""
        return max(0, len({attempt.deployment for attempt in self.tried}) - 1)

    def whole(self) -> bytes:
        """Answer a call that is not streamed.

        Raises:
            GatewayError: no deployment answered; of the last one that was tried.
        """
        attempt = self._turns.first()
        while True:
            try:
                body = self._open(attempt, self._call).body
            except GatewayError as error:
                failed = error
            else:
                attempt.ended_s = time.time()
                self._watching.answered(attempt, stream=False)
                return body
            finally:
                self._watching.ended(attempt)
            attempt = self._next(attempt, failed)

    def chunks(self) -> Generator[Chunk | None]:
        """Answer a streamed call: its chunks, and None for silence.

        Until the first content another deployment may be tried: what came before it (a role, empty choices) is held.

        Raises:
            GatewayError: no deployment answered, or the one that did failed.
        """
        attempt = self._turns.first()
        while True:
            self.close()  # an attempt before this one
            held: list[Chunk] = []
            begun, start = False, self._start()
            try:
                # no layer around them but this one: each chunk of each stream runs through all that there are
                chunks = self._paced(attempt, start.call)
                for chunk in chunks:
                    if chunk is None:
                        yield None
                    elif chunk.content:
                        start.begun()
                        attempt.first_content_s = time.time()
                        self._watching.answered(attempt, stream=True)
                        begun = True
                        yield from held
                        yield chunk
                        break
                    elif len(held) < _MOST_HELD:
                        held.append(chunk)
                    else:
                        provider = attempt.deployment.provider
                        raise ProviderInvalid(f"{provider} sends a stream without content.", provider=provider)
                yield from chunks
                return
            except GatewayError as error:
                if attempt.error is not error:  # `_open` has told of it
                    attempt.error = error
                    self._watching.failed(attempt, error)
                if begun:
                    raise
                failed = error
            except Exception:
                log.exception("reading the answer of %s failed", self._call.id)
                failed = attempt.error = InternalError("The gateway failed while it read the answer.")
                if begun:
                    raise failed from None
            finally:
                start.end()
                attempt.ended_s = time.time()
                self._watching.ended(attempt)
            attempt = self._next(attempt, failed)

    def _next(self, attempt: Attempt, error: GatewayError) -> Attempt:
        """Say what is tried after a failure, when it is its time.

        Raises:
            GatewayError: nothing is, so the failure is the call's; or the call was stopped meanwhile.
        """
        left_s = self._call.deadline_s - time.monotonic()
        turn = self._turns.after(attempt, error, time.time(), left_s, self._health.dice())
        if turn is None:
            raise error
        if turn.pause_s > 0:
            self._pause(turn.pause_s)
        return turn.attempt

    def _pause(self, seconds: float) -> None:
        """Wait, as long as the call is not stopped."""
        began_s = time.monotonic()
        try:
            pause(self._call.cancellation, seconds)
        finally:
            self.paused_s += time.monotonic() - began_s

    def close(self) -> None:
        """Free the connection of the last answer; it can mean to wait for a provider's last bytes. Safe to repeat."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _open(self, attempt: Attempt, call: Call) -> Answer:
        """Try one deployment."""
        first = all(attempt.deployment != before.deployment for before in self.tried)
        self.tried.append(attempt)
        attempt.number = len(self.tried)
        attempt.started_s = time.time()
        attempt.transcript = call.endpoint.transcript()
        attempt.metered = call.endpoint.metered
        self._watching.began(attempt, counted=first)
        try:
            with self._around(attempt):
                answer = self._answer = self._upstream(attempt).open(attempt, call)
        except GatewayError as error:
            attempt.error, attempt.ended_s = error, time.time()
            self._watching.failed(attempt, error)
            raise
        return answer if self._meter is None else Costed(answer, attempt, self._call, self._meter)

    def _upstream(self, attempt: Attempt) -> Upstream:
        return self._upstreams.get(attempt.deployment.provider) or self._upstreams["litellm"]

    def _start(self) -> _Start:
        """Begin to wait for content: with a bound where there is one, and another deployment is left to try."""
        rules = self._plan.trying
        if rules is None or rules.first_content_s is None or not self._turns.more:
            return _Start(self._call)
        return _BoundedStart(self._call, self._watcher, time.monotonic() + rules.first_content_s)

    def _paced(self, attempt: Attempt, call: Call) -> Iterator[Chunk | None]:
        """The chunks of an attempt, and None for silence, whoever has to tell of it."""
        if not self._upstream(attempt).opens_in_time(attempt, call):
            return self._aside(lambda: self._opened(attempt, call))
        answer = self._open(attempt, call)
        return answer.chunks() if answer.tells_silence else self._aside(answer.chunks)

    def _aside(self, read: Callable[[], Iterator[Chunk | _Ended | None]]) -> Iterator[Chunk | None]:
        pieces = _Aside(read, self._call.id)
        try:
            while not isinstance(piece := pieces.next(self._silence_s), _Ended):
                yield piece
        finally:
            pieces.close()
        if piece.error is not None:
            raise piece.error
        if piece.told_by is not None:
            yield from piece.told_by.chunks()

    def _opened(self, attempt: Attempt, call: Call) -> Iterator[Chunk | _Ended | None]:
        """Open, and read an answer that cannot be read where it is written."""
        answer = self._open(attempt, call)
        if answer.tells_silence:
            yield _Ended(told_by=answer)
        else:
            yield from answer.chunks()


class _Start:
    """The start of a stream, for which there is no bound of its own."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def begun(self) -> None:
        """Note the first content."""

    def end(self) -> None:
        """Nothing is waited for any more; safe to call again."""


class _BoundedStart(_Start):
    """The start of a stream that has to have content in time: else the attempt is stopped, and the call is not.

    Args:
        call: what is answered.
        watcher: looks at the clock.
        until_s: the latest, on the monotonic clock.
    """

    def __init__(self, call: Call, watcher: Watcher, until_s: float) -> None:
        self._own, self._whole = Cancellation(), call.cancellation
        super().__init__(replace(call, cancellation=self._own))
        self._lock = threading.Lock()
        self._over = False
        self._whole.subscribe(self._stop)
        self._watch = watcher.timer(self._late, until_s)

    def _stop(self) -> None:
        assert self._whole.reason is not None
        self._own.abort(self._whole.reason)

    def _late(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self._own.abort(SLOW_START)

    def begun(self) -> None:
        """Note the first content.

        Raises:
            ProviderTimeout: it came too late, and its connection is closed.
        """
        with self._lock:
            late, self._over = self._over, True
        self._watch.end()
        if late and (error := stopped(self._own)) is not None:
            raise error

    def end(self) -> None:
        """Nothing is waited for any more; safe to call again."""
        with self._lock:
            self._over = True
        self._watch.end()
        self._whole.unsubscribe(self._stop)


@dataclass(frozen=True)
class _Ended:
    """What is read aside ends: for an error, or because the rest of it is to be read here."""

    error: GatewayError | None = None
    told_by: Answer | None = None


class _Aside:
    """Reads in a thread of its own, so that the writer can say that it is still alive."""

    def __init__(self, pieces: Callable[[], Iterator[Chunk | _Ended | None]], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._queue: queue.Queue[Chunk | _Ended | None] = queue.Queue(_READ_AHEAD)
        self._closed = False
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._pump,), name=f"stream-{name}", daemon=True
        )
        self._thread.start()

    def next(self, timeout_s: float) -> Chunk | _Ended | None:
        """The next piece; None where there is none within `timeout_s`."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop reading and wait, so that the record does not change any more."""
        self._closed = True
        self._thread.join(_READER_ENDS_S)

    def _put(self, piece: Chunk | _Ended | None) -> None:
        while not self._closed:
            try:
                self._queue.put(piece, timeout=0.2)
                return
            except queue.Full:
                continue

    def _pump(self) -> None:
        error: GatewayError | None = None
        try:
            for piece in self._pieces():
                if self._closed:
                    break
                self._put(piece)
                if isinstance(piece, _Ended):
                    return
        except GatewayError as failed:
            error = failed
        except Exception:
            log.exception("reading the answer of %s failed", self._name)
            error = InternalError("The gateway failed while it read the answer.")
        self._put(_Ended(error))
