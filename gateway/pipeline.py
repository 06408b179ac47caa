"""One call, one direction: plan, try in order, answer, settle once."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.attempts import Attempts
from gateway.auth import Authenticator
from gateway.cache import Recalled, ResponseCache
from gateway.core import routing
from gateway.core.calls import CALLER_GONE, JSON, SHUTTING_DOWN, Attempt, Call, Cancellation, Chunk, Outcome, plain
from gateway.core.ledger import summary
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.core.routing import Catalogue
from gateway.core.rules import Standings
from gateway.core.wire import header_value
from gateway.errors import CallerGone, GatewayError, InternalError, ProviderTimeout, ShuttingDown
from gateway.health import Health
from gateway.ledger import Ledger
from gateway.limits import Limiter, Ticket
from gateway.metrics import Metrics
from gateway.notify import Notifier
from gateway.routes.follower import RoutesFollower
from gateway.settings import Shown
from gateway.storage.counters import Counters
from gateway.storage.directory import Directory
from gateway.storage.followed import FollowedRules
from gateway.storage.health import StoreHealth
from gateway.storage.owned import OwnedObjects
from gateway.tracing import Trace, Tracer
from gateway.tracing.backlog import Backlog
from gateway.tracing.search import Search
from gateway.upstream import Upstream
from gateway.watcher import Watcher

if TYPE_CHECKING:  # it loads cryptography, which most gateways need not
    from gateway.auth.sign_in import SignIn

log = logging.getLogger(__name__)

#: Parameters that one header names; a caller may send thousands.
_MOST_NAMED = 32

#: Types of what is passed on as it came.
_MEDIA_TYPE = re.compile(
    r"(?:(?:audio|video)/[\w.+-]{1,64}|image/(?:png|jpeg|webp|gif)|text/(?:plain|vtt|csv)"
    r"|application/(?:json|jsonl|x-ndjson|x-subrip|octet-stream|pdf))(?:;[\w .=\"-]{0,64})?",
    re.ASCII | re.IGNORECASE,
)

#: How long calls may take to end once they were told to, at the end of the process.
_CALLS_END_S = 2.0


@dataclass(frozen=True)
class Limits:
    """Times and sizes that every call is held to. Seconds and bytes.

    `upload_folder` is where uploads wait that are too large for the memory; None for the system's own place.
    """

    timeout_s: float = 600.0
    whole_answer_s: float = 600.0
    keepalive_s: float = 15.0
    body_bytes: int = 32 << 20
    body_s: float = 30.0
    upload_bytes: int = 512 << 20
    upload_folder: Path | None = None
    send_s: float = 60.0


class Settlement:
    """What must happen once when a call ends, however it ends: the last thing added runs first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closers: list[Callable[[Outcome], None]] = []
        self._settled = False

    def add(self, closer: Callable[[Outcome], None]) -> None:
        """Promise to call `closer` with the outcome."""
        self._closers.append(closer)

    def __call__(self, outcome: Outcome) -> bool:
        """Settle, unless that has happened; one closer that fails keeps no other from running."""
        with self._lock:
            if self._settled:
                return False
            self._settled = True
        for closer in reversed(self._closers):
            try:
                closer(outcome)
            except Exception:
                log.exception("a call could not be settled in full")
        return True


