"""Delivers what is in a spool's folder: one sender at a time for each folder, in whichever process has its lock.

It reads the segments of living processes as they grow, and of dead ones to their end. What it cannot deliver it keeps
and tries again, for ever; rows that are refused for good are put aside and hold nothing up.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.offload import offload
from gateway.tracing.backlog import some_waiting
from gateway.tracing.closing import interrupted, is_open, without_rows
from gateway.tracing.delivery import Counts, Destination, Piece, Rejected, TooLarge, Unavailable
from gateway.tracing.frames import Frame, cut
from gateway.tracing.keeping import Quarantine, Receipts, State
from gateway.tracing.room import is_at
from gateway.tracing.segments import Segment, Unreadable, Writer, named, tidy

JSON = dict[str, Any]

log = logging.getLogger(__name__)

_POLL_S = 0.1
#: How often a process that is not the sender tries to become it.
_LOCK_POLL_S = 0.25
#: A call that is open for so long is shown as such.
LATE_S = 5.0
_MOST_ROWS = 1000
#: Read of one writer before the others have their turn: some 4 MB.
_MOST_CHUNKS = 16
#: With less than this in a turn the sender rests, so that what comes meanwhile goes in the same POST.
_BUSY_BYTES = 256 << 10
#: What the destination may add to each row.
_AROUND_BYTES = 300

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0
#: Where the destination says that the gateway may not, waiting helps less.
_LONGEST_REFUSED_S = 30.0
_LONGEST_ASKED_S = 300.0
_COMPLAIN_S = 60.0
#: How often a row alone must fail while others are taken, so that a flaky destination is not taken for a bad row.
_MOST_PROOFS = 4
#: Faults of a destination's own code for the same rows; then the rows are at fault.
_MOST_FAULTS = 3


_CHANCE = random.Random()  # noqa: S311  # no secret hangs on it


class _GivenUp(Exception):
    """The process ends, and there is no more time to deliver."""


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
    ) -> None:
        self._folder = folder
        self._destination = destination
        self._counts = counts or Counts()
        self._name = name
        self._late_s = late_s
        self._state = State(folder)
        self._quarantine = Quarantine(folder, cap_bytes)
        self._receipts = Receipts(folder, cap_bytes)
        self._writers: dict[str, Writer] = {}
        self._begun: dict[str, _Begun] = {}
        self._lock: int | None = None
        self._lock_fault: str | None = None
        self._turn_bytes = 0
        self._complained_s = -_COMPLAIN_S
        self._thread = threading.Thread(target=self._run, name="spool-sender", daemon=True)
        self._finishing = threading.Event()
        self._last_token: str | None = None
        self._end_s = 0.0
        self._insist = False

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
        self._last_token, self._insist = token, insist
        self._end_s = time.monotonic() + timeout_s
        self._finishing.set()
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
        self._end_s, self._insist = time.monotonic() + timeout_s, True
        self._finishing.set()
        try:
            if not self._is_sender():
                if self._lock_fault is not None:
                    raise Unavailable(self._lock_fault)
                return False
            while self._turn():
                pass
        except _GivenUp as end:
            raise Unavailable(self._state.trouble or "not in that time") from end
        finally:
            self._leave()
        return True

    # The thread.

    def _run(self) -> None:
        try:
            while not self._finishing.is_set():
                self._finishing.wait(self._step())
            while self._step_towards_the_end():
                time.sleep(0.02)
        except _GivenUp:
            pass
        finally:
            self._leave()

    def _step(self) -> float:
        """Do what there is to do; returns the seconds to rest."""
        try:
            if not self._is_sender():
                return _LOCK_POLL_S
            self._turn_bytes = 0
            self._turn()
            return 0.0 if self._turn_bytes >= _BUSY_BYTES else _POLL_S
        except _GivenUp:
            raise
        except Exception:
            log.exception("delivering traces failed; it starts again")
            self._forget()
            return 1.0

    def _step_towards_the_end(self) -> bool:
        """Deliver on; False where nothing of this process is left, or the time is over."""
        self._step()
        left = any(token == self._last_token for token, _number, _path in named(self._folder))
        return left and time.monotonic() < self._end_s

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
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if not self._folder.exists():
                return False  # not yet
            self._lock_fault = f"{path}: {error.strerror or error}"
            self._complain("traces are not delivered: %s", self._lock_fault)
            return False
        self._lock_fault = None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
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
                self._complain("traces that wait cannot be read: %s", error)
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
                time.sleep(0)  # the others' turn
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
        damaged = 0
        for one in found:
            if isinstance(one, int):
                damaged += one > segment.acked_bytes
            elif one.kind == "begin":
                self._began(writer, one)
            else:
                begun = self._begun.pop(one.id, None)
                if one.end <= segment.acked_bytes:
                    continue
                if one.kind == "id":
                    pieces.append(Piece(one.id, one.row, one.to, one.request))
                elif begun is not None:
                    pieces.append(without_rows(begun.piece, one.facts or {}))
        self._deliver(pieces)
        if damaged:
            self._damaged(damaged)  # not before: if delivering is given up, all of this is read again
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
        self._deliver([replace(begun.piece, request=None) for begun in late])
        for begun in late:
            begun.told = True
        return bool(late)

    def _bury(self, writer: Writer) -> None:
        """All of a dead writer is read: what it had begun and not ended was interrupted."""
        cut_off = [begun.piece for begun in self._begun.values() if begun.token == writer.token]
        if cut_off:
            ended_s = max((segment.changed_s for segment in writer.segments.values()), default=0.0) or time.time()
            self._deliver([interrupted(piece, ended_s) for piece in cut_off])
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
            self._complain("how far traces are delivered cannot be written down: %s", error.strerror or error)

    # Delivering.

    def _deliver(self, pieces: Sequence[Piece]) -> None:
        for batch in self._batches(pieces):
            self._send(batch)

    def _batches(self, pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
        """Split pieces so that a destination takes them: not too large, one place, no id twice."""
        batch: list[Piece] = []
        ids: set[str] = set()
        size = 0
        most = self._destination.limit_bytes
        for piece in pieces:
            grown = size + len(piece.row) + _AROUND_BYTES
            if batch and (grown > most or len(batch) >= _MOST_ROWS or piece.id in ids or piece.to != batch[0].to):
                yield batch
                batch, ids, grown = [], set(), len(piece.row) + _AROUND_BYTES
            batch.append(piece)
            ids.add(piece.id)
            size = grown
        if batch:
            yield batch

    def _send(self, batch: Sequence[Piece], *, suspected: bool = False) -> None:
        """Deliver a batch, or put it aside; returns when either is done.

        A row may make the destination fail for ever (its own fault, a firewall that dislikes a prompt). Where other
        rows are taken meanwhile, the batch is split until that row is alone.
        """
        failures = faults = proofs = 0
        while True:
            try:
                self._destination.deliver(batch)
            except Unavailable as error:
                # one that asks to wait is not to be asked twice
                ask = error.retry_after_s is None and (suspected or failures > 0)
                proofs = proofs + 1 if ask and self._takes_others(batch) else 0
                if proofs >= (_MOST_PROOFS if len(batch) == 1 else 1):
                    return self._send_without_the_bad(batch, f"{error} (others are taken)", suspected=True)
                self._wait(error, 0 if proofs else failures)
                failures += 1
                continue
            except TooLarge:
                return self._send_smaller(batch)
            except Rejected as error:
                return self._send_without_the_bad(batch, str(error))
            except Exception as error:
                faults += 1
                log.exception("handing traces to %s failed", self._name)
                if faults >= _MOST_FAULTS:
                    return self._send_without_the_bad(batch, f"a fault of the gateway: {type(error).__name__}")
                self._rest(1.0)
                continue
            self._sent(len(batch))
            # here, and not for what was put aside or dropped: a receipt says that the destination has it
            self._receipts.add([piece.request for piece in batch if piece.request is not None])
            return None

    def _send_smaller(self, batch: Sequence[Piece]) -> None:
        if len(batch) > 1:
            self._send(batch[: len(batch) // 2])
            self._send(batch[len(batch) // 2 :])
            return
        [piece] = batch
        limit = min(self._destination.limit_bytes, len(piece.row)) * 3 // 4 - _AROUND_BYTES
        shorter = offload(cut, piece.row, limit) if limit > 0 else piece.row
        if len(shorter) >= len(piece.row):
            self._put_aside(piece, "too large, and cannot be cut")
            return
        log.warning("a trace row of %d bytes is too large for %s and was cut", len(piece.row), self._name)
        self._send([replace(piece, row=shorter)])

    def _send_without_the_bad(self, batch: Sequence[Piece], why: str, *, suspected: bool = False) -> None:
        if len(batch) == 1:
            self._put_aside(batch[0], why)
            return
        self._send(batch[: len(batch) // 2], suspected=suspected)
        self._send(batch[len(batch) // 2 :], suspected=suspected)

    def _takes_others(self, batch: Sequence[Piece]) -> bool:
        """Whether the destination takes a row now that is not of this batch, or is but one of it.

        That row is delivered again in its turn, which changes nothing. Where there is none, nothing is held up.
        """
        ids = {piece.id for piece in batch}
        others = [piece for piece in some_waiting(self._folder, _CHANCE) if piece.id not in ids]
        others = [piece for piece in others if piece.to != batch[0].to] or others
        others = others or (list(batch) if len(batch) > 1 else [])
        # no root before what is under it
        others = [piece for piece in others if piece.request is None] or others
        if not others:
            return False
        try:
            self._destination.deliver([_CHANCE.choice(others)])
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing is proved
            log.debug("another row is not taken either: %s", error)
            return False
        return True

    def _put_aside(self, piece: Piece, why: str) -> None:
        if is_open(piece):  # its end is still to come; put back after that, this row would take its place
            log.error("%s does not take the row of a call that is open: %s", self._name, why)
            return
        log.error("%s does not take a row, which is put aside (gateway spool quarantine): %s", self._name, why)
        try:
            kept = offload(self._quarantine.add, piece, why)
        except OSError as error:
            log.error("nor can it be put aside: %s", error.strerror or error)
            kept = False
        if kept:
            self._state.quarantined += 1
            self._counts.quarantined(1)
        else:
            self._state.dropped += 1
            self._counts.dropped(1)

    def _sent(self, rows: int) -> None:
        if (trouble := self._state.trouble) is not None:
            log.info("%s takes traces again (before: %s)", self._name, trouble)
            self._complained_s = -_COMPLAIN_S
        self._state.sent_some(rows)
        self._counts.sent(rows)

    def _wait(self, error: Unavailable, failures: int) -> None:
        self._state.failed(str(error), refused=error.refused)
        level = "an operator has to act: " if error.refused else ""
        self._complain("%s takes no traces; they are kept and tried again: %s%s", self._name, level, error)
        longest = _LONGEST_REFUSED_S if error.refused else _LONGEST_WAIT_S
        wait_s = min(longest, _FIRST_WAIT_S * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._rest(max(wait_s, min(error.retry_after_s or 0.0, _LONGEST_ASKED_S)))

    def _rest(self, seconds: float) -> None:
        """Wait, unless the process ends meanwhile."""
        if self._finishing.wait(seconds):
            left_s = self._end_s - time.monotonic()
            if not self._insist or left_s <= 0:
                raise _GivenUp
            time.sleep(min(seconds, left_s, 1.0))

    def _complain(self, message: str, *about: object) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= _COMPLAIN_S:
            self._complained_s = now_s
            log.error(message, *about)
