"""An answer that tells in its usage what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.core.calls import Attempt, Call, Chunk
from gateway.core.pricing import Meter
from gateway.core.usagecost import RESPONSE_USAGE, USAGE, event_with_cost, with_cost
from gateway.upstream import Answer


class Costed:
    """Another answer, with `cost` in its usage where it has usage and a price is known (upstream.Answer).

    It is looked at as it is read, so that a stream's usage and the record of what came say the same.

    Args:
        answer: the other one.
        attempt: whose it is.
        call: of which it is an attempt.
        meter: says what it cost.
    """

    def __init__(self, answer: Answer, attempt: Attempt, call: Call, meter: Meter) -> None:
        self._answer = answer
        self._attempt = attempt
        self._call = call
        self._meter = meter
        self.tells_silence = answer.tells_silence
        in_pieces = call.stream or call.pieces  # nothing of it has come yet, and so it has no bill
        self.body = answer.body if in_pieces else self._whole(answer.body)

    def _whole(self, body: bytes) -> bytes:
        bill = self._meter.bill(self._call, self._attempt)
        return body if bill.cost_usd is None or bill.estimated else with_cost(body, bill.cost_usd)

    def chunks(self) -> Iterator[Chunk | None]:
        """Read the stream to its end (upstream.Answer)."""
        for chunk in self._answer.chunks():
            if chunk is None or (piece := chunk.piece) is None or not (chunk.last or piece.get("usage")):
                yield chunk
            else:
                yield self._costed(chunk, piece)

    def _costed(self, chunk: Chunk, piece: Mapping[str, Any]) -> Chunk:
        inner = piece.get("response")
        path, holder = (RESPONSE_USAGE, inner) if isinstance(inner, Mapping) else (USAGE, piece)
        # some servers tell with every chunk what was used so far; the end of the answer is the time to tell its cost
        ended = chunk.last or self._attempt.transcript.complete
        if not (chunk.data and ended and isinstance(holder.get("usage"), Mapping)):
            return chunk
        bill = self._meter.so_far(self._call, self._attempt)
        if bill.cost_usd is None or bill.estimated:
            return chunk
        return chunk._replace(data=event_with_cost(chunk.data, bill.cost_usd, path))

    def close(self) -> None:
        """Free the provider's connection (upstream.Answer)."""
        self._answer.close()
