"""Another deployment is tried before the first content, on every wire, and never after it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.core import routing
from gateway.core.calls import Chunk
from gateway.core.endpoints import MESSAGES, RESPONSES, Endpoint
from gateway.core.policies import Trying
from gateway.core.routing import Alias, Catalogue, Reach, Target
from gateway.errors import GatewayError
from gateway.pipeline import Gateway, Reply
from gateway.secret import Secret
from gateway.upstream.bridge import Bridge
from gateway.upstream.litellm import LiteLLM
from tests.builders import Recorder, call, gateway
from tests.fakes.provider import Action, FakeProvider, answer, data, done, event, reset, silence, sse
from tests.fakes.provider import delta as piece
from tests.upstream.natively import Natively, called

JSON = dict[str, Any]

#: On each wire: how a stream begins without content, and with some.
BEGUN: dict[str, list[Action]] = {
    "responses": [event("response.created", {"type": "response.created", "response": {"id": "resp_of_the_first"}})],
    "messages": [event("message_start", {"type": "message_start", "message": {"id": "msg_of_the_first"}})],
    "chat": [piece({"role": "assistant", "content": ""})],
}
CONTENT: dict[str, list[Action]] = {
    "responses": [
        data({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "tok"}),
    ],
    "messages": [
        data({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        data({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "tok"}}),
    ],
    "chat": [piece({"content": "tok"})],
}
FAILURES: dict[str, dict[str, list[Action]]] = {
    "responses": {
        "failed": [data({"type": "response.failed", "response": {"status": "failed", "error": {"message": "no"}}})],
        "an error": [data({"type": "error", "message": "no"})],
        "no end": [],
        "RST": [reset()],
    },
    "messages": {
        "an error": [data({"type": "error", "error": {"type": "overloaded_error", "message": "no"}})],
        "no reason": [data({"type": "message_stop"})],
        "RST": [reset()],
    },
    "chat": {"an error": [data({"error": {"message": "no"}})], "no end": [done()], "RST": [reset()]},
}
WAYS = [(endpoint, way) for endpoint in (RESPONSES, MESSAGES) for way in ("native", "bridged")]
CASES = [
    (endpoint, endpoint.name if way == "native" else "chat", failure)
    for endpoint, way in WAYS
    for failure in FAILURES[endpoint.name if way == "native" else "chat"]
]
EACH = pytest.mark.parametrize(("endpoint", "wire", "failure"), CASES)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")


@pytest.fixture
def run(
    provider: FakeProvider, native: Natively, loaded: LiteLLM, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Endpoint, str], Reply]]:
    """Run a streamed call with two deployments to try: models `first` and `second`."""
    made: list[Gateway] = []

    def running(endpoint: Endpoint, wire: str) -> Reply:
        name = "hosted_vllm" if wire == "chat" else "anthropic" if endpoint is MESSAGES else "openai"
        planned = [native.attempt(f"{name}/{model}") for model in ("first", "second")]
        monkeypatch.setattr(routing, "plan", lambda *_asked, **_more: planned)
        upstream = Bridge(loaded) if wire == "chat" else native.direct
        made.append(gateway(upstream, Recorder()))
        made[-1].open()
        return made[-1].run(called(endpoint, f"{name}/first", stream=True))

    yield running
    for one in made:
        one.close(0.1)


def wire_of(reply: Reply) -> bytes:
    return b"".join(chunk.data for chunk in reply if isinstance(chunk, Chunk)) + reply.last_words


@EACH
def test_where_the_first_fails_before_any_content_the_second_answers(
    provider: FakeProvider, run: Callable[..., Reply], endpoint: Endpoint, wire: str, failure: str
) -> None:
    provider.script("first", sse(*BEGUN[wire], *FAILURES[wire][failure]))
    provider.script("second", answer("second says"))
    reply = run(endpoint, wire)
    said = wire_of(reply)
    reply.close()
    assert b"of_the_first" not in said
    assert b"response.failed" not in said
    assert b"event: error" not in said
    ended = json.loads(said.rstrip().rsplit(b"data: ", 1)[1])
    assert ended["type"] in ("response.completed", "message_stop")
    assert [received.model for received in provider.requests()] == ["first", "second"]
    assert reply.headers()["x-gateway-attempted-retries"] == "1"


@EACH
def test_after_content_nobody_else_is_tried(
    provider: FakeProvider, run: Callable[..., Reply], endpoint: Endpoint, wire: str, failure: str
) -> None:
    provider.script("first", sse(*BEGUN[wire], *CONTENT[wire], *FAILURES[wire][failure]))
    provider.script("second", answer("second says"))
    reply = run(endpoint, wire)
    got = []
    with pytest.raises(GatewayError):
        got.extend(chunk.data for chunk in reply if chunk is not None)
    assert b"tok" in b"".join(got)
    assert reply.told == (endpoint is RESPONSES and (wire == "chat" or failure == "failed"))
    assert (b"response.failed" in reply.last_words) == reply.told
    reply.close()
    assert [received.model for received in provider.requests()] == ["first"]


def test_a_stream_that_does_not_begin_is_closed_at_its_provider_and_the_second_answers(
    provider: FakeProvider, native: Natively
) -> None:
    provider.script("first", sse(piece({"role": "assistant", "content": ""}), silence()))
    provider.script("second", answer("second says"))
    targets = tuple(
        Target("hosted_vllm", model, Reach(Secret("k"), provider.base_url, relay=True)) for model in ("first", "second")
    )
    here = gateway(native.direct, Recorder())
    here.catalogue = Catalogue(aliases={"m": Alias(targets)}, trying=Trying(first_content_s=0.3))
    here.open()
    began_s = time.monotonic()
    reply = here.run(call("m", stream=True))
    assert b'"model":"second"' in wire_of(reply)
    assert time.monotonic() - began_s < 3
    reply.close()
    here.close(0.1)
    [first] = provider.requests("first")
    assert first.closed.wait(2)
    assert first.closed_at is not None
    assert 0.3 <= first.closed_at - began_s < 2
