"""`gateway routes explain`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from gateway.cli import main

ROUTES = """\
model_list:
  - {model_name: smart, litellm_params: {model: openai/gpt-4o-mini, api_key: sk-canary-of-the-file}}
  - {model_name: smart, litellm_params: {model: openai/gpt-3.5-turbo, api_key: sk-canary-of-the-file}}
  - {model_name: lame, litellm_params: {model: groq/x}}
open_catalogue: false
"""
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
