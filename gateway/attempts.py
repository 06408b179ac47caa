"""One call, tried at one deployment after the other until an answer has begun."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.pricing import Meter
from gateway.errors import GatewayError, InternalError, ProviderInvalid
from gateway.upstream import Answer, Upstream
from gateway.upstream.costed import Costed

log = logging.getLogger(__name__)

#: Chunks read ahead of a caller that reads slowly; then the provider waits too.
_READ_AHEAD = 32
#: What may come before the first content; more of it is no beginning of an answer.
_MOST_HELD = 1000
#: How long a closing reply waits for its reader to notice; its connection has been shut down by then.
_READER_ENDS_S = 2.0


class Attempts:
    """The attempts of one call, in order.

    Args:
        call: what to answer.
        upstreams: the way to each provider, by its name; `litellm` for the others.
        around: entered around the opening of each attempt.
        silence_s: how long a stream may be silent before that is told.
        meter: says what answers cost, so that callers are told of it in their usage; None where they are not.
    """

    def __init__(
        self,
        call: Call,
        upstreams: Mapping[str, Upstream],
        around: Callable[[Attempt], AbstractContextManager[None]],
        silence_s: float,
        meter: Meter | None = None,
    ) -> None:
        self._call = call
        self._upstreams = upstreams
        self._around = around
        self._silence_s = silence_s
        self._meter = meter
        self._answer: Answer | None = None
        self.planned: Sequence[Attempt] = ()
        self.tried: list[Attempt] = []

    def whole(self) -> bytes:
        """Answer a call that is not streamed.

        Raises:
            GatewayError: no deployment answered; of the last one that was tried.
        """
        for attempt in self.planned:
            try:
                body = self._open(attempt).body
            except GatewayError as error:
                if attempt is self.planned[-1] or not error.elsewhere:
                    raise
            else:
                attempt.ended_s = time.time()
                return body
        raise InternalError("Nothing was planned.")

    def chunks(self) -> Generator[Chunk | None]:
        """Answer a streamed call: its chunks, and None for silence.

        Until the first content another deployment may be tried: what came before it (a role, empty choices) is held.

        Raises:
            GatewayError: no deployment answered, or the one that did failed.
        """
        for attempt in self.planned:
            reading = self._read(attempt)
            try:
                for chunk in reading:
                    yield chunk
                    if chunk is not None and chunk.content:
                        break
                else:
                    return
            except GatewayError as error:
                if attempt is self.planned[-1] or not error.elsewhere:
                    raise
            else:
                yield from reading
                return

    def close(self) -> None:
        """Free the connection of the last answer; it can mean to wait for a provider's last bytes. Safe to repeat."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _open(self, attempt: Attempt) -> Answer:
        """Try one deployment."""
        self.tried.append(attempt)
        attempt.started_s = time.time()
        attempt.transcript = self._call.endpoint.transcript()
        attempt.metered = self._call.endpoint.metered
        try:
            with self._around(attempt):
                answer = self._answer = self._upstream(attempt).open(attempt, self._call)
        except GatewayError as error:
            attempt.error, attempt.ended_s = error, time.time()
            raise
        return answer if self._meter is None else Costed(answer, attempt, self._call, self._meter)

    def _upstream(self, attempt: Attempt) -> Upstream:
        return self._upstreams.get(attempt.deployment.provider) or self._upstreams["litellm"]

    def _read(self, attempt: Attempt) -> Iterator[Chunk | None]:
        self.close()  # an attempt before this one
        held: list[Chunk] = []
        try:
            chunks = self._paced(attempt)
            for chunk in chunks:
                if chunk is None:
                    yield None
                elif chunk.content:
                    attempt.first_content_s = time.time()
                    yield from held
                    yield chunk
                    break
                elif len(held) < _MOST_HELD:
                    held.append(chunk)
                else:
                    provider = attempt.deployment.provider
                    raise ProviderInvalid(f"{provider} sends a stream without content.", provider=provider)
            yield from chunks
        except GatewayError as error:
            attempt.error = error
            raise
        except Exception:
            log.exception("reading the answer of %s failed", self._call.id)
            attempt.error = InternalError("The gateway failed while it read the answer.")
            raise attempt.error from None
        finally:
            attempt.ended_s = time.time()

    def _paced(self, attempt: Attempt) -> Iterator[Chunk | None]:
        """The chunks of an attempt, and None for silence, whoever has to tell of it."""
        if self._upstream(attempt).opens_in_time(attempt, self._call):
            answer = self._open(attempt)
            if answer.tells_silence:
                yield from answer.chunks()
                return
            pieces = _Aside(answer.chunks, self._call.id)
        else:
            pieces = _Aside(lambda: self._opened(attempt), self._call.id)
        try:
            while not isinstance(piece := pieces.next(self._silence_s), _Ended):
                yield piece
        finally:
            pieces.close()
        if piece.error is not None:
            raise piece.error
        if piece.told_by is not None:
            yield from piece.told_by.chunks()

    def _opened(self, attempt: Attempt) -> Iterator[Chunk | _Ended | None]:
        """Open, and read an answer that cannot be read where it is written."""
        answer = self._open(attempt)
        if answer.tells_silence:
            yield _Ended(told_by=answer)
        else:
            yield from answer.chunks()


@dataclass(frozen=True)
class _Ended:
    """What is read aside ends: for an error, or because the rest of it is to be read here."""

    error: GatewayError | None = None
    told_by: Answer | None = None


class _Aside:
    """Reads in a thread of its own, so that the writer can say that it is still alive."""

    def __init__(self, pieces: Callable[[], Iterator[Chunk | _Ended | None]], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._queue: queue.Queue[Chunk | _Ended | None] = queue.Queue(_READ_AHEAD)
        self._closed = False
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._pump,), name=f"stream-{name}", daemon=True
        )
        self._thread.start()

    def next(self, timeout_s: float) -> Chunk | _Ended | None:
        """The next piece; None where there is none within `timeout_s`."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop reading and wait, so that the record does not change any more."""
        self._closed = True
        self._thread.join(_READER_ENDS_S)

    def _put(self, piece: Chunk | _Ended | None) -> None:
        while not self._closed:
            try:
                self._queue.put(piece, timeout=0.2)
                return
            except queue.Full:
                continue

    def _pump(self) -> None:
        error: GatewayError | None = None
        try:
            for piece in self._pieces():
                if self._closed:
                    break
                self._put(piece)
                if isinstance(piece, _Ended):
                    return
        except GatewayError as failed:
            error = failed
        except Exception:
            log.exception("reading the answer of %s failed", self._name)
            error = InternalError("The gateway failed while it read the answer.")
        self._put(_Ended(error))
