"""Prometheus metrics: how many, how long, how much. No label holds what a caller could make up without end.

Under gunicorn.conf.py the workers write to files in one folder and whichever is scraped answers for all of them
(prometheus_client's multiprocess mode); anywhere else the numbers are those of this process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from gateway.core.calls import Attempt, Call, Outcome
from gateway.core.pricing import Meter, Prices
from gateway.core.routing import Catalogue, is_named
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

_Given = ParamSpec("_Given")
_Metric = TypeVar("_Metric", Counter, Histogram)

#: A model, a method that is not one of the known; and the route of what matched none.
OTHER = "other"
UNMATCHED = "unmatched"
#: The provider of a call for which none was found.
NOBODY = "none"
_MOST_MODELS = 500
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

#: Seconds. OpenTelemetry's advice, and three more: a call here may last for ten minutes.
_DURATIONS_S = (*(0.01 * 2**power for power in range(17)),)
_FIRST_TOKENS_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
)
_TOKENS = (*(4**power for power in range(14)),)
_OVERHEADS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# "_created" series double the number of series, and the multiprocess mode has none
disable_created_metrics()

#: This process, and a forked one too: each count asks for it, and the system is slow to tell.
_process = [os.getpid()]
os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, os.getpid()))
if values.ValueClass is not values.MutexValue:
    values.ValueClass = values.MultiProcessValue(lambda: _process[0])


@dataclass(frozen=True)
class SpoolState:
    """What waits in the spool of one trace sink. `oldest_s` is the age of the oldest row in seconds, 0 for none."""

    sink: str
    bytes: int
    oldest_s: float


def _harmless(
    count: Callable[Concatenate[Metrics, _Given], None],
) -> Callable[Concatenate[Metrics, _Given], None]:
    """An observer that fails must not fail the call: the first failure of each kind is logged, once."""

    @wraps(count)
    def counted(self: Metrics, /, *args: _Given.args, **kwargs: _Given.kwargs) -> None:
        try:
            count(self, *args, **kwargs)
        except Exception:
            if self._is_new(count.__name__):
                log.exception("metrics are wrong from here on: %s failed (logged once)", count.__name__)

    return counted


class Metrics:
    """The numbers of one gateway.

    Args:
        catalogue: models that it names are labels; all others are `other`.
        meter: for costs; models that have a price are labels too.
        access: who may read `/metrics`: whoever has a `token`, everybody (`open`), or nobody (`off`).
    """

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        meter: Meter | None = None,
        access: str = "token",
    ) -> None:
        self.access = access
        self._catalogue = catalogue or Catalogue()
        self._meter = meter or Meter(Prices({}))
        self._models: set[tuple[str, str]] = set()
        self._known: dict[tuple[object, ...], Any] = {}
        self._logged: set[str] = set()
        self._spools: Callable[[], Sequence[SpoolState]] = tuple
        self._registry = CollectorRegistry()
        # the library has made that choice when it was imported
        shared = values.ValueClass is not values.MutexValue
        self._folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) if shared else None
        self._define()

    def _define(self) -> None:
        registry = self._registry
        model = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self._durations = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a call's arrival to its end, by what became of it (error_type is empty where it was answered).",
            (*model, "error_type"),
            registry=registry,
            buckets=_DURATIONS_S,
        )
        self._first_tokens = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a streamed call's arrival to the first content of its answer.",
            model,
            registry=registry,
            buckets=_FIRST_TOKENS_S,
        )
        self._usage = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of each attempt, by kind.",
            (*model, "gen_ai_token_type"),
            registry=registry,
            buckets=_TOKENS,
        )
        self._requests = Counter(
            "gateway_requests_total",
            "Requests of any kind, counted when their answer has gone out.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._in_flight = Gauge(
            "gateway_requests_in_flight",
            "Requests that are being answered, streams included.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._costs = Counter(
            "gateway_cost_usd_total",
            "US dollars of all attempts at models that have a price.",
            ("provider", "model"),
            registry=registry,
        )
        self._tokens = Counter(
            "gateway_tokens_total",
            "Tokens of all attempts; cached and cache_write are part of input, reasoning is part of output.",
            ("provider", "model", "type"),
            registry=registry,
        )
        self._overhead = Histogram(
            "gateway_overhead_seconds",
            "Time of a call that was not spent waiting for a provider.",
            registry=registry,
            buckets=_OVERHEADS_S,
        )
        self._refusals = Counter(
            "gateway_auth_refusals_total",
            "Requests without a key that is known.",
            registry=registry,
        )
        self._limit_refusals = Counter(
            "gateway_limit_refusals_total",
            "Calls that a limit or a budget of the gateway's has refused.",
            ("kind", "measure"),
            registry=registry,
        )
        self._attempts = Counter(
            "gateway_attempts_total",
            "Attempts at providers, by what became of them (ok, or the kind of error).",
            ("provider", "outcome"),
            registry=registry,
        )
        self._reloads = Counter(
            "gateway_routes_reloads_total",
            "Changes of the routes file that a worker has seen, by whether what it says was taken (ok) or refused.",
            ("result",),
            registry=registry,
        )
        self._loaded = Gauge(
            "gateway_routes_loaded_timestamp_seconds",
            "When each worker has taken a routes file last: the oldest of these times, in seconds since 1970.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._cache = Counter(
            "gateway_cache_total",
            "What the cache did for calls: hit, miss, shared (answered with another call at the same time); and for "
            "answers: store, error (its store was too late or failed).",
            ("result",),
            registry=registry,
        )
        self._sent, self._dropped, self._quarantined, self._damaged, self._interrupted = (
            Counter(name, words, ("sink",), registry=registry)
            for name, words in (
                ("gateway_trace_rows_sent_total", "Rows of traces that a sink has taken."),
                ("gateway_trace_rows_dropped_total", "Rows of traces that are lost."),
                ("gateway_trace_rows_quarantined_total", "Rows of traces that a sink refuses, kept aside."),
                ("gateway_trace_frames_damaged_total", "Pieces of a spool that cannot be read."),
                ("gateway_traces_interrupted_total", "Traces of calls that a process left unfinished when it died."),
            )
        )

    @_harmless
    def start_process(self) -> None:
        """Leave the files of the process that forked this one and open its own. Safe to call again."""
        self._in_flight.inc(0)
        if self._catalogue.revision:
            self._loaded.set_to_current_time()
            for result in ("ok", "refused"):
                self._reloads.labels(result).inc(0)

    # The routes file.

    def follow(self, catalogue: Catalogue) -> None:
        """Take the models of another catalogue for labels from now on."""
        self._catalogue = catalogue

    @_harmless
    def routes_reloaded(self, result: str) -> None:
        """Count a change of the routes file: `ok` where it was taken, else `refused`."""
        self._reloads.labels(result).inc()
        if result == "ok":
            self._loaded.set_to_current_time()

    # Requests.

    def request_began(self, route: str | None, method: str) -> Request:
        """Count a request as being answered until its `ended`.

        Args:
            route: the rule that it matched, never its path; None where it matched none.
            method: as it came.
        """
        self._count_in_flight(1)
        return Request(self, route or UNMATCHED, method if method in _METHODS else OTHER)

    @_harmless
    def _count_in_flight(self, change: int) -> None:
        self._in_flight.inc(change)

    @_harmless
    def _count_request(self, route: str, method: str, status: int) -> None:
        self._series(self._requests, route, method, str(status)).inc()

    @_harmless
    def auth_refused(self) -> None:
        """Count a request without a key that is known."""
        self._refusals.inc()

    @_harmless
    def limit_refused(self, kind: str, measure: str) -> None:
        """Count a call that a rule has refused: its kind and its measure (`core/rules.py`)."""
        self._series(self._limit_refusals, kind, measure).inc()

    # Calls.

    @_harmless
    def call_ended(self, call: Call, outcome: Outcome) -> None:
        """Count a call that was settled, and its attempts. To be called once, after the call's trace was built."""
        operation = call.endpoint.name
        last = outcome.answered
        provider, model = self._names_of(last) if last is not None else (NOBODY, OTHER)
        lasted_s = max(0.0, outcome.ended_s - call.started_s)
        self._series(self._durations, operation, provider, model, _kind_of(outcome.error)).observe(lasted_s)
        self._overhead.observe(outcome.overhead_s(call.started_s))
        if last is not None and last.first_content_s is not None:
            first_s = max(0.0, last.first_content_s - call.started_s)
            self._series(self._first_tokens, operation, provider, model).observe(first_s)
        for attempt in outcome.attempts:
            self._count_attempt(call, outcome, attempt)

    def _count_attempt(self, call: Call, outcome: Outcome, attempt: Attempt) -> None:
        provider, model = self._names_of(attempt)
        error = attempt.error
        if error is None and attempt is outcome.answered and not attempt.transcript.complete:
            error = outcome.error  # it ended with the call: the caller left, or the gateway failed
        self._series(self._attempts, provider, _kind_of(error) or "ok").inc()
        billed = self._meter.bill(call, attempt)
        if (usage := billed.usage) is not None:
            for kind, tokens in (("input", usage.prompt), ("output", usage.completion)):
                self._series(self._usage, call.endpoint.name, provider, model, kind).observe(tokens)
                self._series(self._tokens, provider, model, kind).inc(tokens)
            for kind, tokens in (
                ("cached", usage.cached),
                ("cache_write", usage.cache_write),
                ("reasoning", usage.reasoning),
            ):
                if tokens:
                    self._series(self._tokens, provider, model, kind).inc(tokens)
        if billed.cost_usd is not None:
            self._series(self._costs, provider, model).inc(float(billed.cost_usd))

    def _series(self, metric: _Metric, *labels: str) -> _Metric:
        """The same as `metric.labels`, which takes a lock each time."""
        key = (metric, *labels)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = metric.labels(*labels)
        series: _Metric = found
        return series

    def _names_of(self, attempt: Attempt) -> tuple[str, str]:
        """The labels of provider and model: of the models that nobody can invent, the first `_MOST_MODELS`."""
        names = attempt.deployment.provider, attempt.deployment.model
        if names in self._models:
            return names
        named = is_named(*names, self._catalogue) or self._meter.prices.of(*names) is not None
        if not named or len(self._models) >= _MOST_MODELS:
            return names[0], OTHER
        self._models.add(names)
        return names

    @_harmless
    def cache_asked(self, result: str) -> None:
        """Count what the cache did: `hit`, `miss`, `shared`, `store` or `error`."""
        self._series(self._cache, result).inc()

    # Traces.

    @_harmless
    def expect_sinks(self, sinks: Iterable[str]) -> None:
        """Let the counters of these sinks begin at 0, so that their first step can be seen."""
        for sink in sinks:
            for counter in (self._sent, self._dropped, self._quarantined, self._damaged, self._interrupted):
                counter.labels(sink).inc(0)

    @_harmless
    def rows_sent(self, sink: str, rows: int) -> None:
        """Count rows that a sink has taken."""
        self._sent.labels(sink).inc(rows)

    @_harmless
    def rows_dropped(self, sink: str, rows: int) -> None:
        """Count rows that are lost."""
        self._dropped.labels(sink).inc(rows)

    @_harmless
    def rows_quarantined(self, sink: str, rows: int) -> None:
        """Count rows that a sink refuses and that are kept aside."""
        self._quarantined.labels(sink).inc(rows)

    @_harmless
    def frames_damaged(self, sink: str, frames: int = 1) -> None:
        """Count pieces of a spool that cannot be read."""
        self._damaged.labels(sink).inc(frames)

    @_harmless
    def traces_interrupted(self, sink: str, traces: int = 1) -> None:
        """Count traces of calls that a process left unfinished when it died."""
        self._interrupted.labels(sink).inc(traces)

    def watch_spools(self, states: Callable[[], Sequence[SpoolState]]) -> None:
        """Show the state of the spools; `states` is called at each scrape, and must answer for every worker."""
        self._spools = states

    # The answer.

    def text(
        self, *, as_openmetrics: bool = False, aside: Callable[[Callable[[], bytes]], bytes] | None = None
    ) -> tuple[bytes, str]:
        """Write all of it down, of all workers.

        Args:
            as_openmetrics: as OpenMetrics 1.0.0, else in Prometheus's text format 0.0.4.
            aside: runs the long part of it where it holds up no other call.

        Returns:
            The text and its content type.
        """
        own = self._own()
        folder = self._folder
        if folder is None:
            # not aside: the locks of these values belong to the threads that count
            return _written([*own, *self._registry.collect()], as_openmetrics)

        def work() -> bytes:
            return _written([*own, *MultiProcessCollector.merge(_files(folder))], as_openmetrics)[0]

        return (aside or _here)(work), _CONTENT_TYPES[as_openmetrics]

    def _own(self) -> list[Metric]:
        """What is not counted but looked up."""
        families: list[Metric] = [
            InfoMetricFamily("gateway_build", "The version that runs.", value={"version": release()})
        ]
        if revision := self._catalogue.revision:
            words = "The routes file of the worker that answers: changes with whatever it means."
            families.append(InfoMetricFamily("gateway_routes", words, value={"revision": revision}))
        states: Sequence[SpoolState] = ()
        try:
            states = self._spools()
        except Exception:
            if self._is_new("watch_spools"):
                log.exception("the state of the spools could not be read (logged once)")
        if states:
            size = GaugeMetricFamily("gateway_spool_bytes", "Bytes that waiting rows take.", labels=("sink",))
            oldest = GaugeMetricFamily(
                "gateway_spool_oldest_seconds", "Age of the oldest row that waits, 0 for none.", labels=("sink",)
            )
            for state in states:
                size.add_metric((state.sink,), state.bytes)
                oldest.add_metric((state.sink,), state.oldest_s)
            families += [size, oldest]
        return families

    def _is_new(self, failure: str) -> bool:
        if failure in self._logged:
            return False
        self._logged.add(failure)
        return True


