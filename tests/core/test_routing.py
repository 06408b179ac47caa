"""Which deployment answers a model name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.calls import Deployment
from gateway.core.providers import NOT_SERVED, PROVIDERS, SAME_WIRE
from gateway.core.rights import Rights
from gateway.core.routing import Alias, Catalogue, Reach, Target, is_named, listed, may_call, plan, provider_of
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


@pytest.mark.parametrize(
    ("rights", "open", "name", "said"),
    [
        (Rights(), True, "opnai/gpt-4o", ": is 'openai/gpt-4o' meant?"),
        (Rights(), True, "gpt4o", ": is 'gpt-4o' meant?"),
        (Rights(), False, "fastt", ": is 'fast' meant?"),
        (Rights(), False, "gpt4o", "; GET"),
        (Rights(models=("fastt", "other")), False, "fastt", "; GET"),
        (None, True, "opnai/gpt-4o", ". Name one as"),
    ],
)
def test_a_misspelt_name_is_told_the_one_that_the_caller_may_call(
    rights: Rights | None, open: bool, name: str, said: str
) -> None:
    reaches = {"openai": Reach(Secret("k"))}
    found = Catalogue(reaches, aliases={"fast": Alias((Target("openai", "x", reaches["openai"]),))}, open=open)
    with pytest.raises(ModelNotFound) as raised:
        plan(name, found, rights=rights)
    assert raised.value.message.startswith(f"The model {name!r} does not exist here{said}")
    assert raised.value.message.endswith("GET /v1/models lists what can be called.")


@pytest.mark.parametrize("open", [True, False])
def test_a_demo_model_says_why_it_is_not_there(open: bool) -> None:
    with pytest.raises(ModelNotFound, match=r"^The demo models are off here: .* GATEWAY_DEMO=on\.$"):
        plan("demo/echo", Catalogue(open=open), rights=Rights())


# What is missing.


def test_a_provider_without_its_credential_says_what_to_set() -> None:
    with pytest.raises(ProviderNotConfigured) as raised:
        plan("groq/x", catalogue())
    assert (
        raised.value.message
        == "groq is not configured on this gateway: set GROQ_API_KEY where it runs, and restart it."
    )
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


# The operator's own names.

LACKING = Reach(missing="set api_key")


def at(base: str) -> Reach:
    return Reach(Secret(f"key-of-{base}"), base)


def named(open: bool = True, demo: frozenset[str] = frozenset(), **aliases: Alias) -> Catalogue:
    """A catalogue with these aliases, where `openai` is set up too; `_star` ends the name of one with a star."""
    names = {name.replace("_star", "*"): alias for name, alias in aliases.items()}
    return Catalogue({"openai": Reach(Secret("own"))}, modelmap.read(), demo, names, open)


def test_an_alias_is_tried_in_the_order_of_its_deployments_each_with_its_own_address_and_key() -> None:
    first = Target("openai", "a", at("http://one"), ("azure", "gpt-4o"))
    got = plan("fast", named(fast=Alias((first, Target("openai", "b", at("http://two"))))))
    assert [attempt.deployment for attempt in got] == [
        Deployment("openai", "a", "http://one", Secret("key-of-http://one"), None, ("azure", "gpt-4o")),
        Deployment("openai", "b", "http://two", Secret("key-of-http://two")),
    ]
    assert [attempt.number for attempt in got] == [1, 2]


def test_an_alias_comes_before_the_name_that_others_would_answer_to() -> None:
    found = named(**{"gpt-4o": Alias((Target("groq", "x", at("http://g")),))})
    assert resolved("gpt-4o", found) == "groq/x"
    assert resolved("gpt-4o-mini", found) == "openai/gpt-4o-mini"


def test_a_closed_catalogue_answers_its_own_names_and_the_demo_alone() -> None:
    found = named(open=False, demo=ECHO, fast=Alias((Target("openai", "a", at("http://one")),)))
    assert (resolved("fast", found), resolved("demo/echo", found)) == ("openai/a", "demo/echo")
    for name in ("gpt-4o", "openai/gpt-4o", "groq/x", "vllm/x"):
        with pytest.raises(ModelNotFound):
            plan(name, found)


def test_a_deployment_that_lacks_something_is_left_out_as_long_as_another_does_not() -> None:
    whole, lame = Target("openai", "a", at("http://one")), Target("azure", "b", LACKING)
    assert resolved("fast", named(fast=Alias((lame, whole)))) == "openai/a"
    with pytest.raises(ProviderNotConfigured) as raised:
        plan("fast", named(fast=Alias((lame, Target("groq", "c", LACKING)))))
    assert (raised.value.provider, raised.value.message) == (
        "azure",
        "azure is not configured on this gateway: set api_key where it runs, and restart it.",
    )


def test_what_a_caller_writes_for_a_star_stands_for_the_deployments_star() -> None:
    found = named(gpt_star=Alias((Target("azure", "eu-*", at("http://a")),)))
    [attempt] = plan("gpt4/x", found)
    assert attempt.deployment.name == "azure/eu-4/x"
    for name in ("gpt", "gpt" + "/../x"):
        with pytest.raises(ModelNotFound):
            plan(name, found)


def test_a_full_name_comes_before_a_star_and_a_longer_star_before_a_shorter_one() -> None:
    aliases = {name: Alias((Target("openai", model, at("http://a")),)) for name, model in STARS.items()}
    found = named(**aliases)
    assert resolved("my-model", found) == "openai/full"
    assert resolved("my-models", found) == "openai/long-odels"
    assert resolved("mine", found) == "openai/short-ine"
    assert resolved("gpt-4o", found) == "openai/any-gpt-4o"


STARS = {"_star": "any-*", "m_star": "short-*", "my-m_star": "long-*", "my-model": "full"}


@given(st.text(max_size=20))
@example("m*")
@example("*")
def test_with_a_star_every_name_is_planned_or_not_found(name: str) -> None:
    aliases = {key: Alias((Target("openai", model, at("http://a")),)) for key, model in STARS.items()}
    try:
        got = plan(name, named(**aliases))
    except ModelNotFound:
        assert not name.strip() or not name.strip().isprintable()
    else:
        assert {attempt.deployment.api_base for attempt in got} == {"http://a"}


def test_models_of_aliases_are_named_by_the_catalogue() -> None:
    alias = Alias((Target("azure", "mine", at("http://a")), Target("azure", "eu-*", at("http://a"))))
    found = named(fast=alias)
    assert is_named("azure", "mine", found)
    assert not is_named("azure", "eu-*", found)
    assert not is_named("openai", "mine", found)


# The list.


def test_the_operators_names_are_listed_before_the_maps_unless_nothing_answers_to_them() -> None:
    good, lame = Target("azure", "b", at("http://a")), Target("groq", "c", LACKING)
    found = named(
        **{"gpt-4o": Alias((lame, good)), "off": Alias((lame,)), "vectors": Alias((good,), mode="embedding")},
    )
    names = list(listed(found, CHAT))
    assert names[0] == ("gpt-4o", "azure")
    assert ("gpt-4o-mini", "openai") in names
    assert [name for name, _ in names].count("gpt-4o") == 1
    assert not {"off", "vectors"} & set(dict(names))


def test_a_star_is_listed_as_the_names_that_are_known_for_it() -> None:
    found = named(
        open=False,
        **{
            "o/_star": Alias((Target("openai", "*", at("http://a")),)),
            "o/gpt-4o": Alias((Target("groq", "x", LACKING),)),
        },
    )
    names = dict(listed(found, CHAT))
    assert names["o/gpt-4o-mini"] == "openai"
    assert "o/gpt-4o" not in names, "another alias answers to it, which cannot be called"
    assert all(name.startswith("o/") for name in names)
    assert all(plan(name, found)[0].deployment.name == f"openai/{name[2:]}" for name in names)


def test_with_a_closed_catalogue_only_its_own_names_are_listed() -> None:
    found = named(open=False, demo=ECHO, fast=Alias((Target("azure", "b", at("http://a")),)))
    assert list(listed(found, CHAT)) == [("demo/echo", "demo"), ("fast", "azure")]


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


# Whose it may be.


def test_a_name_of_the_operators_own_is_allowed_as_it_is_and_not_by_what_it_would_stand_for() -> None:
    openai_alone = Rights(models=("openai/*",))
    models = {"gpt-x": {"litellm_provider": "openai", "mode": "chat"}}
    reaches = {"openai": Reach(Secret("k")), "anthropic": Reach(Secret("k"))}
    taken = Alias((Target("anthropic", "m", Reach(Secret("k"))),))
    plain = Catalogue(reaches, models)
    assert may_call(openai_alone, "gpt-x", plain)
    for aliases in ({"gpt-x": taken}, {"gpt-*": taken}):
        assert not may_call(openai_alone, "gpt-x", Catalogue(reaches, models, aliases=aliases))
        assert may_call(Rights(models=("gpt-x",)), "gpt-x", Catalogue(reaches, models, aliases=aliases))
    assert not may_call(openai_alone, "gpt-x", Catalogue(reaches, models, open=False))


def test_a_name_that_means_nothing_is_allowed_to_those_alone_who_may_call_all() -> None:
    for name in ("", "nobody/x", "x" * 100_000, "groq/x", "\0"):
        assert not may_call(Rights(models=("openai/*",)), name, Catalogue({"openai": Reach(Secret("k"))}))
        assert may_call(Rights(), name, Catalogue())
