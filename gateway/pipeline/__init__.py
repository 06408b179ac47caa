"""One call, one direction: plan, try in order, answer, settle once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.attempts import Attempts
from gateway.auth import Authenticator
from gateway.cache import ResponseCache
from gateway.core import routing
from gateway.core.calls import JSON, SHUTTING_DOWN, Attempt, Call, Outcome
from gateway.core.ledger import summary
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.core.routing import Catalogue
from gateway.core.rules import Standings
from gateway.errors import GatewayError, InternalError, ShuttingDown
from gateway.health import Health
from gateway.ledger import Ledger
from gateway.limits import Limiter
from gateway.metrics import Metrics
from gateway.notify import Notifier
from gateway.pipeline.reply import Reply, Run
from gateway.pipeline.settlement import Settlement
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

__all__ = ["Gateway", "Limits", "Reply", "Settlement"]

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
    _live: set[Run] = field(default_factory=set)

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
        run = Run(call, trace, settle, self.meter, partial(self._attempts, trace))
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

    def _attempts(self, trace: Trace, call: Call) -> Attempts:
        meter = self.meter if self.usage_cost and call.endpoint.metered else None
        return Attempts(call, self.upstreams, trace.around, self.limits.keepalive_s, self.health, self.watcher, meter)

    def _summary(self, call: Call, trace: Trace, outcome: Outcome) -> JSON:
        bills = [self.meter.bill(call, attempt) for attempt in outcome.attempts]
        place: JSON = {} if call.recorded == "off" else {"trace": trace.ids.root_span_id}
        return place | summary(outcome, bills)
