"""The rows of the table of operations that are about media, moderation, reranking, files and batches."""

from __future__ import annotations

from typing import Any

from gateway.core.endpoint import BEGUN, CHOICES, FLAG, MODEL_NAME, NUMBER, OBJECT, SEEN, TEXT, TEXTS, WHOLE, Endpoint
from gateway.core.fields import Field
from gateway.core.media import (
    BytesTranscript,
    ImagesTranscript,
    ModerationTranscript,
    RerankTranscript,
    SpeechTranscript,
    TranscriptionTranscript,
)
from gateway.core.transcript import DocumentTranscript

#: Servers that take OpenAI's wire of media where they have the operation at all; the others' is LiteLLM's affair.
_OPENAI = frozenset(("openai", "hosted_vllm", "litellm_proxy", "lm_studio", "llamafile"))
_AUDIO = _OPENAI | {"groq"}
_RANKERS = frozenset(("openai", "hosted_vllm", "litellm_proxy", "llamafile", "together_ai", "fireworks_ai"))
_KEEPERS = frozenset(("openai", "azure", "litellm_proxy"))

_MODEL_OR_NONE = Field((str,), non_empty=True)
_FILE = Field((bytes,), required=True)
_WORDS = Field((str,), required=True, non_empty=True)

_DRAWING = {
    "background": TEXT,
    "n": CHOICES,
    "output_compression": WHOLE,
    "output_format": TEXT,
    "partial_images": WHOLE,
    "quality": TEXT,
    "response_format": TEXT,
    "size": TEXT,
    "stream": FLAG,
    "user": TEXT,
}

MODERATIONS = Endpoint(
    name="moderations",
    path="/v1/moderations",
    method="POST",
    upstream="",  # LiteLLM's function knows no other wire than this
    summary="Whether texts or pictures are harmful",
    asked="input",
    span="Moderation",
    transcript=ModerationTranscript,
    native=_OPENAI | {"mistral"},
    default_model="omni-moderation-latest",
    parameters={"model": _MODEL_OR_NONE, "input": Field((str, list), required=True, non_empty=True)},
)

RERANK = Endpoint(
    name="rerank",
    path="/v1/rerank",
    method="POST",
    upstream="rerank",
    summary="Documents in the order in which they answer a query (Cohere's and Jina's shape)",
    asked="",
    span="Rerank",
    transcript=RerankTranscript,
    native=_RANKERS,
    parameters={
        "model": MODEL_NAME,
        "query": _WORDS,
        "documents": Field((list,), required=True, non_empty=True),
        "max_chunks_per_doc": WHOLE,
        "max_tokens_per_doc": WHOLE,
        "rank_fields": TEXTS,
        "return_documents": FLAG,
        "top_n": WHOLE,
    },
)

IMAGES = Endpoint(
    name="images.generations",
    path="/v1/images/generations",
    method="POST",
    upstream="image_generation",
    summary="Pictures from a text, streamed and not",
    asked="prompt",
    span="Image Generation",
    transcript=ImagesTranscript,
    native=_OPENAI,
    ends=frozenset(("image_generation.completed",)),
    ends_each=True,
    azure=True,
    default_model="gpt-image-1",
    parameters={"model": _MODEL_OR_NONE, "prompt": _WORDS, **_DRAWING, "moderation": TEXT, "style": TEXT},
)

IMAGES_EDITS = Endpoint(
    name="images.edits",
    path="/v1/images/edits",
    method="POST",
    upstream="image_edit",
    summary="Pictures made of other pictures and a text, streamed and not",
    asked="",
    span="Image Edit",
    transcript=ImagesTranscript,
    native=_OPENAI,
    ends=frozenset(("image_edit.completed",)),
    ends_each=True,
    form=True,
    answer="either",
    azure=True,
    default_model="gpt-image-1",
    parameters={
        "model": _MODEL_OR_NONE,
        "image": _FILE,
        "prompt": _WORDS,
        **_DRAWING,
        "input_fidelity": TEXT,
        "mask": Field((bytes,)),
    },
)

IMAGES_VARIATIONS = Endpoint(
    name="images.variations",
    path="/v1/images/variations",
    method="POST",
    upstream="",
    summary="Variations of a picture",
    asked="",
    span="Image Variation",
    transcript=ImagesTranscript,
    native=_OPENAI,
    form=True,
    default_model="openai/dall-e-2",
    parameters={
        "model": _MODEL_OR_NONE,
        "image": _FILE,
        **{name: _DRAWING[name] for name in ("n", "response_format", "size", "user")},
    },
)

_HEARING: dict[str, Any] = {"file": _FILE, "prompt": TEXT, "response_format": TEXT, "temperature": NUMBER}

