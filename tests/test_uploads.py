"""Uploads: sent while they come, kept on disk, and sent again as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.endpoints import TRANSCRIPTIONS
from gateway.core.multipart import Form
from gateway.errors import InvalidRequest, StoreUnavailable
from gateway.uploads import MEMORY_BYTES, Upload
from tests.forms import BOUNDARY, form

MODEL, RENAMED = b"openai/whisper-1", "whisper-1"


def whole_of(size: int, *, model_last: bool = False) -> bytes:
    parts = [("model", MODEL), ("file", bytes(range(256)) * (size // 256), "talk.wav")]
    return form(*(reversed(parts) if model_last else parts))


class Source:
    """A body that comes in pieces; `given` counts its bytes."""

    def __init__(self, raw: bytes, step: int = 100_003) -> None:
        self._raw = raw
        self._step = step
        self.given = 0

    def __call__(self) -> bytes:
        piece = self._raw[self.given : self.given + self._step]
        self.given += len(piece)
        return piece


def made(source: Callable[[], bytes], declared: int | None = None, folder: Path | None = None) -> Upload:
    return Upload(Form(TRANSCRIPTIONS, BOUNDARY.encode()), source, declared, folder)


def known(upload: Upload) -> Callable[[], bool]:
    return lambda: upload.form.in_file and upload.form.model is not None


@pytest.mark.parametrize("size", [1000, 3 * MEMORY_BYTES], ids=["in memory", "on disk"])
@pytest.mark.parametrize("model_last", [False, True], ids=["model first", "model last"])
def test_it_is_sent_as_often_as_is_wanted(tmp_path: Path, size: int, model_last: bool) -> None:
    raw = whole_of(size, model_last=model_last)
    upload = made(Source(raw), len(raw), tmp_path)
    upload.read_until(known(upload))
    for name in (RENAMED, "another/longer-name-of-it"):
        body = upload.body(name)
        sent = b"".join(body)
        assert sent == raw.replace(MODEL, name.encode())
        assert body.size == len(sent)
    assert b"".join(upload.body(None)) == raw
    upload.close()


def test_it_goes_on_before_it_has_come() -> None:
    raw = whole_of(3 * MEMORY_BYTES)
    source = Source(raw)
    upload = made(source, len(raw))
    upload.read_until(known(upload))
    first = next(iter(upload.body(RENAMED)))
    assert first.startswith(f"--{BOUNDARY}".encode())
    assert source.given < MEMORY_BYTES
    upload.close()


def test_one_whose_model_stands_behind_its_file_is_read_to_its_end_first() -> None:
    raw = whole_of(3 * MEMORY_BYTES, model_last=True)
    source = Source(raw)
    upload = made(source, len(raw))
    upload.read_until(known(upload))
    assert source.given == len(raw)
    upload.close()


def test_a_second_try_has_what_came_and_goes_on_with_what_comes() -> None:
    raw = whole_of(3 * MEMORY_BYTES)
    upload = made(Source(raw), len(raw))
    upload.read_until(known(upload))
    first = iter(upload.body(RENAMED))
    for _ in range(5):
        next(first)
    assert b"".join(upload.body("m")) == raw.replace(MODEL, b"m")
    upload.close()


def test_its_size_is_not_known_before_its_end_where_nobody_tells_it() -> None:
    raw = whole_of(3 * MEMORY_BYTES)
    upload = made(Source(raw))
    upload.read_until(known(upload))
    assert upload.body(RENAMED).size is None
    upload.read_until(lambda: False)
    assert upload.body(RENAMED).size == len(raw) + len(RENAMED) - len(MODEL)
    upload.close()


def test_one_that_breaks_off_is_refused_while_it_is_sent() -> None:
    raw = whole_of(3 * MEMORY_BYTES)[:-20]
    upload = made(Source(raw), len(raw))
    upload.read_until(known(upload))
    gone: list[bytes] = []
    with pytest.raises(InvalidRequest):
        gone.extend(upload.body(RENAMED))
    assert sum(map(len, gone)) < len(raw), "a provider never has the whole of it"
    upload.close()


def test_its_files_can_be_read_again(tmp_path: Path) -> None:
    raw = whole_of(2 * MEMORY_BYTES)
    upload = made(Source(raw), len(raw), tmp_path)
    upload.read_until(lambda: False)
    assert upload.content(upload.form.files[0]) == bytes(range(256)) * (2 * MEMORY_BYTES // 256)
    upload.close()


def test_no_file_of_it_can_be_found(tmp_path: Path) -> None:
    raw = whole_of(2 * MEMORY_BYTES)
    folder = tmp_path / "uploads"
    upload = made(Source(raw), len(raw), folder)
    upload.read_until(lambda: False)
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    upload.close()
    upload.close()


def test_a_small_one_needs_no_disk_and_a_large_one_says_that_there_is_none(tmp_path: Path) -> None:
    nowhere = tmp_path / "file" / "uploads"
    nowhere.parent.write_text("no folder")
    for size, raises in ((1000, False), (2 * MEMORY_BYTES, True)):
        raw = whole_of(size)
        upload = made(Source(raw), len(raw), nowhere)
        if raises:
            with pytest.raises(StoreUnavailable):
                upload.read_until(lambda: False)
        else:
            upload.read_until(lambda: False)
        upload.close()
