"""Flask glue that every blueprint shares: the gateway at hand, who calls, bodies, error answers, the access line."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask, Request, Response, current_app, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from gateway.core import body, wire
from gateway.core.calls import Caller, Parent
from gateway.core.misnamed import served_instead
from gateway.core.operations import KNOWN, PUBLIC
from gateway.core.rights import ADMIN, CALL
from gateway.errors import (
    BodyTooLarge,
    BodyTooSlow,
    EndpointNotAllowed,
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NoSuchRoute,
    NotAuthenticated,
    NotPermitted,
    StoreUnavailable,
)
from gateway.offload import give_way, offload
from gateway.pipeline import Gateway
from gateway.sockets import body_reader
from gateway.storage.database import StorageError
from gateway.tracing import Refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)
access = logging.getLogger("gateway.access")

JSON = dict[str, Any]
View = TypeVar("View", bound=Callable[..., Any])
T = TypeVar("T")

_CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

_PIECE = 65536
#: Of a body in chunks: a chunk may hold one byte, and takes the server some microseconds.
_CHUNKED_PIECE = 4096
#: How long a body may be read without giving the others a turn.
_BREATH_S = 0.01
#: How long the rest of a body that nobody wants is read all the same, so that who still sends gets to read the answer.
_LINGER_S = 5.0

#: What a browser's script may read of an answer (Fetch standard, "CORS-safelisted response-header name").
_EXPOSED = (
    "x-request-id, request-id, retry-after, retry-after-ms, x-should-retry, x-bt-span-id, x-bt-span-export, "
    "x-gateway-provider, x-gateway-model-id, x-gateway-attempted-retries, x-gateway-attempted-fallbacks, "
    "x-bt-cached, age, idempotent-replayed, x-gateway-dropped-params, "
    "x-gateway-response-cost, x-gateway-budget-warning, x-gateway-key-spend, "
    + ", ".join(
        name
        for measure in ("requests", "tokens")
        for part in ("limit", "remaining", "reset")
        for name in (f"x-ratelimit-{part}-{measure}", f"anthropic-ratelimit-{measure}-{part}")
    )
)


def bind(app: Flask, gateway: Gateway) -> None:
    """Give an app its gateway, and every request its id, its caller, its errors and its line in the log."""
    app.extensions["gateway"] = gateway
    app.before_request(_arrive)
    app.after_request(_finish)
    app.teardown_request(_abandon)
    app.register_error_handler(GatewayError, _refuse)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _refuse_fault)


def gateway_of(app: Flask) -> Gateway:
    """The gateway that an app was given."""
    gateway: Gateway = app.extensions["gateway"]
    return gateway


def current_gateway() -> Gateway:
    """The gateway of the app that serves this request."""
    return gateway_of(own(current_app))


def public(view: View) -> View:
    """Mark a view that needs no credential. Decided by the matched view, never by the path or a header."""
    view.public = True  # type: ignore[attr-defined]
    return view


def require(needed: str) -> Callable[[View], View]:
    """Mark a view by what it needs: a scope of `core/rights.py`, `PUBLIC` or `KNOWN`; else it needs `call`."""

    def mark(view: View) -> View:
        if needed == PUBLIC:
            return public(view)
        view.scope = None if needed == KNOWN else needed  # type: ignore[attr-defined]
        return view

    return mark


def caller() -> Caller:
    """Who sent this request; only where the view is not public."""
    found: Caller = g.caller
    return found


def trace_parent() -> tuple[Parent | None, str | None]:
    """Where the caller wants the trace, as far as it may.

    Returns:
        The parent, or None; and why one that was sent is ignored, or None.
    """
    now = own(g)
    parent, note = current_gateway().tracer.parent_of(now.sent)
    if parent is not None and not now.caller.rights.allows_parent(parent.place):
        return None, "this key may not choose that parent"
    return parent, note


class ReplyResponse(Response):
    """A response whose headers are fit to be sent as they are: werkzeug would check and copy each of them twice.

    Args:
        content: the body, or what it comes from.
        headers: by name; values of visible ASCII. None of them is one that every answer has.
        content_type: of the body.
    """

    def __init__(self, content: bytes | Iterable[bytes], headers: Mapping[str, str], content_type: str | None) -> None:
        # what Response.__init__ sets, for 200 OK
        self.headers = fit = Headers()
        fit._list = list(headers.items())
        self._status, self._status_code = "200 OK", 200
        self.direct_passthrough = False
        self._on_close: list[Callable[[], Any]] = []
        if content_type is not None:
            fit._list.append(("Content-Type", content_type))
        if isinstance(content, bytes):
            fit._list.append(("Content-Length", str(len(content))))
            self.response = [content]
        else:
            self.response = content

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """The headers themselves: there is no `Location` among them to be completed (Response.get_wsgi_headers)."""
        return self.headers


class SentHeaders:
    """The headers of a request (core.calls.Headers). Werkzeug's own view spells each name anew for each look."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        """Return a header's value, or None. `name` must not be a caller's: each one that is asked for is kept."""
        found: str | None = self._environ.get(_variable(name))
        return found


