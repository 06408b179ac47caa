"""How a rule stands, for whoever looks at it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from gateway.core.calls import Caller
from gateway.core.rules import LIMIT, REQUESTS, Rule, RuleStanding
from gateway.errors import StoreUnavailable
from gateway.limits.standing import standing, standing_for

ANN = Caller("key_1", "prj_1", key_id="key_1", user="ann", user_id="usr_1", project="shop", project_id="prj_1")


class Counted:
    """Knows how everything stands, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.away = False

    def of(self, rule: Rule, subject: Sequence[str] = ()) -> RuleStanding:
        if self.away:
            raise StoreUnavailable("The counters do not answer.")
        self.asked.append(tuple(subject))
        return RuleStanding(used=1, remaining=rule.most - 1, resets_s=None)


def limit(*each: str) -> Rule:
    return Rule("lim_abcdefghijkl", LIMIT, REQUESTS, 60, "minute", each=each)


def test_a_rule_stands_as_a_whole_or_for_one_subject() -> None:
    counted = Counted()
    assert standing(counted, limit()) == RuleStanding(1, 59, None)
    assert standing(counted, limit("key", "model"), ["key_1", "openai/m"]) == RuleStanding(1, 59, None)
    assert counted.asked == [(), ("key_1", "openai/m")]


@pytest.mark.parametrize(("each", "subject"), [(("key",), ()), ((), ("key_1",)), (("key", "model"), ("key_1",))])
def test_of_a_subject_that_is_not_the_rules_nothing_is_said(each: Sequence[str], subject: Sequence[str]) -> None:
    counted = Counted()
    assert standing(counted, limit(*each), subject) is None
    assert counted.asked == []


def test_a_caller_is_found_by_what_cannot_be_renamed() -> None:
    counted = Counted()
    assert standing_for(counted, limit("key", "user", "project", "caller"), ANN) is not None
    assert counted.asked == [("key_1", "usr_1", "prj_1", ANN.id)]
    assert standing_for(counted, limit("user", "project"), Caller("jwt_1", "shop", user="ann", project="shop"))
    assert counted.asked[1:] == [("ann", "shop")]


def test_a_caller_alone_is_no_model_and_a_token_no_key() -> None:
    counted = Counted()
    assert standing_for(counted, limit("caller", "model"), ANN) is None
    assert standing_for(counted, limit("key"), Caller("tok_1", "tok_1")) is None
    assert standing_for(counted, limit(), Caller("tok_1", "tok_1")) is not None


def test_where_nothing_is_counted_or_the_counters_are_away_nobody_knows(caplog: pytest.LogCaptureFixture) -> None:
    assert standing(None, limit()) is None
    counted = Counted()
    counted.away = True
    with caplog.at_level(logging.WARNING, "gateway"):
        assert standing_for(counted, limit(), ANN) is None
    [record] = caplog.records
    assert record.fields["rule"] == "lim_abcdefghijkl"  # type: ignore[attr-defined]
