"""The entries of `model_list`, key by key."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.policies import Condition
from gateway.core.pricing import price_of
from gateway.core.routing import Reach, Target
from gateway.secret import Secret
from tests.routes.texts import entry, faults, lines, read, said

TAGS = {"router_settings": {"enable_tag_filtering": True}}


def targets(text: str, **environ: str) -> tuple[Target, ...]:
    """The deployments of the one name of a file."""
    [alias] = read(text, **environ).aliases.values()
    return alias.targets


def weights(*params: dict[str, Any]) -> list[float]:
    return [one.weight for one in targets(lines(*(entry(**one) for one in params)))]


# -- which of several ----------------------------------------------------------------------------------------


def test_weights_are_as_they_are_given_and_a_deployment_without_one_is_tried_last() -> None:
    assert weights({"weight": 9}, {"weight": 1}, {}) == [9, 1, 0]


def test_without_weights_requests_per_minute_weigh_and_then_tokens() -> None:
    assert weights({"rpm": 30, "tpm": 1}, {"rpm": 60, "tpm": 1}) == [30, 60]
    assert weights({"tpm": "20_000"}, {"tpm": 100_000}) == [20_000, 100_000]
    assert weights({"rpm": 30, "weight": 1}, {"rpm": 60, "weight": 2}) == [1, 2]


def test_where_no_weight_is_above_nothing_all_are_alike() -> None:
    assert weights({}, {}) == [1, 1]
    assert weights({"weight": 0}, {"weight": 0}) == [1, 1]


def test_it_is_said_that_a_limit_of_litellms_limits_nothing_here() -> None:
    for name in ("rpm", "tpm"):
        assert f"litellm_params.{name}: counts as a weight" in said(entry(**{name: 3}))
    assert "counts as a weight" not in said(entry(weight=3))


@pytest.mark.parametrize("value", [-1, "many", "nan", "inf", "1e999", True])
@pytest.mark.parametrize("name", ["weight", "rpm", "timeout"])
def test_a_number_is_one(name: str, value: object) -> None:
    [fault] = faults(entry(**{name: value}))
    assert f"litellm_params.{name}: must be a number {'above 0' if name == 'timeout' else 'from 0 on'}" in fault


def test_a_number_may_stand_in_a_variable() -> None:
    assert targets(entry(weight="os.environ/SHARE"), SHARE="2.5")[0].weight == 2.5


def test_deployments_without_an_order_come_after_those_that_have_one() -> None:
    text = lines(entry(order=2), entry(), entry(order=1))
    assert [one.order for one in targets(text)] == [2, 3, 1]
    assert [one.order for one in targets(lines(entry(), entry()))] == [0, 0]


def test_an_order_is_a_whole_number() -> None:
    assert "litellm_params.order: must be a whole number from 0 on" in faults(entry(order=1.5))[0]


def test_a_list_of_keys_makes_a_deployment_of_each_which_share_its_weight() -> None:
    text = lines(entry(weight=8, api_key=["os.environ/ONE", "${TWO}"]), entry(weight=2, model="openai/other"))
    one, two, other = targets(text, ONE="key-one", TWO="key-two", OPENAI_API_KEY="key")
    assert [one.reach.api_key, two.reach.api_key] == [Secret("key-one"), Secret("key-two")]
    assert (one.model, one.weight, two.model, two.weight, other.weight) == ("gpt-x", 4, "gpt-x", 4, 2)
    table = read(text, ONE="key-one", TWO="key-two", OPENAI_API_KEY="key")
    assert set(table.secrets) == {Secret("key-one"), Secret("key-two")}
    assert table.key_variables == {"ONE", "TWO"}


def test_each_key_of_a_list_is_looked_at() -> None:
    [fault] = faults(entry(api_key=["os.environ/ONE", "os.environ/TWO"]), ONE="k")
    assert "litellm_params.api_key[1]: the variable 'TWO' is not set" in fault
    for wrong in ([], [None], [["k"]], {"a": "b"}):
        assert "api_key: must be a key, or a list of keys" in faults(entry(api_key=wrong))[0]


# -- which calls it is for -----------------------------------------------------------------------------------


def test_tags_say_which_calls_a_deployment_is_for_where_litellm_would_look_at_them() -> None:
    text = lines(entry(tags=["free", "trial"]), **TAGS)
    assert targets(text)[0].condition == Condition(frozenset({"free", "trial"}))
    assert targets(entry(tags=["free"]))[0].condition == Condition()
    assert "has no effect without router_settings.enable_tag_filtering" in said(entry(tags=["free"]))


def test_the_tag_default_is_every_calls() -> None:
    text = lines(entry(tags=["default", "free"]), **TAGS)
    assert targets(text)[0].condition == Condition()
    assert "it is for every call, whatever its tags" in said(text)


def test_a_condition_has_tags_headers_and_a_length() -> None:
    when = {"tags": ["eu"], "headers": {"X-Tier": "gold*"}, "prompt_tokens": {"from": 1000, "to": 200_000}}
    found = targets(entry(model_info={"when": when}))[0].condition
    assert found == Condition(frozenset({"eu"}), {"x-tier": "gold*"}, (1000, 200_000))
    found = targets(entry(model_info={"when": {"prompt_tokens": {"to": 8}}}))[0].condition
    assert found == Condition(prompt_tokens=(None, 8))


@pytest.mark.parametrize(
    ("when", "what"),
    [
        ({"tag": ["a"]}, "when.tag: unknown key; tags is meant?"),
        ({"tags": "a"}, "when.tags: must be a list of texts"),
        ({"headers": {"a b": "c"}}, "is no name of a header"),
        ({"headers": {"a": ["c"]}}, "when.headers.a: must be a text"),
        ({"prompt_tokens": 5}, "when.prompt_tokens: must be a map"),
        ({"prompt_tokens": {"from": 2, "to": 1}}, "from must not be greater than to"),
        ({"prompt_tokens": {"from": 1.5}}, "prompt_tokens.from: must be a whole number from 0 on"),
        ({"prompt_tokens": {"till": 1}}, "prompt_tokens.till: unknown key"),
    ],
)
def test_a_condition_that_is_none_is_a_fault(when: dict[str, Any], what: str) -> None:
    [fault] = faults(entry(model_info={"when": when}))
    assert what in fault


def test_a_deployments_tags_stand_in_one_place() -> None:
    [fault] = faults(lines(entry(tags=["a"], model_info={"when": {"tags": ["b"]}}), **TAGS))
    assert "model_info.when.tags is given too" in fault


# -- what is known of it -------------------------------------------------------------------------------------


def test_what_a_model_can_is_said_in_litellms_words() -> None:
    info = {"supports_vision": True, "supports_function_calling": False, "max_input_tokens": 128_000, "max_tokens": 1}
    found = targets(entry(model_info=info))[0]
    assert found.abilities == {"vision": True, "tools": False}
    assert found.most_tokens == 128_000


def test_what_a_model_can_is_true_or_false() -> None:
    assert "supports_vision: must be true or false" in faults(entry(model_info={"supports_vision": "maybe"}))[0]
    assert "max_input_tokens: must be a whole number" in faults(entry(model_info={"max_input_tokens": 0}))[0]


def test_prices_are_kept_as_litellms_map_has_them() -> None:
    prices = {"input_cost_per_token": 0.0000015, "output_cost_per_token": "os.environ/OUT"}
    info = {"cache_read_input_token_cost": 1e-07, "input_cost_per_token": 9}
    found = targets(entry(**prices, model_info=info), OUT="0.000002")[0].prices
    assert {name: float(value) for name, value in found.items()} == {
        "input_cost_per_token": 1.5e-06,
        "output_cost_per_token": 2e-06,
        "cache_read_input_token_cost": 1e-07,
    }
    deployment = targets(entry(**prices, model_info=info), OUT="0.000002", OPENAI_API_KEY="sk-fake")[0].deployment
    assert dict(deployment.prices) == found
    price = price_of(found)
    assert price is not None
    assert [float(price.rate(kind) or 0) for kind in ("prompt", "completion", "cached")] == [1.5e-06, 2e-06, 1e-07]


@pytest.mark.parametrize("value", [-1, "free", {"a": 1}, "nan"])
def test_a_price_is_a_number(value: object) -> None:
    for text in (entry(input_cost_per_token=value), entry(model_info={"input_cost_per_token": value})):
        assert "input_cost_per_token: must be a number" in faults(text)[0]


def test_a_price_that_litellm_has_none_of_is_a_fault() -> None:
    assert "input_cost_per_tokn: not supported" in faults(entry(input_cost_per_tokn=1))[0]


# -- how it is reached ---------------------------------------------------------------------------------------


def test_the_provider_may_stand_beside_the_model() -> None:
    for model in ("meta/llama", "openai/gpt-4o", "custom"):
        found = targets(entry(model=model, custom_llm_provider="hosted_vllm", api_base="http://gpu"))[0]
        assert (found.provider, found.model) == ("hosted_vllm", model)
    found = targets(entry(model="hosted_vllm/x", custom_llm_provider="hosted_vllm", api_base="http://gpu"))[0]
    assert found.model == "x"


def test_a_provider_beside_the_model_is_one_that_litellm_knows() -> None:
    [fault] = faults(entry(model="x", custom_llm_provider="opnai"))
    assert "custom_llm_provider: is no provider that LiteLLM knows; openai is meant?" in fault


def test_base_url_is_the_address_too() -> None:
    assert targets(entry(base_url="http://gpu:8000/v1/"))[0].reach == Reach(None, "http://gpu:8000/v1")


def test_a_deployment_has_times_of_its_own() -> None:
    found = targets(entry(timeout=30, stream_timeout=2.5))[0]
    assert (found.reach.timeout_s, found.reach.stream_timeout_s) == (30, 2.5)
    assert (targets(entry())[0].reach.timeout_s, targets(entry())[0].reach.stream_timeout_s) == (None, None)


def test_times_of_the_router_are_those_of_deployments_that_have_none() -> None:
    text = lines(entry(), entry(timeout=5), router_settings={"timeout": 60, "stream_timeout": 10})
    usual, own = targets(text)
    assert (usual.reach.timeout_s, usual.reach.stream_timeout_s) == (60, 10)
    assert (own.reach.timeout_s, own.reach.stream_timeout_s) == (5, None), "its own time counts for its streams too"


def test_request_timeout_counts_where_the_router_says_nothing() -> None:
    assert targets(lines(entry(), litellm_settings={"request_timeout": 600}))[0].reach.timeout_s == 600
    both = lines(entry(), litellm_settings={"request_timeout": 600}, router_settings={"timeout": 20})
    assert targets(both)[0].reach.timeout_s == 20


def test_how_often_one_deployment_is_tried_is_said_for_all() -> None:
    for name in ("max_retries", "num_retries"):
        assert f"litellm_params.{name}: has no effect: how often is tried is said for all" in said(entry(**{name: 3}))


def test_a_key_beside_the_parameters_has_no_effect_and_is_named() -> None:
    text = entry().replace('"litellm_params"', '"rpm": 3, "litellm_params"')
    assert "model_list[0].rpm: has no effect: it belongs into litellm_params" in said(text)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("aws_region_name", "AWS_REGION"),
        ("vertex_project", "VERTEXAI_PROJECT"),
        ("organization", "OPENAI_ORGANIZATION"),
    ],
)
def test_an_account_may_be_named_where_its_own_variable_says_the_same(name: str, variable: str) -> None:
    text = entry(**{name: "acme-1"})
    assert f"{name}: has no effect: {variable} says the same" in said(text, **{variable: "acme-1"})
    assert said(entry(**{name: f"os.environ/{variable}"}), **{variable: "acme-1"}).count("has no effect") == 1
    for environ in ({}, {variable: "another"}):
        [fault] = faults(text, **environ)
        assert f"litellm_params.{name}: not supported by this release: say it in " in fault
        assert "acme" not in fault


def test_a_secret_of_an_account_is_hidden() -> None:
    text = entry(aws_secret_access_key="os.environ/AWS_SECRET_ACCESS_KEY")
    assert Secret("hunter2-aws") in read(text, AWS_SECRET_ACCESS_KEY="hunter2-aws").secrets
    assert "hunter2" not in said(text, AWS_SECRET_ACCESS_KEY="hunter2-aws")


def test_credentials_in_the_file_itself_are_a_fault() -> None:
    [fault] = faults(entry(vertex_credentials={"private_key": "hunter2"}))
    assert "say it in GOOGLE_APPLICATION_CREDENTIALS" in fault
    assert "hunter2" not in fault
