"""A body is a checked JSON object or a 4xx; there is no third way."""

from __future__ import annotations

import gzip
import json
import math
import threading
import time
import tracemalloc
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core import body as reading
from gateway.core.body import MAX_DEPTH, check, parse, unpack
from gateway.core.endpoints import CHAT, ENDPOINTS, MODELS
from gateway.errors import BodyTooLarge, CallerError, InvalidRequest, UnsupportedBody

ALIKE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no fault of what is tested
)
MB = 1_000_000


# -- parse: what is read -------------------------------------------------------------------------------------


def test_an_object_is_read_as_it_is() -> None:
    assert parse(b'{"model": "m", "n": 1, "stream": false, "stop": null, "messages": [{"a": []}]}') == {
        "model": "m",
        "n": 1,
        "stream": False,
        "stop": None,
        "messages": [{"a": []}],
    }


def test_a_utf_8_byte_order_mark_is_forgiven() -> None:
    assert parse(b"\xef\xbb\xbf" + b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("space", [b" ", b"\t", b"\r\n"])
def test_white_space_around_the_object_is_fine(space: bytes) -> None:
    assert parse(space + b"{}" + space) == {}


@pytest.mark.parametrize(
    ("written", "again"),
    [
        (b"1", "1"),
        (b"-7", "-7"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"0.1", "0.1"),
        (b"1.0", "1.0"),
        (b"1e2", "100.0"),
        (b"1e-400", "0.0"),
        (b"1.7976931348623157e308", "1.7976931348623157e+308"),
        (b"9" * 4300, "9" * 4300),
    ],
)
def test_a_number_is_written_again_with_the_same_value(written: bytes, again: str) -> None:
    assert json.dumps(parse(b'{"a":' + written + b"}")["a"]) == again


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\uD83D\uDE00", "\U0001f600"),
        (rb"\ud83d\ude00\ud83d\ude00", "\U0001f600" * 2),
        (rb"\\ud800", "\\ud800"),
        (rb"\\\\ud800", "\\\\ud800"),
        (rb"\\\ud83d\ude00", "\\\U0001f600"),
        (rb"\ud83d\ude00ud800", "\U0001f600ud800"),
        (rb"\ud55c\uae00\ud7a3", "\ud55c\uae00\ud7a3"),
        (rb"ud800 \"ud800", 'ud800 "ud800'),
        (b"\xf0\x9f\x98\x80", "\U0001f600"),
        (rb"\u0000", "\0"),
    ],
)
def test_a_whole_surrogate_pair_and_what_only_looks_like_half_of_one_is_read(written: bytes, text: str) -> None:
    assert parse(b'{"a":"' + written + b'"}') == {"a": text}


def nested(levels: int, opening: bytes, closing: bytes) -> bytes:
    """An object that has `levels` levels, itself included."""
    return b'{"a":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"


SHAPES = [(b"[", b"]"), (b'{"a":', b"}"), (b'["]]}}",', b"]"), (b'{"\\\\\\"[{":"]","a":', b"}")]


@pytest.mark.parametrize(("opening", "closing"), SHAPES)
def test_as_many_levels_as_allowed_are_read(opening: bytes, closing: bytes) -> None:
    raw = nested(MAX_DEPTH, opening, closing)
    assert parse(raw) == json.loads(raw)


def test_brackets_are_not_levels_where_they_stand_in_strings_or_side_by_side() -> None:
    body = {"a": "[" * 1000 + '"{' * 1000, "b": [[] for _ in range(1000)], "[{" * 100: {}}
    assert parse(json.dumps(body).encode()) == body


def test_the_same_key_in_two_objects_is_fine() -> None:
    assert parse(b'{"a": {"a": 1}, "b": {"a": 2}}') == {"a": {"a": 1}, "b": {"a": 2}}


# -- parse: what is refused ----------------------------------------------------------------------------------

