"""One row per operation that callers can ask for. Routes, checks, docs and tests read this table."""

from __future__ import annotations

from typing import Any

from gateway.core.completions import CompletionsTranscript
from gateway.core.embeddings import EmbeddingsTranscript
from gateway.core.endpoint import (
    CHOICES,
    FLAG,
    MODEL_NAME,
    NUMBER,
    OBJECT,
    OBJECTS,
    SEEN,
    TEXT,
    TEXTS,
    WHOLE,
    Endpoint,
)
from gateway.core.fields import Field
from gateway.core.mediaoperations import (
    BATCH,
    BATCH_CANCEL,
    BATCHES,
    BATCHES_LIST,
    FILE,
    FILE_CONTENT,
    FILE_DELETE,
    FILES,
    FILES_LIST,
    IMAGES,
    IMAGES_EDITS,
    IMAGES_VARIATIONS,
    MODERATIONS,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
)
from gateway.core.messages import MessagesTranscript
from gateway.core.responses import ResponsesTranscript
from gateway.core.transcript import DocumentTranscript
from gateway.core.wire import DONE

__all__ = [
    "BATCH", "BATCHES", "BATCHES_LIST", "BATCH_CANCEL", "CHAT", "COMPLETIONS", "COUNT_TOKENS", "EMBEDDINGS",
    "ENDPOINTS", "FILE", "FILES", "FILES_LIST", "FILE_CONTENT", "FILE_DELETE", "IMAGES", "IMAGES_EDITS",
    "IMAGES_VARIATIONS", "INPUT_ITEMS", "INPUT_TOKENS", "MESSAGES", "MODEL", "MODELS", "MODERATIONS", "RERANK",
    "RESPONSE", "RESPONSES", "RESPONSE_CANCEL", "RESPONSE_DELETE", "SERVED_MODES", "SPEECH", "TRANSCRIPTIONS",
    "TRANSLATIONS", "Endpoint", "is_at",
]  # fmt: skip

CHAT = Endpoint(
    name="chat",
    path="/v1/chat/completions",
    method="POST",
    azure=True,
    upstream="completion",
    summary="Chat completions, streamed and not (OpenAI's dialect, any provider)",
    last_words=DONE,
    parameters={
        "model": MODEL_NAME,
        "messages": Field((list,), required=True, non_empty=True, items=dict),
        "audio": OBJECT,
        "frequency_penalty": NUMBER,
        "function_call": Field((str, dict)),
        "functions": OBJECTS,
        "logit_bias": OBJECT,
        "logprobs": FLAG,
        "max_completion_tokens": WHOLE,
        "max_tokens": WHOLE,
        "metadata": OBJECT,
        "modalities": TEXTS,
        "moderation": Field((dict, bool, str)),
        "n": CHOICES,
        "parallel_tool_calls": FLAG,
        "prediction": OBJECT,
        "presence_penalty": NUMBER,
        "prompt_cache_key": TEXT,
        "prompt_cache_options": OBJECT,
        "prompt_cache_retention": TEXT,
        "reasoning_effort": TEXT,
        "response_format": OBJECT,
        "safety_identifier": TEXT,
        "seed": WHOLE,
        "service_tier": TEXT,
        "stop": Field((str, list)),
        "store": FLAG,
        "stream": FLAG,
        "stream_options": OBJECT,
        "temperature": NUMBER,
        "thinking": OBJECT,
        "tool_choice": Field((str, dict)),
        "tools": OBJECTS,
        "top_k": WHOLE,
        "top_logprobs": WHOLE,
        "top_p": NUMBER,
        "user": TEXT,
        "verbosity": TEXT,
        "web_search_options": OBJECT,
    },
)

