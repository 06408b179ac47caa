"""What every request has: an id, a caller, errors in the caller's dialect, a line in the log."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from gateway import web
from gateway.app import create_app
from gateway.errors import GatewayError, ProviderLimited, ShuttingDown
from gateway.pipeline import Gateway
from tests.builders import TOKEN, Recorder, Script, gateway, says
from tests.managed import ADMIN_TOKEN, Managed

AUTH = {"Authorization": f"Bearer {TOKEN}"}
HELLO = {"model": "openai/m", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"


class Served:
    """An app over a gateway, its script and its traces."""

    def __init__(self, *scripts: Any, **more: Any) -> None:
        self.traced = Recorder()
        self.script = Script(list(scripts) or [says("hello")])
        self.gateway: Gateway = gateway(self.script, self.traced, **more)
        self.app: Flask = create_app(gateway=self.gateway)
        self.client: FlaskClient = self.app.test_client()

    def raises(self, error: Exception) -> Any:
        """Add a view that raises, and ask it."""

        def view() -> Any:
            raise error

        self.app.add_url_rule("/raises", "raises", web.public(view))
        return self.client.get("/raises")


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.gateway.close(0.1)


@pytest.fixture
def cross() -> Iterator[Served]:
    """Served to the pages of one origin."""
    made = Served(cors_origins=("https://app.example",))
    yield made
    made.gateway.close(0.1)


def only_error(response: Any) -> dict[str, Any]:
    assert response.mimetype == "application/json"
    assert set(response.json) == {"error"}
    error: dict[str, Any] = response.json["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id", "provider", "source"}
    assert error["request_id"] == response.headers["request-id"]
    return error


# Ids.


def test_every_answer_has_an_id_of_ours(served: Served) -> None:
    ids = {served.client.get("/health").headers["request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("req_[0-9a-f]{32}", one) for one in ids)
    response = served.client.get("/health")
    assert response.headers["x-request-id"] == response.headers["request-id"]


def test_the_callers_own_id_is_given_back_and_recorded(served: Served) -> None:
    response = served.client.post(PATH, json=HELLO, headers={**AUTH, "X-Request-Id": "mine-1_2.3"})
    assert response.headers["x-request-id"] == "mine-1_2.3"
    assert response.headers["request-id"] != "mine-1_2.3"
    assert served.traced.roots[0]["metadata"]["client_request_id"] == "mine-1_2.3"
    assert served.traced.roots[0]["metadata"]["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize("sent", ["", "a b", "a/b", "<script>", "x" * 129, "é", "a;b"])
def test_an_id_that_could_do_harm_is_not_given_back(served: Served, sent: str) -> None:
    response = served.client.get("/health", headers={"X-Request-Id": sent})
    assert response.headers["x-request-id"] == response.headers["request-id"]


# Who calls.


def test_without_a_credential_nothing_is_read_and_nobody_is_called(served: Served) -> None:
    body = Unread(b'{"model":1}')
    response = served.client.post(PATH, input_stream=body, content_length=11, content_type="application/json")
    assert response.status_code == 401
    assert only_error(response)["code"] == "invalid_api_key"
    assert body.read_from == 0
    assert served.script.opened == []


class Unread(io.BytesIO):
    """A body that counts how often it is read."""

    read_from = 0

    def read(self, size: int | None = -1) -> bytes:
        self.read_from += 1
        return super().read(size)


def test_every_route_but_the_public_ones_wants_a_credential(served: Served) -> None:
    open_to_all = set()
    for rule in served.app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            response = served.client.open(rule.rule, method=method)
            if response.status_code != 401:
                open_to_all.add(rule.rule)
    assert open_to_all == {"/", "/health", "/health/liveness", "/health/liveliness", "/health/readiness"}


@pytest.mark.parametrize("path", ["/health/../v1/models", "/v1/models/../../health", "//health", "/health/", "/HEALTH"])
def test_the_spelling_of_a_path_opens_nothing(served: Served, path: str) -> None:
    response = served.client.get(path, headers={"X-Original-URL": "/health", "SCRIPT_NAME": "/health"})
    assert response.status_code in (200, 401, 404)
    assert "data" not in (response.json or {})


@pytest.mark.parametrize("path", ["//health", "///health", "//", "//me", "//v1/models", "//openapi.json"])
def test_a_second_slash_in_front_leads_to_nothing_but_calls(served: Served, path: str) -> None:
    own = served.client.get(headers=AUTH, environ_overrides={"PATH_INFO": path})  # the client takes it for a host
    plain = served.client.get("/" + path.lstrip("/"), headers=AUTH)
    assert plain.status_code == 200
    assert own.status_code == (200 if path == "//v1/models" else 404)


def test_a_second_slash_in_front_does_not_lead_past_a_rule_for_admin(tmp_path: Path) -> None:
    managed = Managed(tmp_path)
    managed.gateway.session_key = lambda: bytes(32)
    client = create_app(gateway=managed.gateway).test_client()
    named = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    for path, status in (("/admin/v1/keys", 200), ("/ui/sign-in", 200)):
        assert client.get(path, headers=named).status_code == status
        for more in ("/", "//"):
            odd = client.get(headers=named, environ_overrides={"PATH_INFO": f"{more}{path}"})
            assert odd.status_code == 404
    managed.close()


def test_the_host_header_decides_nothing(served: Served) -> None:
    assert served.client.get("/v1/models", headers={"Host": "health"}).status_code == 401


# Errors.


def test_an_unknown_path_is_told_in_the_callers_dialect(served: Served) -> None:
    response = served.client.get("/v1/nope", headers=AUTH)
    assert response.status_code == 404
    error = only_error(response)
    assert (error["code"], error["type"]) == ("unknown_url", "invalid_request_error")
    assert error["message"] == "Unknown request URL: GET /v1/nope."


@pytest.mark.parametrize(
    ("path", "served_at"),
    [("/v1/v1/chat/completions", "/v1/chat/completions"), ("/v1/v1/messages", "/v1/messages")],
)
def test_a_base_url_with_something_too_much_is_named(served: Served, path: str, served_at: str) -> None:
    response = served.client.post(path, headers=AUTH, json={})
    assert response.status_code == 404
    error = response.json["error"]
    assert f"{path}. {served_at} is served: mend the client's base URL" in error["message"]
    anthropic = served.client.post(path, headers=AUTH | {"anthropic-version": "2023-06-01"}, json={}).json
    assert (anthropic["type"], anthropic["error"]["message"]) == ("error", error["message"])


def test_an_unknown_path_tells_a_stranger_nothing(served: Served) -> None:
    assert served.client.get("/v1/nope").status_code in (401, 404)


def test_a_wrong_method_says_which_are_right(served: Served) -> None:
    response = served.client.get(PATH, headers=AUTH)
    assert response.status_code == 405
    assert only_error(response)["code"] == "method_not_allowed"
    assert "POST" in response.headers["Allow"]
    assert len(response.headers.getlist("Content-Type")) == 1


def test_a_fault_of_ours_is_a_500_that_shows_nothing_and_a_log_line_that_shows_all(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "gateway"):
        response = served.raises(RuntimeError("a secret of the code"))
    assert response.status_code == 500
    error = only_error(response)
    assert error["code"] == "internal_error"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert error["request_id"] in error["message"]
    assert "a secret of the code" in caplog.text
    assert "Traceback" in caplog.text
    assert error["request_id"] in caplog.text


@pytest.mark.parametrize("status", [400, 403, 408, 414, 431])
def test_other_refusals_of_the_framework_are_in_the_callers_dialect(served: Served, status: int) -> None:
    from werkzeug.exceptions import default_exceptions

    response = served.raises(default_exceptions[status]())
    assert response.status_code == status
    assert only_error(response)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("error", "retry_after", "should_retry"),
    [
        (ProviderLimited("x"), "1", None),
        (ProviderLimited("x", retry_after="7"), "7", None),
        (ProviderLimited("x", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (ProviderLimited("x", retry_after="1\r\nX-Evil: 1"), "1", None),
        (ProviderLimited("x", retry_after="9" * 1000), "9" * 64, None),
        (ShuttingDown("x"), "1", "true"),
        (GatewayError("x"), None, None),
    ],
)
def test_what_sdks_obey_is_in_the_headers(
    served: Served, error: GatewayError, retry_after: str | None, should_retry: str | None
) -> None:
    response = served.raises(error)
    assert response.headers.get("Retry-After") == retry_after
    assert response.headers.get("x-should-retry") == should_retry
    assert "X-Evil" not in response.headers


def test_a_provider_that_is_not_set_up_is_not_worth_a_retry(served: Served) -> None:
    response = served.client.post(PATH, json={**HELLO, "model": "groq/x"}, headers=AUTH)
    assert response.status_code == 503
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers
    assert "x-bt-span-id" in response.headers


@pytest.mark.parametrize("message", ["half a pair \ud83d", "\udcff", "zero \x00 and \u2028"])
def test_whatever_a_provider_says_it_is_told_with_its_own_status(served: Served, message: str) -> None:
    response = served.raises(ProviderLimited(message, provider="openai"))
    assert response.status_code == 429
    assert only_error(response)["source"] == "provider"


def test_a_refused_request_is_traced_once(served: Served) -> None:
    served.client.get("/v1/nope", headers=AUTH)
    served.client.post(PATH, data=b"{", headers=AUTH)
    served.client.post(PATH, json={**HELLO, "model": "nobody/x"}, headers=AUTH)
    assert [root["metadata"]["status"] for root in served.traced.roots] == [404, 400, 404]
    assert all(root["metadata"]["caller"].startswith("tok_") for root in served.traced.roots)


# Headers of every answer.


def test_no_answer_may_be_stored_or_sniffed(served: Served) -> None:
    for response in (served.client.get("/health"), served.client.get("/v1/nope"), served.client.get("/v1/models")):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


# Browsers.

ORIGIN = {"Origin": "https://app.example"}


def test_a_page_of_an_allowed_origin_may_read_the_answer(cross: Served) -> None:
    response = cross.client.post(PATH, json=HELLO, headers={**AUTH, **ORIGIN})
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "x-bt-span-id" in response.headers["Access-Control-Expose-Headers"]
    assert "Origin" in response.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in response.headers


def test_a_refusal_can_be_read_too(cross: Served) -> None:
    assert cross.client.post(PATH, headers=ORIGIN).headers["Access-Control-Allow-Origin"] == "https://app.example"


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil", "null", "http://app.example"])
def test_a_page_of_another_origin_may_not(cross: Served, origin: str) -> None:
    response = cross.client.post(PATH, json=HELLO, headers={**AUTH, "Origin": origin})
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"], "a cache must tell the two apart"


def test_without_the_setting_no_page_may(served: Served) -> None:
    response = served.client.get("/health", headers=ORIGIN)
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


def test_a_star_allows_every_origin() -> None:
    made = Served(cors_origins=("*",))
    response = made.client.get("/health", headers={"Origin": "https://any.example"})
    made.gateway.close(0.1)
    assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"


def test_a_browsers_question_is_answered_without_a_credential(cross: Served) -> None:
    asked = {**ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-y"}
    response = cross.client.options(PATH, headers=asked)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, x-y"
    assert cross.traced.traces == []


def test_the_question_of_another_origin_is_answered_with_nothing(cross: Served) -> None:
    response = cross.client.options(PATH, headers={"Origin": "https://evil.example"})
    assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


# The log.


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.name == "gateway.access"]


def test_a_request_is_one_line_without_its_query_and_body(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.access"):
        response = served.client.post(f"{PATH}?key=secret-query", json=HELLO, headers=AUTH)
        response.close()  # as a server does
    [line] = lines(caplog)
    assert (line["method"], line["path"], line["status"], line["model"]) == ("POST", PATH, 200, "openai/m")
    assert line["request_id"] == response.headers["request-id"]
    assert line["caller"].startswith("tok_")
    assert line["duration_ms"] >= 0
    assert "secret-query" not in repr(line)
    assert TOKEN not in repr(line)


def test_a_streams_line_comes_at_its_end(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.access"):
        response = served.client.post(PATH, json={**HELLO, "stream": True}, headers=AUTH, buffered=False)
        parts = response.iter_encoded()
        next(parts)
        assert lines(caplog) == []
        list(parts)
        response.close()
    assert len(lines(caplog)) == 1


def test_a_failure_is_in_the_line(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.access"):
        served.client.post(PATH, json=HELLO).close()
    [line] = lines(caplog)
    assert (line["status"], line["error"]) == (401, "invalid_api_key")


def test_a_model_name_cannot_make_the_line_endless(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.access"):
        served.client.post(PATH, json={**HELLO, "model": "x" * 10_000}, headers=AUTH).close()
        served.client.get("/" + "y" * 5000, headers=AUTH).close()
    assert len(lines(caplog)) == 2
    assert all(len(repr(line)) < 1500 for line in lines(caplog))


# Responses of ours.


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reply_is_the_response_that_the_framework_would_have_made(served: Served, method: str) -> None:
    closed: list[bool] = []
    answers = []
    for response in (
        web.ReplyResponse(b'{"a":1}', {"X-A": "1"}, "application/json"),
        Response(b'{"a":1}', headers={"X-A": "1"}, mimetype="application/json"),
    ):
        with served.app.test_request_context("/health", method=method) as context:
            response.call_on_close(lambda: closed.append(True))
            taken: list[Any] = []
            sent = response(context.request.environ, lambda *head, taken=taken: taken.extend(head))
            body = b"".join(sent)
            sent.close()  # type: ignore[attr-defined]
            answers.append((taken[0], sorted(taken[1]), body, response.status, response.status_code, response.json))
    assert answers[0] == answers[1]
    assert closed == [True, True]
