"""Media by way of LiteLLM: what its functions want, and what becomes of what they return."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.endpoints import CHAT, EMBEDDINGS, SPEECH, TRANSCRIPTIONS
from gateway.core.media import MediaTranscript
from gateway.core.multipart import Sent
from gateway.core.wire import dumps, loads
from gateway.errors import BodyTooLarge, GatewayError, InvalidRequest
from gateway.offload import LARGE_BYTES, offload
from gateway.upstream.answer import plain
from gateway.upstream.exchange import Exchange
from gateway.upstream.failures import Failures

#: Forms of a transcript that are no JSON (API reference, "Create transcription").
_TEXTS = frozenset(("text", "srt", "vtt"))


def check(call: Call) -> None:
    """Refuse what LiteLLM's functions cannot do.

    Raises:
        InvalidRequest: a stream of something that is no chat.
    """
    if call.endpoint in (CHAT, EMBEDDINGS):
        return
    if call.stream or call.body.get("stream_format") == "sse":
        param = "stream" if call.stream else "stream_format"
        raise InvalidRequest(
            f"This provider's {call.endpoint.name} cannot be streamed here.", param=param, code="unsupported_parameter"
        )


def files_of(call: Call, most_bytes: int) -> dict[str, Any]:
    """Read a form to its end, and return its files as arguments of LiteLLM's functions.

    Raises:
        BodyTooLarge: it is larger than what may be in memory.
    """
    upload = call.upload
    if upload is None:
        return {}
    form = upload.form
    upload.read_until(lambda: form.size > most_bytes)
    if form.size > most_bytes:
        raise BodyTooLarge(f"A form for this provider may have {most_bytes} bytes at most.")
    found: dict[str, Any] = {}
    for file in form.files:
        one = _argument(call, file, upload.content(file))
        found[file.field] = [*found[file.field], one] if file.field in found else [one]
    return {name: files[0] if len(files) == 1 else files for name, files in found.items()}


def _argument(call: Call, file: Sent, content: bytes) -> Any:
    if call.endpoint is TRANSCRIPTIONS:
        return file.filename or "file", content, file.media_type
    opened = io.BytesIO(content)  # of a picture LiteLLM reads the type out of its bytes
    opened.name = file.filename or file.field
    return opened


class MediaAnswer:
    """What a function of LiteLLM returned that is passed on in one piece (upstream.Answer)."""

    tells_silence = False

    def __init__(
        self, attempt: Attempt, call: Call, exchange: Exchange, result: Any, failures: Failures, *, relayed: bool
    ) -> None:
        self._attempt = attempt
        self._call = call
        self._exchange = exchange
        self._result = result
        self._failures = failures
        self._relayed = relayed
        self.body = b""

    def read(self) -> None:
        """Take in the answer.

        Raises:
            UpstreamError: it is none of this operation.
        """
        attempt, transcript = self._attempt, self._attempt.transcript
        assert isinstance(transcript, MediaTranscript)
        transcript.asked(self._call.body)
        try:
            if self._call.endpoint is SPEECH:
                self._take_bytes(transcript)
            elif self._call.endpoint is TRANSCRIPTIONS and self._call.body.get("response_format") in _TEXTS:
                text = (self._exchange.body or b"").decode() if self._relayed else str(self._result.text)
                transcript.take_text(text)
                self.body, attempt.media_type = text.encode(), "text/plain; charset=utf-8"
            else:
                self.body = self._exchange.body or b"" if self._relayed else self._translated()
                offload(self._take, transcript) if len(self.body) > LARGE_BYTES else self._take(transcript)
                attempt.media_type = "application/json"
        except (ValueError, RecursionError, AttributeError) as error:
            raise self._failure(error) from error
        finally:
            self.close()
        attempt.metered = attempt.metered and transcript.usage is not None

    def _take_bytes(self, transcript: MediaTranscript) -> None:
        headers = self._exchange.headers
        self.body = bytes(self._result.content)
        self._attempt.media_type = transcript.media_type = headers.get("content-type", "application/octet-stream")
        if not self._attempt.media_type.startswith("audio/"):  # JSON, say, that LiteLLM has unpacked
            self._attempt.media_type = transcript.media_type = "application/octet-stream"
        transcript.feed(self.body)
        transcript.end()

    def _translated(self) -> bytes:
        return dumps(plain(self._result.model_dump(exclude_unset=True)))

    def _take(self, transcript: MediaTranscript) -> None:
        document = loads(self.body)
        if not isinstance(document, dict):
            raise ValueError("the answer is no object")
        transcript.take(document)

    def _failure(self, error: Exception) -> GatewayError:
        return self._failures.of(self._attempt.deployment.provider, self._exchange, self._call.cancellation, error)

    def chunks(self) -> Iterator[Chunk]:
        """All of it."""
        yield Chunk(self.body, content=True)

    def close(self) -> None:
        """Free the connection (upstream.Answer)."""
        self._exchange.close()
        self._call.cancellation.unsubscribe(self._exchange.abort)
