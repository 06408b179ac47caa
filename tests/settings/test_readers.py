"""How the text of a variable becomes a value."""

from __future__ import annotations

import pytest

from gateway.core.providers import SAME_WIRE
from gateway.secret import Secret
from gateway.settings import Settings
from gateway.settings.readers import READERS
from gateway.settings.table import SETTINGS
from tests.settings.loading import faults


def test_every_kind_of_row_has_a_reader_and_every_reader_a_row() -> None:
    assert {row.kind for row in SETTINGS} == set(READERS)


@pytest.mark.parametrize("text", ["tok-a,, tok-b , ", '"tok-a,tok-b"', "'tok-a', \"tok-b\"", '"tok-a","tok-b"'])
def test_blanks_around_and_between_tokens_do_not_matter(text: str) -> None:
    assert Settings.load({"GATEWAY_AUTH_TOKEN": text}).tokens == (Secret("tok-a"), Secret("tok-b"))


@pytest.mark.parametrize("text", ["", "  ", ",", " , ,", '""', "'',\"\""])
def test_a_token_variable_without_a_token_is_a_fault_that_says_what_to_set(text: str) -> None:
    [fault] = faults({"GATEWAY_AUTH_TOKEN": text})
    assert fault.startswith("GATEWAY_AUTH_TOKEN is set but holds no token: set it to ")


@pytest.mark.parametrize("text", ["two words", "tök", "a\x00b"])
def test_a_token_that_no_header_can_carry_is_a_fault_that_does_not_show_it(text: str) -> None:
    [fault] = faults({"GATEWAY_AUTH_TOKEN": f"good,{text}"})
    assert fault.startswith("GATEWAY_AUTH_TOKEN holds a blank or another character")
    assert text not in fault


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e3", "1_0", "five", "86401", "٣"])
def test_a_time_is_a_number_of_seconds_above_0_and_at_most_a_day(text: str) -> None:
    [fault] = faults({"GATEWAY_TIMEOUT_S": text})
    assert fault == f"GATEWAY_TIMEOUT_S must be a number above 0 and at most 86400, not {text!r}"


@pytest.mark.parametrize("text", ["0", "1.5", "many"])
def test_workers_are_whole_and_at_least_one(text: str) -> None:
    [fault] = faults({"WEB_CONCURRENCY": text})
    assert fault.startswith("WEB_CONCURRENCY must be a ")


def test_a_wrong_choice_is_answered_with_the_right_ones() -> None:
    assert faults({"GATEWAY_DEMO": "yes"}) == ["GATEWAY_DEMO must be one of on, off, auto, not 'yes'"]


@pytest.mark.parametrize("text", ["example.com", "https://a.example/path", "https://u@a.example", "null"])
def test_an_origin_has_a_scheme_and_a_host_and_nothing_else(text: str) -> None:
    [fault] = faults({"GATEWAY_CORS_ORIGINS": text})
    assert fault.startswith("GATEWAY_CORS_ORIGINS must hold origins like ")


def test_every_origin_may_be_let_in() -> None:
    assert Settings.load({"GATEWAY_CORS_ORIGINS": "*"}).cors_origins == ("*",)


def test_all_that_can_be_relayed_are_meant_by_all() -> None:
    assert Settings.load({"GATEWAY_RELAY": " openai, HOSTED_VLLM,"}).relay == {"openai", "hosted_vllm"}
    assert Settings.load({"GATEWAY_RELAY": "all"}).relay == SAME_WIRE
    assert Settings.load({}).relay == frozenset()


@pytest.mark.parametrize(
    ("named", "why"),
    [("anthropic", "does not take OpenAI's wire"), ("openia", "is no provider"), ("all,groq", "is no provider")],
)
def test_what_cannot_be_relayed_is_a_fault(named: str, why: str) -> None:
    [fault] = faults({"GATEWAY_RELAY": named})
    assert fault.startswith("GATEWAY_RELAY names ")
    assert why in fault
    assert "hosted_vllm" in fault


def test_the_text_of_a_routes_file_is_taken_as_it_stands_and_does_not_show() -> None:
    text = '  model_list:\n  - model_name: "hunter2"\n'
    got = Settings.load({"GATEWAY_CONFIG_YAML": text})
    assert got.config_yaml == Secret(text)
    assert "hunter2" not in repr(got)
