"""What the environment says about the providers."""

from __future__ import annotations

import pytest

from gateway.secret import Secret
from gateway.settings import Settings
from tests.settings.loading import faults


def test_a_provider_is_known_when_one_of_its_variables_is_set() -> None:
    got = Settings.load({"OPENAI_API_KEY": " 'sk-1' ", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"}).credentials
    openai = got["openai"]
    assert openai.api_key == Secret("sk-1")
    assert (openai.api_base, openai.missing) == ("http://127.0.0.1:9/v1", None)
    assert "anthropic" not in got


def test_a_provider_that_is_half_set_says_what_is_missing() -> None:
    got = Settings.load({"AZURE_API_KEY": "k", "AZURE_API_VERSION": "v", "GROQ_API_BASE": "http://x"}).credentials
    assert (got["azure"].missing, got["azure"].api_version) == ("set AZURE_API_BASE", "v")
    assert got["groq"].missing == "set GROQ_API_KEY"


def test_a_provider_of_which_nothing_is_set_can_be_asked_about() -> None:
    settings = Settings.load({})
    assert settings.credential("anthropic").missing == "set ANTHROPIC_API_KEY"
    with pytest.raises(KeyError):
        settings.credential("vllm")


def test_a_blank_key_is_no_key() -> None:
    assert Settings.load({"OPENAI_API_KEY": "  ", "GROQ_API_KEY": '""'}).credentials == {}


def test_the_first_name_that_is_set_wins() -> None:
    environ = {"GEMINI_API_KEY": "", "GOOGLE_API_KEY": "second"}
    assert Settings.load(environ).credentials["gemini"].api_key == Secret("second")
    environ = {"GEMINI_API_KEY": "first", "GOOGLE_API_KEY": "second"}
    assert Settings.load(environ).credentials["gemini"].api_key == Secret("first")


def test_a_key_that_no_header_can_carry_is_one_fault_that_does_not_show_it() -> None:
    [fault] = faults({"COHERE_API_KEY": "hunter2\nX-Evil: 1"})  # two providers read it
    assert fault == "COHERE_API_KEY holds a character that an HTTP header cannot carry"


def test_an_address_alone_is_enough_where_no_key_is_needed() -> None:
    got = Settings.load({"OLLAMA_API_BASE": "http://localhost:11434"}).credentials
    assert got["ollama"].missing is None
    assert got["ollama"].api_key is None


def test_a_provider_that_litellm_would_send_astray_gets_its_address() -> None:
    got = Settings.load({"AI21_API_KEY": "k"}).credentials
    assert got["ai21"].api_base == "https://api.ai21.com/studio/v1"


def test_a_cloud_is_known_by_its_identity() -> None:
    got = Settings.load({"AWS_PROFILE": "p"}).credentials
    assert got["bedrock"].missing is None
    assert got["bedrock"].api_key is None
