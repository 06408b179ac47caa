"""Who may what: every route for every kind of caller, models, operations, parents, and what a trace says of it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from gateway import web
from gateway.app import create_app
from gateway.auth import Authenticator
from gateway.auth.tokens import StaticTokens
from gateway.core.calls import Caller
from gateway.core.operations import KNOWN, PUBLIC
from gateway.core.rights import ADMIN, CALL, METRICS, Rights
from gateway.core.routing import Alias, Reach, Target
from gateway.errors import StoreUnavailable
from gateway.secret import Secret
from tests.builders import TOKEN, Recorder, Script, catalogue, gateway, says

ADMIN_TOKEN = "the-admin-token-of-these-tests"
CHAT = "/v1/chat/completions"
MODELS = {
    "gpt-test": {"litellm_provider": "openai", "mode": "chat"},
    "claude-test": {"litellm_provider": "anthropic", "mode": "chat"},
}

RIGHTS = {
    "all": Rights(),
    "openai": Rights(models=("openai/*",)),
    "bare": Rights(models=("gpt-*", "fast")),
    "no-models": Rights(models=()),
    "chat": Rights(endpoints=("chat",)),
    "responses": Rights(endpoints=("responses",)),
    "metrics": Rights(frozenset({METRICS})),
    "admin": Rights(frozenset({ADMIN, CALL})),
    "nothing": Rights(frozenset()),
    "parents": Rights(parents=("project_name:team-*",)),
}


class Named:
    """Knows callers by the name of their rights."""

    def verify(self, credential: bytes) -> Caller | None:
        name = credential.decode("latin-1")
        if name == "away":
            raise StoreUnavailable("Keys cannot be looked up at the moment.")
        if name not in RIGHTS:
            return None
        owners = {"key_id": name, "key_name": f"key of {name}", "project": "team", "user": "ann"}
        return Caller(f"key_{name}", f"proj_{name}", "key", RIGHTS[name], tags=("of-key",), **owners)


class Served:
    """An app whose callers have the rights that they name, with one alias and one view for admins."""

    def __init__(self) -> None:
        self.traced = Recorder()
        self.script = Script([says("hello")])
        self.gateway = gateway(self.script, self.traced)
        self.gateway.catalogue = dataclasses.replace(
            catalogue("openai", "anthropic", models=MODELS),
            aliases={"fast": Alias((Target("openai", "gpt-test", Reach(Secret("key-of-fast"))),))},
        )
        self.gateway.authenticator = Authenticator(
            [StaticTokens([Secret(ADMIN_TOKEN)], admin=True), StaticTokens([Secret(TOKEN)]), Named()]
        )
        self.app = create_app(gateway=self.gateway)
        self.app.add_url_rule("/managed", "managed", web.require(ADMIN)(lambda: "managed"))
        self.client: FlaskClient = self.app.test_client()

    def ask(self, key: str, model: str = "openai/m", path: str = CHAT, **headers: str) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "input": "hi"}
        return self.client.post(path, json=body, headers={"Authorization": f"Bearer {key}", **headers})

    def models(self, key: str) -> list[str]:
        answer = self.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
        return [model["id"] for model in answer.json["data"]]  # type: ignore[index]


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.gateway.close(0.1)


# Every route.

FOR_ALL = {"/", "/health", "/health/liveness", "/health/liveliness", "/health/readiness"}
FOR_ALL_KNOWN = {"/v1/me", "/me", "/openapi.json"}


def needed(rule: str) -> str:
    """What a route wants. A route that is not named here is for calls, and a new one must be."""
    if rule in FOR_ALL:
        return PUBLIC
    return KNOWN if rule in FOR_ALL_KNOWN else {"/metrics": METRICS, "/managed": ADMIN}.get(rule, CALL)


@pytest.mark.parametrize(
    ("key", "scopes"),
    [
        ("", None),
        ("unknown", None),
        (TOKEN, {CALL, METRICS}),
        (ADMIN_TOKEN, {ADMIN, METRICS}),
        *((name, set(rights.scopes)) for name, rights in RIGHTS.items()),
    ],
    ids=lambda one: str(sorted(one) if isinstance(one, set | frozenset) else one)[:10],
)
def test_every_route_is_open_to_those_alone_who_have_its_scope(
    served: Served, key: str, scopes: set[str] | None
) -> None:
    surprises = []
    for rule in served.app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            path = rule.rule.replace("<id>", "resp_1").replace("<path:name>", "openai/m")
            answer = served.client.open(path, method=method, headers={"x-api-key": key} if key else {})
            scope = needed(rule.rule)
            if scope == PUBLIC:
                expected = answer.status_code == 200
            elif scopes is None:
                expected = answer.status_code == 401
            elif scope != KNOWN and scope not in scopes:
                expected = answer.status_code == 403 and answer.json["error"]["code"] == "not_permitted"
            else:
                expected = answer.status_code != 401 and "not_permitted" not in answer.text
            if not expected:
                surprises.append((rule.rule, method, answer.status_code))
    assert surprises == []


def test_where_nothing_is_everybody_who_is_known_is_told_so(served: Served) -> None:
    for key in (TOKEN, ADMIN_TOKEN, "nothing"):
        assert served.client.get("/v1/nope", headers={"api-key": key}).status_code == 404


class Unread(io.BytesIO):
    """A body that counts how often it is read."""

    read_from = 0

    def read(self, size: int | None = -1) -> bytes:
        self.read_from += 1
        return super().read(size)


@pytest.mark.parametrize(("key", "status"), [("unknown", 401), ("nothing", 403), ("responses", 403), ("away", 503)])
def test_who_may_not_has_no_byte_read(served: Served, key: str, status: int) -> None:
    body = Unread(b'{"model":1}')
    answer = served.client.post(CHAT, input_stream=body, content_length=11, headers={"api-key": key})
    assert answer.status_code == status
    assert body.read_from == 0


def test_while_nobody_can_be_known_it_is_worth_a_retry(served: Served) -> None:
    answer = served.ask("away")
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "store_unavailable")
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["Retry-After"] == "1"


# Models.


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        ("all", "anthropic/m", 200),
        (TOKEN, "anthropic/m", 200),
        ("openai", "openai/m", 200),
        ("openai", " openai/m ", 200),
        ("openai", "gpt-test", 200),
        ("openai", "anthropic/m", 403),
        ("openai", "claude-test", 403),
        ("openai", "OPENAI/m", 403),
        ("openai", "fast", 403),
        ("openai", "nobody/m", 403),
        ("openai", "x" * 5000, 403),
        ("bare", "gpt-test", 200),
        ("bare", "fast", 200),
        ("bare", "openai/gpt-test", 403),
        ("all", "nobody/x", 404),
        ("no-models", "openai/m", 403),
        ("no-models", "fast", 403),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_calls_the_models_that_it_lists(served: Served, key: str, model: str, status: int, stream: bool) -> None:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    answer = served.client.post(CHAT, json=body, headers={"api-key": key})
    assert answer.status_code == status
    assert bool(served.script.opened) is (status == 200)
    if status == 403:
        error = answer.json["error"]  # type: ignore[index]
        assert (error["code"], error["type"], error["param"]) == ("model_not_allowed", "permission_error", "model")


def test_a_refusal_is_told_in_the_callers_dialect(served: Served) -> None:
    answer = served.ask("openai", "anthropic/m", "/v1/messages")
    assert answer.status_code == 403
    assert (answer.json["type"], answer.json["error"]["type"]) == ("error", "permission_error")
    assert answer.json["error"]["code"] == "model_not_allowed"


def test_the_list_of_models_has_those_that_a_key_may_call(served: Served) -> None:
    everything = ["fast", "gpt-test", "claude-test"]
    assert [name for name in served.models(TOKEN) if name != "demo/echo"] == everything
    assert [name for name in served.models("all") if name != "demo/echo"] == everything
    assert served.models("openai") == ["gpt-test"]
    assert served.models("bare") == ["fast", "gpt-test"]
    assert served.models("no-models") == []
    assert served.models("chat") == served.models("all"), "who may call anything at all may ask"


def test_one_model_is_shown_to_those_who_may_call_it(served: Served) -> None:
    shown = {
        name: served.client.get(f"/v1/models/{name}", headers={"api-key": "openai"}).status_code
        for name in ("gpt-test", "openai/any", "anthropic/any", "fast", "nobody/x")
    }
    assert shown == {"gpt-test": 200, "openai/any": 200, "anthropic/any": 403, "fast": 403, "nobody/x": 403}


# Operations.


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        ("chat", CHAT, 200),
        ("chat", "/chat/completions", 200),
        ("chat", "/v1/messages", 403),
        ("chat", "/v1/embeddings", 403),
        ("responses", CHAT, 403),
        ("all", CHAT, 200),
    ],
)
def test_a_key_asks_for_the_operations_that_it_lists(served: Served, key: str, path: str, status: int) -> None:
    answer = served.ask(key, path=path)
    assert answer.status_code == status
    if status == 403:
        assert answer.json["error"]["code"] == "endpoint_not_allowed"


def test_an_operation_covers_those_below_it(served: Served) -> None:
    for path, method in (("/v1/responses/resp_1", "GET"), ("/v1/responses/resp_1/cancel", "POST")):
        answered = {
            key: served.client.open(path, method=method, headers={"api-key": key}).status_code
            for key in ("responses", "chat")
        }
        assert answered == {"responses": 404, "chat": 403}


# Traces.


def test_the_trace_of_a_call_says_whose_key_it_was(served: Served) -> None:
    served.ask("all", **{"x-gateway-tags": "of-call, of-key"})
    root = served.traced.roots[-1]
    assert root["tags"] == ["of-key", "of-call"]
    assert (
        root["metadata"].items()
        >= {
            "caller": "key_all",
            "key_id": "all",
            "key_name": "key of all",
            "caller_project": "team",
            "caller_user": "ann",
        }.items()
    )


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"key": "openai", "model": "anthropic/m"}, "model_not_allowed"),
        ({"key": "responses"}, "endpoint_not_allowed"),
        ({"key": "nothing"}, "not_permitted"),
    ],
)
def test_what_a_key_may_not_is_traced_once_with_whose_it_is(served: Served, ask: Any, code: str) -> None:
    answer = served.ask(**ask)
    assert answer.status_code == 403
    assert "x-bt-span-id" in answer.headers
    [root] = served.traced.roots
    assert root["metadata"]["error_code"] == code
    assert root["metadata"]["status"] == 403
    assert root["metadata"]["key_id"] == ask["key"]
    assert root["tags"] == ["of-key"]
    assert answer.json["error"]["message"] == root["error"]


@pytest.mark.parametrize(
    ("key", "project", "followed"),
    [
        (TOKEN, "any", True),
        ("parents", "team-a", True),
        ("parents", "other", False),
        ("all", "team-a", False),
    ],
)
def test_a_key_hangs_its_traces_where_it_may_and_else_the_call_goes_on(
    served: Served, key: str, project: str, followed: bool
) -> None:
    assert served.ask(key, **{"x-bt-parent": f"project_name:{project}"}).status_code == 200
    parent = served.traced.parents[-1]
    assert (parent.object_name if parent else None) == (project if followed else None)
    note = served.traced.roots[-1]["metadata"].get("ignored_parent")
    assert note == (None if followed else "this key may not choose that parent")


def test_a_refused_request_hangs_nowhere_that_its_key_may_not(served: Served) -> None:
    for key, expected in (("parents", None), (TOKEN, "other")):
        served.client.post(CHAT, data=b"{", headers={"api-key": key, "x-bt-parent": "project_name:other"})
        parent = served.traced.parents[-1]
        assert (parent.object_name if parent else None) == expected
