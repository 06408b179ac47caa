"""What is made of measured numbers: medians, tables, verdicts. No I/O, no clock."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: What stands in a table where nothing was measured.
NOTHING = "-"


def median(values: Iterable[float | None]) -> float | None:
    """The median of those that were measured; None where none was."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def at_share(values: Sequence[float], share: float) -> float | None:
    """The value that this share of them (0 to 1) does not exceed, by nearest rank; None where there are none."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def per(amount: float, of: float) -> float | None:
    """How much of `amount` there is for each `of`; None where there is nothing to divide by."""
    return amount / of if of > 0 else None


def added(value: float | None, base: float | None) -> float | None:
    """What a value has above its base; None where one of them was not measured. May be negative: noise."""
    return None if value is None or base is None else value - base


def shown(value: float | None, digits: int = 0) -> str:
    """Write a number for a reader, thousands apart."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def pair(first: float | None, second: float | None, digits: int = 0) -> str:
    """Write two numbers of one column."""
    return NOTHING if first is None and second is None else f"{shown(first, digits)} / {shown(second, digits)}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table, first column to the left, the others to the right."""
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def replaced(text: str, name: str, content: str) -> str:
    """Put `content` between the two comments of a Markdown text that are called `name`.

    Raises:
        ValueError: the text has not exactly one such place.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, *between = text.split(begin)
    if len(between) != 1 or between[0].count(end) != 1:
        raise ValueError(f"not exactly one {begin.strip()} … {end.strip()}")
    return f"{before}{begin}\n{content.strip()}\n\n{end}{between[0].split(end)[1]}"


@dataclass(frozen=True)
class Bound:
    """How far a quantity may move between the first and the last third of a run.

    Attributes:
        share: of what it was in the first third.
        least: units that are always allowed, for what is small and jumps.
    """

    share: float
    least: float


@dataclass(frozen=True)
class Drift:
    """What became of one quantity: its median in the first and the last third."""

    name: str
    first: float
    last: float
    bound: Bound

    @property
    def most(self) -> float:
        """The largest last value that is no drift."""
        return self.first + max(self.bound.least, self.bound.share * self.first)

    @property
    def good(self) -> bool:
        """Whether it has not grown beyond its bound; what shrinks leaks nothing."""
        return self.last <= self.most

    def __str__(self) -> str:
        moved = 100 * (self.last / self.first - 1) if self.first else 0.0
        verdict = "" if self.good else f"  GROWN: {self.most:,.1f} at most"
        return f"{self.name}: {self.first:,.1f} -> {self.last:,.1f} ({moved:+.1f} %){verdict}"


def drifts(samples: Sequence[Mapping[str, float]], bounds: Mapping[str, Bound], warm_share: float = 0.1) -> list[Drift]:
    """Compare the last third with the first, after a warm-up.

    Args:
        samples: taken at even times, oldest first.
        bounds: of each quantity that is judged.
        warm_share: of the samples, left out at the beginning.

    Raises:
        ValueError: fewer than three samples are left after the warm-up.
    """
    warm = samples[int(warm_share * len(samples)) :]
    third = len(warm) // 3
    if third == 0:
        raise ValueError(f"{len(warm)} samples after the warm-up are too few")
    return [
        Drift(
            name,
            statistics.median(sample[name] for sample in warm[:third]),
            statistics.median(sample[name] for sample in warm[-third:]),
            bound,
        )
        for name, bound in bounds.items()
    ]
