"""A `multipart/form-data` body (RFC 7578), read as it comes, in memory that is bounded whatever comes.

The reader is werkzeug's. Here are the bounds, the checks, the digests of files, and where the model's name stands: it
is all that changes on the way to a provider, so every other byte can be passed on as it came.

What the provider's reader may take for something else than werkzeug does is refused: else a form could name one model
to the gateway, which asks whether it is allowed, and another to the provider.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData, Preamble, State

from gateway.core.endpoint import Endpoint
from gateway.core.fields import Field as Row
from gateway.core.fields import fault_of
from gateway.core.media import Digest
from gateway.errors import BodyTooLarge, InvalidRequest

JSON = dict[str, Any]

MOST_PARTS = 128  # 16 pictures and every parameter that there is are far fewer
#: Of one part's header; of what stands in front of the first part.
MOST_HEAD_BYTES = 16 << 10
#: Of all fields that are no files: the longest prompt has 128 KB.
MOST_TEXT_BYTES = 1 << 20
_LONGEST_NAME = 256

#: RFC 2046, section 5.1.1: `bchars`, at most 70.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
#: The header of a part, as every reader understands it: lines end with CRLF, none is continued on the next.
_HEAD = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0\r\n]*\r\n)+")
_DISPOSITION = re.compile(rb"(?mi)^content-disposition:[ \t]*form-data[ \t]*((?:;.*)?)\r$")
_PARAMETER = re.compile(rb";[ \t]*([A-Za-z*]+)=(\"(?:[^\"\\]|\\.)*\"|[^\s\";]+)[ \t]*")
_PARAMETERS = frozenset((b"name", b"filename", b"filename*"))
#: Readers undo backslashes and percents in a name, or do not.
_NAME = re.compile(rb"[^\x00-\x20\"\\%\x7f](?:[^\x00-\x1f\"\\%\x7f]*[^\x00-\x20\"\\%\x7f])?")
#: What may stand in a boundary without quotes around it (RFC 9110, section 5.6.2).
_TOKEN = re.compile(r"[0-9A-Za-z'+_.-]+", re.ASCII)
#: What may stand behind a boundary without telling yet whether it is one, a last one, or none.
_UNDECIDED = re.compile(rb"-?|[ \t]*\r?")
_TRUE, _FALSE = frozenset(("true", "True", "1")), frozenset(("false", "False", "0"))


def boundary_of(content_type: str) -> bytes:
    """Read the boundary out of a `Content-Type`.

    Raises:
        InvalidRequest: it is another type, or has no boundary that RFC 2046 allows.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != "multipart/form-data":
        raise InvalidRequest("the body must be multipart/form-data", code="invalid_content_type")
    boundary = options.get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise _invalid("its content type names no boundary")
    return boundary.encode("ascii")


def content_type_of(boundary: bytes) -> str:
    """Write the `Content-Type` of a form: the caller's own could name two boundaries, of which readers take either."""
    text = boundary.decode("ascii")
    return f"multipart/form-data; boundary={text if _TOKEN.fullmatch(text) else chr(34) + text + chr(34)}"


class _Delimiters:
    """Sees to it that whatever looks like a boundary is one, to strict readers and to lenient ones (RFC 2046, 5.1.1).

    Args:
        boundary: the form's.
    """

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"--" + boundary
        self._seen = b""
        self._place = 0
        self._from = 0
        self._over = False

    def look(self, data: bytes) -> None:
        """Look at the bytes that follow.

        Raises:
            InvalidRequest: there is one with another line break than CRLF, one that goes on, or one behind the last.
        """
        data, size = self._seen + data, len(self._mark)
        while True:
            found = data.find(self._mark, max(0, self._from - self._place))
            if found < 0 or found + size + 2 > len(data):
                break
            if self._from == 0 or self._over or data[found - 1 : found] in (b"\r", b"\n"):
                behind = data[found + size : found + size + 2]
                begins = data[found - 2 : found] == b"\r\n" or self._place + found == 0
                if self._over or not begins or behind not in (b"\r\n", b"--"):
                    raise _invalid("readers could differ about where a part begins")
                self._over = behind == b"--"
            self._from = self._place + found + size
        # of a boundary that is not whole yet, and of what stands before it
        kept = min(len(data), len(data) - found + 2 if found >= 0 else size + 1)
        self._place += len(data) - kept
        self._seen = data[len(data) - kept :]


@dataclass(frozen=True)
class Sent:
    """A file of a form: the field that it stands in, its own name and type, and where its bytes are in the body."""

    field: str
    filename: str
    media_type: str
    start: int
    size: int


