"""What would become of a call, for those who ask before they call. No model is asked, and nothing is counted."""

from __future__ import annotations

from typing import Any

from flask import Response, g, request

from gateway.api.exchange import call_of
from gateway.core import body, routing, wire
from gateway.core.operations import PREFLIGHT, check_body
from gateway.core.preview import endpoint_of, preview
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
    endpoint = endpoint_of(asked, gateway.catalogue, anthropic="anthropic-version" in request.headers)
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
