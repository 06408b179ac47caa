"""The gateway that settings make."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway import assembly, logs
from gateway.core.calls import Caller
from gateway.core.routing import plan
from gateway.errors import ModelNotFound, ProviderNotConfigured
from gateway.pipeline import Gateway
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError
from gateway.storage.audit import By
from gateway.storage.keys import NewKey
from gateway.storage.memory import MemoryCounters
from gateway.storage.owned import RESPONSE, Owned
from gateway.storage.redis import RedisCounters
from gateway.storage.tabled import TableCounters
from gateway.tracing.console import Console
from gateway.tracing.local import LocalTraces
from gateway.tracing.spool import Spool
from gateway.upstream.files import StoredFiles
from gateway.upstream.litellm import LiteLLM
from gateway.upstream.scripted import MODELS
from tests.builders import settings


def build(prices: Path | None = None, **environ: str) -> Gateway:
    return assembly.build(dataclasses.replace(settings(**environ), prices=prices))


def test_with_nothing_set_the_demo_answers_and_the_log_has_the_traces() -> None:
    made = build()
    assert made.catalogue.demo == {f"demo/{name}" for name in MODELS}
    assert [type(sink) for sink in made.tracer._sinks] == [Spool, Console]
    assert list(made.tracer.backlogs()) == ["local"]
    assert [type(sink) for sink in build(GATEWAY_LOCAL_TRACES="off").tracer._sinks] == [Console]
    assert made.preload is None
    with pytest.raises(ProviderNotConfigured):
        plan("openai/gpt-4o", made.catalogue)


def test_with_a_key_its_provider_is_called_and_litellm_is_loaded_before_the_fork() -> None:
    made = build(OPENAI_API_KEY="hunter2-openai", OPENAI_BASE_URL="https://here.example/v1")
    [attempt] = plan("gpt-4o", made.catalogue)
    assert attempt.deployment.api_key == Secret("hunter2-openai")
    assert attempt.deployment.api_base == "https://here.example/v1"
    assert made.preload is not None
    assert isinstance(made.upstreams["litellm"], StoredFiles)
    with pytest.raises(ModelNotFound):
        plan("demo/echo", made.catalogue)


@pytest.mark.parametrize("relay", ["all", "openai"])
def test_where_all_is_relayed_litellm_is_not_loaded(relay: str) -> None:
    assert build(OPENAI_API_KEY="hunter2-openai", GATEWAY_RELAY=relay).preload is None
    assert build(OPENAI_API_KEY="hunter2-openai", GATEWAY_RELAY="hosted_vllm").preload is not None
    also = build(OPENAI_API_KEY="hunter2-openai", ANTHROPIC_API_KEY="hunter2-anthropic", GATEWAY_RELAY=relay)
    assert also.preload is not None, "its chats go by way of LiteLLM"


def test_a_braintrust_key_sends_the_traces_there() -> None:
    made = build(BRAINTRUST_API_KEY="hunter2-braintrust", BRAINTRUST_PROJECT="shop")
    assert [type(sink) for sink in made.tracer._sinks] == [Spool]
    both = build(BRAINTRUST_API_KEY="hunter2-braintrust", GATEWAY_LOCAL_TRACES="on")
    assert list(both.tracer.backlogs()) == ["braintrust", "local"]
    assert made.tracer._project == "shop"


def test_limits_come_from_the_settings() -> None:
    made = build(GATEWAY_TIMEOUT_S="7", GATEWAY_KEEPALIVE_S="3", GATEWAY_MAX_BODY_MB="0.5")
    assert (made.limits.timeout_s, made.limits.keepalive_s, made.limits.body_bytes) == (7, 3, 1 << 19)


def test_every_credential_is_taken_out_of_what_is_recorded() -> None:
    secrets: dict[str, Any] = {
        "GATEWAY_AUTH_TOKEN": "hunter2-token-a,hunter2-token-b",
        "OPENAI_API_KEY": "hunter2-openai",
        "BRAINTRUST_API_KEY": "hunter2-braintrust",
        "GATEWAY_ADMIN_TOKEN": "hunter2-admin",
        "GATEWAY_KEY_PEPPER": "hunter2-pepper-which-is-long-enough",
        "GATEWAY_WEBHOOK_SECRET": "hunter2-webhook-which-is-long-enough",
    }
    redactor = build(**secrets).tracer._redactor
    text = redactor.text(" ".join(secrets.values()).replace(",", " "))
    assert "hunter2" not in text


ROUTES = """
model_list:
- {model_name: own, litellm_params: {model: openai/x, api_base: "http://gpu:8000/v1", api_key: "${HALF}-hunter2-b"}}
open_catalogue: false
"""


def test_a_routes_file_gives_the_catalogue_its_names_and_the_redactor_its_keys() -> None:
    made = build(GATEWAY_CONFIG_YAML=ROUTES, HALF="hunter2-a")
    [attempt] = plan("own", made.catalogue)
    assert attempt.deployment.api_base == "http://gpu:8000/v1"
    assert attempt.deployment.api_key == Secret("hunter2-a-hunter2-b")
    assert (made.catalogue.open, made.catalogue.demo) == (False, frozenset())
    assert made.preload is not None
    assert "hunter2" not in made.tracer._redactor.text("key hunter2-a-hunter2-b, half of it hunter2-a")


def test_a_closed_catalogue_without_a_deployment_that_can_be_called_loads_nothing() -> None:
    lame = "model_list: [{model_name: a, litellm_params: {model: azure/x}}]\nopen_catalogue: false"
    made = build(GATEWAY_CONFIG_YAML=lame, OPENAI_API_KEY="k", GATEWAY_DEMO="off")
    assert made.preload is None
    with pytest.raises(ProviderNotConfigured):
        plan("a", made.catalogue)


FOLLOWED = """
model_list:
- model_name: {name}
  litellm_params: {{model: hosted_vllm/{name}, api_base: "http://gpu", api_key: os.environ/{key}}}