TRAPS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "white space": (b" \r\n\t", "empty"),
    "only a byte order mark": (b"\xef\xbb\xbf", "empty"),
    "an array": (b"[]", "must be a JSON object"),
    "a string": (b'"a"', "must be a JSON object"),
    "a number": (b"1", "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "a form": (b"a=1&b=2", "not valid JSON"),
    "cut off": (b'{"a": [1, 2', "not valid JSON"),
    "cut off in a string": (b'{"a": "b', "not valid JSON: Unterminated string starting at line 1, column 7"),
    "two objects": (b"{}{}", "not valid JSON: Extra data at line 1, column 3"),
    "a comma too many": (b'{"a": 1,}', "not valid JSON"),
    "single quotes": (b"{'a': 1}", "not valid JSON"),
    "a comment": (b'{"a": 1 /* b */}', "not valid JSON"),
    "a bare line break in a string": (b'{"a": "\n"}', "not valid JSON"),
    "an unknown escape": (rb'{"a": "\x41"}', "not valid JSON"),
    "a leading zero": (b'{"a": 01}', "not valid JSON"),
    "a second byte order mark": (b"\xef\xbb\xbf" * 2 + b"{}", "not valid JSON"),
    "2,000 arrays": (b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "nested deeper than 64"),
    "100,000 arrays": (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 64"),
    "100,000 open arrays": (b"[" * 100_000, "nested deeper than 64"),
    "5,000 objects": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested deeper than 64"),
    "100,000 open objects": (b'{"a":' * 100_000, "nested deeper than 64"),
    **{f"65 levels of {a!r}": (nested(65, a, z), "nested deeper than 64") for a, z in SHAPES},
    "NaN": (b'{"a": NaN}', "NaN is no JSON number"),
    "Infinity": (b'{"a": Infinity}', "Infinity is no JSON number"),
    "-Infinity": (b'{"a": [-Infinity]}', "-Infinity is no JSON number"),
    "1e999": (b'{"a": 1e999}', "too large"),
    "-1e999": (b'{"a": -1e999}', "too large"),
    "a long float": (b'{"a": ' + b"9" * 400 + b".0}", "too large"),
    "an integer of 4,301 digits": (b'{"a": ' + b"9" * 4301 + b"}", "too many digits"),
    "an integer of a million digits": (b'{"a": ' + b"9" * MB + b"}", "too many digits"),
    "a key twice": (b'{"model": "a", "b": 1, "model": "c"}', "the key 'model' twice"),
    "a key twice further down": (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' twice"),
    "a key twice, once escaped": (rb'{"model": 1, "mod\u0065l": 1}', "the key 'model' twice"),
    "a long key twice": (b'{"%b": 1, "%b": 2}' % (b"k" * 999, b"k" * 999), f"the key '{'k' * 64}' twice"),
    "a high surrogate": (rb'{"a": "\ud800"}', "surrogate"),
    "a low surrogate": (rb'{"a": "\udc00"}', "surrogate"),
    "in capitals": (rb'{"a": "\uDBFF"}', "surrogate"),
    "in a key": (rb'{"\ud800": 1}', "surrogate"),
    "the wrong way round": (rb'{"a": "\ude00\ud83d"}', "surrogate"),
    "two high, one low": (rb'{"a": "\ud83d\ud83d\ude00"}', "surrogate"),
    "two high, two low": (rb'{"a": "\ud83d\ud83d\ude00\ude00"}', "surrogate"),
    "halves apart": (rb'{"a": "\ud83d \ude00"}', "surrogate"),
    "halves around a backslash": (rb'{"a": "\ud83d\\\ude00"}', "surrogate"),
    "halves in two strings": (rb'{"a": ["\ud83d", "\ude00"]}', "surrogate"),
    "after a backslash": (rb'{"a": "\\\ud800"}', "surrogate"),
    "after what looks like a high one": (rb'{"a": "\\ud83d\ude00"}', "surrogate"),
    "a surrogate in UTF-8": (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
    "a pair in UTF-8": (b'{"a": "\xed\xa0\xbd\xed\xb8\x80"}', "UTF-8"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "UTF-8"),
    "overlong UTF-8": (b'{"a": "\xc0\xaf"}', "UTF-8"),
    **{
        name: ('{"a": 1}'.encode(name), "UTF-8")
        for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    },
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_a_400_that_says_what_is_wrong(name: str) -> None:
    raw, said = TRAPS[name]
    with pytest.raises(InvalidRequest) as caught:
        parse(raw)
    assert said in caught.value.message
    assert (caught.value.http_status, caught.value.public_code) == (400, "invalid_json")
    assert len(caught.value.message) < 200
    assert caught.value.message.encode()  # the message itself can be sent
    assert caught.value.__context__ is None  # and drags no copy of the body along


def test_a_deep_body_is_refused_in_a_thread_with_its_own_stack_too() -> None:
    said: list[str] = []

    def read() -> None:
        try:
            parse(b'{"a":[' * 100_000)
        except InvalidRequest as error:
            said.append(error.message)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert said == ["the body is nested deeper than 64 levels"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"' + b"QUJD" * 7_500_000 + b'"}',
        b"[" * (30 * MB),
        b'{"a":"' + rb"\\" * (10 * MB) + b'"}',
        b'{"a":"' + rb"\ud83d\ude00" * MB + b'"}',
        b'{"a":0.' + b"9" * (30 * MB) + b"}",
        b'{"a":' + b"9" * (30 * MB) + b"}",
        b'{"a":"' + rb"\"[" * (10 * MB) + b'"}',
    ],
    ids=["base64", "deep", "backslashes", "emoji", "long float", "long integer", "brackets in a string"],
)
def test_a_large_body_takes_no_more_than_linear_time(raw: bytes) -> None:
    started_s = time.thread_time()
    with suppress(InvalidRequest):
        parse(raw)
    assert time.thread_time() - started_s < 10  # measured 0.02 to 0.9; squared, it would be minutes


# -- parse: for any bytes ------------------------------------------------------------------------------------

TEXT = st.text(max_size=8) | st.sampled_from(["\\ud800", '"[', "\\", "\U0001f600"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=3)


# -- parse: long strings -------------------------------------------------------------------------------------

LONG = "iVBORw0K+/=, {[]}:" * 40_000
OTHER = "QUJD" * 30_000


def either_way(raw: bytes) -> Any:
    """What a body is read as, or the words with which it is refused, where no string is looked at by itself."""
    try:
        return parse(raw)
    except InvalidRequest as error:
        return error.message


@pytest.mark.parametrize(
    "body",
    [
        {"a": LONG},
        {"a": [LONG, OTHER, LONG], "b": {"c": LONG, "d": [[OTHER], {"e": OTHER}]}},
        {"a": LONG, "b": ["short", "", 1, None, True, {"c": "x" * 70_000}]},
        {"messages": [{"content": [{"text": "what?"}, {"url": f"data:image/png;base64,{OTHER * 6}"}]}]},
    ],
)
def test_long_strings_are_read_by_themselves(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_needed(*_: Any) -> Any:
        raise AssertionError("the decoder got a long string")

    monkeypatch.setattr(reading, "_parse_text", not_needed)
    assert parse(json.dumps(body).encode()) == body
    assert parse(json.dumps(body, indent=1).encode()) == body


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({LONG: OTHER, "b": LONG}, id="a key"),
        pytest.param({"a": "\\" + LONG}, id="an escape within"),
        pytest.param({"a": f'she said "{LONG}" and went', "b": OTHER}, id="between quotes of a text"),
        pytest.param({"a": f'"{LONG}', "b": OTHER}, id="behind a quote of a text"),
        pytest.param({"a": f'{LONG}"', "b": OTHER}, id="before a quote of a text"),
        pytest.param({"a": "ä" * 600_000, "b": OTHER}, id="no ASCII"),
        pytest.param({"a": [0.5] * 200_000, "b": OTHER, "c": LONG}, id="numbers between strings"),
        pytest.param({"a": LONG, "b": "short"}, id="at the end of a level"),
        pytest.param({"a": LONG, "b": "\U0001f600"}, id="a pair of surrogates elsewhere"),
        pytest.param({"a": LONG, "b": "\\udc000"}, id="what only looks like a mark"),
    ],
)
def test_what_is_about_a_long_string_changes_nothing(body: Any) -> None:
    for text in (json.dumps(body), json.dumps(body, ensure_ascii=False), json.dumps(body, indent=2)):
        assert parse(text.encode()) == body


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"a": "%s", "b": "\\udc000"}', "half of a surrogate pair"),
        ('{"a": "\\udc000", "b": "%s"}', "half of a surrogate pair"),
        ('{"a": "%s", "a": 1}', "the key 'a' twice"),
        ('{"%s": 1, "%s": 2}', "twice in one object"),
        ('{"a": "%s\n"}', "Invalid control character"),
        ('{"a": "%s", "b": NaN}', "NaN is no JSON number"),
        ('{"a": "%s", "b": 1e999}', "too large"),
        ('{"a": "%s" "b"}', "Expecting ',' delimiter"),
        ('{"a": %s"}', "Expecting value"),
        ('{"a": "b", %s "c": 1}', "Expecting property name"),
        ('{"a": "%s', "Unterminated string"),
        ('["%s"]', "must be a JSON object"),
        ('{"a": "%s", "b": ' + "[" * 65 + "]" * 65 + "}", "nested deeper"),
        ('{"a": "%s", "b": ' + "[" * 5000 + "]" * 5000 + "}", "nested deeper"),
        ('{"a": "%s", "b": [' + "1," * 1_000_001 + "1]}", "more than 1000000 values"),
    ],
)
def test_a_trap_beside_a_long_string_is_told_as_it_is_without_one(
    raw: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = raw.replace("%s", LONG).encode()
    found = either_way(body)
    assert said in found
    monkeypatch.setattr(reading, "_STEP_BYTES", 1 << 30)  # then none is looked at by itself
    assert either_way(body) == found


def test_a_large_image_is_read_in_steps() -> None:
    image = "data:image/png;base64," + "iVBORw0K" * (1 << 20)
    raw, steps = json.dumps({"model": "m", "image": image}).encode(), 0

    def rest() -> None:
        nonlocal steps
        steps += 1

    assert parse(raw, rest)["image"] == image
    assert steps > len(raw) / (1 << 20)


def test_a_large_image_takes_little_more_memory_than_the_text_that_it_becomes() -> None:
    image = "iVBORw0K" * (1 << 20)
    raw = json.dumps({"model": "m", "image": image}).encode()
    parse(raw)
    tracemalloc.start()
    try:
        parse(raw)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.3 * len(raw)


@ALIKE
@given(OBJECTS, st.booleans(), st.sampled_from([None, 0, 3]))
def test_what_json_writes_is_read_again_as_the_same(body: Any, escaped: bool, indent: int | None) -> None:
    got = parse(json.dumps(body, ensure_ascii=escaped, indent=indent).encode())
    assert got == body
    assert repr(got) == repr(body)  # 1 is no 1.0, and no True


@ALIKE
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_the_bytes_only_invalid_request_is_raised(raw: bytes) -> None:
    with suppress(InvalidRequest):
        assert isinstance(parse(raw), dict)


@ALIKE
@given(OBJECTS, st.data())
def test_damaged_json_raises_only_invalid_request(body: Any, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(body).encode())
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with suppress(InvalidRequest):
        parse(bytes(raw))


PIECES = [
    r"\\",
    r"\ud83d",
    r"\ude00",
    r"\uD800",
    r"\uDFFF",
    r"\u00e9",
    r"\ud7ff",
    r"\"",
    "ud800",
    "a",
    "[",
    "}",
]


@settings(ALIKE, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_string_is_refused_exactly_when_it_cannot_be_utf_8(written: str) -> None:
    raw = f'{{"a":["{written}"]}}'.encode()
    text = json.loads(raw)["a"][0]
    if any("\ud800" <= char <= "\udfff" for char in text):
        with pytest.raises(InvalidRequest, match="surrogate"):
            parse(raw)
    else:
        assert parse(raw) == {"a": [text]}


def depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@ALIKE
@given(OBJECTS, st.integers(56, 68), st.integers(0, 2**68 - 1))
def test_a_body_is_refused_exactly_when_it_is_too_deep(body: Any, wraps: int, kinds: int) -> None:
    for wrap in range(wraps):
        body = {"a": 1, "b": body} if kinds >> wrap & 1 else [1, body, "]"]
    body = {"top": body}
    raw = json.dumps(body).encode()
    if depth(body) > MAX_DEPTH:
        with pytest.raises(InvalidRequest, match="deeper"):
            parse(raw)
    else:
        assert parse(raw) == body


@ALIKE
@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,4})?\Z"))
def test_every_number_that_is_read_is_finite(written: str) -> None:
    raw = f'{{"a":[{written}]}}'.encode()
    if math.isinf(float(written)) and not written.lstrip("-").isdigit():
        with pytest.raises(InvalidRequest, match="too large"):
            parse(raw)
    else:
        assert parse(raw)["a"][0] == float(written)


