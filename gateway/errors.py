"""Everything that can go wrong, in one tree.

GatewayError                    status  code                        another deployment?
├── CallerError                                                     no
│   ├── NotAuthenticated        401     invalid_api_key
│   ├── NotPermitted            403     not_permitted
│   │   ├── ModelNotAllowed     403     model_not_allowed
│   │   ├── EndpointNotAllowed  403     endpoint_not_allowed
│   │   ├── RightsExceeded      403     rights_exceeded
│   │   └── ModelNotPriced      403     model_not_priced
│   ├── InvalidRequest          400     (names the field in `param`)
│   │   ├── BodyTooLarge        413     request_too_large
│   │   ├── BodyTooSlow         408     request_timeout
│   │   └── UnsupportedBody     415     unsupported_content_encoding
│   ├── ModelNotFound           404     model_not_found
│   ├── ObjectNotFound          404     not_found
│   ├── Conflict                409     conflict
│   │   └── NameReused          409     idempotency_key_reused
│   ├── LimitExceeded           429     rate_limit_exceeded
│   │   └── BudgetExceeded      429     budget_exceeded
│   ├── NoSuchRoute             404     unknown_url
│   └── MethodNotAllowed        405     method_not_allowed
├── UpstreamError                       (source "provider")
│   ├── ProviderRefused         4xx     the provider's own          no: the request is at fault
│   ├── ProviderLimited         429     the provider's own          yes
│   ├── ProviderFailed          5xx     the provider's own          yes
│   ├── ProviderRejectedKey     502     provider_rejected_key       yes
│   ├── ProviderUnreachable     502     provider_unreachable        yes
│   ├── ProviderInvalid         502     provider_invalid_response   yes
│   ├── ProviderStreamEnded     502     provider_stream_ended       yes
│   └── ProviderTimeout         504     provider_timeout            yes
├── ProviderNotConfigured       503     provider_not_configured     no
├── DeadlineExceeded            504     deadline_exceeded           no
├── NotCached                   504     not_cached                  no
├── ShuttingDown                503     shutting_down               no
├── StoreUnavailable            503     store_unavailable           no
├── TraceBackpressure           503     trace_backpressure          no
├── CallerGone                  499     caller_gone                 no
└── InternalError               500     internal_error              no

An error knows its HTTP status, its public code and whether another deployment may be tried. `wire` turns one
into the body of a dialect; `upstream.failures` makes the provider's part of the tree.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """An outcome that the caller is told about.

    Args:
        message: one sentence for the caller; it holds no secret and no traceback.
        param: the field of the request that is at fault, or None.
        code: overrides the class's public code.
        type: overrides the class's `error.type`.
        status: overrides the class's HTTP status.
        retry_after: a `Retry-After` value as HTTP has it (RFC 9110, section 10.2.3: seconds or a date).
        retry_after_ms: a `retry-after-ms` value: milliseconds, as OpenAI's SDKs obey it before `Retry-After`.
        should_retry: overrides the class's `should_retry`.
        provider: the provider that the error came from, or None where it is the gateway's own.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str | None] = "internal_error"
    type: ClassVar[str] = "server_error"
    source: ClassVar[str] = "gateway"
    elsewhere: ClassVar[bool] = False
    #: What the OpenAI and Anthropic SDKs obey in `x-should-retry`; None leaves it to their own rules.
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,
        status: int | None = None,
        retry_after: str | None = None,
        retry_after_ms: str | None = None,
        should_retry: bool | None = None,
        provider: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.public_code = code if code is not None else self.code
        self.public_type = type or self.type
        self.http_status = status or self.status
        self.retry_after = retry_after
        self.retry_after_ms = retry_after_ms
        if should_retry is not None:
            self.should_retry = should_retry
        self.provider = provider
        #: What the answer's headers say of the call that failed.
        self.reply_headers: dict[str, str] = {}
        #: The id of the limit or budget that refused the call, and those of all that it was held to.
        self.refused_by: str | None = None
        self.held_to: tuple[str, ...] = ()


class CallerError(GatewayError):
    """The request is at fault; trying it elsewhere would not help."""

    status = 400
    code: ClassVar[str | None] = None
    type = "invalid_request_error"


class NotAuthenticated(CallerError):
    """No credential, or not one that is known; the answer is the same for both."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"


class NotPermitted(CallerError):
    """The caller is known and may not do this."""

    status = 403
    code = "not_permitted"
    type = "permission_error"


class ModelNotAllowed(NotPermitted):
    """The caller's rights do not have this model."""

    code = "model_not_allowed"


class EndpointNotAllowed(NotPermitted):
    """The caller's rights do not have this operation."""

    code = "endpoint_not_allowed"


class RightsExceeded(NotPermitted):
    """A key would have more rights than whoever makes it, or than the key that it hangs from."""

    code = "rights_exceeded"


