"""Settings: read once, trimmed and unquoted, every fault named at once.

`uv run python tests/test_settings.py` writes `.env.example` and the table in `docs/settings.md` anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway.core.providers import SAME_WIRE
from gateway.secret import Secret
from gateway.settings import (
    GROUPS,
    SETTINGS,
    Settings,
    SettingsError,
    env_example,
    markdown_table,
    told,
    withdraw,
)

TOP = Path(__file__).resolve().parents[1]
TABLE = "<!-- made from gateway/settings.py -->\n"


def faults(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    return caught.value.faults


# -- the rows ------------------------------------------------------------------------------------------------


def test_with_nothing_set_every_setting_has_the_default_of_its_row() -> None:
    assert Settings.load({}) == Settings()
    defaults = {row.env: row.default for row in SETTINGS if row.default is not None}
    assert Settings.load(defaults) == Settings()


def test_every_row_has_help_and_an_attribute_of_its_own() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    for row in SETTINGS:
        assert row.help.endswith(".")
        assert row.attribute in fields
    for column in ("env", "attribute"):
        assert len({getattr(row, column) for row in SETTINGS}) == len(SETTINGS)
    assert [row for rows in GROUPS.values() for row in rows] == list(SETTINGS)


def test_the_example_file_is_made_from_the_rows() -> None:
    assert (TOP / ".env.example").read_text() == env_example(), "run: uv run python tests/test_settings.py"


def test_the_example_file_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_example())
    assert Settings.from_env({}, tmp_path) == dataclasses.replace(Settings(), data_dir=tmp_path / ".gateway")


def test_the_example_file_is_valid_once_its_defaults_are_uncommented(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in env_example().splitlines() if line.partition("=")[2]]
    (tmp_path / ".env").write_text("\n".join(line for line in lines if line.startswith(("GATEWAY", "LOG", "BRA"))))
    assert Settings.from_env({}, tmp_path) == dataclasses.replace(Settings(), data_dir=tmp_path / ".gateway")


def test_the_guide_has_the_table_of_the_rows() -> None:
    page = (TOP / "docs/settings.md").read_text()
    assert page.partition(TABLE)[2] == markdown_table(), "run: uv run python tests/test_settings.py"


# -- values --------------------------------------------------------------------------------------------------


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


def test_values_are_trimmed_and_unquoted() -> None:
    got = Settings.load({"BRAINTRUST_PROJECT": ' "my shop" ', "LOG_LEVEL": "'debug'", "GATEWAY_TIMEOUT_S": " 5\n"})
    assert (got.braintrust_project, got.log_level, got.timeout_s) == ("my shop", "debug", 5.0)


def test_a_lone_quote_is_part_of_the_value() -> None:
    assert Settings.load({"BRAINTRUST_PROJECT": "the cook's"}).braintrust_project == "the cook's"


@pytest.mark.parametrize("text", ["tok-a,, tok-b , ", '"tok-a,tok-b"', "'tok-a', \"tok-b\"", '"tok-a","tok-b"'])
def test_blanks_around_and_between_tokens_do_not_matter(text: str) -> None:
    assert Settings.load({"GATEWAY_AUTH_TOKEN": text}).tokens == (Secret("tok-a"), Secret("tok-b"))


@pytest.mark.parametrize("text", ["", "  ", ",", " , ,", '""', "'',\"\""])
def test_a_token_variable_without_a_token_is_a_fault_that_says_what_to_set(text: str) -> None:
    [fault] = faults({"GATEWAY_AUTH_TOKEN": text})
    assert fault.startswith("GATEWAY_AUTH_TOKEN is set but holds no token: set it to ")


def test_a_token_variable_without_a_value_in_the_file_is_a_fault_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_AUTH_TOKEN\n")
    with pytest.raises(SettingsError, match="GATEWAY_AUTH_TOKEN is set but holds no token"):
        Settings.from_env({}, tmp_path)


def test_no_token_variable_at_all_is_no_fault() -> None:
    got = Settings.load({})
    assert (got.tokens, got.tokens_set) == ((), False)


@pytest.mark.parametrize("text", ["two words", "tök", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_a_fault_that_does_not_show_it(text: str) -> None:
    [fault] = faults({"GATEWAY_AUTH_TOKEN": f"good,{text}"})
    assert fault.startswith("GATEWAY_AUTH_TOKEN holds a blank or another character")
    assert text not in fault


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


SIGN_IN = {
    "GATEWAY_OIDC_ISSUER": "https://id.example",
    "GATEWAY_OIDC_CLIENT_ID": "gateway",
    "GATEWAY_OIDC_CLIENT_SECRET": "secret-of-the-client",
}


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


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e3", "1_0", "five", "86401", "٣"])
def test_a_time_is_a_number_of_seconds_above_0_and_at_most_a_day(text: str) -> None:
    [fault] = faults({"GATEWAY_TIMEOUT_S": text})
    assert fault == f"GATEWAY_TIMEOUT_S must be a number above 0 and at most 86400, not {text!r}"


@pytest.mark.parametrize("text", ["0", "1.5", "many"])
def test_workers_are_whole_and_at_least_one(text: str) -> None:
    [fault] = faults({"WEB_CONCURRENCY": text})
    assert fault.startswith("WEB_CONCURRENCY must be a ")


def test_a_wrong_choice_is_answered_with_the_right_ones() -> None:
    assert faults({"GATEWAY_DEMO": "yes"}) == ["GATEWAY_DEMO must be one of on, off, auto, not 'yes'"]


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host",
        "localhost:11434",
        "//host",
        "https://",
        "https://user:hunter2@host",
        "https://@host",
        "https://host/?q=hunter2",
        "https://host/v1?",
        "https://host/#",
        "https://host:port",
        "https://ho st",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("name", ["BRAINTRUST_API_URL", "OPENAI_BASE_URL"])
def test_an_address_is_plain_http_and_a_fault_does_not_repeat_it(name: str, text: str) -> None:
    [fault] = faults({name: text, "OPENAI_API_KEY": "k"})
    assert fault.startswith(f"{name} ")
    assert "hunter2" not in fault


@pytest.mark.parametrize("text", ["example.com", "https://a.example/path", "https://u@a.example", "null"])
def test_an_origin_has_a_scheme_and_a_host_and_nothing_else(text: str) -> None:
    [fault] = faults({"GATEWAY_CORS_ORIGINS": text})
    assert fault.startswith("GATEWAY_CORS_ORIGINS must hold origins like ")


def test_every_origin_may_be_let_in() -> None:
    assert Settings.load({"GATEWAY_CORS_ORIGINS": "*"}).cors_origins == ("*",)


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


# -- names ---------------------------------------------------------------------------------------------------


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


def test_all_that_can_be_relayed_are_meant_by_all() -> None:
    assert Settings.load({"GATEWAY_RELAY": " openai, HOSTED_VLLM,"}).relay == {"openai", "hosted_vllm"}
    assert Settings.load({"GATEWAY_RELAY": "all"}).relay == SAME_WIRE
    assert Settings.load({}).relay == frozenset()


@pytest.mark.parametrize(
    ("named", "why"),
    [("anthropic", "does not take OpenAI's wire"), ("openia", "is no provider"), ("all,groq", "is no provider")],
)
def test_what_cannot_be_relayed_is_a_fault(named: str, why: str) -> None:
    [fault] = faults({"GATEWAY_RELAY": named})
    assert fault.startswith("GATEWAY_RELAY names ")
    assert why in fault
    assert "hosted_vllm" in fault


def test_what_kubernetes_sets_for_a_service_named_gateway_is_ignored() -> None:
    names = ("GATEWAY_SERVICE_HOST", "GATEWAY_SERVICE_PORT", "GATEWAY_PORT", "GATEWAY_PORT_8000_TCP_ADDR")
    assert Settings.load(dict.fromkeys(names, "10.0.0.1")) == Settings()


# -- where from ----------------------------------------------------------------------------------------------


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


def test_a_routes_file_and_its_text_at_once_are_a_fault() -> None:
    both = {"GATEWAY_CONFIG": "gateway.yaml", "GATEWAY_CONFIG_YAML": "model_list: []"}
    assert faults(both) == ["GATEWAY_CONFIG and GATEWAY_CONFIG_YAML are both set: remove one of them"]
    assert Settings.load(both | {"GATEWAY_CONFIG_YAML": " \n"}).config == Path("gateway.yaml")


def test_the_text_of_a_routes_file_is_taken_as_it_stands_and_does_not_show() -> None:
    text = '  model_list:\n  - model_name: "hunter2"\n'
    got = Settings.load({"GATEWAY_CONFIG_YAML": text})
    assert got.config_yaml == Secret(text)
    assert "hunter2" not in repr(got)


def test_variables_stay_known_when_they_are_taken_out_of_the_environment() -> None:
    environ = {"VLLM_KEY": " 'hunter2' "}
    got = Settings.load(environ)
    environ.clear()
    assert got.variables.get("VLLM_KEY") == "hunter2"


# -- providers -----------------------------------------------------------------------------------------------


def test_a_provider_is_known_when_one_of_its_variables_is_set() -> None:
    got = Settings.load({"OPENAI_API_KEY": " 'sk-1' ", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"}).credentials
    openai = got["openai"]
    assert openai.api_key == Secret("sk-1")
    assert (openai.api_base, openai.missing) == ("http://127.0.0.1:9/v1", None)
    assert "anthropic" not in got


def test_a_provider_that_is_half_set_says_what_is_missing() -> None:
    got = Settings.load({"AZURE_API_KEY": "k", "AZURE_API_VERSION": "v", "GROQ_API_BASE": "http://x"}).credentials
    assert (got["azure"].missing, got["azure"].api_version) == ("set AZURE_API_BASE", "v")
    assert got["groq"].missing == "set GROQ_API_KEY"


def test_a_provider_of_which_nothing_is_set_can_be_asked_about() -> None:
    settings = Settings.load({})
    assert settings.credential("anthropic").missing == "set ANTHROPIC_API_KEY"
    with pytest.raises(KeyError):
        settings.credential("vllm")


def test_a_blank_key_is_no_key() -> None:
    assert Settings.load({"OPENAI_API_KEY": "  ", "GROQ_API_KEY": '""'}).credentials == {}


def test_the_first_name_that_is_set_wins() -> None:
    environ = {"GEMINI_API_KEY": "", "GOOGLE_API_KEY": "second"}
    assert Settings.load(environ).credentials["gemini"].api_key == Secret("second")
    environ = {"GEMINI_API_KEY": "first", "GOOGLE_API_KEY": "second"}
    assert Settings.load(environ).credentials["gemini"].api_key == Secret("first")


def test_a_key_that_no_header_can_carry_is_one_fault_that_does_not_show_it() -> None:
    [fault] = faults({"COHERE_API_KEY": "hunter2\nX-Evil: 1"})  # two providers read it
    assert fault == "COHERE_API_KEY holds a character that an HTTP header cannot carry"


def test_an_address_alone_is_enough_where_no_key_is_needed() -> None:
    got = Settings.load({"OLLAMA_API_BASE": "http://localhost:11434"}).credentials
    assert got["ollama"].missing is None
    assert got["ollama"].api_key is None


def test_a_provider_that_litellm_would_send_astray_gets_its_address() -> None:
    got = Settings.load({"AI21_API_KEY": "k"}).credentials
    assert got["ai21"].api_base == "https://api.ai21.com/studio/v1"


def test_a_cloud_is_known_by_its_identity() -> None:
    got = Settings.load({"AWS_PROFILE": "p"}).credentials
    assert got["bedrock"].missing is None
    assert got["bedrock"].api_key is None


def test_what_litellm_reads_by_itself_is_handed_on_from_the_file() -> None:
    dotenv = {
        "AWS_PROFILE": '"p"',
        "AWS_REGION": "r",
        "AZURE_API_KEY": "k",
        "WATSONX_PROJECT_ID": "w",
        "X": "x",
    }
    got = Settings.load({"AWS_REGION": "real"}, dotenv)
    assert got.identity == {"AWS_PROFILE": "p", "WATSONX_PROJECT_ID": "w"}


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


# -- stores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres", "PostgreSQL"])
def test_a_postgres_database_may_be_named_in_every_usual_way(scheme: str) -> None:
    settings = Settings.load({"DATABASE_URL": f"{scheme}://me:hunter2%40x@db.example:5432/gateway?sslmode=require"})
    assert settings.database_url is not None
    address = settings.database_url.reveal()
    assert address == "postgresql+psycopg://me:hunter2%40x@db.example:5432/gateway?sslmode=require"
    assert told(settings.database_url) == "postgresql+psycopg://db.example:5432/gateway"
    assert {secret.reveal() for secret in settings.store_passwords} == {address, "hunter2%40x", "hunter2@x"}


@pytest.mark.parametrize(
    "address", ["redis://:hunter2@r.example:6379/0", "rediss://u:hunter2@r.example", "unix://:hunter2@/run/redis.sock"]
)
def test_a_redis_may_be_named_in_every_way_of_its_client(address: str) -> None:
    settings = Settings.load({"REDIS_URL": address})
    assert settings.redis_url == Secret(address)
    assert "hunter2" not in told(settings.redis_url) + repr(settings)
    assert Secret("hunter2") in settings.store_passwords


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/n", "must begin with postgresql+psycopg://"),
        ("DATABASE_URL", "sqlite:///hunter2.db", "must begin with postgresql+psycopg://"),
        ("DATABASE_URL", "postgresql://u:hunter2@h", "names no database"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:port/n", "is not an address"),
        ("DATABASE_URL", "postgresql://u:hunter2 #@h/n", "have to be written as %XX"),
        ("REDIS_URL", "http://:hunter2@h", "must begin with redis://"),
        ("REDIS_URL", "redis://:hunter2@h/zero", "must end with the number of a database"),
        ("REDIS_URL", "redis://", "names no host"),
    ],
)
def test_an_address_of_a_store_that_is_none_is_a_fault_that_does_not_repeat_it(
    name: str, value: str, said: str
) -> None:
    [fault] = faults({name: value})
    assert fault.startswith(f"{name} ")
    assert said in fault
    assert "hunter2" not in fault


# -- secrets -------------------------------------------------------------------------------------------------


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


def test_keys_are_withdrawn_from_a_process_and_the_clouds_identity_stays() -> None:
    keys = (
        "GATEWAY_AUTH_TOKEN",
        "GATEWAY_ADMIN_TOKEN",
        "GATEWAY_KEY_PEPPER",
        "GATEWAY_WEBHOOK_SECRET",
        "BRAINTRUST_API_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "GOOGLE_API_KEY",
        "AZURE_API_KEY",
        "HF_TOKEN",
        "TOGETHERAI_API_KEY",
        "VOYAGE_API_KEY",
        "DATABASE_URL",
        "REDIS_URL",
    )
    others = (
        "PATH",
        "OPENAI_BASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_BEARER_TOKEN_BEDROCK",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AZURE_CLIENT_SECRET",
        "GATEWAY_DATA_DIR",
        "BRAINTRUST_PROJECT",
    )
    named = ("VLLM_KEY", "AZURE_EU_KEY")  # a name of the operator's own may begin as a cloud's do
    environ = dict.fromkeys((*keys, *others, *named), "x")
    withdraw(environ, [*named, "AWS_BEARER_TOKEN_BEDROCK"])
    assert sorted(environ) == sorted(others)


def write_papers() -> None:
    (TOP / ".env.example").write_text(env_example())
    guide = TOP / "docs/settings.md"
    guide.write_text(guide.read_text().partition(TABLE)[0] + TABLE + markdown_table())


if __name__ == "__main__":
    write_papers()


@pytest.mark.parametrize("name", ["GATEWAY_AUTH_TOKEN", "GATEWAY_ADMIN_TOKEN"])
def test_a_token_that_can_be_guessed_is_warned_of_and_not_shown(name: str) -> None:
    long, short = "a-token-of-enough-characters", "guess-this-one"
    assert Settings.load({name: long}).warnings == ()
    [warning] = Settings.load({name: short}).warnings
    assert name in warning
    assert "guessed" in warning
    assert short not in warning
