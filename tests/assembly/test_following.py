"""What follows a routes file that has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway import logs
from gateway.core.routing import plan
from gateway.errors import ModelNotFound
from gateway.secret import Secret
from gateway.upstream.litellm import LiteLLM
from tests.assembly.building import build

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
