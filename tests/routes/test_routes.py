"""The routes file: what it says, what is wrong with it and where, and which key goes to which address.

`uv run python -m tests.routes.test_routes` writes `docs/gateway.schema.json` anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway import routes
from gateway.core import routekeys
from gateway.core.endpoints import SERVED_MODES
from gateway.core.routing import Reach, Target
from gateway.routes import Table
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError
from tests.routes.texts import entry, faults, read, said, target

TOP = Path(__file__).resolve().parents[2]
SCHEMA = TOP / "docs/gateway.schema.json"


WORKED = """\
model_list:
  - model_name: fast
    litellm_params:
      model: openai/gpt-4o-mini
  - model_name: own
    litellm_params:
      model: hosted_vllm/llama
      api_base: http://gpu:8000/v1/
      api_key: os.environ/VLLM_KEY
  - model_name: fast
    litellm_params:
      model: azure/my-deployment
      api_base: https://${RESOURCE}.openai.azure.com
      api_key: ${AZURE_KEY}
      api_version: 2024-10-21
    model_info:
      base_model: azure/gpt-4o-mini
      team: search
open_catalogue: false
"""
VARIABLES = {
    "OPENAI_API_KEY": "key-openai",
    "VLLM_KEY": "key-vllm",
    "RESOURCE": "acme",
    "AZURE_KEY": "key-azure",
    "AZURE_API_KEY": "key-of-another-address",
}


# -- what it says --------------------------------------------------------------------------------------------


def test_names_have_their_deployments_in_file_order_each_with_its_own_address_and_key() -> None:
    table = read(WORKED, **VARIABLES)
    assert list(table.aliases) == ["fast", "own"]
    openai, azure = table.aliases["fast"].targets
    assert openai == Target("openai", "gpt-4o-mini", Reach(Secret("key-openai")))
    at_azure = Reach(Secret("key-azure"), "https://acme.openai.azure.com", "2024-10-21")
    assert azure == Target("azure", "my-deployment", at_azure, ("azure", "gpt-4o-mini"))
    [vllm] = table.aliases["own"].targets
    assert vllm == Target("hosted_vllm", "llama", Reach(Secret("key-vllm"), "http://gpu:8000/v1"))
    assert (table.open, table.usable, table.warnings) == (False, True, ())


def test_without_a_file_there_are_no_aliases_and_every_name_is_answered() -> None:
    assert routes.read(Settings()) == Table()
    assert Table().open


def test_a_file_is_read_as_its_text_is(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("\ufeff" + WORKED, encoding="utf-8")
    table = routes.read(Settings.from_env(VARIABLES, tmp_path))
    assert table.source == str(tmp_path / "gateway.yaml")
    assert table.aliases == read(WORKED, **VARIABLES).aliases


def test_the_text_may_stand_in_dotenv_over_several_lines(tmp_path: Path) -> None:
    text = WORKED.replace('"', "")
    (tmp_path / ".env").write_text(f'OPENAI_API_KEY=key-openai\nGATEWAY_CONFIG_YAML="{text}"\n')
    table = routes.read(Settings.from_env(VARIABLES, tmp_path))
    assert (table.source, table.aliases) == ("GATEWAY_CONFIG_YAML", read(WORKED, **VARIABLES).aliases)


def test_the_catalogue_is_open_unless_it_is_closed() -> None:
    assert read(entry()).open
    for text, is_open in (("true", True), ("yes", True), ("false", False), ("off", False)):
        assert read(entry()[:-1] + f", open_catalogue: {text}}}").open is is_open


def test_a_model_of_a_well_known_family_may_lack_its_provider() -> None:
    assert target(entry(model="gpt-4o")).provider == "openai"
    assert target(entry(model="claude-x")).provider == "anthropic"


def test_a_star_stands_for_what_follows() -> None:
    assert list(read(entry("openai/*", "openai/*")).aliases) == ["openai/*"]
    assert target(entry("*", "openrouter/*")).model == "*"
    for pair in (("openai/*", "openai/gpt-4o"), ("fast", "openai/*")):
        [fault] = faults(entry(*pair))
        assert "must both end in *, or neither" in fault


def test_everything_for_everyone_is_the_open_catalogue() -> None:
    assert "names that are not in the file are answered in any case" in said(entry("*", "*"))
    assert read(entry("*", "*")).aliases == {}
    [fault] = faults(entry("*", "*")[:-1] + ', "open_catalogue": false}')
    assert fault.endswith("model_list[0]: this is what open_catalogue: true does")
    [fault] = faults(entry("*", "*", api_key="os.environ/KEY"), KEY="k")
    assert fault.endswith("model_list[0].litellm_params.model: what open_catalogue: true does")


def test_the_price_is_that_of_the_base_model() -> None:
    assert target(entry(model_info={"base_model": "gpt-4o"})).priced_as == ("openai", "gpt-4o")
    assert target(entry(model_info={"base_model": "azure/gpt-4o"})).priced_as == ("azure", "gpt-4o")
    assert target(entry()).priced_as is None


@pytest.mark.parametrize(
    ("setting", "info", "relayed"),
    [("", {}, False), ("openai", {}, True), ("", {"relay": True}, True), ("openai", {"relay": False}, False)],
)
def test_the_file_says_for_a_deployment_what_the_setting_says_for_its_provider(
    setting: str, info: dict[str, Any], relayed: bool
) -> None:
    assert target(entry(model_info=info), GATEWAY_RELAY=setting).reach.relay is relayed


def test_what_cannot_be_relayed_is_a_fault() -> None:
    with pytest.raises(SettingsError, match=r"model_info.relay: groq takes OpenAI's wire not as it is"):
        read(entry(model="groq/x", model_info={"relay": True}))


def test_a_model_of_another_mode_is_told_and_kept_out_of_the_list() -> None:
    text = entry(model_info={"mode": "ocr"})
    assert read(text).aliases["fast"].mode == "ocr"
    assert "this release does not answer mode ocr" in said(text)
    for mode in SERVED_MODES:
        assert "does not answer" not in said(entry(model_info={"mode": mode}))


def test_a_key_without_a_value_is_as_if_it_were_not_there() -> None:
    text = "model_list:\n- model_name: a\n  litellm_params: {model: openai/x, api_base: , api_key: ~}\n  model_info:\n"
    assert target(text, OPENAI_API_KEY="k").reach == Reach(Secret("k"))


# -- variables -----------------------------------------------------------------------------------------------


def test_a_variable_that_is_missing_is_named_with_its_line_and_its_key() -> None:
    text = "model_list:\n- model_name: a\n  litellm_params:\n    model: openai/x\n    api_key: os.environ/NO_SUCH\n"
    what = "model_list[0].litellm_params.api_key: the variable 'NO_SUCH' is not set, or is blank"
    assert faults(text) == [f":5:14: {what}"]
    assert faults(text, NO_SUCH="  ") == [f":5:14: {what}"]


def test_variables_are_taken_from_the_environment_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=from-the-file\nHOST=gpu\n")
    (tmp_path / "gateway.yaml").write_text(entry(api_base="http://${HOST}:${PORT}/v1", api_key="${KEY}"))
    table = routes.read(Settings.from_env({"KEY": "from-the-environment", "PORT": "81"}, tmp_path))
    [(_, found)] = table.targets
    assert found.reach == Reach(Secret("from-the-environment"), "http://gpu:81/v1")


def test_what_a_variable_holds_is_not_looked_into_again() -> None:
    assert target(entry(api_key="${ONE}"), ONE="${TWO}", TWO="x").reach.api_key == Secret("${TWO}")


@pytest.mark.parametrize("text", ["${}", "${A B}", "${A:-b}", "x${", "${1A}"])
def test_a_variable_has_one_spelling(text: str) -> None:
    [fault] = faults(entry(api_key=text), A="a")
    assert "a variable is written ${NAME}" in fault


def test_keys_and_their_variables_are_known_to_whoever_hides_them() -> None:
    table = read(entry(api_key="pre-${ONE}", api_base="http://${HOST}/"), ONE="hunter2-one", HOST="gpu")
    assert set(table.secrets) == {Secret("pre-hunter2-one"), Secret("hunter2-one")}
    assert table.key_variables == {"ONE"}, "and no other: the process may need it"
    assert "hunter2" not in repr(table)


def test_a_key_in_the_file_itself_is_a_warning_that_does_not_show_it() -> None:
    warning = said(entry(api_key="hunter2-literal"))
    assert "model_list[0].litellm_params.api_key: a key stands in the file itself" in warning
    assert "hunter2" not in warning
    assert said(entry(api_key="os.environ/KEY"), KEY="hunter2") == ""


# -- the demo ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, True),
        ({"OPENAI_API_KEY": "k"}, False),
        ({"GATEWAY_DEMO": "on", "OPENAI_API_KEY": "k"}, True),
        ({"GATEWAY_DEMO": "off"}, False),
    ],
)
def test_the_demo_is_on_until_a_deployment_can_be_called(environ: dict[str, str], on: bool) -> None:
    chosen = Settings.load({"GATEWAY_CONFIG_YAML": entry(), **environ})
    assert routes.read(chosen).demo_on(chosen) is on


def test_a_server_of_the_file_turns_the_demo_off_too() -> None:
    chosen = Settings.load({"GATEWAY_CONFIG_YAML": entry(api_base="http://gpu")})
    assert chosen.demo_on
    assert not routes.read(chosen).demo_on(chosen)


# -- what is wrong with it -----------------------------------------------------------------------------------

WRONG = """\
model_list:
  - model_name: fast
    litellm_params:
      model: opnai/gpt-4o
      api_bse: http://gpu
      rpm: ten
  - litellm_params: {model: openai/x, api_base: "http://u:hunter2@gpu"}
  - model_name: fast
    litellm_params: []
