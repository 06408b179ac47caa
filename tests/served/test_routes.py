"""A routes file over the wire: deployments of one provider side by side, each with its own address and key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.loopback import Received
from tests.fakes.provider import FakeProvider, answer, data, delta, error, reset, sse
from tests.served.caller import Caller, body, fault
from tests.served.process import PROVIDER_KEY, TOKEN, Served
from tests.served.traces import Found, text_of, trace_of

# none has the shape of a key, so that only who knows them can hide them
VLLM_KEY = "canary.of.the.vllm"
AZURE_KEY = "canary.of.azure"
LITERAL_KEY = "canary.in.the.file"
CANARIES = (PROVIDER_KEY, VLLM_KEY, AZURE_KEY, LITERAL_KEY)

ROUTES = """\
model_list:
  - {{model_name: public, litellm_params: {{model: openai/gpt-4o-mini}}}}
  - {{model_name: keyless, litellm_params: {{model: openai/llama-open, api_base: "{vllm}/v1"}}}}
  - model_name: own
    litellm_params: {{model: hosted_vllm/llama, api_base: "${{VLLM}}/v1", api_key: os.environ/VLLM_KEY}}
  - model_name: eu
    litellm_params:
      model: azure/eu-deployment
      api_base: {azure}
      api_key: ${{AZURE_EU_KEY}}
      api_version: 2024-10-21
    model_info: {{base_model: azure/eu/gpt-4o-mini-2024-07-18}}
  - model_name: us
    litellm_params: {{model: azure/us-deployment, api_base: "{azure}", api_key: {literal}, api_version: 2025-01-01}}
  - {{model_name: any, litellm_params: {{model: openai/any-1}}}}
  - model_name: any
    litellm_params: {{model: hosted_vllm/any-2, api_base: "{vllm}/v1", api_key: os.environ/VLLM_KEY}}
  - model_name: any
    litellm_params: {{model: azure/any-3, api_base: "{azure}", api_key: os.environ/AZURE_EU_KEY}}
  - {{model_name: lame, litellm_params: {{model: anthropic/claude-x, api_base: "{azure}"}}}}
  - {{model_name: star/*, litellm_params: {{model: openai/star-*}}}}
open_catalogue: false
"""


@pytest.fixture(scope="module")
def openai() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def vllm() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def azure() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        for model in ("eu-deployment", "us-deployment", "any-3"):
            fake.script(model, answer("from azure"))  # its path is none that the fake knows by itself
        yield fake


@pytest.fixture(scope="module")
def routed(
    tmp_path_factory: pytest.TempPathFactory,
    openai: FakeProvider,
    vllm: FakeProvider,
    azure: FakeProvider,
    braintrust: FakeBraintrust,
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("routed")
    routes = folder / "routes.yaml"
    routes.write_text(ROUTES.format(vllm=vllm.origin, azure=azure.origin, literal=LITERAL_KEY))
    settings = {
        "GATEWAY_AUTH_TOKEN": TOKEN,
        "WEB_CONCURRENCY": "1",
        "GATEWAY_CONFIG": str(routes),
        "OPENAI_API_KEY": PROVIDER_KEY,
        "OPENAI_BASE_URL": openai.base_url,
        "VLLM": vllm.origin,
        "VLLM_KEY": VLLM_KEY,
        "AZURE_EU_KEY": AZURE_KEY,
    }
    with Served(folder / "start", settings | braintrust.environment()) as served:
        yield served


@pytest.fixture(scope="module")
def routed_caller(routed: Served) -> Iterator[Caller]:
    with Caller(routed.url, TOKEN) as one:
        yield one


def carried(request: Received) -> dict[str, str]:
    """The headers of a request that can carry a key."""
    return {
        name: request.headers[name] for name in ("authorization", "api-key", "x-api-key") if name in request.headers
    }


def spans(found: Found) -> list[dict[str, object]]:
    """What the attempts of a trace say of themselves, in order."""
    return sorted((row["metadata"] for row in found.under), key=lambda about: about["attempt"])


@pytest.mark.parametrize("streamed", [False, True])
def test_each_name_goes_to_its_own_address_with_its_own_key(
    routed_caller: Caller, openai: FakeProvider, vllm: FakeProvider, azure: FakeProvider, streamed: bool
) -> None:
    expected = {
        "public": (openai, "gpt-4o-mini", {"authorization": f"Bearer {PROVIDER_KEY}"}, "openai"),
        "keyless": (vllm, "llama-open", {"authorization": "Bearer none"}, "openai"),
        "own": (vllm, "llama", {"authorization": f"Bearer {VLLM_KEY}"}, "hosted_vllm"),
        "eu": (azure, "eu-deployment", {"api-key": AZURE_KEY}, "azure"),
        "us": (azure, "us-deployment", {"api-key": LITERAL_KEY}, "azure"),
        "star/1": (openai, "star-1", {"authorization": f"Bearer {PROVIDER_KEY}"}, "openai"),
    }
    for name, (where, model, key, provider) in expected.items():
        got = routed_caller.stream(name) if streamed else routed_caller.chat(name)
        assert got.headers.get("x-gateway-provider") == provider, name
        request = where.requests(model)[-1]
        assert carried(request) == key, name
        assert got.headers["x-gateway-model-id"] == f"{provider}/{model}"
    asked = {one.path for one in azure.requests()}
    assert asked == {
        "/openai/deployments/eu-deployment/chat/completions?api-version=2024-10-21",
        "/openai/deployments/us-deployment/chat/completions?api-version=2025-01-01",
    }


def test_no_other_name_is_answered_and_the_list_has_these(routed_caller: Caller) -> None:
    for name in ("gpt-4o-mini", "openai/gpt-4o-mini", "azure/eu-deployment", "demo/echo", "star/"):
        answered = routed_caller.chat(name)
        assert (answered.status_code, fault(answered)["code"]) == (404, "model_not_found"), name
    listed = {one["id"]: one["owned_by"] for one in routed_caller.http.get("/v1/models").json()["data"]}
    assert listed == {
        "public": "openai",
        "keyless": "openai",
        "own": "hosted_vllm",
        "eu": "azure",
        "us": "azure",
        "any": "openai",
    }


def test_a_deployment_without_its_key_is_not_called(routed_caller: Caller, azure: FakeProvider, routed: Served) -> None:
    answered = routed_caller.chat("lame")
    assert (answered.status_code, fault(answered)["code"]) == (503, "provider_not_configured")
    assert not azure.requests("claude-x")
    assert "this deployment cannot be called: set api_key" in routed.log


def test_deployments_of_one_name_are_tried_in_order_and_each_is_a_span(
    routed_caller: Caller, openai: FakeProvider, vllm: FakeProvider, azure: FakeProvider, braintrust: FakeBraintrust
) -> None:
    openai.script("any-1", error(503))
    vllm.script("any-2", error(429))
    question = "which of the three are you?"
    answered = routed_caller.chat("any", question)
    assert answered.json()["choices"][0]["message"]["content"] == "from azure"
    assert answered.headers["x-gateway-model-id"] == "azure/any-3"
    assert answered.headers["x-gateway-attempted-retries"] == "2"
    found = trace_of(braintrust, question)
    about = found.root["metadata"]
    assert (about["model"], about["served_model"], about["provider"]) == ("any", "any-3", "azure")
    assert [(one["provider"], one["model"]) for one in spans(found)] == [
        ("openai", "any-1"),
        ("hosted_vllm", "any-2"),
        ("azure", "any-3"),
    ]


def test_a_request_that_is_at_fault_is_sent_once(
    routed_caller: Caller, openai: FakeProvider, vllm: FakeProvider
) -> None:
    openai.script("any-1", error(400))
    before = len(vllm.requests("any-2"))
    assert routed_caller.chat("any").status_code == 400
    assert len(vllm.requests("any-2")) == before


def test_a_stream_changes_its_deployment_before_its_first_content_and_never_after(
    routed_caller: Caller, openai: FakeProvider, vllm: FakeProvider
) -> None:
    vllm.script("any-2", answer("the second"))
    openai.script("any-1", sse(delta({"role": "assistant", "content": ""}), reset()))
    got = routed_caller.stream("any")
    assert got.ends_well
    assert got.text() == "the second"
    openai.script("any-1", sse(delta({"content": "the first"}), reset()))
    got = routed_caller.stream("any")
    assert got.fails_once
    assert got.text() == "the first"


def test_the_price_is_the_base_models(routed_caller: Caller, braintrust: FakeBraintrust) -> None:
    question = "what do you cost?"
    routed_caller.chat("eu", question)
    # 12 and 7 tokens, at LiteLLM's price of azure/eu/gpt-4o-mini-2024-07-18
    assert trace_of(braintrust, question).root["metadata"]["cost_usd"] == pytest.approx(12 * 1.65e-7 + 7 * 6.6e-7)


def test_metrics_are_labelled_by_provider_and_model(routed_caller: Caller) -> None:
    routed_caller.chat("own")
    text = routed_caller.http.get("/metrics").text
    assert 'gen_ai_provider_name="hosted_vllm",gen_ai_request_model="llama"' in text


def test_no_key_of_the_file_is_in_an_answer_a_log_or_a_trace(
    routed: Served,
    routed_caller: Caller,
    openai: FakeProvider,
    vllm: FakeProvider,
    azure: FakeProvider,
    braintrust: FakeBraintrust,
) -> None:
    told = {"error": {"message": f"who sent {' and '.join(CANARIES)}?", "code": AZURE_KEY, "type": LITERAL_KEY}}
    places = ((openai, "gpt-4o-mini"), (vllm, "llama"), (azure, "eu-deployment"), (azure, "us-deployment"))
    seen = []
    for number, (name, (where, model)) in enumerate(zip(("public", "own", "eu", "us"), places, strict=True)):
        for reply in (error(400, told), error(500, told), error(401, told), sse(data(told))):
            where.script(model, reply)
            seen.append(routed_caller.post(body(name, f"canary-{number}")).text)
            streamed = routed_caller.read(body(name, f"canary-{number}"))
            seen.append(streamed.raw.decode())
        where.script(model, answer(f"you sent {' '.join(CANARIES)}"))
        routed_caller.chat(name, f"canary-{number} {' '.join(CANARIES)}")
    assert sum("who sent" in text for text in seen) >= 4 * 3 * 2, "the provider's words do reach the caller"
    braintrust.wait_rows(lambda rows: sum("canary-3" in text_of(row) for row in rows) >= 18, 20)
    everything = "\n".join(
        [*seen, routed.log, *map(text_of, braintrust.rows()), routed_caller.http.get("/metrics").text]
    )
    assert "canary-3" in everything
    assert [key for key in CANARIES if key in everything] == []


def test_a_file_with_faults_stops_the_start_and_names_them_all(tmp_path: Path) -> None:
    text = "model_list:\n- model_name: a\n  litellm_params: {model: openai/x, api_bse: 1, tpd: 2}\n"
    served = Served(tmp_path, {"GATEWAY_CONFIG_YAML": text, "WEB_CONCURRENCY": "1"})
    assert served.wait_exit(60) != 0
    assert "GATEWAY_CONFIG_YAML:3:37: model_list[0].litellm_params.api_bse: unknown key" in served.log
    assert "GATEWAY_CONFIG_YAML:3:49: model_list[0].litellm_params.tpd: not supported by this release" in served.log
    assert "Traceback" not in served.log