open_catalogue: false
"""


def test_all_that_depends_on_the_routes_file_follows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_net", [*logs._net])
    monkeypatch.setenv("NEW_KEY", "hunter2-new")
    path = tmp_path / "routes.yaml"
    path.write_text(FOLLOWED.format(name="old", key="OLD_KEY"))
    made = build(GATEWAY_CONFIG=str(path), OLD_KEY="hunter2-old", NEW_KEY="hunter2-new", GATEWAY_RELAY="hosted_vllm")
    assert made.routes is not None
    before = made.catalogue
    path.write_text(FOLLOWED.format(name="newer", key="NEW_KEY"))
    made.routes.look()
    made.routes.look()
    assert plan("newer", made.catalogue)[0].deployment.api_key == Secret("hunter2-new")
    with pytest.raises(ModelNotFound):
        plan("old", made.catalogue)
    assert plan("old", before)[0].deployment.model == "old", "a call under way keeps what it has"
    assert made.catalogue.revision != before.revision
    for clean in (made.redactor.text, made.tracer._redactor.text, logs.hide):
        assert "hunter2" not in clean("keys: hunter2-new, and still hunter2-old")
    assert "NEW_KEY" not in os.environ
    attempted = made.metrics._names_of(plan("newer", made.catalogue)[0])
    assert attempted == ("hosted_vllm", "newer"), "its models are labels"


def test_secrets_are_known_before_a_call_can_send_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_net", [*logs._net])
    path = tmp_path / "routes.yaml"
    path.write_text(FOLLOWED.format(name="old", key="OLD_KEY"))
    made = build(GATEWAY_CONFIG=str(path), OLD_KEY="hunter2-old", NEW_KEY="hunter2-new", GATEWAY_RELAY="hosted_vllm")
    assert made.routes is not None
    seen: list[bool] = []
    kept = made.metrics.follow  # the last step before the catalogue is put in its place
    monkeypatch.setattr(
        made.metrics,
        "follow",
        lambda catalogue: (seen.append("hunter2" in made.redactor.text("hunter2-new")), kept(catalogue)),
    )
    path.write_text(FOLLOWED.format(name="newer", key="NEW_KEY"))
    made.routes.look()
    made.routes.look()
    assert seen == [False]


def test_the_demo_ends_when_a_changed_file_has_a_deployment_that_can_be_called(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("model_list: [{model_name: a, litellm_params: {model: azure/x}}]")
    made = build(GATEWAY_CONFIG=str(path), OLD_KEY="hunter2-old", GATEWAY_RELAY="hosted_vllm")
    assert made.catalogue.demo
    path.write_text(FOLLOWED.format(name="old", key="OLD_KEY"))
    assert made.routes is not None
    made.routes.look()
    made.routes.look()
    assert not made.catalogue.demo


def test_litellm_is_there_before_the_first_call_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "routes.yaml"
    relayed = FOLLOWED.format(name="old", key="OLD_KEY").replace("OLD_KEY}", "OLD_KEY}\n  model_info: {relay: true}")
    path.write_text(relayed)
    made = build(GATEWAY_CONFIG=str(path), OLD_KEY="hunter2-old")
    assert made.preload is None
    assert made.routes is not None
    done: list[tuple[str, bool]] = []
    for name in ("load", "start"):
        monkeypatch.setattr(
            LiteLLM, name, lambda _self, name=name: done.append((name, "new" in made.catalogue.aliases))
        )
    monkeypatch.setattr(logs, "configure", lambda *_: done.append(("configure", "new" in made.catalogue.aliases)))
    for text in (relayed.replace("old", "other"), FOLLOWED.format(name="new", key="OLD_KEY")):
        path.write_text(text)
        made.routes.look()
        made.routes.look()
    assert done == [("load", False), ("configure", False), ("start", False)]
    assert "new" in made.catalogue.aliases


def test_a_warning_that_was_told_is_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "_net", [*logs._net])
    path = tmp_path / "routes.yaml"
    path.write_text(FOLLOWED.format(name="old", key="OLD_KEY") + "general_settings: {alerting: []}\n")
    made = build(GATEWAY_CONFIG=str(path), OLD_KEY="hunter2-old", GATEWAY_RELAY="hosted_vllm")
    assert made.routes is not None
    for more in ("", "router_settings: {retry_after: 3}\n"):
        path.write_text(FOLLOWED.format(name="newer", key="OLD_KEY") + "general_settings: {alerting: []}\n" + more)
        made.routes.look()
        made.routes.look()
    told = [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()]
    assert [line.partition(": ")[2].partition(":")[0] for line in told] == [
        "general_settings.alerting",
        "router_settings.retry_after",
    ]


def test_a_text_in_a_variable_is_not_followed() -> None:
    assert build(GATEWAY_CONFIG_YAML=ROUTES, HALF="hunter2-a").routes is None
    assert build().routes is None


def test_a_routes_file_with_a_fault_stops_the_start() -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_CONFIG_YAML:1:13: model_list: holds no deployment$"):
        build(GATEWAY_CONFIG_YAML="model_list: []")


def test_warnings_of_the_settings_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gateway"):
        build(GATEWAY_NEW_THING="x", GATEWAY_CONFIG_YAML=ROUTES.replace("${HALF}", "hunter2"))
    assert "GATEWAY_NEW_THING" in caplog.text
    assert "a key stands in the file itself" in caplog.text
    assert "hunter2" not in caplog.text


def test_building_imports_no_litellm_and_starts_no_thread() -> None:
    script = (
        "import sys, threading; from gateway.assembly import build; from gateway.settings import Settings\n"
        "build(Settings.load({'OPENAI_API_KEY': 'k', 'BRAINTRUST_API_KEY': 'k'}))\n"
        "print('litellm' in sys.modules, threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]


# The database.

KEYS = ({}, {"BRAINTRUST_API_KEY": "hunter2"}, {"GATEWAY_LOCAL_TRACES": "off", "GATEWAY_STORED_RESPONSES_DAYS": "0"})


@pytest.mark.parametrize("environ", KEYS, ids=["nothing set", "a Braintrust key", "all turned off"])
def test_the_database_is_made_whatever_is_set(tmp_path: Path, environ: dict[str, str]) -> None:
    made = Settings.from_env(environ, tmp_path)
    assembly.migrate(made)
    objects = assembly.owned_objects(made)
    one = Owned(RESPONSE, "resp_1", "tok_a", "tok_a", "fast", "openai", "openai/gpt-test", time.time())
    objects.keep(one)
    assert objects.find(RESPONSE, "resp_1", "tok_a") == one
    assert stat.S_IMODE(made.database.stat().st_mode) == 0o600


@pytest.mark.parametrize("environ", KEYS, ids=["nothing set", "a Braintrust key", "all turned off"])
def test_a_database_that_cannot_be_made_is_a_fault_that_says_what_to_set(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / ".gateway").touch()
    with pytest.raises(SettingsError) as raised:
        assembly.migrate(Settings.from_env(environ, tmp_path))
    [fault] = raised.value.faults
    assert "gateway.db" in fault
    assert fault.endswith("set GATEWAY_DATA_DIR to another folder")


def test_stored_objects_have_the_bounds_of_the_settings(tmp_path: Path) -> None:
    environ = {"GATEWAY_STORED_RESPONSES_DAYS": "0.5", "GATEWAY_STORED_RESPONSES_MB": "2"}
    objects = assembly.owned_objects(Settings.from_env(environ, tmp_path))
    assert (objects._keep_s, objects._keep_bytes) == (43_200, 2 << 20)
    assert list(tmp_path.iterdir()) == [], "nothing is opened or made"
    assert not assembly.owned_objects(settings(GATEWAY_STORED_RESPONSES_DAYS="0")).keeps_documents


FORKING = """
from gevent import monkey; monkey.patch_all()
import os, sys, time
from pathlib import Path
from gateway import assembly
from gateway.settings import Settings
from gateway.storage.owned import Owned
made = Settings.from_env({"BRAINTRUST_API_KEY": "k"}, Path(sys.argv[1]))
assembly.migrate(made)
objects = assembly.owned_objects(made)
end_s = time.monotonic() + 5
while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < end_s:
    time.sleep(0.01)
