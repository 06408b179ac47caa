"""Which price counts, and what a bill says."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import Attempt, Bill, Deployment
from gateway.core.endpoint import Endpoint
from gateway.core.endpoints import (
    CHAT,
    EMBEDDINGS,
    IMAGES,
    IMAGES_EDITS,
    RERANK,
    RESPONSES,
    SPEECH,
    TRANSCRIPTIONS,
)
from gateway.core.media import SpeechTranscript, TranscriptionTranscript
from gateway.core.messages.record import MessagesTranscript
from gateway.core.pricing import Meter, Prices, micro, nano, price_of
from gateway.core.providers import PROVIDERS
from gateway.core.responses.record import ResponsesTranscript
from gateway.core.routing import listed
from gateway.core.transcript import ChatTranscript, Transcript
from gateway.core.usage import Usage
from gateway.upstream import modelmap
from tests.builders import attempt, call, catalogue, delta, finish
from tests.core.pricing.test_price import SIZES, row

JSON = dict[str, Any]


def prompt_price(prices: Prices, provider: str, model: str) -> Decimal | None:
    price = prices.of(provider, model)
    return None if price is None else price.rate("prompt")


# Whose price.


def test_the_full_name_comes_before_the_bare_one() -> None:
    prices = Prices({"groq/m": row(1, provider="groq"), "m": row(2, provider="groq")})
    assert prompt_price(prices, "groq", "m") == 1


def test_a_bare_name_of_the_provider_itself_has_its_price() -> None:
    assert prompt_price(Prices({"m": row(3)}), "openai", "m") == 3


@pytest.mark.parametrize("owner", ["bedrock_converse", "bedrock-x", "bedrock"])
def test_the_maps_spellings_of_a_provider_count_as_it(owner: str) -> None:
    assert Prices({"m": row(provider=owner)}).of("bedrock", "m") is not None


@pytest.mark.parametrize("owner", ["openai", "bedrockish", "", "azure_ai"])
def test_another_providers_bare_name_is_not_its_price(owner: str) -> None:
    assert Prices({"m": row(provider=owner)}).of("bedrock", "m") is None


def test_a_model_that_nobody_prices_has_no_price_and_not_zero() -> None:
    prices = Prices(modelmap.read())
    assert prices.of("openai", "no-such-model") is None
    assert prices.of("nobody", "gpt-4o") is None


def test_the_operators_price_stands_over_litellms_and_says_so() -> None:
    prices = Prices({"m": row(1), "n": row(2)}, {"m": {"input_cost_per_token": 9, "output_cost_per_token": 9}})
    assert [prompt_price(prices, "openai", name) for name in "mn"] == [9, 2]
    assert [(prices.found("openai", name) or ("", ""))[1] for name in "mn"] == ["GATEWAY_PRICES: m", "LiteLLM: n"]


def test_an_operators_row_without_a_price_leaves_litellms() -> None:
    assert prompt_price(Prices({"m": row(1)}, {"m": {"mode": "chat"}}), "openai", "m") == 1


def test_names_of_callers_do_not_fill_the_memory() -> None:
    prices = Prices({"m": row(1)})
    for number in range(5000):
        assert prices.of("openai", f"m{number}") is None
    assert len(prices._found) <= 4097
    assert prices.of("openai", "m") is not None


def test_every_chat_model_that_is_listed_has_a_price_where_its_row_has_one() -> None:
    """Over the whole map of the installed LiteLLM, with every provider set up."""
    rows = modelmap.read()
    prices, found = Prices(rows), catalogue(*PROVIDERS, models=rows)
    for name, provider in listed(found, frozenset({"chat"})):
        model = name.removeprefix(f"{provider}/")
        price = price_of(rows.get(name) or rows.get(model) or {}, provider)
        assert (prices.of(provider, model) is None) == (price is None), name


# Bills.

METER = Meter(
    Prices(
        {
            "m": row(
                0.5,
                2,
                input_cost_per_token_flex=0.25,
                input_cost_per_token_priority=4,
                search_context_cost_per_query=SIZES,
            ),
            "fee": row(0, 1, input_cost_per_request=7),
        }
    )
)


def ended(name: str, usage: JSON, **more: Any) -> Attempt:
    one = attempt(name)
    one.transcript.take({"choices": [{"message": {"content": "hi", **more}}], "usage": usage})
    return one


def test_a_bill_has_a_line_for_each_part_and_the_row_of_its_price() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 1}}
    bill = METER.bill(call(), ended("openai/m", usage))
    assert bill.cost_usd == Decimal("9.5")
    assert bill.document() == {
        "cost_usd": "9.5",
        "price": "LiteLLM: m",
        "parts": [
            {"kind": "prompt", "count": 3, "price_usd": "0.5", "amount_usd": "1.5"},
            {"kind": "completion", "count": 3, "price_usd": "2", "amount_usd": "6"},
            {"kind": "reasoning", "count": 1, "price_usd": "2", "amount_usd": "2"},
        ],
    }


def test_a_bill_notes_what_else_is_to_be_known() -> None:
    claimed = {
        "prompt_tokens": 4,
        "completion_tokens": 0,
        "service_tier": "flex",
        "citation_tokens": 2,
        "inference_geo": "us",
        "cost": 0.5,
    }
    document = METER.bill(call(), ended("openai/m", claimed)).document()
    noted = {name: document[name] for name in ("unpriced", "tier", "modes", "claimed_usd", "cost_usd")}
    assert noted == {"unpriced": ["citation"], "tier": "flex", "modes": ["us"], "claimed_usd": "0.5", "cost_usd": "1"}
    assert json.loads(json.dumps(document)) == document


def test_a_deployments_own_prices_stand_over_those_of_its_model() -> None:
    rows = {"m": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1, "output_cost_per_token": 2}}
    own = (("input_cost_per_token", "0.5"), ("cache_read_input_token_cost", "0.25"))
    deployment, usage = Deployment("openai", "m", prices=own), Usage(10, 4, cached=2)
    meter = Meter(Prices(rows))
    price = meter.price(deployment)
    assert price is not None
    assert price[1] == "the routes file: openai/m"
    assert meter.cost(deployment, usage) == Decimal("0.5") * 8 + Decimal("0.25") * 2 + 2 * 4
    assert meter.cost(Deployment("openai", "m"), usage) == 10 + 2 * 4, (
        "another deployment of the model costs what it did"
    )
    assert meter.cost(Deployment("openai", "unknown", prices=own), Usage(10, 0)) == 5
    assert meter.cost(Deployment("azure", "x", priced_as=("openai", "m"), prices=own[:1]), Usage(0, 1)) == 2
    one = ended("x", {"prompt_tokens": 10, "completion_tokens": 4})
    one.deployment = deployment
    bill = meter.bill(call(), one)
    assert (bill.cost_usd, bill.price) == (5 + 8, "the routes file: openai/m")


def test_a_bill_of_a_model_without_a_price_has_usage_and_no_cost() -> None:
    bill = METER.bill(call(), ended("openai/unknown", {"prompt_tokens": 1, "completion_tokens": 1}))
    assert bill == Bill(Usage(1, 1))
    assert bill.document() == {"cost_usd": None, "price": None, "parts": []}


def test_an_answer_without_usage_is_estimated() -> None:
    one = attempt("openai/m")
    one.transcript.add(finish())
    bill = METER.bill(call(text="x" * 40), one)
    assert (bill.usage, bill.estimated, bill.cost_usd) == (Usage(prompt=10), True, 5)


@pytest.mark.parametrize(
    "claimed",
    [
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "8", "completion_tokens": "2"},
        {"prompt_tokens": -8, "completion_tokens": -2},
        {"prompt_tokens": True, "completion_tokens": True},
        {"input_tokens": 8, "output_tokens": 2},
        {"total_tokens": 10},
        {"cost": 0},
    ],
    ids=repr,
)
def test_a_usage_that_counts_nothing_is_none(claimed: JSON) -> None:
    bill = METER.bill(call(text="a" * 32), ended("openai/m", claimed, content="eight by"))
    assert bill.usage is not None
    assert (bill.usage.prompt, bill.usage.completion, bill.estimated) == (8, 2, True)


def test_an_answer_that_was_neither_asked_nor_told_in_words_stays_free() -> None:
    one = ended("openai/m", {"prompt_tokens": 0, "completion_tokens": 0}, content="")
    assert METER.bill(call(text=""), one).cost_usd == 0


def cut(transcript: Transcript, *events: JSON) -> Bill:
    """The bill of a stream that broke off, or that its caller left."""
    one = attempt("openai/m")
    one.transcript = transcript
    for event in events:
        transcript.add(event)
    assert not transcript.complete
    return METER.bill(call(text="a" * 32), one)


def message(counted: JSON, *texts: str) -> Bill:
    """Anthropic's: what was counted stands in front."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts
    ]
    return cut(MessagesTranscript(), {"type": "message_start", "message": {"usage": counted}}, start, *deltas)


