"""Uploads: a multipart body goes to its provider as it comes, and is kept on disk until the provider begins to answer.

So memory is bounded whatever the size, the first bytes leave before the last have come, and where the provider fails
another one can be tried. A body whose model's name stands behind its file is read to its end first.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gateway.core.multipart import Form, Sent
from gateway.errors import StoreUnavailable
from gateway.offload import give_way, offload

#: As much of an upload is kept in memory; what is beyond that, with it, on disk.
MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 256 << 10
#: How long pieces may be passed on without giving the others a turn.
_BREATH_S = 0.004


class Upload:
    """A form on its way (calls.Upload): read from its caller once, and given out as often as it is sent.

    Args:
        form: takes note of what comes.
        read: returns the next bytes of the body, none at its end.
        declared: the size of the body where the caller has told it.
        folder: where it may be kept; None for the system's own place.
    """

    def __init__(self, form: Form, read: Callable[[], bytes], declared: int | None, folder: Path | None) -> None:
        self.form = form
        self._read = read
        self._declared = declared
        self._kept = _Kept(folder)
        self._over = False

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Read until `enough`, or to the end.

        Raises:
            InvalidRequest: what came is no form that can be used, or not all of it came.
            StoreUnavailable: there is no room for it on disk.
        """
        breath = _Breath()
        while not self._over and not enough():
            self._next()
            breath.take()

    def body(self, model: str | None) -> Body:
        """The body as it is sent.

        Args:
            model: the provider's name of the model; None leaves the form as it is.
        """
        return Body(self, None if model is None else self.form.edit(model))

    @property
    def size(self) -> int | None:
        """Bytes in all; None where nobody knows yet."""
        return self.form.size if self._over else self._declared

    def _next(self) -> bytes:
        data = self._read()
        if data:
            self._kept.add(data)
            self.form.feed(data)
        else:
            self._over = True
            self.form.end()
        return data

    def pieces(self) -> Iterator[bytes]:
        """The body from its beginning as it came, and on as it comes.

        One piece behind, so that the last of them does not go where the form proves to be cut off.
        """
        place, breath, held = 0, _Breath(), b""
        while True:
            if place < self._kept.size:
                data = self._kept.read(place, _PIECE_BYTES)
            elif self._over or not (data := self._next()):
                break
            place += len(data)
            if held:
                yield held
            held = data
            breath.take()
        if held:
            yield held

    def content(self, file: Sent) -> bytes:
        """The bytes of one of its files, in memory."""
        pieces, place, stop = [], file.start, file.start + file.size
        while place < stop:
            pieces.append(self._kept.read(place, min(_PIECE_BYTES, stop - place)))
            place += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of what is kept; safe to call again."""
        self._over = True
        self._kept.close()


class Body:
    """The bytes of an upload with the model's name replaced (http1.Streamed).

    Attributes:
        size: bytes in all; None where nobody knows yet.
    """

    def __init__(self, upload: Upload, edit: tuple[int, int, bytes] | None) -> None:
        self._upload = upload
        self._edit = edit
        self.size = upload.size
        if self.size is not None and edit is not None:
            self.size += len(edit[2]) - (edit[1] - edit[0])

    def __iter__(self) -> Iterator[bytes]:
        if self._edit is None:
            yield from self._upload.pieces()
            return
        start, stop, new = self._edit
        place, done = 0, False
        for data in self._upload.pieces():
            first, place = place, place + len(data)
            if first <= start <= place and not done:
                done = True
                data = data[: start - first] + new + data[max(0, stop - first) :]
            elif first < stop and done:  # the name lies across two pieces
                data = data[stop - first :]
            if data:
                yield data


class _Kept:
    """The bytes so far: in memory, and on disk where there are many. No name in the folder leads to them."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None and self.size <= MEMORY_BYTES:
            self._memory += data
            return
        try:
            offload(self._write, data)
        except OSError as error:
            raise StoreUnavailable("There is no room for this upload now.") from error

    def _write(self, data: bytes) -> None:
        if self._file is None:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  # see close
            data, self._memory = bytes(self._memory) + data, bytearray()
        left = memoryview(data)
        while left:
            left = left[os.write(self._file.fileno(), left) :]

    def read(self, place: int, size: int) -> bytes:
        """Some bytes from a place on, at least one where there are any."""
        if self._file is None:
            return bytes(self._memory[place : place + size])
        return offload(os.pread, self._file.fileno(), size, place)

    def close(self) -> None:
        self._memory = bytearray()
        file, self._file = self._file, None
        if file is not None:
            offload(file.close)  # nothing else names it, so this frees hundreds of megabytes


class _Breath:
    """Gives the others a turn: a caller and a provider that are always ahead would leave them none."""

    def __init__(self) -> None:
        self._rested_s = time.monotonic()

    def take(self) -> None:
        if time.monotonic() - self._rested_s > _BREATH_S:
            give_way()
            self._rested_s = time.monotonic()
