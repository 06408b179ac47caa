"""What the app does once, or only when it is asked, rather than for each request or path is what Flask does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, after_this_request, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map
from werkzeug.routing import Rule as WerkzeugRule

from gateway import web
from gateway.app import App, Rule, create_app
from tests.builders import Recorder, Script, gateway, says


@pytest.fixture
def app() -> Iterator[App]:
    running = gateway(Script([says("hello")]), Recorder())
    made = create_app(gateway=running)
    assert isinstance(made, App)
    yield made
    running.close(0.1)


def found(app: Flask, method: str, path: str, **headers: str) -> Any:
    """The rule and the values of a path, or the status and the headers of who finds none."""
    with app.test_request_context(path, method=method, headers=headers) as context:
        if (error := context.request.routing_exception) is None:
            return context.request.url_rule, context.request.view_args
        assert isinstance(error, HTTPException)
        return error.code, sorted(error.get_headers())


def as_flask_finds(app: Flask, method: str, path: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patched:
        patched.delattr(App, "create_url_adapter")
        return found(app, method, path)


def test_each_path_has_the_rule_that_flask_finds_however_often_it_is_asked(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {rule.rule.replace("<", "").replace(">", "").replace("path:", "") for rule in app.url_map.iter_rules()}
    paths |= {
        "/",
        "/nothing",
        "//health",
        "/health/",
        "/v1/models/a/b",
        "/v1/files/<id>",
        "/v1/batches/%3Cid%3E/cancel",
    }
    for path in sorted(paths):
        for method in ("GET", "POST", "HEAD", "PUT", "OPTIONS"):
            expected = as_flask_finds(app, method, path, monkeypatch)
            assert [found(app, method, path) for _ in range(2)] == [expected, expected], (method, path)


def test_a_path_that_is_spelt_like_its_rule_keeps_its_values(app: App) -> None:
    rule = next(
        rule for rule in app.url_map.iter_rules() if rule.rule == "/v1/files/<id>" and "GET" in (rule.methods or ())
    )
    for _ in range(2):
        assert found(app, "GET", "/v1/files/<id>") == (rule, {"id": "<id>"})


def test_what_callers_make_up_is_not_kept(app: App) -> None:
    for number in range(50):
        found(app, "GET", f"/v1/models/{number}")
        found(app, "GET", "/" * number + "health")
        found(app, "GET", f"/nothing/{number}")
    assert set(app.found) <= {("GET", "/health"), ("GET", "/")}


def test_a_request_for_a_web_socket_finds_no_rule_of_another_kind(app: App) -> None:
    for _ in range(2):
        assert isinstance(found(app, "GET", "/health"), tuple)
        assert found(app, "GET", "/health", Connection="Upgrade", Upgrade="websocket")[0] == 400


def test_what_a_blueprint_runs_before_and_after_its_views_is_run_for_them_alone(app: App) -> None:
    ran: list[str] = []
    routes = Blueprint("more", __name__)

    def after(response: Response) -> Response:
        ran.append("after")
        return response

    def here(response: Response) -> Response:
        ran.append("after this")
        return response

    def view() -> str:
        after_this_request(here)
        return url_for("more.view", a="b")

    routes.before_request(lambda: ran.append("before"))
    routes.after_request(after)
    routes.teardown_request(lambda _error: ran.append("teardown"))
    routes.add_url_rule("/more", "view", web.public(view))
    app.register_blueprint(routes)
    client = app.test_client()
    assert client.get("/health").status_code == 200
    assert ran == []
    response = client.get("/more")
    assert response.text == "/more?a=b"
    assert response.headers["request-id"].startswith("req_"), "the app's own come as well"
    assert ran == ["before", "after this", "after", "teardown"]


def test_a_view_that_an_app_keeps_from_being_reached_is_not_reached(app: App) -> None:
    app.before_request(lambda: ("closed", 418) if request.path == "/health" else None)
    assert app.test_client().get("/health").status_code == 418


def test_a_request_that_is_killed_is_under_way_no_more(app: App) -> None:
    def view() -> None:
        raise SystemExit

    app.add_url_rule("/killed", "killed", web.public(view))
    with pytest.raises(SystemExit):
        app.test_client().get("/killed")
    text, _ = web.gateway_of(app).metrics.text()
    assert b"gateway_requests_in_flight 0.0" in text


def values_of(rule: WerkzeugRule) -> dict[str, Any]:
    """A value for each part of a path, one that has to be quoted where it may."""
    return {name: 7 if type(one).__name__ == "IntegerConverter" else "a b" for name, one in rule._converters.items()}


def test_every_path_is_written_as_werkzeug_writes_it() -> None:
    made = gateway(Script([says("no")]), Recorder())
    app = create_app(gateway=made)
    rules = list(app.url_map.iter_rules())
    plain = Map([WerkzeugRule(rule.rule, endpoint=rule.endpoint, methods=rule.methods) for rule in rules])
    assert any(rule.arguments for rule in rules)
    for mine, other in zip(rules, plain.iter_rules(), strict=True):
        assert isinstance(mine, Rule)
        for more in ({}, {"q": "x&y"}):
            for append_unknown in (True, False):
                values = {**values_of(mine), **more}
                written = mine.build(values, append_unknown)
                assert written == other.build(values, append_unknown)
                assert written == mine.build(values, append_unknown), "a second time"
                assert written is not None
    made.close(0.1)


def test_a_start_compiles_no_writer_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    by_werkzeug = WerkzeugRule._compile_builder

    def counted(rule: WerkzeugRule, append_unknown: bool = True) -> Any:
        compiled.append(rule.rule)
        return by_werkzeug(rule, append_unknown)

    monkeypatch.setattr(WerkzeugRule, "_compile_builder", counted)
    app = App("paths", static_folder=None)
    app.add_url_rule("/a/<one>", endpoint="a")
    app.add_url_rule("/b", endpoint="b")
    assert compiled == []
    with app.test_request_context():
        assert [app.url_for("a", one=1, q="x") for _ in range(2)] == ["/a/1?q=x"] * 2
    assert compiled == ["/a/<one>"], "once, and no other"
