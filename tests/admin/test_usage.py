"""Usage over HTTP: everybody's for the admin, and each caller's own for itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.database import StorageFailed
from tests.builders import TOKEN
from tests.managed import Managed, text


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    made = Managed(tmp_path_factory.mktemp("usage"))
    chat(made, TOKEN)
    yield made
    made.close()


def chat(managed: Managed, key: str, tags: str = "", words: str = "hi") -> str:
    body = {"model": "demo/echo", "messages": [{"role": "user", "content": words}]}
    answer = managed.ask("POST", "/v1/chat/completions", body, key=key, x_gateway_tags=tags)
    assert answer.status_code == 200
    return answer.headers["request-id"]


def sheet(answer: Any) -> list[dict[str, str]]:
    assert answer.content_type == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_a_call_can_be_found_with_what_it_used(managed: Managed) -> None:
    request_id = chat(managed, TOKEN, "found-me")
    [call] = managed.got("GET", "/admin/v1/usage/calls?tag=found-me")["data"]
    assert (call["request_id"], call["state"], call["status"]) == (request_id, "ended", 200)
    assert (call["operation"], call["model"], call["deployment"]) == ("chat", "demo/echo", "demo/echo")
    assert (call["caller_kind"], call["tags"], call["total_tokens"] > 0) == ("token", ["found-me"], True)


def test_sums_are_grouped_and_filtered(managed: Managed) -> None:
    keys = [text(managed.make(name)) for name in ("one", "two")]
    for key, count in zip(keys, (2, 1), strict=True):
        for _ in range(count):
            chat(managed, key, "summed")
    found = managed.got("GET", "/admin/v1/usage?by=key,model&tag=summed")
    assert [(one["model"], one["requests"]) for one in found["data"]] == [("demo/echo", 2), ("demo/echo", 1)]
    assert found["total"]["requests"] == 3
    key_id = found["data"][0]["key"]
    assert managed.got("GET", f"/admin/v1/usage?key={key_id}")["total"]["requests"] == 2
    assert managed.got("GET", "/admin/v1/usage?by=key&tag=summed&limit=1")["has_more"] is True


def test_a_sheet_comes_by_accept_and_by_format(managed: Managed) -> None:
    for path, headers in (
        ("/admin/v1/usage?by=model&format=csv", {}),
        ("/admin/v1/usage?by=model", {"Accept": "text/csv"}),
        ("/admin/v1/usage?by=model", {"Accept": "text/csv, application/json;q=0.5"}),
    ):
        [line] = sheet(managed.ask("GET", path, **headers))
        assert line["model"] == "demo/echo"
        assert int(line["requests"]) >= 1
    for headers in ({"Accept": "application/json"}, {"Accept": "*/*"}, {}):
        assert managed.ask("GET", "/admin/v1/usage", **headers).mimetype == "application/json"
    assert managed.ask("GET", "/admin/v1/usage?format=json", Accept="text/csv").mimetype == "application/json"
    assert sheet(managed.ask("GET", "/admin/v1/usage/calls?format=csv&limit=1"))[0]["model"] == "demo/echo"


def test_a_tag_that_is_a_formula_is_no_formula_in_the_sheet(managed: Managed) -> None:
    chat(managed, TOKEN, "=HYPERLINK(1)")
    lines = sheet(managed.ask("GET", "/admin/v1/usage?by=tag&format=csv"))
    assert "'=HYPERLINK(1)" in {line["tag"] for line in lines}
    assert not [cell for line in lines for cell in line.values() if cell.startswith(("=", "+", "-", "@"))]


def test_pages_lead_through_all_calls(managed: Managed) -> None:
    sent = {chat(managed, TOKEN, "paged") for _ in range(5)}
    seen: list[str] = []
    after = ""
    while True:
        page = managed.got("GET", f"/admin/v1/usage/calls?tag=paged&limit=2{after}")
        seen += [call["request_id"] for call in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['next']}"
    assert page["next"] is None
    assert len(seen) == 5
    assert set(seen) == sent


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("by=secret", "by"),
        ("since=yesterday", "since"),
        ("until=-1", "until"),
        ("format=xml", "format"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("colour=red", "colour"),
        ("key=", "key"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(managed: Managed, query: str, param: str) -> None:
    assert managed.got("GET", f"/admin/v1/usage?{query}", status=400)["error"]["param"] == param


def test_a_page_behind_nothing_is_refused(managed: Managed) -> None:
    assert managed.got("GET", "/admin/v1/usage/calls?after=x", status=400)["error"]["param"] == "after"


def test_who_may_not_manage_sees_its_own_and_nothing_else(managed: Managed) -> None:
    mine, other = text(managed.make("mine")), text(managed.make("other"))
    chat(managed, mine, "own-a")
    chat(managed, mine, "own-b")
    chat(managed, other, "own-c")
    found = managed.got("GET", "/v1/me/usage?by=tag", key=mine)
    assert {one["tag"] for one in found["data"]} == {"own-a", "own-b"}
    assert found["total"]["requests"] == 2
    assert managed.got("GET", "/v1/me/usage?tag=own-c", key=mine)["total"]["requests"] == 0
    assert managed.got("GET", "/me/usage", key=other)["total"]["requests"] == 1
    for query in ("by=key", "by=caller", "key=abc", "caller=tok_1", "user=ann", "project=shop"):
        assert managed.got("GET", f"/v1/me/usage?{query}", key=mine, status=400)["error"]["type"]
    assert managed.got("GET", "/admin/v1/usage", key=mine, status=403)["error"]["code"] == "not_permitted"


def test_a_static_token_sees_its_own_calls(managed: Managed) -> None:
    found = managed.got("GET", "/v1/me/usage?by=model", key=TOKEN)
    assert found["total"]["requests"] >= 1
    assert managed.got("GET", "/v1/me/usage")["total"]["requests"] == 0, "the admin token calls no model"
    assert sheet(managed.ask("GET", "/v1/me/usage?by=model&format=csv", key=TOKEN))[0]["model"] == "demo/echo"


def test_a_store_that_is_away_is_503(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StorageFailed("away")

    monkeypatch.setattr(managed.usage, "report", away)
    for path, key in (("/admin/v1/usage", None), ("/v1/me/usage", TOKEN)):
        answer = managed.ask("GET", path, **({"key": key} if key else {}))
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"]


def test_where_nothing_is_kept_nothing_is_served(tmp_path: Path) -> None:
    from gateway.app import create_app
    from tests.builders import gateway

    made = gateway()
    client = create_app(gateway=made).test_client()
    for path in ("/v1/me/usage", "/admin/v1/usage"):
        assert client.get(path, headers={"api-key": TOKEN}).status_code == 404
    made.close(0.1)