open_catalogue: perhaps
open_catalogue: true
router_settings: {routing_strategy: usage-based-routing-v2, set_verbose: true}
litellm_settings:
  fallbacks: [{fast: [slow]}]
  telemetry: false
general_settings:
  master_key: hunter2
nothing: 1
"""


def test_every_fault_is_named_at_once_where_it_stands() -> None:
    used = "not supported by this release: usage-based-routing-v2; what is nearest to it is least-busy"
    who = (
        "not supported by this release: callers' keys are those of GATEWAY_AUTH_TOKEN, and those that are made with "
        "GATEWAY_ADMIN_TOKEN; take it out, or write os.environ/NAME"
    )
    assert faults(WRONG) == [
        ":4:14: model_list[0].litellm_params.model: must be <provider>/<model>, with a provider that LiteLLM knows; "
        "openai/... is meant?",
        ":5:7: model_list[0].litellm_params.api_bse: unknown key; api_base is meant?",
        ":6:12: model_list[0].litellm_params.rpm: must be a number from 0 on",
        ":7:5: model_list[1]: model_name is missing",
        ":7:49: model_list[1].litellm_params.api_base: must not hold a user name or a password",
        ":9:21: model_list[2].litellm_params: must be a map",
        ":10:17: open_catalogue: must be true or false",
        ":11:1: open_catalogue: this key was given before",
        f":12:37: router_settings.routing_strategy: {used}",
        ":14:23: litellm_settings.fallbacks[0].fast[0]: no model_name of this file answers to this name, and what is "
        "not in the file is written <provider>/<model>",
        f":17:3: general_settings.master_key: {who}",
        ":18:1: nothing: unknown key",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("# nothing", ":1:1: a map with model_list is expected here"),
        ("- a", ":1:1: a map with model_list is expected here"),
        ("open_catalogue: true", ":1:1: model_list is missing"),
        ("model_list:", ":1:12: model_list: must be a list"),
        ("model_list: []", ":1:13: model_list: holds no deployment"),
        ("model_list: [a]", ":1:14: model_list[0]: must be a map with model_name and litellm_params"),
        (entry(""), "model_name: must not be blank"),
        (entry(" a"), "model_name: must have no blanks around it"),
        (entry("a" * 257), "model_name: must have no blanks around it, no control characters and at most 256"),
        (entry("a*b"), "model_name: a star may stand at the end only"),
        (entry("demo/echo"), "model_name: names that begin with demo/ are the demo models'"),
        (entry(model="demo/echo"), "model: must be <provider>/<model>"),
        (entry(model="vllm/x"), "model: vllm is not served here: it runs the model inside this process"),
        (entry(model="gemini-x"), "model: must be <provider>/<model>"),
        (entry(model="openai/"), "model: this is no model name of openai"),
        (entry(model="gemini/../x"), "model: this is no model name of gemini"),
        (entry(model=["openai/x"]), "model: must be a text"),
        (entry(api_key="k\u00f6y"), "api_key: holds a character that an HTTP header cannot carry"),
        (entry(api_base="gpu:8000"), "api_base: must begin with http:// or https://"),
        (entry(model_info={"mode": "chatty"}), "mode: must be one of chat, completion, "),
        (entry(tiered_pricing=[]), "tiered_pricing: not supported by this release: prices"),
        (entry(model_info={"access_groups": []}), "access_groups: not supported by this release"),
        (entry(base_url="http://gpu", api_base="http://gpu"), "base_url: is the same as api_base, which is given too"),
        (entry(base_url="gpu:8000"), "base_url: must begin with http:// or https://"),
        (entry() + "\n---\n" + entry(), ":3:1: a second document begins here"),
        ("general_settings: 1\n", "general_settings: must be a map"),
        ("model_list: [a", ":2:1: no YAML: "),
    ],
)
def test_what_cannot_be_used_is_said(text: str, what: str) -> None:
    assert any(what in fault for fault in faults(text)), faults(text)


def test_one_name_has_one_mode() -> None:
    one, other = (json.loads(entry(model_info={"mode": mode}))["model_list"][0] for mode in ("chat", "embedding"))
    [fault] = faults(json.dumps({"model_list": [one, other]}))
    assert "this model_name was given before, with another model_info.mode" in fault


def test_keys_that_change_nothing_are_warnings() -> None:
    text = entry(drop_params=True)[:-1] + ', "litellm_settings": {"set_verbose": true, "drop_params": true}}'
    assert [line.partition(": has no effect")[0].partition(": ")[2] for line in said(text).splitlines()] == [
        "model_list[0].litellm_params: this deployment cannot be called: set OPENAI_API_KEY",
        "model_list[0].litellm_params.drop_params",
        "litellm_settings.set_verbose",
        "litellm_settings.drop_params",
    ]


def test_empty_maps_of_litellms_settings_are_nothing() -> None:
    assert read(entry(api_base="http://a")[:-1] + ', "router_settings": {}, "general_settings": null}').warnings == ()


def test_thousands_of_faults_are_counted() -> None:
    text = "\n".join(f"key{number}: 1" for number in range(3000))
    got = faults(text)
    assert len(got) == 101
    assert got[-1] == ": and 2901 more"


def test_a_file_is_a_megabyte_at_most_and_is_text(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    for content, what in (
        (b"#" * (1 << 20) + b"\n", "is larger than 1048576 bytes"),
        (b"a: \xff", "byte 3 is no UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(SettingsError) as caught:
            routes.read(Settings.from_env({}, tmp_path))
        [fault] = caught.value.faults
        assert fault.startswith(str(path))
        assert what in fault
    assert faults("#" * ((1 << 20) + 1)) == [" is larger than 1048576 bytes"]


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"gateway\.yaml cannot be read: Is a directory"):
        routes.read(Settings.from_env({}, tmp_path))


# -- hostile files -------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        *("model_list", "model_name", "litellm_params", "model_info", "model", "api_base", "api_key", "api_version"),
        *("router_settings", "general_settings", "open_catalogue", "base_model", "mode", "<<", "*", "openai/*", "a"),
        *("litellm_settings", "routing", "names", "when", "prompt_tokens", "from", "fallbacks", "default_fallbacks"),
        *("model_group_alias", "callbacks", "weight", "order", "timeout", "num_retries", "input_cost_per_token"),
        *(
            "openai/gpt-4o",
            "azure/x",
            "http://[::1",
            "os.environ/",
            "os.environ/hunter2",
            "${hunter2}",
            "${",
            "",
            "\ud800",
        ),
    ]
)
_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=24,
)


def faults_or_none(chosen: Settings) -> list[str]:
    """What the file is refused for; any other error than the one that says so is the test's failure."""
    try:
        assert isinstance(routes.read(chosen), Table)
    except SettingsError as error:
        return error.faults or [""]
    return []