class Form:
    """A form whose body is being read.

    Args:
        endpoint: its row, by whose parameters fields are checked.
        boundary: what parts are divided by.

    Attributes:
        document: the fields so far; of a file its name, type, size and SHA-256, once it is whole. A name that comes
            several times has a list.
        in_file: the content of a file has begun.
        complete: the form is whole.
        model: the model's name; None as long as none has come.
        files: those that are whole.
        size: bytes that were taken in.
    """

    def __init__(self, endpoint: Endpoint, boundary: bytes) -> None:
        self._endpoint = endpoint
        self._boundary = boundary
        self._decoder = MultipartDecoder(boundary, max_parts=MOST_PARTS)
        self._delimiters = _Delimiters(boundary)
        self.document: JSON = {}
        self.in_file = False
        self.complete = False
        self.model: str | None = None
        self.files: list[Sent] = []
        self.size = 0
        self._fed = 0
        self._held = b""
        self._text_bytes = 0
        self._first: int | None = None
        self._name = ""
        self._value: bytearray | None = None
        self._file: tuple[JSON, Digest] | None = None
        self._place = 0
        self._model_place: tuple[int, int] | None = None

    def feed(self, data: bytes) -> None:
        """Take in the bytes that follow.

        Raises:
            InvalidRequest: this is no form, it has too much of something, or a field that cannot be used.
        """
        decoder = self._decoder
        self.size += len(data)
        self._delimiters.look(data)
        data = self._decided(data)
        self._fed += len(data)
        decoder.receive_data(data)
        while True:
            before, state = len(decoder.buffer), decoder.state
            head = bytes(decoder.buffer[: MOST_HEAD_BYTES + 1]) if state is State.PART else b""
            try:
                event = decoder.next_event()
            except RequestEntityTooLarge:
                raise _invalid(f"it has more than {MOST_PARTS} parts") from None
            except (ValueError, LookupError, TypeError) as error:  # a header that is none, or not UTF-8
                raise _invalid("the header of a part cannot be read") from error
            if state is State.PART and before - len(decoder.buffer) > MOST_HEAD_BYTES:
                raise _invalid("the header of a part is too long")
            if isinstance(event, NeedData):
                break
            if isinstance(event, File | Field):
                _check_head(head[: before - len(decoder.buffer)], event.name)
            self._take(event)
        if decoder.state is State.EPILOGUE:
            self.complete = True
            decoder.buffer.clear()  # what follows the last boundary says nothing (RFC 2046, section 5.1.1)
        elif decoder.state in (State.PREAMBLE, State.PART) and len(decoder.buffer) > MOST_HEAD_BYTES:
            raise _invalid("a part does not begin where one should")

    def _decided(self, data: bytes) -> bytes:
        """Hold back a boundary of which the end has not come: werkzeug takes the line break before it for content.

        That is so in 3.1.9, where a piece ends between a boundary and the line feed behind it.
        """
        data = self._held + data
        mark = b"--" + self._boundary
        before = bytes(self._decoder.buffer[-len(mark) - 2 :])  # the boundary may have begun there
        place = (before + data).rfind(mark)
        undecided = place >= 0 and _UNDECIDED.fullmatch(before + data, place + len(mark)) is not None
        place -= len(before)
        cut = max(0, place - 2) if undecided and len(data) - place < MOST_HEAD_BYTES else len(data)
        self._held = data[cut:]
        return data[:cut]

    def end(self) -> None:
        """The body has come to its end.

        Raises:
            InvalidRequest: it is cut off, or lacks a parameter.
        """
        if not self.complete:
            raise _invalid("it ends before its last boundary")
        for name in self._endpoint.required:
            if name not in self.document and name != "model":  # which may stand in the path
                raise InvalidRequest(f"{name} is required", param=name)

    def edit(self, model: str) -> tuple[int, int, bytes]:
        """Say what makes the body one for another model: the bytes from start to stop give way to others.

        Where the form names none, a part is put in front of the first.

        Args:
            model: the provider's name of it.
        """
        if self._model_place is not None:
            return *self._model_place, model.encode()
        assert self._first is not None, "a part has begun"
        head = b'Content-Disposition: form-data; name="model"\r\n\r\n'
        return self._first, self._first, head + model.encode() + b"\r\n--" + self._boundary + b"\r\n"

    def _take(self, event: Any) -> None:
        buffered = len(self._decoder.buffer)
        if isinstance(event, Preamble):
            self._first = self._fed - buffered
        elif isinstance(event, File | Field):
            self._begin(event)
        elif isinstance(event, Data):
            self._grow(event.data)
            if not event.more_data:
                self._finish()

    def _begin(self, event: File | Field) -> None:
        if not isinstance(event.name, str) or not event.name or len(event.name) > _LONGEST_NAME:
            raise _invalid("a part has no name")
        self._name = event.name.removesuffix("[]")
        row = self._endpoint.parameters.get(self._name)
        repeats = event.name.endswith("[]") or row is None or not _is_single(row)
        if self._name in self.document and not repeats:
            # two readers could take one or the other
            raise InvalidRequest(f"{self._name} must not come twice", param=self._name)
        if row is not None and _is_single(row) and event.name != self._name:
            raise InvalidRequest(f"{self._name} must not be a list", param=self._name)
        if isinstance(event, File):
            if row is not None and bytes not in row.types:
                raise InvalidRequest(f"{self._name} must not be a file", param=self._name)
            self.in_file = True
            named = {"filename": event.filename[:_LONGEST_NAME]} if event.filename else {}
            self._file = named, Digest(event.headers.get("content-type", "")[:_LONGEST_NAME] or None)
            self._place = self._behind_line_break()
        else:
            if row is not None and row.types == (bytes,):
                raise InvalidRequest(f"{self._name} must be a file", param=self._name)
            self._place = self._behind_line_break()
            self._value = bytearray()

    def _behind_line_break(self) -> int:
        """Where the content of the part begins whose header was just read."""
        buffer = self._decoder.buffer
        return self._fed - len(buffer) + (2 if buffer[:2] == b"\r\n" else 1)

    def _grow(self, data: bytes) -> None:
        if self._file is not None:
            self._file[1].add(data)
        elif self._value is not None:
            self._value += data
            self._text_bytes += len(data)
            if self._text_bytes > MOST_TEXT_BYTES:
                raise BodyTooLarge(f"The form's fields have more than {MOST_TEXT_BYTES} bytes besides its files.")

    def _finish(self) -> None:
        value: Any
        if self._file is not None:
            named, digest = self._file
            value = {**named, **digest.document()}
            media_type = digest.media_type or "application/octet-stream"
            self.files.append(Sent(self._name, named.get("filename", ""), media_type, self._place, digest.size))
        else:
            assert self._value is not None
            raw = bytes(self._value)
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                raise InvalidRequest(f"{self._name} must be UTF-8", param=self._name) from None
            value = self._checked(text)
            if self._name == "model" and self._endpoint.names_model:
                self.model = text.strip()
                self._model_place = self._place, self._place + len(raw)
        self._file = self._value = None
        self.in_file = False
        if self._name not in self.document:
            self.document[self._name] = value
        elif isinstance(known := self.document[self._name], list):
            known.append(value)
        else:
            self.document[self._name] = [known, value]

    def _checked(self, text: str) -> Any:
        row = self._endpoint.parameters.get(self._name)
        if row is None:
            return text
        value = _typed(text, row)
        fault = fault_of(self._name, [value] if row.types == (list,) else value, row)
        if fault is not None:
            raise InvalidRequest(fault, param=self._name)
        return value


