"""What waits in a spool's folder, seen from outside: for readiness, metrics, `gateway spool` and `gateway doctor`."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from gateway.tracing import locks
from gateway.tracing.delivery import Piece
from gateway.tracing.frames import Frame, scan
from gateway.tracing.keeping import read_state
from gateway.tracing.room import used_bytes
from gateway.tracing.segments import acked_bytes, named, opened

JSON = dict[str, Any]

#: The spool that holds what calls cost; all others hold traces.
LEDGER = "ledger"

#: From here on readiness says that traces are at risk.
NEARLY_FULL = 0.8
#: A delivery that fails for so long is no hiccup.
_TROUBLE_S = 10.0

_LOOK_BYTES = 1 << 20
_SAMPLE_BYTES = 256 << 10
_MOST_PLACES = 8


@dataclass(frozen=True)
class Backlog:
    """The state of one folder.

    Attributes:
        sink: the name of the place that the rows go to.
        waiting_bytes: of frames that are not delivered yet.
        used_bytes: of all files, which `cap_bytes` bounds.
        oldest_s: how old the oldest row is that waits; 0 where none does.
        sender: what the sender said last (keeping.State).
        listed: whether the folder let itself be listed; where not, the numbers are 0.
    """

    sink: str
    folder: Path
    cap_bytes: int
    waiting_bytes: int = 0
    used_bytes: int = 0
    oldest_s: float = 0.0
    sender: JSON = field(default_factory=dict)
    listed: bool = True

    @property
    def trouble(self) -> str | None:
        """Why rows are not safe or not delivered, in words that a stranger may read; None where all is well."""
        rows = "rows of the ledger" if self.sink == LEDGER else "traces"
        if not (self.listed and self.folder.is_dir()):
            return f"{rows} cannot be kept"
        if self.used_bytes > NEARLY_FULL * self.cap_bytes:
            return f"the spool is {100 * self.used_bytes // self.cap_bytes} % full"
        since_s = self.sender.get("since_s")
        if self.sender.get("trouble") and isinstance(since_s, float) and time.time() - since_s > _TROUBLE_S:
            return f"{rows} are not delivered for {time.time() - since_s:.0f} s"
        return None


def look(sink: str, folder: Path, cap_bytes: int) -> Backlog:
    """Look at a folder. Touches nothing, and reads no row but the oldest of each process.

    Raises:
        OSError: it cannot be listed.
    """
    waiting, oldest_s = 0, 0.0
    looked_at: set[str] = set()
    for token, _number, path in named(folder):
        with suppress(FileNotFoundError):
            size = path.lstat().st_size
            if size > (acked := acked_bytes(path, size)):
                waiting += size - acked
                if token not in looked_at:  # what a writer wrote later is younger
                    looked_at.add(token)
                    oldest_s = max(oldest_s, _age_s(path, acked))
    return Backlog(sink, folder, cap_bytes, waiting, used_bytes(folder), oldest_s, read_state(folder))


def waiting(folder: Path) -> Iterator[tuple[Path, Frame | int]]:
    """Give each frame that is not delivered yet, and for a damaged one a number, with the segment that it is in."""
    for _token, _number, path in named(folder):
        with suppress(FileNotFoundError), opened(path) as segment:
            offset = acked_bytes(path, path.lstat().st_size)
            segment.seek(offset)
            rest = b""
            while chunk := segment.read(_LOOK_BYTES):
                rest += chunk
                cut = rest.rfind(b"\n") + 1
                for found in scan(rest[:cut], offset):
                    yield path, found
                offset, rest = offset + cut, rest[cut:]


def some_waiting(folder: Path, chance: random.Random) -> list[Piece]:
    """Return rows that wait, from a place that is picked by chance; none where that place has no whole row.

    Chance, so that whoever fills the spool with rows of one kind does not choose which are found.
    """
    places = [path for _token, _number, path in named(folder)]
    for path in chance.sample(places, min(len(places), _MOST_PLACES)):
        with suppress(OSError), opened(path) as segment:
            size = segment.seek(0, os.SEEK_END)
            acked, least = acked_bytes(path, size), max(0, size - _SAMPLE_BYTES)
            at = acked if least <= acked else chance.randint(acked, least)
            segment.seek(at)
            buffer = segment.read(_SAMPLE_BYTES)
            start = 0 if at == acked else buffer.find(b"\n") + 1
            frames = scan(buffer[start : buffer.rfind(b"\n") + 1], at + start)
            if found := [Piece(one.id, one.row, one.to, one.request) for one in frames if _is_row(one)]:
                return found
    return []


def _is_row(found: Frame | int) -> TypeGuard[Frame]:
    return isinstance(found, Frame) and found.kind == "id"


@dataclass
class Calls:
    """What the segments of some folders say of calls, by the request's id.

    Attributes:
        roots: those whose root is there, delivered or not.
        open: those that are under way in a living process.
        interrupted: those whose process died; the sender will say so.
        dropped: those whose rows had no room, by a note that they left.
        damaged: frames that cannot be read, each with its place.
    """

    roots: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    interrupted: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)


def read_calls(folders: Iterable[Path]) -> Calls:
    """Read every segment of these folders, also what is delivered of it."""
    found = Calls()
    for folder in folders:
        writers: dict[str, list[Path]] = {}
        for token, _number, path in named(folder):
            writers.setdefault(token, []).append(path)
        for token, paths in writers.items():
            lives = locks.is_taken(folder / f"{token}.live")  # asked first: of a dead writer all is there
            begun: dict[str, str] = {}
            for path in paths:
                _read_segment(path, begun, found)
            (found.open if lives else found.interrupted).update(begun.values())
    return found


def _read_segment(path: Path, begun: dict[str, str], found: Calls) -> None:
    try:
        with opened(path) as segment:
            raw = segment.read()
    except FileNotFoundError:
        return  # delivered meanwhile
    for one in scan(raw[: raw.rfind(b"\n") + 1], 0):
        if isinstance(one, int):
            if one > 0:
                found.damaged.append(f"{path.parent.name}/{path.name} before byte {one}")
        elif one.kind == "begin":
            begun[one.id] = one.request or one.id
        elif one.kind == "void":
            found.dropped.add(begun.pop(one.id, one.id))
        else:
            begun.pop(one.id, None)
            if one.request is not None:
                found.roots.add(one.request)


def _age_s(path: Path, acked: int) -> float:
    """The age of the first row behind `acked`: since its call ended, or began where that is open.

    The row is read as JSON, since a caller's words in it may look like its times. Of one that is too long for that, or
    cannot be read, the age is that of the last change to its segment, at least.
    """
    since_s, buffer = path.lstat().st_mtime, b""
    with suppress(OSError), opened(path) as segment:  # it waits all the same; the sender says that it cannot be read
        segment.seek(acked)
        buffer = segment.read(_SAMPLE_BYTES)
    for one in scan(buffer[: buffer.rfind(b"\n") + 1], acked):
        try:
            metrics = json.loads(one.row)["metrics"] if isinstance(one, Frame) and one.row else {}
            since_s = float(metrics.get("end", metrics.get("start", since_s)))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
            continue
        if metrics:
            break
    return max(0.0, time.time() - since_s)