@dataclass
class Gateway:
    """The gateway without its HTTP edge.

    Attributes:
        catalogue: every model that can be named; another one is put in its place when the routes file has changed.
        routes: what does so; None where there is no such file.
        upstreams: the way to each provider, by its name; `litellm` for the others.
        authenticator: headers to callers.
        metrics: what is counted.
        ledger: what each call used and cost.
        objects: whose each stored object is; None where none are.
        directory: who may call, for those who manage it; None where nobody can.
        counters: what limits and budgets are counted in; None where nothing is.
        rules: the limits and budgets that there are; None where there can be none.
        standings: how they stand; None where nothing is counted.
        notifier: tells the operator of budgets that run out; None where nobody is told.
        limiter: holds calls to them; None where there are none.
        cache: answers of before; None where there is none.
        stores: whether these answer.
        meter: says what calls cost.
        usage_cost: callers are told of it in the usage of their answers.
        health: how the deployments are, and what is tried by that.
        previews: what else a preflight tells of a call, by the name of the field.
        limits: times and sizes.
        redactor: takes credentials out of what failures say.
        cors_origins: origins of browsers that may call.
        sign_in: the way in to the pages for people of an issuer; None where there is none.
        session_key: returns the 32 bytes that the pages' sessions are sealed with; None where there are no pages.
        local_traces: the traces that are kept here; None where none are.
        shown_settings: every setting, by group, as people may see it.
        preload: imports what is heavy, before the fork so that workers share it; None where nothing needs it.
        on_close: run at the end of `close`.
    """

    catalogue: Catalogue
    upstreams: Mapping[str, Upstream]
    tracer: Tracer
    authenticator: Authenticator
    ledger: Ledger = field(default_factory=Ledger)
    routes: RoutesFollower | None = None
    objects: OwnedObjects | None = None
    directory: Directory | None = None
    counters: Counters | None = None
    rules: FollowedRules | None = None
    standings: Standings | None = None
    notifier: Notifier | None = None
    limiter: Limiter | None = None
    cache: ResponseCache | None = None
    stores: StoreHealth = field(default_factory=lambda: StoreHealth({}))
    meter: Meter = field(default_factory=lambda: Meter(Prices({})))
    usage_cost: bool = True
    health: Health = field(default_factory=Health)
    previews: Mapping[str, Callable[[Call, Sequence[Attempt]], JSON | None]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    redactor: Redactor = field(default_factory=Redactor)
    cors_origins: Sequence[str] = ()
    sign_in: SignIn | None = None
    session_key: Callable[[], bytes] | None = None
    local_traces: Search | None = None
    shown_settings: Sequence[tuple[str, Sequence[Shown]]] = ()
    watcher: Watcher = field(default_factory=Watcher)
    metrics: Metrics = field(default_factory=Metrics)
    preload: Callable[[], None] | None = None
    on_close: Callable[[], None] = lambda: None
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _opened: bool = False
    _closed: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _live: set[_Run] = field(default_factory=set)

    def open(self) -> None:
        """Start what lives in one process: threads, tracing. After the fork, and safe to call again."""
        if self._opened:
            return
        with self._opening:
            if not self._opened:
                self._start()

    def _start(self) -> None:
        self.metrics.start_process()
        self.watcher.open()
        self.tracer.start_process()
        self.ledger.start_process()
        for upstream in self.upstreams.values():
            upstream.start()
        if self.objects is not None:
            self.objects.start(time.time())
        if self.counters is not None:
            self.counters.start()
        if self.rules is not None:
            self.rules.start()
        if self.notifier is not None:
            self.notifier.start()
        if self.limiter is not None:
            self.limiter.start()
        self.health.start()
        if self.cache is not None:
            self.cache.start()
        self.authenticator.start()
        if self.routes is not None:
            self.routes.open()
        self._opened = True

    def drain(self, grace_s: float) -> None:
        """Take no new calls; end those that are still under way after `grace_s`. Safe in a signal handler."""
        self.watcher.drain(time.monotonic() + grace_s)

    def close(self, timeout_s: float = 5.0, *, insist: bool = False) -> None:
        """End what is under way with an error, hand over the traces that are still here, and stop.

        Takes `_CALLS_END_S` for the calls and `timeout_s` for the traces at most. Whoever calls it while it runs waits
        as long: after a SIGINT gunicorn closes from two greenlets, and the process ends when either is done.

        Args:
            timeout_s: for the traces and the ledger.
            insist: try again where they are not taken at once; for a host whose disk goes with the process.
        """
        with self._opening:
            if not self._opened:
                return
            again, self._closed = self._closed, True
        if again:
            self._ended.wait(_CALLS_END_S + timeout_s)
            return
        try:
            self._end(timeout_s, insist)
        finally:
            self._ended.set()

    def _end(self, timeout_s: float, insist: bool) -> None:
        self.drain(0.0)
        end_s = time.monotonic() + _CALLS_END_S
        while self._live and time.monotonic() < end_s:
            time.sleep(0.02)
        time.sleep(0.05)  # for the writers of the last error events
        self.watcher.close()
        if self.routes is not None:
            self.routes.close()
        end_s = time.monotonic() + timeout_s
        self.ledger.close(timeout_s / 2, insist=insist)  # first: its database is near, and Braintrust may not answer
        self.tracer.close(max(0.0, end_s - time.monotonic()), insist=insist)
        if self.limiter is not None:
            self.limiter.close()
        self.health.close()
        if self.counters is not None:
            self.counters.close()
        if self.objects is not None:
            self.objects.close()
        if self.rules is not None:
            self.rules.close()
        if self.notifier is not None:
            self.notifier.close()
        if self.cache is not None:
            self.cache.close()
        self.authenticator.close()
        if self.sign_in is not None:
            self.sign_in.close()
        self.on_close()

    def backlogs(self) -> dict[str, Backlog]:
        """What waits to be delivered, of traces and of the ledger, by the name of the place it goes to."""
        return {**self.tracer.backlogs(), **self.ledger.backlogs()}

    def run(self, call: Call, sock: socket.socket | None = None, note: Callable[[JSON], None] | None = None) -> Reply:
        """Answer one call, and promise to settle it exactly once.

        Args:
            call: what to answer.
            sock: the caller's connection, watched for its end; None where the server does not show it.
            note: is told what a line of the log says of the call (`core.ledger.summary`), when it is settled.

        Returns:
            A whole answer that is settled, or a stream that settles when it ends or is closed.

        Raises:
            GatewayError: the call failed before there was anything to answer with; it is settled.
        """
        settle = Settlement()
        settle.add(lambda outcome: self.metrics.call_ended(call, outcome))
        entry = self.ledger.entry(call)
        trace = self.tracer.start(call)
        if note is not None:
            settle.add(lambda outcome: note(self._summary(call, trace, outcome)))
        settle.add(trace.finish)
        watch = self.watcher.watch(call.cancellation, call.deadline_s, sock)
        settle.add(lambda _outcome: watch.end())
        run = _Run(self, call, trace, settle)
        self._live.add(run)
        settle.add(lambda _outcome: self._live.discard(run))
        try:
            trace.begin()
            if self.watcher.draining:
                raise ShuttingDown("The gateway is shutting down; send the request again.")
            catalogue = self.catalogue  # once: the routes file may change
            if not routing.may_call(call.caller.rights, call.model, catalogue):
                raise routing.not_allowed(call.model)
            run.attempts.follow(self.health.plan(call, catalogue))
            if self.limiter is not None:
                run.hold(self.limiter.admit(call, run.attempts.planned))
            settle.add(entry.close)  # before what was reserved is settled
            entry.open(run.attempts.planned)
            if self.cache is not None and (call.cache is not None or call.name is not None):
                run.recalled = self.cache.recall(call, run.attempts.planned, catalogue.revision, run.tries)
            return run.stream() if call.stream or call.pieces else run.whole()
        except GatewayError as error:
            run.fail(error)
            error.reply_headers = {**run.limits(), **error.reply_headers, **trace.headers(), **run.counts()}
            raise
        except BaseException:  # even a greenlet that is killed must settle
            call.cancellation.abort(SHUTTING_DOWN)
            run.fail(InternalError("The gateway failed."))
            raise

    def _summary(self, call: Call, trace: Trace, outcome: Outcome) -> JSON:
        bills = [self.meter.bill(call, attempt) for attempt in outcome.attempts]
        place: JSON = {} if call.recorded == "off" else {"trace": trace.ids.root_span_id}
        return place | summary(outcome, bills)


class _Run:
    """One call on its way through the gateway."""

    def __init__(self, gateway: Gateway, call: Call, trace: Trace, settle: Settlement) -> None:
        self.call = call
        self.trace = trace
        self.settle = settle
        self.meter = gateway.meter
        self._gateway = gateway
        self.attempts = self._attempts(call)
        self.recalled: Recalled | None = None
        self._ticket: Ticket | None = None

    def _attempts(self, call: Call) -> Attempts:
        gateway = self._gateway
        meter = gateway.meter if gateway.usage_cost and call.endpoint.metered else None
        silence_s = gateway.limits.keepalive_s
        return Attempts(call, gateway.upstreams, self.trace.around, silence_s, gateway.health, gateway.watcher, meter)

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

    def __init__(self, run: _Run, *, body: bytes | None = None, chunks: Generator[Chunk | None] | None = None) -> None:
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
