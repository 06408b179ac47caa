"""No secret of a run is anywhere but where it was told: no answer, header, line, file, row or count has one."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.issuer import AUDIENCE, Issuer, token
from tests.fakes.provider import FakeProvider, answer, error
from tests.served.caller import CHAT, body
from tests.served.process import Served
from tests.served.traces import text_of

pytestmark = pytest.mark.long

KEYS = "/admin/v1/keys"
#: Signs that look different once they are written into an address or in Base64.
MARKS = "+/=~"


def secret(name: str) -> str:
    """A credential of no known shape: nothing but knowing it can find it."""
    return f"canary.{name}{MARKS}{secrets.token_hex(20)}"


CONFIGURED = {
    name: secret(name) for name in ("provider", "anthropic", "token", "admin", "pepper", "braintrust", "client")
}


def spelt(value: str) -> set[bytes]:
    """A secret as it stands, in addresses, and in Base64 wherever in a text it was: what of that is always the same."""
    raw = value.encode()
    found = {raw, quote(value).encode(), quote(value, safe="").encode(), quote_plus(value).encode()}
    for shift in range(3):
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            coded = encode(bytes(shift) + raw)
            # the first and the last group of four depend on what is around
            found.add(coded[4 if shift else 0 : len(coded) - 4])
    return found


def places_of(secrets_by_name: Mapping[str, str], where: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Which secret stands where."""
    forms = {name: spelt(value) for name, value in secrets_by_name.items()}
    return [
        (name, place)
        for place, text in where.items()
        for name, some in forms.items()
        if any(one in text for one in some)
    ]


@pytest.mark.parametrize(
    "written",
    [
        str.encode,
        lambda text: quote_plus(text).encode(),
        lambda text: quote(text, safe="").encode(),
        *(lambda text, shift=shift: base64.b64encode(bytes(shift) + text.encode() + b"more") for shift in range(5)),
        lambda text: base64.urlsafe_b64encode(f"user:{text}".encode()).rstrip(b"="),
    ],
)
def test_a_secret_is_found_however_it_is_written(written: Callable[[str], bytes]) -> None:
    for name, value in CONFIGURED.items():
        assert places_of(CONFIGURED, {"here": b"before " + written(value) + b" after"}) == [(name, "here")]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def sink() -> Iterator[FakeBraintrust]:
    with FakeBraintrust(CONFIGURED["braintrust"]) as fake:
        yield fake


@pytest.fixture(scope="module")
def environment(provider: FakeProvider, issuer: Issuer, sink: FakeBraintrust) -> dict[str, str]:
    return {
        "GATEWAY_AUTH_TOKEN": CONFIGURED["token"],
        "GATEWAY_ADMIN_TOKEN": CONFIGURED["admin"],
        "GATEWAY_KEY_PEPPER": CONFIGURED["pepper"],
        "GATEWAY_OIDC_ISSUER": issuer.url,
        "GATEWAY_OIDC_AUDIENCE": AUDIENCE,
        "GATEWAY_OIDC_CLIENT_ID": "gateway",
        "GATEWAY_OIDC_CLIENT_SECRET": CONFIGURED["client"],
        "GATEWAY_LOCAL_TRACES": "on",
        "GATEWAY_DEMO": "on",
        "LOG_LEVEL": "debug",
        "WEB_CONCURRENCY": "1",
        "OPENAI_API_KEY": CONFIGURED["provider"],
        "OPENAI_BASE_URL": provider.base_url,
        "ANTHROPIC_API_KEY": CONFIGURED["anthropic"],
        "ANTHROPIC_BASE_URL": provider.anthropic_url,
        **sink.environment(),
    }


@pytest.fixture
def run(served: Served) -> Iterator[Run]:
    with httpx.Client(base_url=served.url, timeout=60) as http:
        yield Run(http)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("canary"), environment) as one:
        yield one


