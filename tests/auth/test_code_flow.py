"""The code flow: what the issuer is asked, which ID tokens are believed, and an issuer that does not do its part."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.auth import code_flow, fetching
from gateway.auth.code_flow import CodeFlow, _read_places
from gateway.auth.issuer import IssuerKeys
from gateway.core.people import Begun
from gateway.errors import GatewayError, InvalidRequest, NotPermitted, StoreUnavailable
from gateway.secret import Secret
from tests.fakes.issuer import RSA, jwk
from tests.fakes.loopback import Exchange
from tests.fakes.openid import CLIENT_ID, CLIENT_SECRET, OpenIdProvider, unsigned

EC = ec.generate_private_key(ec.SECP256R1())
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CONFIGURATION = "/realms/one/.well-known/openid-configuration"
BACK = "http://127.0.0.1:9/back"
NOW_S = int(time.time())


@pytest.fixture
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider() as one:
        yield one


@pytest.fixture
def flow(provider: OpenIdProvider) -> Iterator[CodeFlow]:
    one = to(provider)
    yield one
    one.close()


def to(provider: OpenIdProvider, secret: str = CLIENT_SECRET) -> CodeFlow:
    algorithms = ("RS256", "ES256")
    keys = IssuerKeys(provider.issuer, None, algorithms)
    return CodeFlow(provider.issuer, CLIENT_ID, Secret(secret), "openid email", algorithms, keys)


def answered(address: str) -> dict[str, str]:
    """Sign in at the issuer: what it answers."""
    query = urlsplit(httpx.get(address).headers["Location"]).query
    return {name: values[0] for name, values in parse_qs(query).items()}


def walked(flow: CodeFlow) -> Mapping[str, Any]:
    address, begun = flow.begin(BACK)
    return flow.finish(begun, answered(address), BACK)


def test_who_signs_in_is_known_by_the_claims_of_the_id_token(flow: CodeFlow, provider: OpenIdProvider) -> None:
    said = walked(flow)
    assert (said["iss"], said["sub"], said["email"]) == (provider.issuer, "ann-1", "ann@example.com")


def test_an_id_token_may_be_signed_with_either_kind_of_key(flow: CodeFlow, provider: OpenIdProvider) -> None:
    provider.keys = [jwk(RSA), jwk(EC, "two")]
    assert walked(flow)["sub"] == "ann-1"
    provider.key, provider.algorithm, provider.header = EC, "ES256", {"kid": "two"}
    assert walked(flow)["sub"] == "ann-1"


def test_a_client_among_others_is_known_by_azp(flow: CodeFlow, provider: OpenIdProvider) -> None:
    provider.claims |= {"aud": ["another", CLIENT_ID], "azp": CLIENT_ID}
    assert walked(flow)["sub"] == "ann-1"


@pytest.mark.parametrize("methods", [("client_secret_basic",), ("client_secret_post",)])
def test_the_client_names_itself_as_the_issuer_wants(
    flow: CodeFlow, provider: OpenIdProvider, methods: tuple[str, ...]
) -> None:
    provider.methods = methods
    assert walked(flow)["sub"] == "ann-1"
    [asked] = [one for one in provider.requests() if one.path == "/token"]
    assert (b"client_secret=" in asked.raw) is (methods == ("client_secret_post",))


def test_the_configuration_is_asked_for_once_in_a_while(
    flow: CodeFlow, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provider.requests() == []
    walked(flow)
    before = provider.paths().count(CONFIGURATION)
    walked(flow)
    assert provider.paths().count(CONFIGURATION) == before
    monkeypatch.setattr("gateway.auth.code_flow._CONFIGURATION_S", 0.0)
    walked(flow)
    assert provider.paths().count(CONFIGURATION) > before


def test_a_code_is_of_use_once_and_to_who_has_its_verifier(flow: CodeFlow) -> None:
    address, begun = flow.begin(BACK)
    answer = answered(address)
    with pytest.raises(InvalidRequest, match="used up"):
        flow.finish(Begun(begun.state, begun.nonce, "v" * 86), answer, BACK)
    address, begun = flow.begin(BACK)
    answer = answered(address)
    flow.finish(begun, answer, BACK)
    with pytest.raises(InvalidRequest, match="used up"):
        flow.finish(begun, answer, BACK)


def test_a_wrong_secret_is_the_operators_and_not_the_persons_fault(
    provider: OpenIdProvider, caplog: pytest.LogCaptureFixture
) -> None:
    flow = to(provider, "wrong-secret")
    with pytest.raises(StoreUnavailable):
        walked(flow)
    told = str([getattr(record, "fields", {}) for record in caplog.records])
    assert "invalid_client" in told
    assert "wrong-secret" not in told
    flow.close()


# Answers that are not to what was begun.


@pytest.mark.parametrize(
    "change",
    [
        {"state": None},
        {"state": ""},
        {"state": "another"},
        {"state": "\N{SNOWMAN}"},
        {"code": None},
        {"code": ""},
        {"code": "another"},
        {"code": "x" * 20_000},
        {"iss": "https://other.example"},
        {"state": "another", "error": "access_denied"},
    ],
    ids=str,
)
def test_an_answer_that_is_not_to_what_was_begun_is_refused(flow: CodeFlow, change: dict[str, str | None]) -> None:
    address, begun = flow.begin(BACK)
    answer = answered(address)
    with pytest.raises(InvalidRequest, match="Sign in again"):
        flow.finish(begun, {name: value for name, value in (answer | change).items() if value is not None}, BACK)
    assert flow.finish(begun, answer, BACK)["sub"] == "ann-1", "the code was not told"


def test_a_code_of_another_sign_in_is_refused(flow: CodeFlow) -> None:
    theirs = answered(flow.begin(BACK)[0])
    address, begun = flow.begin(BACK)
    with pytest.raises(InvalidRequest, match="used up"):
        flow.finish(begun, answered(address) | {"code": theirs["code"]}, BACK)  # by its verifier


def test_an_issuer_that_names_itself_in_its_answers_has_to(flow: CodeFlow, provider: OpenIdProvider) -> None:
    provider.described = {"authorization_response_iss_parameter_supported": True}
    address, begun = flow.begin(BACK)
    answer = answered(address)
    assert answer.pop("iss") == provider.issuer
    with pytest.raises(InvalidRequest, match="Sign in again"):
        flow.finish(begun, answer, BACK)
    assert walked(flow)["sub"] == "ann-1"


@pytest.mark.parametrize(
    ("error", "kind"),
    [("access_denied", NotPermitted), ("server_error", StoreUnavailable), ("<script>", StoreUnavailable)],
)
def test_an_error_in_place_of_a_code_is_told(
    flow: CodeFlow, provider: OpenIdProvider, error: str, kind: type[GatewayError]
) -> None:
    provider.error = error
    with pytest.raises(kind) as raised:
        walked(flow)
    assert "script" not in raised.value.message
    assert "/token" not in provider.paths()


# ID tokens that are not for this sign-in.


def with_public_key(said: dict[str, Any]) -> str:
    """Signed with what everybody knows, as if it were a shared secret."""
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return mac({"alg": "HS256", "kid": "one"}, said, public)


def mac(header: dict[str, Any], said: dict[str, Any], secret: bytes) -> str:
    signed = unsigned(header, said).rpartition(".")[0]
    return unsigned(header, said, hmac.digest(secret, signed.encode(), hashlib.sha256))


CLAIMS: dict[str, dict[str, Any]] = {
    "other nonce": {"nonce": "another"},
    "no nonce": {"nonce": None},
    "nonce of another kind": {"nonce": 7},
    "other issuer": {"iss": "https://other.example"},
    "no issuer": {"iss": None},
    "other audience": {"aud": "another client"},
    "other audiences": {"aud": ["another client", "one more"]},
    "no audience": {"aud": None},
    "audiences without azp": {"aud": [CLIENT_ID, "another client"]},
    "other azp": {"azp": "another client"},
    "other azp of audiences": {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
    "expired": {"exp": NOW_S - 3600},
    "no expiry": {"exp": None},
    "expiry of no time": {"exp": 1e400},
    "made in the future": {"iat": NOW_S + 86_400},
    "not made": {"iat": None},
    "not yet": {"nbf": NOW_S + 86_400},
    "nobody": {"sub": None},
    "subject of another kind": {"sub": 7},
}
MADE: dict[str, Callable[[dict[str, Any]], str]] = {
    "alg none": lambda said: unsigned({"alg": "none", "kid": "one"}, said),
    "alg NONE": lambda said: unsigned({"alg": "NONE", "kid": "one"}, said),
    "no alg": lambda said: unsigned({"kid": "one"}, said),
    "alg of another kind": lambda said: unsigned({"alg": ["RS256"], "kid": "one"}, said),
    "no signature": lambda said: unsigned({"alg": "RS256", "kid": "one"}, said),
    "HS256 with the public key": with_public_key,
    "HS256 with the client's secret": lambda said: mac({"alg": "HS256"}, said, CLIENT_SECRET.encode()),
    "no token": lambda _: "not.a.token",
    "empty": lambda _: "",
}
KEYS: dict[str, dict[str, Any]] = {
    "other key": {"key": OTHER},
    "unknown key": {"key": OTHER, "header": {"kid": "unknown"}},
    "key that it brings": {"key": OTHER, "header": {"kid": "one", "jwk": jwk(OTHER)}},
    "key of another kind": {"key": EC, "algorithm": "ES256"},
    "algorithm that is not taken": {"algorithm": "RS512"},
}
TROUBLES: dict[str, dict[str, Any]] = {
    **{name: {"claims": claims} for name, claims in CLAIMS.items()},
    **{name: {"made": made} for name, made in MADE.items()},
    **KEYS,
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(
    flow: CodeFlow, provider: OpenIdProvider, trouble: str
) -> None:
    before = dict(vars(provider))
    for name, value in TROUBLES[trouble].items():
        setattr(provider, name, {**provider.claims, **value} if name == "claims" else value)
    with pytest.raises(InvalidRequest, match="not for this sign-in"):
        walked(flow)
    for name in TROUBLES[trouble]:
        setattr(provider, name, before[name])
    assert walked(flow)["sub"] == "ann-1"


# An issuer that does not do its part.


def huge(exchange: Exchange) -> None:
    exchange.begin(200, {"Content-Type": "application/json"})
    for _ in range(64):
        exchange.send(b" " * (1 << 16))
    exchange.finish()


def drip(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        exchange.write(b"x")
        exchange.wait(0.05)


def elsewhere(exchange: Exchange) -> None:
    exchange.respond(307, {"Location": "/elsewhere"}, b"{}")


SAYS: dict[str, Callable[[Exchange], None]] = {
    "an error": lambda exchange: exchange.respond_json(500, {"error": "server_error"}),
    "a page": lambda exchange: exchange.respond(200, {"Content-Type": "text/html"}, b"<html>"),
    "a list": lambda exchange: exchange.respond_json(200, []),
    "nothing": lambda exchange: exchange.respond(200, {}, b""),
    "deep": lambda exchange: exchange.respond(200, {}, b"[" * 100_000),
    "moved": elsewhere,
    "huge": huge,
    "dripping": drip,
    "no HTTP": lambda exchange: exchange.write(b"what?\r\n\r\n"),
    "hung up": lambda exchange: exchange.hang_up(),
    "other client": lambda exchange: exchange.respond_json(401, {"error": "invalid_client"}),
    "other error": lambda exchange: exchange.respond_json(400, {"error": "<script>"}),
    "no token": lambda exchange: exchange.respond_json(200, {"access_token": "x"}),
    "long token": lambda exchange: exchange.respond_json(200, {"id_token": "x" * 20_000}),
}


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("path", [CONFIGURATION, "/token"])
def test_an_issuer_that_does_not_do_its_part_is_away_within_seconds(
    flow: CodeFlow, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch, path: str, says: str
) -> None:
    if path == "/token":
        walked(flow)  # so that its keys are there
    monkeypatch.setattr(fetching, "_TIMEOUT_S", 1.0)
    provider.says[path] = SAYS[says]
    began_s = time.monotonic()
    with pytest.raises(StoreUnavailable, match="sign in with a key, or try again later"):
        walked(flow)
    assert time.monotonic() - began_s < 4
    assert "/elsewhere" not in provider.paths()


def test_an_issuer_that_is_back_is_asked_again(flow: CodeFlow, provider: OpenIdProvider) -> None:
    provider.says[CONFIGURATION] = SAYS["an error"]
    with pytest.raises(StoreUnavailable):
        flow.begin(BACK)
    provider.says.clear()
    assert walked(flow)["sub"] == "ann-1"


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"authorization_endpoint": "http://id.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": 7},
        {"token_endpoint": "http://id.example/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "https://u:p@id.example/token"},
        {"token_endpoint": None},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
        {"token_endpoint_auth_methods_supported": "client_secret_basic"},
    ],
    ids=str,
)
def test_a_configuration_that_names_no_safe_place_is_not_gone_by(
    flow: CodeFlow, provider: OpenIdProvider, described: dict[str, Any]
) -> None:
    provider.described = described
    with pytest.raises(StoreUnavailable, match="sign in with a key"):
        flow.begin(BACK)


def test_an_issuer_with_tls_names_places_with_tls_alone() -> None:
    names = ("authorization_endpoint", "token_endpoint")
    document = dict.fromkeys(names, "https://id.example/x")
    assert _read_places(document, plain=False).basic
    for name in names:
        with pytest.raises(ValueError, match=name):
            _read_places({**document, name: "http://127.0.0.1:9/x"}, plain=False)


@contextmanager
def hanging(provider: OpenIdProvider, path: str, ask: Callable[[], object]) -> Iterator[None]:
    """Inside, the issuer hangs at a path for somebody who asks there; then it answers with 500."""
    asked, let_go = threading.Event(), threading.Event()

    def hang(exchange: Exchange) -> None:
        asked.set()
        let_go.wait(10)
        exchange.respond_json(500, {})

    def first() -> None:
        with suppress(StoreUnavailable):
            ask()

    provider.says[path] = hang
    thread = threading.Thread(target=first)
    thread.start()
    assert asked.wait(5)
    try:
        yield
    finally:
        let_go.set()
        thread.join(10)


def test_one_request_at_a_time_waits_for_an_issuer_that_hangs(flow: CodeFlow, provider: OpenIdProvider) -> None:
    with hanging(provider, CONFIGURATION, lambda: flow.begin(BACK)):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            flow.begin(BACK)
        assert time.monotonic() - began_s < 3
    assert provider.paths().count(CONFIGURATION) == 1


def test_only_so_many_codes_are_changed_at_once(provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_flow, "_MOST_CHANGED", 1)
    flow = to(provider)
    with hanging(provider, "/token", lambda: walked(flow)), pytest.raises(StoreUnavailable):
        walked(flow)
    assert provider.paths().count("/token") == 1
    provider.says.clear()
    assert walked(flow)["sub"] == "ann-1"
    flow.close()
