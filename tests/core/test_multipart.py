"""Forms: read in any pieces and any order, changed in nothing but the model's name, and bounded whatever comes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.endpoints import FILES, IMAGES_EDITS, TRANSCRIPTIONS, Endpoint
from gateway.core.multipart import MOST_HEAD_BYTES, MOST_PARTS, MOST_TEXT_BYTES, Form, boundary_of, content_type_of
from gateway.errors import BodyTooLarge, InvalidRequest
from tests.forms import BOUNDARY, CONTENT_TYPE, form, part, received

RECORDING = b"RIFF\r\n--" + BOUNDARY.encode()[:9] + bytes(range(256))
MODEL, FILE = ("model", b"openai/whisper-1"), ("file", RECORDING, "talk.wav")


def read(raw: bytes, endpoint: Endpoint = TRANSCRIPTIONS, step: int = 1 << 20) -> Form:
    made = Form(endpoint, BOUNDARY.encode())
    for start in range(0, len(raw), step):
        made.feed(raw[start : start + step])
    made.end()
    return made


def edited(made: Form, raw: bytes, model: str) -> bytes:
    start, stop, new = made.edit(model)
    return raw[:start] + new + raw[stop:]


@pytest.mark.parametrize("step", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL)], ids=["model first", "file first"])
def test_a_form_is_read_in_any_pieces_and_any_order(parts: Any, step: int) -> None:
    made = read(form(*parts, ("temperature", b"0.5"), ("stream", b"true"), ("anything", b"goes")), step=step)
    digest = {"type": "audio/wav", "bytes": len(RECORDING), "sha256": hashlib.sha256(RECORDING).hexdigest()}
    assert made.document == {
        "model": "openai/whisper-1",
        "file": {"filename": "talk.wav", **digest},
        "temperature": 0.5,
        "stream": True,
        "anything": "goes",
    }
    assert made.model == "openai/whisper-1"
    assert not made.in_file


@pytest.mark.parametrize("step", [1, 13, 1 << 20])
def test_nothing_but_the_models_name_is_changed(step: int) -> None:
    raw = b"a preamble\r\n" + form(FILE, ("prompt", "é\r\n".encode()), MODEL) + b"an epilogue"
    made = read(raw, step=step)
    assert edited(made, raw, "whisper-1") == raw.replace(b"openai/whisper-1", b"whisper-1")
    (file,) = made.files
    assert raw[file.start : file.start + file.size] == RECORDING


@pytest.mark.parametrize("before", [b"", b"a preamble\r\n"])
def test_a_form_without_a_model_gets_one_in_front(before: bytes) -> None:
    raw = before + form(("prompt", b"hi"), ("image", b"picture", "a.png"))
    texts, files = received(edited(read(raw, IMAGES_EDITS), raw, "m"))
    assert texts == {"model": ["m"], "prompt": ["hi"]}
    assert files == {"image": [b"picture"]}


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_boundary_may_come_in_two_pieces(cut: int) -> None:
    raw = form(MODEL, FILE)
    place = raw.index(b"\r\n--", raw.index(b"whisper")) + cut
    made = Form(TRANSCRIPTIONS, BOUNDARY.encode())
    made.feed(raw[:place])
    made.feed(raw[place:])
    made.end()
    assert made.document["model"] == "openai/whisper-1"
    assert edited(made, raw, "m") == raw.replace(b"openai/whisper-1", b"m")


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(1, 40), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_bytes_pass_through_a_form(first: bytes, second: bytes, step: int, reverse: bool) -> None:
    boundary = b"\r\n--" + BOUNDARY.encode()
    if boundary in first or boundary in second:
        return
    parts: list[Any] = [("model", b"m"), ("file", first, "a"), ("image[]", second, "b")]
    raw = form(*(reversed(parts) if reverse else parts))
    made = read(raw, step=step)
    texts, files = received(edited(made, raw, "another/model"))
    assert texts == {"model": ["another/model"]}
    assert files == {"file": [first], "image[]": [second]}
    assert made.document["file"]["sha256"] == hashlib.sha256(first).hexdigest()


def test_a_name_that_may_repeat_has_a_list() -> None:
    made = read(form(("image[]", b"1", "a"), ("image[]", b"2", "b"), ("prompt", b"x"), ("model", b"m")), IMAGES_EDITS)
    assert [one["bytes"] for one in made.document["image"]] == [1, 1]
    made = read(form(MODEL, FILE, ("timestamp_granularities[]", b"word"), ("timestamp_granularities[]", b"segment")))
    assert made.document["timestamp_granularities"] == ["word", "segment"]


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([MODEL, MODEL, FILE], "model"),
        ([MODEL, FILE, MODEL], "model"),
        ([MODEL, FILE, ("stream", b"true"), ("stream", b"false")], "stream"),
        ([MODEL, ("stream", b"perhaps"), FILE], "stream"),
        ([MODEL, ("temperature", b"nan"), FILE], "temperature"),
        ([MODEL, ("temperature", b"1e999"), FILE], "temperature"),
        ([MODEL, ("file", b"a text")], "file"),
        ([MODEL, ("prompt", b"\xff"), FILE], "prompt"),
        ([MODEL], "file"),
        ([("model", b"  "), FILE], "model"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(parts: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(form(*parts))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no form at all",
        b"x" * (1 << 20),
        form(MODEL, FILE)[:-9],
        form(MODEL, FILE)[:200],
        f"--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}\r\n\r\nno header\r\n--{BOUNDARY}--".encode(),
        f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--{BOUNDARY}--".encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name=""\r\n\r\nx\r\n--{BOUNDARY}--'.encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--{BOUNDARY}--'.encode("latin-1"),
        f"--{BOUNDARY}\r\nX: ".encode() + b"y" * (4 * MOST_HEAD_BYTES),
        f"--{BOUNDARY}\r\nX: ".encode() + b"y" * (4 * MOST_HEAD_BYTES) + b"\r\n\r\nx",
        f"--{BOUNDARY}\r\n".encode() + b"X: y\r\n" * (2 * MOST_HEAD_BYTES),
        b"".join(part(f"n{number}", b"") for number in range(MOST_PARTS + 1)),
        b"".join(part(f"n{number}", b"") for number in range(10_000)),
    ],
    ids=range(15),
)
def test_what_is_no_form_is_refused(raw: bytes) -> None:
    for step in (997, 64 << 10):
        with pytest.raises(InvalidRequest) as caught:
            read(raw, step=step)
        assert caught.value.http_status == 400


@pytest.mark.parametrize("endless", [b"x", b"\r\n", b"--" + BOUNDARY.encode() + b" "], ids=["text", "lines", "dashes"])
@pytest.mark.parametrize(
    "begun", [b"", f"--{BOUNDARY}\r\n".encode(), part("a", b"")[:-2]], ids=["preamble", "header", "field"]
)
def test_what_never_ends_is_refused_in_bounded_memory(begun: bytes, endless: bytes) -> None:
    made = Form(TRANSCRIPTIONS, BOUNDARY.encode())
    made.feed(begun)
    piece = endless * (65536 // len(endless))
    held = 0

    def feed() -> None:
        nonlocal held
        for _ in range(2 * MOST_TEXT_BYTES // len(piece) + 2):
            made.feed(piece)
            held = max(held, len(made._decoder.buffer) + len(made._held))

    with pytest.raises(InvalidRequest):
        feed()
    assert held <= 2 * MOST_HEAD_BYTES + len(piece)


def headed(disposition: str, content: str = "another-model") -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n{content}\r\n".encode()


_HIDDEN = headed('form-data; name="model"')

#: What one reader takes for a second model, or for another one, and the next for something else.
AMBIGUOUS = {
    "a list": part("model[]", b"m"),
    "a file": part("model", b"m", "a name"),
    "a file in a list": part("model[]", b"m", "a name"),
    "two names": headed('form-data; name="model"; name="x"'),
    "a name in another charset": headed("form-data; name=\"model\"; name*=utf-8''x"),
    "a name in pieces": headed('form-data; name*0="mod"; name*1="el"'),
    "a name with an escape": headed('form-data; name="mod\\\\el"'),
    "a name with a quote": headed('form-data; name="x\\"; name=\\"model"'),
    "a name with a percent": headed('form-data; name="mod%65l"'),
    "a name with a blank": headed('form-data; name="model "'),
    "a name with a NUL": headed('form-data; name="model\0"'),
    "another parameter": headed('form-data; name="x"; x="model"'),
    "another disposition": headed('attachment; name="x"'),
    "two dispositions": headed('form-data; name="x"\r\nContent-Disposition: form-data; name="model"'),
    "a continued line": headed('form-data;\r\n name="x"'),
    "a line that ends with LF": headed('form-data; name="x"\n\r\nContent-Disposition: form-data; name="model"'),
    "a header that ends with LF": headed('form-data; name="x"\n\nContent-Disposition: form-data; name="model"'),
    "a header that ends with CR": headed('form-data; name="x"\r\rContent-Disposition: form-data; name="model"'),
    "a boundary behind LF": part("prompt", f"x\n--{BOUNDARY}--\n".encode()) + _HIDDEN,
    "a boundary behind CR": part("prompt", f"x\r--{BOUNDARY}--\r".encode()) + _HIDDEN,
    "a boundary before LF": part("prompt", f"x\r\n--{BOUNDARY}\n".encode()) + _HIDDEN,
    "a boundary and a blank": part("prompt", f"x\r\n--{BOUNDARY} ".encode()) + _HIDDEN,
    "a boundary that goes on": part("prompt", f"x\r\n--{BOUNDARY}x".encode()) + _HIDDEN,
    "more behind the end": form() + _HIDDEN,
    "more behind an end that goes on": f"--{BOUNDARY}--x\r\n".encode() + _HIDDEN,
}


@pytest.mark.parametrize("step", [1, 11, 1 << 20])
@pytest.mark.parametrize("ambiguous", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_form_that_readers_could_understand_differently_is_refused(ambiguous: bytes, step: int) -> None:
    for before in (part(*MODEL) + part(*FILE), part(*FILE)):
        with pytest.raises(InvalidRequest):
            read(before + ambiguous + form(), step=step)


@pytest.mark.parametrize("begun", [b"x", b"x\n", b"\xef\xbb\xbf", b"\r"])
def test_a_first_boundary_within_a_line_is_refused(begun: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(begun + form(MODEL, FILE))


@pytest.mark.parametrize(
    "disposition",
    [
        "form-data; name=anything",
        'FORM-DATA;name="anything"',
        "form-data; filename*=utf-8''%e2%82%ac; name=\"anything\"",
    ],
)
def test_every_plain_way_to_name_a_part_is_read(disposition: str) -> None:
    made = read(part(*MODEL) + headed(disposition, "x") + form(FILE))
    assert "anything" in made.document


def test_fields_have_a_bound_together_and_files_have_none() -> None:
    half = b"x" * (MOST_TEXT_BYTES // 2)
    with pytest.raises(BodyTooLarge):
        read(form(MODEL, FILE, ("a", half), ("b", half), ("c", b"x")))
    large = bytes(2 * MOST_TEXT_BYTES)
    assert read(form(MODEL, ("file", large, "a"))).document["file"]["bytes"] == len(large)


def test_the_fields_of_an_operation_without_a_model_may_hold_one() -> None:
    made = read(form(("purpose", b"batch"), ("model", b"m"), FILE), FILES)
    assert made.model is None
    assert made.document["model"] == "m"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "text/plain; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\x7fb"',
        'multipart/form-data; boundary="ends with a space "',
        "multipart/mixed; boundary=x",
    ],
)
def test_another_type_or_no_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        boundary_of(content_type)


def test_a_boundary_is_read_with_quotes_and_without() -> None:
    assert boundary_of(CONTENT_TYPE) == BOUNDARY.encode()
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b:c"') == b"a b:c"


@pytest.mark.parametrize(
    "sent",
    [
        "multipart/form-data; boundary=one; boundary=two",
        'multipart/form-data; boundary="a b"; charset=x',
        "multipart/form-data; boundary*=utf-8''one",
        "Multipart/Form-Data;boundary=----WebKitFormBoundaryAbC'x",
    ],
)
def test_what_is_sent_on_names_the_boundary_that_was_read_and_no_other(sent: str) -> None:
    boundary = boundary_of(sent)
    written = content_type_of(boundary)
    assert written.count("boundary=") == 1
    assert boundary_of(written) == boundary
