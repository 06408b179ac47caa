"""Settings: read once, every fault named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.secret import Secret
from gateway.settings import Settings, SettingsError
from gateway.settings.table import SETTINGS
from tests.settings.loading import SIGN_IN


def test_with_nothing_set_every_setting_has_the_default_of_its_row() -> None:
    assert Settings.load({}) == Settings()
    defaults = {row.env: row.default for row in SETTINGS if row.default is not None}
    assert Settings.load(defaults) == Settings()


def test_every_setting_is_read() -> None:
    got = Settings.load(
        {
            "GATEWAY_AUTH_TOKEN": "token-of-caller-a,token-of-caller-b",
            "GATEWAY_ADMIN_TOKEN": "token-of-the-admin",
            "GATEWAY_KEY_PEPPER": "p" * 32,
            "GATEWAY_WEBHOOK_SECRET": "whsec_" + "A" * 32,
            "GATEWAY_OIDC_ISSUER": "https://id.example.com/",
            "GATEWAY_OIDC_AUDIENCE": "gateway, other",
            "GATEWAY_OIDC_JWKS_URL": "http://127.0.0.1:8000/keys?all=1",
            "GATEWAY_OIDC_ALGORITHMS": "ES256, EdDSA",
            "GATEWAY_OIDC_CALLER_CLAIM": "email",
            "GATEWAY_OIDC_PROJECT_CLAIM": "team",
            "GATEWAY_OIDC_SCOPES_CLAIM": "realm_access.roles",
            "GATEWAY_OIDC_CALL_SCOPE": "llm",
            "GATEWAY_OIDC_ADMIN_SCOPE": "llm-admin",
            "GATEWAY_OIDC_MODELS_CLAIM": "models",
            "GATEWAY_OIDC_CLIENT_ID": "gateway client",
            "GATEWAY_OIDC_CLIENT_SECRET": "secret of the client",
            "GATEWAY_OIDC_SCOPE": "openid  email groups",
            "GATEWAY_OIDC_ADMIN_EMAILS": "Ann@Example.com, @example.org",
            "GATEWAY_OIDC_ADMIN_CLAIM": "groups",
            "GATEWAY_OIDC_ADMIN_VALUES": "boss, llm admin",
            "GATEWAY_CORS_ORIGINS": "https://App.example.com/, http://localhost:3000",
            "BRAINTRUST_API_KEY": "bt-key",
            "BRAINTRUST_PROJECT": "shop",
            "BRAINTRUST_APP_URL": "https://bt.example.com/",
            "BRAINTRUST_API_URL": "https://api.bt.example.com",
            "BRAINTRUST_ORG_NAME": "acme",
            "GATEWAY_TIMEOUT_S": "12.5",
            "GATEWAY_FIRST_BYTE_TIMEOUT_S": "1",
            "GATEWAY_IDLE_TIMEOUT_S": "2",
            "GATEWAY_KEEPALIVE_S": "0.5",
            "GATEWAY_MAX_BODY_MB": "1",
            "GATEWAY_PRICES": "prices.json",
            "GATEWAY_DEMO": "ON",
            "GATEWAY_STORED_RESPONSES_DAYS": "0",
            "GATEWAY_STORED_RESPONSES_MB": "1",
            "GATEWAY_CONFIG": "routes.yaml",
            "GATEWAY_DATA_DIR": "/var/lib/gateway",
            "WEB_CONCURRENCY": "3",
            "LOG_FORMAT": "Pretty",
            "LOG_LEVEL": "WARNING",
        }
    )
    assert got == Settings(
        tokens=(Secret("token-of-caller-a"), Secret("token-of-caller-b")),
        tokens_set=True,
        admin_token=Secret("token-of-the-admin"),
        key_pepper=Secret("p" * 32),
        webhook_secret=Secret("whsec_" + "A" * 32),
        oidc_issuer="https://id.example.com/",
        oidc_audience=("gateway", "other"),
        oidc_jwks_url="http://127.0.0.1:8000/keys?all=1",
        oidc_algorithms=("ES256", "EdDSA"),
        oidc_caller_claim="email",
        oidc_project_claim="team",
        oidc_scopes_claim="realm_access.roles",
        oidc_call_scope="llm",
        oidc_admin_scope="llm-admin",
        oidc_models_claim="models",
        oidc_client_id="gateway client",
        oidc_client_secret=Secret("secret of the client"),
        oidc_scope="openid email groups",
        oidc_admin_emails=("ann@example.com", "@example.org"),
        oidc_admin_claim="groups",
        oidc_admin_values=("boss", "llm admin"),
        cors_origins=("https://app.example.com", "http://localhost:3000"),
        braintrust_api_key=Secret("bt-key"),
        braintrust_project="shop",
        braintrust_app_url="https://bt.example.com",
        braintrust_api_url="https://api.bt.example.com",
        braintrust_org_name="acme",
        timeout_s=12.5,
        first_byte_timeout_s=1.0,
        idle_timeout_s=2.0,
        keepalive_s=0.5,
        max_body_mb=1.0,
        prices=Path("prices.json"),
        demo="on",
        stored_responses_days=0.0,
        stored_responses_mb=1.0,
        config=Path("routes.yaml"),
        data_dir=Path("/var/lib/gateway"),
        workers=3,
        log_format="pretty",
        log_level="warning",
    )


def test_a_token_variable_without_a_value_in_the_file_is_a_fault_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_AUTH_TOKEN\n")
    with pytest.raises(SettingsError, match="GATEWAY_AUTH_TOKEN is set but holds no token"):
        Settings.from_env({}, tmp_path)


def test_no_token_variable_at_all_is_no_fault() -> None:
    got = Settings.load({})
    assert (got.tokens, got.tokens_set) == ((), False)


@pytest.mark.parametrize(
    ("environ", "manageable"),
    [
        ({}, False),
        ({"GATEWAY_AUTH_TOKEN": "tok"}, False),
        ({"GATEWAY_ADMIN_TOKEN": "adm"}, True),
        ({"GATEWAY_OIDC_ISSUER": "https://id.example", "GATEWAY_OIDC_AUDIENCE": "api"}, True),
        (SIGN_IN, False),
        ({**SIGN_IN, "GATEWAY_OIDC_ADMIN_EMAILS": "@example.com"}, True),
        ({**SIGN_IN, "GATEWAY_OIDC_ADMIN_CLAIM": "groups", "GATEWAY_OIDC_ADMIN_VALUES": "boss"}, True),
        ({**SIGN_IN, "GATEWAY_OIDC_ADMIN_EMAILS": "@example.com", "GATEWAY_UI": "off"}, False),
    ],
)
def test_a_gateway_is_manageable_where_the_settings_know_somebody_who_may(
    environ: dict[str, str], manageable: bool
) -> None:
    assert Settings.load(environ).manageable is manageable


def test_a_blank_value_is_no_value() -> None:
    blank = {row.env: " " for row in SETTINGS if row.env != "GATEWAY_AUTH_TOKEN"}
    assert Settings.load(blank) == Settings()


def test_all_faults_are_told_at_once_one_on_a_line() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(
            {
                "GATEWAY_AUTH_TOKEN": ",",
                "GATEWAY_MAX_BODY_MB": "big",
                "LOG_FORMAT": "xml",
                "OPENAI_API_BASE": "nowhere",
                "GATEWAY_TIMEOUTS": "3",
            }
        )
    assert [fault.split()[0] for fault in caught.value.faults] == [
        "GATEWAY_AUTH_TOKEN",
        "GATEWAY_MAX_BODY_MB",
        "LOG_FORMAT",
        "OPENAI_API_BASE",
        "GATEWAY_TIMEOUTS",
    ]
    assert str(caught.value).splitlines() == caught.value.faults
    assert isinstance(caught.value, ValueError)


def test_the_real_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=debug\nBRAINTRUST_PROJECT=file\nOPENAI_API_KEY=file\n")
    got = Settings.from_env({"BRAINTRUST_PROJECT": "real", "OPENAI_API_KEY": ""}, tmp_path)
    assert (got.log_level, got.braintrust_project) == ("debug", "real")
    assert got.credentials == {}, "also where the real one is blank"


def test_the_file_is_taken_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("\ufeffexport BRAINTRUST_PROJECT='a ${HOME} b' # note\n", encoding="utf-8")
    assert Settings.from_env({"HOME": "h"}, tmp_path).braintrust_project == "a ${HOME} b"


def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read"):
        Settings.from_env({}, tmp_path)


def test_paths_count_from_where_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text("{}")
    got = Settings.from_env({"GATEWAY_PRICES": "prices.json"}, tmp_path)
    assert (got.data_dir, got.prices) == (tmp_path / ".gateway", tmp_path / "prices.json")


def test_a_file_of_prices_that_is_not_there_is_told_with_the_other_faults(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"GATEWAY_PRICES": "none.json", "LOG_LEVEL": "loud"}, tmp_path)
    assert [fault.split()[0] for fault in caught.value.faults] == ["LOG_LEVEL", "GATEWAY_PRICES"]


def test_the_routes_file_is_the_one_that_is_named_or_the_one_that_is_there(tmp_path: Path) -> None:
    assert Settings.from_env({}, tmp_path).config is None
    (tmp_path / "gateway.yaml").touch()
    (tmp_path / "other.yaml").touch()
    assert Settings.from_env({}, tmp_path).config == tmp_path / "gateway.yaml"
    assert Settings.from_env({"GATEWAY_CONFIG": "other.yaml"}, tmp_path).config == tmp_path / "other.yaml"
    assert Settings.from_env({"GATEWAY_CONFIG_YAML": "model_list: []"}, tmp_path).config is None


def test_a_routes_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_CONFIG names no file: .*none\.yaml$"):
        Settings.from_env({"GATEWAY_CONFIG": "none.yaml"}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, True),
        ({"OPENAI_API_KEY": "k"}, False),
        ({"OLLAMA_API_BASE": "http://localhost:11434"}, False),
        ({"AZURE_API_KEY": "k"}, True),
        ({"AWS_PROFILE": "p"}, True),
        ({"OPENAI_API_KEY": "k", "GATEWAY_DEMO": "on"}, True),
        ({"GATEWAY_DEMO": "off"}, False),
    ],
)
def test_the_demo_models_are_on_until_a_provider_has_a_key_or_an_address(environ: dict[str, str], on: bool) -> None:
    assert Settings.load(environ).demo_on is on


def test_no_secret_shows_in_a_repr() -> None:
    environ = {
        "GATEWAY_AUTH_TOKEN": "hunter2-a",
        "BRAINTRUST_API_KEY": "hunter2-b",
        "OPENAI_API_KEY": "hunter2-c",
    }
    settings = Settings.load(environ, {"AWS_SECRET_ACCESS_KEY": "hunter2-d"})
    assert settings.identity
    assert "hunter2" not in repr(settings) + str(settings) + f"{settings.tokens[0]}"
    assert settings.tokens[0].reveal() == "hunter2-a"
