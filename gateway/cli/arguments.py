"""What the commands read from their arguments: which of them is meant, moments, spans and amounts."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from datetime import datetime

_SPAN = re.compile(r"([0-9]{1,9})\s*([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
#: Longer than anybody waits, and short enough for every clock that has to count it.
_LONGEST_S = 7 * 86_400

#: For the help of an option that `moment` reads.
MOMENTS = "30m, 24h, 7d, or a time like 2026-01-31T12:00"


def without_command(parser: argparse.ArgumentParser) -> int:
    """Where one of a parser's commands has to be named and none is: show which there are. Returns the exit status."""
    parser.print_help(sys.stderr)
    return 2


def moment(text: str) -> float:
    """Read a span before now, or a time (ISO 8601; local, where it names no zone), as seconds since the epoch."""
    if found := _SPAN.fullmatch(text.strip()):
        return time.time() - int(found[1]) * _UNITS_S[found[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"one of {MOMENTS} is needed") from None


def later(text: str) -> float:
    """Read a span from now, or a time (ISO 8601; local, where it names no zone), as seconds since the epoch."""
    if found := _SPAN.fullmatch(text.strip()):
        return time.time() + int(found[1]) * _UNITS_S[found[2]]
    return moment(text)


def end(text: str) -> float | None:
    """Read when something ends, as `later`; None for `never`."""
    return None if text.strip() == "never" else later(text)


def span_s(text: str) -> float:
    """Read how long something takes, in seconds."""
    if found := _SPAN.fullmatch(text.strip()):
        return float(int(found[1]) * _UNITS_S[found[2]])
    raise argparse.ArgumentTypeError("a span such as 90s, 24h or 7d is needed")


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between; none where the text is empty."""
    return tuple(name.strip() for name in text.split(",")) if text.strip() else ()


def count(text: str) -> int:
    """Read a number of things, 0 among them."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError("a whole number is needed")
    return int(text)


def one_or_more(text: str) -> int:
    """Read a number of things, of which there has to be one."""
    if (found := count(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return found


def timeout_s(text: str) -> float:
    """Read how long to wait, in seconds: above 0, a week at most."""
    if not 0 < (found := _number(text)) <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"seconds are needed: above 0 and at most {_LONGEST_S}")
    return found


def usd(text: str) -> float:
    """Read an amount of US dollars."""
    if not math.isfinite(found := _number(text)):
        raise argparse.ArgumentTypeError("an amount of US dollars is needed, such as 0.05")
    return found


def _number(text: str) -> float:
    """The number that a text is; NaN, which no bound lets through, for one that is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