def only_settings_error(text: str) -> None:
    for fault in faults_or_none(Settings.load({"GATEWAY_CONFIG_YAML": text, "KEY": "hunter2"})):
        assert re.match(r"GATEWAY_CONFIG_YAML(:\d+:\d+:)? ", fault)
        assert fault.isprintable()


@hypothesis_settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("abmodel_list:{}[]-,&*!|>'\"#%@`? \n\t\x00\u2028\ud800\x85"), min_size=1))
@example("a: &x [*x]")
@example("[" * 5000)
@example("{a: " * 3000)
@example("- " * 3000)
@example("? a\n: b")
@example("!!python/object/apply:os.system ['true']")
@example("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n")
@example("%YAML 9.9\n---\na")
@example("a: \ud800")
@example("\x00")
def test_whatever_the_text_is_it_is_read_or_refused(text: str) -> None:
    if text.strip():
        only_settings_error(text)


@hypothesis_settings(deadline=None, max_examples=300)
@given(_TREES)
def test_whatever_the_tree_is_it_is_read_or_refused(tree: Any) -> None:
    good = json.loads(entry())["model_list"][0]
    only_settings_error(json.dumps({"model_list": [tree]}))
    only_settings_error(json.dumps(tree))
    for name in (*routekeys.SECTIONS, "environment_variables"):
        only_settings_error(json.dumps({"model_list": [good], name: tree}))
    for name in ("fallbacks", "model_group_alias", "default_fallbacks", "routing_strategy"):
        only_settings_error(json.dumps({"model_list": [good], "router_settings": {name: tree}}))
    for name in ("litellm_params", "model_info"):
        only_settings_error(json.dumps({"model_list": [good | {name: tree}]}))


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64), st.integers(0, len(WORKED)))
def test_a_file_that_is_damaged_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(WORKED.encode()[:at] + noise + WORKED.encode()[at:])
    for fault in faults_or_none(Settings.load({"GATEWAY_CONFIG": str(path), **VARIABLES})):
        assert fault.startswith(str(path))
        assert "key-" not in fault


# -- the schema ----------------------------------------------------------------------------------------------


def test_the_schema_is_made_from_the_keys() -> None:
    assert json.loads(SCHEMA.read_text()) == routekeys.schema(), "run: uv run python -m tests.routes.test_routes"


def test_the_guide_and_its_example_say_what_the_code_does() -> None:
    page = (TOP / "docs/routes.md").read_text()
    sections = (key for keys in routekeys.SECTIONS.values() for key in keys)
    for key in (*routekeys.TOP, *routekeys.ENTRY, *routekeys.PARAMS, *routekeys.INFO, *routekeys.NAMED, *sections):
        assert re.search(rf"\| `(\w+(\[\])?\.)?{key.name}` \|", page), key.name
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[:1]
    table = read(text, OPENAI_API_KEY="k", VLLM_API_KEY="k", AZURE_EU_KEY="k", AZURE_EU_RESOURCE="acme")
    assert table.warnings == ()
    assert {found.provider for _, found in table.targets} == {"openai", "hosted_vllm", "azure"}


def write_papers() -> None:
    SCHEMA.write_text(json.dumps(routekeys.schema(), indent=2) + "\n")


if __name__ == "__main__":
    write_papers()
