"""Which known name a misspelt one is nearest to."""

import pytest

from gateway.core.spelling import nearest

KNOWN = ("api_base", "api_key", "api_version", "model")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("api_bse", "api_base"), ("apikey", "api_key"), ("modle", "model"), ("api_base", "api_base"), ("mod", "model")],
)
def test_a_name_that_is_at_most_two_letters_off_is_recognised(name: str, meant: str) -> None:
    assert nearest(name, KNOWN) == meant


@pytest.mark.parametrize("name", ["", "base", "api", "api_keyword", "moo"])
def test_a_name_that_is_further_off_is_not(name: str) -> None:
    assert nearest(name, KNOWN) is None


def test_nothing_is_near_where_nothing_is_known() -> None:
    assert nearest("a", ()) is None