def test_a_stream_that_is_left_costs_what_was_said_and_not_what_was_counted_before_it() -> None:
    bill = message({"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}, *["four"] * 10)
    assert bill.usage == Usage(prompt=7, cached=2, completion=10)
    assert bill.estimated


@pytest.mark.parametrize("counted", [{"prompt_tokens": 7, "completion_tokens": 1}, {"prompt_tokens": 7}], ids=repr)
def test_so_does_a_chat_whose_first_chunk_has_the_usage(counted: JSON) -> None:
    bill = cut(ChatTranscript(), {**delta("four"), "usage": counted}, *[delta("four")] * 9)
    assert bill.usage == Usage(prompt=7, completion=10)
    assert bill.estimated


def test_a_stream_that_is_left_and_was_counted_as_it_came_costs_what_was_counted() -> None:
    chunks = [{**delta("eightby"), "usage": {"prompt_tokens": 7, "completion_tokens": n + 1}} for n in range(10)]
    bill = cut(ChatTranscript(), *chunks)
    assert bill.usage == Usage(prompt=7, completion=10)
    assert not bill.estimated


def test_a_whole_answer_costs_what_its_provider_counted_however_little_that_is() -> None:
    one = ended("openai/m", {"prompt_tokens": 1, "completion_tokens": 2}, content="a" * 4000)
    assert METER.bill(call(), one).usage == Usage(prompt=1, completion=2)


def test_speech_that_is_priced_by_tokens_and_tells_none_is_estimated() -> None:
    meter = Meter(Prices({"tts": row(1, 10, output_cost_per_audio_token=2)}))
    one = attempt("openai/tts")
    one.transcript = spoken = SpeechTranscript()
    spoken.asked({"input": "c" * 72})
    spoken.feed(b"sound")
    spoken.end()
    bill = meter.bill(call(endpoint=SPEECH), one)
    assert (bill.cost_usd, bill.estimated) == (18 + 2 * 100, True)


def test_a_transcription_that_is_left_costs_the_recording_that_was_heard_until_then() -> None:
    meter = Meter(Prices({"stt": row(5, 2, input_cost_per_audio_token=3)}))
    one = attempt("openai/stt")
    one.transcript = heard = TranscriptionTranscript()
    heard.add({"type": "transcript.text.delta", "delta": "c" * 90})
    bill = meter.bill(call(endpoint=TRANSCRIPTIONS), one)
    assert (bill.cost_usd, bill.estimated) == (3 * 60 + 2 * 23, True)


def test_speech_that_is_left_costs_its_characters_alone() -> None:
    meter = Meter(Prices({"tts": {"litellm_provider": "openai", "input_cost_per_character": 0.5}}))
    one = attempt("openai/tts")
    one.transcript = spoken = SpeechTranscript()
    spoken.asked({"input": "four"})
    spoken.feed(b"the beginning of a sound")
    assert meter.bill(call(endpoint=SPEECH), one).cost_usd == 2


def test_a_bill_is_made_once_and_what_came_so_far_is_not_kept() -> None:
    one = attempt("openai/m")
    one.transcript.add({"choices": [], "usage": {"prompt_tokens": 1}})
    assert METER.so_far(call(), one).cost_usd == Decimal("0.5")
    one.transcript.add({"choices": [], "usage": {"prompt_tokens": 2}})
    kept = METER.bill(call(), one)
    assert kept.cost_usd == 1
    one.transcript.add({"choices": [], "usage": {"prompt_tokens": 3}})
    assert METER.bill(call(), one) is kept


def test_what_costs_nothing_has_no_bill() -> None:
    one = ended("openai/m", {"prompt_tokens": 1})
    one.metered = False
    assert METER.bill(call(), one) == Bill()
    assert METER.bill(call(), attempt("openai/m")) == Bill()


def test_a_chat_of_openais_that_cites_the_web_has_searched_once() -> None:
    usage, cites = {"prompt_tokens": 2, "completion_tokens": 0}, [{"type": "url_citation"}, {"type": "url_citation"}]
    assert METER.bill(call(), ended("openai/m", usage, annotations=cites)).cost_usd == 11
    assert METER.bill(call(), ended("openai/m", usage, annotations=[{"type": "file"}])).cost_usd == 1
    assert METER.bill(call(), ended("openai/m", usage, annotations="url_citation")).cost_usd == 1


def test_each_search_of_a_response_is_billed() -> None:
    one = attempt("openai/m")
    one.transcript = ResponsesTranscript()
    searches = [{"type": "web_search_call", "id": "ws_1"}, {"type": "web_search_call", "id": "ws_2"}]
    usage = {"input_tokens": 2, "output_tokens": 0}
    one.transcript.take({"status": "completed", "output": searches, "usage": usage})
    assert METER.bill(call(endpoint=RESPONSES), one).cost_usd == 1 + 2 * 10


# Before the call.


def test_an_estimate_has_the_prompt_the_output_and_the_fee() -> None:
    bill = METER.estimate(call(text="x" * 40), attempt("openai/fee").deployment, 3)
    assert (bill.usage, bill.estimated, bill.cost_usd) == (Usage(10, 3), True, 3 + 7)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "x" * 40}], "tools": [{"function": {"name": "y" * 40}}]}, 20),
        ({"input": "x" * 40, "instructions": "y" * 20}, 15),
    ],
)
def test_an_estimate_counts_what_the_model_reads_besides(body: JSON, tokens: int) -> None:
    endpoint = {"endpoint": RESPONSES} if "input" in body else {}
    bill = METER.estimate(call(text="", body=body, **endpoint), attempt("openai/m").deployment, 0)
    assert bill.usage == Usage(prompt=tokens)


