"""The shapes of the gateway's own answers, as JSON Schemas (draft 2020-12), each with an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.rights import SCOPES, Rights
from gateway.core.rules import BUDGET, LIMIT, MEASURES, PARALLEL, PERIODS, SUBJECTS, USD, Match, Rule, RuleStanding

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

_STANDING = {
    **_object(
        {
            "used": {"type": ["integer", "string"]},
            "remaining": {"type": ["integer", "string"]},
            "resets": {
                **_TIME_OR_NULL,
                "description": "When nothing of it counts any more, in seconds since the epoch.",
            },
        }
    ),
    "type": ["object", "null"],
    "description": "How it stands now, amounts as in `most`; null in lists, for one that is counted apart where no "
    "`subject` is named, and while the counters do not answer.",
}


def _rule_shape(kind: str, *, more: JSON) -> JSON:
    """What is told of a rule, by name."""
    period: JSON = {"enum": [*PERIODS[kind], *([None] if PARALLEL in MEASURES[kind] else [])]}
    amounts = ["integer", "string"] if USD in MEASURES[kind] else ["integer"]
    return {
        "object": _is(kind),
        "id": _TEXT,
        "name": _TEXT,
        "measure": {"enum": list(MEASURES[kind])},
        "most": {"type": amounts, "description": "A whole number; of money, a text of US dollars such as `12.5`."},
        "period": period,
        "match": {
            "type": "object",
            "properties": dict.fromkeys(SUBJECTS, _TEXT),
            "additionalProperties": False,
            "description": "It is about the calls that have all of these; about every call where there are none.",
        },
        "each": {"type": "array", "items": {"enum": list(SUBJECTS)}, "description": "What it is counted apart for."},
        **more,
    }


def _rule(kind: str, more: JSON, rule: Rule, standing: RuleStanding) -> Mapping[str, JSON]:
    """The shapes of one kind of rules."""
    title = kind.capitalize()
    shape = _rule_shape(kind, more=more) | {"created": _TIME, "created_by": _TEXT, "standing": _STANDING}
    made = {"created": 1764000000.5, "created_by": "adm_0c4f19ab"}
    example = {**rule.document(), **made, "standing": standing.document(rule.measure)}
    deleted = {"object": f"{kind}.deleted", "id": rule.id, "deleted": True}
    return {
        title: _object(shape, example),
        f"{title}List": _list_of(title, {**example, "standing": None}, _TEXT_OR_NULL),
        f"Deleted{title}": _object(
            {"object": _is(f"{kind}.deleted"), "id": _TEXT, "deleted": _is(True)},
            deleted,
        ),
    }


_SHARE = {"type": ["number", "null"], "description": "The share of it from which on callers and the operator are told."}
_WEBHOOK = {**_TEXT_OR_NULL, "description": "Where the operator is told."}
_LIMIT = Rule(f"lim_{_ID}", LIMIT, "requests", 60, "minute", Match(key=_ID), (), "checkout, a minute")
_BUDGET = Rule(
    *(f"bud_{_ID}", BUDGET, USD, 50_000_000, "month", Match(project="proj_2x7m0c9q4k1d"), (), "shop, a month", 0.8),
    webhook="https://hooks.example.com/budgets",
)
_LIMIT_STANDING = RuleStanding(12, 48, 1764000060.5)
_BUDGET_STANDING = RuleStanding(41_250_000, 8_750_000, 1764547200)


def _mine(kind: str, more: JSON) -> JSON:
    """What callers are told of the rules of one kind that they are held to."""
    each = _object(_rule_shape(kind, more=more) | {"standing": _STANDING})
    said = f"The {kind}s that its calls are held to; null while they cannot be told."
    return {"type": ["array", "null"], "items": each, "description": said}


_MY_LIMIT = {**_LIMIT.document(), "standing": _LIMIT_STANDING.document("requests")}
_MY_BUDGET = {
    **{name: value for name, value in _BUDGET.document().items() if name != "webhook"},
    "standing": _BUDGET_STANDING.document(USD),
}

_COUNT: JSON = {"type": "integer", "minimum": 0}
_TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning", "total")
_SUMS: JSON = {
    "requests": _COUNT,
    "failed": {**_COUNT, "description": "That ended with an error though their caller stayed."},
    "lost": {**_COUNT, "description": "Whose end nobody saw; what they cost is not known."},
    **{f"{kind}_tokens": _COUNT for kind in _TOKENS},
    "unpriced": {**_COUNT, "description": "That used something which has no price; their cost is not known."},
    "cost_nano": {**_COUNT, "description": "Thousand millionths of a US dollar, of those whose cost is known."},
    "cost_usd": {"type": "number", "description": "The same in US dollars."},
}
_TOKENS_EXAMPLE = dict(zip((f"{kind}_tokens" for kind in _TOKENS), (12, 30, 0, 0, 0, 42), strict=True))
_SUMS_EXAMPLE: JSON = {
    "requests": 1,
    "failed": 0,
    "lost": 0,
    **_TOKENS_EXAMPLE,
    "unpriced": 0,
    "cost_nano": 19800,
    "cost_usd": 0.0000198,
}
_COUNT_OR_NULL: JSON = {"type": ["integer", "null"], "minimum": 0}
_USED: JSON = {
    "object": _is("call"),
    "request_id": _TEXT,
    "state": {"enum": ["ended", "lost"], "description": "`lost`: nobody saw its end, as where its process died."},
    "started": _TIME,
    "ended": _TIME,
    "operation": _TEXT,
    "caller": {**_TEXT, "description": "As in traces and logs."},
    "caller_kind": {"enum": ["token", "admin", "key", "jwt"]},
    "tenant": _TEXT,
    **dict.fromkeys(("key_id", "project_id", "project", "user_id", "user"), _TEXT_OR_NULL),
    "tags": _TEXTS,
    "model": {**_TEXT, "description": "As the caller named it."},
    "planned": {**_TEXTS, "description": "The deployments that could be tried, in order, each name once."},
    "provider": _TEXT_OR_NULL,
    "deployment": {**_TEXT_OR_NULL, "description": "That answered, or was tried last."},
    "served_model": {**_TEXT_OR_NULL, "description": "As the provider names it."},
    "status": _COUNT_OR_NULL,
    "error_code": _TEXT_OR_NULL,
    "stream": _FLAG,
    "caller_gone": {"type": ["boolean", "null"]},
    "attempts": _COUNT_OR_NULL,
    "time_to_first_token_s": {"type": ["number", "null"]},
    **{f"{kind}_tokens": _COUNT_OR_NULL for kind in _TOKENS},
    "estimated": {"type": ["boolean", "null"], "description": "The provider told no usage: tokens are a guess."},
    "cost_nano": {**_COUNT_OR_NULL, "description": "Thousand millionths of a US dollar; null where nobody knows."},
    "cost_usd": {"type": ["number", "null"]},
    "price": {"type": "array", "items": {"type": "object"}, "description": "The bill of each attempt that used any."},
}
_USED_EXAMPLE: JSON = {
    "object": "call",
    "request_id": f"req_{'0f' * 16}",
    "state": "ended",
    "started": 1764000000.5,
    "ended": 1764000001.75,
    "operation": "chat",
    "caller": f"key_{_ID}",
    "caller_kind": "key",
    "tenant": "proj_2x7m0c9q4k1d",
    "key_id": _ID,
    "project_id": "proj_2x7m0c9q4k1d",
    "project": "shop",
    "user_id": None,
    "user": None,
    "tags": ["checkout"],
    "model": "fast",
    "planned": ["openai/gpt-4o-mini"],
    "provider": "openai",
    "deployment": "openai/gpt-4o-mini",
    "served_model": "gpt-4o-mini-2024-07-18",
    "status": 200,
    "error_code": None,
    "stream": True,
    "caller_gone": False,
    "attempts": 1,
    "time_to_first_token_s": 0.31,
    **_TOKENS_EXAMPLE,
    "estimated": False,
    "cost_nano": 19800,
    "cost_usd": 0.0000198,
    "price": [],
}

_FAULT: JSON = {"message": _TEXT, "type": _TEXT, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL}
_WHOSE: JSON = {"provider": _TEXT_OR_NULL, "source": {"enum": ["gateway", "provider"]}}

_USD: JSON = {"type": "number", "minimum": 0}
_PRICE: JSON = {
    **_object({"least": _USD, "most": _USD}),
    "type": ["object", "null"],
    "description": "US dollars, from the prompt alone to the prompt and the longest answer; null where nobody knows.",
}
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
    **dict.fromkeys(("budget", "limits"), _OBJECT_OR_NULL),
    "cache": {
        "type": ["object", "null"],
        "description": "Whether it would be answered from the cache: `hit`, `miss`, or `off` where it would not look.",
    },
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
    "cache": {"answer": "hit", "age_s": 12.5, "ttl_s": 587.5},
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
    **_rule(LIMIT, {}, _LIMIT, _LIMIT_STANDING),
    **_rule(BUDGET, {"soft": _SHARE, "webhook": _WEBHOOK}, _BUDGET, _BUDGET_STANDING),
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
            "limits": _mine(LIMIT, {}),
            "budgets": _mine(BUDGET, {"soft": _SHARE}),
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
            "limits": [_MY_LIMIT],
            "budgets": [_MY_BUDGET],
        },
    ),
    "Usage": _object(
        {
            "object": _is("usage"),
            "since": {**_TIME_OR_NULL, "description": "Seconds since the epoch; null where there is no bound."},
            "until": {**_TIME_OR_NULL, "description": "Seconds since the epoch; null where there is no bound."},
            "by": {**_TEXTS, "description": "What each of `data` has a field of, besides its sums."},
            "data": {"type": "array", "items": _object(_SUMS, closed=False)},
            "total": _object(_SUMS),
            "has_more": {**_FLAG, "description": "There are more groups; those of the least cost are left out."},
        },
        {
            "object": "usage",
            "since": 1764000000.0,
            "until": None,
            "by": ["model"],
            "data": [{"model": "openai/gpt-4o-mini", **_SUMS_EXAMPLE}],
            "total": _SUMS_EXAMPLE,
            "has_more": False,
        },
    ),
    "UsageCall": _object(_USED, _USED_EXAMPLE),
    "UsageCallList": _list_of("UsageCall", _USED_EXAMPLE, _TEXT_OR_NULL),
    "Preflight": _object(_PREFLIGHT, _PREFLIGHT_EXAMPLE, closed=False),
    "Health": _object({"status": {"enum": ["ok", "degraded"]}}, {"status": "ok"}, closed=False),
    "Root": _object({"what": _TEXT, "call": _TEXT, "models": _TEXT, "health": _TEXT}, closed=False),
    "Text": {"type": "string"},
    "OpenAPI": _object({"openapi": _TEXT, "info": {"type": "object"}, "paths": {"type": "object"}}, closed=False),
    "Error": _object({"error": _object({**_FAULT, "request_id": _TEXT, **_WHOSE})}),
    "AnthropicError": _object({"type": _is("error"), "error": _object({**_FAULT, **_WHOSE}), "request_id": _TEXT}),
}