def _check_head(head: bytes, name: object) -> None:
    """Check that the header of a part names it so to every reader."""
    found = _DISPOSITION.findall(head)
    if _HEAD.fullmatch(head) is None or head.lower().count(b"content-disposition") != 1 or len(found) != 1:
        raise _invalid("readers could differ about the header of a part")
    parameters: dict[bytes, bytes] = {}
    place = 0
    while (match := _PARAMETER.match(found[0], place)) is not None and match[1].lower() not in parameters:
        parameters[match[1].lower()] = match[2].removeprefix(b'"').removesuffix(b'"')
        place = match.end()
    own = parameters.get(b"name", b"")
    known = place == len(found[0]) and parameters.keys() <= _PARAMETERS
    if not known or _NAME.fullmatch(own) is None or own.decode("utf-8", "replace") != name:
        raise _invalid("readers could differ about the name of a part")


def _is_single(row: Row) -> bool:
    return list not in row.types and row.types != (bytes,)


def _typed(text: str, row: Row) -> Any:
    """What a field's text means by its row; the text itself where it means nothing of that kind."""
    if bool in row.types:
        return True if text in _TRUE else False if text in _FALSE else text
    for kind, written in ((int, _INTEGER), (float, _NUMBER)):
        if kind in row.types:
            return kind(text) if written.fullmatch(text) else text
    return text


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"the body is no multipart/form-data that can be used: {reason}", code="invalid_multipart")
