"""What goes by a client that puts its requests as it put the first one, beside what the SDK makes of the same."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from gateway.errors import GatewayError, ProviderLimited, ProviderRefused
from gateway.tracing.catcher import Catcher, Held
from gateway.upstream import litellmclient
from gateway.upstream.door import Door
from gateway.upstream.litellm import LiteLLM
from tests.builders import attempt, call
from tests.fakes.provider import (
    FakeProvider,
    Reply,
    answer,
    drop,
    error,
    plain_json,
    raw,
    redirect,
)
from tests.upstream.conftest import OWN_KEY

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
#: Of each request by itself.
_OWN_LENGTH = "content-length"


class Asking:
    """Asks for chats of one deployment; counts the requests that the SDK builds."""

    def __init__(self, upstream: LiteLLM, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
        self.upstream = upstream
        self.provider = provider
        self.catcher = Catcher()
        self.catcher.install()
        self.built = 0
        build = openai.OpenAI._build_request

        def counted(client: Any, *arguments: Any, **more: Any) -> Any:
            self.built += 1
            return build(client, *arguments, **more)

        monkeypatch.setattr(openai.OpenAI, "_build_request", counted)

    def ask(self, *, stream: bool, model: str = "m", key: str = OWN_KEY, **fields: Any) -> tuple[bytes, dict[str, Any]]:
        """Ask once; give what the caller gets, and Braintrust's span."""
        held = Held("row", "0" * 16, "1" * 32)
        tried = attempt(f"openai/{model}", api_base=self.provider.base_url, api_key=key)
        with self.catcher.holding(held):
            opened = self.upstream.open(tried, call(f"openai/{model}", stream=stream, **fields))
        try:
            got = b"".join(chunk.data for chunk in opened.chunks() if chunk and chunk.data) if stream else opened.body
        finally:
            opened.close()
        [row] = held.rows.values()
        return got, row


@pytest.fixture
def asking(loaded: LiteLLM, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> Asking:
    return Asking(loaded, provider, monkeypatch)


@BOTH
def test_a_second_request_is_put_as_the_first_one_and_the_sdk_has_no_part_in_it(asking: Asking, stream: bool) -> None:
    for _ in range(3):
        asking.ask(stream=stream)
    assert asking.built == 1
    [first, *others] = asking.provider.requests()
    for other in others:
        assert (other.method, other.path, other.headers, other.raw) == (
            first.method, first.path, first.headers, first.raw
        )  # fmt: skip
    assert first.headers["authorization"] == f"Bearer {OWN_KEY}"


@BOTH
def test_what_comes_back_and_braintrusts_span_are_the_same_either_way(asking: Asking, stream: bool) -> None:
    asking.provider.script("m", answer("hello", extra={"service_tier": "auto"}))
    (_, by_sdk), (_, by_us) = asking.ask(stream=stream), asking.ask(stream=stream)
    assert asking.built == 1
    assert by_us.keys() == by_sdk.keys()
    for field in ("span_attributes", "input", "output", "metadata"):
        first, second = by_sdk.get(field), by_us.get(field)
        if field == "span_attributes":
            first, second = {**first, "exec_counter": 0}, {**second, "exec_counter": 0}
        assert second == first, field
    assert by_us["metrics"].keys() == by_sdk["metrics"].keys()
    if not stream:
        assert by_us["output"][0]["message"]["content"] == "hello"
        assert by_us["metrics"]["completion_tokens"] == by_sdk["metrics"]["completion_tokens"] > 0


def test_a_whole_answer_comes_as_the_provider_gave_it_the_second_time_as_well(asking: Asking) -> None:
    asking.provider.script("m", plain_json({"choices": [{"index": 0, "message": {"role": "assistant", "content": "é", "own": None}, "finish_reason": "stop"}], "x": [1.50]}))  # fmt: skip  # noqa: E501
    assert asking.ask(stream=False)[0] == asking.ask(stream=False)[0]
    assert asking.built == 1


@BOTH
@pytest.mark.parametrize(
    "reply",
    [
        error(400),
        error(401),
        error(422),
        error(429, headers={"Retry-After": "7"}),
        error(500),
        raw(502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>"),
        drop("reset"),
        redirect("http://127.0.0.1:9/x"),
        raw(200, {"Content-Type": "application/json"}, b"{not json"),
        plain_json({}),
        plain_json([]),
        plain_json({"choices": []}),
        plain_json({"error": {"message": "out of credit", "code": 429}}),
    ],
)
def test_a_failure_is_the_same_either_way_and_is_asked_for_once(asking: Asking, reply: Reply, stream: bool) -> None:
    asking.provider.script("bad", reply)

    def failure() -> tuple[Any, ...]:
        with pytest.raises(GatewayError) as raised:
            asking.ask(stream=stream, model="bad")
        error = raised.value
        return type(error), error.http_status, error.message, getattr(error, "retry_after", None)

    by_sdk = failure()
    assert asking.ask(stream=stream)[0]
    before = len(asking.provider.requests())
    assert failure() == by_sdk
    assert len(asking.provider.requests()) == before + 1
    assert asking.ask(stream=stream)[0], "and the next call is answered"


def test_a_rewritten_second_try_is_never_sent_either(asking: Asking) -> None:
    words = "Conversation roles must alternate user/assistant/user/assistant/..."
    asking.provider.script("bad", error(400, {"error": {"message": words}}))
    asking.ask(stream=False)
    with pytest.raises(ProviderRefused, match="Conversation roles must alternate"):
        asking.ask(stream=False, model="bad")
    assert len(asking.provider.requests()) == 2


def test_the_head_of_a_refusal_is_read_from_the_second_request_too(asking: Asking) -> None:
    asking.provider.script("bad", error(429, headers={"Retry-After": "7"}))
    asking.ask(stream=True)
    with pytest.raises(ProviderLimited) as raised:
        asking.ask(stream=True, model="bad")
    assert raised.value.retry_after == "7"


@BOTH
def test_each_key_goes_with_its_own_calls(asking: Asking, stream: bool) -> None:
    keys = [OWN_KEY, OWN_KEY + "-2"] * 3
    for key in keys:
        asking.ask(stream=stream, key=key)
    assert [one.headers["authorization"] for one in asking.provider.requests()] == [f"Bearer {key}" for key in keys]
    assert asking.built == 2


def test_headers_of_one_call_are_not_another_ones(asking: Asking) -> None:
    for headers in ({}, {"openai-beta": "o-1"}, {}, {"openai-beta": "o-2"}):
        asking.ask(stream=False, provider_headers=headers)
    assert [one.headers.get("openai-beta") for one in asking.provider.requests()] == [None, "o-1", None, "o-2"]


def test_a_litellm_of_another_build_keeps_its_own_client(caplog: pytest.LogCaptureFixture) -> None:
    handler = SimpleNamespace(OpenAI=openai.OpenAI)
    with caplog.at_level(logging.WARNING):
        assert not litellmclient.install(handler, Door())
    assert handler.OpenAI is openai.OpenAI
    assert "LegacyAPIResponse" in caplog.text
