"""Which way each operation takes at each kind of provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call, Deployment
from gateway.core.endpoints import ENDPOINTS, MODEL, MODELS, Endpoint
from gateway.core.redaction import Redactor
from gateway.errors import InvalidRequest
from gateway.secret import Secret
from gateway.tracing.catcher import Catcher
from gateway.upstream.counting import Counting
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.lanes import Lanes
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import Scripted
from tests.builders import attempt, call

#: The way of each operation: `direct` (the provider's own), `litellm`, `scripted`, `count` (an estimate), `chat` (one
#: stands in), or `none`. A name in brackets is a provider without what it needs to be asked natively.
WAYS = {
    "": ["openai", "azure", "(azure)", "xai", "anthropic", "groq", "hosted_vllm", "litellm_proxy", "demo"],
    "chat": ["litellm", "litellm", "litellm", "litellm", "litellm", "litellm", "litellm", "litellm", "scripted"],
    "responses": ["direct", "direct", "chat", "direct", "chat", "chat", "chat", "direct", "chat"],
    "responses.input_tokens": ["direct", "direct", "count", "count", "count", "count", "count", "count", "count"],
    "responses.retrieve": ["direct", "direct", "none", "direct", "none", "none", "none", "direct", "none"],
    "responses.delete": ["direct", "direct", "none", "direct", "none", "none", "none", "direct", "none"],
    "responses.cancel": ["direct", "direct", "none", "direct", "none", "none", "none", "direct", "none"],
    "responses.input_items": ["direct", "direct", "none", "direct", "none", "none", "none", "direct", "none"],
    "messages": ["chat", "chat", "chat", "chat", "direct", "chat", "chat", "chat", "chat"],
    "messages.count_tokens": ["count", "count", "count", "count", "direct", "count", "count", "count", "count"],
    "completions": ["direct", "direct", "chat", "chat", "chat", "chat", "direct", "direct", "chat"],
    "embeddings": ["litellm", "litellm", "litellm", "litellm", "litellm", "litellm", "litellm", "litellm", "none"],
    "moderations": ["direct", "none", "none", "none", "none", "none", "direct", "direct", "none"],
    "rerank": ["direct", "litellm", "litellm", "litellm", "litellm", "litellm", "direct", "direct", "none"],
    "images.generations": ["direct", "litellm", "litellm", "litellm", "litellm", "litellm", "direct", "direct", "none"],
    "images.edits": ["direct", "litellm", "litellm", "litellm", "litellm", "litellm", "direct", "direct", "none"],
    "images.variations": ["direct", "none", "none", "none", "none", "none", "direct", "direct", "none"],
    "audio.transcriptions": [
        "direct",
        "litellm",
        "litellm",
        "litellm",
        "litellm",
        "direct",
        "direct",
        "direct",
        "none",
    ],
    "audio.speech": ["direct", "litellm", "litellm", "litellm", "litellm", "direct", "direct", "direct", "none"],
    "audio.translations": ["direct", "none", "none", "none", "none", "direct", "direct", "direct", "none"],
    **{
        row.name: ["direct", "direct", "none", "none", "none", "none", "none", "direct", "none"]
        for row in ENDPOINTS
        if row.name.startswith(("files", "batches"))
    },
}
ROWS = [row for row in ENDPOINTS if row not in (MODELS, MODEL)]
CASES = [(row, name, way) for row in ROWS for name, way in zip(WAYS[""], WAYS[row.name], strict=True)]

#: Those that have no public address.
BASES = {"azure": "https://azure.example", "hosted_vllm": "http://vllm:8000/v1", "litellm_proxy": "http://proxy:4000"}


class Noting:
    """A lane that notes which of them was opened, and for what."""

    def __init__(self, name: str, lane: Any, opened: list[tuple[str, str]]) -> None:
        self._name = name
        self._opened = opened
        self.serves: Callable[[Endpoint, Deployment], bool] = lane.serves

    def start(self) -> None:
        self._opened.append((self._name, "start"))

    def open(self, _attempt: Attempt, made: Call) -> Any:
        self._opened.append((self._name, made.endpoint.name))
        raise Taken


class Taken(Exception):
    """The way was found; there is nothing to answer."""


def lanes(provider: str, opened: list[tuple[str, str]]) -> Lanes:
    """The lanes of a provider, as the assembly makes them."""
    failures = Failures(Redactor())
    direct = Direct(failures, first_byte_s=5, idle_s=5)
    litellm = LiteLLM(failures, first_byte_s=5, idle_s=5, patch=Catcher.patch)
    counting = Noting("count", Counting(lambda _deployment, _text: 1), opened)
    if provider == "demo":
        return Lanes(counting, Noting("scripted", Scripted(), opened))
    return Lanes(Noting("direct", direct, opened), counting, Noting("litellm", litellm, opened))


def tried(name: str) -> Attempt:
    provider = name.strip("()")
    key = None if name.startswith("(") or provider in ("hosted_vllm", "demo") else "k"
    return attempt(f"{provider}/m", api_base=BASES.get(provider), api_key=key)


def asked(row: Endpoint, name: str) -> Call:
    made = call(name, endpoint=row)
    made.body = {"model": name, row.asked: made.body["messages"] if row.asked == "messages" else "hi", "max_tokens": 5}
    return made


def test_the_table_has_every_operation() -> None:
    assert set(WAYS) - {""} == {row.name for row in ROWS}


@pytest.mark.parametrize(("row", "name", "way"), CASES, ids=[f"{row.name} at {name}" for row, name, _ in CASES])
def test_a_call_takes_the_way_that_it_should(row: Endpoint, name: str, way: str) -> None:
    opened: list[tuple[str, str]] = []
    made = lanes(name, opened)
    to = tried(name)
    with pytest.raises(InvalidRequest if way == "none" else Taken) as refused:
        made.open(to, asked(row, f"{name}/m"))
    last = "scripted" if name == "demo" else "litellm"
    wanted = {"none": [], "chat": [(last, "chat")]}.get(way, [(way, row.name)])
    assert opened == wanted
    assert (to.sent is not None) == (way == "chat")
    assert made.is_native(row, to.deployment) == (way == "direct")
    if isinstance(refused.value, InvalidRequest):
        assert (refused.value.param, refused.value.public_code) == ("model", "unsupported")
        assert to.deployment.provider in refused.value.message


@pytest.mark.parametrize("provider", ["hosted_vllm", "llamafile", "lm_studio"])
def test_a_server_of_the_operators_own_is_asked_only_where_its_address_is_known(provider: str) -> None:
    direct = Direct(Failures(Redactor()), first_byte_s=5, idle_s=5)
    [row] = [row for row in ROWS if row.name == "completions"]
    assert direct.serves(row, Deployment(provider, "m", "http://here:1"))
    assert not direct.serves(row, Deployment(provider, "m"))


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure"])
def test_a_provider_that_wants_to_know_who_asks_is_never_asked_without_a_key(provider: str) -> None:
    direct = Direct(Failures(Redactor()), first_byte_s=5, idle_s=5)
    for row in ROWS:
        assert not direct.serves(row, Deployment(provider, "m", "https://here.example"))
        assert direct.serves(row, Deployment(provider, "m", "https://here.example", Secret("k"))) == (
            provider in row.native
        )


def test_every_lane_is_made_ready() -> None:
    opened: list[tuple[str, str]] = []
    lanes("openai", opened).start()
    assert opened == [("direct", "start"), ("count", "start"), ("litellm", "start")]
