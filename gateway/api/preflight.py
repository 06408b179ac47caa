"""What would become of a call, for those who ask before they call. No model is asked, and nothing is counted."""

from __future__ import annotations

from typing import Any

from flask import Response, g, request

from gateway.api.exchange import call_of
from gateway.core import body, routing, wire
from gateway.core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Endpoint
from gateway.core.operations import PREFLIGHT, check_body
from gateway.core.preview import preview
from gateway.core.routing import Catalogue
from gateway.errors import EndpointNotAllowed
from gateway.web import caller, current_gateway, read_body, require

JSON = dict[str, Any]

#: What other rooms may tell of a call (`Gateway.previews`); null where none does.
_OTHERS = ("budget", "limits", "cache")


@require(PREFLIGHT.needs)
def view() -> Response:
    """Answer with the plan of the call that the body would be.

    Raises:
        EndpointNotAllowed: the caller may not ask for the operation.
        ModelNotAllowed: the caller may not call the model.
        InvalidRequest: the body is none of the operation.
        ModelNotFound: nobody answers to the name.
        ProviderNotConfigured: somebody would, had the operator set a credential or an address.
    """
    gateway = current_gateway()
    raw = read_body(gateway.limits.body_bytes)
    asked = body.parse(raw)
    check_body(PREFLIGHT, asked)
    endpoint = _endpoint_of(asked, gateway.catalogue)
    if not caller().rights.allows_endpoint(endpoint.name):
        raise EndpointNotAllowed(f"This key may not ask for {endpoint.name}.")
    body.check(endpoint, asked)
    call = call_of(endpoint, gateway, asked, asked["model"].strip(), stream=asked.get("stream") is True)
    g.facts["preflight"] = g.facts.pop("model")  # a line with a model is a call's, of which a trace is looked for
    if not routing.may_call(caller().rights, call.model, gateway.catalogue):
        raise routing.not_allowed(call.model)
    plan = gateway.health.look(call, gateway.catalogue)
    told = preview(call, plan, gateway.catalogue, gateway.health.of, gateway.health.price)
    told |= dict.fromkeys(_OTHERS) | {name: tell(call, plan.attempts) for name, tell in gateway.previews.items()}
    return Response(wire.dumps(told), mimetype="application/json")


def _endpoint_of(asked: JSON, catalogue: Catalogue) -> Endpoint:
    """The operation that a body is of, by the fields that it has and by what the model does."""
    if "prompt" in asked:
        return COMPLETIONS
    if "input" in asked:
        name = asked["model"].strip()
        found = routing.alias_of(name, catalogue)
        row = catalogue.models.get(name) or catalogue.models.get(name.partition("/")[2]) or {}
        mode = found[0].mode if found is not None else row.get("mode")
        return EMBEDDINGS if mode == "embedding" else RESPONSES
    return MESSAGES if "anthropic-version" in request.headers else CHAT
