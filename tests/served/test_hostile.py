"""No request chooses a host, a key, a file or a price, and none of a caller's headers reaches a provider."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.provider import FakeProvider, redirect
from tests.served.caller import Caller, body, fault
from tests.served.process import PROVIDER_KEY, TOKEN

KEY = "sk-attacker-0123456789abcdef"

#: `${TRAP}` becomes the address of a server that must not be called. All are names of LiteLLM's own arguments.
HOSTILE: dict[str, dict[str, Any]] = {
    "api_base": {"api_base": "${TRAP}/v1"},
    "base_url": {"base_url": "${TRAP}/v1", "api_key": KEY},
    "api_key": {"api_key": KEY, "organization": "org-attacker", "project": "p"},
    "custom_llm_provider": {"custom_llm_provider": "ollama", "api_base": "${TRAP}"},
    "mock_response": {"mock_response": "a lie", "mock_tool_calls": [], "mock_timeout": True, "mock_delay": 5},
    "fallbacks": {
        "fallbacks": [{"model": "openai/evil", "api_base": "${TRAP}/v1"}],
        "context_window_fallback_dict": {},
    },
    "model_list": {
        "model_list": [{"model_name": "x", "litellm_params": {"model": "openai/evil", "api_base": "${TRAP}/v1"}}]
    },
    "extra_headers": {"extra_headers": {"x-smuggled": KEY}, "headers": {"x-smuggled": KEY}},
    "extra_query": {"extra_query": {"smuggled": KEY}, "default_headers": {"x-smuggled": KEY}},
    "timeout": {"timeout": 0.001, "request_timeout": 0.001, "stream_timeout": 0.001},
    "retries": {"num_retries": 5, "max_retries": 5, "retry_policy": {}, "retry_strategy": "exponential_backoff_retry"},
    "acompletion": {"acompletion": True, "async_call": True, "use_litellm_proxy": True, "use_chat_completions_api": 1},
    "callbacks": {"callbacks": ["${TRAP}"], "success_callback": ["langfuse"], "logger_fn": "print", "verbose": True},
    "vertex": {"vertex_credentials": "/etc/passwd", "vertex_project": "p", "vertex_location": "l"},
    "aws": {"aws_access_key_id": KEY, "aws_secret_access_key": KEY, "aws_bedrock_runtime_endpoint": "${TRAP}"},
    "azure": {"azure": True, "azure_ad_token": KEY, "api_version": "2024-01-01", "api_type": "azure"},
    "deployment": {"deployment_id": "../../evil", "model_info": {"id": "x"}, "model_config": {}, "engine": "evil"},
    "client": {"client": None, "shared_session": None, "http_client": "x", "ssl_verify": False, "proxy": "${TRAP}"},
    "prompts": {"prompt_id": "evil", "prompt_variables": {"a": 1}, "initial_prompt_value": "x", "roles": {}},
    "prices": {"input_cost_per_token": -1, "output_cost_per_token": -1, "base_model": "gpt-4"},
    "hidden": {"litellm_params": {"api_base": "${TRAP}"}, "litellm_call_id": "x", "litellm_metadata": {"a": 1}},
    "metadata": {"metadata": {"api_base": "${TRAP}/v1", "model_group": "evil", "headers": {"x-smuggled": KEY}}},
    "guardrails": {"guardrails": ["x"], "disable_add_transform_inline_image_block": True, "drop_params": False},
    "allowed": {
        "allowed_openai_params": ["api_base"],
        "additional_drop_params": ["messages"],
        "supports_system_message": 0,
    },
    "extra_body": {"extra_body": {"api_base": "${TRAP}/v1", "model": "evil", "base_url": "${TRAP}"}},
    "search": {"web_search_options": {"base_url": "${TRAP}"}, "search_api_base": "${TRAP}"},
    "dunder": {"__class__": "x", "self": 1, "model_extra": {}, "args": [1], "kwargs": {"api_base": "${TRAP}"}},
    "cache": {"caching": True, "cache": {"no-store": True}, "cache_key": "x", "ttl": 1, "preset_cache_key": "y"},
}


def aimed(value: Any, trap: FakeProvider) -> Any:
    """Put the trap's address into a value."""
    if isinstance(value, str):
        return value.replace("${TRAP}", trap.origin)
    if isinstance(value, list):
        return [aimed(item, trap) for item in value]
    if isinstance(value, dict):
        return {name: aimed(item, trap) for name, item in value.items()}
    return value


@pytest.fixture(autouse=True)
def nothing_is_trapped(trap: FakeProvider) -> Any:
    yield
    assert trap.requests() == []


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_names_of_litellms_own_choose_nothing(
    caller: Caller, provider: FakeProvider, trap: FakeProvider, model: str, name: str, fields: dict[str, Any]
) -> None:
    fields = aimed(fields, trap)
    asked = body(f"{name}/{model}") | fields
    whole = caller.post(asked)
    assert whole.status_code == 200, whole.text
    assert whole.json()["choices"][0]["message"]["content"] == "hello there"
    streamed = caller.read(asked)
    assert streamed.ends_well
    assert streamed.text() == "hello there"

    got = provider.requests(model)
    assert len(got) == 2
    for request in got:
        assert (request.headers.get("authorization") or request.headers["x-api-key"]).endswith(PROVIDER_KEY)
        assert request.path == ("/v1/chat/completions" if name == "openai" else "/v1/messages")
        assert not [header for header in request.headers if "smuggled" in header]
        if name == "openai":
            for field, value in fields.items():
                assert request.body[field] == value, "a field that is the provider's business got lost"
        else:
            assert set(request.body) <= {"model", "messages", "max_tokens", "stream", "metadata", "tools"}
            assert KEY.encode() not in request.raw


