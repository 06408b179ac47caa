"""A collector as a place to deliver to: what it is sent, and what becomes of each of its answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.tracing.delivery import Piece, Rejected, TooLarge, Unavailable
from gateway.tracing.otlp import OTLP
from tests.fakes.collector import PATH, FakeCollector

JSON = dict[str, Any]


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as fake:
        yield fake


@pytest.fixture
def sink(collector: FakeCollector) -> Iterator[OTLP]:
    one = OTLP(collector.url + PATH, {"x-key": Secret("collector-key-1")}, {"service.name": "gw"})
    yield one
    one.close()


def piece(number: int = 1, **fields: Any) -> Piece:
    row: JSON = {
        "id": f"row-{number}",
        "span_id": f"{number:016x}",
        "root_span_id": f"{number:032x}",
        "span_attributes": {"name": "chat m", "type": "task"},
        "metadata": {"operation": "chat", "model": "m", "status": 200},
        "metrics": {"start": 1_700_000_000.25, "end": 1_700_000_001.5},
        **fields,
    }
    return Piece(row["id"], json.dumps(row).encode())


@pytest.mark.parametrize("compressed", [True, False])
def test_spans_come_as_a_collector_reads_them(collector: FakeCollector, compressed: bool) -> None:
    sink = OTLP(collector.url + PATH, {}, {"service.name": "gw", "team": "ml"}, compressed=compressed)
    sink.deliver([piece(1, error="It failed."), piece(2)])
    sink.close()
    first, second = collector.spans
    assert (first.name, first.trace_id, first.span_id) == ("chat m", f"{1:032x}", f"{1:016x}")
    assert first.resource == {"service.name": "gw", "team": "ml"}
    assert (first.started_ns, first.ended_ns) == (1_700_000_000_250_000_000, 1_700_000_001_500_000_000)
    assert (first.error, second.error) == ("It failed.", None)
    assert first.entry
    assert second.attributes["http.response.status_code"] == 200


def test_the_operators_headers_go_with_each_request(collector: FakeCollector, sink: OTLP) -> None:
    sink.deliver([piece()])
    assert collector.requests()[0].headers["x-key"] == "collector-key-1"


def test_a_call_that_is_still_open_is_not_sent(collector: FakeCollector, sink: OTLP) -> None:
    sink.deliver([piece(metrics={"start": 1.0})])
    assert collector.requests() == []


@pytest.mark.parametrize("row", [b"no json", b"[1]", b"{}", b'{"metrics":{"start":1,"end":2}}'])
def test_a_row_that_is_no_span_is_refused_and_not_sent(collector: FakeCollector, sink: OTLP, row: bytes) -> None:
    with pytest.raises(Rejected):
        sink.deliver([Piece("odd", row)]) if row != b"{}" else sink.deliver([piece(span_id="x")])
    assert collector.requests() == []


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (429, Unavailable),
        (503, Unavailable),
        (500, Unavailable),
        (401, Unavailable),
        (404, Unavailable),
        (302, Unavailable),
        (400, Rejected),
        (413, TooLarge),
    ],
)
def test_each_refusal_is_what_it_means(
    collector: FakeCollector, sink: OTLP, status: int, raised: type[Exception]
) -> None:
    collector.instead = (status, {"Retry-After": "7"})
    with pytest.raises(raised) as caught:
        sink.deliver([piece()])
    if isinstance(caught.value, Unavailable):
        assert caught.value.refused is (status in (401, 404, 302))
        assert caught.value.retry_after_s == (None if caught.value.refused else 7.0)
    collector.instead = None
    sink.deliver([piece()])
    assert len(collector.spans) == 1


def test_a_collector_that_is_away_is_tried_again(collector: FakeCollector, sink: OTLP) -> None:
    collector.close()
    with pytest.raises(Unavailable) as caught:
        sink.deliver([piece()])
    assert not caught.value.refused
    collector.come_back()
    sink.deliver([piece()])
    assert len(collector.spans) == 1


def test_what_a_collector_did_not_want_is_said_once_and_not_sent_again(
    collector: FakeCollector, sink: OTLP, caplog: pytest.LogCaptureFixture
) -> None:
    collector.partial = 1
    with caplog.at_level(logging.WARNING):
        sink.deliver([piece()])
    assert [record.message for record in caplog.records] == ["the collector did not take every span"]
    assert len(collector.requests()) == 1


def test_the_check_posts_nothing_and_is_taken(collector: FakeCollector, sink: OTLP) -> None:
    assert sink.check() == collector.url + PATH
    assert collector.spans == []


def test_a_refusal_shows_no_key(collector: FakeCollector, sink: OTLP) -> None:
    collector.instead = (401, {"X-Said": "collector-key-1"})
    with pytest.raises(Unavailable) as caught:
        sink.deliver([piece()])
    assert "collector-key-1" not in str(caught.value)
