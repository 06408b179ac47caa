"""A provider asked on its own wire, as the pipeline asks it."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.calls import Attempt, Call
from gateway.core.endpoints import COMPLETIONS, MESSAGES, RESPONSES, Endpoint
from gateway.core.redaction import Redactor
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from tests.builders import attempt, call
from tests.fakes.provider import FakeProvider

JSON = dict[str, Any]

OWN_KEY = "the-gateways-own-key-without-a-shape"

#: What is asked of each operation, where a test is not about that.
ASKED: dict[str, JSON] = {
    RESPONSES.name: {"input": "hi"},
    MESSAGES.name: {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS.name: {"prompt": "hi"},
}
PROVIDERS = {RESPONSES.name: "openai", MESSAGES.name: "anthropic", COMPLETIONS.name: "openai"}


def model_of(endpoint: Endpoint) -> str:
    return f"{PROVIDERS.get(endpoint.name, 'openai')}/m"


def called(endpoint: Endpoint, name: str, body: JSON | None = None, **fields: Any) -> Call:
    """Make a call of an operation. `body` is more of its body; other fields are `Call`'s own."""
    stream = fields.pop("stream", False)
    made = call(name, stream=stream, endpoint=endpoint, **fields)
    made.body = {"model": name, **ASKED.get(endpoint.name, {}), **(body or {}), **({"stream": True} if stream else {})}
    return made


class Natively:
    """Direct, against the fake provider; `tried` is the last attempt."""

    def __init__(self, provider: FakeProvider, *, idle_s: float = 5, silence_s: float | None = None) -> None:
        self.provider = provider
        self.direct = Direct(Failures(Redactor([OWN_KEY])), first_byte_s=5, idle_s=idle_s, silence_s=silence_s)
        self.tried = attempt()

    def attempt(self, name: str, **reach: Any) -> Attempt:
        bare = name.startswith(("anthropic/", "azure/"))
        given = {"api_base": self.provider.origin if bare else self.provider.base_url, **reach}
        return attempt(name, **{"api_key": OWN_KEY, **given})

    def open(self, made: Call, **reach: Any) -> Any:
        self.tried = self.attempt(made.model, **reach)
        self.tried.transcript = made.endpoint.transcript()
        return self.direct.open(self.tried, made)

    def whole(self, endpoint: Endpoint, body: JSON | None = None, **fields: Any) -> JSON:
        document: JSON = json.loads(self.open(called(endpoint, model_of(endpoint), body, **fields)).body)
        return document

    def events(self, endpoint: Endpoint, body: JSON | None = None, **fields: Any) -> list[bytes]:
        """Ask for a stream and read it to its end; give the events that the caller gets."""
        opened = self.open(called(endpoint, model_of(endpoint), body, stream=True, **fields))
        try:
            return [chunk.data for chunk in opened.chunks() if chunk.data]
        finally:
            opened.close()

    def ask(self, endpoint: Endpoint, body: JSON | None = None, *, stream: bool, **fields: Any) -> None:
        """Ask either way."""
        if stream:
            self.events(endpoint, body, **fields)
        else:
            self.whole(endpoint, body, **fields)
