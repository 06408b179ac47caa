"""From a request to a Call, from a Reply to a response."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Response, g, request

from gateway.api.incoming import Incoming
from gateway.core import body, cachekey, wire
from gateway.core.calls import JSON, Call
from gateway.core.endpoint import PROVIDER_HEADERS
from gateway.core.endpoints import BATCHES, Endpoint
from gateway.core.multipart import MOST_TEXT_BYTES, Form, boundary_of, content_type_of
from gateway.errors import GatewayError, InternalError, InvalidRequest, ObjectNotFound, UnsupportedBody
from gateway.modal_bridge import SCOPE_KEY
from gateway.offload import LARGE_BYTES, offload, rest
from gateway.pipeline import Gateway, Reply
from gateway.storage.owned import Owned
from gateway.tracing.parents import read_traceparent
from gateway.uploads import MEMORY_BYTES, Upload
from gateway.upstream.stored import find
from gateway.web import (
    ReplyResponse,
    caller,
    current_gateway,
    own,
    read_body,
    read_bytes,
    trace_parent,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)


_MOST_TAGS = 32
_LONGEST_TAG = 128


def serve(endpoint: Endpoint, path_id: str | None = None) -> Response:
    """Answer one request of an endpoint that calls a model.

    Args:
        endpoint: its row.
        path_id: what stands in the path for `{id}`.
    """
    gateway, now, environ = current_gateway(), own(g), own(request).environ
    call = _read(endpoint, path_id, gateway)
    if (scope := environ.get("asgi.scope")) is not None and (bridged := scope.get(SCOPE_KEY)) is not None:
        bridged.subscribe(lambda: call.cancellation.abort(bridged.reason))  # Modal's bridge knows when it leaves
    now.traced = True
    try:
        reply = gateway.run(call, environ.get("gunicorn.socket"), now.facts.update)
    finally:
        if call.upload is not None:  # its provider has begun to answer, or nobody has
            call.upload.close()
    try:
        return _response(call, reply)
    except BaseException:  # a reply that nobody will read or close must not hold its provider's connection
        reply.close()
        raise


def _response(call: Call, reply: Reply) -> Response:
    if reply.body is not None:
        return ReplyResponse(reply.body, reply.headers(), "application/json")
    if call.pieces and (passed := reply.media) is not None:
        return _Streamed(
            ByteStream(reply, call.endpoint.dialect, call.id, g.facts), {**reply.headers(), **passed}, None
        )
    return _Streamed(
        EventStream(reply, call.endpoint.dialect, call.id, g.facts),
        {**reply.headers(), "Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        "text/event-stream; charset=utf-8",
    )


class _Streamed(ReplyResponse):
    """A response whose stream the server iterates itself: werkzeug would put two iterators more around it."""

    def __init__(self, stream: EventStream, headers: Mapping[str, str], content_type: str | None) -> None:
        super().__init__(stream, headers, content_type)
        self._stream = stream

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Have a function called when the server closes the stream (Response.call_on_close)."""
        self._stream.closers.append(func)
        return func

    def get_app_iter(self, environ: WSGIEnvironment) -> EventStream:
        """The stream itself (Response.get_app_iter)."""
        return self._stream


class EventStream:
    """The bytes of a streamed answer. Its last words follow the settling of the call."""

    def __init__(self, reply: Reply, dialect: str, request_id: str, facts: dict[str, Any]) -> None:
        self._reply = reply
        self._dialect = dialect
        self._request_id = request_id
        self._facts = facts
        self._sent = 0
        self._over = False
        self.closers: list[Callable[[], Any]] = []

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        while not self._over:
            try:
                chunk = next(self._reply)
            except StopIteration:
                self._over = True
                return self._reply.last_words
            except GatewayError as error:
                return self._failed(error)
            except Exception:
                log.exception("a fault while streaming %s", self._request_id)
                self._reply.close()
                return self._failed(InternalError("The gateway failed while it streamed."))
            if chunk is None:
                return wire.KEEP_ALIVE
            if chunk.data:
                self._sent += 1
                return chunk.data
        raise StopIteration

    def _failed(self, error: GatewayError) -> bytes:
        self._over = True
        self._facts["error"] = error.public_code or error.public_type
        if self._reply.told:
            return self._reply.last_words
        return wire.error_event(self._dialect, error, self._request_id, self._sent)

    def close(self) -> None:
        """Called by the server at the end, and when the caller has left; safe to call again."""
        self._over = True
        self._reply.close()
        closers, self.closers = self.closers, []
        for closer in closers:
            closer()


