"""Nothing that a terminal would obey gets out."""

from __future__ import annotations

import pytest

from gateway.cli.doctor import Finding
from gateway.cli.screen import columns, visible, when

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


def test_columns_are_as_wide_as_what_is_in_them_and_obey_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    columns(("id", "name"), [("1", "a"), ("12345", EVIL)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id     name"
    assert lines[1] == "1      a"
    assert lines[2] == f"12345  {visible(EVIL)}"


def test_a_time_that_never_was_is_a_dash() -> None:
    assert when(None) == "-"
    assert len(when(1_764_000_000.0)) == len("2025-11-24 17:00")
