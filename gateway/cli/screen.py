"""What may get out to a terminal, and how. Much of what the commands print was written by strangers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime

_INTERRUPTED = 130
_PIPE_CLOSED = 141


def visible(text: str, keep: str = "") -> str:
    r"""Write what a terminal would obey, or not show, as `\x1b` and the like; `keep` lists what may stay."""
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape", "replace").decode()
        for sign in text
    )


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, each column as wide as its widest cell."""
    cells = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def when(at_s: float | None) -> str:
    """Write a time in the local zone, to the minute; `-` where there is none."""
    return "-" if at_s is None else datetime.fromtimestamp(at_s).astimezone().strftime("%Y-%m-%d %H:%M")


def printing(command: Callable[[], int]) -> int:
    """Run what prints, and return its exit status, or a shell's own where it was interrupted or nobody reads on."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may know ASCII only
    # an interrupt while a connection is closed is no fault of the pool's, which would say so with a traceback
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    try:
        status = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at its exit
        return _PIPE_CLOSED
    return status
