"""An estimate of a request's tokens, where its provider counts none."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import Deployment
from gateway.core.endpoints import COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES, Endpoint
from gateway.errors import InvalidRequest
from gateway.offload import LARGE_BYTES
from gateway.upstream import counting
from gateway.upstream.counting import Counting, tokens_of
from gateway.upstream.litellm import LiteLLM
from tests.builders import attempt, call

JSON = dict[str, Any]
PNG = "data:image/png;base64," + "iVBORw0KGgo" * 1000


def words(text: str) -> int:
    return len(text.split())


def counted(endpoint: Endpoint, name: str = "groq/m", **body: Any) -> JSON:
    seen: list[Deployment] = []

    def count(deployment: Deployment, text: str) -> int:
        seen.append(deployment)
        return words(text)

    tried, made = attempt(name), call(name, endpoint=endpoint)
    made.body = {"model": name, **body}
    tried.transcript = endpoint.transcript()
    answer = Counting(count).open(tried, made)
    assert seen == [tried.deployment]
    assert list(answer.chunks()) == []
    answer.close()
    document: JSON = json.loads(answer.body)
    assert tried.transcript.said() == document
    assert tried.transcript.usage is None, "nothing was generated, so nothing is billed"
    return document


MESSAGE = 3 + 1  # the marks of one message, and its role
MARKS = MESSAGE + 3  # and those in front of the answer


def test_a_message_is_counted_in_anthropics_shape() -> None:
    got = counted(COUNT_TOKENS, messages=[{"role": "user", "content": "one two three"}])
    assert got == {"input_tokens": 3 + MARKS}


@pytest.mark.parametrize(
    "asked", ["one two", [{"role": "user", "content": [{"type": "input_text", "text": "one two"}]}]]
)
def test_a_response_is_counted_in_openais_shape(asked: Any) -> None:
    assert counted(INPUT_TOKENS, input=asked) == {"object": "response.input_tokens", "input_tokens": 2 + MARKS}


def test_the_conversation_before_it_is_counted_too() -> None:
    tried, made = attempt("groq/m"), call("groq/m", endpoint=INPUT_TOKENS)
    made.body = {"model": "groq/m", "input": "one"}
    made.history = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "two three"}]}]
    tried.transcript = INPUT_TOKENS.transcript()
    assert (
        json.loads(Counting(lambda _, text: words(text)).open(tried, made).body)["input_tokens"] == 3 + MARKS + MESSAGE
    )


def test_what_a_model_reads_is_counted_and_what_only_surrounds_it_is_not() -> None:
    tool = {"name": "weather", "description": "tells the weather", "input_schema": {"type": "object", "properties": {}}}
    bare = counted(COUNT_TOKENS, messages=[{"role": "user", "content": "one"}])["input_tokens"]
    assert counted(COUNT_TOKENS, system="be very brief", messages=[{"role": "user", "content": "one"}]) == {
        "input_tokens": bare + 3 + MESSAGE
    }
    with_tool = counted(COUNT_TOKENS, tools=[tool], messages=[{"role": "user", "content": "one"}])["input_tokens"]
    assert with_tool >= bare + 4
    use = {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Oslo"}}
    called = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "rain all day"}]},
    ]
    assert counted(COUNT_TOKENS, messages=called)["input_tokens"] >= bare + 2 * MESSAGE + 4


def test_an_image_has_a_price_of_its_own_whatever_its_size() -> None:
    def of(url: str) -> int:
        parts = [{"type": "input_text", "text": "one"}, {"type": "input_image", "image_url": url}]
        tokens: int = counted(INPUT_TOKENS, input=[{"role": "user", "content": parts}])["input_tokens"]
        return tokens

    assert of(PNG) == of("https://a.example/b.png")
    assert of(PNG) - MARKS - 85 in (1, 2), "the text, and the name of its list"


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (COUNT_TOKENS, {"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        (INPUT_TOKENS, {"input": [{"type": "message", "role": "user", "content": 7}]}, "input.0.content"),
        (INPUT_TOKENS, {}, "input"),
        (INPUT_TOKENS, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.id"),
    ],
)
def test_what_cannot_be_read_is_the_callers_fault(endpoint: Endpoint, body: JSON, param: str) -> None:
    made = call("groq/m", endpoint=endpoint)
    made.body = {"model": "groq/m", **body}
    with pytest.raises(InvalidRequest) as refused:
        Counting(lambda _, text: words(text)).open(attempt("groq/m"), made)
    assert refused.value.param == param


def test_a_large_request_is_counted_off_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer takes a second for some megabytes, and holds up all other calls meanwhile."""
    offloaded: list[int] = []

    def offload(work: Any) -> Any:
        offloaded.append(threading.get_ident())
        return work()

    monkeypatch.setattr(counting, "offload", offload)
    for size, times in ((LARGE_BYTES, 0), (LARGE_BYTES + 1, 1)):
        made = call("groq/m", endpoint=COUNT_TOKENS, body_bytes=size)
        tried = attempt("groq/m")
        tried.transcript = COUNT_TOKENS.transcript()
        Counting(lambda _, text: words(text)).open(tried, made)
        assert len(offloaded) == times


def test_it_serves_the_two_that_count_and_nothing_else() -> None:
    lane = Counting(lambda _, text: words(text))
    to = Deployment("groq", "m")
    assert lane.serves(COUNT_TOKENS, to)
    assert lane.serves(INPUT_TOKENS, to)
    assert not lane.serves(MESSAGES, to)
    assert not lane.serves(RESPONSES, to)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "image_url", "content", "data", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text() | st.none()}), max_size=4), anything
)
def test_no_chat_makes_it_fail(messages: list[JSON], tools: Any) -> None:
    assert tokens_of({"messages": messages, "tools": [{"function": {"parameters": tools}}]}, words) >= 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm", "ignore::UserWarning:pydantic")
@pytest.mark.parametrize("name", ["openai/gpt-4o", "anthropic/claude-x", "groq/llama-3.3", "cohere/command-r"])
def test_litellms_tokenizer_takes_any_text_and_fetches_nothing(loaded: LiteLLM, name: str) -> None:
    to = attempt(name).deployment
    assert loaded.count(to, "") == 0
    assert 2 <= loaded.count(to, "hello there, you") <= 8
    # marks of a tokenizer's own, which some refuse
    assert loaded.count(to, "<|endoftext|><|im_start|>\ud83d\x00") > 0
    assert loaded.count(to, "ä😀" * 50) > 20
