"""One row per request that the gateway answers by itself, with no call: managing keys and limits, who am I, health.

Routes, checks, the OpenAPI document, docs and tests read this table, as they read that of `core/endpoints.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core.fields import Field, fault_of
from gateway.core.paging import limit_of
from gateway.core.rights import ADMIN, CALL, METRICS
from gateway.errors import InvalidRequest

JSON = dict[str, Any]

#: What a request needs where that is no scope: nothing at all, or any credential that is known.
PUBLIC = "public"
KNOWN = "known"

#: Of a page of a list.
PAGE, LONGEST_PAGE = 50, 200
#: Of a page of calls, and of groups of them: a line has few bytes.
LONGEST_SHEET = 1000


@dataclass(frozen=True)
class Operation:
    """One request.

    Attributes:
        name: of the operation, `keys.create`.
        path: `{id}` stands for a part of it.
        summary: one line for the docs.
        needs: a scope of `core/rights.py`, or `PUBLIC` or `KNOWN`.
        answer: the name of the answer's shape in the OpenAPI document.
        body: the fields that it takes, and no other unless it is `open`; None where it has no body.
        open: its body may have any other field.
        clears: fields of the body that null takes away; it is no value of any other.
        query: likewise of its query.
        idempotent: it may be named by an `Idempotency-Key`.
        status: of an answer that is no error.
        media_type: of the answer.
        sheet: it is also answered as CSV, by `format=csv` or `Accept: text/csv`.
        others: further paths that are served alike.
    """

    name: str
    method: str
    path: str
    summary: str
    needs: str
    answer: str
    body: Mapping[str, Field] | None = None
    open: bool = False
    clears: frozenset[str] = frozenset()
    query: Mapping[str, Field] = field(default_factory=dict)
    idempotent: bool = False
    status: int = 200
    media_type: str = "application/json"
    sheet: bool = False
    others: tuple[str, ...] = ()


_TEXT = Field((str,), non_empty=True)
_NAME = Field((str,), required=True, non_empty=True)
_FLAG = Field((bool,))
_OBJECT = Field((dict,))
_TEXTS = Field((list,), items=str)
_TIME_S = Field((float,))
_SHARE = Field((float,))
#: A whole number; of money, a number or a text of US dollars.
_MOST = (float, str)
_PAGES = {"limit": Field((int,), minimum=1, maximum=LONGEST_PAGE), "after": _TEXT}


def _key(verb: str, method: str, path: str, summary: str, answer: str, **more: Any) -> Operation:
    return Operation(f"keys.{verb}", method, f"/admin/v1/keys{path}", summary, ADMIN, answer, **more)


def _account(kind: str, shape: str) -> tuple[Operation, ...]:
    path = f"/admin/v1/{kind}s"
    return (
        Operation(
            *(f"{kind}s.create", "POST", path, f"Make a {kind}", ADMIN, shape),
            body={"name": _NAME},
            idempotent=True,
            status=201,
        ),
        Operation(f"{kind}s.list", "GET", path, f"The {kind}s, newest first", ADMIN, f"{shape}List", query=_PAGES),
        Operation(f"{kind}s.show", "GET", path + "/{id}", f"One {kind}", ADMIN, shape),
        Operation(
            *(f"{kind}s.change", "PATCH", path + "/{id}"),
            *(f"Rename a {kind}, or stop or resume all of its keys", ADMIN, shape),
            body={"name": _TEXT, "disabled": _FLAG},
        ),
    )


def _rule(kind: str, shape: str, bodies: Mapping[str, Field]) -> tuple[Operation, ...]:
    path = f"/admin/v1/{kind}s"
    return (
        Operation(
            *(f"{kind}s.create", "POST", path, f"Make a {kind}", ADMIN, shape),
            body={
                "name": _NAME,
                "measure": _NAME,
                "most": Field(_MOST, required=True),
                "period": _TEXT,
                "match": _OBJECT,
                "each": _TEXTS,
                **bodies,
            },
            idempotent=True,
            status=201,
        ),
        Operation(
            *(f"{kind}s.list", "GET", path, f"The {kind}s, newest first", ADMIN, f"{shape}List"),
            query={**_PAGES, "key": _TEXT, "user": _TEXT, "project": _TEXT},
        ),
        Operation(
            *(f"{kind}s.show", "GET", path + "/{id}", f"One {kind}, and how it stands", ADMIN, shape),
            query={"subject": _TEXT},
        ),
        Operation(
            *(f"{kind}s.change", "PATCH", path + "/{id}"),
            *(f"Change a {kind}; what is not named stays, and what was counted", ADMIN, shape),
            body={"name": _TEXT, "most": Field(_MOST), **bodies},
            clears=frozenset(bodies),
        ),
        Operation(f"{kind}s.delete", "DELETE", path + "/{id}", f"Delete a {kind}", ADMIN, f"Deleted{shape}"),
    )


MANAGING: tuple[Operation, ...] = (
    _key(
        *("create", "POST", "", "Make a key; the answer alone tells it", "IssuedKey"),
        body={
            "name": _NAME,
            "rights": _OBJECT,
            "project": _TEXT,
            "user": _TEXT,
            "parent": _TEXT,
            "tags": _TEXTS,
            "expires": _TIME_S,
        },
        idempotent=True,
        status=201,
    ),
    _key(
        *("list", "GET", "", "The keys, newest first", "KeyList"),
        query={**_PAGES, "project": _TEXT, "user": _TEXT, "parent": _TEXT, "deleted": _FLAG},
    ),
    _key("show", "GET", "/{id}", "One key, also a deleted one", "Key"),
    _key(
        *("change", "PATCH", "/{id}", "Change a key; what is not named stays", "Key"),
        body={"name": _TEXT, "rights": _OBJECT, "tags": _TEXTS, "expires": _TIME_S, "disabled": _FLAG},
        clears=frozenset(("expires",)),
    ),
    _key(
        *("rotate", "POST", "/{id}/rotate"),
        *("Give a key a new secret; the old one is good for `overlap_s` seconds more", "IssuedKey"),
        body={"overlap_s": _TIME_S},
    ),
    _key("delete", "DELETE", "/{id}", "Delete a key for good", "DeletedKey"),
    *_account("project", "Project"),
    *_account("user", "User"),
    *_rule("limit", "Limit", {}),
    *_rule("budget", "Budget", {"soft": _SHARE, "webhook": _TEXT}),
    Operation(
        *("audit.list", "GET", "/admin/v1/audit", "Who changed what, newest first", ADMIN, "AuditList"),
        query={"limit": _PAGES["limit"], "after": Field((int,), minimum=1), "kind": _TEXT, "target": _TEXT},
    ),
)

#: Which calls are meant. The caller's own need no more than these.
_CALLS = dict.fromkeys(("since", "until", "model", "provider", "deployment", "tag", "operation", "format"), _TEXT)
_WHOSE = dict.fromkeys(("key", "user", "project", "caller"), _TEXT)
_SHEET = {"limit": Field((int,), minimum=1, maximum=LONGEST_SHEET)}

SPENDING: tuple[Operation, ...] = (
    Operation(
        *("usage.sum", "GET", "/admin/v1/usage", "What calls used and cost, added up", ADMIN, "Usage"),
        query={"by": _TEXT, **_CALLS, **_WHOSE, **_SHEET},
        sheet=True,
    ),
    Operation(
        *("usage.calls", "GET", "/admin/v1/usage/calls", "Call by call, newest first", ADMIN, "UsageCallList"),
        query={**_CALLS, **_WHOSE, **_SHEET, "after": _TEXT},
        sheet=True,
    ),
)

ME = Operation(
    *("me", "GET", "/v1/me", "Who the credential belongs to, and what it may", KNOWN, "Me"),
    others=("/me",),
)
MY_USAGE = Operation(
    *("me.usage", "GET", "/v1/me/usage", "What the caller's own calls used and cost", KNOWN, "Usage"),
    query={"by": _TEXT, **_CALLS, **_SHEET},
    sheet=True,
    others=("/me/usage",),
)
PREFLIGHT = Operation(
    *("preflight", "POST", "/v1/preflight", "What would be tried for a call, why, and what it may cost", CALL),
    "Preflight",
    body={"model": _NAME},
    open=True,
    others=("/preflight",),
)
OPENAPI = Operation("openapi", "GET", "/openapi.json", "This document", KNOWN, "OpenAPI")
METRICS_TEXT = Operation(
    *("metrics", "GET", "/metrics", "Counts and times, for Prometheus", METRICS, "Text"), media_type="text/plain"
)
ROOT = Operation("root", "GET", "/", "What is served here", PUBLIC, "Root")
READINESS = Operation("health.readiness", "GET", "/health/readiness", "Can it serve, and its traces", PUBLIC, "Health")
LIVENESS = Operation(
    *("health", "GET", "/health", "Is it alive", PUBLIC, "Health"),
    others=("/health/liveness", "/health/liveliness"),
)

OPERATIONS: tuple[Operation, ...] = (
    ME,
    MY_USAGE,
    PREFLIGHT,
    *MANAGING,
    *SPENDING,
    OPENAPI,
    METRICS_TEXT,
    ROOT,
    READINESS,
    LIVENESS,
)


def check_body(operation: Operation, body: JSON) -> None:
    """Check the fields of a body by the operation's row.

    Raises:
        InvalidRequest: a field that it has not, one that is missing, or one that cannot be used; names it.
    """
    fields = operation.body or {}
    if not operation.open:
        refuse_unknown(fields, body)
    for name, row in fields.items():
        given = name in body
        if given and body[name] is None and not row.required and name not in operation.clears:
            # a change has no other way to say "as it was", so null would be taken for one or the other
            raise InvalidRequest(f"{name} must not be null; leave it out", param=name)
        fault = fault_of(name, body.get(name), row)
        if fault is not None:
            raise InvalidRequest(fault, param=name)


def read_query(operation: Operation, sent: Mapping[str, str]) -> JSON:
    """Read the fields of a query by the operation's row.

    Args:
        operation: what is asked for.
        sent: the query, decoded.

    Raises:
        InvalidRequest: a field that it has not, or one that cannot be used; names it.
    """
    refuse_unknown(operation.query, sent)
    return {name: _of_query(name, text, operation.query[name]) for name, text in sent.items()}


def _of_query(name: str, text: str, field: Field) -> Any:
    if bool in field.types:
        if text not in ("true", "false"):
            raise InvalidRequest(f"{name} must be true or false", param=name)
        return text == "true"
    if int in field.types:
        most = field.maximum or 10**8 - 1
        return limit_of(text, most, most, name)
    if not text:
        raise InvalidRequest(f"{name} must not be empty", param=name)
    return text


def refuse_unknown(fields: Mapping[str, Field], given: Mapping[str, Any]) -> None:
    """Refuse a name that has no row: one that is misspelt must not count as left out.

    Raises:
        InvalidRequest: names the first.
    """
    for name in given:
        if name not in fields:
            known = f"there are {', '.join(fields)}" if fields else "there are none"
            raise InvalidRequest(f"{name[:64]!r} is not known here; {known}.", param=name[:64])