def test_no_header_of_the_caller_reaches_a_provider(caller: Caller, provider: FakeProvider, model: str) -> None:
    private = {
        "Cookie": "session=private",
        "X-Api-Key": "private-1",
        "Api-Key": "private-2",
        "OpenAI-Organization": "org-private",
        "OpenAI-Project": "proj-private",
        "User-Agent": "private-agent/1",
        "X-Stainless-Lang": "private",
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "private.example",
        "Forwarded": "for=203.0.113.9",
        "Traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01",
        "Baggage": "private=1",
        "X-Bt-Parent": "project_name:private",
        "X-Gateway-Tags": "private",
        "X-Request-Id": "private-id",
        "Accept": "private/type",
        "Accept-Language": "private",
        "Referer": "https://private.example/",
        "Origin": "https://private.example",
        "Helicone-Auth": "private",
        "X-LiteLLM-Timeout": "0.001",
        "Range": "bytes=0-1",
    }
    for name in ("openai", "anthropic"):
        named = {**private, "Idempotency-Key": f"private-{name}"}  # a request's own, or it is refused here
        assert caller.post(body(f"{name}/{model}"), **named).status_code == 200
        named["Idempotency-Key"] += "-stream"
        assert caller.read(body(f"{name}/{model}"), **named).ends_well
    assert len(provider.requests(model)) == 4
    for request in provider.requests(model):
        said = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        assert "private" not in said, said
        assert "203.0.113.9" not in said, said
        assert "abababab" not in said, said
        assert TOKEN not in said, said
        assert TOKEN.encode() not in request.raw


def test_the_headers_of_a_closed_list_reach_their_own_provider_alone(
    caller: Caller, provider: FakeProvider, model: str
) -> None:
    sent = {"OpenAI-Beta": "assistants=v9", "Anthropic-Beta": "context-1m-2025-08-07"}
    assert caller.post(body(f"openai/{model}"), **sent).status_code == 200
    assert caller.post(body(f"anthropic/{model}"), **sent).status_code == 200
    by_openai, by_anthropic = provider.requests(model)
    assert by_openai.headers["openai-beta"] == "assistants=v9"
    assert "anthropic-beta" not in by_openai.headers
    assert "context-1m-2025-08-07" in by_anthropic.headers["anthropic-beta"]
    assert "openai-beta" not in by_anthropic.headers


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    caller: Caller, provider: FakeProvider, trap: FakeProvider, model: str, status: int, stream: bool
) -> None:
    provider.script(model, redirect(f"{trap.base_url}/chat/completions", status))
    answered = caller.chat(f"openai/{model}", stream=stream)
    assert answered.status_code == 502
    assert fault(answered)["code"] == "provider_invalid_response"
    assert "location" not in answered.headers
    assert len(provider.requests(model)) == 1


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def document(url: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_id": url, "format": "application/pdf"}}


@pytest.mark.parametrize("part", [picture, document])
@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_an_address_in_a_message_is_fetched_by_nobody_here(
    caller: Caller,
    provider: FakeProvider,
    trap: FakeProvider,
    model: str,
    name: str,
    part: Callable[[str], dict[str, Any]],
) -> None:
    answered = caller.chat(f"{name}/{model}", [part(f"{trap.origin}/picture.png")])
    if answered.status_code != 200:  # who has to fetch it for a provider that cannot, refuses
        assert answered.status_code == 400
        fault(answered)
        assert provider.requests(model) == []


def test_the_address_of_a_picture_reaches_a_provider_that_can_fetch_it(
    caller: Caller, provider: FakeProvider, trap: FakeProvider, model: str
) -> None:
    assert caller.chat(f"openai/{model}", [picture(trap.origin)]).status_code == 200
    assert provider.requests(model)[0].body["messages"][0]["content"] == [picture(trap.origin)]


@pytest.mark.parametrize("url", ["litellm_proxy", "litellm_proxy/mcp/evil", " LiteLLM_proxy/x"])
def test_litellms_own_tool_server_cannot_be_named(caller: Caller, provider: FakeProvider, model: str, url: str) -> None:
    tool = {"type": "mcp", "server_label": "x", "server_url": url, "require_approval": "never"}
    refused = caller.chat(f"openai/{model}", tools=[tool])
    assert refused.status_code == 400
    assert fault(refused)["param"] == "tools"
    assert provider.requests(model) == []


@pytest.mark.parametrize("name", ["../../v1/evil", "a/../../b", "x?y=1", "x#y", "a//b", "x%2e%2e", "..", "x\\y"])
def test_a_models_name_leads_to_no_other_path(caller: Caller, provider: FakeProvider, model: str, name: str) -> None:
    before = len(provider.requests())
    plain = caller.chat(f"openai/{model}/{name}")
    assert plain.status_code == 200
    caller.chat(f"anthropic/{model}/{name}")
    paths = {request.path for request in provider.requests()[before:]}
    assert paths <= {"/v1/chat/completions", "/v1/messages"}
