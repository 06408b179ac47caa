"""From a request to a Call, from a Reply to a response."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Response, g, request

from gateway.core import body, cachekey, wire
from gateway.core.calls import JSON, Call
from gateway.core.endpoints import Endpoint
from gateway.errors import GatewayError, InternalError, InvalidRequest, ObjectNotFound
from gateway.modal_bridge import SCOPE_KEY
from gateway.offload import LARGE_BYTES, offload, rest
from gateway.pipeline import Gateway, Reply
from gateway.tracing.parents import read_traceparent
from gateway.upstream.stored import find
from gateway.web import caller, caller_socket, current_gateway, own, read_body, read_bytes, trace_parent

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger(__name__)

#: Headers that reach a provider; no other does, whatever its name.
_PROVIDER_HEADERS = ("anthropic-version", "anthropic-beta", "openai-beta")

_MOST_TAGS = 32
_LONGEST_TAG = 128


def serve(endpoint: Endpoint, path_id: str | None = None) -> Response:
    """Answer one request of an endpoint that calls a model.

    Args:
        endpoint: its row.
        path_id: what stands in the path for `{id}`.
    """
    gateway = current_gateway()
    call = _read(endpoint, path_id, gateway)
    if (bridged := request.environ.get("asgi.scope", {}).get(SCOPE_KEY)) is not None:
        bridged.subscribe(lambda: call.cancellation.abort(bridged.reason))  # Modal's bridge knows when it leaves
    g.traced = True
    reply = gateway.run(call, caller_socket())
    try:
        return _response(call, reply)
    except BaseException:  # a reply that nobody will read or close must not hold its provider's connection
        reply.close()
        raise


def _response(call: Call, reply: Reply) -> Response:
    if reply.body is not None:
        return Response(reply.body, mimetype="application/json", headers=reply.headers())
    return _Streamed(
        EventStream(reply, call.endpoint.dialect, call.id, g.facts),
        content_type="text/event-stream; charset=utf-8",
        headers={**reply.headers(), "Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


class _Streamed(Response):
    """A response whose stream the server iterates itself: werkzeug would put two iterators more around it."""

    def __init__(self, stream: EventStream, **more: Any) -> None:
        super().__init__(stream, **more)
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


def _read(endpoint: Endpoint, path_id: str | None, gateway: Gateway) -> Call:
    if endpoint.by_id:
        return _read_about(endpoint, path_id or "", gateway)
    raw = read_body(gateway.limits.body_bytes)
    asked = offload(body.parse, raw, rest) if len(raw) > LARGE_BYTES else body.parse(raw)
    body.check(endpoint, asked)
    stream = asked.get("stream") is True
    options = asked.get("stream_options")
    return _call(
        endpoint,
        gateway,
        asked,
        asked["model"].strip(),
        stream=stream,
        usage_asked=isinstance(options, dict) and options.get("include_usage") is True,
        body_bytes=len(raw),
        raw=raw,
    )


def _read_about(endpoint: Endpoint, path_id: str, gateway: Gateway) -> Call:
    """Read a request about an object that was made before: its owner says what it is."""
    if request.method == "POST":
        read_bytes(gateway.limits.body_bytes)  # of no use, and not to be left on the connection
    if gateway.objects is None:
        raise ObjectNotFound("Nothing is stored here.", param="id")
    found = find(gateway.objects, path_id, caller().tenant, "id")
    return _call(
        endpoint,
        gateway,
        {"id": path_id},
        found.model,
        stream="stream" in endpoint.query and request.args.get("stream") == "true",
        path_id=path_id,
        deployment=found.deployment,
    )


def _call(endpoint: Endpoint, gateway: Gateway, asked: JSON, model: str, *, stream: bool, **more: Any) -> Call:
    now, args, headers = own(g), request.args if endpoint.query else None, request.headers
    parent, note = trace_parent()
    recorded = _recorded(headers.get("x-gateway-trace"))
    now.facts.update(model=model[:256], stream=stream)
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
        deadline_s=now.arrived_s + (gateway.limits.timeout_s if stream else gateway.limits.whole_answer_s),
        client_request_id=now.client_request_id,
        provider_headers={
            name: value
            for name in _PROVIDER_HEADERS
            if (value := headers.get(name)) is not None and value.isascii() and value.isprintable()
        },
        parent=parent,
        parent_note=note,
        traceparent=read_traceparent(headers) if parent is None else None,
        tags=tuple(dict.fromkeys((*now.caller.tags, *_tags(headers.get("x-gateway-tags", ""))))),
        recorded=recorded,
        cache=gateway.cache.wish_of(headers.get) if gateway.cache is not None else None,
        name=cachekey.name_of(headers.get, endpoint.name) if gateway.cache is not None else None,
        query=urlencode([(name, value) for name in endpoint.query for value in args.getlist(name)]) if args else "",
        **more,
    )


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
