from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.braintrust_server import FakeBraintrust, Mode, Row, merged

SDK_SESSION = """
import braintrust

logger = braintrust.init_logger(project="fakes")
with logger.start_span(name="outer", input="question", tags=["a"]) as outer:
    with outer.start_span(name="inner", type="llm") as inner:
        inner.log(output="half", metrics={"prompt_tokens": 3})
    logger.flush()  # what follows is a later piece of the same rows
    inner.log(output="whole", metrics={"completion_tokens": 4})
    picture = braintrust.Attachment(data=b"png", filename="a.png", content_type="x/y")
    outer.log(tags=["b"], output="answer", metadata={"file": picture})
logger.flush()
logger.start_span(id="big", input="x" * 300_000).end()
logger.flush()
"""


@pytest.fixture
def bt() -> Iterator[FakeBraintrust]:
    with FakeBraintrust() as server:
        yield server


@pytest.fixture(scope="module")
def session() -> Iterator[FakeBraintrust]:
    """A server to which the real SDK, in a process of its own, has logged."""
    with FakeBraintrust(payload_max_bytes=200_000) as server:
        environment = {**os.environ, **server.environment(), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", SDK_SESSION], env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        yield server


def call(bt: FakeBraintrust, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    link = http.client.HTTPConnection("127.0.0.1", bt.port, timeout=5)
    try:
        head = {"Authorization": "Bearer bt-test-key", **headers}
        link.request(method, path, body if isinstance(body, bytes) else json.dumps(body), head)
        response = link.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        link.close()


def post(bt: FakeBraintrust, *rows: Row) -> int:
    whole = [{"project_id": "p", **row} for row in rows]
    return call(bt, "POST", "/logs3", {"rows": whole, "api_version": 2})[0]


# The real SDK.


def test_a_nested_span_of_the_sdk_is_found_merged(session: FakeBraintrust) -> None:
    outer, *_ = [row for row in session.roots() if row["id"] != "big"]
    (inner,) = session.children(outer)
    assert (outer["span_attributes"]["name"], outer["input"], outer["output"]) == (
        "outer",
        "question",
        "answer",
    )
    assert outer["tags"] == ["a", "b"]
    assert session.project_name(outer["project_id"]) == "fakes"
    assert inner["span_parents"] == [outer["span_id"]]
    assert inner["output"] == "whole"
    assert inner["metrics"].keys() >= {"start", "end", "prompt_tokens", "completion_tokens"}
    pieces = [piece for piece in session.pieces() if piece["id"] == inner["id"]]
    assert [bool(piece.get("_is_merge")) for piece in pieces] == [False, True]


def test_an_attachment_of_the_sdk_is_kept(session: FakeBraintrust) -> None:
    outer, *_ = [row for row in session.roots() if row["id"] != "big"]
    assert session.attachments[outer["metadata"]["file"]["key"]] == {
        "filename": "a.png",
        "content_type": "x/y",
        "content": b"png",
        "status": "done",
    }


def test_a_row_too_big_for_a_post_comes_round_by_the_overflow(session: FakeBraintrust) -> None:
    (big,) = [row for row in session.rows() if row["id"] == "big"]
    assert len(big["input"]) == 300_000
    assert session.refused == []
    assert {request.path.partition("?")[0] for request in session.requests()} >= {
        "/logs3/overflow",
        "/version",
    }


# Rows.


def test_a_piece_replaces_unless_it_says_merge(bt: FakeBraintrust) -> None:
    post(bt, {"id": "1", "metrics": {"a": 1}, "span_id": "s"})
    post(bt, {"id": "1", "metrics": {"b": 2}, "span_id": "other", "_is_merge": True})
    assert bt.rows() == [{"project_id": "p", "id": "1", "metrics": {"a": 1, "b": 2}, "span_id": "s"}]
    post(bt, {"id": "1", "output": "new", "_is_merge": False})
    assert bt.rows() == [{"project_id": "p", "id": "1", "output": "new"}]
    assert [len(bt.pieces()), bt.posts] == [3, 3]


def test_a_merge_into_nothing_is_a_row(bt: FakeBraintrust) -> None:
    post(bt, {"id": "1", "output": 1, "_is_merge": True})
    assert bt.rows() == [{"project_id": "p", "id": "1", "output": 1}]


def test_merge_paths_are_replaced_as_a_whole() -> None:
    row = {"id": "1", "metadata": {"a": {"x": 1}, "b": {"x": 1}}, "tags": ["t"]}
    piece = {"metadata": {"a": {"y": 2}, "b": {"y": 2}}, "tags": ["u", "t"]}
    got = merged(row, {**piece, "_is_merge": True, "_merge_paths": [["metadata", "a"]]})
    assert got == {"id": "1", "metadata": {"a": {"y": 2}, "b": {"x": 1, "y": 2}}, "tags": ["t", "u"]}


def test_roots_have_no_parents_and_children_share_their_trace(bt: FakeBraintrust) -> None:
    root = {"id": "r", "root_span_id": "t", "span_parents": None}
    child = {"id": "c", "root_span_id": "t", "span_parents": ["r"]}
    post(bt, child, root, {"id": "x", "root_span_id": "u", "span_parents": []})
    assert [row["id"] for row in bt.roots()] == ["r", "x"]
    assert [row["id"] for row in bt.children(bt.roots()[0])] == ["c"]


def test_one_can_wait_for_rows(bt: FakeBraintrust) -> None:
    poster = threading.Timer(0.05, post, (bt, {"id": "1", "output": "a"}))
    poster.start()
    assert bt.wait_rows(lambda rows: any(row["output"] == "a" for row in rows)) == bt.wait_rows(1)
    poster.join()
    with pytest.raises(TimeoutError, match="1 rows"):
        bt.wait_rows(2, timeout=0.01)


# What is refused.


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"rows": []}, "api_version"),
        ({"rows": {}, "api_version": 2}, "list"),
        ({"rows": [{"project_id": "p"}], "api_version": 2}, "no id"),
        ({"rows": [{"id": "1"}], "api_version": 2}, "belongs to no project"),
        ({"rows": [{"id": "1", "project_id": "p"}] * 2, "api_version": 2}, "twice"),
        (b"{", "api_version"),
    ],
)
def test_a_post_that_breaks_the_contract_is_refused_whole(bt: FakeBraintrust, body: Any, why: str) -> None:
    status, answer = call(bt, "POST", "/logs3", body)
    assert (status, why in answer["error"], bt.rows()) == (400, True, [])
    assert bt.refused == [f"400: {answer['error']}"]


