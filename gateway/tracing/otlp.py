"""Any OpenTelemetry collector, as a place to deliver to: OTLP over HTTP.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. A span is posted once, when its call has ended; where an answer was
lost it is posted again, with the same ids.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from gateway.core.semconv import NoSpan, Span, Value, span_of
from gateway.offload import offload
from gateway.secret import Secret
from gateway.tracing.delivery import Piece, Rejected, TooLarge, Unavailable
from gateway.tracing.posting import TIMEOUT, content_of, is_page, line, retry_after_s, where, words

JSON = dict[str, Any]

log = logging.getLogger(__name__)

#: What OTLP says may be tried again (section "Failures" of OTLP/HTTP), and what proxies say in its place.
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_SCOPE = "llm-gateway"


class OTLP:
    """A destination (delivery.Destination).

    Args:
        url: where traces are posted, `…/v1/traces`.
        headers: that go with each request, such as a key.
        resource: attributes of the gateway itself, `service.name` among them.
        content: whether messages are told as well.
        compressed: bodies are sent as gzip.
    """

    #: Collectors take 4 MiB of a message by default; rows are larger than the spans that are made of them.
    limit_bytes = 4 << 20

    def __init__(
        self,
        url: str,
        headers: Mapping[str, Secret],
        resource: Mapping[str, str],
        *,
        content: bool = False,
        compressed: bool = True,
    ) -> None:
        self._url = url
        self._headers = headers
        self._resource = resource
        self._content = content
        self._compressed = compressed
        self._http: httpx.Client | None = None

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Post the spans of rows that have ended (delivery.Destination)."""
        body = offload(lambda: self._written(pieces))
        if body is not None:
            self._post(body)

    def check(self) -> str:
        """Post no spans at all, which a collector has to take; for `gateway doctor`.

        Returns:
            The address.

        Raises:
            Unavailable, Rejected: why not.
        """
        self._post(self._packed([]))
        return self._url

    def close(self) -> None:
        """Close the connection (delivery.Destination)."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _written(self, pieces: Sequence[Piece]) -> bytes | None:
        spans = []
        for piece in pieces:
            try:
                span = span_of(json.loads(piece.row), content=self._content)
            except (NoSpan, ValueError, RecursionError) as error:
                raise Rejected(f"the row {line(piece.id)} is no span: {line(str(error))}") from None
            if span is not None:
                spans.append(span)
        return self._packed(spans) if spans else None

    def _packed(self, spans: Sequence[Span]) -> bytes:
        # imported here: protobuf takes 60 ms, and few gateways send to a collector
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
            ExportTraceServiceRequest,
        )

        request = ExportTraceServiceRequest()
        traced = request.resource_spans.add()
        _put(traced.resource.attributes, self._resource)
        scoped = traced.scope_spans.add()
        scoped.scope.name = _SCOPE
        for span in spans:
            _fill(scoped.spans.add(), span)
        packed: bytes = request.SerializeToString()
        return gzip.compress(packed, 1) if self._compressed else packed

    def _post(self, body: bytes) -> None:
        if self._http is None:
            self._http = httpx.Client(timeout=TIMEOUT, follow_redirects=False)
        headers = {name: value.reveal() for name, value in self._headers.items()}
        headers |= {"Content-Type": "application/x-protobuf", "Accept-Encoding": "identity"}
        if self._compressed:
            headers["Content-Encoding"] = "gzip"
        try:
            with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
                content = content_of(answer)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise Unavailable(f"{where(self._url)}: {type(error).__name__}") from error
        why = f"{where(self._url)}: {answer.status_code} {words(content or b'', *self._headers.values())}".rstrip()
        if answer.status_code in _AGAIN:
            raise Unavailable(why, retry_after_s=retry_after_s(answer.headers.get("retry-after")))
        if answer.status_code == 413:
            raise TooLarge(why)
        if answer.status_code in (400, 422):
            raise Rejected(why)
        if not answer.is_success or content is None or is_page(answer, content):
            raise Unavailable(why, refused=True)
        self._look_at(content)

    def _look_at(self, content: bytes) -> None:
        """Say what a collector did not want; it must not be sent again (OTLP/HTTP, "Partial Success")."""
        from google.protobuf.message import DecodeError  # noqa: PLC0415  # see _packed
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
            ExportTraceServiceResponse,
        )

        try:
            told = ExportTraceServiceResponse.FromString(content).partial_success
        except DecodeError:
            return  # JSON, or anything else: it was taken
        if told.rejected_spans or told.error_message:
            fields = {"rejected": told.rejected_spans, "why": line(told.error_message)}
            log.warning("the collector did not take every span", extra={"fields": fields})


def _fill(to: Any, span: Span) -> None:
    to.trace_id, to.span_id = bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
    to.parent_span_id = bytes.fromhex(span.parent_span_id)
    to.name = span.name
    to.kind = to.SPAN_KIND_SERVER if span.entry else to.SPAN_KIND_CLIENT
    to.start_time_unix_nano, to.end_time_unix_nano = span.started_ns, span.ended_ns
    if span.error is not None:
        to.status.code, to.status.message = to.status.STATUS_CODE_ERROR, _clean(span.error)
    _put(to.attributes, span.attributes)


def _put(to: Any, attributes: Mapping[str, Value]) -> None:
    for name, value in attributes.items():
        pair = to.add(key=name)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = max(-(2**63), min(value, 2**63 - 1))
        elif isinstance(value, float):
            pair.value.double_value = value
        elif isinstance(value, str):
            pair.value.string_value = _clean(value)
        else:
            for one in value:
                pair.value.array_value.values.add(string_value=_clean(one))


def _clean(text: str) -> str:
    """Without half of a surrogate pair, which is no UTF-8."""
    return text.encode(errors="replace").decode()
