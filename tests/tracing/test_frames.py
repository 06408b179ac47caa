"""Segments are read back whole, and a damaged frame costs itself alone."""

from __future__ import annotations

import bisect
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tracing.frames import Frame, cut, dumps, row_frame, scan, void_frame

JSON = dict[str, Any]

TEXTS = st.text() | st.sampled_from([',"row":{', '"', "\\", "\n", '00000000 {"id":"x","row":{}}', "\u2028", "\x00"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
ROWS = st.dictionaries(TEXTS, VALUES, max_size=5)


def segment(frames: int, text: str = "J*said") -> list[bytes]:
    """Frames with all that a flip could make something of."""
    lines = []
    for number in range(frames):
        row = dumps({"id": f"r{number}", "output": text * (number % 7), "inner": '{"id":"x"} deadbeef {"id":'})
        lines.append(row_frame("begin" if number % 3 == 0 else "id", f"r{number}", row, {"project_name": "p"}))
    return lines


def read(data: bytes) -> tuple[list[str], int]:
    """The ids of the frames, and how many damaged ones were counted."""
    found = list(scan(data, 0))
    ids = [one.id for one in found if isinstance(one, Frame)]
    return ids, sum(1 for one in found if isinstance(one, int) and one > 0)


@settings(max_examples=150, deadline=None)
@given(row=ROWS, id=TEXTS, to=st.none() | st.dictionaries(st.just("project_name"), TEXTS, min_size=1), request=TEXTS)
def test_whatever_a_row_and_its_place_hold_comes_back(row: JSON, id: str, to: JSON | None, request: str) -> None:
    line = row_frame("id", id, dumps(row), to, request)
    assert line.count(b"\n") == 1
    [found] = scan(line, 7)
    assert isinstance(found, Frame)
    assert (found.kind, found.id, found.to, found.request) == ("id", id, to, request)
    assert (found.row, found.end_bytes) == (dumps(row), 7 + len(line))


def test_a_void_frame_says_what_is_missing() -> None:
    [found] = scan(void_frame("r", 3, 12.5), 0)
    assert isinstance(found, Frame)
    assert (found.kind, found.id, found.facts) == ("void", "r", {"void": "r", "rows": 3, "end": 12.5})


def test_of_a_segment_that_is_cut_anywhere_all_whole_frames_are_read() -> None:
    lines = segment(60)
    data, at = b"".join(lines), 0
    for number, line in enumerate(lines):
        for size in range(at, at + len(line)):
            ids, damaged = read(data[:size])
            assert (len(ids), damaged) == (number, 0)
        at += len(line)


def test_a_flipped_bit_costs_one_frame_at_most() -> None:
    lines, chance = segment(200), random.Random(1)
    data = b"".join(lines)
    all_ids = [f"r{number}" for number in range(200)]
    feeds = [at for at, byte in enumerate(data) if byte == 10]
    near = [at for at, byte in enumerate(data) if any(byte ^ (1 << bit) == 10 for bit in range(8))]
    makes_a_feed = set(near[:1000])
    places = [*feeds, *near[:1000]]
    for turn in range(10_000):
        at = places[turn] if turn < len(places) else chance.randrange(len(data))
        bit = chance.randrange(8)
        if at in makes_a_feed:
            bit = next(bit for bit in range(8) if data[at] ^ (1 << bit) == 10)
        # three frames around it are all that it can touch
        number = bisect.bisect_left(feeds, at)
        first, last = max(0, number - 1), min(200, number + 3)
        start = feeds[first - 1] + 1 if first else 0
        window = bytearray(data[start : feeds[last - 1] + 1])
        window[at - start] ^= 1 << bit
        ids, damaged = read(bytes(window))
        missing = [id for id in all_ids[first:last] if id not in ids]
        last_feed = at == start + len(window) - 1  # then there is no line: the tail is torn
        assert missing in ([], [f"r{number}"]), (at, bit)
        assert damaged >= 1 or not missing or last_feed, (at, bit)
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("payload", [b"", b"[]", b"[1]", b"1", b"null", b'"x"', b"{}", b"[" * 100_000])
def test_a_line_that_was_never_a_frame_is_damaged_and_raises_nothing(payload: bytes) -> None:
    from gateway.tracing.frames import frame

    assert read(frame(payload)) == ([], 1)


# Cutting.


def shapes() -> dict[str, Any]:
    deep: Any = "x"
    for _ in range(300):
        deep = [{"a": deep}]
    return {
        "one long text": {"input": "x" * 1_000_000},
        "control characters": {"input": "\x01" * 160_000},
        "emoji": {"output": "\N{GRINNING FACE}" * 240_000},
        "small values": {"input": list(range(150_000))},
        "long keys": {"metadata": {"k" * 900_000: 1}},
        "many fields": {f"field{number}": "y" * 50 for number in range(15_000)},
        "a long name": {"span_attributes": {"name": "n" * 900_000, "type": "llm"}},
        "deep": {"input": deep, "output": "z" * 900_000},
    }


@pytest.mark.parametrize("shape", shapes())
@pytest.mark.parametrize("limit", [2048, 10_000, 500_000])
def test_a_row_of_any_shape_is_cut_to_the_limit_and_says_so(shape: str, limit: int) -> None:
    row = {"id": "i", "span_id": "s", "root_span_id": "r", "span_parents": ["p"], "metrics": {"start": 1.5}}
    short = cut(dumps({**row, **shapes()[shape]}), limit)
    assert len(short) <= limit
    found = json.loads(short)
    assert {name: found[name] for name in row} == row
    assert found["metadata"]["cut_from_bytes"] > 0


# Writing.


def test_json_is_made_of_anything() -> None:
    value: JSON = {"nan": float("nan"), "half": "a\ud800b", "thing": object(), "big": 10**6000, "list": (1, 2)}
    assert json.loads(dumps(value)) == {
        "nan": None,
        "half": "a?b",
        "thing": "<object>",
        "big": "<int>",
        "list": [1, 2],
    }
    assert json.loads(dumps({("a", 1): float("inf")})) == {"('a', 1)": None}


def test_json_is_made_of_what_is_nested_deeper_than_python_follows() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert json.loads(dumps({"id": "a", "output": deep}))["id"] == "a"