def test_another_key_is_not_let_in(bt: FakeBraintrust) -> None:
    for path in ("/api/apikey/login", "/v1/project", "/logs3"):
        assert call(bt, "POST", path, {"name": "p"}, Authorization="Bearer other")[0] == 401


def test_a_body_over_the_limit_is_413() -> None:
    with FakeBraintrust(payload_max_bytes=100) as small:
        assert call(small, "GET", "/version")[1]["logs3_payload_max_bytes"] == 100
        assert post(small, {"id": "1", "input": "x" * 100}) == 413


def test_a_blob_needs_its_signature(bt: FakeBraintrust) -> None:
    assert call(bt, "PUT", "/blobs/unknown", b"x")[0] == 403
    signed = call(bt, "POST", "/logs3/overflow", {"rows": []})[1]
    path = signed["signedUrl"].removeprefix(bt.url)
    assert call(bt, "PUT", path, b"x")[0] == 403
    assert call(bt, "PUT", path, b"x", **signed["headers"])[0] == 200


def test_a_project_is_found_again_by_name_and_by_id(bt: FakeBraintrust) -> None:
    first = call(bt, "POST", "/v1/project", {"name": "p", "org_name": "fake-org"})[1]
    assert call(bt, "POST", "/v1/project", {"name": "p"})[1] == first
    assert call(bt, "GET", f"/v1/project/{first['id']}")[1] == first
    assert call(bt, "GET", "/v1/project/other")[0] == 404


# Bad days.


