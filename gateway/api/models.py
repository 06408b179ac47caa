"""The models that can be called, in the shape of whoever asks."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from gateway.core import routing, wire
from gateway.core.endpoints import SERVED_MODES
from gateway.core.paging import limit_of
from gateway.core.rights import EVERYTHING
from gateway.errors import InvalidRequest
from gateway.offload import offload
from gateway.web import caller, current_gateway

JSON = dict[str, Any]

#: No map tells when a model was made; clients want a time, and Anthropic has this one for "not known".
_CREATED = 0
_CREATED_AT = "1970-01-01T00:00:00Z"

#: Anthropic's bounds on a page (API reference, "List Models").
_PAGE, _LONGEST_PAGE = 20, 1000


def listing() -> Response:
    """All models that the caller may call (OpenAI's reference, "List models"; Anthropic's "List Models", in pages)."""
    catalogue, rights = current_gateway().catalogue, caller().rights

    def look() -> list[tuple[str, str]]:
        listed = routing.listed(catalogue, frozenset(SERVED_MODES))
        return [(name, provider) for name, provider in listed if routing.may_call(rights, name, catalogue)]

    # thousands of names against hundreds of patterns: other calls are not to wait
    found = look() if rights.models == EVERYTHING else offload(look)
    if _is_anthropics():
        return _said(_page([_anthropics(name) for name, _ in found]))
    return _said({"object": "list", "data": [_openais(name, provider) for name, provider in found]})


def one(name: str) -> Response:
    """One model, which need not be listed: the catalogue is open.

    Raises:
        ModelNotAllowed: the caller may not call it, be it there or not.
        ModelNotFound: nobody answers to that name.
        ProviderNotConfigured: somebody would, had the operator set a credential or an address.
    """
    name = name.rstrip("/")
    if not routing.may_call(caller().rights, name, current_gateway().catalogue):
        raise routing.not_allowed(name)
    deployment = routing.plan(name, current_gateway().catalogue, rights=caller().rights)[0].deployment
    return _said(_anthropics(name) if _is_anthropics() else _openais(name, deployment.provider))


def _said(document: JSON) -> Response:
    return Response(wire.dumps(document), mimetype="application/json")


def _is_anthropics() -> bool:
    return "anthropic-version" in request.headers


def _openais(name: str, provider: str) -> JSON:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": provider}


def _anthropics(name: str) -> JSON:
    row = current_gateway().catalogue.models.get(name, {})
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _CREATED_AT,
        "lifecycle": "active",  # what can be called is
        "max_input_tokens": row.get("max_input_tokens"),
        "max_tokens": row.get("max_output_tokens"),
    }


def _page(models: list[JSON]) -> JSON:
    limit = limit_of(request.args.get("limit"), _PAGE, _LONGEST_PAGE)
    ids = [model["id"] for model in models]
    start, stop = 0, len(models)
    if (after := request.args.get("after_id")) is not None:
        start = _place(ids, after, "after_id") + 1
    backwards = (before := request.args.get("before_id")) is not None
    if before is not None:
        stop = _place(ids, before, "before_id")
    page = models[max(start, stop - limit) : stop] if backwards else models[start : min(stop, start + limit)]
    return {
        "data": page,
        "has_more": len(page) < max(0, stop - start),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _place(ids: list[str], wanted: str, param: str) -> int:
    if wanted not in ids:
        raise InvalidRequest(f"{param} names no model that is listed", param=param)
    return ids.index(wanted)
