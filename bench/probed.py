"""The gateway's app for gunicorn, with what a benchmark wants to know of the inside of its worker.

    gunicorn bench.probed:app

`GET /bench/counts` counts what lives in the worker. With BENCH_STAGES set, `GET /bench/stages` tells the CPU that each
stage of a call has spent since it was asked first. Both need no credential: never serve this beyond 127.0.0.1.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from greenlet import greenlet
from gunicorn.workers.ggevent import GeventWorker

from bench.ledger import Ledger
from gateway import attempts
from gateway.api import exchange
from gateway.auth import Authenticator
from gateway.core import routing
from gateway.pipeline import Settlement
from gateway.pipeline.reply import Run
from gateway.tracing import Trace, Tracer
from gateway.tracing.sender import Sender
from gateway.tracing.spool import Spool
from gateway.upstream import http1, relay
from gateway.watcher import Watcher
from gateway.web import gateway_of

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Stages, in the order in which a call comes through them (ARCHITECTURE.md), and the functions that they are made of.
STAGES: tuple[tuple[str, tuple[tuple[Any, str], ...]], ...] = (
    ("1 who is it", ((Authenticator, "identify"),)),
    ("2 read", ((exchange, "_read"),)),
    ("3 open the trace, watch", ((Tracer, "start"), (Trace, "begin"), (Watcher, "watch"))),
    ("4 plan", ((routing, "plan"),)),
    ("5 try: to the answer or the first bytes", ((attempts.Attempts, "_open"),)),
    (
        "6 read the stream",
        (
            *((attempts._Aside, "_pump"), (http1.Connection, "read"), (relay._Frame, "text_of")),
            *((relay.Relay, "_read"), (relay.EventRelay, "_read")),
        ),
    ),
    ("6 answer", ((exchange, "_response"), (Run, "stream"), (exchange.EventStream, "__next__"))),
    ("7 settle", ((Settlement, "__call__"),)),
    ("7 build the rows", ((Trace, "_record"),)),
    ("7 spool the rows", ((Spool, "write"),)),
    ("deliver the rows", ((Sender, "_run"),)),
    ("gunicorn", ((GeventWorker, "handle"),)),
    ("watcher, fsync", ((Watcher, "_run"), (Spool, "_sync_now_and_then"))),
)
FLASK, NATIVE = "Flask", "other threads"


def counts() -> dict[str, int]:
    """Count what lives in this worker.

    Returns:
        `greenlets` that have not ended, `threads` that Python knows (under gevent they are greenlets, too), and `calls`
        under way.
    """
    # by type(): an isinstance() would ask lazy proxies what they stand for
    living = sum(issubclass(type(one), greenlet) and not one.dead for one in gc.get_objects())
    return {"greenlets": living, "threads": threading.active_count(), "calls": len(gateway_of(app)._live)}


class Probe:
    """Answers what is below /bench/ in front of a WSGI app."""

    def __init__(self, inner: WsgiApp, ledger: Ledger) -> None:
        self._inner = inner
        self._ledger = ledger

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        match environ["PATH_INFO"]:
            case "/bench/counts":
                told = counts()
            case "/bench/stages":
                told = self._stages()
            case _:
                return self._inner(environ, start_response)
        body = json.dumps(told).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _stages(self) -> dict[str, int]:
        """CPU in nanoseconds, by stage."""
        if not self._ledger.running:
            self._ledger.start()
        return {**self._ledger.spent_ns(), NATIVE: time.process_time_ns() - time.thread_time_ns()}


def _put_timers(ledger: Ledger) -> None:
    for stage, functions in STAGES:
        for owner, name in functions:
            setattr(owner, name, ledger.timed(stage, getattr(owner, name)))


_ledger = Ledger()
_timed = bool(os.environ.get("BENCH_STAGES"))
if _timed:
    _put_timers(_ledger)
# after the timers are in place: the sender is given its method when the app is built
app = importlib.import_module("wsgi").app
app.wsgi_app = Probe(_ledger.timed(FLASK, app.wsgi_app) if _timed else app.wsgi_app, _ledger)
