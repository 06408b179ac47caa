"""Files and batches: all callers share one key at a provider, so whose each one is stands here."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeGuard
from urllib.parse import parse_qs, urlencode

from gateway.core.calls import JSON, Attempt, Call, Chunk
from gateway.core.endpoints import (
    BATCH,
    BATCH_CANCEL,
    BATCHES,
    BATCHES_LIST,
    FILE,
    FILE_CONTENT,
    FILE_DELETE,
    FILES,
    FILES_LIST,
)
from gateway.core.paging import limit_of
from gateway.core.usage import Usage, usage_of_responses
from gateway.core.wire import dumps
from gateway.errors import ObjectNotFound, ProviderInvalid
from gateway.storage import owned
from gateway.storage.database import StorageError
from gateway.storage.owned import Owned, OwnedObjects
from gateway.upstream import Answer, Upstream
from gateway.upstream.lanes import Lanes
from gateway.upstream.stored import bill_once, find, unavailable

log = logging.getLogger(__name__)

#: Pages of a provider's list that are looked through for one of a caller's own.
_MOST_PAGES = 10
#: How many of a list there are where nothing is said, how many there may be, and how many a provider is asked for (API
#: reference, "List files", "List batch").
_LISTS = {FILES_LIST.name: (10_000, 10_000, 10_000), BATCHES_LIST.name: (20, 100, 100)}
_KINDS = {
    FILES.name: owned.FILE,
    FILES_LIST.name: owned.FILE,
    BATCHES.name: owned.BATCH,
    BATCHES_LIST.name: owned.BATCH,
}
_OPERATIONS = frozenset(
    row.name for row in (FILES, FILES_LIST, FILE, FILE_CONTENT, FILE_DELETE, BATCHES, BATCHES_LIST, BATCH, BATCH_CANCEL)
)
#: States of a batch in which nothing more of it is answered (API reference, "The batch object").
_ENDED = frozenset(("completed", "expired", "cancelled"))
#: OpenAI's and Azure's files (API reference, "The File object").
_FILE_ID = re.compile(r"(?:file|assistant)[-_][A-Za-z0-9_-]+", re.ASCII)
#: What a batch leaves behind is its owner's.
_LEFT = ("output_file_id", "error_file_id")


class StoredFiles:
    """An upstream that knows whose a file or a batch is (upstream.Upstream).

    Args:
        lanes: the ways to the providers.
        objects: whose each one is.
        others: answers every other operation.
    """

    def __init__(self, lanes: Lanes, objects: OwnedObjects, others: Upstream) -> None:
        self._lanes = lanes
        self._objects = objects
        self._others = others

    def start(self) -> None:
        """Make ready in this process (Upstream.start)."""
        self._others.start()

    def opens_in_time(self, attempt: Attempt, call: Call) -> bool:
        """As the lanes do (Upstream.opens_in_time)."""
        return self._others.opens_in_time(attempt, call)

    def open(self, attempt: Attempt, call: Call) -> Answer:
        """Send the call (Upstream.open).

        Raises:
            ObjectNotFound: it is about something that its tenant does not have, or has a model read such a file.
            StoreUnavailable: nobody can tell whose it is.
        """
        endpoint, tenant = call.endpoint, call.caller.tenant
        if endpoint.name not in _OPERATIONS:
            if attempt.deployment.provider in FILES.native:
                self._check_named(call)
            return self._others.open(attempt, call)
        if endpoint in (FILES_LIST, BATCHES_LIST):
            return self._listed(attempt, call)
        if endpoint.by_id:
            find(self._objects, call.path_id or "", tenant, "id", kind=endpoint.kind)
        answer = self._lanes.open(attempt, call)
        if endpoint is FILE_DELETE:
            try:
                self._objects.remove(owned.FILE, call.path_id or "", tenant)
            except StorageError as error:
                raise unavailable(error) from error
        elif endpoint is not FILE_CONTENT:
            document = json.loads(answer.body)
            if endpoint in (BATCH, BATCH_CANCEL):
                self._bill(document, attempt, call)
            self._note(document, attempt, call)
        return answer

    def _check_named(self, call: Call) -> None:
        """Look after the files that a prompt names: a model reads those of every caller, who share its key."""
        if not (named := _named_in(call.body)):
            return
        try:
            known = self._objects.known(owned.FILE, named.keys(), call.caller.tenant)
        except StorageError as error:
            raise unavailable(error) from error
        for id, param in named.items():
            if id not in known:
                raise ObjectNotFound(f"File with id {id[:64]!r} not found.", param=param)

    def _bill(self, document: JSON, attempt: Attempt, call: Call) -> None:
        """Bill what a batch has used, to whoever first sees it completed: nobody else is told when that happens."""
        used = _used(document)
        if used is not None and bill_once(self._objects, owned.BILLED, call.path_id or "", attempt, call, used):
            priced_as = (attempt.deployment.provider, document["model"])
            attempt.deployment = replace(attempt.deployment, priced_as=priced_as)

    def _note(self, document: JSON, attempt: Attempt, call: Call) -> None:
        """Keep whose it is, before the caller knows its id, and what a batch has made."""
        made: list[tuple[str, str]] = []
        if call.endpoint in (FILES, BATCHES):
            if not isinstance(document.get("id"), str) or not document["id"]:
                provider = attempt.deployment.provider
                raise ProviderInvalid(f"{provider} made something without an id.", provider=provider)
            made.append((_KINDS[call.endpoint.name], document["id"]))
        made += _files_of(document)
        self._keep(made, attempt, call)

    def _keep(self, made: list[tuple[str, str]], attempt: Attempt, call: Call) -> None:
        if not made:
            return
        deployment = attempt.deployment
        rows = [
            Owned(
                kind=kind,
                id=id,
                tenant=call.caller.tenant,
                caller=call.caller.id,
                model=call.model,
                provider=deployment.provider,
                deployment=deployment.name,
                made_s=time.time(),
            )
            for kind, id in made
        ]
        try:
            self._objects.keep(*rows)
        except StorageError as error:
            raise unavailable(error) from error

    def _listed(self, attempt: Attempt, call: Call) -> Listed:
        """Look through the provider's list for the caller's own."""
        kind, (usual, most, page) = _KINDS[call.endpoint.name], _LISTS[call.endpoint.name]
        asked = {name: values[-1] for name, values in parse_qs(call.query).items()}
        limit = limit_of(asked.get("limit"), usual, most)
        if (after := asked.get("after")) is not None:
            find(self._objects, after, call.caller.tenant, "after", kind=kind)
        mine: list[JSON] = []
        more = True
        for _ in range(_MOST_PAGES):
            query = urlencode({**asked, "limit": page})
            one = self._lanes.open(attempt, replace(call, query=query))
            document = json.loads(one.body)
            items = [item for item in document.get("data") or () if isinstance(item, dict) and _id_of(item)]
            mine += self._own(kind, items, call.caller.tenant)
            more = document.get("has_more") is True and bool(items)
            if not more or len(mine) > limit:
                break
            asked["after"] = _id_of(items[-1])
        shown = mine[:limit]
        # what a batch has made is had by asking for that batch, which is billed then
        seen = self._known(owned.BILLED, [item for item in shown if _used(item) is not None], call.caller.tenant)
        paid = [item for item in shown if _used(item) is None or _id_of(item) in seen]
        self._keep([left for item in paid for left in _files_of(item)], attempt, call)
        return Listed(attempt, shown, has_more=more or len(mine) > limit)

    def _own(self, kind: str, items: list[JSON], tenant: str) -> list[JSON]:
        known = self._known(kind, items, tenant)
        return [item for item in items if _id_of(item) in known]

    def _known(self, kind: str, items: list[JSON], tenant: str) -> set[str]:
        try:
            return self._objects.known(kind, {_id_of(item) for item in items}, tenant)
        except StorageError as error:
            raise unavailable(error) from error


def _named_in(body: JSON) -> dict[str, str]:
    """The files that parts of messages and the containers of tools name, each with the parameter that it stands in."""
    found: dict[str, str] = {}
    for param in ("messages", "input"):
        for message in _objects(body.get(param)):
            for part in (message, *_objects(message.get("content")), *_objects(message.get("output"))):
                for holder in (part, part.get("file")):
                    if isinstance(holder, dict) and _is_file(id := holder.get("file_id")):
                        found[id] = param
    for tool in _objects(body.get("tools")):
        if isinstance(container := tool.get("container"), dict):
            found |= {id: "tools" for id in _list(container.get("file_ids")) if _is_file(id)}
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[JSON]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _is_file(id: Any) -> TypeGuard[str]:
    # where one may stand, LiteLLM's callers also have addresses, and bytes as data URLs
    return isinstance(id, str) and _FILE_ID.fullmatch(id) is not None


def _id_of(item: JSON) -> str:
    return item["id"] if isinstance(item.get("id"), str) else ""


def _used(document: JSON) -> Usage | None:
    """What a batch that has ended is billed for; None where there is nothing, or it has not ended."""
    usage = document.get("usage")
    if (
        document.get("status") not in _ENDED
        or not isinstance(usage, dict)
        or not isinstance(document.get("model"), str)
    ):
        return None
    used = usage_of_responses({**usage, "service_tier": "batch"})
    return used if used is not None and used.total else None


def _files_of(document: JSON) -> list[tuple[str, str]]:
    """The files that a batch has made."""
    if document.get("object") != "batch":
        return []
    return [(owned.FILE, document[name]) for name in _LEFT if isinstance(document.get(name), str) and document[name]]


class Listed:
    """A list of what is the caller's own (upstream.Answer)."""

    tells_silence = False

    def __init__(self, attempt: Attempt, items: list[JSON], *, has_more: bool) -> None:
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        document: JSON = {"object": "list", "data": items, "has_more": has_more, "first_id": first, "last_id": last}
        attempt.transcript.take({"object": "list", "ids": [item["id"] for item in items], "has_more": has_more})
        self.body = dumps(document)

    def chunks(self) -> Iterator[Chunk]:
        """It is not streamed."""
        yield from ()

    def close(self) -> None:
        """Nothing is held."""
