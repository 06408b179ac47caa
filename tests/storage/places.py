"""Where a database of the tests is: a file, or an address on a server."""

from __future__ import annotations

from pathlib import Path

from gateway.secret import Secret

Place = Path | Secret


def told(place: Place) -> str:
    """The place as an argument of another process, which reads it with `place_of`."""
    return str(place) if isinstance(place, Path) else place.reveal()


def place_of(argument: str) -> Place:
    return Secret(argument) if "://" in argument else Path(argument)
