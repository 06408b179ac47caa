"""JWTs at the real server: the issuer's keys are fetched beside the calls, under gevent too."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.issuer import AUDIENCE, Issuer, jwk, token
from tests.served.caller import CHAT, body
from tests.served.process import TOKEN, Served

NEW = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def believing(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], issuer: Issuer
) -> Iterator[httpx.Client]:
    """A client of a gateway that takes the issuer's tokens."""
    own = {
        "GATEWAY_DEMO": "on",
        "GATEWAY_OIDC_ISSUER": issuer.url,
        "GATEWAY_OIDC_AUDIENCE": AUDIENCE,
        "GATEWAY_OIDC_MODELS_CLAIM": "models",
    }
    with (
        Served(tmp_path_factory.mktemp("believing"), settings | own) as served,
        httpx.Client(base_url=served.url, timeout=30) as client,
    ):
        yield client


def asked(client: httpx.Client, key: bytes, model: str = "demo/echo") -> int:
    return client.post(CHAT, json=body(model), headers={"Authorization": f"Bearer {key.decode()}"}).status_code


def test_the_issuers_tokens_call_what_their_claims_say(believing: httpx.Client, issuer: Issuer) -> None:
    good = token(issuer, models=["demo/*"])
    assert asked(believing, good) == 200
    assert asked(believing, good, "openai/gpt-test") == 403
    assert asked(believing, token(issuer)) == 403
    assert asked(believing, token(issuer, aud="others", models=["*"])) == 401
    assert asked(believing, token(issuer, NEW, "ES256", models=["*"])) == 401
    assert asked(believing, TOKEN.encode()) == 200


def test_no_call_waits_for_an_issuer_that_hangs(believing: httpx.Client, issuer: Issuer) -> None:
    good = token(issuer, sub="another", models=["demo/*"])
    time.sleep(10.5)  # till an unknown key may be asked for again
    issuer.drip_s = 1.0
    try:
        began_s = time.monotonic()
        assert asked(believing, token(issuer, NEW, "ES256", {"kid": "unknown"})) == 401
        waited_s = time.monotonic() - began_s
        began_s = time.monotonic()
        assert asked(believing, good) == 200
        assert time.monotonic() - began_s < 1.5
        assert 1 < waited_s < 4, "one waits, for two seconds"
    finally:
        issuer.drip_s = 0.0


def test_a_new_key_of_the_issuer_is_taken_without_a_start(believing: httpx.Client, issuer: Issuer) -> None:
    issuer.keys = [*issuer.keys, jwk(NEW, "two")]
    made = token(issuer, NEW, "ES256", {"kid": "two"}, models=["demo/*"])
    until_s = time.monotonic() + 25
    while asked(believing, made) != 200:
        assert time.monotonic() < until_s
        time.sleep(0.5)
