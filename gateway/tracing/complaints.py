"""Errors that come a thousand times a second are a line a minute."""

from __future__ import annotations

import logging
import time

_EACH_S = 60.0


class Complaints:
    """Logs an error at most once a minute, whichever of its kind it is.

    Args:
        log: where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said_s = -_EACH_S

    def say(self, message: str, *about: object) -> None:
        """Log an error, unless one was logged less than a minute ago."""
        now_s = time.monotonic()
        if now_s - self._said_s >= _EACH_S:
            self._said_s = now_s
            self._log.error(message, *about)

    def over(self) -> None:
        """What was complained of is mended: the next one is said at once."""
        self._said_s = -_EACH_S
