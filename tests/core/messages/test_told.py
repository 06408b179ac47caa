"""A chat completion, told as Anthropic's API would."""

from __future__ import annotations

import copy
import json
from typing import Any

import anthropic.types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.core.messages.record import MessagesTranscript
from gateway.core.messages.told import FromChat
from gateway.core.messages.tools import sent_name
from gateway.core.transcript import Malformed
from gateway.core.usage import Usage

JSON = dict[str, Any]
ALIKE = settings(deadline=None, derandomize=True, database=None, max_examples=200)
EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)


def chunk(finish_reason: str | None = None, **delta: Any) -> JSON:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "model": "gpt-x", "choices": [choice]}


def tool(index: int = 0, arguments: str = "", *, id: str | None = None, name: str | None = None) -> JSON:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": index, "id": id, "type": "function", "function": function}


def calls(*pieces: JSON) -> JSON:
    return chunk(tool_calls=list(pieces))


def counted(prompt: int = 0, completion: int = 0, **more: Any) -> JSON:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def told(*chunks: JSON, end: bool = True, names: dict[str, str] | None = None) -> list[JSON]:
    teller = FromChat("msg_1", "asked", names)
    events = [event for piece in chunks for event in teller.feed(piece)]
    if end:
        events += teller.end()
    return events


def short(events: list[JSON]) -> list[str]:
    """The events in short: `+0 text` begins a block, `0 'a'` grows it, `-0` ends it."""
    lines = []
    for event in events:
        if event["type"] == "content_block_start":
            block = event["content_block"]
            lines.append(f"+{event['index']} {block['type']}{' ' + block['id'] if 'id' in block else ''}")
        elif event["type"] == "content_block_delta":
            [text] = [value for name, value in event["delta"].items() if name != "type"]
            lines.append(f"{event['index']} {text!r}")
        elif event["type"] == "content_block_stop":
            lines.append(f"-{event['index']}")
    return lines


def whole(message: JSON, finish_reason: str | None = "stop", **more: Any) -> JSON:
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}]
    return FromChat("msg_1", "asked").whole({"id": "chatcmpl-1", "model": "gpt-x", "choices": choices, **more})


# -- streamed ------------------------------------------------------------------------------------------------


def test_a_stream_of_text_is_told_event_by_event() -> None:
    assert told(
        chunk(role="assistant", content=""),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk("stop"),
        counted(10, 4, prompt_tokens_details={"cached_tokens": 6}),
    ) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "gpt-x",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 0,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 0,
                },
            },
        },
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 4,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 6,
                "output_tokens": 4,
            },
        },
        {"type": "message_stop"},
    ]


def test_text_is_told_with_the_chunk_that_brings_it() -> None:
    teller = FromChat("msg_1", "asked")
    assert short(teller.feed(chunk(content="a"))) == ["+0 text", "0 'a'"]
    assert short(teller.feed(chunk(content="b"))) == ["0 'b'"]
    assert short(teller.feed(chunk("stop"))) == ["-0"], "nothing more comes, so the block need not stay open"


def test_thinking_text_and_tools_each_have_a_block() -> None:
    events = told(
        chunk(reasoning_content="h"),
        chunk(reasoning_content="m"),
        chunk(content="so"),
        calls(tool(0, id="call_1", name="f")),
        calls(tool(0, '{"q":')),
        calls(tool(0, "1}")),
        chunk("tool_calls"),
    )
    assert short(events) == [
        *("+0 thinking", "0 'h'", "0 'm'", "-0"),
        *("+1 text", "1 'so'", "-1"),
        *("+2 tool_use call_1", "2 '{\"q\":'", "2 '1}'", "-2"),
    ]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_signature_ends_its_block_of_thinking() -> None:
    events = told(
        chunk(reasoning_content="a", thinking_blocks=[{"type": "thinking", "thinking": "a"}]),
        chunk(reasoning_content="", thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "sig"}]),
        chunk(thinking_blocks=[{"type": "redacted_thinking", "data": "xyz"}]),
        chunk(reasoning_content="b", thinking_blocks=[{"type": "thinking", "thinking": "b"}]),
        chunk("stop"),
    )
    assert short(events) == [
        *("+0 thinking", "0 'a'", "0 'sig'", "-0"),
        *("+1 redacted_thinking", "-1"),
        *("+2 thinking", "2 'b'", "-2"),
    ]
    assert events[4]["delta"] == {"type": "signature_delta", "signature": "sig"}


