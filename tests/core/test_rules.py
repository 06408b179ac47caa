"""Which calls a rule is about."""

from __future__ import annotations

import pytest

from gateway.core.calls import Caller
from gateway.core.rules import Match

CALLER = Caller("key_k1", "p_1", "key", key_id="k1", project="Search", user="ada", project_id="p_1", user_id="u_1")
MODELS = ("fast", "openai/gpt-4o-mini")


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        (Match(), True),
        (Match(key="k1"), True),
        (Match(key="k2"), False),
        (Match(project="p_1"), True),
        (Match(project="Search"), True),
        (Match(project="p_2"), False),
        (Match(user="ada"), True),
        (Match(user="u_1"), True),
        (Match(user="eve"), False),
        (Match(caller="key_k1"), True),
        (Match(caller="tok_1"), False),
        (Match(model="fast"), True),
        (Match(model="openai/*"), True),
        (Match(model="anthropic/*"), False),
        (Match(project="p_1", model="*-mini"), True),
        (Match(project="p_2", model="*-mini"), False),
    ],
)
def test_a_rule_is_about_calls_that_have_all_of_what_it_names(match: Match, taken: bool) -> None:
    assert match.takes(CALLER, MODELS) is taken


def test_a_caller_without_a_project_is_not_in_one() -> None:
    assert not Match(project="Search").takes(Caller("tok_1", "tok_1"), MODELS)
