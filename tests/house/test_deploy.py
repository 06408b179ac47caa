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

import modal_app
from gateway.metrics import Metrics, SpoolState
from gateway.settings import ROUTES_FILE, Settings
from gateway.settings.table import SETTINGS

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
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), (name, source)


def test_the_routes_file_of_a_container_is_that_of_the_folder_that_compose_mounts(tmp_path: Path) -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    [(target, link)] = re.findall(r"ln -s (\S+) (\S+)$", dockerfile, re.MULTILINE)
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["gateway"]["volumes"]}
    assert str(Path(target).parent) in mounted
    assert link == Path(target).name == ROUTES_FILE, "it lies in the folder that the gateway is started in"
    [server] = re.findall(r"^WORKDIR (/srv\S+)", dockerfile, re.MULTILINE)
    assert dockerfile.index(f"WORKDIR {server}") < dockerfile.index("ln -s") < dockerfile.index("USER ")

    config, folder = tmp_path / "config", tmp_path / "server"
    config.mkdir()
    folder.mkdir()
    (folder / link).symlink_to(config / link)
    assert Settings.from_env({}, folder).config is None, "a link that leads nowhere is no file"
    (config / link).write_text("model_list: []\n")
    assert Settings.from_env({}, folder).config == folder / link


def test_modal_takes_the_files_along_that_the_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[tuple[Path, str]] = []

    def noting(image: modal.Image, local: Path, remote: str) -> modal.Image:
        added.append((local, remote))
        return image

    monkeypatch.setattr(modal.Image, "add_local_file", noting)
    image = modal.Image.debian_slim(python_version="3.12")
    modal_app.carrying(image, tmp_path)
    assert added == []
    (tmp_path / "gateway.yaml").touch()
    (tmp_path / "prices.json").touch()
    modal_app.carrying(image, tmp_path)
    assert added == [(tmp_path / "gateway.yaml", "/config/gateway.yaml")], "nobody has named the prices"
    added.clear()
    (tmp_path / "ours.yaml").touch()
    (tmp_path / ".env").write_text("GATEWAY_CONFIG=ours.yaml\nGATEWAY_PRICES=prices.json\n")
    modal_app.carrying(image, tmp_path)
    assert added == [
        (tmp_path / "ours.yaml", "/config/gateway.yaml"),
        (tmp_path / "prices.json", "/config/prices.json"),
    ]


def test_in_a_container_of_modal_the_variables_name_the_files_that_came_along(tmp_path: Path) -> None:
    environ = {"GATEWAY_CONFIG": "ours.yaml", "GATEWAY_PRICES": "prices.json"}
    modal_app.point_at(tmp_path, environ)
    assert environ == {"GATEWAY_CONFIG": "ours.yaml", "GATEWAY_PRICES": "prices.json"}
    (tmp_path / "gateway.yaml").write_text("model_list: []\n")
    (tmp_path / "prices.json").write_text("{}")
    modal_app.point_at(tmp_path, environ)
    settings = Settings.from_env(environ, tmp_path / "elsewhere")
    assert (settings.config, settings.prices) == (tmp_path / "gateway.yaml", tmp_path / "prices.json")
    inline = {"GATEWAY_CONFIG_YAML": "model_list: []"}
    modal_app.point_at(tmp_path, inline)
    assert Settings.from_env(inline, tmp_path).config is None, "the text goes first, as under gunicorn"


def test_the_guide_of_deploying_says_what_the_files_say() -> None:
    page = (DEPLOY.parent / "docs/deploy.md").read_text()
    [compose] = [block for block in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S) if "compose" in block]
    comments = "".join(re.findall(r"^# (.*)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE))
    assert re.sub(r"\s+", "", compose) in re.sub(r"\s+", "", comments)
    [unit] = re.findall(r"^```ini\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    service = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    name, _, folder = service["Environment"].partition("=")
    assert name in {row.env for row in SETTINGS}
    assert folder == f"/var/lib/{service['StateDirectory']}"
    assert int(service["TimeoutStopSec"]) > 25, "gunicorn.conf.py gives live streams 25 s"


def test_the_scrape_of_the_guide_is_that_of_the_file() -> None:
    page = (DEPLOY.parent / "docs/metrics.md").read_text()
    [text] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    [shown] = yaml.safe_load(text)["scrape_configs"]
    [used, *_] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    assert shown.keys() <= used.keys() | {"static_configs"}
    assert set(shown["authorization"]) == set(used["authorization"]) - {"type"}, "Bearer, where nothing is said"


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