# -- unpack --------------------------------------------------------------------------------------------------


def packed(raw: bytes, encoding: str) -> bytes:
    return zlib.compress(raw) if encoding.strip().lower() == "deflate" else gzip.compress(raw, mtime=0)


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", " IDENTITY "])
def test_a_plain_body_passes_as_it_is(encoding: str) -> None:
    assert unpack(b"\x1f\x8b not gzip", encoding, 100) == b"\x1f\x8b not gzip"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZip", " gzip ", "deflate", "Deflate"])
@pytest.mark.parametrize("raw", [b"", b"{}", b"abc" * 100_000], ids=["empty", "short", "long"])
def test_a_packed_body_is_unpacked(encoding: str, raw: bytes) -> None:
    assert unpack(packed(raw, encoding), encoding, MB) == raw


def test_gzip_members_in_a_row_are_one_body() -> None:
    members = [b"a" * 3000, b"", b'{"b": 1}', bytes(range(256)) * 50]
    assert unpack(b"".join(map(gzip.compress, members)), "gzip", MB) == b"".join(members)


@pytest.mark.parametrize(
    "encoding",
    [
        "br",
        "zstd",
        "compress",
        "gzip, gzip",
        "gzip,",
        "deflate, gzip",
        "identity, gzip",
        "gzip;q=1",
        "*",
        "é" * 99,
    ],
)
def test_another_content_encoding_is_a_415_that_names_the_known_ones(encoding: str) -> None:
    with pytest.raises(UnsupportedBody, match=r"content encoding.*gzip.*deflate.*identity") as caught:
        unpack(b"{}", encoding, 100)
    assert caught.value.http_status == 415


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("noise", [b"\0", b"garbage", b"\0" * 5000, b"{}"])
def test_something_after_the_end_is_refused(encoding: str, noise: bytes) -> None:
    with pytest.raises(InvalidRequest):
        unpack(packed(b'{"a": 1}', encoding) + noise, encoding, MB)


