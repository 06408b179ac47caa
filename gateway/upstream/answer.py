"""What a function of LiteLLM opened: the provider's own bytes, or LiteLLM's translation of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.embeddings import as_base64
from gateway.core.endpoints import EMBEDDINGS
from gateway.core.transcript import Malformed
from gateway.core.wire import data_event, dumps, loads
from gateway.errors import GatewayError, ProviderInvalid
from gateway.upstream.exchange import Exchange
from gateway.upstream.failures import Failures
from gateway.upstream.relay import Relay, ended_early


class LiteLLMAnswer:
    """What a function of LiteLLM opened (upstream.Answer)."""

    def __init__(
        self,
        attempt: Attempt,
        call: Call,
        exchange: Exchange,
        result: Any,
        failures: Failures,
        *,
        relayed: bool,
        silence_s: float | None = None,
    ) -> None:
        self._attempt = attempt
        self._call = call
        self._exchange = exchange
        self._result = result
        self._failures = failures
        self._provider = attempt.deployment.provider
        self._relayed = relayed and (not call.stream or exchange.answer is not None)
        self.tells_silence = self._relayed and call.stream and silence_s is not None
        if self.tells_silence:
            exchange.silence_s = silence_s
            exchange.patience(exchange.step_s)
        self.body = b""

    def read(self) -> None:
        """Take in an answer that is not streamed: the provider's own bytes where they are the caller's wire.

        Raises:
            UpstreamError: it is no chat completion.
        """
        try:
            if self._relayed:
                document = loads(self._exchange.body or b"")
                self.body = self._exchange.body or b""
            else:
                document = plain(self._result.model_dump(exclude_unset=True))
                if self._call.endpoint is EMBEDDINGS and self._call.body.get("encoding_format") == "base64":
                    document = as_base64(document)
                self.body = dumps(document)
            if not isinstance(document, dict):
                raise Malformed("the answer is no object")
            self._attempt.transcript.take(document)
        except (ValueError, RecursionError, AttributeError) as error:
            raise self._failure(error) from error
        finally:
            self.close()

    def chunks(self) -> Iterator[Chunk | None]:
        """Read the stream to its end (upstream.Answer)."""
        if self._relayed:
            relay = Relay(
                self._provider,
                self._attempt.transcript,
                usage_asked=self._call.usage_asked,
                failures=self._failures,
                translated=self._attempt.sent is not None,
            )
            chunks = relay.chunks(iter(self._exchange.answer or ()))
        else:
            chunks = self._translated()
        try:
            yield from chunks
        except GatewayError:
            # a connection that was shut down can look like a stream that was cut, in the middle of an event too
            if (stopped := self._failures.stopped(self._call.cancellation)) is not None:
                raise stopped from None
            raise
        except Exception as error:
            # a stream of LiteLLM's raises as many classes as its opening
            raise self._failure(error) from error

    def _translated(self) -> Iterator[Chunk]:
        """LiteLLM's chunks. Braintrust's generator around them is never iterated: it would end the span too early."""
        transcript = self._attempt.transcript
        for chunk in self._result:
            piece = plain(chunk.model_dump(exclude_unset=True))
            if self._invented(piece):
                raise ended_early(self._provider)
            if transcript.model is None and self._exchange.path.endswith("/v1/messages"):
                transcript.model = _named_model(self._exchange.head)
            content = transcript.add(piece)
            if not self._call.usage_asked and piece.pop("usage", None) and not piece.get("choices"):
                continue
            yield Chunk(data_event(piece), content, piece=piece)
        if not transcript.complete or self._cut():
            raise ended_early(self._provider)

    def _invented(self, piece: dict[str, Any]) -> bool:
        """Whether LiteLLM made up the finish_reason of this piece: it has `stop` for a stream that just ends."""
        ends = any(choice["finish_reason"] for choice in piece.get("choices") or ())
        if not ends or not hasattr(self._result, "received_finish_reason"):
            return False
        given = self._result.received_finish_reason or getattr(self._result, "intermittent_finish_reason", None)
        return given is None or self._cut()

    def _cut(self) -> bool:
        """Whether an Anthropic stream broke off before its stop_reason."""
        tail = self._exchange.tail
        ended = b"message_stop" in tail or b'"stop_reason"' in tail
        return self._exchange.path.endswith("/v1/messages") and not ended

    def _failure(self, error: Exception) -> GatewayError:
        if (stopped := self._failures.stopped(self._call.cancellation)) is not None:
            return stopped
        if self._exchange.stream and self._exchange.fault is None:
            if (reported := _error_event(self._exchange.tail)) is not None:
                return self._failures.reported(self._provider, reported)
            return ProviderInvalid(f"{self._provider} sent a stream that cannot be read.", provider=self._provider)
        return self._failures.of(self._provider, self._exchange, self._call.cancellation, error)

    def close(self) -> None:
        """Free the connection (upstream.Answer)."""
        self._exchange.close()
        self._call.cancellation.unsubscribe(self._exchange.abort)


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's answer without the nulls that LiteLLM adds; those that OpenAI's schema requires stay."""
    plain: dict[str, Any] = _without_nulls(document)
    for choice in plain.get("choices") or ():
        choice.setdefault("finish_reason", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return plain


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _named_model(head: bytes) -> str | None:
    """The model that an Anthropic stream begins with; LiteLLM's chunks have the one that was asked for."""
    for line in head.splitlines():
        if line.startswith(b"data:") and b'"message_start"' in line:
            try:
                named = json.loads(line[5:])["message"]["model"]
            except (ValueError, RecursionError, LookupError, TypeError):
                return None
            return named if isinstance(named, str) else None
    return None


def _error_event(tail: bytes) -> Any:
    """The error in the last piece of a stream, in Anthropic's or OpenAI's shape."""
    for line in reversed(tail.splitlines()):
        if line.startswith(b"data:") and b'"error"' in line:
            try:
                event = json.loads(line[5:])
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("error"):
                return event["error"]
    return None
