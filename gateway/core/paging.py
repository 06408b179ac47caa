"""Pages of long lists, and their size as a query gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.errors import InvalidRequest

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Page(Generic[_Item]):
    """Some of a list, in its order. `more` says whether others come after them."""

    items: Sequence[_Item]
    more: bool


def limit_of(text: str | None, usual: int, most: int, name: str = "limit") -> int:
    """Read a `limit`, or another whole number.

    Args:
        text: as it stands in the query; None where it is not there.
        usual: what counts then.
        most: the largest that is allowed.
        name: of the field, for the error.

    Raises:
        InvalidRequest: it is no whole number from 1 to `most`.
    """
    if text is None:
        return usual
    # the length first: Python refuses to read thousands of digits, and leading zeros make any number long
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= most):
        raise InvalidRequest(f"{name} must be a whole number from 1 to {most}", param=name)
    return int(text)
