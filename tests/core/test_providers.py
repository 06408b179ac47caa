"""The table of providers agrees with the LiteLLM that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.core.providers import (
    NOT_SERVED,
    OPENAI_WIRE,
    PROVIDERS,
    SAME_WIRE,
    UNUSED_SECRETS,
)

# Makes the calls that it is asked for, and writes what LiteLLM sent; nothing leaves the process.
SCRIPT = """
import copy, json, sys
import httpx, requests

ANSWER = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": {"prompt_tokens": 1,
    "completion_tokens": 1, "total_tokens": 2}, "choices": [{"index": 0, "finish_reason": "stop",
    "message": {"role": "assistant", "content": "hi"}}]}
sent = []

def answer(self, request):
    sent.append([request.method, str(request.url), request.read().decode("utf-8", "replace")])
    return httpx.Response(200, json=ANSWER, request=request)

def refuse(*args, **kwargs):
    raise ConnectionError("no network here")

httpx.HTTPTransport.handle_request = answer
httpx.AsyncHTTPTransport.handle_async_request = refuse
requests.adapters.HTTPAdapter.send = refuse

import litellm
from litellm.llms.openai_like.json_loader import JSONProviderRegistry

litellm.suppress_debug_info = True
names = {getattr(name, "value", name) for name in litellm.provider_list}
names |= set(JSONProviderRegistry.list_providers())
asked = json.loads(sys.argv[1])
calls = {}
for name, model, place, base in asked["calls"]:
    sent.clear()
    body = copy.deepcopy(asked["body"])
    try:
        litellm.completion(model=f"{name}/{model}", api_key="sk-probe", api_base=base, drop_params=True,
            max_retries=0, timeout=5, **body)
    except Exception:
        pass
    calls.setdefault(name, {})[place] = [list(entry) for entry in sent if entry[0] == "POST"]
json.dump({"names": sorted(names), "calls": calls}, open(sys.argv[2], "w"))
"""

BODY: dict[str, Any] = {
    "messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "auto",
    "temperature": 0.5,
    "top_p": 0.9,
    "max_completion_tokens": 7,
    "n": 1,
    "stop": ["x"],
    "seed": 3,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "response_format": {"type": "json_object"},
    "parallel_tool_calls": True,
    "logprobs": True,
    "top_logprobs": 2,
    "user": "u",
}
WIRE = sorted(OPENAI_WIRE - {"bedrock_mantle"})  # it would ask AWS who we are
ELSEWHERE = sorted(name for name, row in PROVIDERS.items() if row.needs == "key" and "OPENAI_API_KEY" not in row.keys)
MODELS = {"ragflow": "chat/abc/m", "clarifai": "user.app.m"}  # these two read more out of the name


@pytest.fixture(scope="module")
def litellm_says(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ask LiteLLM in a process of its own: its import costs seconds and patches much."""
    home = tmp_path_factory.mktemp("home")
    asked = {
        "body": BODY,
        "calls": [
            *((name, MODELS.get(name, "probe-model"), "ours", "http://127.0.0.1:9/v1") for name in WIRE),
            *((name, "probe-model", "home", PROVIDERS[name].address) for name in ELSEWHERE),
        ],
    }
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    }
    found = home / "found.json"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked), str(found)],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert found.is_file(), done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(found.read_text())
    return answer


def test_every_provider_of_litellm_is_served_or_has_its_reason(litellm_says: dict[str, Any]) -> None:
    new = set(litellm_says["names"]) - set(PROVIDERS) - set(NOT_SERVED)
    assert sorted(new) == [], "new in LiteLLM: give each a row in PROVIDERS, or a reason in NOT_SERVED"


def test_no_provider_is_listed_that_litellm_does_not_know(litellm_says: dict[str, Any]) -> None:
    assert sorted((set(PROVIDERS) | set(NOT_SERVED)) - set(litellm_says["names"])) == []


def test_no_key_of_another_provider_goes_to_openai(litellm_says: dict[str, Any]) -> None:
    astray = [
        name
        for name in ELSEWHERE
        for _method, url, _body in litellm_says["calls"][name]["home"]
        if urlsplit(url).hostname == "api.openai.com"
    ]
    assert astray == []