class ByteStream(EventStream):
    """The bytes of an answer that is no event stream. Where it fails there is no word for it: it is cut off."""

    def __next__(self) -> bytes:
        while not self._over:
            try:
                chunk = next(self._reply)
            except StopIteration:
                self._over = True
                raise
            except GatewayError as error:
                self._over = True
                self._facts["error"] = error.public_code or error.public_type
                # what servers take for a caller that has left: the body gets no end, and so shows that it is cut
                raise ConnectionResetError(errno.ECONNRESET, "the answer broke off") from error
            if chunk is not None and chunk.data:
                return chunk.data
        raise StopIteration


def _read(endpoint: Endpoint, path_id: str | None, gateway: Gateway) -> Call:
    if endpoint.by_id:
        return _read_about(endpoint, path_id or "", gateway)
    if endpoint.form:
        return _read_form(endpoint, path_id, gateway)
    if endpoint.method == "GET":
        return call_of(endpoint, gateway, {}, _without_model(endpoint), stream=False)
    raw: bytes | None = read_body(gateway.limits.body_bytes)
    assert raw is not None
    size = len(raw)
    asked = offload(body.parse, raw, rest) if size > LARGE_BYTES else body.parse(raw)
    if path_id is not None:  # Azure's: the deployment in the path decides, whatever the body says
        asked, raw = {**asked, "model": path_id}, None
    body.check(endpoint, asked)
    stream = asked.get("stream") is True
    options = asked.get("stream_options")
    more: JSON = {"body_bytes": size, "raw": raw, "pieces": endpoint.in_pieces, "stream": stream}
    if endpoint is BATCHES:
        file = _found("file", asked["input_file_id"], gateway, "input_file_id")
        return call_of(endpoint, gateway, asked, file.model, deployment=file.deployment, **more)
    return call_of(
        endpoint,
        gateway,
        asked,
        (asked.get("model") or _without_model(endpoint)).strip(),
        usage_asked=isinstance(options, dict) and options.get("include_usage") is True,
        **more,
    )


