"""Braintrust as a place to deliver to: what is asked of it, and what becomes of each of its answers."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.tracing import posting
from gateway.tracing.braintrust import Braintrust
from gateway.tracing.delivery import Piece, Rejected, TooLarge, Unavailable, Undelivered
from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.loopback import Exchange

JSON = dict[str, Any]
Make = Callable[..., Braintrust]

KEY = "bt-test-key"
LOGIN = "/api/apikey/login"


class Scripted(FakeBraintrust):
    """Answers some paths otherwise: by path, a status, a body and headers."""

    def __init__(self) -> None:
        self.instead: dict[str, tuple[int, Any, Mapping[str, str]]] = {}
        super().__init__(KEY)

    def answer(self, path: str, status: int, body: Any = None, **headers: str) -> None:
        """Answer a path so from now on."""
        self.instead[path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def handle(self, exchange: Exchange) -> None:
        if (found := self.instead.get(exchange.request.path)) is None:
            return super().handle(exchange)
        status, body, headers = found
        if isinstance(body, bytes):
            return exchange.respond(status, headers, body)
        return exchange.respond_json(status, body, headers)

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [one.path for one in self.requests()]


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as fake:
        yield fake


@pytest.fixture
def make(server: Scripted) -> Iterator[Make]:
    """Makes destinations at the fake; their connections are closed at the end."""
    made: list[Braintrust] = []

    def one(key: str = KEY, project: str = "the-project", **others: Any) -> Braintrust:
        made.append(Braintrust(Secret(key), project, **{"app_url": server.url, **others}))
        return made[-1]

    yield one
    for destination in made:
        destination.close()


def piece(id: str = "r-1", to: JSON | None = None, **fields: Any) -> Piece:
    row = {"id": id, "span_id": "a" * 16, "root_span_id": "b" * 32, **fields}
    return Piece(id, json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode(), to)


def refused(destination: Braintrust, *pieces: Piece) -> Undelivered:
    """Deliver, which must fail as the contract has it; returns how."""
    with pytest.raises(Undelivered) as caught:
        destination.deliver(pieces or [piece()])
    return caught.value


def org(name: str, **fields: Any) -> JSON:
    return {"id": f"id-of-{name}", "name": name, **fields}


# Signing in.


def test_nothing_is_asked_before_there_is_a_row(server: Scripted, make: Make) -> None:
    destination = make()
    assert destination.limit_bytes == 6 << 20
    destination.close()
    assert server.requests() == []


def test_the_first_row_signs_in_and_the_next_ones_only_post(server: Scripted, make: Make) -> None:
    destination = make()
    for number in range(3):
        destination.deliver([piece(f"r-{number}")])
    assert server.paths == [LOGIN, "/version", "/v1/project", "/logs3", "/logs3", "/logs3"]
    assert {one.headers["authorization"] for one in server.requests()} == {f"Bearer {KEY}"}
    assert len({one.connection for one in server.requests()}) == 1, "one connection is kept"


def test_the_organisation_is_chosen_by_its_name(server: Scripted, make: Make) -> None:
    orgs = [org("first", api_url="http://127.0.0.1:1"), org("ours", api_url=f"{server.url}/")]
    server.answer(LOGIN, 200, {"org_info": orgs})
    destination = make(org_name="ours")
    assert destination.check() == "ours"
    destination.deliver([piece()])
    [asked] = [one.body for one in server.requests() if one.path == "/v1/project"]
    assert asked == {"name": "the-project", "org_name": "ours"}


def test_without_a_name_the_first_organisation_is_it(server: Scripted, make: Make) -> None:
    server.answer(LOGIN, 200, {"org_info": [org("first", api_url=server.url), org("other", api_url="http://x.test")]})
    assert make().check() == "first"


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ([org("theirs"), org("another")], "theirs, another"),
        ([], "none"),
        (None, "none"),
        (["ours"], "none"),
    ],
)
def test_an_organisation_that_the_key_is_not_of_needs_an_operator(
    server: Scripted, make: Make, info: Any, said: str
) -> None:
    server.answer(LOGIN, 200, {"org_info": info})
    error = refused(make(org_name="ours"))
    assert isinstance(error, Unavailable)
    assert error.refused
    assert "'ours'" in str(error)
    assert said in str(error)


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'"text"', b"{}", b'{"org_info":[{"name":"o"}]}'])
def test_a_login_that_says_nothing_useful_needs_an_operator(server: Scripted, make: Make, body: bytes) -> None:
    server.answer(LOGIN, 200, body)
    error = refused(make())
    assert isinstance(error, Unavailable)
    assert error.refused
    assert server.paths == [LOGIN]


def test_a_given_api_address_overrides_the_one_of_the_login(server: Scripted, make: Make) -> None:
    server.answer(LOGIN, 200, {"org_info": [org("o", api_url="http://127.0.0.1:1")]})
    make(api_url=f"{server.url}/").deliver([piece()])
    assert [row["id"] for row in server.rows()] == ["r-1"]


def test_a_path_in_the_addresses_stays(server: Scripted, make: Make) -> None:
    server.answer(f"/app{LOGIN}", 200, {"org_info": [org("o", api_url="http://127.0.0.1:1")]})
    server.answer("/api/version", 200, {})
    server.answer("/api/v1/project", 200, {"id": "p"})
    server.answer("/api/logs3", 200, {})
    make(app_url=f"{server.url}/app/", api_url=f"{server.url}/api/").deliver([piece()])
    assert server.paths == [f"/app{LOGIN}", "/api/version", "/api/v1/project", "/api/logs3"]


def test_a_refused_key_needs_an_operator(server: Scripted, make: Make) -> None:
    error = refused(make(key="bt-wrong"))
    assert isinstance(error, Unavailable)
    assert error.refused
    assert "401" in str(error)
    assert server.paths == [LOGIN]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422])
@pytest.mark.parametrize("to", [None, {"project_name": "theirs"}, {"experiment_id": "e"}])
def test_no_refusal_of_the_login_is_the_rows_fault(server: Scripted, make: Make, status: int, to: JSON | None) -> None:
    server.answer(LOGIN, status, {"error": "no"})
    error = refused(make(), piece(to=to))
    assert isinstance(error, Unavailable)
    assert error.refused


def test_after_a_401_it_signs_in_again(server: Scripted, make: Make) -> None:
    destination = make()
    destination.deliver([piece("before")])
    server.mode = "unauthorized"
    error = refused(destination, piece("after"))
    assert isinstance(error, Unavailable)
    assert error.refused
    server.mode = "ok"
    already = len(server.requests())
    destination.deliver([piece("after")])
    assert server.paths[already:] == [LOGIN, "/version", "/logs3"]
    assert [row["id"] for row in server.rows()] == ["before", "after"]


def test_signing_in_again_follows_the_api_to_where_it_has_moved(server: Scripted, make: Make) -> None:
    destination = make()
    destination.deliver([piece("before")])
    with FakeBraintrust(KEY) as moved:
        server.answer(LOGIN, 200, {"org_info": [org("o", api_url=moved.url)]})
        server.answer("/logs3", 404)
        error = refused(destination, piece("after"))
        assert isinstance(error, Unavailable)
        assert error.refused
        destination.deliver([piece("after")])
        assert [row["id"] for row in moved.rows()] == ["after"]


def test_a_closed_destination_opens_again(server: Scripted, make: Make) -> None:
    destination = make()
    for number in range(2):
        destination.deliver([piece(f"r-{number}")])
        destination.close()
        destination.close()
    assert len(server.rows()) == 2


# Where rows go.


def test_the_project_is_made_once_and_known_from_then_on(server: Scripted, make: Make) -> None:
    destination = make()
    destination.check()
    destination.deliver([piece("1")])
    destination.deliver([piece("2", {"project_name": "theirs"})])
    destination.deliver([piece("3", {"project_name": "theirs"})])
    destination.deliver([piece("4", {"project_name": "the-project"})])
    assert server.paths.count("/v1/project") == 2
    names = {row["id"]: server.project_name(row["project_id"]) for row in server.rows()}
    assert names == {"1": "the-project", "2": "theirs", "3": "theirs", "4": "the-project"}


@pytest.mark.parametrize(
    ("to", "place"),
    [
        ({"project_id": "p-1"}, {"project_id": "p-1", "log_id": "g"}),
        ({"experiment_id": "e-1"}, {"experiment_id": "e-1"}),
        ({"prompt_session_id": "s-1"}, {"prompt_session_id": "s-1", "log_id": "x"}),
    ],
)
def test_a_place_by_id_is_taken_at_its_word(server: Scripted, make: Make, to: JSON, place: JSON) -> None:
    make().deliver([piece("1", to), piece("2", to)])
    for row in server.rows():
        assert {name: row.get(name) for name in ("project_id", "experiment_id", "prompt_session_id", "log_id")} == {
            **dict.fromkeys(("project_id", "experiment_id", "prompt_session_id", "log_id")),
            **place,
        }
    assert len(server.rows()) == 2
    assert "/v1/project" not in server.paths


def test_rows_are_posted_as_they_are_and_replace(server: Scripted, make: Make) -> None:
    said = {"input": [{"content": 'ä "quoted" \\ \n \u2028 😀'}], "metrics": {"start": 1.5}, "tags": ["a"]}
    make().deliver([piece("1", **said), piece("2")])
    [posted] = [one.body for one in server.requests() if one.path == "/logs3"]
    assert posted["api_version"] == 2
    assert [row["id"] for row in posted["rows"]] == ["1", "2"]
    assert {row["_is_merge"] for row in posted["rows"]} == {False}
    stored = server.rows()[0]
    assert {name: stored[name] for name in said} == said
    assert server.refused == []


def test_the_same_row_twice_is_one_row(server: Scripted, make: Make) -> None:
    destination = make()
    destination.deliver([piece("1", output="half")])
    destination.deliver([piece("1", output="whole")])
    assert [row["output"] for row in server.rows()] == ["whole"]


@pytest.mark.parametrize("answer", [{}, {"id": None}, {"id": 7}, ["id"]])
def test_a_project_without_an_id_is_asked_for_again(server: Scripted, make: Make, answer: Any) -> None:
    server.answer("/v1/project", 200, answer)
    destination = make()
    assert isinstance(refused(destination), Unavailable)
    del server.instead["/v1/project"]
    destination.deliver([piece()])
    assert len(server.rows()) == 1


# How much at once.


def test_the_limit_is_what_the_server_says(server: Scripted, make: Make) -> None:
    server.payload_max_bytes = 5000
    destination = make()
    destination.check()
    assert destination.limit_bytes == 5000


@pytest.mark.parametrize("said", [None, "6000", 0, -1, 1.5, [], True])
def test_a_limit_that_is_none_leaves_the_default(server: Scripted, make: Make, said: Any) -> None:
    server.answer("/version", 200, {"logs3_payload_max_bytes": said})
    destination = make()
    destination.check()
    assert destination.limit_bytes == 6 << 20


def test_a_server_that_does_not_state_its_version_still_gets_rows(server: Scripted, make: Make) -> None:
    server.answer("/version", 404, {})
    destination = make()
    destination.deliver([piece()])
    assert destination.limit_bytes == 6 << 20
    assert len(server.rows()) == 1


def test_a_version_that_fails_now_is_asked_for_again(server: Scripted, make: Make) -> None:
    server.answer("/version", 503, {})
    destination = make()
    error = refused(destination)
    assert isinstance(error, Unavailable)
    assert not error.refused
    del server.instead["/version"]
    server.payload_max_bytes = 7000
    destination.deliver([piece()])
    assert destination.limit_bytes == 7000


def test_rows_over_the_limit_together_are_not_sent_and_one_alone_is(server: Scripted, make: Make) -> None:
    server.payload_max_bytes = 4000
    destination = make()
    halves = [piece(str(number), input="x" * 2000) for number in range(2)]
    assert isinstance(refused(destination, *halves), TooLarge)
    assert server.posts == 0
    for half in halves:
        destination.deliver([half])
    assert isinstance(refused(destination, piece("3", input="x" * 5000)), TooLarge)
    assert server.posts == 3, "one row is the server's to judge"
    assert len(server.rows()) == 2


def test_the_envelope_counts(server: Scripted, make: Make) -> None:
    """What is let through as small enough is so on the wire too."""
    server.payload_max_bytes = 3000
    destination = make()
    destination.check()
    for size in range(1000, 1500, 10):
        try:
            destination.deliver([piece("1", input="x" * size), piece("2", input="x" * size)])
        except TooLarge:
            break
    assert server.refused == []
    assert server.posts > 5


# What the answers mean.


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529, 599])
@pytest.mark.parametrize("path", [LOGIN, "/version", "/v1/project", "/logs3"])
def test_what_may_pass_is_tried_again(server: Scripted, make: Make, path: str, status: int) -> None:
    server.answer(path, status, {"error": "busy"})
    destination = make()
    error = refused(destination, piece(to={"project_name": "theirs"}))
    assert isinstance(error, Unavailable)
    assert not error.refused
    assert str(status) in str(error)
    assert "busy" in str(error)
    server.instead.clear()
    destination.deliver([piece()])


@pytest.mark.parametrize(("header", "seconds"), [("2", 2.0), (" 120 ", 120.0), ("0", 0.0)])
def test_the_wait_that_is_asked_for_is_handed_on(server: Scripted, make: Make, header: str, seconds: float) -> None:
    server.answer("/logs3", 429, {}, Retry_After=header)
    error = refused(make())
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == seconds


@pytest.mark.parametrize(("away_s", "least_s", "most_s"), [(90, 85.0, 90.0), (-90, 0.0, 0.0)])
def test_the_wait_may_be_a_date(server: Scripted, make: Make, away_s: float, least_s: float, most_s: float) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=away_s), usegmt=True)
    server.answer("/logs3", 503, {}, Retry_After=date)
    error = refused(make())
    assert isinstance(error, Unavailable)
    assert error.retry_after_s is not None
    assert least_s <= error.retry_after_s <= most_s


@pytest.mark.parametrize(
    "header",
    [
        "",
        "soon",
        "-5",
        "1e3",
        "²",
        "٣",
        "Wed, 99 Foo 2026 00:00:00 GMT",
        "9" * 5000,
        "Wed, 25 Nov 2026 08:00:00",
        "Wed, 99999999999999999999 Nov 2026 08:00:00 GMT",
        "Wed, 25 Nov 2026 08:00:00 +99999999999999999999",
    ],
)
def test_a_wait_that_nobody_can_read_is_no_fault(server: Scripted, make: Make, header: str) -> None:
    server.answer("/logs3", 429, {}, Retry_After=header.encode().decode("latin-1"))
    error = refused(make())
    assert isinstance(error, Unavailable)
    assert not error.refused


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("to", [None, {"project_name": "theirs"}, {"project_id": "p"}])
def test_a_post_that_is_not_acceptable_is_the_rows_fault(
    server: Scripted, make: Make, status: int, to: JSON | None
) -> None:
    server.answer("/logs3", status, {"error": "no such field"})
    error = refused(make(), piece(to=to))
    assert isinstance(error, Rejected)
    assert "no such field" in str(error)


@pytest.mark.parametrize("to", [None, {"project_name": "theirs"}, {"experiment_id": "e"}])
def test_a_post_that_is_too_large_is_told_apart(server: Scripted, make: Make, to: JSON | None) -> None:
    server.answer("/logs3", 413, {})
    assert isinstance(refused(make(), piece(to=to)), TooLarge)


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("to", [{"project_id": "p"}, {"experiment_id": "e"}, {"prompt_session_id": "s"}])
def test_a_place_of_a_callers_that_is_not_to_be_had_is_those_rows_fault(
    server: Scripted, make: Make, status: int, to: JSON
) -> None:
    server.answer("/logs3", status, {"error": "not yours"})
    destination = make()
    assert isinstance(refused(destination, piece(to=to)), Rejected)
    server.instead.clear()
    destination.deliver([piece("own")])
    assert server.paths.count(LOGIN) == 1, "a caller's wrong place is no reason to sign in again"


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_project_of_a_callers_that_cannot_be_made_is_those_rows_fault(
    server: Scripted, make: Make, status: int
) -> None:
    server.answer("/v1/project", status, {"error": "not yours"})
    assert isinstance(refused(make(), piece(to={"project_name": "theirs"})), Rejected)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
@pytest.mark.parametrize("to", [None, {"project_name": "the-project"}])
def test_the_gateways_own_project_that_is_refused_needs_an_operator(
    server: Scripted, make: Make, status: int, to: JSON | None
) -> None:
    server.answer("/v1/project", status, {"error": "no"})
    error = refused(make(), piece(to=to))
    assert isinstance(error, Unavailable)
    assert error.refused
    assert server.posts == 0


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_the_gateways_own_rows_that_are_refused_need_an_operator(server: Scripted, make: Make, status: int) -> None:
    server.answer("/logs3", status, {"error": "no"})
    error = refused(make())
    assert isinstance(error, Unavailable)
    assert error.refused


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", [LOGIN, "/version", "/v1/project", "/logs3"])
def test_no_redirect_is_followed(server: Scripted, make: Make, path: str, status: int) -> None:
    with FakeBraintrust(KEY) as elsewhere:
        server.answer(path, status, {}, Location=f"{elsewhere.url}{path}")
        destination = make()
        if path == "/version":
            destination.deliver([piece()])  # it may do without
        else:
            error = refused(destination)
            assert isinstance(error, Unavailable)
            assert error.refused
        assert elsewhere.requests() == [], "the key would have gone with it"


@pytest.mark.parametrize("mode", ["reset", "lost_reply"])
def test_a_connection_that_breaks_is_tried_again(server: Scripted, make: Make, mode: Any) -> None:
    destination = make()
    destination.check()
    server.mode = mode
    error = refused(destination)
    assert isinstance(error, Unavailable)
    assert not error.refused
    server.mode = "ok"
    destination.deliver([piece()])
    assert [row["id"] for row in server.rows()] == ["r-1"]


def test_a_server_that_does_not_listen_is_tried_again(server: Scripted, make: Make) -> None:
    destination = make()
    destination.check()
    server.close()
    for _ in range(2):
        error = refused(destination)
        assert isinstance(error, Unavailable)
        assert not error.refused
    server.come_back()
    destination.deliver([piece()])
    assert len(server.rows()) == 1


@pytest.mark.parametrize("url", ["http://", "no address", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none_is_no_fault_of_the_gateways_code(make: Make, url: str) -> None:
    assert isinstance(refused(make(app_url=url)), Unavailable)
    assert isinstance(refused(make(api_url=url)), Unavailable)


# What is said.


@pytest.mark.parametrize("path", [LOGIN, "/version", "/v1/project", "/logs3"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500])
def test_the_key_is_in_no_error(server: Scripted, make: Make, path: str, status: int) -> None:
    server.answer(path, status, {"error": f"the key {KEY} is not known", "authorization": f"Bearer {KEY}"})
    try:
        make().deliver([piece()])
    except Undelivered as error:
        for said in (str(error), repr(error), str(error.__cause__), str(error.__context__)):
            assert KEY not in said


@pytest.mark.parametrize("before", range(180, 205))
def test_nor_is_the_beginning_of_the_key_where_the_words_are_cut(server: Scripted, make: Make, before: int) -> None:
    server.answer("/logs3", 500, b"x" * before + KEY.encode() + b"x" * 500)
    assert "bt-t" not in str(refused(make()))


def test_what_a_server_says_is_one_short_line(server: Scripted, make: Make) -> None:
    server.answer("/logs3", 500, b"<html>\r\n\x1b[31mred\x00" + b"x" * 100_000)
    said = str(refused(make()))
    assert said.isprintable()
    assert len(said) < 300


def test_an_address_with_a_password_is_not_shown(server: Scripted, make: Make) -> None:
    server.mode = "refuse_500"
    said = str(refused(make(app_url=f"http://user:pass-word@127.0.0.1:{server.port}")))
    assert "pass-word" not in said


# Looking whether all is well.


def test_a_check_signs_in_and_finds_the_project_and_posts_nothing(server: Scripted, make: Make) -> None:
    assert make().check() == "fake-org"
    assert server.paths == [LOGIN, "/version", "/v1/project"]


def test_a_check_says_why_not(server: Scripted, make: Make) -> None:
    server.answer("/v1/project", 403, {"error": "may not make projects"})
    with pytest.raises(Unavailable, match="may not make projects") as caught:
        make().check()
    assert caught.value.refused


# Nonsense.

DEEP = b"[" * 200_000
NONSENSE: dict[str, tuple[str, Any]] = {
    "organisations that are a number": (LOGIN, {"org_info": 5}),
    "organisations that are texts": (LOGIN, {"org_info": ["x", None]}),
    "an address with half a surrogate pair": (LOGIN, b'{"org_info":[{"name":"a","api_url":"http://x/\\ud800"}]}'),
    "an address that is none": (LOGIN, {"org_info": [{"name": "a", "api_url": "\0"}]}),
    "an address that is a list": (LOGIN, {"org_info": [{"name": "a", "api_url": [1]}]}),
    "a login nested too deep": (LOGIN, DEEP),
    "a login that is a page": (LOGIN, b"<!doctype html>"),
    "a project nested too deep": ("/v1/project", DEEP),
    "a project without an id": ("/v1/project", {"id": 5}),
    "rows that are answered with a page": ("/logs3", b"\n <html>Please sign in"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_in_the_place_of_an_answer_takes_no_row_and_blames_none(
    server: Scripted, make: Make, kind: str
) -> None:
    path, body = NONSENSE[kind]
    server.answer(path, 200, body)
    destination = make()
    assert isinstance(refused(destination), Unavailable)
    server.instead.clear()
    destination.deliver([piece()])
    assert len(server.rows()) == 1


def test_rows_that_are_taken_are_taken_whatever_the_answer_says(server: Scripted, make: Make) -> None:
    for body in (b"", b"[]", b"null", b'"ok"', DEEP, b"\xff"):
        server.answer("/logs3", 200, body)
        make().deliver([piece()])


def test_a_page_is_told_by_its_type_too(server: Scripted, make: Make) -> None:
    server.answer("/logs3", 200, b"Please sign in", Content_Type="text/HTML; charset=utf-8")
    assert "a web page" in str(refused(make()))


def test_no_control_character_of_a_server_gets_into_what_is_said(server: Scripted, make: Make) -> None:
    evil = "\x1b[31m\u202e\x07"
    for answer in ({"org_info": [org(evil)]}, {"org_info": [org("ours", api_url=f"http://127.0.0.1:1/{evil}")]}):
        server.answer(LOGIN, 200, answer)
        assert str(refused(make(org_name="ours"))).isprintable()


class Endless(FakeBraintrust):
    """Answers posted rows for ever: in large pieces, or in small ones every `every_s`."""

    def __init__(self, status: int, piece: bytes, every_s: float) -> None:
        self.status, self.piece, self.every_s = status, piece, every_s
        super().__init__(KEY)

    def handle(self, exchange: Exchange) -> None:
        if exchange.request.path == "/logs3":
            exchange.begin(self.status, {})
            while not self.stopping:
                exchange.send(self.piece)
                exchange.wait(self.every_s)
        else:
            super().handle(exchange)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(("piece_of_it", "every_s"), [(b" " * 65_536, 0.0), (b" ", 0.02)])
def test_an_answer_without_end_ends(
    make: Make, monkeypatch: pytest.MonkeyPatch, status: int, piece_of_it: bytes, every_s: float
) -> None:
    monkeypatch.setattr(posting, "_ANSWER_S", 0.3)
    with Endless(status, piece_of_it, every_s) as server:
        began_s = time.monotonic()
        assert isinstance(refused(make(app_url=server.url)), Unavailable)
        assert time.monotonic() - began_s < 5


def test_an_answer_is_never_unpacked(server: Scripted, make: Make) -> None:
    server.answer("/logs3", 500, gzip.compress(b"A" * (64 << 20)), Content_Encoding="gzip")
    tracemalloc.start()
    try:
        refused(make())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert {one.headers["accept-encoding"] for one in server.requests()} == {"identity"}
