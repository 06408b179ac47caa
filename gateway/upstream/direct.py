"""The provider's own operations on its own wire: the caller's body goes out, the provider's bytes come back.

For what LiteLLM has no synchronous call for (Anthropic's messages), would rebuild or fake (the stream of OpenAI's
responses), or sends only when it is read (the stream of a text completion). Without LiteLLM there is no span of
Braintrust's patch either; the door is the same, and with it connections, deadlines and aborts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote

import httpx

from gateway.core import responses
from gateway.core.calls import Attempt, Call, Chunk, Deployment
from gateway.core.endpoints import CHAT, EMBEDDINGS, Endpoint
from gateway.core.media import MediaTranscript
from gateway.core.providers import SAME_WIRE
from gateway.core.transcript import Malformed
from gateway.core.wire import dumps, loads
from gateway.errors import CallerError, GatewayError, ObjectNotFound
from gateway.offload import LARGE_BYTES, offload
from gateway.upstream.door import Door
from gateway.upstream.exchange import WHOLE, Exchange, rate_limits
from gateway.upstream.failures import Failures
from gateway.upstream.http1 import Content, Parts
from gateway.upstream.relay import EventRelay, Relay

#: Where each provider answers, down to what its version begins with.
_ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "text-completion-openai": "https://api.openai.com/v1",
    "xai": "https://api.x.ai/v1",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "together_ai": "https://api.together.xyz/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "featherless_ai": "https://api.featherless.ai/v1",
    "anthropic": "https://api.anthropic.com/v1",
}
#: What an operator may have written behind an address, because another client wants it there.
_ENDINGS = {
    "anthropic": ("/messages", "/v1"),
    "azure": ("/responses", "/openai/v1", "/openai"),
}
#: What stands between an operator's address and the operation.
_BETWEEN = {"anthropic": "/v1", "azure": "/openai/v1"}

#: A letter of `model` as an escape.
_SPELT = re.compile(rb"\\u006[45c-fC-F]")
_KEY = b'"model"'
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*+")')

_EVENTS = "text/event-stream"

#: Operations that go to their provider so where the operator wants it, and else by way of LiteLLM.
_RELAYED = (CHAT, EMBEDDINGS)

#: How a key is shown, where it is no bearer's.
_CREDENTIALS = {"anthropic": ("x-api-key", ""), "azure": ("api-key", "")}

#: The version that Anthropic's SDKs send; the API refuses a request without one.
_ANTHROPIC_VERSION = "2023-06-01"


class Direct:
    """Reaches providers that speak the caller's wire (upstream.Upstream).

    Args:
        failures: makes errors of what went wrong.
        first_byte_s, idle_s: how long a stream may be silent before its head, and between its bytes.
        silence_s: after how long its silence is told; None for never.
    """

    def __init__(
        self, failures: Failures, *, first_byte_s: float, idle_s: float, silence_s: float | None = None
    ) -> None:
        self._failures = failures
        self._silence_s = silence_s
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._door = Door()

    def start(self) -> None:
        """Nothing to make ready: a connection is made when it is needed."""

    def close(self) -> None:
        """Close the idle connections to all providers."""
        self._door.shut()

    def serves(self, endpoint: Endpoint, deployment: Deployment) -> bool:
        """Whether the provider has the operation itself, and can be asked with a plain key, or with none."""
        # one that has a public address, or is a cloud's, wants to know who asks
        keyless = deployment.provider not in _ADDRESSES and deployment.provider not in _BETWEEN
        known = deployment.api_base is not None or deployment.provider in _ADDRESSES
        relayed = deployment.relay and endpoint in _RELAYED and deployment.provider in SAME_WIRE
        spoken = deployment.provider in endpoint.native or relayed
        return spoken and known and (keyless or deployment.api_key is not None)

    def open(self, attempt: Attempt, call: Call) -> _Answer:
        """Send the call (Upstream.open)."""
        url, deployment = _url(attempt.deployment, call), attempt.deployment
        raw = offload(_raw, deployment, call) if call.body_bytes > LARGE_BYTES else _raw(deployment, call)
        in_pieces = call.stream or call.pieces
        remaining_s = max(0.001, call.deadline_s - time.monotonic())
        waits_s = attempt.deployment.waits_s(stream=call.stream)
        exchange = Exchange(
            host=None,  # the address is the configuration's; nobody else has a say in it
            stream=in_pieces,
            # as on LiteLLM's way: the watcher ends a call whose time is up, and says so
            head_s=min(self._first_byte_s, waits_s, remaining_s + 1) if call.stream else min(waits_s, remaining_s + 1),
            idle_s=min(self._idle_s, remaining_s + 1) if in_pieces else min(waits_s, remaining_s + 1),
            silence_s=None if call.pieces or not call.stream else self._silence_s,
            events=not call.pieces,
            whole=() if call.endpoint.answer == "bytes" else WHOLE,
            bounded=call.endpoint.answer != "bytes",
        )
        call.cancellation.subscribe(exchange.abort)
        if isinstance(attempt.transcript, MediaTranscript):
            attempt.transcript.asked(call.body)
        answer = _Answer(attempt, call, exchange, self._failures, self._silence_s)
        try:
            headers, path = _headers(deployment, call), call.endpoint.path
            answer.check(partial(self._door.send, exchange, call.endpoint.method, url, path, headers, raw))
        except CallerError:
            # the upload broke off; a caller that has left, or that was too slow for its deadline, looks the same
            if (stopped := self._failures.stopped(call.cancellation)) is not None:
                raise stopped from None
            raise
        if not in_pieces:
            answer.read()
        return answer

    def opens_in_time(self, _attempt: Attempt, _call: Call) -> bool:
        """Yes: it waits for the head of a stream while that is read (Upstream.opens_in_time)."""
        return self._silence_s is not None


def _url(deployment: Deployment, call: Call) -> str:
    if call.path_id in (".", ".."):  # RFC 3986, section 5.2.4: it would be another path; no escape keeps it in place
        raise ObjectNotFound(f"{deployment.provider} has nothing of the id {call.path_id!r}.", param="id")
    path = call.endpoint.provider_path.replace("{id}", quote(call.path_id or "", safe=""))
    return _base(deployment) + path + (f"?{call.query}" if call.query else "")


def _raw(deployment: Deployment, call: Call) -> Content:
    if call.upload is not None:
        return call.upload.body(deployment.model if call.endpoint.names_model else None)
    if not call.endpoint.parameters:
        return None
    if not call.endpoint.names_model:
        return call.raw if call.raw is not None else dumps(call.body)
    adds_usage = call.stream and not call.endpoint.ends and not call.usage_asked  # else unnamed chunks tell none
    if not call.history and (own := own_words(deployment, call, adds_usage=adds_usage)) is not None:
        return own
    asked = responses.continued(call.body, call.history) if call.history else call.body
    body = {**asked, "model": deployment.model}
    if adds_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return dumps(body)


def own_words(deployment: Deployment, call: Call, *, adds_usage: bool) -> Parts | None:
    """The caller's own text with the provider's name of the model; None where it cannot be told where that stands.

    To write a body anew costs as much as to read it, and for one with an image of 30 MB every other call waits
    meanwhile. A key `"model"` with its quotes stands in no string of JSON, where they would be escaped; where it may be
    spelt with escapes itself, or stands twice, the body is written anew.
    """
    raw = call.raw
    if raw is None or (adds_usage and "stream_options" in call.body):
        return None
    if b"\\" in raw and _SPELT.search(raw) is not None:
        return None
    found = [match for place in _places(_KEY, raw) if (match := _MODEL.match(raw, place)) is not None]
    if len(found) != 1:
        return None
    text, start, (before, after) = memoryview(raw), raw.find(b"{") + 1, found[0].span(1)
    usage = b'"stream_options":{"include_usage":true},' if adds_usage else b""
    return b"{" + usage, text[start:before], dumps(deployment.model), text[after:]


def _places(needle: bytes, text: bytes) -> Iterator[int]:
    place = text.find(needle)
    while place >= 0:
        yield place
        place = text.find(needle, place + 1)


def _base(deployment: Deployment) -> str:
    provider = deployment.provider
    if deployment.api_base is None:
        return _ADDRESSES[provider]
    base = deployment.api_base.rstrip("/")
    for ending in _ENDINGS.get(provider, ()):
        base = base.removesuffix(ending)
    return base + _BETWEEN.get(provider, "")


def _headers(deployment: Deployment, call: Call) -> dict[str, str]:
    key = deployment.api_key.reveal() if deployment.api_key is not None else None
    wanted = "*/*" if call.pieces else "text/event-stream" if call.stream else "application/json"
    headers = {"Content-Type": call.content_type or "application/json", "Accept": wanted}
    family = "anthropic-" if deployment.provider == "anthropic" else "openai-"
    own: dict[str, str] = {"anthropic-version": _ANTHROPIC_VERSION} if family == "anthropic-" else {}
    if key is not None:
        name, beginning = _CREDENTIALS.get(deployment.provider, ("Authorization", "Bearer "))
        own[name] = beginning + key
    passed = {name: value for name, value in call.provider_headers.items() if name.startswith(family)}
    return {**headers, **own, **passed}


class _Answer:
    """What the provider answers, as it comes (upstream.Answer)."""

    def __init__(
        self, attempt: Attempt, call: Call, exchange: Exchange, failures: Failures, silence_s: float | None
    ) -> None:
        self._silence_s = silence_s
        self._attempt = attempt
        self._call = call
        self._exchange = exchange
        self._failures = failures
        self._provider = attempt.deployment.provider
        # where its head has to tell what it is, nothing can be said before that
        self.tells_silence = call.pieces or exchange.silence_s is not None
        self.body = b""

    def check(self, go_on: Callable[[], None]) -> None:
        """Send, or go on waiting, and look at what has come: a failure is raised as the error that it is."""
        exchange, raised = self._exchange, None
        try:
            go_on()
        except httpx.RequestError as error:
            raised = error  # the exchange knows better what happened
        finally:
            self._attempt.provider_headers = rate_limits(exchange)
        failed = raised is not None or exchange.fault is not None
        if failed or (exchange.later is None and not 200 <= (exchange.status or 0) < 300):
            self.close()
            raise self._failure(raised) from raised

    def read(self) -> None:
        """Take in an answer that is not streamed.

        Raises:
            UpstreamError: it is no answer of this operation.
        """
        transcript = self._attempt.transcript
        try:
            self._take(self._exchange.body or b"")
        finally:
            self.close()
        if (failure := getattr(transcript, "failure", None)) is not None:
            self._attempt.error = self._failures.reported(self._provider, failure)

    def _take(self, body: bytes) -> None:
        """Take in a whole answer."""
        try:
            self.body = offload(self._read_document, body) if len(body) > LARGE_BYTES else self._read_document(body)
        except (ValueError, RecursionError) as error:
            raise self._failure(error) from error

    def _read_document(self, body: bytes) -> bytes:
        document = loads(body)
        if not isinstance(document, dict):
            raise Malformed("the answer is no object")
        self._attempt.transcript.take(document)
        return body if (clean := self._failures.cleaned(document)) is None else dumps(clean)

    def chunks(self) -> Iterator[Chunk | None]:
        """Read the stream to its end (upstream.Answer)."""
        while (go_on := self._exchange.later) is not None:
            yield None
            self.check(go_on)
        if self._call.pieces:
            attempt = self._attempt
            attempt.media_type = self._exchange.headers.get("content-type", "").strip()
            attempt.disposition = self._exchange.headers.get("content-disposition")
            if not attempt.media_type.lower().startswith(_EVENTS):
                yield from self._passed()
                return
            self._exchange.silence_s = self._silence_s
            self._exchange.patience(self._exchange.step_s)
        relay = self._relay()
        try:
            yield from relay.chunks(iter(self._exchange.answer or ()))
        except GatewayError:
            # a connection that was shut down can look like a stream that was cut, in the middle of an event too
            if (stopped := self._failures.stopped(self._call.cancellation)) is not None:
                raise stopped from None
            raise
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        finally:
            self._exchange.ended = relay.ended

    def _passed(self) -> Iterator[Chunk]:
        """Pass on an answer that is no event stream: bytes as they come, all else once it is looked at."""
        attempt, exchange, transcript = self._attempt, self._exchange, self._attempt.transcript
        assert isinstance(transcript, MediaTranscript)
        try:
            if self._call.endpoint.answer == "bytes":
                transcript.media_type = attempt.media_type
                for piece in exchange.answer or ():
                    transcript.feed(piece)
                    yield Chunk(piece, content=True)
                transcript.end()
                yield Chunk(b"", content=True)  # of one that is empty
            else:
                body = exchange.body if exchange.body is not None else b"".join(exchange.answer or ())
                if "json" in (attempt.media_type or "").lower() or body[:1] == b"{":
                    self._take(body)
                else:
                    self._take_text(transcript, body)
                yield Chunk(self.body, content=True)
        except httpx.HTTPError as error:
            raise self._failure(error) from error
        exchange.ended = True
        # a transcript as a plain text: nobody tells what it has used
        attempt.metered = attempt.metered and transcript.usage is not None

    def _take_text(self, transcript: MediaTranscript, body: bytes) -> None:
        try:
            transcript.take_text(body.decode())
        except ValueError as error:
            raise self._failure(error) from error
        self.body = body

    def _relay(self) -> Relay | EventRelay:
        endpoint, transcript = self._call.endpoint, self._attempt.transcript
        if endpoint.ends:
            return EventRelay(self._provider, transcript, endpoint.ends, self._failures, several=endpoint.ends_each)
        return Relay(
            self._provider,
            transcript,
            usage_asked=self._call.usage_asked,
            failures=self._failures,
            translated=self._attempt.sent is not None,
        )

    def _failure(self, error: Exception | None) -> GatewayError:
        return self._failures.of(self._provider, self._exchange, self._call.cancellation, error)

    def close(self) -> None:
        """Free the connection (upstream.Answer)."""
        self._exchange.close()
        self._call.cancellation.unsubscribe(self._exchange.abort)
