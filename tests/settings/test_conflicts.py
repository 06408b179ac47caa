"""What does not go together, and what is not a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError
from gateway.settings.table import SETTINGS
from tests.settings.loading import SIGN_IN, faults


def test_a_default_that_is_written_out_needs_nothing_else() -> None:
    defaults = {row.env: row.default for row in SETTINGS if row.env.startswith("GATEWAY_OIDC_") and row.default}
    assert {"GATEWAY_OIDC_SCOPE", "GATEWAY_OIDC_ALGORITHMS"} <= set(defaults)
    assert Settings.load(defaults) == Settings()
    [fault] = faults({**defaults, "GATEWAY_OIDC_ALGORITHMS": "ES256"})
    assert fault == "GATEWAY_OIDC_ALGORITHMS means nothing without GATEWAY_OIDC_ISSUER"


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"GATEWAY_AUTH_TOKEN": "a,b", "GATEWAY_ADMIN_TOKEN": "b"}, "GATEWAY_ADMIN_TOKEN is one of GATEWAY_AUTH_TOKEN"),
        ({"GATEWAY_KEY_PEPPER": "p" * 31}, "GATEWAY_KEY_PEPPER is too short"),
        ({"GATEWAY_WEBHOOK_SECRET": "p" * 23}, "GATEWAY_WEBHOOK_SECRET is too short"),
        ({"GATEWAY_WEBHOOK_SECRET": "whsec_" + "!" * 40}, "GATEWAY_WEBHOOK_SECRET is no Base64 behind whsec_"),
        ({"GATEWAY_OIDC_ISSUER": "https://id.example"}, "GATEWAY_OIDC_ISSUER needs GATEWAY_OIDC_AUDIENCE"),
        ({"GATEWAY_OIDC_AUDIENCE": "me"}, "GATEWAY_OIDC_AUDIENCE means nothing without GATEWAY_OIDC_ISSUER"),
        ({"GATEWAY_OIDC_ADMIN_SCOPE": "me"}, "GATEWAY_OIDC_ADMIN_SCOPE means nothing without GATEWAY_OIDC_ISSUER"),
        *(
            ({"GATEWAY_OIDC_ISSUER": url, "GATEWAY_OIDC_AUDIENCE": "me"}, "GATEWAY_OIDC_ISSUER must begin with http")
            for url in ("http://id.example", "http://localhost.example", "file:///keys", "id.example")
        ),
        *(
            ({"GATEWAY_OIDC_ALGORITHMS": name}, "GATEWAY_OIDC_ALGORITHMS names")
            for name in ("none", "HS256", "RS256,HS512", "rs256")
        ),
    ],
)
def test_what_would_let_strangers_in_is_a_fault(environ: dict[str, str], fault: str) -> None:
    assert faults(environ)[0].startswith(fault)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"GATEWAY_OIDC_ISSUER": " "}, "GATEWAY_OIDC_CLIENT_ID means nothing without GATEWAY_OIDC_ISSUER"),
        ({"GATEWAY_OIDC_CLIENT_SECRET": ""}, "GATEWAY_OIDC_CLIENT_ID needs GATEWAY_OIDC_CLIENT_SECRET"),
        ({"GATEWAY_OIDC_CLIENT_ID": ""}, "GATEWAY_OIDC_ISSUER needs GATEWAY_OIDC_AUDIENCE for callers with a JWT"),
        (
            {"GATEWAY_OIDC_CLIENT_ID": "", "GATEWAY_OIDC_AUDIENCE": "api"},
            "GATEWAY_OIDC_CLIENT_SECRET means nothing without GATEWAY_OIDC_CLIENT_ID",
        ),
        (
            {"GATEWAY_OIDC_CLIENT_ID": "", "GATEWAY_OIDC_CLIENT_SECRET": "", "GATEWAY_OIDC_ADMIN_EMAILS": "@a.example"},
            "GATEWAY_OIDC_ISSUER needs",
        ),
        ({"GATEWAY_OIDC_ADMIN_CLAIM": "groups"}, "GATEWAY_OIDC_ADMIN_CLAIM needs GATEWAY_OIDC_ADMIN_VALUES"),
        ({"GATEWAY_OIDC_ADMIN_VALUES": "boss"}, "GATEWAY_OIDC_ADMIN_VALUES needs GATEWAY_OIDC_ADMIN_CLAIM"),
        (
            {"GATEWAY_OIDC_ADMIN_CLAIM": "groups", "GATEWAY_OIDC_ADMIN_VALUES": " , "},
            "GATEWAY_OIDC_ADMIN_CLAIM needs GATEWAY_OIDC_ADMIN_VALUES",
        ),
        ({"GATEWAY_OIDC_SCOPE": "email profile"}, "GATEWAY_OIDC_SCOPE must have openid"),
        ({"GATEWAY_OIDC_CLIENT_SECRET": "sécret"}, "GATEWAY_OIDC_CLIENT_SECRET holds a character"),
        *(
            ({"GATEWAY_OIDC_ADMIN_EMAILS": text}, "GATEWAY_OIDC_ADMIN_EMAILS must hold ann@example.com or @example.com")
            for text in (
                "example.com",
                "*",
                "*@",
                "@",
                "ann@example.com bob@example.com",
                "a@b@c",
                "ann@ex\u0430mple.com",
            )
        ),
    ],
)
def test_signing_in_is_set_up_whole_or_not_at_all(change: dict[str, str], fault: str) -> None:
    assert Settings.load(SIGN_IN).oidc_client_id == "gateway"
    found = faults(SIGN_IN | change)
    assert found[0].startswith(fault)
    assert "secret-of-the-client" not in str(found)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("GATEWAY_AUTH_TOKENS", "GATEWAY_AUTH_TOKEN"),
        ("GATEWAY_TIMEOUT", "GATEWAY_TIMEOUT_S"),
        ("GATEWAY_DMEO", "GATEWAY_DEMO"),
        ("GATEWAY_CORS_ORIGIN", "GATEWAY_CORS_ORIGINS"),
    ],
)
def test_a_misspelt_name_is_a_fault_that_names_the_right_one(wrong: str, right: str) -> None:
    assert faults({wrong: "1"}) == [f"{wrong} is not a setting; {right} is meant?"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"GATEWAY_COUNTERS": "redis"}, "GATEWAY_COUNTERS is redis, and REDIS_URL is not set"),
        ({"GATEWAY_COUNTERS": "memory", "WEB_CONCURRENCY": "2"}, "GATEWAY_COUNTERS is memory, which several workers"),
        ({"GATEWAY_COUNTERS": "disk"}, "GATEWAY_COUNTERS must be one of auto, memory, database, redis"),
        ({"GATEWAY_LIMITS_FAIL": "often"}, "GATEWAY_LIMITS_FAIL must be one of open, closed"),
        ({"GATEWAY_RATE_LIMIT_RPM": "0"}, "GATEWAY_RATE_LIMIT_RPM must be a number at least 1"),
        ({"GATEWAY_RATE_LIMIT_RPM": "1.5"}, "GATEWAY_RATE_LIMIT_RPM must be a whole number"),
    ],
)
def test_limits_that_cannot_be_kept_are_a_fault(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    assert any(fault.startswith(said) for fault in caught.value.faults), caught.value.faults


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_SOMETHING_ELSE",
        "GATEWAY_WEATHER",
    ],
)
def test_an_unknown_name_is_a_warning(name: str) -> None:
    assert Settings.load({name: "1"}).warnings == (f"{name} is not a setting of this release and is ignored",)


def test_what_kubernetes_sets_for_a_service_named_gateway_is_ignored() -> None:
    names = ("GATEWAY_SERVICE_HOST", "GATEWAY_SERVICE_PORT", "GATEWAY_PORT", "GATEWAY_PORT_8000_TCP_ADDR")
    assert Settings.load(dict.fromkeys(names, "10.0.0.1")) == Settings()


def test_a_routes_file_and_its_text_at_once_are_a_fault() -> None:
    both = {"GATEWAY_CONFIG": "gateway.yaml", "GATEWAY_CONFIG_YAML": "model_list: []"}
    assert faults(both) == ["GATEWAY_CONFIG and GATEWAY_CONFIG_YAML are both set: remove one of them"]
    assert Settings.load(both | {"GATEWAY_CONFIG_YAML": " \n"}).config == Path("gateway.yaml")


@pytest.mark.parametrize("name", ["GATEWAY_AUTH_TOKEN", "GATEWAY_ADMIN_TOKEN"])
def test_a_token_that_can_be_guessed_is_warned_of_and_not_shown(name: str) -> None:
    long, short = "a-token-of-enough-characters", "guess-this-one"
    assert Settings.load({name: long}).warnings == ()
    [warning] = Settings.load({name: short}).warnings
    assert name in warning
    assert "guessed" in warning
    assert short not in warning
