"""Transactions in a driver's own words, for what every call does.

SQLAlchemy takes longer to make a statement than SQLite takes to run it, and waits for a server after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

Row = tuple[Any, ...]


class Asked(NamedTuple):
    """A statement and its values. `?` stands for a value, and `()` for a list of them, given as a tuple."""

    statement: str
    values: Row

    def written(self, mark: str) -> tuple[str, Row]:
        """The statement with a driver's mark for a value (PEP 249, "paramstyle"), and its values without lists."""
        lists = tuple(len(value) for value in self.values if isinstance(value, tuple))
        flat = tuple(one for value in self.values for one in (value if isinstance(value, tuple) else (value,)))
        return _marked(mark, self.statement, lists), flat


class Driven(Protocol):
    """A transaction that is open."""

    def ask(self, *asked: Asked) -> Sequence[Sequence[Row]]:
        """Return the rows of each; a server is waited for once, for all that was told before and for these."""

    def tell(self, statement: str, rows: Sequence[Row]) -> None:
        """Run a statement for each of some rows, now or with what is asked next, at the latest when all is kept."""


@lru_cache(maxsize=1024)
def _marked(mark: str, statement: str, lists: tuple[int, ...]) -> str:
    for length in lists:
        statement = statement.replace("()", f"({', '.join('?' * length)})", 1)
    return statement if mark == "?" else statement.replace("?", mark)
