"""Which key goes to which address."""

from __future__ import annotations

import pytest

from gateway.core.routing import Reach
from gateway.secret import Secret
from tests.routes.texts import entry, faults, said, target


def test_what_the_file_does_not_say_the_providers_variables_do() -> None:
    environ = {"AZURE_API_KEY": "k", "AZURE_API_BASE": "https://a.example", "AZURE_API_VERSION": "v"}
    assert target(entry(model="azure/d"), **environ).reach == Reach(Secret("k"), "https://a.example", "v")


@pytest.mark.parametrize("model", ["openai/x", "groq/x", "ollama/x", "anthropic/x", "hosted_vllm/x"])
def test_a_key_of_the_environment_never_goes_to_an_address_of_the_file(model: str) -> None:
    variable = f"{model.partition('/')[0].upper()}_API_KEY"
    text = entry(model=model, api_base="http://elsewhere.example")
    assert target(text, **{variable: "hunter2"}).reach.api_key is None
    assert f"no key is sent to this api_base; if {variable} is meant, write api_key: os.environ/{variable}" in said(
        text, **{variable: "hunter2"}
    )


def test_it_does_where_the_environment_names_the_same_address() -> None:
    text = entry(api_base="http://gpu:8000/v1/")
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://gpu:8000/v1"}
    assert target(text, **environ).reach == Reach(Secret("k"), "http://gpu:8000/v1")
    assert said(text, **environ) == ""


def test_a_key_of_the_file_that_goes_to_an_address_of_the_environment_is_told() -> None:
    text = entry(api_key="os.environ/KEY")
    warning = said(text, KEY="k", OPENAI_BASE_URL="http://gpu:8000/v1")
    assert "the api_key that is given here goes to the address of OPENAI_BASE_URL" in warning
    assert said(text, KEY="k") == ""


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (entry(), "set OPENAI_API_KEY"),
        (entry(model="ollama/x"), "set OLLAMA_API_BASE"),
        (entry(model="azure/x", api_key="k"), "set AZURE_API_BASE"),
        (entry(model="azure/x", api_base="http://a"), "set api_key beside the api_base of this deployment"),
        (entry(model="anthropic/x", api_base="http://a"), "set api_key beside the api_base of this deployment"),
        (entry(api_base="http://a"), None),
        (entry(model="ollama/x", api_base="http://a"), None),
    ],
)
def test_a_deployment_that_lacks_something_is_kept_and_told(text: str, missing: str | None) -> None:
    assert target(text).reach.missing == missing
    assert ("cannot be called" in said(text)) is (missing is not None)


def test_an_identity_of_azures_goes_to_azure_and_nowhere_else() -> None:
    there, elsewhere = (entry(model="azure/x", api_base=base) for base in ("https://a.openai.azure.com", "http://a.b"))
    assert target(there, AZURE_CLIENT_SECRET="s").reach.missing is None
    assert target(elsewhere, AZURE_CLIENT_SECRET="s").reach.missing is not None
    fake = entry(model="azure/x", api_base="https://azure.com.evil.example", api_key="k")
    [fault] = faults(fake, AZURE_AD_TOKEN="s")
    assert "LiteLLM would send what AZURE_AD_TOKEN holds to this address" in fault


def test_a_clouds_identity_goes_to_no_address_of_the_file() -> None:
    [fault] = faults(entry(model="vertex_ai/gemini", api_base="http://a"))
    assert "the cloud's identity would go there; if that is meant, set VERTEX_AI_API_BASE" in fault
    same = entry(model="vertex_ai/gemini", api_base="http://a")
    assert target(same, VERTEX_AI_API_BASE="http://a", VERTEXAI_PROJECT="p").reach.missing is None