def test_the_older_name_of_reasoning_is_thinking_too() -> None:
    assert short(told(chunk(reasoning="a"), chunk("stop"))) == ["+0 thinking", "0 'a'", "-0"]


def test_reasoning_that_comes_under_both_names_is_told_once() -> None:
    assert short(told(chunk(reasoning="a", reasoning_content="a"), chunk("stop"))) == ["+0 thinking", "0 'a'", "-0"]


def test_calls_one_after_the_other_are_each_told_live() -> None:
    teller = FromChat("msg_1", "asked")
    seen = [
        short(teller.feed(piece))
        for piece in (
            calls(tool(0, '{"a":', id="c0", name="f")),
            calls(tool(0, "1}")),
            calls(tool(1, "{", id="c1", name="g")),
            calls(tool(1, "}")),
        )
    ]
    assert seen == [
        ["+0 tool_use c0", "0 '{\"a\":'"],
        ["0 '1}'"],
        ["-0", "+1 tool_use c1", "1 '{'"],
        ["1 '}'"],
    ]


def test_calls_that_grow_side_by_side_are_told_one_after_the_other() -> None:
    events = told(
        calls(tool(0, "{", id="c0", name="f"), tool(1, "{", id="c1", name="g")),
        calls(tool(1, '"b":2'), tool(0, '"a":1')),
        calls(tool(1, "}"), tool(0, "}")),
        chunk("tool_calls"),
    )
    assert short(events) == [
        *("+0 tool_use c0", "0 '{'", "0 '\"a\":1'", "0 '}'", "-0"),
        *("+1 tool_use c1", "1 '{\"b\":2}'", "-1"),
    ]


def test_text_after_a_call_that_is_whole_is_told_at_once() -> None:
    events = told(calls(tool(0, "{}", id="c0", name="f")), chunk(content="then"), end=False)
    assert short(events) == ["+0 tool_use c0", "0 '{}'", "-0", "+1 text", "1 'then'"]


def test_text_within_a_call_waits_for_its_end() -> None:
    events = told(
        calls(tool(0, "{", id="c0", name="f")), chunk(content="mean"), chunk(content="while"), calls(tool(0, "}"))
    )
    assert short(events) == ["+0 tool_use c0", "0 '{'", "0 '}'", "-0", "+1 text", "1 'meanwhile'", "-1"]


def test_a_call_without_a_name_yet_holds_no_text_back() -> None:
    events = told(
        chunk(content="a"), calls(tool(0, "{", id="c0")), chunk(content="b"), calls(tool(0, "}", name="f")), end=False
    )
    assert short(events) == ["+0 text", "0 'a'", "0 'b'", "-0", "+1 tool_use c0", "1 '{}'"]


def test_calls_without_arguments_have_an_empty_input() -> None:
    events = told(calls(tool(0, id="c0", name="f"), tool(1, id="c1", name="g")), chunk("tool_calls"))
    assert short(events) == ["+0 tool_use c0", "-0", "+1 tool_use c1", "-1"]
    assert [event["content_block"]["input"] for event in events if "content_block" in event] == [{}, {}]


def test_calls_that_all_have_the_same_index_are_told_apart_by_their_ids() -> None:
    events = told(calls(tool(0, "{}", id="c0", name="f")), calls(tool(0, '{"b":1}', id="c1", name="f")))
    assert short(events) == ["+0 tool_use c0", "0 '{}'", "-0", "+1 tool_use c1", "1 '{\"b\":1}'", "-1"]


