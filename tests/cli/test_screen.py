"""Nothing that a terminal would obey gets out."""

from __future__ import annotations

import pytest

from gateway.cli.doctor import Finding
from gateway.cli.screen import visible

EVIL = "\x1b[2J\x9b31m\x07\r\x7f\u202e\u2028\ud800\0"


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    assert visible(EVIL).isprintable()
    assert visible("a\x1bb") == "a\\x1bb"


def test_what_may_stay_stays() -> None:
    assert visible("a\nb\t", keep="\n") == "a\nb\\t"


@pytest.mark.parametrize("text", ["caf\u00e9", "\u4f60\u597d", "\N{GRINNING FACE}", "[bold]"])
def test_words_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def test_a_finding_of_the_doctor_is_one_line() -> None:
    assert str(Finding("fail", "x", EVIL, EVIL)).isprintable()
