"""The catalogue of the settings and a routes file."""

from __future__ import annotations

import pytest

from gateway import routes
from gateway.core.routing import Catalogue
from gateway.routes.catalogue import catalogue_of, needs_litellm
from gateway.settings import Settings
from tests.routes.texts import entry, lines

RELAYED = entry(api_base="http://gpu", model_info={"relay": True})


def catalogue(text: str | None = None, **environ: str) -> Catalogue:
    file = {} if text is None else {"GATEWAY_CONFIG_YAML": text}
    chosen = Settings.load({**environ, **file})
    return catalogue_of(chosen, routes.read(chosen), {"m": {"mode": "chat"}}, ["echo"])


def test_it_has_what_the_file_says_and_what_the_settings_say() -> None:
    made = catalogue(lines(entry("fast"), litellm_settings={"num_retries": 4}), OPENAI_API_KEY="k", GROQ_API_KEY="k")
    assert list(made.aliases) == ["fast"]
    assert set(made.reaches) >= {"openai", "groq"}
    assert (made.trying.retries, made.open, len(made.revision), list(made.models)) == (4, True, 16, ["m"])


def test_without_a_file_it_is_open_and_has_no_revision() -> None:
    made = catalogue()
    assert (made.aliases, made.open, made.revision, made.demo) == ({}, True, "", frozenset({"demo/echo"}))


def test_what_is_relayed_is_told_of_each_provider() -> None:
    made = catalogue(OPENAI_API_KEY="k", GROQ_API_KEY="k", GATEWAY_RELAY="openai")
    assert (made.reaches["openai"].relay, made.reaches["groq"].relay) == (True, False)


@pytest.mark.parametrize(
    ("text", "environ", "needed"),
    [
        (None, {}, False),
        (None, {"OPENAI_API_KEY": "k"}, True),
        (None, {"OPENAI_API_KEY": "k", "GATEWAY_RELAY": "openai"}, False),
        (entry(), {}, False),
        (entry(api_base="http://gpu"), {}, True),
        (RELAYED, {}, False),
        (RELAYED, {"GROQ_API_KEY": "k"}, True),
        (lines(RELAYED, open_catalogue=False), {"GROQ_API_KEY": "k"}, False),
    ],
)
def test_litellm_is_needed_where_something_can_be_called_that_is_not_relayed(
    text: str | None, environ: dict[str, str], needed: bool
) -> None:
    assert needs_litellm(catalogue(text, **environ)) is needed