print("native threads", len(os.listdir("/proc/self/task")), flush=True)
if (child := os.fork()) == 0:
    objects.keep(Owned("response", "r", "t", "c", "m", "p", "p/m", time.time(), "{}"))
    os._exit(0 if objects.find("response", "r", "t") else 1)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_the_master_leaves_no_thread_behind_and_a_worker_uses_the_database(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["native threads 1", "child 0"], done.stderr


def test_what_one_process_makes_a_limit_another_holds_calls_to(tmp_path: Path) -> None:
    made = settings(GATEWAY_DATA_DIR=str(tmp_path), GATEWAY_METRICS="off")
    assembly.migrate(made)
    threads = threading.active_count()
    gateway = assembly.build(made)
    gateway.open()
    assert gateway.rules is not None
    assert gateway.notifier is not None
    wanted = {"name": "a", "measure": "tokens", "most": 5, "period": "day"}
    kept = assembly.directory(made).limits.create(wanted, By("cli"))
    assert gateway.rules.of(Caller("tok_1", "tok_1"), ("demo/echo",)) == (kept.rule,)
    gateway.close(0.1)
    assert threading.active_count() == threads
    assert gateway.rules._poller is not None
    assert not gateway.rules._poller.is_alive()


# Who may call.

OIDC = {
    "GATEWAY_OIDC_ISSUER": "http://127.0.0.1:1/",
    "GATEWAY_OIDC_AUDIENCE": "gateway",
    "GATEWAY_OIDC_CALL_SCOPE": "llm",
    "GATEWAY_OIDC_PROJECT_CLAIM": "team",
}


def kinds(made: Gateway) -> list[str]:
    return [type(verifier).__name__ for verifier in made.authenticator._verifiers]


def test_each_way_to_call_is_there_where_the_settings_want_it() -> None:
    assert kinds(build()) == ["StaticTokens", "VirtualKeys"]
    every = build(GATEWAY_AUTH_TOKEN="tok", GATEWAY_ADMIN_TOKEN="adm", **OIDC)
    assert kinds(every) == ["StaticTokens", "StaticTokens", "VirtualKeys", "JsonWebTokens"]
    admin, token = (every.authenticator.identify({"api-key": name}) for name in ("adm", "tok"))
    assert (admin.kind, token.kind) == ("admin", "token")
    assert admin.rights.scopes == {"admin", "metrics"}
    assert token.rights.scopes == {"call", "metrics"}
    claims = every.authenticator._verifiers[-1]._claims  # type: ignore[attr-defined]
    assert (claims.caller, claims.project, claims.call_scope, claims.admin_scope) == ("sub", "team", "llm", None)


def test_people_sign_in_where_the_settings_name_a_client_and_there_are_pages() -> None:
    client = {
        "GATEWAY_OIDC_ISSUER": "http://127.0.0.1:1/",
        "GATEWAY_OIDC_CLIENT_ID": "gateway",
        "GATEWAY_OIDC_CLIENT_SECRET": "secret-of-the-client",
        "GATEWAY_OIDC_ADMIN_EMAILS": "@example.com",
        "GATEWAY_OIDC_ADMIN_CLAIM": "groups",
        "GATEWAY_OIDC_ADMIN_VALUES": "boss",
    }
    made = build(**client)
    assert kinds(made) == ["StaticTokens", "VirtualKeys"], "no JWT is a key without an audience"
    assert made.sign_in is not None
    assert made.sign_in.place == "127.0.0.1"
    rule = made.sign_in._rule
    assert (rule.emails, rule.claim, rule.values) == ({"@example.com"}, "groups", {"boss"})
    assert "secret-of-the-client" not in made.redactor.text("x secret-of-the-client y")
    both = build(**client, GATEWAY_OIDC_AUDIENCE="api")
    assert both.sign_in is not None
    assert both.authenticator._verifiers[-1]._keys is both.sign_in._flow._keys, "they are fetched once for both"  # type: ignore[attr-defined]
    assert build().sign_in is None
    assert build(**OIDC).sign_in is None
    assert build(**client, GATEWAY_UI="off").sign_in is None


@pytest.mark.parametrize("own", [{}, {"GATEWAY_KEY_PEPPER": "p" * 40}])
def test_a_key_that_one_process_makes_another_knows(tmp_path: Path, own: dict[str, str]) -> None:
    made = Settings.from_env(own, tmp_path)
    assembly.migrate(made)
    assert not (tmp_path / ".gateway" / "key-pepper").exists(), "who makes no keys needs none"
    secret = assembly.directory(made).keys.create(NewKey("one"), By("cli")).secret
    assert secret is not None
    gateway = assembly.build(made)
    assert gateway.authenticator.identify({"api-key": secret.reveal()}).key_name == "one"
    assert gateway.directory is not None
    assert [key.name for key in gateway.directory.keys.page().items] == ["one"]
    assert (tmp_path / ".gateway" / "key-pepper").exists() is not bool(own)
    gateway.authenticator.close()


def test_a_lost_pepper_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Settings.from_env({}, tmp_path)
    assembly.migrate(made)
    assembly.directory(made).keys.create(NewKey("one"), By("cli"))
    assembly.migrate(made)
    assert "pepper" not in caplog.text
    (made.data_dir / "key-pepper").unlink()
    assembly.migrate(made)
    assert "1 virtual keys are of no use: they were made with another pepper" in caplog.text
    (made.data_dir / "key-pepper").write_text("")
    with pytest.raises(SettingsError, match="holds no pepper"):
        assembly.migrate(made)


# The stores.


def test_the_backend_of_each_store_is_picked_by_its_address(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": "postgresql://u:hunter2@127.0.0.2:9/name", "REDIS_URL": "redis://:hunter3@127.0.0.2:9/1"}
    alone, database, redis = (
        assembly.build(Settings.from_env({name: environ[name] for name in names}, tmp_path))
        for names in ((), ("DATABASE_URL",), ("DATABASE_URL", "REDIS_URL"))
    )
    file, server = str(tmp_path / ".gateway/gateway.db"), "postgresql://127.0.0.2:9/name"
    for made, name in ((alone, file), (database, server), (redis, server)):
        assert made.objects is not None
        assert made.objects._database.name == name
    for made, name in ((alone, file), (database, server)):
        assert isinstance(made.counters, TableCounters)
        assert made.counters._database.name == name
        assert list(made.stores._checks) == ["database"]
    assert isinstance(redis.counters, RedisCounters)
    assert redis.counters.name == "redis://127.0.0.2:9/1"
    assert list(redis.stores._checks) == ["database", "counters"]
    assert list(tmp_path.iterdir()) == [], "nothing is opened or made"
    text = redis.tracer._redactor.text(" ".join([*environ.values(), "hunter2 hunter3"]))
    assert "hunter" not in text


@pytest.mark.parametrize(
    ("named", "kind", "bounded"),
    [
        ("auto", RedisCounters, True),
        ("redis", RedisCounters, True),
        ("database", TableCounters, False),
        ("memory", MemoryCounters, True),
    ],
)
def test_limits_are_counted_where_the_operator_says(named: str, kind: type, bounded: bool, tmp_path: Path) -> None:
    environ = {"REDIS_URL": "redis://127.0.0.2:9/1", "GATEWAY_COUNTERS": named}
    made = assembly.build(Settings.from_env(environ, tmp_path))
    assert isinstance(made.counters, kind)
    assert ("counters" in made.stores._checks) is (kind is RedisCounters)
    assert made.limiter is not None
    assert made.limiter._link.counters is made.counters
    assert made.limiter._link._bounded is bounded


def test_limits_are_kept_as_the_operator_says(tmp_path: Path) -> None:
    environ = {
        "GATEWAY_RATE_LIMIT_RPM": "60",
        "GATEWAY_LIMITS_FAIL": "closed",
        "GATEWAY_BUDGET_RESERVE": "max",
        "GATEWAY_BUDGET_UNPRICED": "allow",
    }
    made = assembly.build(Settings.from_env(environ, tmp_path), workers=3)
    assert made.limiter is not None
    policy = made.limiter._policy
    assert (policy.rpm, policy.fail_open, policy.reserve_largest, policy.allow_unpriced) == (60, False, True, True)
    assert policy.workers == 3
    assert policy.models
    plain = assembly.build(Settings.from_env({"WEB_CONCURRENCY": "2"}, tmp_path)).limiter
    assert plain is not None
    policy = plain._policy
    assert (policy.rpm, policy.fail_open, policy.reserve_largest, policy.allow_unpriced) == (None, True, False, False)
    assert policy.workers == 2


def test_traces_are_kept_in_the_file_also_where_all_else_is_on_a_server(
    tmp_path: Path, empty_postgres_address: Secret
) -> None:
    made = Settings.from_env({"DATABASE_URL": empty_postgres_address.reveal()}, tmp_path)
    assembly.migrate(made)
    [local] = assembly.deliveries(made)
    assert isinstance(local.destination, LocalTraces)
    assert local.destination._database.name == str(made.database)
    shared = assembly.database(made)
    shared.check()
    shared.release()


def test_a_server_that_cannot_be_used_stops_the_start_and_says_what_to_set(tmp_path: Path) -> None:
    made = Settings.from_env({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.2:9/name"}, tmp_path)
    with pytest.raises(SettingsError) as raised:
        assembly.migrate(made)
    [fault] = raised.value.faults
    assert fault.startswith("postgresql://127.0.0.2:9/name: the server cannot be reached")
    assert fault.endswith("set DATABASE_URL to another database")
    assert "hunter2" not in fault


def test_an_address_of_redis_with_an_option_that_is_none_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL"):
        assembly.build(Settings.from_env({"REDIS_URL": "redis://h/0?nonsense=1"}, tmp_path))


# Prices.


def prices(folder: Path, content: Any) -> Path:
    path = folder / "prices.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_operators_prices_stand_over_litellms(tmp_path: Path) -> None:
    row = {"input_cost_per_token": 9, "output_cost_per_token": 9}
    made = build(prices(tmp_path, {"gpt-4o": row, "openai/own": row}))
    for model in ("gpt-4o", "own"):
        price = made.meter.prices.of("openai", model)
        assert price is not None
        assert price.rate("prompt") == 9
    assert made.meter.prices.of("openai", "gpt-4o-mini") is not None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"1", b"null", b'{"m": 1}', b'{"m": []}', b'{"m": {}, "n": null}'],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_of_prices_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, content: bytes) -> None:
    path = prices(tmp_path, content)
    with pytest.raises(SettingsError) as raised:
        build(path)
    [fault] = raised.value.faults
    assert fault.startswith(f"GATEWAY_PRICES: {path} ")


def test_a_file_of_prices_that_is_gone_or_may_not_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SettingsError, match="GATEWAY_PRICES"):
            build(path)


def test_a_file_of_prices_with_no_models_is_fine(tmp_path: Path) -> None:
    assert build(prices(tmp_path, {})).meter.prices.of("openai", "gpt-4o") is not None


def test_settings_without_a_file_have_no_prices_of_their_own() -> None:
    assert Settings().prices is None
    assert build().meter.prices._own == {}


def test_the_demo_costs_nothing_and_that_is_known() -> None:
    price = build().meter.prices.of("demo", "echo")
    assert price is not None
    assert (price.rate("prompt"), price.rate("completion")) == (0, 0)
