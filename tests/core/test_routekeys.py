"""The keys of a routes file, against LiteLLM's own."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from gateway.core import routekeys
from gateway.core.routekeys import INFO, PARAMS, info_verdict, params_verdict, settings_verdict, top_verdict


def fields(module: str, *classes: str) -> set[str]:
    """The annotated names of LiteLLM's classes, read from its source: importing it takes seconds."""
    package = importlib.util.find_spec("litellm")
    assert package is not None
    assert package.origin is not None
    tree = ast.parse((Path(package.origin).parent / module).read_text(encoding="utf-8"))
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name in classes]
    assert len(bodies) == len(classes)
    names = (line.target.id for body in bodies for line in body if isinstance(line, ast.AnnAssign) and _is_name(line))
    return {name for name in names if not name.isupper()} - {"model_config"}


def _is_name(line: ast.AnnAssign) -> bool:
    return isinstance(line.target, ast.Name)


def test_every_parameter_of_litellms_is_known_for_what_it_is() -> None:
    theirs = fields("types/router.py", "CredentialLiteLLMParams", "GenericLiteLLMParams")
    theirs |= fields("types/utils.py", "MirroredPricingParams", "CustomPricingLiteLLMParams")
    known = {key.name for key in PARAMS}
    assert {name for name in theirs if name not in known and params_verdict(name) is None} == set()
    assert len(theirs) > 100


def test_what_litellm_charges_and_allows_by_model_info_is_no_note() -> None:
    theirs = fields("types/utils.py", "MirroredPricingParams")
    theirs |= {"ptu_count", "cost_per_ptu_per_hour", "team_id", "blocked", "access_windows", "access_groups"}
    assert {name for name in theirs if info_verdict(name) is None} == set()
    assert all(info_verdict(name) is None for name in ("id", "description", "team", "max_tokens", "supports_vision"))


@pytest.mark.parametrize("name", ["api_bse", "modle", "key", "", "Model", "rpm2", "rpm\n"])
def test_a_name_that_is_none_of_litellms_is_a_strangers(name: str) -> None:
    assert params_verdict(name) is None


@pytest.mark.parametrize(
    ("section", "name", "harmless", "reason"),
    [
        ("router_settings", "set_verbose", True, "changes nothing"),
        ("router_settings", "drop_params", False, "nothing here does that"),
        ("router_settings", "model_group_alias", False, "which deployment is tried"),
        ("litellm_settings", "drop_params", True, "changes nothing"),
        ("litellm_settings", "turn_off_message_logging", False, "GATEWAY_TRACE_CONTENT=off"),
        ("litellm_settings", "max_budget", False, "limit calls"),
        ("litellm_settings", "cache", False, "no cache"),
        ("litellm_settings", "context_window_fallbacks", False, "which deployment is tried"),
        ("general_settings", "master_key", False, "GATEWAY_AUTH_TOKEN"),
        ("general_settings", "database_url", False, "GATEWAY_DATA_DIR"),
        ("general_settings", "new_in_a_later_release", False, "nothing here does that"),
    ],
)
def test_a_setting_of_litellms_is_harmless_only_where_that_is_known(
    section: str, name: str, harmless: bool, reason: str
) -> None:
    verdict = settings_verdict(section, name)
    assert verdict.harmless is harmless
    assert reason in verdict.reason


def test_other_keys_at_the_top_are_litellms_or_strangers() -> None:
    verdict = top_verdict("environment_variables")
    assert verdict is not None
    assert not verdict.harmless
    assert top_verdict("model_lst") is None


def test_the_schema_has_every_key_and_takes_no_other_but_notes() -> None:
    schema = routekeys.schema()
    entry = schema["properties"]["model_list"]["items"]
    params, info = (entry["properties"][name] for name in ("litellm_params", "model_info"))
    assert list(params["properties"]) == [key.name for key in PARAMS]
    assert list(info["properties"]) == [key.name for key in INFO]
    closed = [schema["additionalProperties"], entry["additionalProperties"], params["additionalProperties"]]
    assert (closed, info["additionalProperties"]) == ([False, False, False], True)
    assert schema["required"] == ["model_list"]
    assert entry["required"] == ["model_name", "litellm_params"]