COMPLETIONS = Endpoint(
    name="completions",
    path="/v1/completions",
    method="POST",
    azure=True,
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
        "model": MODEL_NAME,
        "prompt": Field((str, list)),
        "best_of": CHOICES,
        "echo": FLAG,
        "frequency_penalty": NUMBER,
        "logit_bias": OBJECT,
        "logprobs": WHOLE,
        "max_tokens": WHOLE,
        "n": CHOICES,
        "presence_penalty": NUMBER,
        "seed": WHOLE,
        "stop": Field((str, list)),
        "stream": FLAG,
        "stream_options": OBJECT,
        "suffix": TEXT,
        "temperature": NUMBER,
        "top_p": NUMBER,
        "user": TEXT,
    },
)

EMBEDDINGS = Endpoint(
    name="embeddings",
    path="/v1/embeddings",
    method="POST",
    azure=True,
    upstream="embedding",
    summary="Embeddings of texts and of token arrays, as floats and as base64",
    asked="input",
    span="Embedding",
    transcript=EmbeddingsTranscript,
    parameters={
        "model": MODEL_NAME,
        "input": Field((str, list), required=True, non_empty=True),
        "dimensions": Field((int,), minimum=1),
        "encoding_format": TEXT,
        "user": TEXT,
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
        "model": MODEL_NAME,
        "input": Field((str, list)),
        "background": FLAG,
        "client_metadata": OBJECT,
        "context_management": Field((list, dict)),
        "conversation": Field((str, dict)),
        "include": TEXTS,
        "instructions": Field((str, list)),
        "max_output_tokens": WHOLE,
        "max_tool_calls": WHOLE,
        "metadata": OBJECT,
        "moderation": Field((dict, bool, str)),
        "parallel_tool_calls": FLAG,
        "previous_response_id": Field((str,), non_empty=True),
        "prompt": OBJECT,
        "prompt_cache_key": TEXT,
        "prompt_cache_options": OBJECT,
        "prompt_cache_retention": TEXT,
        "reasoning": OBJECT,
        "safety_identifier": TEXT,
        "service_tier": TEXT,
        "store": FLAG,
        "stream": FLAG,
        "stream_options": OBJECT,
        "temperature": NUMBER,
        "text": OBJECT,
        "tool_choice": Field((str, dict)),
        "tools": OBJECTS,
        "top_logprobs": WHOLE,
        "top_p": NUMBER,
        "truncation": TEXT,
        "user": TEXT,
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
    deferred=SEEN,
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
    deferred=SEEN,
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
        "model": MODEL_NAME,
        "messages": Field((list,), required=True, non_empty=True, items=dict),
        "max_tokens": Field((int,), required=True),
        "cache_control": OBJECT,
        "container": Field((str, dict)),
        "context_management": OBJECT,
        "mcp_servers": OBJECTS,
        "metadata": OBJECT,
        "output_config": OBJECT,
        "output_format": OBJECT,
        "service_tier": TEXT,
        "stop_sequences": TEXTS,
        "stream": FLAG,
        "system": Field((str, list)),
        "temperature": NUMBER,
        "thinking": OBJECT,
        "tool_choice": OBJECT,
        "tools": OBJECTS,
        "top_k": WHOLE,
        "top_p": NUMBER,
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
SERVED_MODES = (
    *("chat", "responses", "completion", "embedding", "image_generation", "image_edit", "audio_transcription"),
    *("audio_speech", "moderation", "rerank"),
)

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
    MODERATIONS,
    RERANK,
    IMAGES,
    IMAGES_EDITS,
    IMAGES_VARIATIONS,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    SPEECH,
    FILES,
    FILES_LIST,
    FILE,
    FILE_CONTENT,
    FILE_DELETE,
    BATCHES,
    BATCHES_LIST,
    BATCH,
    BATCH_CANCEL,
    MODELS,
    MODEL,
)


def is_at(endpoint: Endpoint, path: str) -> bool:
    """Whether a path at a provider is an operation's; what stands before it is the provider's affair."""
    own = endpoint.provider_path
    longer = (row.provider_path for row in ENDPOINTS if row.provider_path.endswith(own))
    return path.endswith(own) and not any(other != own and path.endswith(other) for other in longer)
