"""One call to a provider for all who ask the same meanwhile, within a worker."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

from gateway.cache.content import Answer
from gateway.core.calls import CALLER_GONE, Attempt, Call, Cancellation, Chunk
from gateway.errors import CallerGone, GatewayError, InternalError
from gateway.upstream.failures import raise_if_stopped

#: How long who waits for a whole answer sleeps at most; what it waits for wakes it.
_LONGEST_SLEEP_S = 30.0


class Tries(Protocol):
    """The attempts of one call (`attempts.Attempts`)."""

    tried: list[Attempt]

    def whole(self) -> bytes:
        """Answer a call that is not streamed."""

    def chunks(self) -> Generator[Chunk | None]:
        """Answer a streamed call."""

    def close(self) -> None:
        """Free what the last answer holds."""


class Flight:
    """A call under way, and those who wait for its answer.

    Whoever needs the next chunk reads it from the provider, for all: so a caller that reads slowly, or leaves, holds up
    nobody. The call is stopped when the last of them has left.

    Args:
        over: called once when it has ended.
        most_bytes: of a stream that others may still join; beyond it nobody may.
        fingerprint: of the request, where its name alone is its key.

    Attributes:
        cancellation: stops the call for all.
        answer: the whole of it, once it has ended well and may be kept.
        over: it has ended; whoever it did not give an answer has to ask for itself.
        error: why it failed, where it did.
        unasked: it ended before it asked anybody, so that those who waited begin anew.
        tries: its attempts, once it has begun.
        age_s: of the answer, where that was kept before.
    """

    def __init__(self, over: Callable[[Flight], None], most_bytes: int, fingerprint: str = "") -> None:
        self.fingerprint = fingerprint
        self.cancellation = Cancellation()
        self.answer: Answer | None = None
        self.over = False
        self.unasked = False
        self.tries: Tries | None = None
        self.age_s = 0.0
        self._on_over = over
        self._most_bytes = most_bytes
        #: Guards what follows it; told of every change.
        self._changed = threading.Condition()
        self._parties: set[object] = set()
        self._closed = False
        self._source: Generator[Chunk | None] | None = None
        self._finish: Callable[[list[Chunk]], Answer | None] = lambda _chunks: None
        self._busy = True  # until the leader has begun
        self._chunks: list[Chunk] = []
        self._dropped = 0
        self._size_bytes = 0
        self.error: GatewayError | None = None
        self._closers: list[Callable[[], object]] = []

    def join(self, party: object) -> bool:
        """Wait for it too. False: it is too late."""
        with self._changed:
            if self._closed or self.over:
                return False
            self._parties.add(party)
            return True

    def begin(self, source: Generator[Chunk | None], finish: Callable[[list[Chunk]], Answer | None]) -> None:
        """Give it the stream that all read.

        Args:
            source: closed here.
            finish: makes the answer of all chunks, and raises nothing; not called where the stream failed or is
                too large.
        """
        with self._changed:
            if self.over:
                source.close()
                return
            self._source, self._finish, self._busy = source, finish, False
            self._changed.notify_all()

    def end(self, answer: Answer | None = None, error: GatewayError | None = None, *, unasked: bool = False) -> None:
        """It is over; safe to call again."""
        with self._changed:
            if self.over:
                return
            self.answer, self.error, self.unasked, self.over = answer, error, unasked, True
            closers, self._closers = self._closers, []
            self._changed.notify_all()
        self._on_over(self)
        for closer in closers:
            closer()

    def when_over(self, closer: Callable[[], object]) -> None:
        """Call `closer` when it has ended; now, where it has."""
        with self._changed:
            if not self.over:
                self._closers.append(closer)
                return
        closer()

    def leave(self, party: object) -> None:
        """Wait for it no more; safe to call again. It is stopped where nobody waits."""
        with self._changed:
            self._parties.discard(party)
            if self._parties or self.over:
                return
            self._closed, idle = True, not self._busy
            self._busy = True
        self.stop(CALLER_GONE)
        if idle:
            if self._source is not None:
                self._source.close()
            self.end(error=CallerGone("Every caller has closed its connection."))

    def stop(self, reason: str) -> None:
        """Stop the call, for all."""
        self.cancellation.abort(reason)

    def wait(self, call: Call) -> Answer | None:
        """Wait for a whole answer; None where there is none to be had.

        Raises:
            GatewayError: the call that waits is stopped.
        """
        with self._woken_by(call), self._changed:
            while not self.over:
                raise_if_stopped(call.cancellation)
                self._changed.wait(_LONGEST_SLEEP_S)
        return self.answer

    def read(self, call: Call, silence_s: float) -> Generator[Chunk | None]:
        """Read the stream from its beginning; None for each `silence_s` in which nothing came.

        Raises:
            GatewayError: the provider failed, or the call that reads is stopped.
        """
        place = 0
        with self._woken_by(call):
            while True:
                chunk = self._next(place, call, silence_s)
                if isinstance(chunk, _Over):
                    break
                if chunk is not None:
                    place += 1
                yield chunk
        if not place and self.answer is not None:  # it was kept before
            yield from self.answer.chunks()

    def _next(self, place: int, call: Call, silence_s: float) -> Chunk | _Over | None:
        with self._changed:
            while True:
                if place - self._dropped < len(self._chunks):
                    return self._chunks[place - self._dropped]
                if self.over:
                    if self.error is not None:
                        raise copy.copy(self.error)  # each caller's has headers of its own
                    return _OVER
                raise_if_stopped(call.cancellation)
                if not self._busy:
                    self._busy = True
                    break
                if not self._changed.wait(silence_s):
                    return None
        return self._pull()

    def _pull(self) -> Chunk | _Over | None:
        """Read on, for all; only one does so at a time."""
        assert self._source is not None
        piece: Chunk | None = None
        error: GatewayError | None = InternalError("The gateway failed while it read the answer.")
        ended = True
        try:
            piece = next(self._source)
            ended = False
        except StopIteration:
            error = None
        except GatewayError as failed:
            error = failed
        finally:
            if ended:
                whole = error is None and not self._closed
                self.end(self._finish(self._chunks) if whole else None, error)
            with self._changed:
                self._busy = False
                if piece is not None:
                    self._take(piece)
                self._changed.notify_all()
        if ended:
            if error is not None:
                raise copy.copy(error)
            return _OVER
        return piece

    def _take(self, piece: Chunk) -> None:
        self._size_bytes += len(piece.data)
        self._closed = self._closed or self._size_bytes > self._most_bytes
        if self._closed and len(self._parties) <= 1:  # nobody reads what is behind
            self._dropped += len(self._chunks)
            self._chunks.clear()
        self._chunks.append(Chunk(piece.data, piece.content, piece.last))

    @contextmanager
    def _woken_by(self, call: Call) -> Iterator[None]:
        call.cancellation.subscribe(self._wake)
        try:
            yield
        finally:
            call.cancellation.unsubscribe(self._wake)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Flights:
    """The calls under way that others may join, by their keys.

    Args:
        most_bytes: as `Flight` has it.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}

    def join(self, digest: str, party: object, fingerprint: str, *, shared: bool = True) -> tuple[Flight, bool]:
        """Join the one that there is, or begin one.

        Args:
            digest: its key.
            party: who joins.
            fingerprint: as `Flight` has it.
            shared: others may join what is begun; else it is the party's `alone`.

        Returns:
            The flight, and whether it is the party's own to begin.
        """
        with self._lock:
            found = self._flights.get(digest)
            if found is not None and found.join(party):
                return found, False
            if not shared:
                return self.alone(party), True

            def forget(flight: Flight) -> None:
                with self._lock:
                    if self._flights.get(digest) is flight:
                        del self._flights[digest]

            made = self._flights[digest] = Flight(forget, self._most_bytes, fingerprint)
            made.join(party)
            return made, True

    def alone(self, party: object) -> Flight:
        """Begin one that nobody else joins."""
        made = Flight(lambda _flight: None, self._most_bytes)
        made.join(party)
        return made


class _Over:
    """There is no further chunk."""


_OVER = _Over()