def test_a_call_without_an_id_is_given_one() -> None:
    events = told(calls(tool(0, "{}", name="f"), tool(1, "{}", name="f")))
    assert [event["content_block"]["id"] for event in events if "content_block" in event] == ["toolu_1_0", "toolu_1_1"]


def test_a_tool_is_told_by_the_callers_name_of_it() -> None:
    long = "x" * 100
    [start] = [
        event
        for event in told(calls(tool(0, "{}", id="c0", name=sent_name(long))), names={sent_name(long): long})
        if event["type"] == "content_block_start"
    ]
    assert start["content_block"]["name"] == long


def test_the_older_function_call_is_a_tool_too() -> None:
    events = told(
        chunk(function_call={"name": "f", "arguments": "{"}),
        chunk(function_call={"arguments": "}"}),
        chunk("function_call"),
    )
    assert short(events) == ["+0 tool_use toolu_1_0", "0 '{'", "0 '}'", "-0"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_only_the_first_choice_is_told() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]}
    events = told(chunk(content="a"), other, chunk("length"))
    assert short(events) == ["+0 text", "0 'a'", "-0"]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_nothing_is_told_before_there_is_a_choice() -> None:
    assert told({"id": "", "model": "", "choices": [], "prompt_filter_results": []}, end=False) == []


def test_usage_that_comes_early_is_in_the_start() -> None:
    [start, _] = told({**chunk(role="assistant"), "usage": {"prompt_tokens": 7, "completion_tokens": 1}}, end=False)
    assert (start["message"]["usage"]["input_tokens"], start["message"]["usage"]["output_tokens"]) == (7, 1)


def test_an_end_without_a_reason_claims_none() -> None:
    events = told(chunk(content="a"))
    assert short(events) == ["+0 text", "0 'a'", "-0"]
    assert events[-2]["delta"] == {"stop_reason": None, "stop_sequence": None}


def test_an_end_without_any_chunk_still_has_its_start() -> None:
    assert [event["type"] for event in told()] == ["message_start", "ping", "message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("reason", "becomes"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("function_call", "tool_use"),
        ("content_filter", "refusal"),
        ("insufficient_system_resource", "insufficient_system_resource"),
    ],
)
def test_each_reason_has_its_word_and_an_unknown_one_is_kept(reason: str, becomes: str) -> None:
    assert told(chunk(reason))[-2]["delta"]["stop_reason"] == becomes
    assert whole({"content": "a"}, reason)["stop_reason"] == becomes


def test_a_stop_after_a_call_is_one_for_the_tool() -> None:
    """OpenAI says `stop` where the request named the function."""
    assert told(calls(tool(0, "{}", id="c0", name="f")), chunk("stop"))[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_refusal_is_text_and_the_reason_of_the_end() -> None:
    events = told(chunk(refusal="I "), chunk(refusal="can't"), chunk("stop"))
    assert short(events) == ["+0 text", "0 'I '", '0 "can\'t"', "-0"]
    assert events[-2]["delta"]["stop_reason"] == "refusal"
    got = whole({"content": None, "refusal": "I can't"})
    assert (got["content"], got["stop_reason"]) == ([{"type": "text", "text": "I can't"}], "refusal")


def test_an_id_of_anthropics_kind_is_kept() -> None:
    [start, *_] = told({**chunk(content="a"), "id": "msg_theirs"})
    assert start["message"]["id"] == "msg_theirs"


def test_a_model_that_the_provider_does_not_name_is_the_one_that_was_asked() -> None:
    [start, *_] = told({"choices": chunk(content="a")["choices"]})
    assert start["message"]["model"] == "asked"


# -- whole ---------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_told_as_a_message() -> None:
    got = whole(
        {
            "content": "so",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}],
        },
        "tool_calls",
        usage={
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 2, "cache_creation_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    )
    assert got == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-x",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "so"},
            {"type": "tool_use", "id": "c0", "name": "f", "input": {"q": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 2,
            "output_tokens": 5,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }
    anthropic.types.Message.model_validate(got, strict=True)


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "reference"}, {"type": "text", "text": "b"}]
    assert whole({"content": parts})["content"] == [{"type": "text", "text": "ab"}]


