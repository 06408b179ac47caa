"""A provider's own event stream, checked and passed on as it came."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gateway.core.calls import Chunk
from gateway.core.transcript import ChatTranscript, Malformed, Transcript
from gateway.core.wire import Events, EventTooLarge, data_event, data_of, loads, named_event
from gateway.errors import GatewayError, ProviderInvalid, ProviderStreamEnded
from gateway.upstream.failures import Failures

_NO_USAGE = b',"usage":null'

_TEXT = re.compile(rb'"content": ?"')
_MORE = " and more"
#: Chunks that are looked at for a frame; a provider that puts something new into each has none.
_FRAMES = 4


class _Frame(NamedTuple):
    """What the events of a stream have around their text: most of them are the same but for that.

    So one of them is read, and of the others the text alone. `chunk` is the one, `choice` the only one in it;
    `between` is what stands between the texts of two events that came at once.
    """

    before: bytes
    behind: bytes
    between: str
    chunk: dict[str, Any]
    choice: dict[str, Any]

    @classmethod
    def of(cls, event: bytes, chunk: dict[str, Any]) -> _Frame | None:
        """The frame of an event whose chunk says a text and nothing else; None for any other."""
        choices = chunk.get("choices")
        if "usage" in chunk or not isinstance(choices, list) or len(choices) != 1:
            return None
        choice = choices[0]
        delta = choice.get("delta")
        if choice.get("finish_reason") is not None or not isinstance(delta, dict) or delta.keys() != {"content"}:
            return None
        text, found = delta["content"], _TEXT.search(event)
        if not isinstance(text, str) or found is None:
            return None
        written = text.encode(errors="replace")
        if not event.startswith(written + b'"', found.end()):
            return None
        before, behind = event[: found.end()], event[found.end() + len(written) :]
        frame = cls(before, behind, (behind + before).decode(errors="replace"), chunk, choice)
        # the same words may stand elsewhere: with more in their place it must be the text that is another
        other = _object_in(data_of(before + written + _MORE.encode() + behind) or b"")
        return frame if other == frame.filled(text + _MORE) else None

    def text_of(self, events: bytes) -> str | None:
        """The text of whole events that all have this frame, where it stands as it is; None where it has to be read."""
        before, behind = self.before, self.behind
        start, end = len(before), len(events) - len(behind)
        if start > end or not events.startswith(before) or not events.endswith(behind):
            return None
        try:
            text = events[start:end].decode()
        except ValueError:
            return None
        # no escape, no end of the text before its end, and no control character, which JSON does not allow: a frame
        # has a line's end, so what is left of several events is printable where each of them has this one
        if not text.isprintable() and not (text := text.replace(self.between, "")).isprintable():
            return None
        return None if "\\" in text or '"' in text else text

    def filled(self, text: str) -> dict[str, Any]:
        """The chunk with another text."""
        return {**self.chunk, "choices": [{**self.choice, "delta": {"content": text}}]}


class Relay:
    """Reads chat completion chunks from bytes and hands each event out unchanged, but for four cases.

    Comments and the usage that the caller did not ask for are left out, tool calls without an index get one, and the
    terminal event is kept back (it belongs to whoever settles the call). Texts that came at once are handed out as one
    chunk of several events: whoever is behind with its reading catches up, and nobody waits for it.

    `ended` is True once its last event was read.

    Args:
        provider: its name, for errors.
        transcript: grows with each chunk.
        usage_asked: the caller wants the usage chunk.
        failures: reads an error inside the stream.
        translated: somebody makes other events of the chunks, and needs the `piece` of each.
    """

    def __init__(
        self,
        provider: str,
        transcript: Transcript,
        *,
        usage_asked: bool,
        failures: Failures,
        translated: bool = True,
    ) -> None:
        self._provider = provider
        self._transcript = transcript
        self._usage_asked = usage_asked
        self._translated = translated
        self._failures = failures
        self.ended = False
        self._tool_ids: dict[int, dict[str, int]] = {}
        self._frame: _Frame | None = None
        self._frames_left = _FRAMES

    def chunks(self, pieces: Iterator[bytes]) -> Iterator[Chunk | None]:
        """Read the stream to its end; an empty piece is silence, and so is None.

        Raises:
            UpstreamError: an error inside the stream, an event that is no chunk, or an end without a finish_reason.
            httpx.TransportError: the connection failed.
        """
        events = Events()
        try:
            for piece in pieces:
                if not piece:
                    yield None
                    continue
                if self._frame is not None and not events.parts and (text := self._frame.text_of(piece)):
                    yield self._said(piece, text)
                    continue
                yield from self._each(_whole(events.feed(piece)))
                if self.ended:
                    break
            else:
                yield from self._each(_left(events))
        except (Malformed, EventTooLarge) as error:
            raise ProviderInvalid(
                f"{self._provider} sent an event that is no chat completion chunk.", provider=self._provider
            ) from error
        if not self._transcript.complete:
            raise ended_early(self._provider)

    def _each(self, events: Iterator[tuple[bytes, bytes | None]]) -> Iterator[Chunk]:
        """Read events that came at once; what they say is one chunk where nobody looks at the piece of each."""
        said: list[bytes] = []
        try:
            for event, data in events:
                if data and (chunk := self._read(event, data)) is not None:
                    if chunk.content and not self._translated and not (chunk.piece or {}).get("usage"):
                        said.append(chunk.data)
                        continue
                    if said:
                        yield Chunk(b"".join(said), content=True)
                        said = []
                    yield chunk
                elif self.ended:
                    break
        except (Malformed, GatewayError):
            if said:  # what was good comes before the failure
                yield Chunk(b"".join(said), content=True)
            raise
        if said:
            yield Chunk(b"".join(said), content=True)

    def _said(self, events: bytes, text: str) -> Chunk:
        """Note the text of events that have the frame of this stream."""
        frame, transcript = self._frame, self._transcript
        assert frame is not None
        assert isinstance(transcript, ChatTranscript)
        transcript.say(frame.choice.get("index", 0), text)
        return Chunk(events, True, False, frame.filled(text) if self._translated else None)

    def _read(self, event: bytes, data: bytes) -> Chunk | None:
        if self._frame is not None and (text := self._frame.text_of(event)):
            return self._said(event, text)
        if data == b"[DONE]":
            self.ended = True
            return None
        chunk = _object_in(data)
        if error_object := chunk.get("error"):
            raise self._failures.reported(self._provider, error_object)
        rewritten = b'"tool_calls"' in data and self._index_tools(chunk)
        content = self._transcript.add(chunk)
        if "usage" in chunk and not self._usage_asked:
            if chunk["usage"] is None:
                event = _without_null_usage(event, chunk)
            elif not chunk.get("choices"):
                return Chunk(b"")
        if content and self._frames_left and isinstance(self._transcript, ChatTranscript):
            self._frames_left -= 1
            self._frame = _Frame.of(event, chunk) or self._frame
        return Chunk(data_event(chunk) if rewritten else event, content, piece=chunk)

    def _index_tools(self, chunk: dict[str, Any]) -> bool:
        """Number tool calls that came without an index, by their ids; SDKs merge the pieces by it."""
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return False
        rewritten = False
        for choice in choices:
            delta = choice.get("delta") if isinstance(choice, dict) else None
            calls = delta.get("tool_calls") if isinstance(delta, dict) else None
            if not isinstance(calls, list):
                continue
            index = choice.get("index", 0)
            ids = self._tool_ids.setdefault(index if isinstance(index, int) else 0, {})
            for call in calls:
                if isinstance(call, dict):
                    rewritten = _index_tool(call, ids) or rewritten
        return rewritten


class EventRelay:
    """Reads a stream whose events have names, and hands each of them out as it came.

    Comments are left out. An event that tells of an error is raised as one; the event that ends the stream is marked
    (`Chunk.last`), for it belongs to whoever settles the call. `ended` is True once that one was read.

    Args:
        provider: its name, for errors.
        transcript: grows with each event.
        ends: types of the events that end the stream.
        failures: reads an error inside the stream.
        several: each of several pictures may have such an event; the one behind which nothing comes ends the stream.
    """

    def __init__(
        self,
        provider: str,
        transcript: Transcript,
        ends: frozenset[str],
        failures: Failures,
        *,
        several: bool = False,
    ) -> None:
        self._several = several
        self._provider = provider
        self._transcript = transcript
        self._ends = ends
        self._failures = failures
        self.ended = False

    def chunks(self, pieces: Iterator[bytes]) -> Iterator[Chunk | None]:
        """Read the stream to its end; an empty piece is silence, and so is None.

        Raises:
            UpstreamError: an error inside the stream, an event that is none, or an end without an ending event.
            httpx.TransportError: the connection failed.
        """
        held: Chunk | None = None
        try:
            for event, data in _whole_events(pieces):
                if event is None:
                    yield None
                elif data and data != b"[DONE]":
                    chunk = self._read(event, data)
                    if held is not None:
                        yield held._replace(last=False)  # of several pictures
                        held = None
                    if chunk.last and self._several:
                        held = chunk
                        continue
                    self.ended = chunk.last
                    yield chunk
                    if chunk.last:
                        break
                elif data and held is not None:
                    break
        except (Malformed, EventTooLarge) as error:
            raise ProviderInvalid(
                f"{self._provider} sent an event that cannot be read.", provider=self._provider
            ) from error
        if held is not None:
            self.ended = True
            yield held
        if (failure := getattr(self._transcript, "failure", None)) is not None:
            raise self._failures.reported(self._provider, failure)
        if not self.ended:  # its reason may have come, but SDKs hand the answer out at the ending event
            raise ended_early(self._provider)

    def _read(self, event: bytes, data: bytes) -> Chunk:
        piece = _object_in(data)
        kind = piece.get("type")
        if kind == "error" or (kind is None and piece.get("error")):
            raise self._failures.reported(self._provider, piece.get("error") or {**piece, "type": None})
        content = self._transcript.add(piece)
        last = kind in self._ends
        if last and (clean := self._failures.cleaned(piece)) is not None:
            event = named_event({**clean})
        if last and getattr(self._transcript, "failure", None) is not None:
            return Chunk(event, last=True, piece=piece)  # before any content the call may still be tried elsewhere
        if last and not self._transcript.complete:
            raise ended_early(self._provider)
        return Chunk(event, content or last, last, piece)


def _whole_events(pieces: Iterator[bytes]) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Each event with its data, which is None where it has none; None for silence."""
    events = Events()
    for piece in pieces:
        if not piece:
            yield None, None
        else:
            yield from _whole(events.feed(piece))
    yield from _left(events)


