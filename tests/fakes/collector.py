"""An OpenTelemetry collector that keeps the spans that it is sent (OTLP over HTTP, in protobuf)."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes.loopback import Exchange, Loopback

PATH = "/v1/traces"


@dataclass(frozen=True)
class Got:
    """A span as it came; ids are hex."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_span_id: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    error: str | None
    started_ns: int
    ended_ns: int

    @property
    def entry(self) -> bool:
        return self.kind == Span.SPAN_KIND_SERVER


class FakeCollector(Loopback):
    """The collector.

    Attributes:
        instead: answered in the place of taking spans: a status and headers; None takes them.
        partial: how many spans it says it did not want.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Got] = []
        self.instead: tuple[int, dict[str, str]] | None = None
        self.partial = 0
        super().__init__()

    @property
    def url(self) -> str:
        return self.origin

    @property
    def spans(self) -> list[Got]:
        """Those that were taken, in the order in which they came."""
        with self._lock:
            return list(self._spans)

    def wait_spans(self, count: int, timeout_s: float = 10.0) -> list[Got]:
        end_s = time.monotonic() + timeout_s
        while len(self.spans) < count:
            assert time.monotonic() < end_s, f"{len(self.spans)} spans of {count}"
            time.sleep(0.02)
        return self.spans

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.instead is not None:
            status, headers = self.instead
            exchange.respond(status, headers, b"")
            return
        if request.path != PATH or request.headers.get("content-type") != "application/x-protobuf":
            exchange.respond(404, {}, b"")
            return
        raw = gzip.decompress(request.raw) if request.headers.get("content-encoding") == "gzip" else request.raw
        with self._lock:
            self._spans += _read(ExportTraceServiceRequest.FromString(raw))
        response = ExportTraceServiceResponse()
        if self.partial:
            response.partial_success.rejected_spans = self.partial
            response.partial_success.error_message = "not those"
        exchange.respond(200, {"Content-Type": "application/x-protobuf"}, response.SerializeToString())


def _read(request: ExportTraceServiceRequest) -> list[Got]:
    return [
        Got(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            _attributes(span.attributes),
            _attributes(traced.resource.attributes),
            span.status.message if span.status.code == 2 else None,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )
        for traced in request.resource_spans
        for scoped in traced.scope_spans
        for span in scoped.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