class ModelNotPriced(NotPermitted):
    """A budget in US dollars is about the call, and nobody knows what the model costs."""

    code = "model_not_priced"
    should_retry = False


class InvalidRequest(CallerError):
    """The body or a header cannot be used; `param` names the field."""


class BodyTooLarge(InvalidRequest):
    """More bytes than `GATEWAY_MAX_BODY_MB`, on the wire or after unpacking; of a form than `GATEWAY_MAX_UPLOAD_MB`."""

    status = 413
    code = "request_too_large"


class BodyTooSlow(InvalidRequest):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class UnsupportedBody(InvalidRequest):
    """A `Content-Encoding` that is not read here (RFC 9110, section 15.5.16)."""

    status = 415
    code = "unsupported_content_encoding"


class ModelNotFound(CallerError):
    """No provider answers to this model name."""

    status = 404
    code = "model_not_found"


class ObjectNotFound(CallerError):
    """An id that names nothing of this caller's: there is no such object, or it is another tenant's."""

    status = 404
    code = "not_found"


class Conflict(CallerError):
    """What is asked for does not go with what there is: a name that is taken, a change of what was deleted."""

    status = 409
    code = "conflict"


class NameReused(Conflict):
    """Another request had the same `Idempotency-Key`."""

    code = "idempotency_key_reused"
    should_retry = False  # SDKs send a 409 again


class LimitExceeded(CallerError):
    """A limit of the gateway's has no room for the call now."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class BudgetExceeded(LimitExceeded):
    """A budget has not enough left for the call; waiting makes none before its period ends."""

    code = "budget_exceeded"
    type = "insufficient_quota"
    should_retry = False


class NoSuchRoute(CallerError):
    """Nothing is served at this path."""

    status = 404
    code = "unknown_url"


class MethodNotAllowed(CallerError):
    """The path is served, with other methods."""

    status = 405
    code = "method_not_allowed"


class UpstreamError(GatewayError):
    """The provider's doing."""

    status = 502
    code: ClassVar[str | None] = "provider_error"
    type = "api_error"
    source = "provider"
    elsewhere = True


class ProviderRefused(UpstreamError):
    """The provider finds the request at fault (a 4xx of its own)."""

    status = 400
    code = None
    type = "invalid_request_error"
    elsewhere = False


class ProviderLimited(UpstreamError):
    """The provider's rate limit or quota."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class ProviderFailed(UpstreamError):
    """The provider answered with a 5xx, or with an error inside its stream."""


class ProviderRejectedKey(UpstreamError):
    """The provider does not accept the gateway's own credential: the operator's matter, so no 401 or 403."""

    code = "provider_rejected_key"
    should_retry = False


class ProviderUnreachable(UpstreamError):
    """No connection, or one that was reset before an answer."""

    code = "provider_unreachable"


class ProviderInvalid(UpstreamError):
    """An answer that is none: broken JSON, no choices, JSON where a stream was asked for, a redirect."""

    code = "provider_invalid_response"


class ProviderStreamEnded(UpstreamError):
    """A stream that stopped before every choice had its `finish_reason`."""

    code = "provider_stream_ended"


class ProviderTimeout(UpstreamError):
    """Nothing came from the provider for too long."""

    status = 504
    code = "provider_timeout"
    type = "timeout_error"


class ProviderNotConfigured(GatewayError):
    """A provider that is known, without the credential or address that it needs."""

    status = 503
    code = "provider_not_configured"
    type = "api_error"
    should_retry = False


class DeadlineExceeded(GatewayError):
    """The call took longer than `GATEWAY_TIMEOUT_S`."""

    status = 504
    code = "deadline_exceeded"
    type = "timeout_error"


class NotCached(GatewayError):
    """Only an answer of before was wanted, and there is none (RFC 9111, section 5.2.1.7)."""

    status = 504
    code = "not_cached"
    type = "invalid_request_error"
    should_retry = False


class TraceBackpressure(GatewayError):
    """The trace of the call could not be kept, and the operator wants no call without one."""

    status = 503
    code = "trace_backpressure"
    type = "api_error"
    should_retry = True


class StoreUnavailable(GatewayError):
    """A store of the gateway's does not answer, and the request cannot be answered without it."""

    status = 503
    code = "store_unavailable"
    type = "api_error"
    should_retry = True


class ShuttingDown(GatewayError):
    """The process stops before the call could end."""

    status = 503
    code = "shutting_down"
    type = "api_error"
    should_retry = True


class CallerGone(GatewayError):
    """The caller closed its connection; nobody reads this answer."""

    status = 499
    code = "caller_gone"
    type = "api_error"


class InternalError(GatewayError):
    """A fault of the gateway. The log has the traceback under the request id; the answer has not."""
