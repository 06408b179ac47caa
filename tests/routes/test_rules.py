"""The settings of a routes file: strategies, fallbacks, further names."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.policies import (
    COST,
    LATENCY,
    LEAST_BUSY,
    ORDERED,
    ROUND_ROBIN,
    STRATEGIES,
    WEIGHTED,
    Policy,
    Trying,
)
from tests.routes.texts import entry, faults, lines, read, said

ABC = tuple(entry(name, f"openai/{name}") for name in "abc")


def policies(*entries: str, **sections: Any) -> dict[str, Policy]:
    return {name: alias.policy for name, alias in read(lines(*entries, **sections)).aliases.items()}


def strategy(*entries: str, **sections: Any) -> str:
    return policies(*entries, **sections)["fast"].strategy


def trying(**settings: Any) -> Trying:
    return read(lines(entry(), router_settings=settings)).trying


# -- strategies ----------------------------------------------------------------------------------------------


def test_with_nothing_said_deployments_are_tried_as_they_stand() -> None:
    assert strategy(entry(), entry()) == ORDERED


@pytest.mark.parametrize("params", [{"weight": 2}, {"rpm": 10}, {"tpm": 1000}])
def test_weights_are_for_choosing_by_weight(params: dict[str, int]) -> None:
    assert strategy(entry(**params), entry()) == WEIGHTED


def test_a_file_with_settings_of_litellms_router_has_its_default() -> None:
    assert strategy(entry(), router_settings={"num_retries": 1}) == WEIGHTED
    assert strategy(entry(), router_settings={}) == ORDERED
    assert strategy(entry(), litellm_settings={"num_retries": 1}) == ORDERED


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("simple-shuffle", WEIGHTED),
        ("least-busy", LEAST_BUSY),
        ("latency-based-routing", LATENCY),
        ("cost-based-routing", COST),
    ],
)
def test_a_strategy_of_litellms_is_one_of_ours(theirs: str, ours: str) -> None:
    assert strategy(entry(), router_settings={"routing_strategy": theirs}) == ours


@pytest.mark.parametrize(
    ("theirs", "nearest"),
    [
        ("usage-based-routing", "least-busy"),
        ("usage-based-routing-v2", "least-busy"),
        ("provider-budget-routing", "cost-based-routing"),
    ],
)
def test_a_strategy_that_is_not_here_is_named_with_the_nearest(theirs: str, nearest: str) -> None:
    [fault] = faults(lines(entry(), router_settings={"routing_strategy": theirs}))
    assert fault.endswith(f"not supported by this release: {theirs}; what is nearest to it is {nearest}")


def test_a_strategy_that_nobody_knows_is_a_fault() -> None:
    [fault] = faults(lines(entry(), router_settings={"routing_strategy": "fastest"}))
    assert "must be one of simple-shuffle, least-busy, latency-based-routing, cost-based-routing" in fault


@pytest.mark.parametrize("name", STRATEGIES)
def test_our_own_strategies_stand_in_routing_for_all_names_or_for_one(name: str) -> None:
    assert strategy(entry(weight=1), router_settings={"timeout": 1}, routing={"strategy": name}) == name
    found = policies(*ABC, routing={"strategy": ROUND_ROBIN, "names": {"b": {"strategy": name}}})
    assert [found[one].strategy for one in "abc"] == [ROUND_ROBIN, name, ROUND_ROBIN]


def test_calls_of_the_same_one_may_keep_their_deployment() -> None:
    names = {"b": {"sticky": "header:X-Session"}, "c": {"sticky": "user"}}
    found = policies(*ABC, routing={"sticky": "key", "names": names})
    assert [found[one].sticky for one in "abc"] == ["key", "header:x-session", "user"]


@pytest.mark.parametrize("text", ["session", "header:", "header:a b", "header", "Key"])
def test_a_stickiness_is_one_of_three(text: str) -> None:
    assert "routing.sticky: must be key, user or header:<name>" in faults(lines(entry(), routing={"sticky": text}))[0]


# -- how often -----------------------------------------------------------------------------------------------


def test_the_routers_numbers_are_taken() -> None:
    found = trying(num_retries=4, max_fallbacks=2, allowed_fails=3, cooldown_time=12.5)
    assert (found.retries, found.most_fallbacks, found.cooldown_s) == (4, 2, 12.5)
    assert found.allowed_fails == 4, "LiteLLM leaves a deployment alone once it has failed more often than that"


def test_without_them_the_usual_ones_count() -> None:
    assert read(entry()).trying == trying() == Trying()


def test_cooldowns_can_be_off() -> None:
    assert trying(disable_cooldowns=True, cooldown_time=30).cooldown_s == 0
    assert trying(disable_cooldowns=False, cooldown_time=30).cooldown_s == 30


def test_a_stream_may_be_tried_elsewhere_when_it_is_slow_to_begin() -> None:
    assert read(lines(entry(), routing={"first_content_s": 8})).trying.first_content_s == 8


@pytest.mark.parametrize(
    ("section", "name", "value", "what"),
    [
        ("router_settings", "num_retries", 11, "must be a whole number from 0 to 10"),
        ("router_settings", "num_retries", 1.5, "must be a whole number from 0 to 10"),
        ("router_settings", "cooldown_time", -1, "must be a number from 0 to 86400"),
        ("router_settings", "timeout", 0, "must be a number above 0 to 86400"),
        ("router_settings", "disable_cooldowns", "perhaps", "must be true or false"),
        ("litellm_settings", "request_timeout", "soon", "must be a number above 0 to 86400"),
        ("routing", "first_content_s", 0, "must be a number above 0 on"),
    ],
)
def test_a_number_of_the_settings_has_bounds(section: str, name: str, value: object, what: str) -> None:
    [fault] = faults(lines(entry(), **{section: {name: value}}))
    assert f"{section}.{name}: {what}" in fault


def test_what_both_of_litellms_maps_say_the_router_decides() -> None:
    text = lines(entry(), litellm_settings={"num_retries": 1}, router_settings={"num_retries": 3})
    assert read(text).trying.retries == 3
    assert "litellm_settings.num_retries: has no effect: router_settings.num_retries is given too" in said(text)
    assert read(lines(entry(), litellm_settings={"num_retries": 1})).trying.retries == 1


# -- fallbacks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["router_settings", "litellm_settings"])
@pytest.mark.parametrize("kind", ["fallbacks", "context_window_fallbacks", "content_policy_fallbacks"])
def test_fallbacks_are_in_litellms_shape(section: str, kind: str) -> None:
    found = policies(*ABC, **{section: {kind: [{"a": ["b", "c"]}, {"b": ["c"]}]}})
    assert [getattr(found[name], kind) for name in "abc"] == [("b", "c"), ("c",), ()]
    others = {"fallbacks", "context_window_fallbacks", "content_policy_fallbacks"} - {kind}
    assert all(getattr(found["a"], other) == () for other in others)


def test_default_fallbacks_are_for_names_that_have_none_and_never_lead_to_themselves() -> None:
    for settings in (
        {"fallbacks": [{"a": ["b"]}], "default_fallbacks": ["c", "b"]},
        {"fallbacks": [{"a": ["b"]}, {"*": ["c", "b"]}]},
    ):
        found = policies(*ABC, litellm_settings=settings)
        assert [found[name].fallbacks for name in "abc"] == [("b",), ("c",), ("b",)]


def test_default_fallbacks_are_said_once() -> None:
    settings = {"fallbacks": [{"*": ["a"]}], "default_fallbacks": ["b"]}
    assert "litellm_settings.default_fallbacks is given too" in faults(lines(*ABC, litellm_settings=settings))[0]


def test_our_own_fallbacks_of_a_name_count_before_litellms() -> None:
    found = policies(
        *ABC,
        router_settings={"fallbacks": [{"a": ["b"]}], "context_window_fallbacks": [{"a": ["b"]}]},
        routing={"names": {"a": {"fallbacks": ["c"]}}},
    )
    assert (found["a"].fallbacks, found["a"].context_window_fallbacks) == (("c",), ("b",))


def test_a_fallback_may_be_a_name_that_is_not_in_the_file_where_those_are_answered() -> None:
    for name in ("gpt-4o", "groq/llama-3", "openai/x"):
        assert policies(*ABC, router_settings={"fallbacks": [{"a": [name]}]})["a"].fallbacks == (name,)
        [fault] = faults(lines(*ABC, router_settings={"fallbacks": [{"a": [name]}]}, open_catalogue=False))
        assert fault.endswith("fallbacks[0].a[0]: no model_name of this file answers to this name")


@pytest.mark.parametrize("name", ["nobody", "opnai/x", "groq/", "demo/echo", "openai/*", "A"])
def test_a_fallback_that_nobody_answers_is_a_fault_with_its_place(name: str) -> None:
    text = "\n".join(
        [
            "model_list:",
            "- {model_name: a, litellm_params: {model: openai/x}}",
            "router_settings:",
            "  fallbacks:",
            "  - a:",
            f"    - '{name}'",
        ]
    )
    [fault] = faults(text)
    assert fault.startswith(":6:7: router_settings.fallbacks[0].a[0]: no model_name of this file answers")
    assert "<provider>/<model>" in fault


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"a": ["b"]}, "fallbacks: must be a list of maps, each from a name to a list of names"),
        (["b"], "fallbacks[0]: must be a map from a name to a list of names"),
        ([{}], "fallbacks[0]: must be a map from a name to a list of names"),
        ([{"a": "b"}], "fallbacks[0].a: must be a list of names"),
        ([{"a": [{"model": "b"}]}], "fallbacks[0].a: must be a list of names"),
        ([{"a": ["b"]}, {"a": ["c"]}], "fallbacks[1].a: the fallbacks of this name were given before"),
        ([{"d": ["b"]}], "fallbacks[0].d: no model_name of this file answers to this name"),
        ([{"gpt-4o": ["b"]}], "fallbacks[0].gpt-4o: no model_name of this file answers to this name"),
    ],
)
def test_fallbacks_of_another_shape_are_faults(value: object, what: str) -> None:
    assert any(what in fault for fault in faults(lines(*ABC, router_settings={"fallbacks": value})))


def test_fallbacks_that_lead_back_are_told_and_no_fault() -> None:
    text = lines(*ABC, router_settings={"fallbacks": [{"a": ["b"]}, {"b": ["c"]}, {"c": ["b"]}]})
    told = [line for line in said(text).splitlines() if "lead back" in line]
    assert [line.partition(": ")[2] for line in told] == [
        f"router_settings.fallbacks[{number}].{name}: these lead back to the name itself, which is tried once"
        for number, name in ((1, "b"), (2, "c"))
    ]


def test_a_name_that_only_a_star_stands_for_may_have_fallbacks_of_its_own() -> None:
    star = entry("openai/*", "openai/*")
    table = read(lines(star, *ABC, router_settings={"fallbacks": [{"openai/gpt-4o": ["a"]}, {"openai/*": ["b"]}]}))
    assert table.aliases["openai/gpt-4o"].targets[0].model == "gpt-4o"
    assert table.aliases["openai/gpt-4o"].policy.fallbacks == ("a",)
    assert table.aliases["openai/*"].policy.fallbacks == ("b",)
    other = read(lines(star, *ABC, routing={"names": {"openai/o3": {"strategy": "cheapest"}}}))
    assert other.aliases["openai/o3"].policy.strategy == COST


def test_a_name_of_a_star_is_no_name_of_its_own_for_being_a_fallback() -> None:
    table = read(lines(entry("openai/*", "openai/*"), *ABC, router_settings={"fallbacks": [{"a": ["openai/gpt-4o"]}]}))
    assert list(table.aliases) == ["openai/*", "a", "b", "c"]


def test_a_name_whose_entries_have_faults_is_not_said_to_be_missing() -> None:
    text = lines(entry("a"), entry("b", rmp=1), router_settings={"fallbacks": [{"a": ["b"]}, {"b": ["a"]}]})
    assert [fault.rpartition(".")[2] for fault in faults(text)] == ["rmp: unknown key; rpm is meant?"]


# -- further names -------------------------------------------------------------------------------------------


def test_another_name_of_a_name_has_its_deployments_and_its_rules() -> None:
    settings = {
        "model_group_alias": {"gpt-4": "a", "gpt-3.5": {"model": "b", "hidden": True}},
        "fallbacks": [{"a": ["c"]}, {"gpt-3.5": ["c"]}],
    }
    table = read(lines(*ABC, router_settings=settings))
    assert table.aliases["gpt-4"] == table.aliases["a"]
    assert table.aliases["gpt-3.5"].targets == table.aliases["b"].targets
    assert (table.aliases["gpt-3.5"].policy.fallbacks, table.aliases["b"].policy.fallbacks) == (("c",), ())
    assert "router_settings.model_group_alias.gpt-3.5.hidden: has no effect" in said(
        lines(*ABC, router_settings=settings)
    )


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"x": "nobody"}, "model_group_alias.x: no model_name of this file answers to this name"),
        ({"a": "b"}, "model_group_alias.a: must be a name of its own, without a star"),
        ({"x*": "b"}, "must be a name of its own, without a star"),
        ({"x": {"hidden": True}}, "model_group_alias.x: model is missing"),
        ({"x": {"model": "a", "shown": True}}, "model_group_alias.x.shown: unknown key"),
        ({"x": ["a"]}, "model_group_alias.x: must be a name, or a map with model"),
        (["a"], "model_group_alias: must be a map"),
    ],
)
def test_another_name_that_cannot_be_one_is_a_fault(value: object, what: str) -> None:
    assert any(what in fault for fault in faults(lines(*ABC, router_settings={"model_group_alias": value})))


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ({"nobody": {"strategy": "cheapest"}}, "routing.names.nobody: no model_name of this file answers"),
        ({"a": {"strateg": "cheapest"}}, "routing.names.a.strateg: unknown key; strategy is meant?"),
        ({"a": {"strategy": "simple-shuffle"}}, "routing.names.a.strategy: must be one of ordered, weighted"),
        ({"a": "cheapest"}, "routing.names.a: must be a map"),
        ({"a": {"fallbacks": ["nobody"]}}, "routing.names.a.fallbacks[0]: no model_name of this file answers"),
    ],
)
def test_the_rules_of_a_name_are_looked_at(names: dict[str, Any], what: str) -> None:
    assert any(what in fault for fault in faults(lines(*ABC, routing={"names": names})))


# -- what is done elsewhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "where"), [("master_key", "GATEWAY_AUTH_TOKEN"), ("database_url", "DATABASE_URL")])
def test_what_is_set_by_variables_here_is_a_warning_as_long_as_the_file_holds_no_value(name: str, where: str) -> None:
    for value in ("os.environ/LITELLM_THING", "${LITELLM_THING}"):
        warning = said(lines(entry(), general_settings={name: value}))
        assert f"general_settings.{name}: has no effect: " in warning
        assert where in warning
    [fault] = faults(lines(entry(), general_settings={name: "hunter2"}))
    assert where in fault
    assert "hunter2" not in fault


def test_each_callback_is_told_what_becomes_of_it() -> None:
    settings = {"callbacks": ["braintrust", "langfuse"], "success_callback": ["prometheus"]}
    told = said(lines(entry(), litellm_settings=settings))
    assert "litellm_settings.callbacks[0]: has no effect: every call is traced to Braintrust" in told
    assert "litellm_settings.callbacks[1]: has no effect: nothing is sent there" in told
    assert "litellm_settings.success_callback[0]: has no effect: GET /metrics always has them" in told


def test_a_cache_that_is_off_is_no_fault() -> None:
    assert "litellm_settings.cache: has no effect" in said(lines(entry(), litellm_settings={"cache": False}))
    assert "the cache is set up by GATEWAY_CACHE" in faults(lines(entry(), litellm_settings={"cache": True}))[0]


def test_variables_in_the_file_are_a_fault_unless_there_are_none() -> None:
    assert read(lines(entry(), environment_variables={})).source
    [fault] = faults(lines(entry(), environment_variables={"OPENAI_API_KEY": "hunter2"}))
    assert fault.endswith(
        "environment_variables: not supported by this release: variables stand in the environment, or in .env"
    )


# -- the revision --------------------------------------------------------------------------------------------


def test_the_revision_changes_with_whatever_the_file_means() -> None:
    key = {"K": "key-one"}
    base = read(entry(api_key="os.environ/K"), **key).revision
    changed = [
        read(entry(api_key="os.environ/K"), K="key-two").revision,
        read(entry(api_key="os.environ/K", weight=2), **key).revision,
        read(entry(api_key="os.environ/K", model="openai/y"), **key).revision,
        read(lines(entry(api_key="os.environ/K"), open_catalogue=False), **key).revision,
        read(lines(entry(api_key="os.environ/K"), litellm_settings={"num_retries": 1}), **key).revision,
    ]
    assert len({base, *changed}) == 6
    assert read("# the same\n" + entry(api_key="${K}"), **key).revision == base
    assert len(base) == 16
    assert "key-one" not in base