@cache
def _variable(name: str) -> str:
    """Where WSGI has a header (PEP 3333, "environ Variables")."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def caller_socket() -> socket.socket | None:
    """The caller's connection, where the server shows it."""
    sock: socket.socket | None = request.environ.get("gunicorn.socket")
    return sock


def own(proxy: T) -> T:
    """The object behind one of Flask's proxies: each look through one costs as much as a dozen at the object."""
    found: T = proxy._get_current_object()  # type: ignore[attr-defined]
    return found


def _arrive() -> Response | None:
    """All that comes before a view, in one step: each look for the app and the request has its price."""
    app, now, asked = own(current_app), own(g), own(request)
    _begin(gateway_of(app), now, asked)
    if asked.method == "OPTIONS":
        return _preflight()
    _authenticate(app, now, asked)
    return None


def _begin(gateway: Gateway, now: Any, asked: Request) -> None:
    environ = asked.environ
    now.request_id = f"req_{os.urandom(16).hex()}"
    now.started_s = time.time()
    now.arrived_s = time.monotonic()
    now.facts = {}
    now.sent = SentHeaders(environ)
    has_body = environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ
    now.source = environ["wsgi.input"] if has_body else None
    sent = environ.get("HTTP_X_REQUEST_ID")
    now.client_request_id = sent if sent is not None and _CLIENT_REQUEST_ID.fullmatch(sent) else None
    rule = asked.url_rule
    now.counting = gateway.metrics.request_began(rule.rule if rule is not None else None, asked.method)
    gateway.open()
    if (sock := environ.get("gunicorn.socket")) is not None:
        # a caller that stops reading must not hold its place for ever; gunicorn sets no bound of its own
        sock.settimeout(gateway.limits.send_s)


def _preflight() -> Response:
    """Answer OPTIONS; a browser's preflight has no credentials (Fetch standard, "CORS-preflight request")."""
    adapter = current_app.create_url_adapter(request)
    allowed = sorted(adapter.allowed_methods()) if adapter is not None else []
    response = Response(status=204, headers={"Allow": ", ".join(allowed)} if allowed else None)
    if _allowed_origin() is not None:
        response.headers["Access-Control-Allow-Methods"] = ", ".join(allowed) or "GET, POST, OPTIONS"
        response.headers["Access-Control-Allow-Headers"] = request.headers.get(
            "Access-Control-Request-Headers", "authorization, content-type"
        )
        response.headers["Access-Control-Max-Age"] = "600"
    return response