def test_arguments_that_are_no_object_are_malformed() -> None:
    with pytest.raises(Malformed, match="no JSON object"):
        whole({"tool_calls": [tool(0, '{"q":', id="c0", name="f")]}, "tool_calls")


def test_arguments_that_the_limit_cut_off_are_told_as_none() -> None:
    [block] = whole({"tool_calls": [tool(0, '{"q":', id="c0", name="f")]}, "length")["content"]
    assert block["input"] == {}


def test_arguments_as_an_object_are_taken_too() -> None:
    call = {"id": "c0", "function": {"name": "f", "arguments": {"q": 1}}}
    assert whole({"tool_calls": [call]})["content"][0]["input"] == {"q": 1}
    assert short(told(chunk(tool_calls=[call])))[1] == "0 '{\"q\":1}'"


# -- hostile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [{"choices": 1}],
        [{"choices": [1]}],
        [{"choices": [{"delta": []}]}],
        [chunk(tool_calls=[1])],
        [chunk(tool_calls={})],
        [chunk(tool_calls=[{"index": "0"}])],
        [chunk(tool_calls=[{"index": True}])],
        [chunk(thinking_blocks=[1])],
        [calls(tool(0, "{}", id="c0", name="f")), chunk(content="a"), calls(tool(0, '{"b":1}'))],
        [calls(tool(0, "{}", id="c0"))],
    ],
)
def test_what_is_no_chunk_is_malformed(chunks: list[JSON]) -> None:
    with pytest.raises(Malformed):
        told(*chunks)


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 1}]}])
def test_what_is_no_answer_is_malformed(answer: JSON) -> None:
    with pytest.raises(Malformed):
        FromChat("msg_1", "asked").whole(answer)


FULL = chunk(
    "stop",
    content="a",
    refusal="b",
    reasoning_content="c",
    thinking_blocks=[{"type": "thinking", "thinking": "c", "signature": "s"}],
    tool_calls=[tool(0, "{}", id="c0", name="f")],
) | {"usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}, "completion_tokens": 1}}
ANYTHING = st.sampled_from([None, True, -1, 10**30, 1.5, float("nan"), "", "x", [], [1], [[]], {}, {"type": []}])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@given(place=st.sampled_from(places(FULL)[1:]), instead=ANYTHING)
@ALIKE
def test_whatever_stands_wherever_is_told_or_malformed(place: tuple[Any, ...], instead: Any) -> None:
    piece = copy.deepcopy(FULL)
    holder: Any = piece
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = instead
    answer = {**piece, "choices": piece["choices"]}
    if isinstance(piece["choices"], list):
        answer["choices"] = [
            {**choice, "message": choice.get("delta")} if isinstance(choice, dict) else choice
            for choice in piece["choices"]
        ]
    for tell in (lambda: told(piece, chunk("stop")), lambda: [FromChat("msg_1", "asked").whole(answer)]):
        try:
            events = tell()
        except Malformed:
            continue
        json.dumps(events, allow_nan=False)


# -- any split -----------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COUNT = st.integers(-5, 1000)


@st.composite
def messages(draw: st.DrawFn) -> JSON:
    """A message of a chat completion with whatever parts."""
    message: JSON = {}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXT)
    message["content"] = draw(TEXT)
    message["refusal"] = draw(st.none() | TEXT)
    inputs = draw(st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT, max_size=2)), max_size=3))
    if inputs:
        message["tool_calls"] = [
            {"id": f"c{number}", "function": {"name": f"f{number}", "arguments": json.dumps(each)}}
            for number, each in enumerate(inputs)
        ]
    return message


