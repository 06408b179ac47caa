"""Reading a caller's values, and noting what stays behind."""

from __future__ import annotations

import pytest

from gateway.core.messages.reading import Reading, checked
from gateway.errors import InvalidRequest


def test_a_value_of_the_right_type_comes_back() -> None:
    assert checked("a", "system", str, list) == "a"


@pytest.mark.parametrize(("value", "says"), [(None, "is required"), (True, "must be an integer"), ("1", "must be")])
def test_a_value_of_another_type_is_told_with_its_path(value: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"messages.2.n {says}") as failed:
        checked(value, "messages.2.n", int)
    assert failed.value.param == "messages.2.n"


def test_what_is_dropped_is_named_once_and_in_order() -> None:
    reading = Reading()
    reading.drop("tools", "web_search")
    reading.drop("container")
    reading.drop("container")
    assert reading.dropped == ("container", "tools.web_search")


def test_a_name_that_the_caller_made_up_is_cut() -> None:
    reading = Reading()
    reading.drop("tools", "x" * 10_000)
    assert reading.dropped == ("tools." + "x" * 64,)


def test_fields_that_ask_for_nothing_are_not_named() -> None:
    reading = Reading()
    reading.drop_rest({"a": None, "b": False, "c": [], "d": 0, "known": 1, "asked": 1}, ("known",), "thinking")
    assert reading.dropped == ("thinking.asked",)


def test_a_mark_for_the_cache_stays_only_with_a_reader_that_takes_it() -> None:
    block = {"cache_control": {"type": "ephemeral"}}
    plain, claude = Reading(), Reading({"cache_control"})
    assert plain.marked(block, {"type": "text"}) == {"type": "text"}
    assert claude.marked(block, {"type": "text"}) == {"type": "text", "cache_control": {"type": "ephemeral"}}
    assert (plain.dropped, claude.dropped) == (("cache_control",), ())
