"""Which rules a call is held to, of many."""

from __future__ import annotations

import random
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import ruleset
from gateway.core.calls import Caller
from gateway.core.rules import LIMIT, Match, Rule
from gateway.core.ruleset import RuleSet

CALLER = Caller("key_k1", "p_1", "key", key_id="k1", project="Search", user="ada", project_id="p_1", user_id="u_1")
MODELS = ("fast", "openai/gpt-4o-mini")


def rule(name: str, **match: str) -> Rule:
    return Rule(name, LIMIT, "tokens", 5, "minute", Match(**match))


def test_a_set_gives_the_rules_that_a_call_is_held_to_in_their_order() -> None:
    everybody, mini = rule("everybody"), rule("mini", model="*-mini")
    key, team, ada = rule("key", key="k1"), rule("team", project="p_1", model="openai/*"), rule("ada", user="ada")
    others = [rule("other", key="k2"), rule("claude", project="p_1", model="anthropic/*"), rule("eve", user="eve")]
    held = RuleSet([ada, others[0], everybody, team, others[1], key, mini, others[2]])
    assert held.of(CALLER, MODELS) == (ada, everybody, team, key, mini)
    assert held.of(CALLER, ("fast", "anthropic/claude")) == (ada, everybody, others[1], key)
    assert held.of(Caller("tok_1", "tok_1"), ()) == (everybody,)
    assert held.of(CALLER, MODELS) == (ada, everybody, team, key, mini)
    assert held.about(CALLER) == (ada, everybody, team, others[1], key, mini)
    assert RuleSet().of(CALLER, MODELS) == RuleSet().about(CALLER) == ()


def test_a_caller_that_is_known_by_names_alone_is_held_to_what_is_said_of_their_ids() -> None:
    named = Caller("jwt_1", "jwtp_1", "jwt", project="Search", user="ada")
    held = RuleSet([rule("team", project="p_1"), rule("ada", user="u_1")], {("project", "Search"): "p_1"})
    assert [one.id for one in held.of(named, ())] == ["team"]
    assert [one.id for one in held.about(named)] == ["team"]
    assert held.of(Caller("jwt_1", "jwt_1", "jwt", project="Other"), ()) == ()


def test_one_callers_projects_are_not_mixed_up() -> None:
    held = RuleSet([rule("a", project="a"), rule("b", project="b")])
    for project in ("a", "b", "a"):
        caller = Caller("jwt_1", "jwtp_1", "jwt", project=project)
        assert [one.id for one in held.of(caller, ("m",))] == [project]


_names = st.sampled_from(["a", "b", None])


@given(st.lists(st.tuples(_names, _names, _names, _names, st.sampled_from(["a*", "b", None])), max_size=12), st.data())
def test_a_set_finds_what_asking_each_rule_finds(matches: list[tuple[str | None, ...]], data: st.DataObject) -> None:
    kept = [Rule(str(n), LIMIT, "tokens", 5, "minute", Match(*match)) for n, match in enumerate(matches)]
    held = RuleSet(kept)
    for _ in range(3):
        key, project, user = (data.draw(_names) for _ in range(3))
        caller = Caller(
            *(data.draw(st.sampled_from(["a", "b"])), "t"), key_id=key, project=project, user=user, project_id=project
        )
        models = tuple(data.draw(st.lists(st.sampled_from(["ab", "b", "c"]), max_size=2)))
        held._remembered.clear()  # here one caller has several keys, which none has
        assert held.of(caller, models) == tuple(one for one in kept if one.match.takes(caller, models))


def test_a_caller_among_thousands_with_rules_of_their_own_costs_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of other keys are not walked, neither at the first call nor later."""
    asked: list[Match] = []
    takes = Match.takes
    monkeypatch.setattr(Match, "takes", lambda self, *of: asked.append(self) or takes(self, *of))
    held = RuleSet([rule("mini", model="*-mini"), *(rule(f"r{n}", key=f"k{n}") for n in range(10_000))])
    assert [one.id for one in held.of(CALLER, MODELS)] == ["mini", "r1"]
    assert len(asked) == 2
    for _ in range(100):
        held.of(CALLER, MODELS)
    assert len(asked) == 2
    assert min(timeit.repeat(lambda: held.of(CALLER, MODELS), number=1000, repeat=5)) < 0.05


def test_deployments_of_one_name_are_remembered_in_whatever_order_they_are_planned() -> None:
    held = RuleSet([rule("all"), rule("mini", model="*-mini")])
    planned = [f"openai/m{number}" for number in range(40)] * 3
    for _ in range(20):
        random.shuffle(planned)
        assert held.of(CALLER, ("fast", *planned)) == (held.rules[0],)
    assert len(held._remembered) == 1


def test_what_is_remembered_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruleset, "_MOST_REMEMBERED", 10)
    held = RuleSet([rule("all")])
    for number in range(100):
        assert held.of(CALLER, (f"m{random.random()}", str(number))) == (held.rules[0],)
        assert len(held._remembered) <= 10
    held = RuleSet([rule("all")])
    assert held.of(CALLER, ("m" * 2000,)) == (held.rules[0],)
    assert held._remembered == {}
