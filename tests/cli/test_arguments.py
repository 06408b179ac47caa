"""Arguments are read as they are meant, or named with what would do."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import pytest

from gateway.cli.arguments import count, end, later, moment, names, one_or_more, span_s, timeout_s, usd


@pytest.mark.parametrize(
    ("text", "ago_s"), [("30s", 30), ("90m", 5_400), (" 24 h", 86_400), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_a_span_is_counted_back_from_now(text: str, ago_s: float) -> None:
    assert moment(text) == pytest.approx(time.time() - ago_s, abs=5)


def test_a_time_is_local_where_it_names_no_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-3")  # POSIX counts westwards: three hours ahead of UTC
    time.tzset()
    try:
        assert moment("2026-01-31T12:00") == moment("2026-01-31T09:00Z") == moment("2026-01-31T11:00+02:00")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (moment, "yesterday"),
        (moment, "-1h"),
        (moment, "9999999999d"),
        (later, "tomorrow"),
        (end, "ever"),
        (span_s, "1"),
        (span_s, "-1h"),
        (count, "-1"),
        (count, "0x1"),
        (count, ""),
        (one_or_more, "0"),
        (timeout_s, "0"),
        (timeout_s, "-3"),
        (timeout_s, "nan"),
        (timeout_s, "inf"),
        (timeout_s, "1e9"),
        (timeout_s, "soon"),
        (usd, "nan"),
        (usd, "-inf"),
        (usd, "cheap"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="needed"):
        read(text)


def test_what_can_be_used_is_read() -> None:
    assert (later("1h"), later("2026-01-31T12:00Z")) == (pytest.approx(time.time() + 3600, abs=5), 1_769_860_800)
    assert (end(" never"), end("1d")) == (None, pytest.approx(time.time() + 86_400, abs=5))
    assert (span_s("90s"), span_s("0s"), names("a, b*,c"), names(" ")) == (90, 0, ("a", "b*", "c"), ())
    assert (count("0"), one_or_more("12"), timeout_s("0.5"), usd("0.05")) == (0, 12, 0.5, 0.05)
