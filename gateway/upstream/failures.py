"""What an exchange's end means to the caller: the provider's part of the error tree.

Read from the wire (fault, status, body, headers). A LiteLLM exception is looked at only when nothing was sent: its
messages are prefixed, and may hold a traceback or a credential that the provider echoed.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from gateway.core.calls import CALLER_GONE, DEADLINE, SHUTTING_DOWN, SLOW_START, Cancellation
from gateway.core.redaction import Redactor
from gateway.core.trying import REFUSED, whose
from gateway.errors import (
    CallerGone,
    DeadlineExceeded,
    GatewayError,
    InvalidRequest,
    ProviderFailed,
    ProviderInvalid,
    ProviderLimited,
    ProviderRefused,
    ProviderRejectedKey,
    ProviderTimeout,
    ProviderUnreachable,
    ShuttingDown,
    UpstreamError,
)
from gateway.upstream.exchange import Exchange, Fault

log = logging.getLogger(__name__)

#: A provider's sentence beyond this is an HTML page or a dump.
_LONGEST_MESSAGE = 4000
#: A code, a type, the name of a parameter.
_LONGEST_WORD = 256

#: RFC 9110, section 10.2.3: seconds, or a date.
_RETRY_AFTER = re.compile(r"\d{1,9}(\.\d{1,6})?|[A-Z][a-z]{2}, [0-9A-Za-z: -]{10,40}", re.ASCII)

_MILLISECONDS = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)
#: What a provider says of trying again, in the header that its own SDKs obey.
_SAID = {"true": True, "false": False}

#: Codes that find the request at fault where no status says so: a Response's own (API reference, "The response object",
#: `error.code`), and that of a prompt which is too long.
REFUSALS = frozenset(
    (
        *("context_length_exceeded", "invalid_prompt", "bio_policy", "misalignment_policy_violation"),
        *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode"),
        *("image_too_large", "image_too_small", "image_parse_error", "image_content_policy_violation"),
        *("image_file_too_large", "unsupported_image_media_type", "empty_image_file", "failed_to_download_image"),
        "image_file_not_found",
    )
)

#: Statuses that an error inside a stream has as its code where the request is at fault (vLLM's and OpenRouter's).
_CALLERS_FAULTS = (400, 413, 422)

_REASONS: dict[str, tuple[type[GatewayError], str]] = {
    CALLER_GONE: (CallerGone, "The caller closed the connection."),
    DEADLINE: (
        DeadlineExceeded,
        "The call took longer than this gateway allows; stream it to see its progress.",
    ),
    SHUTTING_DOWN: (ShuttingDown, "The gateway is shutting down; send the request again."),
    SLOW_START: (ProviderTimeout, "The provider's stream had no content in time, so another was tried."),
}

_FAULTS: dict[str, tuple[type[UpstreamError], str]] = {
    "connect": (ProviderUnreachable, "{provider} could not be reached."),
    "connect_timeout": (ProviderUnreachable, "{provider} did not accept a connection in time."),
    "read_timeout": (ProviderTimeout, "{provider} did not answer in time."),
    "reset": (ProviderUnreachable, "{provider} closed the connection before its answer was complete."),
    "redirect": (ProviderInvalid, "{provider} answered with a redirect, which is never followed."),
    "not_sse": (ProviderInvalid, "{provider} did not answer with the event stream that was asked for."),
    "too_large": (ProviderInvalid, "{provider} sent an answer that is too large."),
    "encoding": (ProviderInvalid, "{provider} sent an answer that cannot be unpacked."),
    "repeated": (ProviderInvalid, "{provider} did not accept the request as it was sent."),
}


class Failures:
    """Turns what happened on the wire into an error of the tree.

    Args:
        redactor: takes credentials out of what a provider says.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def stopped(self, cancellation: Cancellation) -> GatewayError | None:
        """The error of a call that was aborted, or None."""
        return stopped(cancellation)

    def of(
        self, provider: str, exchange: Exchange, cancellation: Cancellation, raised: Exception | None = None
    ) -> GatewayError:
        """Say why an attempt failed.

        Args:
            provider: its name, for the sentence.
            exchange: what happened on the wire.
            cancellation: the call's; an aborted call fails as its reason says, whatever the wire did.
            raised: what LiteLLM raised, if it did.
        """
        if (error := stopped(cancellation)) is not None:
            return error
        if exchange.fault is not None and exchange.fault.kind == "host" and exchange.status is None:
            return _not_fetched(provider, exchange.fault)
        if exchange.status is not None and exchange.status >= 400:
            return self._answered(provider, exchange)
        if exchange.fault is not None:
            if exchange.fault.kind == "not_sse" and (error := self._error_in(provider, exchange.body)) is not None:
                return error
            kind, sentence = _FAULTS.get(exchange.fault.kind, _FAULTS["reset"])
            return kind(sentence.format(provider=provider), provider=provider)
        if not exchange.sent:
            return _not_sent(provider, raised)
        return self._error_in(provider, exchange.body) or ProviderInvalid(
            f"{provider} sent an answer that cannot be read.", provider=provider
        )

    def reported(self, provider: str, error: Any) -> UpstreamError:
        """The error that a provider reports inside a stream or a 200: its own object, or only a text."""
        fields = error if isinstance(error, Mapping) else {"message": error}
        code = self._word(fields.get("code"))
        status = fields.get("code") if isinstance(fields.get("code"), int) else fields.get("status_code")
        kind: type[UpstreamError] = ProviderFailed
        if status == 429 or code == "rate_limit_exceeded" or fields.get("type") == "rate_limit_error":
            kind = ProviderLimited
        elif code in REFUSALS or fields.get("type") == "invalid_request_error" or status in _CALLERS_FAULTS:
            kind = ProviderRefused
        return kind(
            self._message(fields) or f"{provider} reported an error.",
            code=code or "provider_error",
            type=self._word(fields.get("type")),
            param=self._word(fields.get("param")),
            provider=provider,
        )

    def cleaned(self, answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """An answer, or the event that ends one, whose `error` holds no credential any more; None where it held none.

        Only the error is looked at: what the model said is the caller's.
        """
        response = answer.get("response")
        told = response if isinstance(response, Mapping) else answer
        error = told.get("error")
        if error is None or (clean := self._redactor.value(error)) == error:
            return None
        return {**answer, "response": {**told, "error": clean}} if told is response else {**answer, "error": clean}

    def _answered(self, provider: str, exchange: Exchange) -> UpstreamError:
        status, headers = exchange.status or 500, exchange.headers or {}
        fields = _error_object(exchange.body)
        message = self._message(fields) or f"{provider} answered with status {status}."
        details: dict[str, Any] = {
            "code": self._word(fields.get("code")),
            "type": self._word(fields.get("type")),
            "param": self._word(fields.get("param")),
            "retry_after": _retry_after(headers.get("retry-after")),
            "retry_after_ms": _milliseconds(headers.get("retry-after-ms")),
            "should_retry": _SAID.get(str(headers.get("x-should-retry"))),
            "provider": provider,
        }
        refused = ProviderRefused(message, status=status, **details)
        if status == 403 and whose(refused) == REFUSED:
            return refused  # a prompt that is moderated away says nothing of the credential (OpenRouter's errors, 403)
        if status in (401, 403, 407):
            # the gateway's credential, not the caller's: a 401 would send the caller to look for a fault of its own
            details.update(code=None, type=None, param=None, should_retry=None)
            return ProviderRejectedKey(f"{provider} rejected this gateway's credential: {message}", **details)
        if status == 429:
            return ProviderLimited(message, **details)
        if status == 408:
            return ProviderTimeout(message, **details)
        if status >= 500:
            # 529 and its like are the provider's own; what is above is no HTTP status
            return ProviderFailed(message, status=status if status <= 599 else 502, **details)
        return refused

    def _error_in(self, provider: str, body: bytes | None) -> UpstreamError | None:
        fields = _error_object(body)
        return self.reported(provider, fields) if fields else None

    def _message(self, fields: Mapping[str, Any]) -> str | None:
        message = _text(fields.get("message"))
        # cleaned before it is cut: half of a key has no shape any more
        return self._redactor.text(message[: 16 * _LONGEST_MESSAGE])[:_LONGEST_MESSAGE] if message else None

    def _word(self, value: object) -> str | None:
        word = _text(value)
        return self._redactor.text(word[: 16 * _LONGEST_WORD])[:_LONGEST_WORD] if word else None


def stopped(cancellation: Cancellation) -> GatewayError | None:
    """The error of a call that was aborted, or None where it was not."""
    if cancellation.reason is None:
        return None
    kind, sentence = _REASONS[cancellation.reason]
    return kind(sentence)


def raise_if_stopped(cancellation: Cancellation) -> None:
    """Raise the error of a call that was aborted."""
    if (error := stopped(cancellation)) is not None:
        raise error


def pause(cancellation: Cancellation, seconds: float) -> None:
    """Wait, as long as the call is not aborted.

    Raises:
        GatewayError: it is.
    """
    over = threading.Event()
    cancellation.subscribe(over.set)
    try:
        over.wait(seconds)
    finally:
        cancellation.unsubscribe(over.set)
    raise_if_stopped(cancellation)


def _not_fetched(provider: str, fault: Fault) -> GatewayError:
    return InvalidRequest(
        f"{provider} cannot fetch {fault.detail} itself, and this gateway fetches nothing for a caller: send images "
        "and files as base64 data URLs.",
        param="messages",
        code="url_not_fetched",
        provider=provider,
    )


def _not_sent(provider: str, raised: Exception | None) -> GatewayError:
    """LiteLLM gave up before anything was sent. Only its own status is believed, never its words."""
    if getattr(raised, "status_code", None) in (401, 403):
        return ProviderRejectedKey(f"{provider} cannot be called with this gateway's credential.", provider=provider)
    # its words hold the whole conversation, so only the kind of it is logged
    log.warning("a request for %s was not sent: LiteLLM raised %s", provider, type(raised).__name__)
    return InvalidRequest(f"This request cannot be translated for {provider}.", code="unsupported", provider=provider)


def _error_object(body: bytes | None) -> Mapping[str, Any]:
    """The error of an answer, in the shapes that providers use; empty where there is none."""
    try:
        document = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list) and document:  # Google's
        document = document[0]
    if not isinstance(document, Mapping):
        return {}
    error = document.get("error")
    if isinstance(error, Mapping):
        return error
    if isinstance(error, str):
        return {**document, "message": error}
    for name in ("message", "detail"):
        if isinstance(document.get(name), str) and "choices" not in document:
            return {**document, "message": document[name]}
    return {}


def _retry_after(value: object) -> str | None:
    return value if isinstance(value, str) and _RETRY_AFTER.fullmatch(value) else None


def _milliseconds(value: object) -> str | None:
    return value if isinstance(value, str) and _MILLISECONDS.fullmatch(value) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
