"""The keys of a routes file that are read, and the schema that is made of them."""

from __future__ import annotations

import re

from gateway.core import policies, routekeys
from gateway.core.foreignkeys import HARMLESS_PARAMS
from gateway.core.routekeys import INFO, KINDS, NAMED, PARAMS, SECTIONS, STRATEGIES, Key


def every(keys: tuple[Key, ...]) -> list[Key]:
    return [one for key in keys for one in (key, *every(key.inner))]


ALL = every(
    (*routekeys.TOP, *routekeys.ENTRY, *PARAMS, *INFO, *NAMED, *(key for keys in SECTIONS.values() for key in keys))
)


def test_the_schema_has_every_key_and_takes_no_other_but_notes_and_prices() -> None:
    schema = routekeys.schema()
    entry = schema["properties"]["model_list"]["items"]
    params, info = (entry["properties"][name] for name in ("litellm_params", "model_info"))
    read = [key.name for key in PARAMS] + list(routekeys.ACCOUNTS)
    assert list(params["properties"]) == read + sorted(HARMLESS_PARAMS)
    assert list(info["properties"]) == [key.name for key in INFO]
    closed = [schema["additionalProperties"], entry["additionalProperties"], params["additionalProperties"]]
    assert (closed, info["additionalProperties"]) == ([False, False, False], True)
    assert schema["required"] == ["model_list"]
    assert entry["required"] == ["model_name", "litellm_params"]
    [pattern] = params["patternProperties"]
    assert re.search(pattern, "cache_read_input_token_cost_above_200k_tokens")
    assert not re.search(pattern, "my_input_cost_per_token")


def test_the_schema_has_each_map_of_settings_and_takes_no_other_key_there() -> None:
    made = routekeys.schema()["properties"]
    for section, keys in SECTIONS.items():
        assert {key.name for key in keys} <= set(made[section]["properties"])
        assert made[section]["additionalProperties"] is False
    names = made["routing"]["properties"]["names"]
    assert list(names["additionalProperties"]["properties"]) == [key.name for key in NAMED]
    when = made["model_list"]["items"]["properties"]["model_info"]["properties"]["when"]
    assert list(when["properties"]["prompt_tokens"]["properties"]) == ["from", "to"]


def test_every_key_has_a_kind_that_the_schema_knows_and_a_sentence() -> None:
    assert [key.name for key in ALL if key.kind not in KINDS or not key.help.endswith((".", "failed.", "`."))] == []


def test_every_strategy_of_litellms_is_one_of_ours() -> None:
    assert set(STRATEGIES.values()) <= set(policies.STRATEGIES)
    assert set(routekeys.NO_STRATEGIES.values()) <= set(STRATEGIES)
    assert set(routekeys.NO_STRATEGIES).isdisjoint(STRATEGIES)


def test_every_ability_is_a_need() -> None:
    assert set(routekeys.ABILITIES.values()) == set(policies.NEEDS)
    assert set(routekeys.ABILITIES) <= {key.name for key in INFO if key.kind == "flag"}
