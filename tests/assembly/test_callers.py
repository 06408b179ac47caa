"""Who may call, and who signs in."""

from __future__ import annotations

from gateway.pipeline import Gateway
from tests.assembly.building import build

OIDC = {
    "GATEWAY_OIDC_ISSUER": "http://127.0.0.1:1/",
    "GATEWAY_OIDC_AUDIENCE": "gateway",
    "GATEWAY_OIDC_CALL_SCOPE": "llm",
    "GATEWAY_OIDC_PROJECT_CLAIM": "team",
}


def kinds(made: Gateway) -> list[str]:
    return [type(verifier).__name__ for verifier in made.authenticator._verifiers]


def test_each_way_to_call_is_there_where_the_settings_want_it() -> None:
    assert kinds(build()) == ["StaticTokens", "VirtualKeys"]
    every = build(GATEWAY_AUTH_TOKEN="tok", GATEWAY_ADMIN_TOKEN="adm", **OIDC)
    assert kinds(every) == ["StaticTokens", "StaticTokens", "VirtualKeys", "JsonWebTokens"]
    admin, token = (every.authenticator.identify({"api-key": name}) for name in ("adm", "tok"))
    assert (admin.kind, token.kind) == ("admin", "token")
    assert admin.rights.scopes == {"admin", "metrics"}
    assert token.rights.scopes == {"call", "metrics"}
    claims = every.authenticator._verifiers[-1]._claims  # type: ignore[attr-defined]
    assert (claims.caller, claims.project, claims.call_scope, claims.admin_scope) == ("sub", "team", "llm", None)


def test_people_sign_in_where_the_settings_name_a_client_and_there_are_pages() -> None:
    client = {
        "GATEWAY_OIDC_ISSUER": "http://127.0.0.1:1/",
        "GATEWAY_OIDC_CLIENT_ID": "gateway",
        "GATEWAY_OIDC_CLIENT_SECRET": "secret-of-the-client",
        "GATEWAY_OIDC_ADMIN_EMAILS": "@example.com",
        "GATEWAY_OIDC_ADMIN_CLAIM": "groups",
        "GATEWAY_OIDC_ADMIN_VALUES": "boss",
    }
    made = build(**client)
    assert kinds(made) == ["StaticTokens", "VirtualKeys"], "no JWT is a key without an audience"
    assert made.sign_in is not None
    assert made.sign_in.place == "127.0.0.1"
    rule = made.sign_in._rule
    assert (rule.emails, rule.claim, rule.values) == ({"@example.com"}, "groups", {"boss"})
    assert "secret-of-the-client" not in made.redactor.text("x secret-of-the-client y")
    both = build(**client, GATEWAY_OIDC_AUDIENCE="api")
    assert both.sign_in is not None
    assert both.authenticator._verifiers[-1]._keys is both.sign_in._flow._keys, "they are fetched once for both"  # type: ignore[attr-defined]
    assert build().sign_in is None
    assert build(**OIDC).sign_in is None
    assert build(**client, GATEWAY_UI="off").sign_in is None
