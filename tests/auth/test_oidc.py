"""JWTs: only the issuer's, only for this gateway, only of this time, and whatever else they may try."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth import issuer as module
from gateway.auth.issuer import IssuerKeys, read_keys
from gateway.auth.oidc import Claims, JsonWebTokens
from gateway.core.calls import Caller
from gateway.core.rights import ADMIN, CALL, METRICS, Rights
from gateway.errors import StoreUnavailable
from gateway.settings.readers import ALGORITHMS
from tests.fakes.issuer import AUDIENCE, RSA, Issuer, jwk, token

OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def tokens(issuer: Issuer) -> Iterator[JsonWebTokens]:
    made = verifier(issuer)
    yield made
    made.close()


def verifier(issuer: Issuer, algorithms: tuple[str, ...] = ("RS256", "ES256"), **claims: Any) -> JsonWebTokens:
    keys = IssuerKeys(issuer.url, None, algorithms)
    return JsonWebTokens(issuer.url, (AUDIENCE, "another"), algorithms, keys, Claims(**claims))


def bare(header: Any, said: Any, signature: bytes = b"") -> bytes:
    parts = (json.dumps(header).encode(), json.dumps(said).encode(), signature)
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def claims_of(issuer: Issuer) -> dict[str, Any]:
    return {"iss": issuer.url, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 600}


# Good ones.


def test_a_token_of_the_issuer_is_a_caller_by_its_subject(issuer: Issuer, tokens: JsonWebTokens) -> None:
    caller = tokens.verify(token(issuer))
    assert caller is not None
    name = "jwt_" + hashlib.sha256(f"{issuer.url}\0ann".encode()).hexdigest()[:16]
    assert caller == Caller(name, name, "jwt", Rights(), user="ann", expires_s=caller.expires_s)
    assert caller.expires_s == pytest.approx(time.time() + 600, abs=5)
    assert tokens.verify(token(issuer, sub="bob")) != caller


def test_no_call_asks_the_issuer(issuer: Issuer, tokens: JsonWebTokens) -> None:
    for number in range(50):
        assert tokens.verify(token(issuer, sub=f"user {number}")) is not None
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "EdDSA")], ids=lambda one: str(one)[:6]
)
def test_every_public_algorithm_works_where_it_is_taken(issuer: Issuer, key: Any, algorithm: str) -> None:
    issuer.keys = [jwk(key)]
    taken, refused = verifier(issuer, (algorithm,)), verifier(issuer, ("RS384",))
    assert taken.verify(token(issuer, key, algorithm)) is not None
    if key is RSA:
        assert refused.verify(token(issuer, key, algorithm)) is None
    for one in (taken, refused):
        one.close()


def test_a_token_without_a_key_name_will_do_where_one_key_fits(issuer: Issuer, tokens: JsonWebTokens) -> None:
    assert tokens.verify(token(issuer, header={"kid": None})) is not None
    assert tokens._keys._known(None, "ES256") is None
    issuer.keys = [jwk(RSA), jwk(OTHER_RSA, "two")]
    both = verifier(issuer)
    assert both.verify(token(issuer, header={"kid": None})) is None
    assert both.verify(token(issuer, OTHER_RSA, header={"kid": "two"})) is not None
    both.close()


def test_the_clocks_may_be_a_minute_apart(issuer: Issuer, tokens: JsonWebTokens) -> None:
    now_s = int(time.time())
    assert tokens.verify(token(issuer, exp=now_s - 50)) is not None
    assert tokens.verify(token(issuer, exp=now_s - 70)) is None
    assert tokens.verify(token(issuer, nbf=now_s + 50)) is not None
    assert tokens.verify(token(issuer, nbf=now_s + 70)) is None


def test_a_token_that_is_remembered_is_not_beyond_its_end(
    issuer: Issuer, tokens: JsonWebTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    # its end is two seconds away, with what clocks may be apart
    short = token(issuer, exp=int(time.time()) - 58)
    assert tokens.verify(short) is not None
    time.sleep(2.1)
    assert tokens.verify(short) is None


# Bad ones.


def test_one_that_is_wrong_expired_foreign_or_absent_is_nobody(issuer: Issuer, tokens: JsonWebTokens) -> None:
    good = token(issuer)
    assert tokens.verify(good) is not None
    now_s = int(time.time())
    header, said, signature = good.split(b".")
    other = token(issuer, sub="root").split(b".")[1]
    bad = {
        "absent": b"",
        "another payload": b".".join((header, other, signature)),
        "no signature": b".".join((header, said, b"")),
        "a signature cut short": good[:-4],
        "two parts": b".".join((header, said)),
        "four parts": good + b".x",
        "another's key": token(issuer, OTHER_RSA),
        "an unknown key": token(issuer, OTHER_RSA, header={"kid": "two"}),
        "expired": token(issuer, exp=now_s - 3600),
        "without an end": token(issuer, exp=None),
        "an end that is none": token(issuer, exp="never"),
        "an end that is infinite": token(issuer, exp=float("inf")),
        "an end that no clock has": token(issuer, exp=10**400),
        "an end beyond numbers": bare({"alg": "RS256", "kid": "one"}, {**claims_of(issuer), "exp": 1e400}),
        "of the future": token(issuer, iat=now_s + 3600),
        "not yet": token(issuer, nbf=now_s + 3600),
        "for others": token(issuer, aud="others"),
        "for nobody": token(issuer, aud=None),
        "for a list of others": token(issuer, aud=["a", "b"]),
        "of another issuer": token(issuer, iss="https://other.example/"),
        "of nearly the issuer": token(issuer, iss=issuer.url.rstrip("/")),
        "of no issuer": token(issuer, iss=None),
        "of nobody": token(issuer, sub=None),
        "of an empty name": token(issuer, sub=""),
        "of a name that is none": token(issuer, sub="a\nb"),
        "of a long name": token(issuer, sub="x" * 257),
        "of a critical extension": token(issuer, header={"crit": ["exp2"], "exp2": 1}),
        "too long": token(issuer, more="x" * 20_000),
    }
    assert {name: one for name, one in bad.items() if tokens.verify(one) is not None} == {}


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, 0, ["RS256"], {"RS256": 1}])
def test_a_token_that_names_no_algorithm_is_nobody(issuer: Issuer, tokens: JsonWebTokens, name: Any) -> None:
    for signature in (b"", b"x", token(issuer).rpartition(b".")[2]):
        assert tokens.verify(bare({"alg": name, "kid": "one"}, claims_of(issuer), signature)) is None


def test_the_public_key_is_no_shared_secret(issuer: Issuer, tokens: JsonWebTokens) -> None:
    public = RSA.public_key()
    spellings = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        json.dumps(jwk(RSA)).encode(),
        jwk(RSA)["n"].encode(),
    ]
    for name, hashing in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        for spelling in spellings:
            signed = bare({"alg": name, "kid": "one"}, claims_of(issuer)).rpartition(b".")[0]
            mac = hmac.digest(spelling, signed, hashing)
            forged = signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
            assert tokens.verify(forged) is None


def test_a_key_in_the_token_itself_is_not_believed(issuer: Issuer, tokens: JsonWebTokens) -> None:
    for header in (
        {"jwk": jwk(OTHER_RSA, "one")},
        {"jku": f"{issuer.url}other"},
        {"x5u": f"{issuer.url}other"},
        {"kid": "../../one"},
        {"kid": "one\0"},
        {"kid": "' or 1=1 --"},
    ):
        assert tokens.verify(token(issuer, OTHER_RSA, header=header)) is None
    assert "/other" not in issuer.asked


def test_a_key_is_for_the_algorithm_that_it_names_alone(issuer: Issuer) -> None:
    issuer.keys = [jwk(RSA, alg="RS256")]
    tokens = verifier(issuer, ("RS256", "PS256"))
    assert tokens.verify(token(issuer)) is not None
    assert tokens.verify(token(issuer, algorithm="PS256")) is None
    tokens.close()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_no_bytes_break_it(header: bytes, said: bytes, signature: bytes) -> None:
    class NoKeys(IssuerKeys):
        def find(self, kid: str | None, algorithm: str) -> Any:
            return None

    tokens = JsonWebTokens("i", ("a",), ("RS256",), NoKeys("i", None, ("RS256",)), Claims())
    encoded = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"' + header, said, signature))
    assert tokens.verify(b".".join(encoded)) is None
    assert tokens.verify(b"ey" + b".".join((header, said, signature))) is None
    assert tokens.verify(b"ey" + header) is None


def test_deep_json_in_a_token_is_nobody(issuer: Issuer, tokens: JsonWebTokens) -> None:
    deep = b'{"a":' * 1000 + b"1" + b"}" * 1000
    part = base64.urlsafe_b64encode(deep).rstrip(b"=")
    assert tokens.verify(part + b"." + part + b".") is None


# What they may.


@pytest.mark.parametrize(
    ("claims", "said", "expected"),
    [
        ({}, {}, {CALL}),
        ({}, {"scope": "gateway-admin admin"}, {CALL}),
        ({"call_scope": "llm"}, {"scope": "other llm"}, {CALL}),
        ({"call_scope": "llm"}, {"scope": "llms"}, set()),
        ({"call_scope": "llm"}, {}, set()),
        ({"admin_scope": "boss"}, {"scope": ["boss"]}, {CALL, ADMIN, METRICS}),
        ({"admin_scope": "boss", "call_scope": "llm"}, {"scope": "boss"}, {ADMIN, METRICS}),
        ({"admin_scope": "boss"}, {"scope": {"boss": True}}, {CALL}),
        ({"admin_scope": "boss", "scopes": "realm.roles"}, {"realm": {"roles": ["boss"]}}, {CALL, ADMIN, METRICS}),
        ({"admin_scope": "boss", "scopes": "https://x.y/r"}, {"https://x.y/r": ["boss"]}, {CALL, ADMIN, METRICS}),
        ({"admin_scope": "boss", "scopes": "realm.roles"}, {"realm": "boss"}, {CALL}),
        ({"admin_scope": "boss"}, {"scope": "a  boss "}, {CALL, ADMIN, METRICS}),
        ({"admin_scope": "boss"}, {"scope": "a\u00a0boss"}, {CALL}),
        ({"admin_scope": "boss"}, {"scope": "a\u2003boss\u2028boss\tboss\nboss\x1fboss"}, {CALL}),
    ],
)
def test_scopes_come_from_the_claim_that_the_operator_named(
    issuer: Issuer, claims: dict[str, Any], said: dict[str, Any], expected: set[str]
) -> None:
    tokens = verifier(issuer, **claims)
    caller = tokens.verify(token(issuer, **said))
    assert caller is not None
    assert caller.rights.scopes == expected
    tokens.close()


@pytest.mark.parametrize(
    ("said", "models"),
    [({"m": ["openai/*"]}, ("openai/*",)), ({}, ()), ({"m": []}, ()), ({"m": "openai/*"}, None), ({"m": [1]}, None)],
)
def test_models_come_from_their_claim_and_without_it_there_are_none(
    issuer: Issuer, said: dict[str, Any], models: tuple[str, ...] | None
) -> None:
    tokens = verifier(issuer, models="m")
    caller = tokens.verify(token(issuer, **said))
    assert (caller.rights.models if caller is not None else None) == models
    tokens.close()


def test_callers_of_one_project_share_a_tenant_that_no_virtual_key_has(issuer: Issuer) -> None:
    tokens = verifier(issuer, project="team", caller="email")
    ann, bob, eve = (
        tokens.verify(token(issuer, email=name, team=team))
        for name, team in (("ann", "proj_1"), ("bob", "proj_1"), ("eve", None))
    )
    assert ann is not None
    assert bob is not None
    assert eve is not None
    assert ann.tenant == bob.tenant
    assert ann.tenant.startswith("jwtp_")
    assert ann.id != bob.id
    assert (ann.user, ann.project) == ("ann", "proj_1")
    assert eve.tenant == eve.id
    tokens.close()


# Keys that come and go.


def test_a_new_key_is_known_at_once_and_made_up_ones_are_not_asked_for(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.5)
    tokens = verifier(issuer)
    old = token(issuer)
    assert tokens.verify(old) is not None
    issuer.keys = [jwk(OTHER_RSA, "two")]
    time.sleep(0.6)
    assert tokens.verify(token(issuer, OTHER_RSA, header={"kid": "two"})) is not None
    assert tokens.verify(old) is None, "its key is gone, though it was remembered"
    asked, began_s = len(issuer.asked), time.monotonic()
    for number in range(200):
        assert tokens.verify(token(issuer, OTHER_RSA, header={"kid": f"made up {number}"})) is None
    spent_s = time.monotonic() - began_s
    assert len(issuer.asked) - asked <= 2 * (spent_s / 0.5 + 1)
    tokens.close()


def test_keys_go_on_while_the_issuer_fails(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.0)
    tokens = verifier(issuer)
    good = token(issuer)
    assert tokens.verify(good) is not None
    issuer.status = 500
    assert tokens.verify(token(issuer, OTHER_RSA, header={"kid": "two"})) is None
    assert tokens.verify(good) is not None
    assert tokens.verify(token(issuer, sub="bob")) is not None
    monkeypatch.setattr(module, "_STALE_S", 0.0)
    with pytest.raises(StoreUnavailable):
        tokens.verify(token(issuer, sub="eve"))
    tokens.close()


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 404},
        {"status": 302, "location": "http://127.0.0.1:1/keys"},
        {"status": 302, "location": "file:///etc/passwd"},
        {"named": "https://other.example/"},
        {"body": b"<html>"},
        {"body": b"[]"},
        {"body": b'{"issuer": ' + b"[" * 100_000},
        {"body": b" " * (2 << 20)},
        {"keys": []},
        {"keys": "none"},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]},
        {"keys": [jwk(RSA, use="enc")]},
        {"keys": [{"kty": "RSA", "kid": "one"}]},
        {"keys": [jwk(RSA)] * 101},
    ],
    ids=[
        "404",
        "moved",
        "moved to a file",
        "another name",
        "page",
        "list",
        "deep",
        "blank",
        "empty",
        "no list",
        "secret",
        "for encryption",
        "no key",
        "too many",
    ],
)
def test_while_the_issuer_has_told_no_keys_nobody_is_told_that_a_token_is_wrong(
    issuer: Issuer, trouble: dict[str, Any]
) -> None:
    for name, value in trouble.items():
        setattr(issuer, name, value)
    tokens = verifier(issuer)
    with pytest.raises(StoreUnavailable) as raised:
        tokens.verify(token(issuer))
    assert raised.value.http_status == 503
    assert tokens.verify(b"sk-not-a-token") is None
    tokens.close()


def test_keys_that_are_of_no_use_are_left_out() -> None:
    listed = [jwk(RSA), jwk(EC, "two"), {"kty": "oct", "k": "eA", "kid": "three"}, "x", jwk(ED, "four"), {"kty": "RSA"}]
    found = read_keys({"keys": listed}, ALGORITHMS)
    assert {kid for kid, _ in found} == {"one", "two", "four"}
    assert set(found) >= {("two", "ES256"), ("four", "EdDSA"), ("one", "PS384")}
    assert ("two", "ES384") not in found, "it is of another curve"
