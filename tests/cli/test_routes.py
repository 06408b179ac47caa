"""`gateway routes explain`."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import pytest

from gateway import assembly
from gateway.cli import main
from gateway.core.cachekey import Wish
from gateway.settings import Settings
from tests.builders import call

ROUTES = """\
model_list:
  - {model_name: smart, litellm_params: {model: openai/gpt-4o-mini, api_key: sk-canary-of-the-file}}
  - {model_name: smart, litellm_params: {model: openai/gpt-3.5-turbo, api_key: sk-canary-of-the-file}}
  - {model_name: lame, litellm_params: {model: groq/x}}
open_catalogue: false
"""
#: Of the callers that `builders.call` makes.
TENANT = "tok_12345678"
BODY = {"model": "smart", "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 100}


@pytest.fixture
def routed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (place / "routes.yaml").write_text(ROUTES)
    monkeypatch.setenv("GATEWAY_CONFIG", str(place / "routes.yaml"))
    return place


def body(place: Path, **more: object) -> str:
    file = place / "body.json"
    file.write_text(json.dumps({**BODY, **more}))
    return str(file)


def test_it_says_what_would_be_tried_why_and_for_how_much(routed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "explain", body(routed)]) == 0
    out = capsys.readouterr().out
    assert "model smart: by ordered" in out
    assert "prompt: about 100 tokens" in out
    assert out.index("openai/gpt-4o-mini") < out.index("openai/gpt-3.5-turbo")
    # 100 tokens at 0.15 USD and 100 at 0.6 USD a million
    assert "0.000015 to 0.000075" in out
    assert "canary" not in out


def test_what_costs_nothing_needs_no_bound_to_have_a_price(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "body.json"
    file.write_text(json.dumps({"model": "demo/echo", "messages": BODY["messages"]}))
    assert main(["routes", "explain", str(file)]) == 0
    assert "0.000000 to 0.000000" in capsys.readouterr().out


def test_as_json_it_is_what_a_preflight_answers(routed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "explain", "--json", body(routed, tools=[{"type": "function"}])]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["object"], told["model"], told["needs"]) == ("preflight", "smart", ["tools"])
    assert [one["breaker"] for one in told["attempts"]] == ["closed", "closed"]


def test_it_reads_the_standard_input(
    routed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(BODY).encode())))
    assert main(["routes", "explain", "-"]) == 0
    assert "gpt-4o-mini" in capsys.readouterr().out


def test_it_says_whether_the_cache_would_answer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"model": "demo/echo", "messages": [{"role": "user", "content": "again"}]}
    (place / "body.json").write_text(json.dumps(asked))
    settings = Settings()
    assembly.migrate(settings)

    def told(*options: str) -> str:
        asked_for = ["routes", "explain", str(place / "body.json"), "--header", "x-bt-use-cache: always", *options]
        assert main(asked_for) == 0
        return next((line for line in capsys.readouterr().out.splitlines() if line.startswith("cache: ")), "")

    assert told() == "", "nobody has said whose answers"
    assert told("--tenant", TENANT) == "cache: miss, to be kept for 3600 s"
    gateway = assembly.build(settings)
    gateway.open()
    try:
        gateway.run(call("demo/echo", "again", cache=Wish()))
        gateway.run(call("demo/echo", "something else", name="mine"))
    finally:
        gateway.close(0.1)
    assert re.fullmatch(r"cache: hit, [\d.]+ s old, kept for [\d.]+ s yet", told("--tenant", TENANT))
    assert told("--tenant", "tok_2").startswith("cache: miss")
    assert told("--tenant", TENANT, "--header", "cache-control: no-cache").startswith("cache: miss")
    named = ["--tenant", TENANT, "--header", "Idempotency-Key: mine"]
    assert main(["routes", "explain", str(place / "body.json"), *named]) == 1
    assert "Another request had this Idempotency-Key" in capsys.readouterr().err


def test_where_the_cache_cannot_be_asked_it_says_so(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "body.json").write_text(json.dumps({"model": "demo/echo", "messages": []}))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    asked = ["routes", "explain", str(place / "body.json"), "--header", "x-bt-use-cache: always", "--tenant", TENANT]
    before = set(threading.enumerate())
    assert main(asked) == 1
    assert "does not answer" in capsys.readouterr().err
    assert set(threading.enumerate()) <= before, "nobody goes on looking for the store"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"model": "nobody"}, "does not exist here"),
        ({"model": "lame"}, "groq is not configured"),
        ({"model": 3}, "model"),
    ],
)
def test_where_nothing_can_be_tried_it_says_why(
    routed: Path, capsys: pytest.CaptureFixture[str], asked: dict[str, object], why: str
) -> None:
    assert main(["routes", "explain", body(routed, **asked)]) == 1
    assert why in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said(routed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", "explain", "nowhere.json"]) == 1
    assert "nowhere.json cannot be read" in capsys.readouterr().err


def test_without_a_verb_it_shows_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes"]) == 2
    assert "explain" in capsys.readouterr().err