class Request:
    """One request that is being answered."""

    def __init__(self, metrics: Metrics, route: str, method: str) -> None:
        self._metrics = metrics
        self._route = route
        self._method = method
        self._over = False

    def ended(self, status: int) -> None:
        """Count it, once however often this is called. `status` is the HTTP status that the caller saw."""
        if self._over:
            return
        self._over = True
        self._metrics._count_in_flight(-1)
        self._metrics._count_request(self._route, self._method, status)


class _Families(Collector):
    """Metrics in the place of a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


_CONTENT_TYPES = {True: openmetrics.CONTENT_TYPE_LATEST, False: CONTENT_TYPE_PLAIN_0_0_4}


def _written(families: Iterable[Metric], as_openmetrics: bool) -> tuple[bytes, str]:
    collector = _Families(families)
    text: bytes = openmetrics.generate_latest(collector) if as_openmetrics else generate_latest(collector)
    return text, _CONTENT_TYPES[as_openmetrics]


def _files(folder: Path) -> list[str]:
    """The files of all workers but for those that are just being made: an empty one cannot be read."""
    files = []
    for file in sorted(folder.glob("*.db")):
        try:
            if file.stat().st_size:
                files.append(str(file))
        except FileNotFoundError:
            continue  # of a worker that has died meanwhile
    return files


def _here(work: Callable[[], bytes]) -> bytes:
    return work()


def _kind_of(error: GatewayError | None) -> str:
    """The code of an error's class, empty for none: the code that it carries may be a provider's own word."""
    if error is None:
        return ""
    return type(error).code or type(error).type


def release() -> str:
    """The version of the gateway that runs, `unknown` where it is not installed."""
    try:
        return version("llm-gateway")
    except PackageNotFoundError:  # run from its folder
        return "unknown"
