"""The rows of what is answered with no call, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.answers import SCHEMAS
from gateway.core.endpoints import ENDPOINTS
from gateway.core.operations import (
    KNOWN,
    MANAGING,
    OPERATIONS,
    PUBLIC,
    SPENDING,
    Operation,
    check_body,
    read_query,
    refuse_unknown,
)
from gateway.core.rights import ADMIN, CALL, METRICS
from gateway.errors import InvalidRequest

ROWS = {row.name: row for row in OPERATIONS}


def test_no_two_rows_have_one_name_or_one_place() -> None:
    assert len(ROWS) == len(OPERATIONS)
    assert not set(ROWS) & {row.name for row in ENDPOINTS}
    places = [(row.method, path) for row in OPERATIONS for path in (row.path, *row.others)]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_a_row_needs_something_known_and_has_an_answer_of_a_known_shape(row: Operation) -> None:
    assert row.answer in SCHEMAS
    assert row.needs in {ADMIN, CALL, METRICS, KNOWN, PUBLIC}
    assert (row.needs == ADMIN) is row.path.startswith("/admin/v1/") is (row in (*MANAGING, *SPENDING))
    assert (row.body is not None) is (row.method in ("POST", "PATCH"))
    assert row.clears <= set(row.body or {})
    assert row.idempotent is row.name.endswith(".create")


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("keys.create", {"name": "a"}, None),
        ("keys.create", {"name": "a", "expires": 1, "tags": []}, None),
        ("keys.create", {}, "name"),
        ("keys.create", {"name": None}, "name"),
        ("keys.create", {"name": " "}, "name"),
        ("keys.create", {"name": "a", "expires": None}, "expires"),
        ("keys.create", {"name": "a", "Name": "a"}, "Name"),
        ("keys.change", {}, None),
        ("keys.change", {"expires": None}, None),
        ("keys.change", {"name": None}, "name"),
        ("keys.change", {"disabled": 1}, "disabled"),
        ("keys.change", {"project": "a"}, "project"),
        ("keys.rotate", {"overlap_s": True}, "overlap_s"),
        ("users.change", {"tags": []}, "tags"),
        ("keys.show", {"name": "a"}, "name"),
    ],
)
def test_a_body_is_checked_by_its_row(name: str, body: Any, param: str | None) -> None:
    if param is None:
        check_body(ROWS[name], body)
        return
    with pytest.raises(InvalidRequest) as caught:
        check_body(ROWS[name], body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("name", "sent", "read"),
    [
        ("usage.sum", {}, {}),
        ("usage.sum", {"by": "key,day", "limit": "7"}, {"by": "key,day", "limit": 7}),
        ("keys.list", {"deleted": "true"}, {"deleted": True}),
        ("usage.sum", {"limit": "1001"}, "limit"),
        ("usage.sum", {"limit": "0"}, "limit"),
        ("usage.sum", {"tag": ""}, "tag"),
        ("usage.sum", {"after": "1_req"}, "after"),
        ("keys.list", {"deleted": "1"}, "deleted"),
        ("me.usage", {"key": "abc"}, "key"),
    ],
)
def test_a_query_is_read_by_its_row(name: str, sent: dict[str, str], read: Any) -> None:
    if isinstance(read, dict):
        assert read_query(ROWS[name], sent) == read
        return
    with pytest.raises(InvalidRequest) as caught:
        read_query(ROWS[name], sent)
    assert caught.value.param == read


def test_a_name_that_is_refused_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"'nmae' is not known here; there are name, disabled\."):
        check_body(ROWS["users.change"], {"nmae": "a"})
    with pytest.raises(InvalidRequest, match="there are none"):
        refuse_unknown({}, {"x" * 1000: 1})
