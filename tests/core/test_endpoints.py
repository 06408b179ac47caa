"""The table of operations, and what it says of a parameter."""

from __future__ import annotations

from typing import Any, get_args

import openai
import pytest
from openai.types.chat import completion_create_params
from openai.types.shared import ReasoningEffort

from gateway.core.endpoints import CHAT, ENDPOINTS, Endpoint, is_at
from gateway.core.fields import Field, fault_of


def test_each_operation_has_a_name_and_a_path_of_its_own() -> None:
    assert len({row.name for row in ENDPOINTS}) == len(ENDPOINTS)
    assert len({(row.method, row.path) for row in ENDPOINTS}) == len(ENDPOINTS)


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
def test_each_row_is_whole(row: Endpoint) -> None:
    assert row.path.startswith("/v1/")
    assert row.method in ("GET", "POST", "DELETE")
    assert row.method == "GET" or row.upstream or row.native, "somebody answers it"
    assert row.summary


def test_every_path_at_a_provider_is_of_one_operation_alone() -> None:
    for row in ENDPOINTS:
        for before in ("", "/v1", "/openai/deployments/m"):
            found = [
                other.name
                for other in ENDPOINTS
                if other.method == row.method and is_at(other, before + row.provider_path)
            ]
            assert found == [row.name]


def test_chat_knows_every_parameter_of_the_openai_sdk() -> None:
    known = set(completion_create_params.CompletionCreateParamsNonStreaming.__annotations__)
    known |= set(completion_create_params.CompletionCreateParamsBase.__annotations__)
    assert known - set(CHAT.parameters) == set(), f"new in openai {openai.__version__}"


def test_no_parameter_chooses_a_host_a_key_a_price_or_a_file() -> None:
    risky = ("api_", "base", "url", "key", "cost", "credential", "header", "callback", "mock", "file", "proxy")
    named = {name for name in CHAT.parameters if any(word in name for word in risky)}
    assert named == {"prompt_cache_key"}


@pytest.mark.parametrize(
    ("value", "field", "fault"),
    [
        ("x", Field((str,)), None),
        (1, Field((str,)), "p must be a string"),
        (None, Field((str,)), None),
        (None, Field((str,), required=True), "p is required"),
        ("", Field((str,), non_empty=True), "p must not be empty"),
        (" \n", Field((str,), non_empty=True), "p must not be empty"),
        ([], Field((list,), non_empty=True), "p must not be empty"),
        (True, Field((bool,)), None),
        (1, Field((bool,)), "p must be a boolean"),
        ("yes", Field((bool,)), "p must be a boolean"),
        (1, Field((int,)), None),
        (True, Field((int,)), "p must be an integer"),
        (1.0, Field((int,)), "p must be an integer"),
        (1, Field((float,)), None),
        (1.5, Field((float,)), None),
        (False, Field((float,)), "p must be a number"),
        ({}, Field((str, dict)), None),
        ([], Field((str, dict)), "p must be a string or an object"),
        ([{}], Field((list,), items=dict), None),
        ([{}, 1], Field((list,), items=dict), "every item of p must be an object"),
        ([True], Field((list,), items=int), "every item of p must be an integer"),
        (0, Field((int,), minimum=1), "p must be at least 1"),
        (1, Field((int,), minimum=1, maximum=1), None),
        (10**30, Field((int,), maximum=128), "p must be at most 128"),
    ],
)
def test_the_fault_of_a_value(value: Any, field: Field, fault: str | None) -> None:
    assert fault_of("p", value, field) == fault


@pytest.mark.parametrize("name", CHAT.parameters)
def test_a_fault_names_its_parameter_and_never_repeats_the_value(name: str) -> None:
    odd: Any = b"secret-value"  # of no JSON type, so it fits no row
    said = fault_of(name, odd, CHAT.parameters[name])
    assert said is not None
    assert name in said
    assert "secret-value" not in said


def test_at_most_128_choices_may_be_asked_for() -> None:
    """n=1e30 has taken servers down."""
    assert fault_of("n", 128, CHAT.parameters["n"]) is None
    assert fault_of("n", 129, CHAT.parameters["n"]) == "n must be at most 128"
    assert fault_of("n", 0, CHAT.parameters["n"]) == "n must be at least 1"


def test_every_reasoning_effort_and_verbosity_of_the_sdk_is_a_text_here() -> None:
    efforts = get_args(get_args(ReasoningEffort)[0])
    for effort in (*efforts, "a-new-one"):
        assert fault_of("reasoning_effort", effort, CHAT.parameters["reasoning_effort"]) is None
