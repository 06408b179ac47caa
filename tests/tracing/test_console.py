"""One log line a call, without what was asked and said."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from gateway.core.calls import Outcome
from gateway.errors import ProviderFailed
from gateway.tracing.console import Console
from tests.builders import attempt, call, delta, finish, tracer

PROMPT, ANSWER = "the-prompt-nobody-may-read", "the-answer-nobody-may-read"


def logged(caplog: pytest.LogCaptureFixture, *, error: ProviderFailed | None = None, **call_fields: Any) -> Any:
    """The one record of a call that was traced to the console."""
    tried = attempt()
    tried.started_s, tried.first_content_s, tried.ended_s = 1000.0, 1000.25, 1001.0
    tried.error = error
    if error is None:
        for chunk in (delta(ANSWER), finish(), {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}):
            tried.transcript.add(chunk)
    trace = tracer(Console()).start(call("gpt-test", PROMPT, started_s=999.5, **call_fields))
    trace.begin()
    with caplog.at_level(logging.INFO, "gateway.trace"):
        trace.finish(Outcome(200 if error is None else 502, (tried,), ended_s=1001.0, error=error))
    [record] = [one for one in caplog.records if one.name == "gateway.trace"]
    return record


def test_the_line_says_what_became_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    record = logged(caplog, tags=("a",), client_request_id="mine")
    assert record.getMessage() == "chat gpt-test"
    assert record.levelno == logging.INFO
    fields = record.fields
    assert (fields["duration_ms"], fields["time_to_first_token_ms"]) == (1500.0, 250.0)
    assert "time_to_first_token_s" not in fields, "once is enough"
    assert (fields["status"], fields["caller"], fields["tags"]) == (200, "tok_12345678", ["a"])
    assert fields["usage"]["prompt_tokens"] == 3
    assert fields["client_request_id"] == "mine"
    assert len(fields["trace"]) == 32


def test_a_failure_is_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    fields = logged(caplog, error=ProviderFailed("down", provider="openai")).fields
    assert (fields["error"], fields["error_code"], fields["status"]) == ("down", "provider_error", 502)
    assert "time_to_first_token_ms" in fields


def test_no_prompt_and_no_answer_is_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    record = logged(
        caplog,
        body={
            "messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": [{"text": PROMPT}]}],
            "user": PROMPT,
            "tools": [{"type": "function", "function": {"description": PROMPT}}],
            PROMPT: PROMPT,
        },
    )
    shown = repr(record.__dict__)
    assert PROMPT not in shown
    assert ANSWER not in shown


def test_what_a_caller_sends_cannot_make_the_line_endless(caplog: pytest.LogCaptureFixture) -> None:
    record = logged(caplog, body={"metadata": {"note": "a word " * 100_000}})
    assert len(repr(record.fields)) < 10_000


def test_a_refused_request_is_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    trace = tracer(Console()).start(call("nope", PROMPT))
    trace.begin()
    with caplog.at_level(logging.INFO, "gateway.trace"):
        trace.finish(Outcome(404, (), ended_s=1001.0))
    assert "chat nope" in caplog.text
    assert PROMPT not in repr([record.__dict__ for record in caplog.records])


def test_starting_and_closing_it_does_nothing() -> None:
    console = Console()
    console.start()
    console.close(0.0)
