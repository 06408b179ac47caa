"""Delivers what is in a spool's folder: one sender at a time for each folder, in whichever process has its lock.

It reads the segments of living processes as they grow, and of dead ones to their end. What it cannot deliver it keeps
and tries again, for ever; rows that are refused for good are put aside and hold nothing up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.offload import give_way
from gateway.tracing import locks
from gateway.tracing.backlog import some_waiting
from gateway.tracing.closing import interrupted, without_rows
from gateway.tracing.complaints import Complaints
from gateway.tracing.delivery import Counts, Destination, Piece, Tended, Unavailable
from gateway.tracing.dispatch import Dispatcher, Ending, GivenUp
from gateway.tracing.frames import Frame
from gateway.tracing.keeping import Quarantine, Receipts, State
from gateway.tracing.room import is_at
from gateway.tracing.segments import Segment, Unreadable, Writer, named, tidy

log = logging.getLogger(__name__)

POLL_S = 0.1
#: How long it rests where it has just delivered some: a turn and a POST cost as much as the rows of forty calls, so
#: what comes meanwhile goes in one.
_GATHER_S = 0.5
#: How often a process that is not the sender tries to become it.
_LOCK_POLL_S = 0.25
#: A call that is open for so long is shown as such.
LATE_S = 5.0
#: Read of one writer before the others have their turn: some 4 MB.
_MOST_CHUNKS = 16
#: With less than this in a turn the sender rests; with more it would fall behind.
_BUSY_BYTES = 2 << 20


@dataclass
class _Begun:
    """A call whose end has not been read yet."""

    token: str
    piece: Piece
    seen_s: float
    told: bool = False


class Sender:
    """Delivers a folder (spool.Mail).

    Args:
        folder: of a spool.
        destination: where the rows go.
        counts: of this sink.
        name: of the destination, for the log.
        cap_bytes: what the folder may have; bounds what is put aside.
        late_s: how old a call is that is shown as open.
        poll_s: how often it looks for what is new.
    """

    def __init__(
        self,
        folder: Path,
        destination: Destination,
        *,
        name: str,
        cap_bytes: int,
        counts: Counts | None = None,
        late_s: float = LATE_S,
        poll_s: float = POLL_S,
    ) -> None:
        self._folder = folder
        self._destination = destination
        self._counts = counts or Counts()
        self._late_s = late_s
        self._poll_s = poll_s
        self._state = State(folder)
        self._ending = Ending()
        self._dispatcher = Dispatcher(
            destination,
            name=name,
            state=self._state,
            quarantine=Quarantine(folder, cap_bytes),
            receipts=Receipts(folder, cap_bytes),
            counts=self._counts,
            ending=self._ending,
            others=partial(some_waiting, folder),
        )
        self._writers: dict[str, Writer] = {}
        self._begun: dict[str, _Begun] = {}
        self._lock: int | None = None
        self._lock_fault: str | None = None
        self._turn_bytes = 0
        self._delivered = False
        self._complaints = Complaints(log)
        self._thread = threading.Thread(target=self._run, name="spool-sender", daemon=True)
        self._last_token: str | None = None

    def start(self) -> None:
        """Begin to deliver, in a thread."""
        self._thread.start()

    def finish(self, token: str | None, timeout_s: float, *, insist: bool = False) -> int:
        """Deliver what is left of a writer that has ended, and stop.

        Args:
            token: the writer's; None where there was none.
            timeout_s: for all of it.
            insist: try again after a failure; else the first one ends it, since the rows are safe on the disk.

        Returns:
            How many bytes of that writer's stay.
        """
        self._last_token = token
        self._ending.say(timeout_s, insist=insist)
        if self._thread.ident is not None:
            self._thread.join(timeout_s + 0.2)
        left_bytes = 0
        for of, _number, path in named(self._folder):
            if of == token:
                with suppress(FileNotFoundError):  # whoever has the lock has just delivered it
                    left_bytes += path.stat().st_size
        return left_bytes

    def drain(self, timeout_s: float) -> bool:
        """Deliver, in this thread, all that is there and has an end. For `gateway spool drain`.

        Returns:
            Whether it is the sender: not so where a gateway that runs is.

        Raises:
            Unavailable: not in that time.
        """
        self._ending.say(timeout_s, insist=True)
        try:
            if not self._is_sender():
                if self._lock_fault is not None:
                    raise Unavailable(self._lock_fault)
                return False
            while self._turn():
                pass
        except GivenUp as end:
            raise Unavailable(self._state.trouble or "not in that time") from end
        finally:
            self._leave()
        return True

    # The thread.

    def _run(self) -> None:
        try:
            while not self._ending.is_said():
                self._ending.wait(self._step())
            while self._step_towards_the_end():
                time.sleep(0.02)
        except GivenUp:
            pass
        finally:
            self._leave()

    def _step(self) -> float:
        """Do what there is to do; returns the seconds to rest."""
        try:
            if not self._is_sender():
                return _LOCK_POLL_S
            self._turn_bytes, self._delivered = 0, False
            self._turn()
            if isinstance(self._destination, Tended) and not self._ending.is_said():
                self._destination.tend()
            if self._turn_bytes >= _BUSY_BYTES:
                return 0.0
            return max(self._poll_s, _GATHER_S) if self._delivered else self._poll_s
        except GivenUp:
            raise
        except Exception:
            log.exception("delivering traces failed; it starts again")
            self._forget()
            return 1.0

    def _step_towards_the_end(self) -> bool:
        """Deliver on; False where nothing of this process is left, or the time is over."""
        self._step()
        left = any(token == self._last_token for token, _number, _path in named(self._folder))
        return left and not self._ending.is_over()

    def _is_sender(self) -> bool:
        """Hold the folder's lock, or take it where it is free."""
        path = self._folder / "sender.lock"
        if self._lock is not None:
            if is_at(self._lock, path):
                return True
            os.close(self._lock)  # the folder was deleted or moved, and another one may have a sender already
            self._lock = None
            self._forget()
        try:
            self._lock, self._lock_fault = locks.take(path), None
        except OSError as error:
            if self._folder.exists():  # else it is not made yet
                self._lock_fault = f"{path}: {error.strerror or error}"
                self._complaints.say("traces are not delivered: %s", self._lock_fault)
        if self._lock is None:
            return False
        self._state.load()
        tidy(self._folder)
        return True

    def _leave(self) -> None:
        self._forget()
        if self._lock is not None:
            self._state.save()
            os.close(self._lock)
            self._lock = None
        self._destination.close()

    def _forget(self) -> None:
        """Let go of all that was read; the acknowledgements on the disk say where to go on."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._begun.clear()

    # Reading.

    def _turn(self) -> bool:
        """Read what is new, and deliver it. True where there was something."""
        moved = False
        self._look()
        for writer in list(self._writers.values()):
            try:
                moved |= self._read(writer)
            except Unreadable as error:  # it stays for whoever can mend that; the others' rows are not held up
                self._complaints.say("traces that wait cannot be read: %s", error)
            finally:
                writer.close()
        self._state.tick()
        return moved

    def _look(self) -> None:
        for token, number, path in named(self._folder):
            writer = self._writers.get(token)
            if writer is not None and number in writer.segments:
                continue
            try:
                segment = Segment(path)
            except FileNotFoundError:
                continue  # somebody tidied up
            if writer is None:
                writer = self._writers[token] = Writer(self._folder, token)
            writer.segments[number] = segment

    def _read(self, writer: Writer) -> bool:
        if dead := writer.is_dead():
            self._look()  # asked first: now all is there that it wrote
        chunks = 0
        for number in sorted(writer.segments):
            segment = writer.segments[number]
            before_bytes = segment.read_bytes
            while (found := segment.next()) is not None:
                chunks += 1
                self._turn_bytes += segment.read_bytes - before_bytes
                before_bytes = segment.read_bytes
                self._take(writer, segment, found)
                if chunks >= _MOST_CHUNKS:
                    return True
                give_way()
            if dead and segment.skip_torn():
                self._damaged(1)
                self._ack(segment)
        moved = chunks > 0
        if dead:
            self._bury(writer)
        else:
            moved |= self._tell_late(writer)
            for number in sorted(writer.segments)[:-1]:  # the last one is being written
                writer.segments.pop(number).remove()
        return moved

    def _take(self, writer: Writer, segment: Segment, found: Sequence[Frame | int]) -> None:
        pieces: list[Piece] = []
        damaged = lost_rows = 0
        for one in found:
            if isinstance(one, int):
                damaged += one > segment.acked_bytes
            elif one.kind == "begin":
                self._began(writer, one)
            else:
                begun = self._begun.pop(one.id, None)
                if one.end_bytes <= segment.acked_bytes:
                    continue
                if one.kind == "id":
                    pieces.append(Piece(one.id, one.row, one.to, one.request))
                    continue
                facts = one.facts or {}
                lost_rows += facts["rows"] if isinstance(facts.get("rows"), int) else 0
                if begun is not None:
                    pieces.append(without_rows(begun.piece, facts))
        self._dispatcher.deliver(pieces)
        self._delivered |= bool(pieces)
        # not before: if delivering is given up, all of this is read again
        self._state.dropped += lost_rows  # the metrics have them from the process that dropped them
        if damaged:
            self._damaged(damaged)
        self._ack(segment)

    def _began(self, writer: Writer, frame: Frame) -> None:
        before = self._begun.get(frame.id)  # begun again, in a new segment
        self._begun[frame.id] = _Begun(
            writer.token,
            Piece(frame.id, frame.row, frame.to, frame.request),
            before.seen_s if before else time.monotonic(),
            told=before is not None and before.told,
        )

    def _tell_late(self, writer: Writer) -> bool:
        now_s = time.monotonic()
        late = [
            begun
            for begun in self._begun.values()
            if begun.token == writer.token and not begun.told and now_s - begun.seen_s > self._late_s
        ]
        self._dispatcher.deliver([begun.piece._replace(request=None) for begun in late])
        for begun in late:
            begun.told = True
        return bool(late)

    def _bury(self, writer: Writer) -> None:
        """All of a dead writer is read: what it had begun and not ended was interrupted."""
        cut_off = [begun.piece for begun in self._begun.values() if begun.token == writer.token]
        if cut_off:
            ended_s = max((segment.changed_s for segment in writer.segments.values()), default=0.0) or time.time()
            self._dispatcher.deliver([interrupted(piece, ended_s) for piece in cut_off])
            self._counts.interrupted(len(cut_off))
            self._state.interrupted += len(cut_off)
            for piece in cut_off:
                del self._begun[piece.id]
        writer.remove()
        del self._writers[writer.token]

    def _damaged(self, frames: int) -> None:
        log.error("%d damaged frames in %s were skipped", frames, self._folder)
        self._counts.damaged(frames)
        self._state.damaged += frames

    def _ack(self, segment: Segment) -> None:
        try:
            segment.ack()
        except OSError as error:  # a full disk: the rows are sent again after a restart, which changes nothing
            self._complaints.say("how far traces are delivered cannot be written down: %s", error.strerror or error)
