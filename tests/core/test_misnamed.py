"""A name or a path that is nearly right is answered with the one that is."""

from __future__ import annotations

import pytest

from gateway.core.misnamed import meant, served_instead
from gateway.core.providers import PROVIDERS


def known(bare: str) -> bool:
    return bare.startswith(("gpt-", "claude-", "gemini-"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("demo/ecco", "demo/echo"),
        ("echo", "demo/echo"),
        ("fastt", "fast"),
        ("opnai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("OpenAI/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("GPT-4o", "gpt-4o"),
        ("gpt4o-mini", "gpt-4o-mini"),
        ("claude3-haiku", "claude-3-haiku"),
    ],
)
def test_a_misspelt_model_finds_the_one_that_was_meant(name: str, found: str) -> None:
    assert meant(name, ("demo/echo", "fast"), PROVIDERS, known) == found


@pytest.mark.parametrize("name", ["", "ab", "opnai/", "something else", "x" * 65, "openai/gpt-4o-mini", "/v1/chat"])
def test_what_is_like_nothing_finds_nothing(name: str) -> None:
    assert meant(name, ("demo/echo", "fast", "x" * 64), PROVIDERS, known) is None


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/messages/v1/messages", "/v1/messages"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/api/chat/completions", "/v1/chat/completions"),
        ("//v1/models", "/v1/models"),
    ],
)
def test_a_wrong_base_url_shows_in_how_the_path_ends(path: str, served: str) -> None:
    assert served_instead(path) == served


@pytest.mark.parametrize("path", ["/", "", "/v1/nope", "/v1/chat", "/v1/chat/completions/x"])
def test_a_path_that_ends_like_no_operation_gets_no_advice(path: str) -> None:
    assert served_instead(path) is None
