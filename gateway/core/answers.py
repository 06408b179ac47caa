"""The shapes of the gateway's own answers, as JSON Schemas (draft 2020-12), each with an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.rights import SCOPES, Rights

JSON = dict[str, Any]

_ID = "4f9k2m7x0a1b"
_TIME = {"type": "number", "description": "Seconds since the epoch."}
_TIME_OR_NULL = {"type": ["number", "null"], "description": "Seconds since the epoch; null for never."}
_TEXT: JSON = {"type": "string"}
_TEXT_OR_NULL: JSON = {"type": ["string", "null"]}
_FLAG: JSON = {"type": "boolean"}
_TEXTS: JSON = {"type": "array", "items": _TEXT}
_STATES = ["active", "disabled", "expired", "deleted", "lost"]


def _object(properties: JSON, example: JSON | None = None, *, closed: bool = True) -> JSON:
    """An object that has all of these, and nothing else where it is closed."""
    made: JSON = {"type": "object", "properties": properties, "required": list(properties)}
    if closed:
        made["additionalProperties"] = False
    if example is not None:
        made["examples"] = [example]
    return made


def _is(value: str | bool) -> JSON:
    return {"const": value}


def _list_of(shape: str, example: JSON, last: JSON) -> JSON:
    return _object(
        {
            "object": _is("list"),
            "data": {"type": "array", "items": {"$ref": f"#/components/schemas/{shape}"}},
            "has_more": _FLAG,
            "next": {**last, "description": "What to send as `after` for the next page; null where there is none."},
        },
        {"object": "list", "data": [example], "has_more": False, "next": None},
    )


_RIGHTS = _object(
    {
        "scopes": {"type": "array", "items": {"enum": sorted(SCOPES)}},
        "models": _TEXTS,
        "endpoints": _TEXTS,
        "parents": _TEXTS,
    }
)
_RIGHTS_EXAMPLE = Rights(models=("openai/*",)).document()

_KEY: JSON = {
    "object": _is("key"),
    "id": _TEXT,
    "name": _TEXT,
    "state": {"enum": _STATES},
    "rights": _RIGHTS,
    "project": _TEXT_OR_NULL,
    "project_name": _TEXT_OR_NULL,
    "user": _TEXT_OR_NULL,
    "user_name": _TEXT_OR_NULL,
    "parent": _TEXT_OR_NULL,
    "tags": _TEXTS,
    "created": _TIME,
    "created_by": _TEXT,
    "expires": _TIME_OR_NULL,
    "disabled": _FLAG,
    "used": {**_TIME_OR_NULL, "description": "When last, to the minute, in seconds since the epoch; null for never."},
    "deleted": _TIME_OR_NULL,
    "secrets": {
        "type": "array",
        "description": "One for each secret that is of use: several while a rotation's overlap lasts.",
        "items": _object({"ends": _TIME_OR_NULL}),
    },
}
_KEY_EXAMPLE: JSON = {
    "object": "key",
    "id": _ID,
    "name": "checkout",
    "state": "active",
    "rights": _RIGHTS_EXAMPLE,
    "project": "proj_2x7m0c9q4k1d",
    "project_name": "shop",
    "user": None,
    "user_name": None,
    "parent": None,
    "tags": ["checkout"],
    "created": 1764000000.5,
    "created_by": "adm_0c4f19ab",
    "expires": None,
    "disabled": False,
    "used": None,
    "deleted": None,
    "secrets": [{"ends": None}],
}

_ACCOUNT: JSON = {"id": _TEXT, "name": _TEXT, "created": _TIME, "disabled": _FLAG}


def _account(kind: str, id: str, name: str) -> tuple[JSON, JSON]:
    example = {"object": kind, "id": id, "name": name, "created": 1764000000.5, "disabled": False}
    return _object({"object": _is(kind), **_ACCOUNT}, example), example


_PROJECT, _PROJECT_EXAMPLE = _account("project", "proj_2x7m0c9q4k1d", "shop")
_USER, _USER_EXAMPLE = _account("user", "user_8h3n5v0t6z2w", "ann@example.com")
_AUDIT_EXAMPLE: JSON = {
    "object": "audit",
    "seq": 7,
    "at": 1764000000.5,
    "actor": "adm_0c4f19ab",
    "action": "rotate",
    "kind": "key",
    "target": _ID,
    "details": {"overlap_s": 3600},
    "request_id": f"req_{'0f' * 16}",
}

_FAULT: JSON = {"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL}
_WHOSE: JSON = {"provider": _TEXT_OR_NULL, "source": {"enum": ["gateway", "provider"]}}

_USD: JSON = {"type": "number", "minimum": 0}
_PRICE: JSON = {
    **_object({"least": _USD, "most": _USD}),
    "type": ["object", "null"],
    "description": "US dollars, from the prompt alone to the prompt and the longest answer; null where nobody knows.",
}
_COUNT: JSON = {"type": "integer", "minimum": 0}
_TRIES: JSON = {
    "type": "array",
    "items": _object(
        {
            "deployment": {**_TEXT, "description": "`provider/model`."},
            "name": {**_TEXT, "description": "The name that it is tried for: the one that was asked for, or another."},
            "why": _TEXT,
            "breaker": {"enum": ["closed", "open", "half-open"]},
            "price_usd": _PRICE,
        }
    ),
}
_OBJECT_OR_NULL: JSON = {"type": ["object", "null"]}
_PREFLIGHT: JSON = {
    "object": _is("preflight"),
    "model": _TEXT,
    "routed_by": {**_TEXT_OR_NULL, "description": "The strategy; null where there is nothing to choose."},
    "attempts": {**_TRIES, "description": "What would be tried, in order."},
    "if_too_long": {**_TRIES, "description": "Instead, after an error that the prompt is too long for the model."},
    "if_refused": {**_TRIES, "description": "Instead, after a refusal by a content filter."},
    "left_out": {"type": "array", "items": _object({"name": _TEXT, "why": _TEXT})},
    "needs": _TEXTS,
    "prompt_tokens": {**_COUNT, "description": "A guess: a quarter of the bytes of its texts."},
    "most_output_tokens": {"type": ["integer", "null"], "description": "The caller's own bound."},
    "price_usd": _PRICE,
    **dict.fromkeys(("budget", "limits", "cache"), _OBJECT_OR_NULL),
}
_PREFLIGHT_EXAMPLE: JSON = {
    "object": "preflight",
    "model": "smart",
    "routed_by": "weighted",
    "attempts": [
        {
            "deployment": "openai/gpt-4o",
            "name": "smart",
            "why": "weight 70",
            "breaker": "closed",
            "price_usd": {"least": 0.00001, "most": 0.00065},
        }
    ],
    "if_too_long": [],
    "if_refused": [],
    "left_out": [{"name": "groq/llama-3.1-8b-instant", "why": "it has no vision"}],
    "needs": ["vision"],
    "prompt_tokens": 4,
    "most_output_tokens": 64,
    "price_usd": {"least": 0.00001, "most": 0.00065},
    "budget": None,
    "limits": None,
    "cache": None,
}

#: By name.
SCHEMAS: Mapping[str, JSON] = {
    "Key": _object(_KEY, _KEY_EXAMPLE),
    "IssuedKey": _object(
        {
            **_KEY,
            "key": {
                **_TEXT_OR_NULL,
                "description": "The key itself, told this once; null where this request was answered before.",
            },
        },
        {**_KEY_EXAMPLE, "key": f"sk-gw-{_ID}-<51 characters>"},
    ),
    "KeyList": _list_of("Key", _KEY_EXAMPLE, _TEXT_OR_NULL),
    "DeletedKey": _object(
        {"object": _is("key.deleted"), "id": _TEXT, "deleted": _is(True)},
        {"object": "key.deleted", "id": _ID, "deleted": True},
    ),
    "Project": _PROJECT,
    "ProjectList": _list_of("Project", _PROJECT_EXAMPLE, _TEXT_OR_NULL),
    "User": _USER,
    "UserList": _list_of("User", _USER_EXAMPLE, _TEXT_OR_NULL),
    "AuditLine": _object(
        {
            "object": _is("audit"),
            "seq": {"type": "integer"},
            "at": _TIME,
            "actor": _TEXT,
            "action": _TEXT,
            "kind": _TEXT,
            "target": _TEXT,
            "details": {"type": "object", "description": "What became different; never a secret."},
            "request_id": _TEXT_OR_NULL,
        },
        _AUDIT_EXAMPLE,
    ),
    "AuditList": _list_of("AuditLine", _AUDIT_EXAMPLE, {"type": ["integer", "null"]}),
    "Me": _object(
        {
            "object": _is("caller"),
            "id": {**_TEXT, "description": "As in traces and logs."},
            "kind": {"enum": ["token", "admin", "key", "jwt"]},
            "key": {**_TEXT_OR_NULL, "description": "The id of a virtual key."},
            "key_name": _TEXT_OR_NULL,
            "project": {**_TEXT_OR_NULL, "description": "By name."},
            "user": {**_TEXT_OR_NULL, "description": "By name."},
            "tags": _TEXTS,
            "rights": _RIGHTS,
            "state": {"enum": _STATES},
            "expires": {
                **_TIME_OR_NULL,
                "description": "When this credential ends if nothing changes: by its own expiry, that of a key above "
                "it, or the overlap of a rotation; null for never.",
            },
        },
        {
            "object": "caller",
            "id": f"key_{_ID}",
            "kind": "key",
            "key": _ID,
            "key_name": "checkout",
            "project": "shop",
            "user": None,
            "tags": ["checkout"],
            "rights": _RIGHTS_EXAMPLE,
            "state": "active",
            "expires": None,
        },
    ),
    "Preflight": _object(_PREFLIGHT, _PREFLIGHT_EXAMPLE, closed=False),
    "Health": _object({"status": {"enum": ["ok", "degraded"]}}, {"status": "ok"}, closed=False),
    "Root": _object({"what": _TEXT, "call": _TEXT, "models": _TEXT, "health": _TEXT}, closed=False),
    "Text": {"type": "string"},
    "OpenAPI": _object({"openapi": _TEXT, "info": {"type": "object"}, "paths": {"type": "object"}}, closed=False),
    "Error": _object({"error": _object({**_FAULT, "request_id": _TEXT, **_WHOSE})}),
    "AnthropicError": _object({"type": _is("error"), "error": _object({**_FAULT, **_WHOSE}), "request_id": _TEXT}),
}
