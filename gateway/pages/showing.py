"""How values are shown to people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

#: Stands where nothing is known.
UNKNOWN = "\N{EN DASH}"


def usd(amount: float | Decimal | None) -> str:
    """US dollars: two digits from a cent on, else as many as it takes to see something. A dash for unknown."""
    if amount is None:
        return UNKNOWN
    exact = Decimal(str(amount))
    if exact == 0:
        return "$0"
    if abs(exact) >= Decimal("0.01"):
        return f"${exact:,.2f}"
    return f"${exact:.6f}".rstrip("0") if abs(exact) >= Decimal("0.000001") else "<$0.000001"


def count(number: int | float | None) -> str:
    """A whole number with commas; a dash for unknown."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def compact(number: int | float | None) -> str:
    """A number in three digits or so: 1.2k, 3.4M."""
    if number is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float | None) -> str:
    """A length of time, in the unit that suits it."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def change(share: float) -> str:
    """By how much something has changed, of what it was; from ten times on that alone."""
    return "> +999 %" if share > 9.995 else f"{100 * share:+.0f} %"


def size(number: int | float | None) -> str:
    """Bytes, in the unit that suits them."""
    if number is None:
        return UNKNOWN
    for unit_bytes, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit_bytes:
            return f"{number / unit_bytes:.1f} {unit}"
    return f"{number:.0f} B"


def moment(seconds: float | None) -> str:
    """A moment as HTML's `datetime` has it (UTC); the page shows it in the reader's own time."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def clock(seconds: float | None) -> str:
    """The same for where no script runs."""
    return UNKNOWN if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(seconds: float) -> str:
    """The day (UTC) of a moment, as an `<input type="date">` has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def compactly(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False)


def pretty(value: Any) -> str:
    """JSON for people; text stays text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


FILTERS: Mapping[str, Callable[..., str]] = {
    "usd": usd,
    "count": count,
    "compact": compact,
    "duration": duration,
    "change": change,
    "size": size,
    "moment": moment,
    "clock": clock,
    "day": day,
    "compactly": compactly,
    "pretty": pretty,
}
