"""Which deployments a call is tried at, in which order, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import policies
from gateway.core.breaker import HALF_OPEN, OPEN, DeploymentHealth
from gateway.core.calls import Call, Caller, Deployment
from gateway.core.choosing import RANKINGS, Plan, World, id_of, plan
from gateway.core.policies import Condition, Policy, Trying
from gateway.core.rights import Rights
from gateway.core.routing import Alias, Catalogue, Reach, Target
from gateway.errors import ModelNotFound, ProviderNotConfigured
from gateway.secret import Secret
from tests.builders import ECHO, call

WELL = DeploymentHealth()
DOWN = DeploymentHealth(OPEN)
PROBED = DeploymentHealth(HALF_OPEN, probe=True)


def at(model: str, **more: Any) -> Target:
    provider, slash, rest = model.partition("/")
    key = more.pop("key", "k")
    reach = Reach(Secret(key), f"http://{model.replace('/', '.')}.example")
    return Target(provider if slash else "openai", rest or model, reach, **more)


def named(
    *targets: Target, policy: Policy | None = None, models: Mapping[str, Any] | None = None, **others: Alias
) -> Catalogue:
    """A closed catalogue with the name `m` for these targets, and other names."""
    aliases = {"m": Alias(targets, policy=policy or Policy()), **others}
    return Catalogue(models=models or {}, demo=ECHO, aliases=aliases, open=False)


def planned(
    catalogue: Catalogue,
    made: Call | None = None,
    health: Mapping[str, DeploymentHealth] | None = None,
    **world: Any,
) -> Plan:
    known = health or {}
    return plan(made or call("m"), catalogue, lambda _name: World(lambda one: known.get(one.model, WELL), **world))


def models(plan: Plan) -> list[str]:
    return [attempt.deployment.model for attempt in plan.attempts]


# Strategies.


def test_what_is_ordered_is_tried_as_it_stands() -> None:
    got = planned(named(at("a"), at("b"), at("c")), dice=0.9, turn=5)
    assert models(got) == ["a", "b", "c"]
    assert [(one.number, one.name, one.why) for one in got.attempts][:1] == [(1, "m", "ordered")]
    assert (got.strategy, got.trying) == ("ordered", Trying())


def test_weights_are_kept_over_many_calls_within_a_point_and_a_half() -> None:
    found = named(*(at(name, weight=weight) for name, weight in WEIGHTS.items()), policy=Policy(policies.WEIGHTED))
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for number in range(10_000):
        got = models(planned(found, dice=(number + 0.5) / 10_000))
        first[got[0]] += 1
        if got[0] == "a":
            second[got[1]] += 1
    assert {name: round(count / 100) for name, count in first.items()} == pytest.approx(WEIGHTS, abs=1.5)
    assert second["b"] / (second["b"] + second["c"]) == pytest.approx(2 / 3, abs=0.015), "what follows is drawn as well"


WEIGHTS = {"a": 70, "b": 20, "c": 10}


def test_a_weight_of_nothing_is_tried_last() -> None:
    found = named(at("a", weight=0.0), at("b"), policy=Policy(policies.WEIGHTED))
    assert {tuple(models(planned(found, dice=dice / 100))) for dice in range(100)} == {("b", "a")}


def test_round_robin_begins_with_each_in_turn_and_leaves_out_who_is_down() -> None:
    found = named(at("a"), at("b"), at("c"), policy=Policy(policies.ROUND_ROBIN))
    assert [models(planned(found, turn=turn))[0] for turn in range(6)] == ["a", "b", "c", "a", "b", "c"]
    got = [models(planned(found, health={"b": DOWN}, turn=turn)) for turn in range(4)]
    assert got == [["a", "c", "b"], ["c", "a", "b"]] * 2


def test_the_least_busy_is_first_by_its_weight_and_equals_take_turns_by_chance() -> None:
    found = named(at("a"), at("b", weight=4.0), at("c"), policy=Policy(policies.LEAST_BUSY))
    busy = {name: DeploymentHealth(in_flight=count) for name, count in {"a": 2, "b": 3, "c": 9}.items()}
    assert models(planned(found, health=busy)) == ["b", "a", "c"]
    even = named(at("a"), at("b"), policy=Policy(policies.LEAST_BUSY))
    assert [models(planned(even, dice=dice))[0] for dice in (0.1, 0.6)] == ["a", "b"]


def test_the_fastest_is_first_by_what_the_call_waits_for() -> None:
    found = named(at("a"), at("b"), policy=Policy(policies.LATENCY))
    times = {
        "a": DeploymentHealth(first_content_s=0.1, whole_s=3.0),
        "b": DeploymentHealth(first_content_s=0.9, whole_s=1.0),
    }
    assert models(planned(found, call("m", stream=True), times, dice=0.5)) == ["a", "b"]
    assert models(planned(found, call("m"), times, dice=0.5)) == ["b", "a"]


def test_now_and_then_a_slow_one_is_tried_and_equally_fast_ones_share() -> None:
    found = named(at("a"), at("b"), at("c"), policy=Policy(policies.LATENCY))
    times = {name: DeploymentHealth(whole_s=time) for name, time in {"a": 1.0, "b": 1.1, "c": 9.0}.items()}
    first = Counter(models(planned(found, health=times, dice=(n + 0.5) / 3000))[0] for n in range(3000))
    assert first["c"] == pytest.approx(3000 * 0.05 / 3, abs=5)
    assert min(first["a"], first["b"]) > 900


def test_the_cheapest_is_first_by_prompt_and_answer_and_one_without_a_price_is_last() -> None:
    found = named(at("none"), at("long"), at("short"), policy=Policy(policies.COST))

    def price(deployment: Deployment, usage: Any) -> Decimal | None:
        rates = {"long": (1, 10), "short": (5, 1)}.get(deployment.model)
        return None if rates is None else Decimal(usage.prompt * rates[0] + usage.completion * rates[1])

    asked = call("m", "x" * 4000)
    assert models(planned(found, asked, price=price)) == ["short", "long", "none"]
    brief = call("m", "x" * 4000, body={"max_tokens": 10})
    assert models(planned(found, brief, price=price)) == ["long", "short", "none"]


def test_a_lower_order_comes_before_a_higher_one_whatever_the_strategy() -> None:
    found = named(at("late", order=2), at("a", order=1), at("b", order=1), policy=Policy(policies.ROUND_ROBIN))
    assert [models(planned(found, turn=turn)) for turn in (0, 1)] == [["a", "b", "late"], ["b", "a", "late"]]


@pytest.mark.parametrize("strategy", policies.STRATEGIES)
def test_every_strategy_has_its_ranking(strategy: str) -> None:
    assert strategy in RANKINGS


# Sticky calls.


def by(key: str) -> Call:
    return call("m", caller=Caller(key, "t", "key", key_id=key))


def test_calls_of_one_key_go_to_one_deployment_and_keys_are_spread() -> None:
    found = named(*(at(name) for name in "abcd"), policy=Policy(policies.WEIGHTED, sticky="key"))
    chosen = {key: {models(planned(found, by(key), dice=dice))[0] for dice in (0.1, 0.9)} for key in KEYS}
    assert all(len(places) == 1 for places in chosen.values())
    spread = Counter(place for places in chosen.values() for place in places)
    assert len(spread) == 4
    assert min(spread.values()) > len(KEYS) / 4 * 0.7


KEYS = [f"k{number}" for number in range(400)]


def test_a_deployment_that_is_lost_moves_its_own_calls_alone_and_gets_them_back() -> None:
    found = named(*(at(name) for name in "abcd"), policy=Policy(sticky="key"))
    before = {key: models(planned(found, by(key)))[0] for key in KEYS}
    lost = {key: models(planned(found, by(key), {"c": DOWN}))[0] for key in KEYS}
    assert {before[key] for key in KEYS if before[key] != lost[key]} == {"c"}
    assert len({lost[key] for key in KEYS if before[key] == "c"}) == 3, "they are spread over the others"


def test_a_weight_counts_for_sticky_calls_too() -> None:
    found = named(at("a", weight=3.0), at("b", weight=1.0), at("c", weight=0.0), policy=Policy(sticky="key"))
    first = Counter(models(planned(found, by(key)))[0] for key in KEYS)
    assert first["a"] / len(KEYS) == pytest.approx(0.75, abs=0.06)
    assert first["c"] == 0


def test_a_call_with_nothing_to_stick_by_goes_by_the_strategy() -> None:
    found = named(at("a"), at("b"), policy=Policy(policies.ROUND_ROBIN, sticky="header:x-session"))
    assert [models(planned(found, turn=turn))[0] for turn in (0, 1)] == ["a", "b"]


# Conditions and abilities.


def test_a_deployment_for_other_calls_is_left_out_and_where_all_are_nobody_answers() -> None:
    found = named(
        at("eu", condition=Condition(frozenset({"eu"}))), at("long", condition=Condition(prompt_tokens=(500, None)))
    )
    assert models(planned(found, call("m", tags=("eu",)))) == ["eu"]
    got = planned(found, call("m", "x" * 4000))
    assert models(got) == ["long"]
    assert got.left_out == (("openai/eu", "it is for other calls"),)
    with pytest.raises(ModelNotFound, match="calls like this one"):
        planned(found)


TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


def test_one_that_is_known_to_lack_an_ability_is_left_out_and_one_that_nobody_knows_is_not() -> None:
    rows = {
        "openai/old": {"litellm_provider": "openai", "supports_function_calling": False},
        "openai/new": {"litellm_provider": "openai", "supports_function_calling": True},
    }
    found = named(at("old"), at("new"), at("unknown"), models=rows)
    assert models(planned(found)) == ["old", "new", "unknown"]
    got = planned(found, call("m", body=TOOLS))
    assert models(got) == ["new", "unknown"]
    assert got.left_out == (("openai/old", "it has no tools"),)
    told = named(at("old", abilities={"tools": True}), at("new", abilities={"tools": False}), models=rows)
    assert models(planned(told, call("m", body=TOOLS))) == ["old"], "the operator knows better than the map"


def test_where_none_is_able_all_are_tried() -> None:
    found = named(at("a", abilities={"vision": False}), at("b", abilities={"vision": False}))
    image = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
    assert models(planned(found, call("m", body=image))) == ["a", "b"]


def test_a_prompt_longer_than_a_context_goes_where_it_fits() -> None:
    rows = {"small": {"litellm_provider": "openai", "max_input_tokens": 1000}}
    found = named(at("small"), at("said", most_tokens=500), at("big", most_tokens=9000), models=rows)
    assert models(planned(found, call("m", "x" * 1600))) == ["small", "said", "big"]
    assert models(planned(found, call("m", "x" * 3000))) == ["small", "big"]
    assert models(planned(found, call("m", "x" * 8000))) == ["big"]


# Health.


def test_one_whose_breaker_is_open_is_behind_all_others_fallbacks_included() -> None:
    found = named(at("a"), at("b"), policy=Policy(fallbacks=("other",)), other=Alias((at("c"),)))
    assert models(planned(found)) == ["a", "b", "c"]
    got = planned(found, health={"a": DOWN})
    assert models(got) == ["b", "c", "a"]
    assert [one.why for one in got.attempts] == ["ordered", "fallback other, ordered", "ordered, breaker open"]
    assert models(planned(found, health=dict.fromkeys("abc", DOWN))) == ["a", "b", "c"]


def test_one_that_may_be_probed_has_its_own_place() -> None:
    found = named(at("a"), at("b"))
    got = planned(found, health={"a": PROBED})
    assert models(got) == ["a", "b"]
    assert got.attempts[0].why == "ordered, breaker half-open"
    assert models(planned(found, health={"a": PROBED._replace(probe=False)})) == ["b", "a"]


# Fallbacks.


def test_fallbacks_follow_in_their_order_each_by_its_own_policy_and_never_twice() -> None:
    found = named(
        at("a"),
        policy=Policy(fallbacks=("second", "third", "demo/echo", "nobody")),
        second=Alias((at("b"), at("c")), policy=Policy(policies.ROUND_ROBIN, fallbacks=("third",))),
        third=Alias((at("a"), at("d"))),
    )
    got = planned(found, turn=1)
    assert models(got) == ["a", "c", "b", "d"]
    assert [one.name for one in got.attempts] == ["m", "second", "second", "third"]
    assert ("nobody", "model_not_found") in got.left_out


def test_a_fallback_that_the_caller_may_not_call_is_left_out() -> None:
    found = named(at("a"), policy=Policy(fallbacks=("dear",)), dear=Alias((at("b"),)))
    caller = Caller("c", "t", rights=Rights(models=("m",)))
    got = planned(found, call("m", caller=caller))
    assert models(got) == ["a"]
    assert got.left_out == (("dear", "this key may not call it"),)


def test_so_many_names_are_tried_and_no_more() -> None:
    others = {f"n{number}": Alias((at(f"x{number}"),)) for number in range(9)}
    found = replace(named(at("a"), policy=Policy(fallbacks=tuple(others)), **others), trying=Trying(most_fallbacks=3))
    assert models(planned(found)) == ["a", "x0", "x1", "x2"]


def test_where_no_deployment_of_the_name_can_be_called_its_fallbacks_are() -> None:
    lame = Target("groq", "x", Reach(missing="set api_key"))
    found = named(lame, policy=Policy(fallbacks=("other",)), other=Alias((at("b"),)))
    assert models(planned(found)) == ["b"]
    with pytest.raises(ProviderNotConfigured):
        planned(named(lame))


def test_other_names_stand_by_for_prompts_that_are_too_long_or_refused() -> None:
    policy = Policy(context_window_fallbacks=("long",), content_policy_fallbacks=("mild", "long"))
    found = named(at("a"), policy=policy, long=Alias((at("l"),)), mild=Alias((at("n"),)))
    got = planned(found)
    assert models(got) == ["a"]
    assert [one.deployment.model for one in got.too_long] == ["l"]
    assert [one.deployment.model for one in got.refused] == ["n", "l"]


# What is none of the operator's names.


def test_any_other_name_is_planned_as_it_was_and_asks_for_no_health() -> None:
    def nothing(_name: str) -> World:
        raise AssertionError("there is nothing to choose")

    reaches = {"openai": Reach(Secret("k"))}
    for found in (Catalogue(reaches, demo=ECHO), replace(named(at("a")), reaches=reaches, open=True)):
        for name in ("openai/x", "demo/echo"):
            got = plan(call(name), found, nothing)
            assert [one.deployment.name for one in got.attempts] == [name]
            assert (got.strategy, got.trying) == (None, None)


def test_what_only_one_deployment_keeps_is_asked_for_there_alone() -> None:
    got = planned(named(at("a"), at("b")), call("m", deployment="openai/b"))
    assert models(got) == ["b"]
    assert got.trying is None


def test_the_id_of_a_deployment_tells_keys_apart_and_tells_none() -> None:
    one, other = (Deployment("openai", "m", api_key=Secret(key)) for key in ("sk-one", "sk-other"))
    assert id_of(one) != id_of(other)
    assert id_of(one) == id_of(Deployment("openai", "m", api_key=Secret("sk-one")))
    assert len(id_of(one)) == 32


# Of all plans.

TARGETS = st.lists(
    st.builds(
        at,
        st.sampled_from(["a", "b", "c", "d", "groq/e"]),
        weight=st.sampled_from([0.0, 0.5, 1.0, 70.0]),
        order=st.integers(0, 2),
        condition=st.sampled_from([Condition(), Condition(frozenset({"eu"}))]),
        abilities=st.dictionaries(st.sampled_from(["tools", "vision"]), st.booleans()),
    ),
    min_size=1,
    max_size=6,
)
HEALTH = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.sampled_from([WELL, DOWN, PROBED, DeploymentHealth(in_flight=3, first_content_s=0.2, whole_s=2.0)]),
)


@settings(deadline=None, max_examples=400)
@given(
    TARGETS,
    HEALTH,
    st.sampled_from(policies.STRATEGIES),
    st.sampled_from([None, "key", "user"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
)
def test_a_plan_has_whatever_is_usable_and_nothing_that_is_not(
    targets: list[Target],
    health: dict[str, DeploymentHealth],
    strategy: str,
    sticky: str | None,
    dice: float,
    turn: int,
    tagged: bool,
    tooled: bool,
) -> None:
    found = named(*targets, policy=Policy(strategy, sticky))
    made = call("m", tags=("eu",) if tagged else (), body=TOOLS if tooled else {})
    fits = [one for one in targets if tagged or not one.condition.tags]
    if not fits:
        with pytest.raises(ModelNotFound):
            planned(found, made, health, dice=dice, turn=turn)
        return
    got = planned(found, made, health, dice=dice, turn=turn)
    able = [one for one in fits if not tooled or one.abilities.get("tools") is not False]
    assert set(models(got)) == {one.model for one in (able or fits)}
    assert len(set(models(got))) == len(models(got))
    well = [health.get(name, WELL).usable for name in models(got)]
    assert well == sorted(well, reverse=True), "those that are down are last"
    assert all(one.why for one in got.attempts)
    again = planned(found, made, health, dice=dice, turn=turn)
    assert models(again) == models(got)
