"""Responses that outlive their call: whose they are, and those that the gateway keeps itself.

A provider that has responses of its own keeps them, for all callers under one key; so the gateway notes whose each one
is. What a chat stood in for no provider knows of, so the gateway keeps it whole.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from gateway.core import responses
from gateway.core.calls import JSON, Attempt, Call, Chunk
from gateway.core.endpoints import INPUT_ITEMS, INPUT_TOKENS, RESPONSE, RESPONSE_CANCEL, RESPONSE_DELETE, RESPONSES
from gateway.core.paging import limit_of
from gateway.core.responses.record import ResponsesTranscript
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage
from gateway.core.wire import dumps
from gateway.errors import GatewayError, InvalidRequest, ObjectNotFound, StoreUnavailable
from gateway.storage import owned
from gateway.storage.database import StorageError
from gateway.storage.owned import Owned, OwnedObjects
from gateway.upstream import Answer, AtHand
from gateway.upstream.lanes import Lanes

log = logging.getLogger(__name__)

#: States of a response in which nothing more of it is made (API reference, "The response object").
_OVER = frozenset(("completed", "incomplete", "failed", "cancelled"))
#: A page of input items (API reference, "List input items").
_PAGE, _LONGEST_PAGE = 20, 100


def find(objects: OwnedObjects, id: str, tenant: str, param: str | None = None, *, kind: str = owned.RESPONSE) -> Owned:
    """Find what a tenant has stored.

    Args:
        objects: where to look.
        id: as a caller sent it.
        tenant: the caller's.
        param: the field that named it, for the error.
        kind: what it has to be.

    Raises:
        ObjectNotFound: there is none, it is another tenant's, or it had to make room.
        StoreUnavailable: nobody can tell now.
    """
    try:
        found = objects.find(kind, id, tenant)
    except StorageError as error:
        raise unavailable(error) from error
    if found is None or found.emptied:
        raise ObjectNotFound(f"{kind.capitalize()} with id {id[:64]!r} not found.", param=param)
    return found


def bill_once(objects: OwnedObjects, kind: str, id: str, attempt: Attempt, call: Call, used: Usage) -> bool:
    """Bill to a call what an earlier one has begun, if this is the first to see its end.

    Args:
        objects: remember what has been billed.
        kind: `owned.BILLED` or `owned.BILLED_RESPONSE`.
        id: of what was begun.
        attempt: gets the bill.
        call: of which it is an attempt.
        used: what was used.

    Returns:
        False: it was billed before.

    Raises:
        StoreUnavailable: nobody can tell now.
    """
    try:
        first = objects.claim(_owned(kind, id, attempt, call))
    except StorageError as error:
        raise unavailable(error) from error
    if first:
        attempt.metered, attempt.transcript.usage = True, used
    return first


def _owned(kind: str, id: str, attempt: Attempt, call: Call) -> Owned:
    return Owned(
        kind=kind,
        id=id,
        tenant=call.caller.tenant,
        caller=call.caller.id,
        model=call.model,
        provider=attempt.deployment.provider,
        deployment=attempt.deployment.name,
        made_s=time.time(),
    )


def unavailable(error: StorageError) -> StoreUnavailable:
    """The error of a store that does not answer."""
    log.warning("the store of what is owned did not answer", extra={"fields": {"why": str(error)}})
    return StoreUnavailable("The store of what is owned does not answer; send the request again.")


class StoredResponses:
    """An upstream that knows whose a response is (upstream.Upstream).

    Args:
        lanes: the ways to the providers.
        objects: whose each stored response is.
    """

    def __init__(self, lanes: Lanes, objects: OwnedObjects) -> None:
        self._lanes = lanes
        self._objects = objects

    def start(self) -> None:
        """Make ready in this process (Upstream.start)."""
        self._lanes.start()

    def opens_in_time(self, attempt: Attempt, call: Call) -> bool:
        """As the lanes do (Upstream.opens_in_time)."""
        return self._lanes.opens_in_time(attempt, call)

    def open(self, attempt: Attempt, call: Call) -> Answer:
        """Send the call (Upstream.open).

        Raises:
            ObjectNotFound: it names a response, a conversation or an item that its tenant does not have.
        """
        if call.endpoint.by_id:
            return self._about(find(self._objects, call.path_id or "", call.caller.tenant, "id"), attempt, call)
        if call.endpoint not in (RESPONSES, INPUT_TOKENS):
            return self._lanes.open(attempt, call)
        call = self._checked(attempt, call)
        if call.endpoint is INPUT_TOKENS or call.body.get("store") is False:
            return self._lanes.open(attempt, call)
        return _Keeping(self._objects, attempt, call, self._lanes.open(attempt, call))

    def _checked(self, attempt: Attempt, call: Call) -> Call:
        """Look after what a call names by its id, and complete it by what only the gateway knows."""
        body, native = call.body, self._lanes.is_native(call.endpoint, attempt.deployment)
        if body.get("conversation") is not None:
            # conversations are not made here, so none is this tenant's
            raise ObjectNotFound("There is no such conversation here.", param="conversation")
        if named := responses.references_of(body):
            call = self._with_items(named, call, native=native)
        if (previous := body.get("previous_response_id")) is not None:
            found = find(self._objects, previous, call.caller.tenant, "previous_response_id")
            if found.kept_here:
                call = replace(call, history=_conversation_of(found))
            elif not native or found.provider != attempt.deployment.provider:
                raise InvalidRequest(
                    f"That response is at {found.provider}, which alone can go on from it; send its items instead.",
                    param="previous_response_id",
                    code="unsupported_parameter",
                )
        if not native and not self._objects.keeps_documents:
            call = replace(call, body={**call.body, "store": False}, raw=None)  # and the answer says so
        return call

    def _with_items(self, named: set[str], call: Call, *, native: bool) -> Call:
        """Look after the items that the input only refers to: the provider has them, or they are kept here."""
        try:
            there = self._objects.known(owned.ITEM, named, call.caller.tenant) if native else set()
        except StorageError as error:
            raise unavailable(error) from error
        kept: dict[str, JSON] = {}
        for item_id in sorted(named - there - kept.keys()):
            try:
                found = find(self._objects, responses.response_of(item_id), call.caller.tenant)
            except ObjectNotFound:
                found = None
            output = json.loads(found.document or "{}").get("output", ()) if found is not None else ()
            kept |= {item["id"]: item for item in output if item.get("id") in named}
            if item_id not in kept:
                raise ObjectNotFound(f"Item with id {item_id[:64]!r} not found.", param="input")
        return replace(call, body=responses.with_items(call.body, kept), raw=None) if kept else call

    def _about(self, found: Owned, attempt: Attempt, call: Call) -> Answer:
        """Answer about a stored response: its provider, or what is kept here."""
        if not found.kept_here:
            if not self._lanes.is_native(call.endpoint, attempt.deployment):
                raise ObjectNotFound(f"{found.provider} cannot be asked for it any more.", param="id")
            answer = self._lanes.open(attempt, call)
            if call.endpoint in (RESPONSE, RESPONSE_CANCEL):
                answer = _Seen(self._objects, attempt, call, answer)
        else:
            answer = AtHand(attempt, _told(found, call))
        if call.endpoint is RESPONSE_DELETE:
            try:
                self._objects.remove(owned.RESPONSE, found.id, found.tenant)
            except StorageError as error:
                raise unavailable(error) from error
        return answer


def _conversation_of(found: Owned) -> list[JSON]:
    items: list[JSON] = json.loads(found.items or "[]")
    document: JSON = json.loads(found.document or "{}")
    return [*items, *document.get("output", ())]


def _told(found: Owned, call: Call) -> JSON:
    if call.endpoint is RESPONSE_DELETE:
        return {"id": found.id, "object": "response", "deleted": True}
    if call.endpoint is RESPONSE_CANCEL:
        raise InvalidRequest("Only a response that is made in the background can be cancelled.", param="id")
    if call.endpoint is INPUT_ITEMS:
        return _page(json.loads(found.items or "[]"), parse_qs(call.query))
    assert call.endpoint is RESPONSE
    if call.stream:
        raise InvalidRequest("Only a response that is made in the background can be streamed again.", param="stream")
    document: JSON = json.loads(found.document or "{}")
    return document


def _page(items: list[JSON], query: dict[str, list[str]]) -> JSON:
    asked = {name: values[-1] for name, values in query.items()}
    limit = limit_of(asked.get("limit"), _PAGE, _LONGEST_PAGE)
    if asked.get("order", "desc") not in ("asc", "desc"):
        raise InvalidRequest("order must be asc or desc", param="order")
    if asked.get("order", "desc") == "desc":
        items = items[::-1]
    if (after := asked.get("after")) is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise InvalidRequest("after names no item of this response", param="after")
        items = items[places[0] + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(page) < len(items),
    }


class _Keeping:
    """An answer that is noted as its tenant's before the caller knows its id (upstream.Answer)."""

    def __init__(self, objects: OwnedObjects, attempt: Attempt, call: Call, answer: Answer) -> None:
        self._objects = objects
        self._attempt = attempt
        self._call = call
        self._answer = answer
        self._noted: str | None = None
        self.body = answer.body
        self.tells_silence = answer.tells_silence
        if not call.stream:
            self._keep(json.loads(answer.body) if self._is_ours else None)

    @property
    def _is_ours(self) -> bool:
        """No provider has it, since a chat stood in."""
        return self._attempt.told is not None

    def chunks(self) -> Iterator[Chunk | None]:
        """Read the stream to its end (upstream.Answer)."""
        for chunk in self._answer.chunks():
            if chunk is None:
                pass
            elif self._is_ours:
                if chunk.last and chunk.piece is not None and isinstance(chunk.piece.get("response"), dict):
                    self._keep(chunk.piece["response"])
            elif self._noted is None or chunk.last:
                self._keep(None)
            yield chunk

    def _keep(self, document: JSON | None) -> None:
        """Note whose it is. A store that is away costs the caller the stored response, not the answer."""
        transcript: Any = self._attempt.told or self._attempt.transcript
        if transcript.id is None or (document is None and not getattr(transcript, "stored", True)):
            return
        self._noted = transcript.id
        call = self._call
        row = _owned(owned.RESPONSE, transcript.id, self._attempt, call)
        try:
            if document is None:
                said = transcript.said() if transcript.complete else []
                items = [replace(row, kind=owned.ITEM, id=item["id"]) for item in said if _has_id(item)]
                self._objects.keep(row, *items)
                self._put_off(transcript, row)
            else:
                items_asked = [*call.history, *responses.items_of(call.body)]
                self._objects.keep(replace(row, document=_text(document), items=_text(items_asked)))
        except (StorageError, GatewayError) as error:
            log.warning(
                "a response could not be stored",
                extra={"fields": {"request_id": call.id, "why": str(error) or type(error).__name__}},
            )

    def _put_off(self, transcript: Any, row: Owned) -> None:
        """Leave what is made in the background to the call that sees its end, now that its owner can ask for it.

        Raises:
            StorageError: that it is billed here could not be noted.
        """
        if not (isinstance(transcript, ResponsesTranscript) and transcript.background and transcript.complete):
            return
        if transcript.usage is None:
            self._attempt.metered = False
        else:
            self._objects.claim(replace(row, kind=owned.BILLED_RESPONSE))

    def close(self) -> None:
        """Free the provider's connection (upstream.Answer)."""
        self._answer.close()


