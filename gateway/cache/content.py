"""What is kept of an answer, and how it is told again."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gateway.core import replay
from gateway.core.cachekey import STREAM, WHOLE
from gateway.core.calls import JSON, Attempt, Chunk, Deployment
from gateway.core.endpoints import Endpoint
from gateway.core.transcript import Malformed, Transcript
from gateway.core.usage import Usage
from gateway.core.wire import DONE, Events, data_event, data_of, dumps, loads

#: The sizes of the facts and of a stream's last event, in front of these and of the rest.
_SIZES = struct.Struct("!II")


#: What a kept answer tells of its usage: it has no bill, and so no use for more.
_SUMS = ("prompt", "completion", "cached", "cache_write", "reasoning")


@dataclass(frozen=True)
class Answer:
    """An answer as one caller saw it.

    Attributes:
        form: how it was asked for (`core/cachekey.py`).
        facts: JSON: who answered (`provider`, `model`), `dropped` parameters, `id`, `served_model`, `finish_reasons`,
            the sums of its `usage`, the `fingerprint` of a named request, and of a stream what it `said`.
        body: the whole answer, or a stream's events.
        last: a stream's terminal event, where that is one of the answer's own.
    """

    form: str
    facts: Mapping[str, Any]
    body: bytes = field(repr=False)
    last: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, form: str, attempt: Attempt, body: bytes, last: bytes = b"", fingerprint: str = "") -> Answer:
        """Make it of the attempt that it came from; `fingerprint` is of a request whose name is its key."""
        told, deployment = attempt.told or attempt.transcript, attempt.deployment
        usage = attempt.transcript.usage or told.usage
        facts: JSON = {
            "form": form,
            "fingerprint": fingerprint,
            "provider": deployment.provider,
            "model": deployment.model,
            "dropped": list(attempt.dropped),
            "id": told.id,
            "served_model": attempt.transcript.model,
            "finish_reasons": told.finish_reasons,
            "usage": [getattr(usage, name) for name in _SUMS] if usage is not None else None,
        }
        if form != WHOLE:
            facts["said"] = told.said()
        return cls(form, facts, body, last)

    def packed(self) -> bytes:
        """Write it down for a store."""
        facts = dumps(self.facts)
        return b"".join((_SIZES.pack(len(facts), len(self.last)), facts, self.last, self.body))

    @classmethod
    def unpacked(cls, content: bytes) -> Answer:
        """Read what `packed` wrote.

        Raises:
            ValueError: it is nothing of the kind.
        """
        if len(content) < _SIZES.size:
            raise ValueError("too short")
        facts_bytes, last_bytes = _SIZES.unpack_from(content)
        facts_end = _SIZES.size + facts_bytes
        facts = loads(content[_SIZES.size : facts_end])
        if not isinstance(facts, dict) or not isinstance(facts.get("form"), str):
            raise ValueError("no facts")
        return cls(facts["form"], facts, content[facts_end + last_bytes :], content[facts_end : facts_end + last_bytes])

    @property
    def usage(self) -> Usage | None:
        """What the provider counted, when it was asked."""
        counts = self.facts["usage"]
        return Usage(**dict(zip(_SUMS, counts, strict=True))) if counts is not None else None

    def attempt(self, endpoint: Endpoint) -> Attempt:
        """The answer as an attempt that costs nothing, for headers and records."""
        deployment = Deployment(self.facts["provider"], self.facts["model"])
        told = Told(self, endpoint)
        return Attempt(deployment, transcript=told, dropped=self.facts["dropped"], metered=False)

    def chunks(self) -> Iterator[Chunk]:
        """A stream's events as they were written: all of them at once, but for the terminal one."""
        if self.body:
            yield Chunk(self.body, content=True)
        if self.last:
            yield Chunk(self.last, content=True, last=True)

    def in_form(self, form: str) -> Answer | None:
        """The same chat in another form; None where something would be lost."""
        if form == self.form:
            return self
        if self.form == WHOLE:
            document = loads(self.body)
            told = self._told(form, replay.to_chunks(document, usage=form != STREAM))
            # a trace reads it from here: of events it cannot
            return replace(told, facts={**self.facts, "said": document["choices"]})
        chunks = _events_of(self.body)
        if form == WHOLE:
            joined = replay.to_document(chunks, self.usage)
            return Answer(form, self.facts, dumps(joined)) if joined is not None else None
        if form == STREAM:
            return self._told(form, replay.without_usage(chunks))
        counted = replay.with_usage(chunks, self.usage)
        return self._told(form, counted) if counted is not None else None

    def _told(self, form: str, chunks: Sequence[JSON]) -> Answer:
        return Answer(form, self.facts, b"".join(map(data_event, chunks)))


def _events_of(body: bytes) -> list[JSON]:
    events = (data_of(event) for event in Events().feed(body))
    return [loads(event) for event in events if event and event != DONE[6:-2]]


class Told:
    """What a kept answer said (core.transcript.Transcript); it is complete and does not grow."""

    started = True
    complete = True

    def __init__(self, answer: Answer, endpoint: Endpoint) -> None:
        self._answer = answer
        self._endpoint = endpoint
        self.id: str | None = answer.facts["id"]
        self.model: str | None = answer.facts["served_model"]
        self.usage = answer.usage

    @property
    def finish_reasons(self) -> list[str | None]:
        """As the answer had them."""
        found: list[str | None] = self._answer.facts["finish_reasons"]
        return found

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Nothing can be added.

        Raises:
            Malformed: always.
        """
        raise Malformed("the answer is complete")

    def take(self, document: Mapping[str, Any]) -> None:
        """Nothing can be added.

        Raises:
            Malformed: always.
        """
        raise Malformed("the answer is complete")

    def said(self) -> Any:
        """The answer as a trace shows it."""
        return self._said

    @cached_property
    def _said(self) -> Any:
        if "said" in self._answer.facts:
            return self._answer.facts["said"]
        transcript: Transcript = self._endpoint.transcript()
        transcript.take(loads(self._answer.body))
        return transcript.said()
