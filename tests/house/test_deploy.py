"""What is deployed beside the gateway asks for what the gateway has: each query names metrics and labels that exist."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest
import yaml
from modal.file_pattern_matcher import FilePatternMatcher

from gateway.metrics import Metrics, SpoolState
from gateway.settings import SETTINGS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

#: Prometheus' own.
_OWN = {"up": {"job", "instance"}}
_WORDS = frozenset(
    ("sum", "max", "rate", "increase", "histogram_quantile", "label_values", "by", "and", "offset", "le", "model")
)


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for rule in ALERTS["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Every series of the gateway's, and its labels."""
    metrics = Metrics()
    metrics.watch_spools(lambda: [SpoolState("braintrust", 1, 1.0)])
    found: dict[str, set[str]] = {**_OWN}
    for collector, names in metrics._registry._collector_to_names.items():
        for name in names:
            found[name] = {*getattr(collector, "_labelnames", ()), "le"}
    for line in metrics.text()[0].decode().splitlines():
        if (series := re.match(r"([a-z_]+)(?:\{(.*)\})? ", line)) is not None:
            labels = set(re.findall(r'([a-z_]+)="', series[2] or ""))
            found.setdefault(series[1], set()).update(labels)
    return found


@pytest.mark.parametrize(("where", "query"), list(queries()), ids=lambda text: re.sub(r"\W+", "-", text)[:40])
def test_a_query_names_metrics_and_labels_that_exist(known: dict[str, set[str]], where: str, query: str) -> None:
    bare = re.sub(r'"[^"]*"', '""', query)
    metrics = set(re.findall(r"\b(up|(?:gen_ai|gateway)_[a-z_]+)\b(?!\s*[=!]~?)", bare))
    labels = set(re.findall(r"\b([a-z_]+)\s*(?:=~|!~|!=|==|=)\s*\"\"", bare))
    for group in re.findall(r"\bby\s*\(([^)]*)\)", bare):
        labels |= {name.strip() for name in group.split(",")}
    named = {name for name in metrics if name in known}
    assert named, where
    assert not metrics - named - labels, where
    assert labels <= set().union(*(known[name] for name in named)) | {"le"}, where


def test_every_metric_of_traces_and_money_is_looked_at() -> None:
    asked = " ".join(query for _, query in queries())
    for name in ("gateway_trace_rows_dropped_total", "gateway_spool_oldest_seconds", "gateway_cost_usd_total"):
        assert name in asked


def test_each_alert_says_what_is_wrong_and_what_to_look_at() -> None:
    for rule in ALERTS["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]


def test_panels_neither_overlap_nor_share_an_id() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_compose_sets_variables_that_there_are_and_mounts_files_that_are_there() -> None:
    known = {row.env for row in SETTINGS}
    assert set(COMPOSE["services"]["gateway"]["environment"]) <= known
    assert COMPOSE["secrets"]["gateway_token"]["environment"] in known
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file(), (name, source)


def test_compose_shows_the_world_nothing_and_no_image_moves_by_itself() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        if "image" in service:
            assert re.search(r":v?\d", service["image"]), name


def test_modal_gets_the_pages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[object] = []
    real = modal.Image.add_local_python_source

    def noting(image: modal.Image, *modules: str, **more: object) -> modal.Image:
        ignored.append(more.get("ignore"))
        return real(image, *modules, **more)

    monkeypatch.setattr(modal.Image, "add_local_python_source", noting)
    runpy.run_path(str(DEPLOY.parent / "modal_app.py"))
    (patterns,) = ignored
    assert isinstance(patterns, list), "by default Modal takes Python files alone"
    matcher = FilePatternMatcher(*patterns)
    pages = DEPLOY.parent / "gateway" / "pages"
    files = [path for path in pages.rglob("*") if path.suffix in (".html", ".js", ".css", ".svg")]
    assert len(files) > 20
    assert not [path for path in files if matcher(path.relative_to(DEPLOY.parent))]