def _authenticate(app: Flask, now: Any, asked: Request) -> None:
    """Know the caller, and what it may, before a byte of the body is read."""
    view = app.view_functions.get(asked.endpoint or "")
    is_public, scope = getattr(view, "public", False), getattr(view, "scope", CALL)
    if asked.environ.get("PATH_INFO", "").startswith("//") and view is not None and (is_public or scope != CALL):
        # werkzeug takes it for one with a single slash; a proxy in front that keeps strangers from /admin does not
        raise NoSuchRoute(f"Unknown request URL: {asked.method} /{asked.path[:256]}.")
    if is_public:
        return
    authenticator = gateway_of(app).authenticator
    known = now.caller = authenticator.identify(now.sent)
    now.facts["caller"] = known.id
    if view is None:  # the answer is that nothing is there, whoever asks
        return
    _permit(known, scope)
    if scope == ADMIN:
        # what an admin makes outlives its key: one that is revoked must not make itself a successor where a worker
        # has not heard of it yet. Asked only now, so that nobody without the scope costs a look into the database.
        known = now.caller = authenticator.confirm(now.sent)
        _permit(known, scope)
    operation: str | None = getattr(view, "operation", None)
    if operation is not None and not known.rights.allows_endpoint(operation):
        raise EndpointNotAllowed(f"This key may not ask for {operation}.")


def _permit(known: Caller, scope: str | None) -> None:
    if scope is not None and not known.rights.allows(scope):
        raise NotPermitted(f"This key has not the scope {scope!r}.")


def _allowed_origin() -> str | None:
    origin = request.headers.get("Origin")
    origins = current_gateway().cors_origins
    return origin if origin is not None and (origin in origins or "*" in origins) else None


def _finish(response: Response) -> Response:
    now, gateway = own(g), current_gateway()
    request_id = now.request_id
    more = [
        ("request-id", request_id),
        ("x-request-id", now.client_request_id or request_id),
        ("X-Content-Type-Options", "nosniff"),
    ]
    headers = response.headers
    if "Cache-Control" not in headers:
        more.append(("Cache-Control", "no-store"))
    if isinstance(response, ReplyResponse):
        headers._list += more  # it has none of these
    else:
        headers.update(more)
    if gateway.cors_origins:
        headers.add("Vary", "Origin")
        if (origin := _allowed_origin()) is not None:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
    response.call_on_close(partial(now.counting.ended, response.status_code))
    now.answered = True
    if access.isEnabledFor(logging.INFO):
        response.call_on_close(_access_line(response.status_code))
    if now.source is not None and (sock := caller_socket()) is not None:
        response.call_on_close(partial(_discard_rest, gateway, now.source, sock))
    return response


def _discard_rest(gateway: Gateway, source: Any, sock: socket.socket) -> None:
    """Read what an answered request left of its body, for a while; then close the connection.

    gunicorn would do so without an end and without a pause: one caller that is always ahead, and needs no key, would
    keep a worker from everything else until that is killed.
    """
    until_s = time.monotonic() + _LINGER_S
    timer = gateway.watcher.timer(partial(_shut, sock), until_s)
    try:
        while source.read(_CHUNKED_PIECE):
            if time.monotonic() > until_s:
                _shut(sock)
                return
            give_way()
    except Exception:  # each server raises classes of its own; it closes the connection itself then
        log.debug("the rest of a body could not be read", exc_info=True)
    finally:
        timer.end()


