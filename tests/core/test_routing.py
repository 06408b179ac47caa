"""Which deployment answers a model name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.calls import Deployment
from gateway.core.providers import NOT_SERVED, PROVIDERS, SAME_WIRE
from gateway.core.routing import Catalogue, Reach, listed, plan, provider_of
from gateway.errors import ModelNotFound, ProviderNotConfigured
from gateway.secret import Secret
from gateway.upstream import modelmap
from tests.builders import ECHO, catalogue

CHAT = frozenset({"chat"})
EVERY = catalogue(*PROVIDERS, models=modelmap.read(), demo=ECHO)  # all providers are set up


def resolved(name: str, found: Catalogue = EVERY) -> str:
    """`provider/model` of the one attempt that is planned."""
    [attempt] = plan(name, found)
    assert attempt.number == 1
    return attempt.deployment.name


# Names with a provider.


def test_a_provider_gets_whatever_follows_its_name() -> None:
    assert resolved("openai/no-such-model") == "openai/no-such-model"
    assert resolved("openrouter/anthropic/claude-x:free") == "openrouter/anthropic/claude-x:free"


def test_host_key_and_version_come_from_the_configuration() -> None:
    reach = Reach(Secret("k"), "https://here.example/v1", "2026-01-01")
    [attempt] = plan("azure/mine", Catalogue({"azure": reach}))
    assert attempt.deployment == Deployment("azure", "mine", "https://here.example/v1", Secret("k"), "2026-01-01")


def test_blanks_around_a_name_are_forgiven() -> None:
    assert resolved("  openai/gpt-4o \n") == "openai/gpt-4o"


@pytest.mark.parametrize("name", ["openai/", "/gpt-4o", "nobody/gpt-4o", "OpenAI/gpt-4o", "", "/", "demo/", "demo/x"])
def test_a_name_that_nobody_answers_to_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as raised:
        plan(name, EVERY)
    assert (raised.value.http_status, raised.value.param) == (404, "model")


@pytest.mark.parametrize("provider", sorted(NOT_SERVED))
def test_a_provider_that_is_not_served_says_why(provider: str) -> None:
    with pytest.raises(ModelNotFound) as raised:
        plan(f"{provider}/x", EVERY)
    assert NOT_SERVED[provider] in raised.value.message


# Bare names.


@pytest.mark.parametrize(
    ("name", "deployment"),
    [
        ("gpt-17-mini", "openai/gpt-17-mini"),
        ("chatgpt-4o-latest", "openai/chatgpt-4o-latest"),
        ("o9-preview", "openai/o9-preview"),
        ("ft:gpt-4o:org::id", "openai/ft:gpt-4o:org::id"),
        ("claude-omega-9", "anthropic/claude-omega-9"),
        ("gemini-9-pro", "gemini/gemini-9-pro"),
    ],
)
def test_a_family_is_known_by_its_name(name: str, deployment: str) -> None:
    assert resolved(name) == deployment


@pytest.mark.parametrize("name", ["o", "old-model", "my-gpt-4", "GPT-4o", "xclaude-3", "o٣-mini"])
def test_a_name_that_only_looks_like_a_family_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound):
        plan(name, EVERY)


def test_a_family_goes_to_the_first_of_its_providers_that_is_set_up() -> None:
    assert resolved("gemini-9", catalogue("vertex_ai")) == "vertex_ai/gemini-9"
    assert resolved("gemini-9", catalogue("vertex_ai", "gemini")) == "gemini/gemini-9"


def test_a_name_of_litellms_map_goes_to_the_provider_that_the_map_names() -> None:
    found = catalogue("mistral", models={"small-one": {"litellm_provider": "mistral", "mode": "chat"}})
    assert resolved("small-one", found) == "mistral/small-one"


def test_a_name_of_the_map_whose_provider_is_not_served_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        plan("odd", catalogue(models={"odd": {"litellm_provider": "petals"}}))


@pytest.mark.parametrize(
    ("owner", "provider"),
    [
        ("vertex_ai-language-models", "vertex_ai"),
        ("vertex_ai-anthropic_models", "vertex_ai"),
        ("bedrock_converse", "bedrock"),
        ("openai", "openai"),
        ("", ""),
    ],
)
def test_the_maps_spellings_of_a_provider_are_understood(owner: str, provider: str) -> None:
    assert provider_of({"litellm_provider": owner}) == provider


# What is missing.


def test_a_provider_without_its_credential_says_what_to_set() -> None:
    with pytest.raises(ProviderNotConfigured) as raised:
        plan("groq/x", catalogue())
    assert raised.value.message == "groq is not configured on this gateway: set GROQ_API_KEY."
    assert (raised.value.http_status, raised.value.should_retry, raised.value.provider) == (503, False, "groq")


def test_a_provider_that_lacks_its_address_says_so() -> None:
    found = Catalogue({"azure": Reach(Secret("k"), missing="set AZURE_API_BASE")})
    with pytest.raises(ProviderNotConfigured, match="set AZURE_API_BASE"):
        plan("azure/x", found)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_no_provider_is_called_before_something_is_set(provider: str) -> None:
    with pytest.raises(ProviderNotConfigured, match="is not configured on this gateway: set "):
        plan(f"{provider}/x", catalogue())


# The demo.


def test_only_its_own_names_reach_the_demo() -> None:
    assert resolved("demo/echo") == "demo/echo"
    for name in ("demo/slow", "demo/echo/x", "echo"):
        with pytest.raises(ModelNotFound):
            plan(name, EVERY)


def test_the_demo_is_not_found_where_it_is_off() -> None:
    with pytest.raises(ModelNotFound):
        plan("demo/echo", catalogue("openai"))


# Hostile names.


@pytest.mark.parametrize(
    "model",
    [
        "../../v1/files",
        "a/../b",
        "a//b",
        "https://evil.example/v1",
        "//evil.example/x",
        "x?key=1",
        "x#y",
        "x%2e%2e",
        "x\\y",
        "-x",
        ".x",
        "x;y",
        "x\u200by",
        "é",
        "x{y}",
    ],
)
@pytest.mark.parametrize("provider", ["gemini", "azure", "anthropic", "bedrock", "groq", "replicate"])
def test_a_model_that_could_leave_its_place_in_a_url_is_not_found(provider: str, model: str) -> None:
    with pytest.raises(ModelNotFound):
        plan(f"{provider}/{model}", EVERY)


@pytest.mark.parametrize("name", ["openai/a\nb", "openai/a\0b", "openai/\x1b[31m", "openai/a\u202eb", "x" * 513])
def test_control_characters_and_endless_names_are_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as raised:
        plan(name, EVERY)
    assert name not in raised.value.message


@settings(deadline=None, max_examples=300)
@given(
    st.text(max_size=40)
    | st.tuples(st.sampled_from(sorted({*PROVIDERS, *NOT_SERVED})), st.text(max_size=20)).map("/".join)
    | st.tuples(st.sampled_from(["gpt-", "claude-", "gemini-", "o1", "demo/"]), st.text(max_size=20)).map("".join)
)
@example("azure/\ud800")
def test_any_text_is_a_deployment_or_not_found(name: str) -> None:
    try:
        [attempt] = plan(name, EVERY)
    except ModelNotFound:
        return
    deployment = attempt.deployment
    assert deployment.provider in PROVIDERS or name.strip() == "demo/echo"
    assert deployment.model
    assert name.strip().endswith(deployment.model), "no text of a caller is rewritten"
    if deployment.provider not in SAME_WIRE:
        assert deployment.model.isascii()
        assert not {"?", "#", "%", "\\"} & set(deployment.model)


# The list.


def test_what_is_listed_can_be_called_and_goes_where_the_list_says() -> None:
    """Over the whole map of the installed LiteLLM, with every provider set up."""
    wrong = {}
    for name, provider in listed(EVERY, CHAT):
        try:
            got = plan(name, EVERY)[0].deployment.provider
        except ModelNotFound as error:
            got = error.message
        if got != provider:
            wrong[name] = got
    assert wrong == {}


def test_the_list_is_long_and_names_no_model_twice() -> None:
    names = [name for name, _ in listed(EVERY, CHAT)]
    assert len(names) > 1000
    assert {name for name in names if names.count(name) > 1} == set()


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure", "vertex_ai", "groq"])
def test_with_one_provider_set_up_the_list_is_its_own(provider: str) -> None:
    found = catalogue(provider, models=modelmap.read())
    names = list(listed(found, CHAT))
    assert names
    assert {owner for _, owner in names} == {provider}
    assert {plan(name, found)[0].deployment.provider for name, _ in names} == {provider}


def test_models_of_other_modes_and_of_providers_without_a_credential_are_not_listed() -> None:
    rows: Mapping[str, Mapping[str, Any]] = {
        "chatty": {"litellm_provider": "mistral", "mode": "chat"},
        "mistral/embedding": {"litellm_provider": "mistral", "mode": "embedding"},
        "groq/other": {"litellm_provider": "groq", "mode": "chat"},
    }
    assert list(listed(catalogue("mistral", models=dict(rows)), CHAT)) == [("chatty", "mistral")]


def test_demo_models_are_listed_first_where_they_are_served() -> None:
    assert next(listed(EVERY, CHAT)) == ("demo/echo", "demo")
    assert "demo/echo" not in dict(listed(catalogue("openai"), CHAT))