class Run:
    """All that was sent and answered."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.answers: dict[str, bytes] = {}

    def send(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        """Send a request and keep all of its answer."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        got = self._http.request(method, path, headers=headers, **more)
        head = b"".join(name + b": " + value + b"\n" for name, value in got.headers.raw)
        self.answers[f"{len(self.answers)} {method} {path[:40]} {got.status_code}"] = head + got.content
        return got

    def told(self, path: str, **more: Any) -> tuple[str, str]:
        """Make or rotate a key: its id and itself. What else the answer has is kept, with the key taken out once."""
        got = self._http.post(path, headers={"Authorization": f"Bearer {CONFIGURED['admin']}"}, **more)
        got.raise_for_status()
        key = got.json()["key"]
        assert got.text.count(key.rpartition("-")[2]) == 1
        head = b"".join(name + b": " + value + b"\n" for name, value in got.headers.raw)
        self.answers[f"{len(self.answers)} told {path[:40]}"] = head + got.content.replace(key.encode(), b"")
        return got.json()["id"], key


def misplaced(run: Run, key: str, good: str) -> None:
    """A credential where people put them by mistake: all but the text for a model, which has to be answered."""
    run.send("POST", CHAT, good, json=body(key))
    run.send("POST", CHAT, good, json=body(f"openai/{key}", max_tokens=key))
    run.send("POST", CHAT, good, json=body("demo/echo"), headers={"x-gateway-trace": key})
    run.send("POST", CHAT, good, json={key: 1})
    run.send("POST", CHAT, good, content=f'{{"{key}": 1, "{key}": 2}}')
    run.send("POST", CHAT, good, content=key)
    run.send("POST", "/v1/messages", good, json=body(key, max_tokens=5))
    run.send("POST", "/v1/responses", good, json={"model": "demo/echo", "input": "hi", "previous_response_id": key})
    for path in (
        "/v1/{}",
        "/{}",
        "/v1/models/{}",
        "/v1/responses/{}",
        f"{KEYS}/{{}}",
        "/admin/v1/users/{}",
        "/health/{}",
    ):
        for who in (good, CONFIGURED["admin"], None):
            run.send("GET", path.format(quote(key, safe="")), who)
    for path in ("/v1/models", KEYS, "/admin/v1/audit", "/health", "/metrics"):
        for name in ("key", key, "after"):
            run.send("GET", path, CONFIGURED["admin"], params={name: key})
    run.send("DELETE", f"{KEYS}/{quote(key, safe='')}", CONFIGURED["admin"])
    run.send("GET", "/v1/me", good, headers={"x-bt-parent": key, "traceparent": key, "user-agent": key, "referer": key})
    run.send("GET", "/v1/me", headers={"Authorization": f"Basic {base64.b64encode(key.encode()).decode()}"})
    run.send("GET", "/v1/me", headers={"Authorization": key})
    run.send("GET", "/v1/me", headers={"Cookie": f"key={key}", "x-api-key": f"{key}x"})
    run.send("OPTIONS", CHAT, headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
    run.send("POST", KEYS, CONFIGURED["admin"], json={key: 1})
    run.send("POST", KEYS, CONFIGURED["admin"], json={"name": "n", "rights": {key: []}})
    run.send("POST", KEYS, CONFIGURED["admin"], json={"name": "n", "rights": {"scopes": [key]}})
    run.send("POST", KEYS, CONFIGURED["admin"], json={"name": "n", "project": key})
    run.send(
        "POST",
        "/admin/v1/users",
        CONFIGURED["admin"],
        json={"name": secrets.token_hex(4)},
        headers={"Idempotency-Key": key},
    )


def test_no_secret_is_anywhere(
    run: Run,
    served: Served,
    environment: dict[str, str],
    provider: FakeProvider,
    issuer: Issuer,
    sink: FakeBraintrust,
) -> None:
    sink.mode = "refuse_500"  # what waits stays in the spool
    id, key = run.told(KEYS, json={"name": "canary", "tags": ["a"]})
    _, rotated = run.told(f"{KEYS}/{id}/rotate", json={"overlap_s": 3600})
    revoked_id, revoked = run.told(KEYS, json={"name": "revoked"})
    run.send("DELETE", f"{KEYS}/{revoked_id}", CONFIGURED["admin"])
    jwt = token(issuer, sub="ann").decode()
    # the public parts of a key and of a JWT say nothing: the id, the head, the claims
    looked_for = {
        **CONFIGURED,
        **{name: one.rpartition("-")[2] for name, one in (("key", key), ("rotated", rotated), ("revoked", revoked))},
    }
    looked_for["jwt"] = jwt.rpartition(".")[2]

    leaky = " and ".join(CONFIGURED[name] for name in ("provider", "anthropic"))
    provider.script("leaky", error(401, {"error": {"message": f"bad key {leaky}", "code": leaky, "type": leaky}}))
    provider.script("failing", error(500, {"error": {"message": f"Authorization: Bearer {leaky}"}}))
    provider.script("fine", answer("well met", headers={"set-cookie": leaky, "location": leaky, "x-echo": leaky}))
    for who in (key, rotated, jwt, CONFIGURED["token"]):
        for model in (
            "openai/fine",
            "openai/leaky",
            "openai/failing",
            "anthropic/leaky",
            "anthropic/fine",
            "demo/echo",
        ):
            for stream in (False, True):
                run.send("POST", CHAT, who, json=body(model, stream=stream))
        run.send("POST", "/v1/messages", who, json=body("anthropic/fine", max_tokens=5))
        run.send("POST", "/v1/responses", who, json={"model": "demo/echo", "input": "hi"})
        for path in ("/v1/models", "/v1/me", "/openapi.json", "/metrics", KEYS):
            run.send("GET", path, who)
    for path in (
        KEYS,
        f"{KEYS}?deleted=true",
        f"{KEYS}/{id}",
        "/admin/v1/audit",
        "/v1/me",
        "/metrics",
        "/health/readiness",
        "/ui/sign-in",
        "/ui/sign-in/issuer",
        "/ui/sign-in/callback?code=x&state=y",
    ):
        run.send("GET", path, CONFIGURED["admin"])
    for one in (key, revoked, jwt, CONFIGURED["token"], CONFIGURED["admin"], CONFIGURED["provider"]):
        misplaced(run, one, CONFIGURED["token"])

    assert sum(place.endswith(" 200") for place in run.answers) > 60
    assert places_of(looked_for, run.answers) == []
    time.sleep(1)
    waiting = {str(path): path.read_bytes() for path in served.data_dir.rglob("*") if path.is_file()}
    assert any("/spool/braintrust-" in path and text for path, text in waiting.items())
    assert any("gateway.db" in path and id.encode() in text for path, text in waiting.items())
    assert places_of(looked_for, waiting) == []

    sink.mode = "ok"
    sink.wait_rows(lambda rows: sum(f"key_{id}" in text_of(row) for row in rows) >= 20, 30)
    time.sleep(1)
    rows = {f"row {number}": text_of(row).encode() for number, row in enumerate(sink.rows())}
    assert places_of(looked_for, rows) == []
    told = {" ".join(arguments): command(served, environment, *arguments) for arguments in COMMANDS}
    assert places_of(looked_for, told) == []
    served.stop()
    files = {str(path): path.read_bytes() for path in served.data_dir.rglob("*") if path.is_file()}
    assert places_of(looked_for, files) == []
    assert '"path"' in served.log, "requests are logged"
    assert places_of(looked_for, {"log": served.log.encode()}) == []


COMMANDS = (
    ("keys", "list", "--deleted"),
    ("keys", "list", "--json"),
    ("audit", "--json", "--limit", "1000"),
    ("check",),
    ("spool", "status", "--json"),
    ("traces", "export"),
)


def command(served: Served, environment: dict[str, str], *arguments: str) -> bytes:
    """All that a command prints."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("gateway")), *arguments],
        cwd=served.top,
        env={"PATH": os.environ["PATH"], "GATEWAY_DATA_DIR": str(served.data_dir), **environment},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout
    return done.stdout + done.stderr
