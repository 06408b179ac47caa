"""From what happened on the wire to the error that the caller is told."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseError

from gateway.core.calls import Cancellation
from gateway.core.redaction import REDACTED, Redactor
from gateway.core.trying import REFUSED, whose
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedKey,
    ProviderTimeout,
    ProviderUnreachable,
    ShuttingDown,
)
from gateway.upstream.exchange import Exchange, Fault
from gateway.upstream.failures import REFUSALS, Failures

OWN_KEY = "a-key-without-any-shape-of-one-000"
CREDENTIAL = "sk-" + "a1B2c3D4" * 4
FAILURES = Failures(Redactor([OWN_KEY]))


def exchange(status: int | None = None, body: Any = None, *, fault: str | None = None, **headers: str) -> Exchange:
    """What an attempt did: it sent, and this came back."""
    made = Exchange(host="x", stream=False, head_s=1, idle_s=1)
    made.sent.add(("POST", "x/v1/chat/completions"))
    made.status = status
    made.headers = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    made.body = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    made.fault = Fault(fault, "detail") if fault else None
    return made


def said(*args: Any, **more: Any) -> GatewayError:
    return FAILURES.of("openai", exchange(*args, **more), Cancellation())


OPENAI = {"error": {"message": "bad n", "type": "invalid_request_error", "param": "n", "code": "too_big"}}


@pytest.mark.parametrize(
    ("status", "kind", "public_status"),
    [
        (400, ProviderRefused, 400),
        (402, ProviderRefused, 402),
        (404, ProviderRefused, 404),
        (409, ProviderRefused, 409),
        (413, ProviderRefused, 413),
        (422, ProviderRefused, 422),
        (401, ProviderRejectedKey, 502),
        (403, ProviderRejectedKey, 502),
        (407, ProviderRejectedKey, 502),
        (408, ProviderTimeout, 504),
        (429, ProviderLimited, 429),
        (500, ProviderFailed, 500),
        (502, ProviderFailed, 502),
        (503, ProviderFailed, 503),
        (529, ProviderFailed, 529),
        (599, ProviderFailed, 599),
        (600, ProviderFailed, 502),
        (999, ProviderFailed, 502),
    ],
)
def test_a_status_decides_the_class(status: int, kind: type[GatewayError], public_status: int) -> None:
    error = said(status, OPENAI)
    assert type(error) is kind
    assert error.http_status == public_status
    assert error.elsewhere == (status not in (400, 402, 404, 409, 413, 422))
    assert (error.source, error.provider) == ("provider", "openai")


def test_the_providers_own_words_pass() -> None:
    error = said(400, OPENAI)
    assert (error.message, error.public_type, error.param, error.public_code) == (
        "bad n",
        "invalid_request_error",
        "n",
        "too_big",
    )


def test_a_rejected_key_is_the_gateways_matter_and_not_worth_a_retry() -> None:
    error = said(401, {"error": {"message": "Incorrect API key", "code": "invalid_api_key", "type": "auth"}})
    assert error.message == "openai rejected this gateway's credential: Incorrect API key"
    assert (error.public_code, error.public_type) == ("provider_rejected_key", "api_error")
    assert error.should_retry is False


@pytest.mark.parametrize("value", ["7", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_retry_after_passes(value: str) -> None:
    assert said(429, OPENAI, Retry_After=value).retry_after == value
    assert said(503, OPENAI, Retry_After=value).retry_after == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "an object"}}, "an object"),
        ({"error": "a text"}, "a text"),
        ({"message": "at the top"}, "at the top"),
        ({"detail": "FastAPI"}, "FastAPI"),
        ([{"error": {"message": "Google", "code": 400, "status": "INVALID_ARGUMENT"}}], "Google"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Anthropic"}}, "Anthropic"),
        (b"<html><h1>Bad Gateway</h1></html>", None),
        (b"plain text", None),
        (b"", None),
        (None, None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        ([], None),
        ([1], None),
        (1, None),
        ({"error": {"message": {"deep": 1}}}, None),
        ({"error": {"message": ""}}, None),
        ({"error": None}, None),
        ({"detail": [{"loc": ["body"]}]}, None),
    ],
)
def test_the_sentence_of_an_error_is_found_in_every_shape(body: Any, message: str | None) -> None:
    assert said(500, body).message == (message or "openai answered with status 500.")


def test_fields_that_are_no_text_are_left_out() -> None:
    error = said(400, {"error": {"message": "m", "code": 400, "type": ["x"], "param": {}}})
    assert (error.public_code, error.public_type, error.param) == (None, "invalid_request_error", None)


# Credentials.


@pytest.mark.parametrize("secret", [CREDENTIAL, OWN_KEY])
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_credential_that_the_provider_repeats_is_taken_out(status: int, secret: str) -> None:
    error = said(status, {"error": {"message": f"Incorrect API key provided: {secret}."}})
    assert secret not in error.message
    assert REDACTED in error.message


@pytest.mark.parametrize("field", ["code", "type", "param"])
def test_no_field_of_a_providers_error_carries_a_credential(field: str) -> None:
    body = {"error": {"message": "m", field: f"x {OWN_KEY} {CREDENTIAL}"}}
    for error in (said(400, body), said(200, body), FAILURES.reported("openai", body["error"])):
        shown = f"{error.message} {error.public_code} {error.public_type} {error.param}"
        assert OWN_KEY not in shown
        assert CREDENTIAL not in shown


def test_a_credential_at_the_end_of_a_long_message_is_not_cut_into_a_piece_that_stays() -> None:
    error = said(400, {"error": {"message": "x" * 3980 + OWN_KEY}})
    assert OWN_KEY[:12] not in error.message


def test_an_endless_message_is_cut() -> None:
    assert len(said(400, {"error": {"message": "x" * 100_000}}).message) <= 4000


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"code": "server_error"}, ProviderFailed),
        ({"type": "overloaded_error"}, ProviderFailed),
        ({"code": 500}, ProviderFailed),
        ({"code": ["invalid_prompt"]}, ProviderFailed),
        ({"code": 429}, ProviderLimited),
        ({"status_code": 429}, ProviderLimited),
        ({"code": "rate_limit_exceeded", "type": "invalid_request_error"}, ProviderLimited),
        ({"type": "rate_limit_error"}, ProviderLimited),
        ({"code": "invalid_prompt"}, ProviderRefused),
        ({"code": "context_length_exceeded", "type": "invalid_request_error"}, ProviderRefused),
        ({"type": "invalid_request_error"}, ProviderRefused),
    ],
)
def test_an_error_without_a_status_is_told_by_its_own_words(fields: dict[str, Any], kind: type[GatewayError]) -> None:
    error = FAILURES.reported("openai", {"message": "m", **fields})
    assert type(error) is kind
    assert error.http_status == {ProviderFailed: 502, ProviderLimited: 429, ProviderRefused: 400}[kind]
    assert error.elsewhere == (kind is not ProviderRefused)
    assert error.message == "m"


def test_every_code_of_a_response_that_failed_has_its_place() -> None:
    known = set(get_args(ResponseError.model_fields["code"].annotation))
    providers = {"server_error", "rate_limit_exceeded", "vector_store_timeout", "data_residency_mismatch"}
    assert known - providers == REFUSALS - {"context_length_exceeded"}, "new in the SDK, or gone from it"


# Faults.


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("connect", ProviderUnreachable, "provider_unreachable"),
        ("connect_timeout", ProviderUnreachable, "provider_unreachable"),
        ("reset", ProviderUnreachable, "provider_unreachable"),
        ("read_timeout", ProviderTimeout, "provider_timeout"),
        ("redirect", ProviderInvalid, "provider_invalid_response"),
        ("not_sse", ProviderInvalid, "provider_invalid_response"),
        ("too_large", ProviderInvalid, "provider_invalid_response"),
        ("encoding", ProviderInvalid, "provider_invalid_response"),
        ("repeated", ProviderInvalid, "provider_invalid_response"),
        ("something new", ProviderUnreachable, "provider_unreachable"),
    ],
)
def test_a_fault_of_the_wire_decides_the_class(fault: str, kind: type[GatewayError], code: str) -> None:
    error = said(fault=fault)
    assert type(error) is kind
    assert error.public_code == code
    assert error.http_status in (502, 504)
    assert error.elsewhere
    assert "detail" not in error.message


def test_an_error_in_json_where_a_stream_was_asked_for_is_the_providers_own() -> None:
    error = said(200, {"error": {"message": "no such model", "code": "model_not_found"}}, fault="not_sse")
    assert (type(error), error.message, error.public_code) == (ProviderFailed, "no such model", "model_not_found")


def test_a_status_counts_more_than_a_second_try_that_was_refused() -> None:
    assert type(said(400, OPENAI, fault="repeated")) is ProviderRefused


def test_an_image_that_nobody_fetches_is_the_callers_matter() -> None:
    error = FAILURES.of("anthropic", exchange(fault="host"), Cancellation())
    assert type(error) is InvalidRequest
    assert (error.http_status, error.public_code, error.param) == (400, "url_not_fetched", "messages")
    assert "data URLs" in error.message


# Nothing wrong on the wire.


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", {"choices": []}, {"choices": None}, [], "text"])
def test_an_answer_that_is_none_is_a_failure(body: Any) -> None:
    error = said(200, body)
    assert type(error) is ProviderInvalid
    assert error.message == "openai sent an answer that cannot be read."


def test_an_error_in_an_answer_with_200_is_the_providers_own() -> None:
    error = said(200, {"error": {"message": "out of credit", "code": 429}})
    assert (type(error), error.message) == (ProviderLimited, "out of credit")


# Before anything was sent.


class FromLiteLLM(Exception):
    def __init__(self, status_code: int | None) -> None:
        super().__init__(f"litellm.X: {CREDENTIAL} Traceback (most recent call last)")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (FromLiteLLM(400), InvalidRequest, "unsupported"),
        (FromLiteLLM(404), InvalidRequest, "unsupported"),
        (FromLiteLLM(422), InvalidRequest, "unsupported"),
        (FromLiteLLM(401), ProviderRejectedKey, "provider_rejected_key"),
        (FromLiteLLM(403), ProviderRejectedKey, "provider_rejected_key"),
        (FromLiteLLM(500), InvalidRequest, "unsupported"),
        (FromLiteLLM(None), InvalidRequest, "unsupported"),
        (ValueError("boom"), InvalidRequest, "unsupported"),
        (None, InvalidRequest, "unsupported"),
    ],
)
def test_of_litellms_exceptions_only_the_status_is_believed(
    raised: Exception | None, kind: type[GatewayError], code: str
) -> None:
    unsent = exchange()
    unsent.sent.clear()
    error = FAILURES.of("groq", unsent, Cancellation(), raised)
    assert (type(error), error.public_code, error.provider) == (kind, code, "groq")
    assert not {"litellm", "Traceback", "sk-", "boom"} & set(error.message.split())


def test_once_something_was_sent_litellms_exception_counts_for_nothing() -> None:
    error = FAILURES.of("openai", exchange(200, b"{}"), Cancellation(), FromLiteLLM(401))
    assert type(error) is ProviderInvalid


# A call that was stopped.


@pytest.mark.parametrize(
    ("reason", "kind", "status"),
    [("caller_gone", CallerGone, 499), ("deadline", DeadlineExceeded, 504), ("shutting_down", ShuttingDown, 503)],
)
def test_a_stopped_call_fails_as_its_reason_says_whatever_the_wire_did(
    reason: str, kind: type[GatewayError], status: int
) -> None:
    cancellation = Cancellation()
    cancellation.abort(reason)
    for facts in (exchange(fault="aborted"), exchange(500, OPENAI), exchange(fault="reset")):
        error = FAILURES.of("openai", facts, cancellation)
        assert (type(error), error.http_status) == (kind, status)
        assert not error.elsewhere


# Whatever a provider sends.


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "detail", "code", "type", "param"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(st.integers(100, 999), json_values)
def test_every_answer_is_some_error_with_a_sentence(status: int, body: Any) -> None:
    error = said(status, body)
    assert isinstance(error.message, str)
    assert error.message
    assert 400 <= error.http_status <= 599
    for field in (error.param, error.public_code, error.public_type):
        assert field is None or isinstance(field, str)


@pytest.mark.parametrize(
    "error",
    [
        {"code": 403, "message": "Your chosen model requires moderation and your input was flagged for x."},
        {"code": "content_policy_violation", "message": "no"},
        {"code": "moderation_blocked", "message": "no"},
        {"code": None, "message": "The prompt was blocked by the content filter."},
    ],
    ids=repr,
)
def test_a_prompt_that_is_moderated_away_with_a_403_is_the_callers_and_no_failure_of_the_deployment(error: Any) -> None:
    failed = said(403, {"error": error})
    assert isinstance(failed, ProviderRefused)
    assert (failed.http_status, failed.message) == (403, error["message"])
    assert whose(failed) == REFUSED


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("field", ["code", "status_code"])
def test_a_request_that_is_found_at_fault_inside_a_stream_is_the_callers(field: str, status: int) -> None:
    failed = FAILURES.reported("hosted_vllm", {"message": "no", "type": "BadRequestError", field: status})
    assert type(failed) is ProviderRefused
    assert not failed.elsewhere


@pytest.mark.parametrize("code", [True, 500, 502, "400", None, [400], 4e2 + 0.5])
def test_any_other_code_inside_a_stream_is_the_providers_failure(code: Any) -> None:
    assert type(FAILURES.reported("hosted_vllm", {"message": "no", "code": code})) is ProviderFailed
