"""One row per operation that callers can ask for. Routes, checks, docs and tests read this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gateway.core.completions import CompletionsTranscript
from gateway.core.embeddings import EmbeddingsTranscript
from gateway.core.fields import Field
from gateway.core.messages import MessagesTranscript
from gateway.core.responses import ResponsesTranscript
from gateway.core.transcript import ChatTranscript, DocumentTranscript, Transcript
from gateway.core.wire import DONE


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
        query: what of a request's query travels on.
        last_words: what ends its stream, where that is no event of the answer's own.
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
    query: tuple[str, ...] = ()
    last_words: bytes = b""

    def asked_of(self, body: Mapping[str, Any]) -> Any:
        """What a trace shows as asked."""
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

    def is_at(self, path: str) -> bool:
        """Whether a path at a provider is this operation's; what stands before it is the provider's affair."""
        longer = (row.provider_path for row in ENDPOINTS if row.provider_path.endswith(self.provider_path))
        return path.endswith(self.provider_path) and not any(
            other != self.provider_path and path.endswith(other) for other in longer
        )

    @property
    def by_id(self) -> bool:
        """Whether it is about an object that was made before, whose id stands in the path."""
        return self.asked == "id"


_TEXT = Field((str,))
_FLAG = Field((bool,))
_WHOLE = Field((int,))
_NUMBER = Field((float,))
_OBJECT = Field((dict,))
_CHOICES = Field((int,), minimum=1, maximum=128)  # n=1e30 has taken servers down; no provider allows more than 128
_MODEL = Field((str,), required=True, non_empty=True)
_OBJECTS = Field((list,), items=dict)
_WORDS_OF = Field((list,), items=str)

CHAT = Endpoint(
    name="chat",
    path="/v1/chat/completions",
    method="POST",
    upstream="completion",
    summary="Chat completions, streamed and not (OpenAI's dialect, any provider)",
    last_words=DONE,
    parameters={
        "model": _MODEL,
        "messages": Field((list,), required=True, non_empty=True, items=dict),
        "audio": _OBJECT,
        "frequency_penalty": _NUMBER,
        "function_call": Field((str, dict)),
        "functions": _OBJECTS,
        "logit_bias": _OBJECT,
        "logprobs": _FLAG,
        "max_completion_tokens": _WHOLE,
        "max_tokens": _WHOLE,
        "metadata": _OBJECT,
        "modalities": _WORDS_OF,
        "moderation": Field((dict, bool, str)),
        "n": _CHOICES,
        "parallel_tool_calls": _FLAG,
        "prediction": _OBJECT,
        "presence_penalty": _NUMBER,
        "prompt_cache_key": _TEXT,
        "prompt_cache_options": _OBJECT,
        "prompt_cache_retention": _TEXT,
        "reasoning_effort": _TEXT,
        "response_format": _OBJECT,
        "safety_identifier": _TEXT,
        "seed": _WHOLE,
        "service_tier": _TEXT,
        "stop": Field((str, list)),
        "store": _FLAG,
        "stream": _FLAG,
        "stream_options": _OBJECT,
        "temperature": _NUMBER,
        "thinking": _OBJECT,
        "tool_choice": Field((str, dict)),
        "tools": _OBJECTS,
        "top_k": _WHOLE,
        "top_logprobs": _WHOLE,
        "top_p": _NUMBER,
        "user": _TEXT,
        "verbosity": _TEXT,
        "web_search_options": _OBJECT,
    },
)

COMPLETIONS = Endpoint(
    name="completions",
    path="/v1/completions",
    method="POST",
    upstream="",
    summary="Text completions, the older kind; a model that only chats answers them as a chat of one message",
    asked="prompt",
    transcript=CompletionsTranscript,
    native=frozenset(
        (
            *("openai", "azure", "text-completion-openai", "hosted_vllm", "llamafile", "lm_studio", "litellm_proxy"),
            *("together_ai", "fireworks_ai", "featherless_ai"),
        )
    ),
    last_words=DONE,
    parameters={
        "model": _MODEL,
        "prompt": Field((str, list)),
        "best_of": _CHOICES,
        "echo": _FLAG,
        "frequency_penalty": _NUMBER,
        "logit_bias": _OBJECT,
        "logprobs": _WHOLE,
        "max_tokens": _WHOLE,
        "n": _CHOICES,
        "presence_penalty": _NUMBER,
        "seed": _WHOLE,
        "stop": Field((str, list)),
        "stream": _FLAG,
        "stream_options": _OBJECT,
        "suffix": _TEXT,
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "user": _TEXT,
    },
)

EMBEDDINGS = Endpoint(
    name="embeddings",
    path="/v1/embeddings",
    method="POST",
    upstream="embedding",
    summary="Embeddings of texts and of token arrays, as floats and as base64",
    asked="input",
    span="Embedding",
    transcript=EmbeddingsTranscript,
    parameters={
        "model": _MODEL,
        "input": Field((str, list), required=True, non_empty=True),
        "dimensions": Field((int,), minimum=1),
        "encoding_format": _TEXT,
        "user": _TEXT,
    },
)

_RESPONDERS = frozenset(("openai", "azure", "xai", "litellm_proxy"))
_STORED: dict[str, Any] = {
    "upstream": "",
    "parameters": {},
    "asked": "id",
    "dialect": "responses",
    "span": "Stored response",
    "span_kind": "function",
    "metered": False,
    "native": _RESPONDERS,
    "transcript": DocumentTranscript,
}

RESPONSES = Endpoint(
    name="responses",
    path="/v1/responses",
    method="POST",
    upstream="",
    summary="OpenAI's Responses, streamed and not, for any model: the provider's own where it has them",
    asked="input",
    span="Response",
    dialect="responses",
    transcript=ResponsesTranscript,
    native=_RESPONDERS,
    ends=frozenset(("response.completed", "response.incomplete", "response.failed")),
    parameters={
        "model": _MODEL,
        "input": Field((str, list)),
        "background": _FLAG,
        "client_metadata": _OBJECT,
        "context_management": Field((list, dict)),
        "conversation": Field((str, dict)),
        "include": _WORDS_OF,
        "instructions": Field((str, list)),
        "max_output_tokens": _WHOLE,
        "max_tool_calls": _WHOLE,
        "metadata": _OBJECT,
        "moderation": Field((dict, bool, str)),
        "parallel_tool_calls": _FLAG,
        "previous_response_id": Field((str,), non_empty=True),
        "prompt": _OBJECT,
        "prompt_cache_key": _TEXT,
        "prompt_cache_options": _OBJECT,
        "prompt_cache_retention": _TEXT,
        "reasoning": _OBJECT,
        "safety_identifier": _TEXT,
        "service_tier": _TEXT,
        "store": _FLAG,
        "stream": _FLAG,
        "stream_options": _OBJECT,
        "temperature": _NUMBER,
        "text": _OBJECT,
        "tool_choice": Field((str, dict)),
        "tools": _OBJECTS,
        "top_logprobs": _WHOLE,
        "top_p": _NUMBER,
        "truncation": _TEXT,
        "user": _TEXT,
    },
)

INPUT_TOKENS = Endpoint(
    name="responses.input_tokens",
    path="/v1/responses/input_tokens",
    method="POST",
    upstream="",
    summary="How many tokens its input has, with nothing generated; an estimate where the provider counts none",
    asked="input",
    dialect="responses",
    span="Token count",
    span_kind="function",
    metered=False,
    transcript=DocumentTranscript,
    native=frozenset(("openai", "azure")),
    parameters={name: row for name, row in RESPONSES.parameters.items() if name not in ("stream", "store")},
)

RESPONSE = Endpoint(
    name="responses.retrieve",
    path="/v1/responses/{id}",
    method="GET",
    summary="A stored response of the caller's own",
    query=("include", "include_obfuscation", "starting_after", "stream"),
    ends=RESPONSES.ends,
    **_STORED,
)

RESPONSE_DELETE = Endpoint(
    name="responses.delete",
    path="/v1/responses/{id}",
    method="DELETE",
    summary="Delete a stored response",
    **_STORED,
)

RESPONSE_CANCEL = Endpoint(
    name="responses.cancel",
    path="/v1/responses/{id}/cancel",
    method="POST",
    summary="Stop a response that is made in the background",
    **_STORED,
)

INPUT_ITEMS = Endpoint(
    name="responses.input_items",
    path="/v1/responses/{id}/input_items",
    method="GET",
    summary="The input items of a stored response",
    query=("after", "include", "limit", "order"),
    **_STORED,
)

MESSAGES = Endpoint(
    name="messages",
    path="/v1/messages",
    method="POST",
    upstream="",
    summary="Anthropic's Messages, streamed and not, for any model: the provider's own where it has them",
    system="system",
    span="Message",
    dialect="anthropic",
    transcript=MessagesTranscript,
    native=frozenset(("anthropic",)),
    ends=frozenset(("message_stop",)),
    query=("beta",),
    parameters={
        "model": _MODEL,
        "messages": Field((list,), required=True, non_empty=True, items=dict),
        "max_tokens": Field((int,), required=True),
        "cache_control": _OBJECT,
        "container": Field((str, dict)),
        "context_management": _OBJECT,
        "mcp_servers": _OBJECTS,
        "metadata": _OBJECT,
        "output_config": _OBJECT,
        "output_format": _OBJECT,
        "service_tier": _TEXT,
        "stop_sequences": _WORDS_OF,
        "stream": _FLAG,
        "system": Field((str, list)),
        "temperature": _NUMBER,
        "thinking": _OBJECT,
        "tool_choice": _OBJECT,
        "tools": _OBJECTS,
        "top_k": _WHOLE,
        "top_p": _NUMBER,
    },
)

COUNT_TOKENS = Endpoint(
    name="messages.count_tokens",
    path="/v1/messages/count_tokens",
    method="POST",
    upstream="",
    summary="How many tokens a message has, with nothing generated; an estimate where the provider counts none",
    system="system",
    dialect="anthropic",
    span="Token count",
    span_kind="function",
    metered=False,
    transcript=DocumentTranscript,
    native=frozenset(("anthropic",)),
    query=("beta",),
    parameters={
        name: field
        for name, field in MESSAGES.parameters.items()
        if name not in ("max_tokens", "stream", "temperature")
    },
)

MODELS = Endpoint(
    name="models",
    path="/v1/models",
    method="GET",
    upstream="",
    summary="The models that can be called here; in Anthropic's shape where `anthropic-version` is sent",
    parameters={},
)

MODEL = Endpoint(
    name="model",
    path="/v1/models/{id}",
    method="GET",
    upstream="",
    summary="One model, listed or not",
    parameters={},
)

#: LiteLLM's modes of the models that these operations reach; in the order in which docs name them.
SERVED_MODES = ("chat", "responses", "completion", "embedding")

ENDPOINTS: tuple[Endpoint, ...] = (
    CHAT,
    RESPONSES,
    INPUT_TOKENS,
    RESPONSE,
    RESPONSE_DELETE,
    RESPONSE_CANCEL,
    INPUT_ITEMS,
    MESSAGES,
    COUNT_TOKENS,
    COMPLETIONS,
    EMBEDDINGS,
    MODELS,
    MODEL,
)
