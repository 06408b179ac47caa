"""Each trim beside what it stands for in the LiteLLM that is installed."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.upstream import litellmtrims
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.litellmtrims import KnownModels, PlainOptions
from tests.builders import attempt, call
from tests.fakes.provider import FakeProvider


@pytest.fixture
def module(loaded: LiteLLM) -> Any:
    return sys.modules["litellm"]


@pytest.fixture
def known(module: Any) -> KnownModels:
    return KnownModels(module.utils, lambda: module.model_cost)


def test_the_installed_litellm_takes_every_trim(module: Any) -> None:
    assert litellmtrims.install(module) == ()
    assert isinstance(sys.modules["litellm.responses.bridge_check"].get_model_info_helper, KnownModels)
    assert isinstance(module.main._supplemental_provider_params, PlainOptions)


def test_a_litellm_of_another_build_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    other = SimpleNamespace(__name__="other", main=SimpleNamespace(), utils=SimpleNamespace())
    with caplog.at_level(logging.WARNING):
        left_out = litellmtrims.install(other)
    assert set(left_out) == {"values_of_providers", "facts_of_models", "options"}
    assert vars(other.main) == vars(other.utils) == {}
    assert all(name in caplog.text for name in left_out)


def test_providers_are_listed_and_found_as_an_enumeration_does(module: Any) -> None:
    providers = module.LlmProviders
    members = list(providers.__members__.values())
    assert list(providers) == members
    assert [one.value for one in providers] == [one._value_ for one in members]
    assert len(providers) == len(members) > 100
    assert providers("openai") is providers.OPENAI is providers["OPENAI"]
    assert providers.OPENAI in providers
    assert (providers.OPENAI.value, providers.OPENAI.name, providers.OPENAI == "openai") == ("openai", "OPENAI", True)
    with pytest.raises(ValueError, match="no-such"):
        providers("no-such")


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-mini", "openai"),
        ("gpt-5-codex", "openai"),
        ("gpt-5.4", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gemini-2.5-flash", "gemini"),
        ("deepseek-chat", "deepseek"),
    ],
)
def test_the_facts_of_a_model_are_litellms_each_time(
    module: Any, known: KnownModels, model: str, provider: str
) -> None:
    fresh = module.utils.get_model_info_helper(model=model, custom_llm_provider=provider)
    for _ in range(3):
        facts = known(model=model, custom_llm_provider=provider)
        assert facts == fresh
        facts["mode"] = "written into"


def test_a_model_that_litellm_does_not_know_stays_unknown(module: Any, known: KnownModels) -> None:
    for _ in range(3):
        with pytest.raises(Exception, match="nobody-s-model"):
            known(model="nobody-s-model", custom_llm_provider="together_ai")


def test_a_model_that_is_made_known_is_known_from_then_on(
    module: Any, known: KnownModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Exception, match="made-known"):
        known(model="made-known", custom_llm_provider="together_ai")
    monkeypatch.setitem(
        module.model_cost, "together_ai/made-known", {"litellm_provider": "together_ai", "mode": "chat"}
    )
    module.utils._invalidate_model_cost_lowercase_map()
    try:
        assert known(model="made-known", custom_llm_provider="together_ai")["mode"] == "chat"
    finally:
        monkeypatch.undo()
        module.utils._invalidate_model_cost_lowercase_map()


def test_names_that_callers_make_up_do_not_fill_the_memory(module: Any, known: KnownModels) -> None:
    for number in range(1100):
        with pytest.raises(Exception, match="made-up"):
            known(model=f"made-up-{number}", custom_llm_provider="together_ai")
    assert len(known._known) <= 1024


@pytest.mark.parametrize("provider", ["ollama", "ollama_chat", "huggingface"])
def test_a_provider_that_litellm_asks_about_its_models_is_asked_each_time(
    module: Any, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    asked: list[str] = []

    def find(model: str, custom_llm_provider: str) -> dict[str, Any]:
        asked.append(model)
        return {}

    monkeypatch.setattr(module.utils, "get_model_info_helper", find)
    known = KnownModels(module.utils, lambda: module.model_cost)
    for _ in range(2):
        known(model="m", custom_llm_provider=provider)
    assert asked == ["m", "m"]


GIVEN = {"extra_headers": None, "api_key": "k", "litellm_call_id": "1"}


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        (GIVEN, 0),
        ({**GIVEN, "timeout": 5}, 2),
        ({**GIVEN, "extra_headers": {"a": "b"}}, 2),
        ({**GIVEN, "aws_region_name": "eu-west-1"}, 2),
        ({"api_key": "k"}, 2),
    ],
)
def test_a_calls_options_are_checked_as_litellm_does(
    module: Any, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], checked: int
) -> None:
    ours = module.main._supplemental_provider_params
    ours(GIVEN, "m")
    check, times = ours._check, []

    def counted(*arguments: Any) -> Any:
        times.append(1)
        return check(*arguments)

    monkeypatch.setattr(ours, "_check", counted)
    for _ in range(2):
        made = ours(given, "m")
        assert made == check(given, "m")
        assert type(made) is type(check(given, "m"))
        made.params.custom_llm_provider = "written into"
    assert len(times) == checked


def test_a_call_of_the_gateways_has_no_options_of_litellms_own(
    loaded: LiteLLM, module: Any, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = module.main._supplemental_provider_params
    ours(GIVEN, "m")
    monkeypatch.setattr(ours, "_check", lambda *_arguments: pytest.fail("it was checked once more"))
    loaded.open(attempt("openai/m", api_base=provider.base_url, api_key="k"), call("openai/m")).close()