def test_modes_switch_while_it_runs(bt: FakeBraintrust) -> None:
    seen = []
    for bt.mode in ("refuse_500", "unauthorized", "ok"):
        seen.append(post(bt, {"id": bt.mode}))
    assert seen == [500, 401, 200]
    assert [row["id"] for row in bt.rows()] == ["ok"]
    assert bt.posts == 3


def test_slow_is_slow_and_stores(bt: FakeBraintrust) -> None:
    bt.mode, bt.slow_s = "slow", 0.1
    started = time.monotonic()
    assert post(bt, {"id": "1"}) == 200
    assert time.monotonic() - started >= 0.1
    assert len(bt.rows()) == 1


def test_a_limited_server_says_how_long_to_wait(bt: FakeBraintrust) -> None:
    bt.mode = "limited"
    link = http.client.HTTPConnection("127.0.0.1", bt.port, timeout=5)
    link.request("POST", "/logs3", b"{}", {"Authorization": "Bearer bt-test-key"})
    response = link.getresponse()
    assert (response.status, response.headers["retry-after"]) == (429, "2")
    link.close()


def test_too_large_is_more_than_one_row_or_more_bytes_than_said(bt: FakeBraintrust) -> None:
    bt.mode, bt.most_bytes = "too_large", 200
    assert post(bt, {"id": "1"}, {"id": "2"}) == 413
    assert post(bt, {"id": "3", "input": "x" * 200}) == 413
    assert post(bt, {"id": "4"}) == 200
    assert [row["id"] for row in bt.rows()] == ["4"]


@pytest.mark.parametrize(
    ("mode", "seen"),
    [("reset", (ConnectionResetError, http.client.IncompleteRead)), ("lost_reply", http.client.RemoteDisconnected)],
)
def test_a_reply_that_is_lost_leaves_the_rows_stored(bt: FakeBraintrust, mode: Mode, seen: Any) -> None:
    bt.mode = mode
    with pytest.raises(seen):
        post(bt, {"id": "1"})
    assert [row["id"] for row in bt.rows()] == ["1"]


def test_signing_in_may_fail_alone(bt: FakeBraintrust) -> None:
    bt.mode = "login_down"
    assert call(bt, "POST", "/api/apikey/login")[0] == 500
    assert call(bt, "GET", "/version")[0] == 200
    assert post(bt, {"id": "1"}) == 200


def test_a_bad_row_has_its_whole_post_refused(bt: FakeBraintrust) -> None:
    bt.mode, bt.marker = "bad_rows", "ba\u0308d"
    assert post(bt, {"id": "1"}, {"id": "2", "input": [{"content": "so ba\u0308d"}]}) == 400
    assert post(bt, {"id": "3"}) == 200
    assert [row["id"] for row in bt.rows()] == ["3"]


def test_a_server_that_went_away_comes_back_at_the_same_port_with_its_rows(bt: FakeBraintrust) -> None:
    assert post(bt, {"id": "1"}) == 200
    for number in (2, 3):
        bt.close()
        with pytest.raises(ConnectionRefusedError):
            post(bt, {"id": "lost"})
        bt.come_back()
        assert post(bt, {"id": str(number)}) == 200
    assert [row["id"] for row in bt.rows()] == ["1", "2", "3"]


def test_what_is_stored_can_be_forgotten(bt: FakeBraintrust) -> None:
    post(bt, {"id": "1"})
    bt.forget()
    assert (bt.rows(), bt.pieces(), bt.posts) == ([], [], 0)


def test_a_hanging_server_never_answers_and_hangs_up_when_it_recovers(bt: FakeBraintrust) -> None:
    bt.mode = "hang"
    answers: list[Any] = []

    def try_once() -> None:
        try:
            answers.append(post(bt, {"id": "1"}))
        except http.client.RemoteDisconnected as error:
            answers.append(type(error))

    poster = threading.Thread(target=try_once)
    poster.start()
    (request,) = bt.wait_for(1)
    assert not request.answered.wait(0.1)
    bt.mode = "ok"
    poster.join(5)
    assert answers == [http.client.RemoteDisconnected]
    assert bt.rows() == []
