"""Where a database of the tests is: a file, or an address on a server."""

from __future__ import annotations

import threading
from pathlib import Path

from gateway.secret import Secret

Place = Path | Secret


def told(place: Place) -> str:
    """The place as an argument of another process, which reads it with `place_of`."""
    return str(place) if isinstance(place, Path) else place.reveal()


def place_of(argument: str) -> Place:
    return Secret(argument) if "://" in argument else Path(argument)


def wait_until_tidy() -> None:
    """Wait for the threads that delete what is old; a database that is released under them leaves a connection."""
    for thread in threading.enumerate():
        if thread.name == "storage-tidy":
            thread.join(10)
            assert not thread.is_alive()