class _Seen:
    """A response that was made in the background, or may have been, and is asked for again (upstream.Answer).

    Whoever first sees its end is billed for it: nobody else is told when that comes.
    """

    def __init__(self, objects: OwnedObjects, attempt: Attempt, call: Call, answer: Answer) -> None:
        self._objects = objects
        self._attempt = attempt
        self._call = call
        self._answer = answer
        self.body = answer.body
        self.tells_silence = answer.tells_silence
        if not call.stream:
            self._bill(json.loads(answer.body))

    def _bill(self, document: Any) -> None:
        if not isinstance(document, dict) or document.get("background") is not True:
            return
        told = ResponsesTranscript()
        try:
            told.take(document)
        except Malformed:
            return  # the caller has it as it is; there is no end of a response in it
        if document.get("status") in _OVER and told.usage is not None and told.usage.total:
            bill_once(
                self._objects, owned.BILLED_RESPONSE, self._call.path_id or "", self._attempt, self._call, told.usage
            )

    def chunks(self) -> Iterator[Chunk | None]:
        """Read the stream to its end (upstream.Answer)."""
        for chunk in self._answer.chunks():
            if chunk is not None and chunk.last:
                self._bill(self._attempt.transcript.said())
            yield chunk

    def close(self) -> None:
        """Free the provider's connection (upstream.Answer)."""
        self._answer.close()


def _has_id(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str) and bool(item["id"])


def _text(value: Any) -> str:
    return dumps(value).decode()