def test_an_estimate_of_token_numbers_counts_each() -> None:
    asked = call(endpoint=EMBEDDINGS, body={"input": [[1, 2, 3], [4]]})
    assert METER.estimate(asked, attempt("openai/m").deployment, 0).usage == Usage(prompt=4)


@pytest.mark.parametrize(("tier", "usd"), [(None, 5), ("flex", 5), ("priority", 40), ("auto", 5), (["x"], 5)])
def test_an_estimate_takes_the_dearer_of_the_tiers_that_may_be_served(tier: Any, usd: int) -> None:
    asked = call(text="x" * 40, body={"service_tier": tier} if tier is not None else {})
    assert METER.estimate(asked, attempt("openai/m").deployment, 0).cost_usd == usd


@pytest.mark.parametrize(
    ("endpoint", "body", "priced", "usd"),
    [
        (SPEECH, {"input": "c" * 72}, {"input_cost_per_character": 0.5}, 36),
        (SPEECH, {"input": "c" * 72}, {"input_cost_per_token": 1, "output_cost_per_audio_token": 2}, 18 + 200),
        (IMAGES, {"prompt": "x" * 40, "n": 3}, {"output_cost_per_image": 2}, 6),
        (IMAGES, {"prompt": "x" * 40}, {"output_cost_per_image": 2}, 2),
        (IMAGES, {"prompt": "x" * 40}, {"input_cost_per_token": 1, "output_cost_per_image_token": 2}, 10 + 2 * 7),
        (IMAGES_EDITS, {"prompt": "x", "n": 2}, {"output_cost_per_image": 2}, 4),
        (RERANK, {"query": "x", "documents": ["y"]}, {"input_cost_per_query": 3}, 3),
        (RERANK, {"query": "x", "documents": ["y"]}, {**row(0, 0), "input_cost_per_query": 3}, 3),
        (CHAT, {}, {"input_cost_per_query": 3}, None),
        (TRANSCRIPTIONS, {}, {"input_cost_per_second": 3}, None),
    ],
)
def test_an_estimate_counts_what_a_model_is_priced_by(
    endpoint: Endpoint, body: JSON, priced: JSON, usd: int | None
) -> None:
    meter = Meter(Prices({"m": {"litellm_provider": "openai", **priced}}))
    made = call(endpoint=endpoint)
    made.body = body
    prompt = 10 if "prompt" in body else None
    assert meter.estimate(made, attempt("openai/m").deployment, 7, prompt).cost_usd == usd