def _whole(events: Sequence[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    for event in events:
        # blank lines in front of it end no event; they are with it where both came at once
        whole = event.lstrip(b"\r\n") if event[0] in b"\r\n" else event
        yield whole, data_of(whole)


def _left(events: Events) -> Iterator[tuple[bytes, bytes | None]]:
    if (rest := events.rest()).strip():
        event = rest + b"\n\n"  # a last event without its blank line; every SDK reads it
        yield event, data_of(event)


def _object_in(data: bytes) -> dict[str, Any]:
    try:
        piece = loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("an event's data is no JSON") from error
    if not isinstance(piece, dict):
        raise Malformed("an event's data is no object")
    return piece


def _index_tool(call: dict[str, Any], ids: dict[str, int]) -> bool:
    own_id = call.get("id")
    known = ids.setdefault(own_id, len(ids)) if isinstance(own_id, str) and own_id else None
    if call.get("index") is not None:
        return False
    call["index"] = known if known is not None else max(0, len(ids) - 1)
    return True


def _without_null_usage(event: bytes, chunk: dict[str, Any]) -> bytes:
    """Take out the `"usage": null` that a provider adds to every chunk once usage is asked for."""
    if event.count(_NO_USAGE) == 1:
        return event.replace(_NO_USAGE, b"")
    return data_event({name: value for name, value in chunk.items() if name != "usage"})


def ended_early(provider: str) -> GatewayError:
    """A stream that stopped before every choice had its finish_reason: no end is made up for it."""
    return ProviderStreamEnded(f"{provider} ended the stream before its answer was complete.", provider=provider)