def _read_form(endpoint: Endpoint, path_id: str | None, gateway: Gateway) -> Call:
    """Read a form as far as has to be known before it can be sent on: up to its file, or the model behind that."""
    content_type, encoding = request.headers.get("Content-Type", ""), request.headers.get("Content-Encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedBody("a form must come without a content encoding")
    boundary = boundary_of(content_type)
    form = Form(endpoint, boundary)
    until_s = own(g).arrived_s + gateway.limits.timeout_s
    incoming = Incoming(gateway, gateway.limits.upload_bytes, until_s)
    upload = Upload(form, incoming, incoming.declared, gateway.limits.upload_folder)
    small = incoming.declared is not None and incoming.declared <= MEMORY_BYTES
    try:
        upload.read_until(lambda: not small and form.in_file and (form.model is not None or not endpoint.names_model))
        model = path_id or form.model or _without_model(endpoint)
        if not model:
            raise InvalidRequest("model is required", param="model")
        return call_of(
            endpoint,
            gateway,
            form.document,
            model.strip(),
            stream=form.document.get("stream") is True,
            pieces=endpoint.in_pieces,
            body_bytes=min(incoming.declared or form.size, MOST_TEXT_BYTES),  # files are no part of a trace
            upload=upload,
            content_type=content_type_of(boundary),
        )
    except BaseException:
        upload.close()
        raise


def _without_model(endpoint: Endpoint) -> str:
    """What is called where the body names no model; of files and batches the query may name one."""
    named = request.args.get("model", "").strip() if not endpoint.names_model else ""
    return named or endpoint.default_model


def _found(kind: str, id: str, gateway: Gateway, param: str) -> Owned:
    if gateway.objects is None:
        raise ObjectNotFound("Nothing is stored here.", param=param)
    return find(gateway.objects, id, caller().tenant, param, kind=kind)


def _read_about(endpoint: Endpoint, path_id: str, gateway: Gateway) -> Call:
    """Read a request about an object that was made before: its owner says what it is."""
    if request.method == "POST":
        read_bytes(gateway.limits.body_bytes)  # of no use, and not to be left on the connection
    found = _found(endpoint.kind, path_id, gateway, "id")
    return call_of(
        endpoint,
        gateway,
        {"id": path_id},
        found.model,
        stream="stream" in endpoint.query and request.args.get("stream") == "true",
        pieces=endpoint.in_pieces,
        path_id=path_id,
        deployment=found.deployment,
    )


def call_of(endpoint: Endpoint, gateway: Gateway, asked: JSON, model: str, *, stream: bool, **more: Any) -> Call:
    """Make a call of a request whose body has been read.

    Args:
        endpoint: the operation's row.
        gateway: whose times it is held to.
        asked: the body.
        model: that it names.
        stream: whether it is to be streamed.
        more: further fields of the call.

    Raises:
        InvalidRequest: a header that cannot be used; names it.
    """
    now, args = own(g), request.args if endpoint.query else None
    headers = now.sent
    parent, note = trace_parent()
    flows = stream or endpoint.answer == "bytes"
    recorded = _recorded(headers.get("x-gateway-trace"))
    now.facts.update(model=model[:256], stream=stream)
    longest_s = gateway.limits.timeout_s if flows else gateway.limits.whole_answer_s
    timeout_s = min(longest_s, _timeout_s(headers.get("x-gateway-timeout"), longest_s))
    if recorded == "off":
        now.facts["trace"] = "off"  # `gateway traces verify` looks for none
    return Call(
        id=now.request_id,
        endpoint=endpoint,
        caller=now.caller,
        body=asked,
        model=model,
        stream=stream,
        started_s=now.started_s,
        arrived_s=now.arrived_s,
        deadline_s=now.arrived_s + timeout_s,
        client_request_id=now.client_request_id,
        provider_headers={
            name: value
            for name in PROVIDER_HEADERS
            if (value := headers.get(name)) is not None and value.isascii() and value.isprintable()
        },
        parent=parent,
        parent_note=note,
        traceparent=read_traceparent(headers) if parent is None else None,
        tags=tuple(dict.fromkeys((*now.caller.tags, *_tags(headers.get("x-gateway-tags") or "")))),
        recorded=recorded,
        cache=gateway.cache.wish_of(headers.get) if gateway.cache is not None else None,
        name=cachekey.name_of(headers.get, endpoint.name) if gateway.cache is not None else None,
        query=urlencode([(name, value) for name in endpoint.query for value in args.getlist(name)]) if args else "",
        headers={name: value for name in gateway.catalogue.asked_headers if (value := headers.get(name)) is not None},
        fallback=_may_fall_back(headers.get("x-gateway-fallback")),
        hurried=timeout_s < longest_s,
        **more,
    )


def _timeout_s(header: str | None, longest_s: float) -> float:
    """How long the caller wants to wait, in seconds."""
    if header is None:
        return longest_s
    try:
        seconds = float(header)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidRequest("x-gateway-timeout must be a number of seconds above 0.", param="x-gateway-timeout")
    return seconds


def _may_fall_back(header: str | None) -> bool:
    if header is None:
        return True
    if (asked := header.strip().lower()) not in ("on", "off"):
        raise InvalidRequest("x-gateway-fallback must be on or off.", param="x-gateway-fallback")
    return asked == "on"


def _recorded(header: str | None) -> str:
    if header is None:
        return "full"
    recorded = header.strip().lower()
    if recorded not in ("full", "metadata", "off"):
        raise InvalidRequest("x-gateway-trace must be one of full, metadata and off.", param="x-gateway-trace")
    return recorded


def _tags(header: str) -> tuple[str, ...]:
    if not header:
        return ()
    tags = (tag.strip()[:_LONGEST_TAG] for tag in header.split(","))
    return tuple(dict.fromkeys(tag for tag in tags if tag and tag.isprintable()))[:_MOST_TAGS]
