"""Configurations of LiteLLM's proxy in the shapes that its users have: each is read, or is told what to take out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from gateway import routes
from gateway.core import routekeys
from gateway.core.policies import LATENCY, ORDERED, WEIGHTED, Condition
from gateway.routes import Table
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError

FOLDER = Path(__file__).with_name("litellm")
FILES = sorted(FOLDER.glob("*.yaml"))

#: Every variable that the files name, and those that a cloud's account needs.
VARIABLES = {
    **{
        name: f"value-of-{name.lower()}"
        for text in FILES
        for name in re.findall(r"os\.environ/(\w+)", text.read_text())
    },
    "OLLAMA_HOST_URL": "http://gpu-4:11434",
    "DATABASE_URL": "postgresql://user:password@db/gateway",
    "AWS_REGION_NAME": "us-east-1",
    "VERTEXAI_LOCATION": "us-central1",
}
#: What is not supported of each file, by its path in it; the others are read.
REFUSED = {
    "bedrock_and_vertex": [
        "model_list[1].litellm_params.aws_region_name",
        "model_list[2].litellm_params.vertex_credentials",
        "model_list[3].litellm_params.aws_role_name",
        "model_list[3].litellm_params.aws_session_name",
    ],
    "caching": [
        "model_list[0].litellm_params.cache_control_injection_points",
        "litellm_settings.cache",
        "litellm_settings.cache_params",
        "router_settings.cache_responses",
        "router_settings.caching_groups",
        "router_settings.optional_pre_call_checks",
    ],
    "langfuse": [
        "litellm_settings.redact_user_api_key_info",
        "litellm_settings.turn_off_message_logging",
        "environment_variables",
    ],
    "local_servers": ["model_list[2].litellm_params.temperature"],
    "teams_and_budgets": [
        "model_list[0].litellm_params.max_budget",
        "model_list[0].litellm_params.budget_duration",
        "model_list[0].litellm_params.max_parallel_requests",
        "model_list[0].model_info.access_groups",
        "model_list[0].model_info.team_id",
        "litellm_settings.max_budget",
        "litellm_settings.budget_duration",
        "litellm_settings.max_internal_user_budget",
        "litellm_settings.default_team_settings",
        "router_settings.provider_budget_config",
        "general_settings.master_key",
        "general_settings.database_url",
        "general_settings.proxy_budget_rescheduler_min_time",
        "general_settings.user_api_key_cache_ttl",
    ],
}


def read(path: Path) -> Table:
    return routes.read(Settings.load({**VARIABLES, "GATEWAY_CONFIG": str(path)}))


def without(document: Any, path: str) -> None:
    """Take a key out of a document."""
    *steps, last = re.findall(r"\w+", path)
    for step in steps:
        document = document[int(step) if isinstance(document, list) else step]
    del document[last]


def mended(name: str) -> Table:
    """The file without what is refused of it."""
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    for path in REFUSED[name]:
        without(document, path)
    return routes.read(Settings.load({**VARIABLES, "GATEWAY_CONFIG_YAML": json.dumps(document)}))


def test_there_are_ten_of_them_and_no_value_of_a_key_is_in_a_message() -> None:
    assert len(FILES) == 10
    for path in FILES:
        try:
            told = read(path).warnings
        except SettingsError as error:
            told = tuple(error.faults)
        assert told or path.stem == "several_keys"
        assert [line for line in told if "hunter2" in line or "value-of-" in line] == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_supported_is_named_with_its_line_and_nothing_else_is(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    with pytest.raises(SettingsError) as caught:
        read(path)
    named = []
    for fault in caught.value.faults:
        found = re.fullmatch(rf"{re.escape(str(path))}:(\d+):(\d+): (\S+): not supported by this release: .+", fault)
        assert found is not None, fault
        line = path.read_text().splitlines()[int(found[1]) - 1][int(found[2]) - 1 :]
        assert line.startswith(found[3].rpartition(".")[2]), "the place is that of the key"
        named.append(found[3])
    assert named == REFUSED[name]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_without_what_was_named_the_file_is_read(name: str) -> None:
    assert mended(name).usable


@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in REFUSED], ids=lambda path: path.stem)
def test_the_others_are_read_as_they_are(path: Path) -> None:
    table = read(path)
    assert table.usable
    assert all(target.reach.missing is None for _, target in table.targets)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_what_is_read(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    for refused in REFUSED.get(path.stem, []):
        without(document, refused)
    faults = [error.message for error in Draft202012Validator(routekeys.schema()).iter_errors(document)]
    assert faults == []


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_editor_marks_most_of_what_is_refused(name: str) -> None:
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert not Draft202012Validator(routekeys.schema()).is_valid(document)


def test_regions_of_azure_share_the_load_as_their_limits_say_with_openai_behind_them() -> None:
    table = read(FOLDER / "azure_and_openai.yaml")
    east, west = table.aliases["gpt-4o"].targets
    assert (east.weight, west.weight) == (900, 100)
    assert (east.reach.timeout_s, east.reach.stream_timeout_s, east.priced_as) == (60, 5, ("azure", "gpt-4o"))
    policy = table.aliases["gpt-4o"].policy
    assert (policy.strategy, policy.fallbacks) == (WEIGHTED, ("gpt-4o-openai",))
    assert policy.content_policy_fallbacks == ("gpt-4o-openai",)
    assert table.aliases["gpt-4o-mini"].policy.context_window_fallbacks == ("gpt-4o",)
    assert table.aliases["gpt-4o-mini"].targets[0].reach.timeout_s == 600, "request_timeout"
    assert (table.trying.retries, table.trying.allowed_fails, table.trying.cooldown_s) == (3, 3, 30)


def test_keys_of_one_model_are_balanced() -> None:
    one, two = read(FOLDER / "several_keys.yaml").aliases["claude"].targets
    assert (one.weight, two.weight) == (2, 1)
    assert (one.reach.api_key, two.reach.api_key) == (
        Secret("value-of-anthropic_key_1"),
        Secret("value-of-anthropic_key_2"),
    )


def test_wildcards_lead_to_their_providers_and_one_name_of_them_has_its_own_fallbacks() -> None:
    table = read(FOLDER / "wildcards.yaml")
    assert list(table.aliases) == ["openai/*", "anthropic/*", "groq-*", "anthropic/claude-opus-4-5"]
    assert table.aliases["openai/*"].policy.fallbacks == ("openai/gpt-4o-mini",)
    assert table.aliases["anthropic/claude-opus-4-5"].policy.fallbacks == ("anthropic/claude-sonnet-4-5",)
    assert table.aliases["openai/*"].policy.strategy == ORDERED


def test_latency_and_redis_are_read_and_the_state_is_each_workers_own() -> None:
    table = read(FOLDER / "latency_with_redis.yaml")
    assert table.aliases["fast"].policy.strategy == LATENCY
    assert (table.trying.most_fallbacks, table.trying.cooldown_s) == (2, 0)
    assert [target.reach.stream_timeout_s for _, target in table.targets] == [3, 3, 3]
    assert sum("each worker has its own figures" in warning for warning in table.warnings) == 3


def test_aliases_tags_and_what_is_known_of_models_are_read() -> None:
    table = read(FOLDER / "aliases_and_info.yaml")
    assert list(table.aliases) == ["gpt-4o", "reasoner", "gpt-4", "gpt-4-turbo"]
    first, second = table.aliases["gpt-4"].targets
    assert (first.order, second.order, first.most_tokens) == (1, 2, 128_000)
    assert first.abilities == {"vision": True, "json_schema": True}
    assert float(first.prices["cache_read_input_token_cost"]) == 1.25e-06
    assert table.aliases["reasoner"].targets[0].condition == Condition(frozenset({"paid"}))


def test_local_servers_need_no_key_and_their_provider_may_stand_apart() -> None:
    table = mended("local_servers")
    reached = {target.reach.api_base for _, target in table.targets}
    assert reached == {"http://gpu-1:11434", "http://gpu-2:8000/v1", "http://gpu-3:8000/v1", "http://gpu-4:11434"}
    qwen = table.aliases["qwen"].targets[0]
    assert (qwen.provider, qwen.model) == ("openai", "Qwen/Qwen2.5-VL-7B-Instruct")


def test_a_cloud_is_reached_by_its_variables_where_the_file_says_the_same() -> None:
    told = "\n".join(mended("bedrock_and_vertex").warnings)
    for name, variable in (("aws_region_name", "AWS_REGION_NAME"), ("vertex_project", "VERTEXAI_PROJECT")):
        assert f"{name}: has no effect: {variable} says the same, and is what counts" in told