def test_deflate_has_no_members() -> None:
    with pytest.raises(InvalidRequest, match="goes on after its end"):
        unpack(packed(b"a", "deflate") * 2, "deflate", MB)


def test_endless_empty_members_are_refused_soon() -> None:
    started_s = time.perf_counter()
    with pytest.raises(InvalidRequest, match="goes on after its end"):
        unpack(packed(b"", "gzip") * MB, "gzip", MB)
    assert time.perf_counter() - started_s < 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_at_all_is_refused(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        unpack(b'{"model": "m"}', encoding, MB)
    with pytest.raises(InvalidRequest, match="cut off"):
        unpack(b"", encoding, MB)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_cut_anywhere_is_refused(encoding: str) -> None:
    whole = packed(b'{"a": "' + bytes(range(32, 127)) + b'"}', encoding)
    for cut in range(len(whole)):
        with pytest.raises(InvalidRequest, match="cut off"):
            unpack(whole[:cut], encoding, MB)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_the_limit_itself_is_allowed_and_one_byte_more_is_a_413(encoding: str) -> None:
    def sent(size: int) -> bytes:
        return packed(b"a" * size, encoding) if encoding else b"a" * size

    assert len(unpack(sent(5000), encoding, 5000)) == 5000
    with pytest.raises(BodyTooLarge, match="larger than 5000 bytes") as caught:
        unpack(sent(5001), encoding, 5000)
    assert caught.value.http_status == 413


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_a_bomb_is_refused_before_it_takes_memory(encoding: str, bits: int) -> None:
    packer = zlib.compressobj(wbits=bits)
    zeros = bytes(MB)
    bomb = b"".join(packer.compress(zeros) for _ in range(300)) + packer.flush()
    assert len(bomb) < MB
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            unpack(bomb, encoding, MB)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16 * MB


@ALIKE
@given(st.binary(max_size=3000), st.sampled_from(["gzip", "deflate"]))
def test_unpacking_undoes_packing(raw: bytes, encoding: str) -> None:
    assert unpack(packed(raw, encoding), encoding, 3000) == raw


@ALIKE
@given(st.binary(max_size=500), st.sampled_from(["gzip", "deflate"]), st.data())
def test_damaged_packing_raises_only_what_is_the_callers(raw: bytes, encoding: str, data: st.DataObject) -> None:
    sent = bytearray(packed(raw, encoding))
    at = data.draw(st.integers(0, len(sent)))
    sent[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    with suppress(CallerError):
        unpack(bytes(sent), encoding, 1000)


@ALIKE
@given(st.binary(max_size=300), st.text(max_size=12) | st.sampled_from(["gzip", "deflate"]))
def test_whatever_is_sent_only_what_is_the_callers_is_raised(raw: bytes, encoding: str) -> None:
    with suppress(CallerError):
        unpack(raw, encoding, 100)


# -- check ---------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 1},
        {"n": 128},
        {"temperature": 1},
        {"temperature": -99.5},
        {"stop": "a"},
        {"stop": []},
        {"stop": ["a", "b"]},
        {"stop": None},
        {"tools": None},
        {"tools": []},
        {"tools": [{"type": "function", "function": {"name": "litellm_proxy"}}]},
        {"tools": [{"type": "mcp", "server_url": "https://mcp.example.com/litellm_proxy"}]},
        {"tools": [{"type": "mcp", "server_url": 7}]},
        {"stream_options": {"include_usage": True, "anything": 1}},
        {"unheard_of": {"a": [1]}, "api_base": "https://example.com", "metadata": {"a": "b"}},
        dict.fromkeys(set(CHAT.parameters) - {"model", "messages"}),
    ],
)
def test_a_good_body_passes_and_so_does_what_the_row_does_not_know(more: dict[str, Any]) -> None:
    body = {**GOOD, **more}
    before = json.dumps(body)
    check(CHAT, body)
    assert json.dumps(body) == before


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model": None}, "model", "model is required"),
        ({"model": 7}, "model", "model must be a string"),
        ({"model": ""}, "model", "model must not be empty"),
        ({"model": " \t"}, "model", "model must not be empty"),
        ({"messages": None}, "messages", "messages is required"),
        ({"messages": "hi"}, "messages", "messages must be an array"),
        ({"messages": []}, "messages", "messages must not be empty"),
        ({"messages": ["hi"]}, "messages", "every item of messages must be an object"),
        ({"messages": [{}, None]}, "messages", "every item of messages must be an object"),
        ({"stream": "yes"}, "stream", "stream must be a boolean"),
        ({"stream": 1}, "stream", "stream must be a boolean"),
        ({"temperature": "0.5"}, "temperature", "temperature must be a number"),
        ({"temperature": True}, "temperature", "temperature must be a number"),
        ({"max_tokens": 1.5}, "max_tokens", "max_tokens must be an integer"),
        ({"max_tokens": True}, "max_tokens", "max_tokens must be an integer"),
        ({"n": 0}, "n", "n must be at least 1"),
        ({"n": -(10**30)}, "n", "n must be at least 1"),
        ({"n": 129}, "n", "n must be at most 128"),
        ({"n": 1e30}, "n", "n must be an integer"),
        ({"n": True}, "n", "n must be an integer"),
        ({"user": 1}, "user", "user must be a string"),
        ({"metadata": []}, "metadata", "metadata must be an object"),
        ({"tool_choice": 1}, "tool_choice", "tool_choice must be a string or an object"),
        ({"stop": 1}, "stop", "stop must be a string or an array"),
        ({"stop": ["a", 1]}, "stop", "every item of stop must be a string"),
        ({"stop": [None]}, "stop", "every item of stop must be a string"),
        ({"modalities": ["text", 1]}, "modalities", "every item of modalities must be a string"),
        ({"tools": {}}, "tools", "tools must be an array"),
        ({"tools": [1]}, "tools", "every item of tools must be an object"),
        ({"stream_options": True}, "stream_options", "stream_options must be an object"),
    ],
)
def test_a_fault_is_a_400_that_names_the_parameter(change: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(CHAT, {**GOOD, **change})
    assert (caught.value.message, caught.value.param, caught.value.http_status) == (said, param, 400)


@pytest.mark.parametrize(
    "url", ["litellm_proxy", "litellm_proxy/mcp/github", "litellm_proxyX", " LiteLLM_Proxy", "litellm-proxy"]
)
def test_a_tool_cannot_enter_litellms_own_mcp_gateway(url: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "mcp", "server_url": url}]
    with pytest.raises(InvalidRequest, match="must not name litellm") as caught:
        check(CHAT, {**GOOD, "tools": tools})
    assert (caught.value.param, caught.value.http_status) == ("tools", 400)


