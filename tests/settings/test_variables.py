"""Two layers of variables, and what is taken out of a process's own."""

from __future__ import annotations

from gateway.settings import Settings, withdraw


def test_values_are_trimmed_and_unquoted() -> None:
    got = Settings.load({"BRAINTRUST_PROJECT": ' "my shop" ', "LOG_LEVEL": "'debug'", "GATEWAY_TIMEOUT_S": " 5\n"})
    assert (got.braintrust_project, got.log_level, got.timeout_s) == ("my shop", "debug", 5.0)


def test_a_lone_quote_is_part_of_the_value() -> None:
    assert Settings.load({"BRAINTRUST_PROJECT": "the cook's"}).braintrust_project == "the cook's"


def test_variables_stay_known_when_they_are_taken_out_of_the_environment() -> None:
    environ = {"VLLM_KEY": " 'hunter2' "}
    got = Settings.load(environ)
    environ.clear()
    assert got.variables.get("VLLM_KEY") == "hunter2"


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