def test_an_estimate_of_a_model_without_a_price_is_unknown() -> None:
    bill = METER.estimate(call(), attempt("openai/unknown").deployment, 10)
    assert (bill.cost_usd, bill.usage) == (None, Usage(1, 10))


def test_an_estimate_goes_by_the_price_that_the_operator_named() -> None:
    other = attempt("azure/ours", priced_as=("openai", "fee"))
    assert METER.estimate(call(), other.deployment, 1).cost_usd == 8


# Whole numbers.


@pytest.mark.parametrize(
    ("usd", "nanos", "micros"),
    [
        ("0", 0, 0),
        ("0.000000001", 1, 1),
        ("0.0000000005", 1, 1),
        ("0.00000000049", 0, 0),
        ("0.000001", 1000, 1),
        ("0.0000010004", 1000, 1),
        ("0.000001001", 1001, 2),
        ("12.3456789", 12_345_678_900, 12_345_679),
    ],
)
def test_money_is_rounded_half_up_to_nanos_and_up_to_micros(usd: str, nanos: int, micros: int) -> None:
    assert (nano(Decimal(usd)), micro(Decimal(usd))) == (nanos, micros)


@given(st.decimals(0, 10**12, places=25))
def test_a_budget_and_the_ledger_agree(cost: Decimal) -> None:
    assert micro(cost) == (nano(cost) + 999) // 1000
    assert abs(nano(cost) - cost * 10**9) <= Decimal("0.5")
