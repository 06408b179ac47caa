"""What others chose of a row is looked through, wherever it stands; the times are those of the call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call, Caller, Outcome
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.core.transcript import ChatTranscript
from gateway.errors import GatewayError, UpstreamError
from gateway.tracing import rows
from gateway.tracing.ids import Ids
from gateway.tracing.rows import RowBuilder
from tests.builders import attempt, call, delta, finish

JSON = dict[str, Any]

CANARY = "sk-canary-0123456789abcdefghij"
REDACTOR = Redactor()


def answered(**fields: Any) -> Attempt:
    tried = attempt()
    for chunk in ({"id": fields.pop("id", "a"), "model": fields.pop("model", "m")}, delta("hi"), finish()):
        tried.transcript.add(chunk)
    for name, value in fields.items():
        setattr(tried, name, value)
    return tried


def lines(made: Call, *tried: Attempt, error: GatewayError | None = None, **fields: Any) -> bytes:
    """All that is written of a call, from its beginning to its end."""
    ids = Ids.new(None)
    outcome = Outcome(status=200, attempts=tried, ended_s=made.started_s + 1, error=error, **fields)
    record = RowBuilder(made, outcome, ids, REDACTOR, Meter(Prices({})), content=True).record({})
    assert [rows.dumps(row) for row in record.rows] == list(record.encoded)
    return b"\n".join([rows.dumps(rows.opening(made, ids, REDACTOR)), *record.encoded])


def _refused() -> GatewayError:
    error = UpstreamError("no", code=CANARY)
    error.refused_by = CANARY
    return error


PLACES: dict[str, Callable[[], bytes]] = {
    "the model": lambda: lines(call(CANARY), answered()),
    "the caller's id of the request": lambda: lines(call(client_request_id=CANARY), answered()),
    "the span above": lambda: lines(call(traceparent=CANARY), answered()),
    "a tag": lambda: lines(call(tags=(CANARY,)), answered()),
    "the key's name": lambda: lines(call(caller=Caller("k", "t", key_name=CANARY)), answered()),
    "the project": lambda: lines(call(caller=Caller("k", "t", project=CANARY)), answered()),
    "the user": lambda: lines(call(caller=Caller("k", "t", user=CANARY)), answered()),
    "a note of the parent": lambda: lines(call(parent_note=CANARY), answered()),
    "a parameter": lambda: lines(call(body={"stop": [CANARY]}), answered()),
    "a parameter's name": lambda: lines(call(body={CANARY: 1}), answered()),
    "the caller's metadata": lambda: lines(call(body={"metadata": {"a": CANARY}}), answered()),
    "a name in the caller's metadata": lambda: lines(call(body={"metadata": {CANARY: "a"}}), answered()),
    "the deployment's model": lambda: lines(call(), attempt(f"openai/{CANARY}")),
    "the model that was served": lambda: lines(call(), answered(model=CANARY)),
    "the answer's id": lambda: lines(call(), answered(id=CANARY)),
    "a finish_reason": lambda: lines(call(), answered(transcript=_ended(CANARY))),
    "a parameter that was dropped": lambda: lines(call(), answered(dropped=[CANARY])),
    "why it was chosen": lambda: lines(call(), answered(why=CANARY)),
    "a code of an error": lambda: lines(call(), answered(), error=_refused()),
    "an attempt's error": lambda: lines(call(), answered(error=UpstreamError(CANARY))),
    "a limit": lambda: lines(call(), answered(), limits=(CANARY,)),
    "a long body's parameter": lambda: lines(call(body={"stop": [CANARY]}, body_bytes=100_000), answered()),
}


def _ended(reason: str) -> ChatTranscript:
    transcript = ChatTranscript()
    transcript.add(delta("hi"))
    transcript.add(finish(reason))
    return transcript


@pytest.mark.parametrize("place", PLACES)
def test_a_credential_is_in_no_row_wherever_it_was_put(place: str) -> None:
    written = PLACES[place]()
    assert CANARY.encode() not in written
    assert b"[redacted]" in written


def test_what_the_caller_calls_a_parameter_takes_no_place_of_the_gateways() -> None:
    made = call(body={"attempt": 7, "usage_estimated": True, "served_model": "mine", "operation": "none"})
    outcome = Outcome(status=200, attempts=[answered()], ended_s=made.started_s + 1)
    builder = RowBuilder(made, outcome, Ids.new(None), REDACTOR, Meter(Prices({})), content=True)
    metadata = builder.record({}).rows[0]["metadata"]
    assert (metadata["attempt"], metadata["operation"], metadata["served_model"]) == (1, "chat", "m")


@pytest.mark.parametrize("at_s", [0.0, 1000.25, 1_795_765_858.7340145, 1_795_765_858.9999998, 1_795_765_859.0])
def test_a_row_was_created_when_its_span_began(at_s: float) -> None:
    created = rows.bare(Ids.new(None), "chat", "task", at_s, None, {})["created"]
    told = datetime.fromisoformat(created)
    assert told.tzinfo == UTC
    assert abs(told.timestamp() - at_s) <= 1e-6