def cut(draw: st.DrawFn, text: str) -> list[str]:
    edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *edges], [*edges, len(text)], strict=True)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[JSON, list[JSON]]:
    """An answer that came whole, and chunks that say the same; calls may grow side by side."""
    message = draw(messages())
    deltas = [
        {name: piece}
        for name in ("reasoning_content", "content", "refusal")
        for piece in cut(draw, message.get(name) or "")
    ]
    queues = [
        [
            tool(number, piece, **({"id": call["id"], "name": call["function"]["name"]} if not place else {}))
            for place, piece in enumerate(cut(draw, call["function"]["arguments"]))
        ]
        for number, call in enumerate(message.get("tool_calls", []))
    ]
    begun = 0  # calls begin in order, whatever comes in between
    while any(queues):
        ready = [number for number in range(min(begun + 1, len(queues))) if queues[number]]
        number = draw(st.sampled_from(ready)) if ready else begun
        deltas.append({"tool_calls": [queues[number].pop(0)]})
        begun = max(begun, number + 1)
    usage = draw(
        st.none()
        | st.fixed_dictionaries(
            {
                "prompt_tokens": COUNT,
                "completion_tokens": COUNT,
                "prompt_tokens_details": st.fixed_dictionaries(
                    {"cached_tokens": COUNT, "cache_creation_tokens": COUNT}
                ),
                "completion_tokens_details": st.fixed_dictionaries({"reasoning_tokens": COUNT}),
            }
        )
    )
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter", "odd"]))
    choice = {"index": 0, "message": message, "finish_reason": reason}
    chunks = [*(chunk(**delta) for delta in deltas), chunk(reason), {"choices": [], "usage": usage}]
    return {"id": "chatcmpl-1", "model": "gpt-x", "choices": [choice], "usage": usage}, chunks


def counts_of(events: list[JSON]) -> list[int]:
    usages = [event.get("usage") or event.get("message", {}).get("usage") or {} for event in events]
    return [count for usage in usages for count in usage.values() if isinstance(count, int)]


@given(stream=streams())
@ALIKE
def test_a_stream_says_what_the_whole_answer_says(stream: tuple[JSON, list[JSON]]) -> None:
    answer, chunks = stream
    came, streamed = MessagesTranscript(), MessagesTranscript()
    came.take(FromChat("msg_1", "asked").whole(answer))
    for event in told(*chunks):
        streamed.add(event)
    assert streamed.said() == came.said()
    assert (streamed.id, streamed.model) == (came.id, came.model) == ("msg_1", "gpt-x")
    assert streamed.usage == came.usage
    assert came.complete
    assert streamed.complete
    assert streamed.finish_reasons == came.finish_reasons


@given(stream=streams(), dropped=st.sets(st.integers(0, 30)))
@ALIKE
def test_blocks_never_interleave_and_each_that_begins_ends(stream: tuple[JSON, list[JSON]], dropped: set[int]) -> None:
    chunks = [each for number, each in enumerate(stream[1]) if number not in dropped or "tool_calls" in str(each)]
    events = told(*chunks)
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    open_block, following = None, 0
    for event in events[2:-2]:
        if event["type"] == "content_block_start":
            assert (open_block, event["index"]) == (None, following)
            open_block, following = following, following + 1
        else:
            assert event["index"] == open_block
            if event["type"] == "content_block_stop":
                open_block = None
    assert open_block is None
    assert min(counts_of(events)) >= 0


@given(stream=streams())
@ALIKE
def test_anthropics_own_sdk_reads_every_event(stream: tuple[JSON, list[JSON]]) -> None:
    for event in told(*stream[1]):
        if event["type"] == "message_delta" and event["delta"]["stop_reason"] == "odd":
            continue  # a reason of the provider's own, which Anthropic's types do not list
        if event["type"] != "ping":  # not among the events that the SDK hands out
            EVENT.validate_python(event, strict=True)


def test_usage_survives_the_way_through_anthropics_convention() -> None:
    usage = Usage(prompt=10, completion=6, cached=3, cache_write=2, reasoning=4)
    record = MessagesTranscript()
    record.take(
        whole(
            {"content": "a"},
            usage={
                "prompt_tokens": 10,
                "completion_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 3, "cache_creation_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
        )
    )
    assert record.usage == usage