@pytest.mark.parametrize("name", WIRE)
def test_the_openai_wire_is_spoken_at_its_path(name: str, litellm_says: dict[str, Any]) -> None:
    _method, url, _body = litellm_says["calls"][name]["ours"][0]
    assert urlsplit(url).hostname == "127.0.0.1"
    assert urlsplit(url).path.endswith("/chat/completions")


@pytest.mark.parametrize("name", sorted(SAME_WIRE))
def test_on_the_same_wire_litellm_adds_and_renames_nothing(name: str, litellm_says: dict[str, Any]) -> None:
    sent = json.loads(litellm_says["calls"][name]["ours"][0][2])
    given = {**BODY, "model": "probe-model"}
    assert {field: sent[field] for field in sent if sent[field] != given.get(field)} == {}


def test_no_name_is_both_served_and_not() -> None:
    assert set(PROVIDERS) & set(NOT_SERVED) == set()


def test_the_wires_name_served_providers_only() -> None:
    assert SAME_WIRE <= OPENAI_WIRE <= set(PROVIDERS)


def test_every_row_is_known_by_its_own_name_and_needs_something_known() -> None:
    for name, row in PROVIDERS.items():
        assert row.name == name
        assert row.keys or row.needs == "cloud"
        assert row.any_of or row.needs != "cloud"
        assert row.missing(key=False, address=False), f"{name} would be called without anything set"
        assert row.missing(key=True, address=True, identity=True) is None


def test_every_provider_has_the_variables_of_the_rule() -> None:
    for name, row in PROVIDERS.items():
        stem = name.upper().replace("-", "_")
        assert f"{stem}_API_BASE" in row.bases
        if row.needs != "cloud":
            assert row.keys[0] == f"{stem}_API_KEY"


def test_a_provider_that_needs_no_key_must_be_named_by_its_address() -> None:
    ollama = PROVIDERS["ollama"]
    assert ollama.missing(key=True, address=False) == "set OLLAMA_API_BASE"
    assert ollama.missing(key=False, address=True) is None


def test_what_is_missing_is_named_by_its_usual_variable() -> None:
    assert PROVIDERS["openai"].missing(key=False, address=True) == "set OPENAI_API_KEY"
    assert PROVIDERS["azure_text"].missing(key=False, address=False) == "set AZURE_API_KEY and AZURE_API_BASE"
    assert PROVIDERS["azure"].missing(key=False, address=True, identity=True) is None
    assert PROVIDERS["snowflake"].missing(key=True, address=False) == "set SNOWFLAKE_API_BASE or SNOWFLAKE_ACCOUNT_ID"
    told = PROVIDERS["vertex_ai"].missing(key=False, address=True)
    assert told
    assert told.startswith("set one of GOOGLE_APPLICATION_CREDENTIALS, ")


def test_openais_own_name_for_the_address_comes_first() -> None:
    assert PROVIDERS["openai"].bases == ("OPENAI_BASE_URL", "OPENAI_API_BASE")
    assert PROVIDERS["anthropic"].bases == ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_BASE")


def test_the_vendors_own_names_for_their_keys_are_read() -> None:
    assert "GOOGLE_API_KEY" in PROVIDERS["gemini"].keys
    assert "HF_TOKEN" in PROVIDERS["huggingface"].keys
    assert "CO_API_KEY" in PROVIDERS["cohere"].keys
    assert {"TOGETHER_API_KEY", "TOGETHERAI_API_KEY"} <= set(PROVIDERS["together_ai"].keys)


def test_what_runs_a_model_here_or_signs_in_as_a_person_is_not_served() -> None:
    for name in ("petals", "vllm", "github_copilot", "chatgpt", "auto_router", "dotprompt", "custom", "a2a"):
        assert NOT_SERVED[name]


def test_secrets_that_nothing_uses_are_no_provider_keys() -> None:
    assert UNUSED_SECRETS & {key for row in PROVIDERS.values() for key in row.keys} == set()


def test_the_table_is_pure(tmp_path: Path) -> None:
    script = "import sys, gateway.core.providers; print('litellm' in sys.modules, 'dotenv' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