def _shut(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        log.debug("the caller's connection is gone already")


def _abandon(_error: BaseException | None) -> None:
    """A request that ends without any answer of ours (its greenlet was killed) is under way no more."""
    now = own(g)
    if "answered" not in now and "counting" in now:
        now.counting.ended(500)


def _access_line(status: int) -> Callable[[], None]:
    """Log one line when the answer has gone out. Without query and bodies; no name of a field is the caller's."""
    now, asked = own(g), own(request)
    fields = {
        "request_id": now.request_id,
        "method": asked.method,
        "path": asked.path[:256],
        "status": status,
        "remote": asked.remote_addr,
    }
    facts, arrived_s, client_id = now.facts, now.arrived_s, now.client_request_id

    def write() -> None:
        spent_ms = round(1000 * (time.monotonic() - arrived_s), 1)
        own_id = {"client_request_id": client_id} if client_id else {}
        more = {"fields": {**fields, "duration_ms": spent_ms, **own_id, **facts}}
        # as `info` does it, but for a look through the stack for who logs
        access.handle(access.makeRecord(access.name, logging.INFO, __file__, 0, "request", (), None, extra=more))

    return write


def _dialect() -> str:
    """Whose errors the caller reads: the matched view says so, else the header that Anthropic's SDKs always send."""
    view = current_app.view_functions.get(request.endpoint or "")
    fixed: str | None = getattr(view, "dialect", None)
    return fixed or ("anthropic" if "anthropic-version" in request.headers else "openai")


def error_response(error: GatewayError) -> Response:
    """Turn a failure into an answer, with the headers that SDKs obey."""
    told = wire.error_body(_dialect(), error, g.request_id)
    # it names what was sent, which may be a key in a wrong place, and callers write errors into logs
    if not (redactor := current_gateway().redactor).is_clean(text := wire.dumps(told)):
        text = wire.dumps(redactor.value(told))
    response = Response(text, status=error.http_status, mimetype="application/json")
    response.headers.update(error.reply_headers)
    if error.retry_after is not None and error.retry_after.isprintable():
        response.headers["Retry-After"] = error.retry_after[:64]
    elif error.http_status in (429, 503) and error.should_retry is not False:
        response.headers["Retry-After"] = "1"
    if error.retry_after_ms is not None:
        response.headers["retry-after-ms"] = error.retry_after_ms
    if error.should_retry is not None:
        response.headers["x-should-retry"] = "true" if error.should_retry else "false"
    return response


def _refuse(error: GatewayError) -> Response:
    g.facts["error"] = error.public_code or error.public_type
    if isinstance(error, NotAuthenticated):
        current_gateway().metrics.auth_refused()
    if not g.get("traced"):  # the pipeline has traced what became a call
        known = g.get("caller")
        tracer = current_gateway().tracer
        error.reply_headers = tracer.refused(
            Refusal(
                request_id=g.request_id,
                path=request.path[:256],
                status=error.http_status,
                error=error,
                started_s=g.started_s,
                caller=known,
                client_request_id=g.client_request_id,
                # only who may call chooses where a trace goes
                parent=trace_parent()[0] if known else None,
            )
        )
    return error_response(error)


def _refuse_http(error: HTTPException) -> Response:
    """Werkzeug's own refusals, in the caller's dialect."""
    status = error.code or 500
    if status == 404:
        said = f"Unknown request URL: {request.method} {request.path[:256]}."
        if (served := served_instead(request.path[:256])) is not None:
            said += (
                f" {served} is served: mend the client's base URL, which ends in /v1 for OpenAI's clients and before "
                "it for Anthropic's."
            )
        return _refuse(NoSuchRoute(said))
    if status == 405:
        response = _refuse(MethodNotAllowed(f"{request.method} is not allowed at {request.path[:256]}."))
        response.headers.extend(error.get_headers())
        response.headers["Content-Type"] = "application/json"
        return response
    if 400 <= status < 500:
        return _refuse(InvalidRequest(error.name, status=status))
    return _refuse_fault(error)


def _refuse_fault(error: Exception) -> Response:
    """A fault of our own: the request id for the caller, the traceback for the log."""
    log.error("a fault while serving %s", g.get("request_id"), exc_info=error)
    return _refuse(InternalError(f"The gateway failed on request {g.request_id}; its log says why."))


def sheet_or_json(
    asked: JSON, load: Callable[[], T], document: Callable[[T], JSON], sheet: Callable[[T], str]
) -> Response:
    """Answer from a store: as CSV where the query's `format` or, without one, `Accept` asks for it, else as JSON.

    Raises:
        InvalidRequest: there is no such format.
        StoreUnavailable: the store does not answer.
    """
    wanted = asked.get("format")
    if wanted not in (None, "csv", "json"):
        raise InvalidRequest("format must be csv or json", param="format")
    if wanted is None and request.accept_mimetypes.best_match(("application/json", "text/csv")) == "text/csv":
        wanted = "csv"
    try:
        found = load()
    except StorageError as error:
        log.warning("a store does not answer", extra={"fields": {"path": request.path[:256], "why": str(error)}})
        raise StoreUnavailable("The store does not answer; send the request again.") from error
    if wanted == "csv":
        return Response(sheet(found), content_type="text/csv; charset=utf-8")
    return Response(wire.dumps(document(found)), mimetype="application/json")


def read_body(limit_bytes: int) -> bytes:
    """Read the whole body and undo its content encoding.

    Args:
        limit_bytes: the most that it may be, as it comes and unpacked.

    Raises:
        InvalidRequest: as `read_bytes`, or it cannot be unpacked.
        UnsupportedBody: an encoding that is not read here.
    """
    raw, encoding = read_bytes(limit_bytes), own(g).sent.get("content-encoding") or ""
    # a thousand times as much may come out, which takes a tenth of a second
    return offload(body.unpack, raw, encoding, limit_bytes) if encoding else body.unpack(raw, encoding, limit_bytes)


def read_bytes(limit_bytes: int) -> bytes:
    """Read the whole body, counted: Flask cuts a chunked body at its limit in silence, and sees none on Modal.

    Raises:
        BodyTooLarge: more bytes than allowed.
        BodyTooSlow: it took too long to come.
        InvalidRequest: the connection, or the chunked coding, broke off.
    """
    asked = own(request)
    source, declared = asked.environ["wsgi.input"], asked.content_length
    if declared is not None and declared > limit_bytes:
        raise BodyTooLarge(f"The body has {declared} bytes; this gateway takes {limit_bytes} at most.")
    if declared is not None and type(source) is io.BytesIO:  # it is here: nothing to wait for
        raw = source.read(declared)
    else:
        raw = _read_in_time(source, limit_bytes, declared)
    if declared is not None and len(raw) < declared:
        raise InvalidRequest("The body ended before its Content-Length.")
    own(g).source = None  # nothing is left of it
    return raw


def _read_in_time(source: Any, limit_bytes: int, declared: int | None) -> bytes:
    gateway, sock = current_gateway(), caller_socket()
    late: list[bool] = []

    def give_up() -> None:
        late.append(True)
        if sock is not None:
            _shut(sock, socket.SHUT_RD)  # the read ends; an answer can still be written

    timer = gateway.watcher.timer(give_up, time.monotonic() + gateway.limits.body_s)
    try:
        raw = _read_counted(source, limit_bytes, declared)
    except GatewayError:
        raise
    except Exception as error:  # each server raises classes of its own for a broken chunked coding
        raise (_slow() if late else InvalidRequest("The body could not be read to its end.")) from error
    finally:
        timer.end()
    if late:
        raise _slow()
    return raw


def keep_form(limit_bytes: int) -> None:
    """Read the whole body, counted and within time, and have the framework read a form out of that.

    By itself it would take one of any size at any pace, keep its files on disk, and leave the others no turn.

    Raises:
        BodyTooLarge, BodyTooSlow, InvalidRequest: as `read_bytes`.
    """
    raw = read_bytes(limit_bytes)
    request.environ.update({"wsgi.input": io.BytesIO(raw), "CONTENT_LENGTH": str(len(raw))})
    request.environ.pop("HTTP_TRANSFER_ENCODING", None)


def _read_counted(source: Any, limit: int, declared: int | None) -> bytes:
    read = source.read if declared is None or declared <= _PIECE else body_reader(source)
    whole, size, rested_s = io.BytesIO(), 0, time.monotonic()  # its content is given out without a copy
    while declared is None or size < declared:
        piece = read(_CHUNKED_PIECE if declared is None else min(_PIECE, declared - size))
        if not piece:
            break
        if len(piece) == declared:
            return piece
        size += whole.write(piece)
        if size > limit:
            raise BodyTooLarge(f"The body is larger than the {limit} bytes that this gateway takes.")
        if time.monotonic() - rested_s > _BREATH_S:
            give_way()  # a caller that is always ahead must not keep the other calls from their turn
            rested_s = time.monotonic()
    return whole.getvalue()


def _slow() -> BodyTooSlow:
    return BodyTooSlow("The body did not arrive in time.")