TRANSCRIPTIONS = Endpoint(
    name="audio.transcriptions",
    path="/v1/audio/transcriptions",
    method="POST",
    upstream="transcription",
    summary="What is said in a recording, as JSON, text or subtitles, streamed and not",
    asked="",
    span="Transcription",
    transcript=TranscriptionTranscript,
    native=_AUDIO,
    ends=frozenset(("transcript.text.done",)),
    form=True,
    answer="either",
    azure=True,
    parameters={
        "model": MODEL_NAME,
        **_HEARING,
        "chunking_strategy": Field((str, dict)),
        "include": TEXTS,
        "known_speaker_names": TEXTS,
        "known_speaker_references": TEXTS,
        "language": TEXT,
        "stream": FLAG,
        "timestamp_granularities": TEXTS,
    },
)

TRANSLATIONS = Endpoint(
    name="audio.translations",
    path="/v1/audio/translations",
    method="POST",
    upstream="",
    summary="What is said in a recording, in English",
    asked="",
    span="Translation",
    transcript=TranscriptionTranscript,
    native=_AUDIO,
    form=True,
    answer="either",
    azure=True,
    parameters={"model": MODEL_NAME, **_HEARING},
)

SPEECH = Endpoint(
    name="audio.speech",
    path="/v1/audio/speech",
    method="POST",
    upstream="speech",
    summary="A text spoken: audio as it is made, or events of it (`stream_format: sse`)",
    asked="input",
    span="Speech",
    transcript=SpeechTranscript,
    native=_AUDIO,
    ends=frozenset(("speech.audio.done",)),
    answer="bytes",
    azure=True,
    parameters={
        "model": MODEL_NAME,
        "input": _WORDS,
        "voice": Field((str, dict)),
        "instructions": TEXT,
        "response_format": TEXT,
        "speed": NUMBER,
        "stream_format": TEXT,
    },
)

#: Stands for the model where files and batches are about none: rights name it, and the routes file may.
FILES_MODEL = "openai/files"

_FILES: dict[str, Any] = {"upstream": "", "span": "File", "span_kind": "function", "metered": False, "native": _KEEPERS}
_ONE_FILE: dict[str, Any] = {**_FILES, "asked": "id", "kind": "file", "parameters": {}}
_BATCHES = {**_FILES, "span": "Batch", "transcript": DocumentTranscript}
_ONE_BATCH: dict[str, Any] = {**_BATCHES, "asked": "id", "kind": "batch", "parameters": {}}

FILES = Endpoint(
    name="files",
    path="/v1/files",
    method="POST",
    summary="Upload a file, for a batch or for a model to read",
    asked="",
    form=True,
    transcript=DocumentTranscript,
    default_model=FILES_MODEL,
    parameters={"file": _FILE, "purpose": _WORDS},
    **_FILES,
)

FILES_LIST = Endpoint(
    name="files.list",
    path="/v1/files",
    method="GET",
    summary="The caller's own files",
    asked="",
    query=("after", "limit", "order", "purpose"),
    transcript=DocumentTranscript,
    default_model=FILES_MODEL,
    parameters={},
    **_FILES,
)

FILE = Endpoint(
    name="files.retrieve",
    path="/v1/files/{id}",
    method="GET",
    summary="What is known of a file of the caller's own",
    transcript=DocumentTranscript,
    **_ONE_FILE,
)

FILE_CONTENT = Endpoint(
    name="files.content",
    path="/v1/files/{id}/content",
    method="GET",
    summary="What is in a file of the caller's own, as it is",
    answer="bytes",
    transcript=BytesTranscript,
    **_ONE_FILE,
)

FILE_DELETE = Endpoint(
    name="files.delete",
    path="/v1/files/{id}",
    method="DELETE",
    summary="Delete a file",
    transcript=DocumentTranscript,
    **_ONE_FILE,
)

BATCHES = Endpoint(
    name="batches",
    path="/v1/batches",
    method="POST",
    summary="Have the requests of a file answered within a day",
    deferred=BEGUN,
    asked="",
    default_model=FILES_MODEL,
    parameters={
        "input_file_id": _WORDS,
        "endpoint": _WORDS,
        "completion_window": _WORDS,
        "metadata": OBJECT,
        "output_expires_after": OBJECT,
    },
    **_BATCHES,
)

BATCHES_LIST = Endpoint(
    name="batches.list",
    path="/v1/batches",
    method="GET",
    summary="The caller's own batches",
    asked="",
    query=("after", "limit"),
    default_model=FILES_MODEL,
    parameters={},
    **_BATCHES,
)

BATCH = Endpoint(
    name="batches.retrieve",
    path="/v1/batches/{id}",
    method="GET",
    summary="How far a batch of the caller's own is",
    deferred=SEEN,
    **_ONE_BATCH,
)

BATCH_CANCEL = Endpoint(
    name="batches.cancel",
    path="/v1/batches/{id}/cancel",
    method="POST",
    summary="Stop a batch",
    deferred=SEEN,
    **_ONE_BATCH,
)
