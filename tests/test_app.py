"""The application: its paths are written as Flask would write them."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.routing import Map
from werkzeug.routing import Rule as WerkzeugRule

from gateway.app import App, Rule, create_app
from tests.builders import Recorder, Script, gateway, says


def asked(rule: WerkzeugRule) -> dict[str, Any]:
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
                values = {**asked(mine), **more}
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
