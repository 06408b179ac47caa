"""Who asks: what a key says of itself to whoever holds it."""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Response

from gateway.core import wire
from gateway.core.calls import Caller
from gateway.core.operations import ME
from gateway.errors import StoreUnavailable
from gateway.storage.database import StorageError
from gateway.web import caller, current_gateway, require

JSON = dict[str, Any]

log = logging.getLogger(__name__)


@require(ME.needs)
def view() -> Response:
    """Answer with what is known of the caller.

    Raises:
        StoreUnavailable: it has a virtual key, whose state nobody can tell now.
    """
    known = caller()
    document = {
        "object": "caller",
        "id": known.id,
        "kind": known.kind,
        "key": known.key_id,
        "key_name": known.key_name,
        "project": known.project,
        "user": known.user,
        "tags": list(known.tags),
        "rights": known.rights.document(),
        "state": _state(known),
        "expires": known.expires_s,
    }
    return Response(wire.dumps(document), mimetype="application/json")


def _state(known: Caller) -> str:
    """The state of a virtual key as it is now, which may be newer than what this worker goes by; else `active`."""
    directory = current_gateway().directory
    if known.key_id is None or directory is None:
        return "active"
    try:
        return directory.keys.show(known.key_id).state(time.time())
    except StorageError as error:
        log.warning("a key could not be looked up", extra={"fields": {"why": str(error)}})
        raise StoreUnavailable("The store of keys does not answer; send the request again.") from error
