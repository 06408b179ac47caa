"""`POST /v1/preflight`: what would become of a call, and nothing done."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.app import create_app
from gateway.core.calls import Deployment
from gateway.core.policies import Condition, Policy
from gateway.core.routing import Alias, Catalogue, Reach, Target
from gateway.core.transcript import Usage
from gateway.health import Health
from gateway.pipeline import Gateway
from gateway.secret import Secret
from tests.builders import ECHO, TOKEN, Recorder, Script, gateway, says

MESSAGES = [{"role": "user", "content": "x" * 400}]


def target(model: str, **more: Any) -> Target:
    return Target("openai", model, Reach(Secret("canary-key"), "http://canary.example"), **more)


def price(deployment: Deployment, usage: Usage) -> Decimal:
    """So many US dollars a token that it cannot be overlooked."""
    return {"a": 1, "b": 2}.get(deployment.model, 3) * Decimal(usage.prompt + usage.completion)


@pytest.fixture
def made() -> Iterator[Gateway]:
    one = gateway(Script([says("no")]), Recorder())
    one.catalogue = Catalogue(
        models={"openai/a": {"litellm_provider": "openai", "max_output_tokens": 1000}},
        demo=ECHO,
        aliases={
            "m": Alias(
                (
                    target("a"),
                    target("b", abilities={"vision": False}),
                    target("t", condition=Condition(frozenset("t"))),
                ),
                policy=Policy(fallbacks=("n",), context_window_fallbacks=("n",)),
            ),
            "n": Alias((target("c"),)),
            "vectors": Alias((target("e"),), mode="embedding"),
        },
        open=False,
    )
    one.health = Health(price=price)
    yield one
    one.close(0.1)


@pytest.fixture
def client(made: Gateway) -> FlaskClient:
    return create_app(gateway=made).test_client()


def ask(client: FlaskClient, asked: Any, **headers: str) -> TestResponse:
    sent = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.post("/v1/preflight", json=asked, headers=sent)


def told(client: FlaskClient, asked: Any, **headers: str) -> Any:
    answer = ask(client, asked, **headers)
    assert answer.status_code == 200, answer.text
    assert "canary" not in answer.text
    return answer.json


def test_it_says_what_would_be_tried_and_calls_nobody(client: FlaskClient, made: Gateway) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    got = told(client, {"model": "m", "messages": [*MESSAGES, *image], "max_tokens": 50})
    assert (got["object"], got["model"], got["routed_by"], got["needs"]) == ("preflight", "m", "ordered", ["vision"])
    assert [(one["deployment"], one["name"], one["why"]) for one in got["attempts"]] == [
        ("openai/a", "m", "ordered"),
        ("openai/c", "n", "fallback n, ordered"),
    ]
    assert [one["deployment"] for one in got["if_too_long"]] == ["openai/c"]
    assert {(one["name"], one["why"]) for one in got["left_out"]} == {
        ("openai/t", "it is for other calls"),
        ("openai/b", "it has no vision"),
    }
    assert (got["prompt_tokens"], got["most_output_tokens"]) == (100, 50)
    assert got["attempts"][0]["price_usd"] == {"least": 100.0, "most": 150.0}
    assert got["price_usd"] == {"least": 100.0, "most": 450.0}
    assert made.upstreams["litellm"].opened == []  # type: ignore[attr-defined]


def test_the_longest_answer_is_the_models_where_the_caller_sets_no_bound(client: FlaskClient) -> None:
    got = told(client, {"model": "m", "messages": MESSAGES})
    assert got["attempts"][0]["price_usd"] == {"least": 100.0, "most": 1100.0}
    assert got["attempts"][1]["price_usd"] is None
    assert got["price_usd"] is None


def test_tags_of_the_request_count(client: FlaskClient) -> None:
    got = told(client, {"model": "m", "messages": MESSAGES}, x_gateway_tags="t")
    assert [one["deployment"] for one in got["attempts"]][:3] == ["openai/a", "openai/b", "openai/t"]


@pytest.mark.parametrize(
    ("asked", "headers"),
    [
        ({"model": "m", "input": "hi"}, {}),
        ({"model": "vectors", "input": "hi"}, {}),
        ({"model": "m", "prompt": "hi"}, {}),
        ({"model": "m", "messages": MESSAGES, "max_tokens": 5}, {"anthropic_version": "2023-06-01"}),
    ],
)
def test_a_body_of_each_operation_is_taken(client: FlaskClient, asked: Any, headers: dict[str, str]) -> None:
    assert told(client, asked, **headers)["attempts"]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"messages": MESSAGES}, 400, None),
        ({"model": "m"}, 400, None),
        ({"model": "m", "messages": []}, 400, None),
        ({"model": "nobody", "messages": MESSAGES}, 404, "model_not_found"),
    ],
)
def test_what_could_not_be_called_is_refused_alike(
    client: FlaskClient, asked: Any, status: int, code: str | None
) -> None:
    answer = ask(client, asked)
    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]["code"]) == (status, code)


def test_other_rooms_may_tell_their_part(client: FlaskClient, made: Gateway) -> None:
    assert [told(client, {"model": "m", "messages": MESSAGES})[name] for name in ("budget", "limits", "cache")] == [
        None
    ] * 3
    made.previews = {"budget": lambda call, _planned: {"model": call.model, "left_usd": 3}}
    assert told(client, {"model": "m", "messages": MESSAGES})["budget"] == {"model": "m", "left_usd": 3}