def test_the_first_fault_is_told_the_model_then_the_messages_then_as_the_row_has_it() -> None:
    faulty: dict[str, Any] = {"user": 1, "tools": [1], "stop": [1], "n": 0, "messages": [], "model": ""}
    for param in ("model", "messages", "n", "stop", "tools", "user"):
        with pytest.raises(InvalidRequest) as caught:
            check(CHAT, faulty)
        assert caught.value.param == param
        faulty[param] = GOOD.get(param)
    check(CHAT, faulty)


def test_an_endpoint_without_parameters_takes_any_object() -> None:
    check(MODELS, {"model": 7, "tools": 1, "stop": 2})


@ALIKE
@given(st.sampled_from(ENDPOINTS), st.data())
def test_whatever_the_values_check_raises_only_invalid_request(endpoint: Any, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(endpoint.parameters)) if endpoint.parameters else TEXT
    body = {**GOOD, **data.draw(st.dictionaries(names, VALUES, max_size=4))}
    with suppress(InvalidRequest):
        check(endpoint, body)


@pytest.mark.parametrize("many", [b"[]", b"{}", b"1", b'"a"'], ids=["arrays", "objects", "numbers", "texts"])
def test_a_body_of_a_great_many_values_is_refused_before_it_is_read(many: bytes) -> None:
    raw = b'{"z":[' + b",".join([many] * 1_100_000) + b"]}"
    with pytest.raises(InvalidRequest, match="more than 1000000 values"):
        parse(raw)


def test_a_text_may_have_as_many_commas_and_brackets_as_it_likes() -> None:
    table = "1,2,[3],{4}\n" * 400_000
    assert parse(json.dumps({"z": table}).encode()) == {"z": table}


@pytest.mark.parametrize("name", ["Model", "MODEL", "mODEL"])
def test_a_model_in_other_letters_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(CHAT, {"model": "a", "messages": [{"role": "user", "content": "hi"}], name: "another"})
    assert caught.value.param == "model"
