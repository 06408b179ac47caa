"""Which known name a misspelt one is nearest to."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 2


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is at most two letters away, or None."""
    near = (other for other in known if abs(len(other) - len(name)) <= _MOST)
    distance, found = min(((_distance(name, other), other) for other in near), default=(_MOST + 1, ""))
    return found if distance <= _MOST else None


def _distance(one: str, other: str) -> int:
    """Levenshtein's: how many letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, its in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != its))
    return row[-1]
