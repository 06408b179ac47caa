"""LiteLLM's keys that are not read, against LiteLLM's own list of them."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from gateway.core import routekeys
from gateway.core.foreignkeys import (
    HARMLESS_SETTINGS,
    callback_reason,
    entry_verdict,
    info_verdict,
    params_verdict,
    settings_verdict,
    top_verdict,
)
from gateway.core.routekeys import ACCOUNTS, PARAMS, PRICE, ROUTER


def source(module: str) -> ast.Module:
    """One of LiteLLM's modules, from its text: importing it takes seconds."""
    package = importlib.util.find_spec("litellm")
    assert package is not None
    assert package.origin is not None
    return ast.parse((Path(package.origin).parent / module).read_text(encoding="utf-8"))


def fields(module: str, *classes: str) -> set[str]:
    """The annotated names of LiteLLM's classes."""
    bodies = [node.body for node in source(module).body if isinstance(node, ast.ClassDef) and node.name in classes]
    assert len(bodies) == len(classes)
    names = (line.target.id for body in bodies for line in body if isinstance(line, ast.AnnAssign) and _is_name(line))
    return {name for name in names if not name.isupper()} - {"model_config"}


def arguments(module: str, owner: str) -> set[str]:
    """What the constructor of one of LiteLLM's classes takes."""
    [found] = [node for node in source(module).body if isinstance(node, ast.ClassDef) and node.name == owner]
    [made] = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return {argument.arg for argument in (*made.args.args, *made.args.kwonlyargs)} - {"self", "_host"}


def _is_name(line: ast.AnnAssign) -> bool:
    return isinstance(line.target, ast.Name)


def test_every_parameter_of_litellms_is_known_for_what_it_is() -> None:
    theirs = fields("types/router.py", "CredentialLiteLLMParams", "GenericLiteLLMParams")
    theirs |= fields("types/utils.py", "MirroredPricingParams", "CustomPricingLiteLLMParams")
    read = {key.name for key in PARAMS} | set(ACCOUNTS)
    unknown = {name for name in theirs - read if not PRICE.fullmatch(name) and params_verdict(name) is None}
    assert unknown == set()
    assert len(theirs) > 100


def test_every_price_per_token_of_litellms_is_read() -> None:
    theirs = fields("types/utils.py", "MirroredPricingParams", "CustomPricingLiteLLMParams")
    of_tokens = {name for name in theirs if "token" in name and not name.startswith("citation")}
    assert {name for name in of_tokens if not PRICE.fullmatch(name)} == set()
    assert len(of_tokens) > 60


@pytest.mark.parametrize("name", ["input_cost_per_tokn", "inputcost_per_token", "input_cost_per_token_", "cost"])
def test_a_price_that_is_none_of_litellms_is_not_taken_for_one(name: str) -> None:
    assert not PRICE.fullmatch(name)


def test_every_setting_of_litellms_router_is_read_or_has_a_reason_of_its_own() -> None:
    theirs = arguments("router_python_core.py", "PythonCore") | fields("types/router.py", "UpdateRouterConfig")
    assert {"num_retries", "default_fallbacks", "routing_strategy"} <= theirs
    changes_routing = {name for name in theirs if "fallback" in name or "retr" in name or "cooldown" in name}
    for name in changes_routing - {key.name for key in ROUTER}:
        verdict = settings_verdict("router_settings", name)
        assert verdict.reason != "nothing here does that", name


def test_what_litellm_charges_and_allows_by_model_info_is_no_note() -> None:
    theirs = fields("types/utils.py", "MirroredPricingParams")
    theirs |= {"ptu_count", "cost_per_ptu_per_hour", "team_id", "blocked", "access_windows", "access_groups", "order"}
    assert {name for name in theirs if not PRICE.fullmatch(name) and info_verdict(name).harmless} == set()
    assert all(info_verdict(name).reason == "" for name in ("id", "description", "team", "max_tokens", "tags"))


@pytest.mark.parametrize("name", ["api_bse", "modle", "key", "", "Model", "rpm2", "rpm\n"])
def test_a_name_that_is_none_of_litellms_is_a_strangers(name: str) -> None:
    assert params_verdict(name) is None


@pytest.mark.parametrize(
    ("section", "name", "harmless", "reason"),
    [
        ("router_settings", "set_verbose", True, "changes nothing"),
        ("router_settings", "redis_host", True, "each worker has its own figures"),
        ("router_settings", "retry_after", True, "Retry-After"),
        ("router_settings", "drop_params", False, "nothing here does that"),
        ("router_settings", "retry_policy", False, "which deployment is tried"),
        ("router_settings", "allowed_fails_policy", False, "which deployment is tried"),
        ("router_settings", "model_group_retry_policy", False, "which deployment is tried"),
        ("router_settings", "cache_responses", False, "GATEWAY_CACHE"),
        ("litellm_settings", "drop_params", True, "changes nothing"),
        ("litellm_settings", "model_group_alias", False, "router_settings.model_group_alias"),
        ("litellm_settings", "turn_off_message_logging", False, "GATEWAY_TRACE_CONTENT=off"),
        ("litellm_settings", "max_budget", False, "limit calls"),
        ("litellm_settings", "cache", False, "GATEWAY_CACHE"),
        ("litellm_settings", "default_team_settings", False, "who may do what"),
        ("general_settings", "master_key", False, "GATEWAY_AUTH_TOKEN"),
        ("general_settings", "database_url", False, "DATABASE_URL"),
        ("general_settings", "store_model_in_db", True, "models stand in this file"),
        ("general_settings", "new_in_a_later_release", False, "nothing here does that"),
    ],
)
def test_a_setting_of_litellms_is_harmless_only_where_that_is_known(
    section: str, name: str, harmless: bool, reason: str
) -> None:
    verdict = settings_verdict(section, name)
    assert verdict.harmless is harmless
    assert reason in verdict.reason


def test_no_key_is_both_read_and_said_to_have_no_effect() -> None:
    for section, harmless in HARMLESS_SETTINGS.items():
        assert {key.name for key in routekeys.SECTIONS[section]} & set(harmless) == set()
    assert all(params_verdict(key.name) is None for key in PARAMS)


def test_other_keys_at_the_top_are_litellms_or_strangers() -> None:
    verdict = top_verdict("environment_variables")
    assert verdict is not None
    assert not verdict.harmless
    assert top_verdict("model_lst") is None


def test_a_key_beside_the_parameters_is_told_to_belong_into_them() -> None:
    verdict = entry_verdict("rpm")
    assert verdict is not None
    assert verdict.harmless
    assert entry_verdict("api_base") is None


def test_a_callback_is_done_here_or_it_is_said_that_nothing_is_sent() -> None:
    assert "BRAINTRUST_API_KEY" in callback_reason("braintrust")
    assert "/metrics" in callback_reason("prometheus")
    assert "nothing is sent there" in callback_reason("langfuse")
