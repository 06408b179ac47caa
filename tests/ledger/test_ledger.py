"""The entry of a call: noted when its attempts are planned, written when it has ended, traced or not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gateway.core.calls import Call, Caller, Chunk, Parent
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.core.rights import Rights
from gateway.core.routing import Alias, Reach, Target
from gateway.errors import GatewayError, ModelNotAllowed, ModelNotFound, ProviderTimeout, TraceBackpressure
from gateway.ledger import Ledger
from gateway.pipeline import Gateway
from gateway.secret import Secret
from tests.builders import ROLE, Recorder, Script, call, delta, gateway, says, tracer

JSON = dict[str, Any]

_USD = {"litellm_provider": "openai", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
PRICES: JSON = {"openai/gpt-test": _USD}


class Book(Recorder):
    """A sink that keeps rows, or will not."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self._fault = fault

    def begin(self, row: JSON, parent: Parent | None, body_bytes: int) -> None:
        if self._fault is not None:
            raise self._fault
        super().begin(row, parent, body_bytes)


_made: list[Gateway] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close(0.1)


def noted(
    *scripts: Any, book: Book | None = None, sink: Recorder | None = None, secret: str = ""
) -> tuple[Gateway, Book]:
    """A gateway whose provider plays these scripts, and its book."""
    book = book or Book()
    made = gateway(Script(list(scripts)), prices=PRICES)
    made.tracer = tracer(*([sink] if sink else []), prices=PRICES)
    redactor = Redactor([secret] if secret else [])
    made.ledger = Ledger(book, None, Meter(Prices(PRICES)), redactor)
    made.open()
    _made.append(made)
    return made, book


def facts(book: Book) -> JSON:
    [root] = book.roots
    found: JSON = root["metadata"]
    return found


def test_a_call_is_noted_with_its_plan_and_then_with_what_it_cost() -> None:
    made, book = noted(says("a", "b"))
    asked = call("openai/gpt-test")
    made.run(asked)
    [begun] = book.begun
    assert begun["id"] == asked.id
    assert begun["metadata"]["open"] is True
    assert begun["metadata"]["planned"] == ["openai/gpt-test"]
    assert "end" not in begun["metrics"]
    found = facts(book)
    assert "open" not in found
    assert (found["status"], found["deployment"], found["attempts"]) == (200, "openai/gpt-test", 1)
    assert (found["prompt_tokens"], found["completion_tokens"]) == (1, 2)
    assert found["cost_nano"] == 5_000
    assert Decimal(found["price"][0]["cost_usd"]) == Decimal("0.000005")


def test_a_name_that_many_deployments_share_stands_once_in_the_plan() -> None:
    made, book = noted(says("a"))
    keys = [Reach(api_key=Secret(f"sk-{number}")) for number in range(50)]
    targets = (*(Target("openai", "gpt-test", key) for key in keys), Target("groq", "other", keys[0], order=1))
    made.catalogue = replace(made.catalogue, aliases={"fast": Alias(targets)})
    made.run(call("fast"))
    for found in (book.begun[0]["metadata"], facts(book)):
        assert found["planned"] == ["openai/gpt-test", "groq/other"]


def test_it_is_written_before_a_stream_says_that_it_is_over() -> None:
    made, book = noted(says("a"))
    reply = made.run(call("openai/gpt-test", stream=True))
    for _ in reply:
        assert not book.traces
    assert facts(book)["stream"] is True
    reply.close()
    assert len(book.traces) == 1


def test_a_call_without_a_trace_is_in_the_ledger_all_the_same() -> None:
    sink = Recorder()
    made, book = noted(says("a"), sink=sink)
    made.run(call("openai/gpt-test", recorded="off"))
    assert (sink.begun, sink.traces) == ([], [])
    assert facts(book)["cost_nano"] == 3_000


def test_a_call_that_failed_is_there_with_its_code() -> None:
    made, book = noted([ProviderTimeout("late")])
    with pytest.raises(ProviderTimeout) as caught:
        made.run(call("openai/gpt-test"))
    found = facts(book)
    assert (found["status"], found["cost_nano"]) == (caught.value.http_status, 0)
    assert found["error_code"] == (caught.value.public_code or caught.value.public_type)


def test_a_caller_that_leaves_is_charged_for_what_it_got() -> None:
    left = threading.Event()

    def wait(call: Call) -> None:
        call.cancellation.subscribe(left.set)
        assert left.wait(10)

    made, book = noted([ROLE, delta("four"), delta("letters"), wait, *says("never read")])
    reply = made.run(call("openai/gpt-test", text="12345678", stream=True))
    while b"letters" not in (next(reply) or Chunk(b"")).data:
        pass
    reply.close()
    found = facts(book)
    assert (found["caller_gone"], found["estimated"]) == (True, True)
    assert found["cost_nano"] > 0


@pytest.mark.parametrize(
    ("model", "rights", "refusal"),
    [("nobody/knows", None, ModelNotFound), ("openai/gpt-test", Rights(models=("groq/*",)), ModelNotAllowed)],
)
def test_what_is_refused_before_there_is_a_plan_has_no_row(
    model: str, rights: Rights | None, refusal: type[GatewayError]
) -> None:
    made, book = noted(says("a"))
    caller = Caller("tok_a", "tok_a", **({} if rights is None else {"rights": rights}))
    with pytest.raises(refusal):
        made.run(call(model, caller=caller))
    assert (book.begun, book.traces) == ([], [])


def test_a_book_without_room_refuses_the_call_where_the_operator_wants_that() -> None:
    made, book = noted(says("a"), book=Book(TraceBackpressure("full")))
    with pytest.raises(TraceBackpressure):
        made.run(call("openai/gpt-test"))
    assert [trace[-1]["metadata"]["attempts"] for trace in book.traces] == [0]


def test_a_book_that_breaks_is_logged_and_never_felt(caplog: pytest.LogCaptureFixture) -> None:
    made, book = noted(says("a"), book=Book(RuntimeError("broken")))
    with caplog.at_level(logging.ERROR):
        assert made.run(call("openai/gpt-test")).body
    assert "a call could not be announced to the ledger" in caplog.text
    assert facts(book)["status"] == 200


def test_a_credential_that_a_caller_names_does_not_get_there() -> None:
    made, book = noted(says("a"), secret="hunter2-hunter2-hunter2")
    made.run(call("openai/gpt-test", tags=("hunter2-hunter2-hunter2",)))
    assert "hunter2" not in str(book.begun)
    assert "hunter2" not in str(book.traces)


def test_without_a_book_nothing_is_kept_and_nothing_waits() -> None:
    made = gateway(Script([says("a")]))
    _made.append(made)
    made.open()
    assert made.run(call("openai/gpt-test")).body
    assert made.ledger.backlogs() == {}
    assert made.ledger.rows is None
