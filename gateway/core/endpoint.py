"""What one operation is: the columns of the table in `core/endpoints.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gateway.core.fields import Field
from gateway.core.transcript import ChatTranscript, Transcript

_NOT_ASKED = frozenset(("model", "stream"))

#: Headers that reach a provider; no other does, whatever its name.
PROVIDER_HEADERS = ("anthropic-version", "anthropic-beta", "openai-beta")

#: What an operation begins is billed to another call, the first that sees its end (`Endpoint.deferred`).
BEGUN, SEEN = "begun", "seen"


@dataclass(frozen=True)
class Endpoint:
    """One operation.

    Attributes:
        name: the operation's name in traces (`chat gpt-4o-mini`).
        path: served as it is and without its `/v1`; `{id}` stands for a part of it.
        method: the HTTP method.
        upstream: the function of LiteLLM that answers it; empty where LiteLLM is not asked.
        parameters: the fields that the operation knows; others travel as data.
        summary: one line for the docs.
        asked: the field that a trace shows as what was asked.
        system: the field that a trace shows in front of it, as a system's message.
        span: what a span of it is called; where a model answers, as Braintrust's patch of LiteLLM would name it.
        span_kind: `llm`, or `function` where no model says anything.
        metered: an answer has used tokens.
        dialect: how its errors look: `openai`, `anthropic` or `responses` (see `wire`).
        transcript: makes the record of an answer.
        native: providers that are asked on the operation's own wire, by the caller's own body; others are asked
            by way of LiteLLM, or for a chat that stands in for it.
        ends: the events that end its stream, where each event has a name.
        ends_each: such an event ends one of several things, so that only the last of them ends the stream.
        query: what of a request's query travels on.
        last_words: what ends its stream, where that is no event of the answer's own.
        form: its body is `multipart/form-data` (RFC 7578), read as it comes.
        answer: `json`; `bytes`, passed on as they come, whatever they are; or `either`: JSON, a text or an event
            stream, which only the head of the answer tells.
        azure: it is served at Azure's path of a deployment too, whose name is then the model's.
        default_model: what is called where a request names no model.
        kind: of the object that an id in the path names (`storage.owned`).
        deferred: of one that is not metered: `BEGUN` where what it has used is billed to a later call, `SEEN` where
            what an earlier one has used may be billed to it; else empty.
    """

    name: str
    path: str
    method: str
    upstream: str
    parameters: Mapping[str, Field]
    summary: str
    asked: str = "messages"
    system: str = ""
    span: str = "Completion"
    span_kind: str = "llm"
    metered: bool = True
    dialect: str = "openai"
    transcript: Callable[[], Transcript] = ChatTranscript
    native: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()
    ends_each: bool = False
    query: tuple[str, ...] = ()
    last_words: bytes = b""
    form: bool = False
    answer: str = "json"
    azure: bool = False
    default_model: str = ""
    kind: str = "response"
    deferred: str = ""

    def asked_of(self, body: Mapping[str, Any]) -> Any:
        """What a trace shows as asked; all of it where no one field is what was asked."""
        if not self.asked:
            return {name: value for name, value in body.items() if name not in _NOT_ASKED}
        asked = body.get(self.asked)
        if self.system and body.get(self.system) and isinstance(asked, list):
            return [{"role": "system", "content": body[self.system]}, *asked]
        return asked

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the parameters that it cannot do without."""
        return tuple(name for name, field in self.parameters.items() if field.required)

    @property
    def provider_path(self) -> str:
        """The operation's path below a provider's address, which has the version."""
        return self.path.removeprefix("/v1")

    @property
    def by_id(self) -> bool:
        """Whether it is about an object that was made before, whose id stands in the path."""
        return self.asked == "id"

    @property
    def names_model(self) -> bool:
        """Whether a model's name stands in its body."""
        return "model" in self.parameters

    @property
    def in_pieces(self) -> bool:
        """Whether only the head of an answer tells what it is, so that it is passed on in pieces."""
        return self.answer != "json"

    @property
    def azure_path(self) -> str:
        """Azure's path of it, `{id}` for the deployment (Azure OpenAI reference, "Data plane inference")."""
        return f"/openai/deployments/{{id}}{self.provider_path}"


TEXT = Field((str,))
FLAG = Field((bool,))
WHOLE = Field((int,))
NUMBER = Field((float,))
OBJECT = Field((dict,))
CHOICES = Field((int,), minimum=1, maximum=128)  # n=1e30 has taken servers down; no provider allows more than 128
MODEL_NAME = Field((str,), required=True, non_empty=True)
OBJECTS = Field((list,), items=dict)
TEXTS = Field((list,), items=str)
