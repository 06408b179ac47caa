"""Who may what, in full: every kind of credential at every route with every method.

A route of the app that has no row here fails the suite, and so does a row without a route.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.auth.issuer import IssuerKeys
from gateway.auth.oidc import Claims, JsonWebTokens
from gateway.core.endpoints import ENDPOINTS
from gateway.core.keys import Pepper
from gateway.core.operations import KNOWN, PUBLIC
from gateway.core.rights import ADMIN, CALL, METRICS, Rights
from gateway.secret import Secret
from tests.builders import TOKEN
from tests.fakes.issuer import AUDIENCE, RSA, Issuer, token
from tests.managed import ADMIN_TOKEN, BOSS, JSON, Managed, text

ADMIN_SCOPE = "gateway-admin"
ALGORITHMS = ("RS256", "ES256")
#: Every method that HTTP and its extensions know to this stack, and one that nobody knows.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")

_MESSAGES = [{"role": "user", "content": "hi"}]
_numbers = itertools.count()


@dataclass(frozen=True)
class Route:
    """What a route needs, and what it answers to those who have it.

    Attributes:
        needs: a scope, `PUBLIC` or `KNOWN`.
        status: what they are told.
        body: what is sent; as a form where it has a file.
        model: it is about one model, which a caller must be allowed.
        operation: it is one that a key may be without.
        owned: it is about something that is found by its own tenant alone.
        code: of the error that they are told.
    """

    needs: str
    status: int = 200
    body: Callable[[], JSON] | None = None
    model: bool = False
    operation: bool = False
    owned: bool = False
    code: str | None = None


def asking(**body: Any) -> Route:
    return Route(CALL, body=lambda: {"model": "demo/echo", **body}, model=True, operation=True)


def managing(status: int = 200, body: Callable[[], JSON] | None = None) -> Route:
    return Route(ADMIN, status, body)


def new() -> JSON:
    return {"name": f"n{next(_numbers)}"}


RULES = ("limits", "budgets")


def new_rule() -> JSON:
    return {**new(), "measure": "tokens", "most": 10, "period": "day"}


def stored(status: int = 200) -> Route:
    return Route(CALL, status, model=True, operation=True, owned=True)


def a_file() -> JSON:
    return {"file": (io.BytesIO(b"some bytes"), "a.bin")}


def refused(**body: Any) -> Route:
    """What the demo has not."""

    def sent() -> JSON:
        return {"model": "demo/echo", **{name: value() if callable(value) else value for name, value in body.items()}}

    return Route(CALL, 400, sent, model=True, operation=True)


def kept_nowhere() -> Route:
    """About something that nobody has uploaded."""
    return Route(CALL, 404, operation=True, code="not_found")


MEDIA: Mapping[str, JSON] = {
    "moderations": {"input": "hi"},
    "rerank": {"query": "hi", "documents": ["hi"]},
    "images/generations": {"prompt": "hi"},
    "images/edits": {"prompt": "hi", "image": lambda: a_file()["file"]},
    "images/variations": {"image": lambda: a_file()["file"]},
    "audio/transcriptions": {"file": lambda: a_file()["file"]},
    "audio/translations": {"file": lambda: a_file()["file"]},
    "audio/speech": {"input": "hi", "voice": "alloy"},
}
CALLS: Mapping[str, Route] = {
    "POST /chat/completions": asking(messages=_MESSAGES),
    "POST /responses": asking(input="hi"),
    "POST /responses/input_tokens": asking(input="hi"),
    "GET /responses/<id>": stored(),
    "DELETE /responses/<id>": stored(),
    "POST /responses/<id>/cancel": stored(400),  # it was not made in the background
    "GET /responses/<id>/input_items": stored(),
    "POST /messages": asking(messages=_MESSAGES, max_tokens=9),
    "POST /messages/count_tokens": asking(messages=_MESSAGES),
    "POST /completions": asking(prompt="hi"),
    "POST /embeddings": Route(CALL, 400, asking(input="hi").body, model=True, operation=True),  # the demo has none
    **{f"POST /{path}": refused(**body) for path, body in MEDIA.items()},
    # about no model, but for the name that stands for one; nobody here has files
    "POST /files": Route(CALL, 400, lambda: {"purpose": "batch", **a_file()}, operation=True),
    "GET /files": Route(CALL, 400, operation=True),
    "GET /files/<id>": kept_nowhere(),
    "GET /files/<id>/content": kept_nowhere(),
    "DELETE /files/<id>": kept_nowhere(),
    "POST /batches": Route(
        *(CALL, 404, lambda: {"input_file_id": "f", "endpoint": "/v1/chat/completions", "completion_window": "24h"}),
        operation=True,
        code="not_found",
    ),
    "GET /batches": Route(CALL, 400, operation=True),
    "GET /batches/<id>": kept_nowhere(),
    "POST /batches/<id>/cancel": kept_nowhere(),
    "GET /models": Route(CALL),
    "GET /models/<path:name>": Route(CALL, model=True),
    "GET /me": Route(KNOWN),
    "GET /me/usage": Route(KNOWN),
    "POST /preflight": asking(messages=_MESSAGES),
}
ROUTES: Mapping[str, Route] = {
    **{name.replace(" /", f" {version}/"): row for name, row in CALLS.items() for version in ("", "/v1")},
    **{
        row.azure_path.replace("{id}", "<path:id>").replace("/", f"{row.method} /", 1): CALLS[
            f"{row.method} {row.provider_path}"
        ]
        for row in ENDPOINTS
        if row.azure
    },
    **{f"GET {path}": Route(PUBLIC) for path in ("/", "/health", "/health/liveness", "/health/liveliness")},
    "GET /health/readiness": Route(PUBLIC),
    "GET /openapi.json": Route(KNOWN),
    "GET /metrics": Route(METRICS),
    "POST /admin/v1/keys": managing(201, new),
    "GET /admin/v1/keys": managing(),
    "GET /admin/v1/keys/<id>": managing(),
    "PATCH /admin/v1/keys/<id>": managing(body=new),
    "POST /admin/v1/keys/<id>/rotate": managing(body=lambda: {"overlap_s": 1}),
    "DELETE /admin/v1/keys/<id>": managing(),
    **{f"POST /admin/v1/{kind}": managing(201, new) for kind in ("projects", "users")},
    **{f"GET /admin/v1/{kind}": managing() for kind in ("projects", "users")},
    **{f"GET /admin/v1/{kind}/<id>": managing() for kind in ("projects", "users")},
    **{f"PATCH /admin/v1/{kind}/<id>": managing(body=new) for kind in ("projects", "users")},
    **{f"POST /admin/v1/{kind}": managing(201, new_rule) for kind in RULES},
    **{f"GET /admin/v1/{kind}": managing() for kind in RULES},
    **{f"GET /admin/v1/{kind}/<id>": managing() for kind in RULES},
    **{f"PATCH /admin/v1/{kind}/<id>": managing(body=new) for kind in RULES},
    **{f"DELETE /admin/v1/{kind}/<id>": managing() for kind in RULES},
    "GET /admin/v1/audit": managing(),
    "GET /admin/v1/usage": managing(),
    "GET /admin/v1/usage/calls": managing(),
}
#: A path that is another route's as well, with methods that its own has not: the name is taken for an id.
SHADOWED: Mapping[str, Route] = {
    f"{method} {version}/responses/input_tokens": Route(CALL, 404, operation=True, code="not_found")
    for method in ("GET", "DELETE")
    for version in ("", "/v1")
}


@dataclass(frozen=True)
class Who:
    """A kind of credential.

    Attributes:
        headers: that carry it; None where `credential` travels in each of the three ways in turn.
        scopes: that it has; None where nobody knows it.
        mine: it finds what the owner stored.
        models: it may call the model that is asked for.
        operations: it may ask for any operation.
    """

    credential: str = ""
    headers: Mapping[str, str] | None = None
    scopes: frozenset[str] | None = None
    mine: bool = False
    models: bool = True
    operations: bool = True


@dataclass
class Stage:
    """The app, everybody who asks it, and whose things are asked about."""

    managed: Managed
    owner: str
    everybody: dict[str, Who] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)


def of(*scopes: str) -> frozenset[str]:
    return frozenset(scopes)


#: By name, so that each is a test; `stage` makes them.
STRANGERS = (
    *("none", "empty", "no scheme", "basic", "two words", "bare bearer", "control characters", "too long"),
    *("unknown", "unknown key", "key of another pepper", "cut key", "deleted", "expired", "disabled"),
    *("disabled project", "disabled user", "under a deleted key", "rotated away"),
    *("jwt expired", "jwt of a foreign issuer", "jwt for others", "jwt signed by another", "jwt of alg none"),
    *("jwt of key confusion", "jwt without signature", "jwt of an unknown key"),
)
KNOWN_ONES = (
    *("token", "admin token", "owner", "of its project", "other tenant", "no scope", "only metrics"),
    *("model-limited", "operation-limited", "admin key", "jwt", "jwt of an admin"),
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    issuer = Issuer()
    claims = Claims(admin_scope=ADMIN_SCOPE)
    keys = IssuerKeys(issuer.url, None, ALGORITHMS)
    tokens = JsonWebTokens(issuer.url, [AUDIENCE], ALGORITHMS, keys, claims)
    managed = Managed(tmp_path_factory.mktemp("matrix"), [tokens])
    made = Stage(managed, "")
    _admit(made)
    made.everybody |= _strangers(managed, issuer)
    made.everybody |= {
        "jwt": Who(token(issuer).decode(), scopes=of(CALL)),
        "jwt of an admin": Who(token(issuer, scope=f"a {ADMIN_SCOPE}").decode(), scopes=of(CALL, ADMIN, METRICS)),
    }
    yield made
    managed.close()
    issuer.shutdown()
    issuer.server_close()


def _admit(stage: Stage) -> None:
    managed = stage.managed
    project = managed.directory.projects.create("the owner's", BOSS).id
    other = managed.directory.projects.create("another", BOSS).id
    stage.owner = text(managed.make("owner", project=project))

    def key(*scopes: str, of_project: str = project, **rights: Any) -> str:
        return text(managed.make("one", project=of_project, rights=Rights(of(*scopes), **rights)))

    stage.everybody |= {
        "token": Who(TOKEN, scopes=of(CALL, METRICS)),
        "admin token": Who(ADMIN_TOKEN, scopes=of(ADMIN, METRICS)),
        "owner": Who(stage.owner, scopes=of(CALL), mine=True),
        "of its project": Who(key(CALL), scopes=of(CALL), mine=True),
        "other tenant": Who(key(CALL, of_project=other), scopes=of(CALL)),
        "no scope": Who(key(), scopes=of(), mine=True),
        "only metrics": Who(key(METRICS), scopes=of(METRICS), mine=True),
        "model-limited": Who(key(CALL, models=("openai/*",)), scopes=of(CALL), mine=True, models=False),
        "operation-limited": Who(key(CALL, endpoints=()), scopes=of(CALL), mine=True, operations=False),
        "admin key": Who(key(ADMIN, CALL, METRICS), scopes=of(ADMIN, CALL, METRICS), mine=True),
    }


def _strangers(managed: Managed, issuer: Issuer) -> dict[str, Who]:
    keys, accounts = managed.directory.keys, managed.directory
    deleted, disabled, turned, parent = (managed.make(name) for name in ("deleted", "disabled", "turned", "parent"))
    below = managed.make("below", parent=parent.key.id)
    keys.delete(deleted.key.id, BOSS)
    keys.delete(parent.key.id, BOSS)
    keys.change(disabled.key.id, BOSS, {"disabled": True})
    keys.rotate(turned.key.id, BOSS, 0)
    expired = managed.make("expired", expires_s=time.time() + 0.05)
    stopped = {}
    for kind, account in (("project", accounts.projects), ("user", accounts.users)):
        one = account.create("stopped", BOSS)
        stopped[kind] = text(managed.make("k", **{kind: one.id}))
        account.change(one.id, BOSS, disabled=True)
    time.sleep(0.1)

    good, now_s = token(issuer), int(time.time())
    header, said, _ = good.split(b".")
    confused = b".".join((_part({"alg": "HS256", "kid": "one"}), said))
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    mac = base64.urlsafe_b64encode(hmac.digest(public, confused, hashlib.sha256)).rstrip(b"=")
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwts = {
        "jwt expired": token(issuer, exp=now_s - 3600),
        "jwt of a foreign issuer": token(issuer, iss="https://other.example/"),
        "jwt for others": token(issuer, aud="others"),
        "jwt signed by another": token(issuer, foreign),
        "jwt of alg none": b".".join((_part({"alg": "none", "kid": "one"}), said, b"")),
        "jwt of key confusion": b".".join((confused, mac)),
        "jwt without signature": b".".join((header, said, b"")),
        "jwt of an unknown key": token(issuer, foreign, header={"kid": "two"}),
    }
    headers = {
        "none": {},
        "empty": {"Authorization": "", "x-api-key": "", "api-key": ""},
        "no scheme": {"Authorization": TOKEN},
        "basic": {"Authorization": "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()},
        "two words": {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
        "bare bearer": {"Authorization": "Bearer", "x-api-key": TOKEN},  # what is there decides
        "control characters": {"x-api-key": f"{TOKEN}\x7f"},
    }
    credentials = {
        "too long": "x" * 60_000,
        "unknown": "sk-nobody",
        "unknown key": managed.pepper.key("abcdef012345", bytes(32)).reveal(),
        "key of another pepper": Pepper(Secret("another pepper")).key(turned.key.id, bytes(32)).reveal(),
        "cut key": text(managed.make("cut"))[:-1],
        "deleted": text(deleted),
        "expired": text(expired),
        "disabled": text(disabled),
        "disabled project": stopped["project"],
        "disabled user": stopped["user"],
        "under a deleted key": text(below),
        "rotated away": text(turned),
        **{name: one.decode() for name, one in jwts.items()},
    }
    return {
        **{name: Who(headers=sent) for name, sent in headers.items()},
        **{name: Who(credential) for name, credential in credentials.items()},
    }


def _part(plain: JSON) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).rstrip(b"=")


def test_every_route_has_its_row_and_every_row_its_route(stage: Stage) -> None:
    found = {
        f"{method} {rule.rule}"
        for rule in stage.managed.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert found == set(ROUTES)


@pytest.mark.parametrize("name", [*STRANGERS, *KNOWN_ONES])
def test_a_credential_gets_what_is_its_own_at_every_route_and_nothing_else(stage: Stage, name: str) -> None:
    assert set(stage.everybody) == {*STRANGERS, *KNOWN_ONES}
    who = stage.everybody[name]
    assert (who.scopes is None) is (name in STRANGERS)
    stage.managed.keys.poll()
    surprises = []
    paths = sorted({route.split()[1] for route in ROUTES})
    for number, (rule, method) in enumerate(itertools.product(paths, METHODS)):
        status, code = expected_of(who, rule, method)
        answer = ask(stage, who, rule, method, number)
        expected = (status, None if method == "HEAD" else code)
        if told(answer) != expected:
            surprises.append((method, rule, told(answer), expected))
        if method == "DELETE" and answer.status_code == 200:
            stage.made.clear()
    assert surprises == []


def expected_of(who: Who, rule: str, method: str) -> tuple[int, str | None]:
    """Status and code of the answer."""
    served = method if method != "HEAD" else "GET"
    row = ROUTES.get(f"{served} {rule}") or SHADOWED.get(f"{served} {rule}")
    if method == "OPTIONS":
        return 204, None  # a browser's preflight has no credentials
    if row is not None and row.needs == PUBLIC:
        return row.status, None
    if who.scopes is None:
        return 401, "invalid_api_key"
    if row is None:
        return 405, "method_not_allowed"
    if row.needs != KNOWN and row.needs not in who.scopes:
        return 403, "not_permitted"
    if row.operation and not who.operations:
        return 403, "endpoint_not_allowed"
    if row.owned and not who.mine:
        return 404, "not_found"
    if row.model and not who.models:
        return 403, "model_not_allowed"
    return row.status, row.code


def ask(stage: Stage, who: Who, rule: str, method: str, number: int) -> Any:
    """Send one request about something that is there, with the credential in one of the three ways."""
    row = ROUTES.get(f"{method} {rule}")
    carried = (
        {"Authorization": f"Bearer {who.credential}"},
        {"x-api-key": who.credential},
        {"api-key": who.credential},
    )
    headers = who.headers if who.headers is not None else carried[number % 3]
    path = (
        rule.replace("<path:name>", "demo/echo")
        .replace("<path:id>", "demo/echo")
        .replace("<id>", there(stage, rule) if "<id>" in rule else "")
    )
    more: JSON = {}
    if row is not None and row.body is not None:
        body = row.body()
        more = {"data" if any(isinstance(value, tuple) for value in body.values()) else "json": body}
    return stage.managed.client.open(path, method=method, headers=dict(headers), **more)


def there(stage: Stage, rule: str) -> str:
    """Return the id of what a path is about, made where it is not there."""
    place = rule.removeprefix("/v1").partition("<id>")[0]
    if place not in stage.made:
        stage.made[place] = _made(stage, rule)
    return stage.made[place]


def _made(stage: Stage, rule: str) -> str:
    managed = stage.managed
    if rule.startswith("/admin/v1/keys"):
        return managed.make().key.id
    if found := re.match(r"/admin/v1/(limits|budgets)", rule):
        return str(getattr(managed.directory, found[1]).create(new_rule(), BOSS).rule.id)
    if found := re.match(r"/admin/v1/(projects|users)", rule):
        return str(getattr(managed.directory, found[1]).create(new()["name"], BOSS).id)
    if rule.startswith(("/files", "/batches"), 3 if rule.startswith("/v1") else 0):
        return "nobody"
    body = {"model": "demo/echo", "input": "hi"}
    return str(managed.got("POST", "/v1/responses", body, key=stage.owner)["id"])


def told(answer: Any) -> tuple[int, str | None]:
    """Status, and code of a refusal; the answer to a HEAD has none."""
    if answer.status_code not in (401, 403, 404, 405) or not answer.data:
        return answer.status_code, None
    return answer.status_code, answer.json["error"]["code"]


def test_all_strangers_get_one_and_the_same_answer(stage: Stage) -> None:
    stage.managed.keys.poll()
    answers = set()
    for name in STRANGERS:
        answer = ask(stage, stage.everybody[name], "/v1/models", "GET", 0)
        varying = {"request-id", "x-request-id", "x-bt-span-id", "x-bt-span-export"}
        headers = tuple((name, value) for name, value in answer.headers if name.lower() not in varying)
        answers.add((answer.status_code, re.sub(r"req_[0-9a-f]{32}", "req", answer.text), headers))
    assert len(answers) == 1
