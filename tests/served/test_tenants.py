"""Two callers of one gateway: what one of them has stored, the other cannot find, use, change or even notice."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fakes.provider import FakeProvider, answer
from tests.served.caller import Caller
from tests.served.process import OTHER_TOKEN, Served

JSON = dict[str, Any]
RESPONSES = "/v1/responses"

#: Headers that differ from one answer to the next, whatever it says.
_OWN = {"request-id", "x-request-id", "date", "x-bt-span-id", "x-bt-span-export", "x-gateway-overhead-duration-ms"}


@dataclass(frozen=True)
class Stored:
    """A response of the first caller's."""

    id: str
    item_id: str
    model: str


@pytest.fixture(scope="module")
def other(gateway: Served) -> Iterator[Caller]:
    with Caller(gateway.url, OTHER_TOKEN) as one:
        yield one


@pytest.fixture(params=["openai", "anthropic"], ids=["at its provider", "at the gateway"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["made whole", "made as a stream"])
def stored(request: pytest.FixtureRequest, caller: Caller, provider: FakeProvider, model: str, name: str) -> Stored:
    provider.script(model, answer("a secret of mine"))
    model = f"{name}/{model}"
    asked = {"model": model, "input": "keep a secret", "stream": request.param}
    made = caller.http.post(RESPONSES, json=asked)
    assert made.status_code == 200, made.text
    found = {kind: re.search(rf'"({kind}_[^"]+)"', made.text) for kind in ("resp", "msg")}
    return Stored(*(one[1] if one else "" for one in found.values()), model)


def unlike(one_id: str) -> str:
    """Make an id that never was, as long as this one."""
    return one_id[:-3] + "zzz"


def told(answered: httpx.Response, *ids: str) -> tuple[int, str, dict[str, str]]:
    """Return all that an answer says, but for the ids that the caller itself named and what always differs."""
    request_id, text = answered.headers["request-id"], answered.text
    for one in (*ids, request_id):
        text = text.replace(one, "-")
    headers = {key: value for key, value in answered.headers.items() if key not in _OWN}
    return answered.status_code, text, headers


Ask = Callable[[httpx.Client, str, str, str], httpx.Response]


def about(method: str, path: str = "", query: str = "") -> Ask:
    return lambda http, _model, response_id, _item: http.request(method, f"{RESPONSES}/{response_id}{path}{query}")


def going_on(path: str = RESPONSES, **fields: Any) -> Ask:
    def ask(http: httpx.Client, model: str, response_id: str, _item: str) -> httpx.Response:
        asked = {"model": model, "input": "go on", "previous_response_id": response_id, **fields}
        return http.post(path, json=asked)

    return ask


def referring(path: str = RESPONSES, kind: str | None = "item_reference", **fields: Any) -> Ask:
    def ask(http: httpx.Client, model: str, _response: str, item_id: str) -> httpx.Response:
        reference = {"id": item_id} if kind is None else {"type": kind, "id": item_id}
        asked = [{"role": "user", "content": "x"}, reference]
        return http.post(path, json={"model": model, "input": asked, **fields})

    return ask


def conversing(http: httpx.Client, model: str, response_id: str, _item: str) -> httpx.Response:
    return http.post(RESPONSES, json={"model": model, "input": "x", "conversation": response_id})


BY_ID: dict[str, Ask] = {
    "retrieve": about("GET"),
    "retrieve, without /v1": lambda http, _model, one, _item: http.get(f"/responses/{one}"),
    "retrieve as a stream": about("GET", query="?stream=true"),
    "input items": about("GET", "/input_items"),
    "cancel": about("POST", "/cancel"),
    "delete": about("DELETE"),
    "go on": going_on(),
    "go on, streamed": going_on(stream=True),
    "go on, kept nowhere": going_on(store=False),
    "go on at another provider": lambda http, _model, one, item: going_on()(http, "anthropic/other", one, item),
    "count what goes on": going_on(f"{RESPONSES}/input_tokens"),
}
BY_ITEM: dict[str, Ask] = {
    "refer": referring(),
    "refer, streamed": referring(stream=True),
    "refer, without a type": referring(kind=None),
    "count what is referred to": referring(f"{RESPONSES}/input_tokens"),
}


@pytest.mark.parametrize("ask", BY_ID.values(), ids=BY_ID)
def test_no_id_of_anothers_is_found(
    other: Caller, caller: Caller, provider: FakeProvider, stored: Stored, ask: Ask
) -> None:
    before = len(provider.requests())
    theirs, never = stored.id, unlike(stored.id)
    got = told(ask(other.http, stored.model, theirs, ""), theirs)
    assert got[0] == 404, got
    assert got == told(ask(other.http, stored.model, never, ""), never)
    assert "secret" not in got[1]
    assert len(provider.requests()) == before, "the provider knows no tenants, and would have answered"
    kept = caller.http.get(f"{RESPONSES}/{theirs}")
    assert (kept.status_code, kept.json()["id"]) == (200, theirs), "its owner has it still"


@pytest.mark.parametrize("ask", BY_ITEM.values(), ids=BY_ITEM)
def test_no_item_of_anothers_can_be_referred_to(
    other: Caller, provider: FakeProvider, stored: Stored, ask: Ask
) -> None:
    before = len(provider.requests())
    theirs, never = stored.item_id, unlike(stored.item_id)
    got = told(ask(other.http, stored.model, "", theirs), theirs)
    assert got[0] == 404, got
    assert got == told(ask(other.http, stored.model, "", never), never)
    assert len(provider.requests()) == before


def test_no_conversation_is_found(other: Caller, provider: FakeProvider, stored: Stored) -> None:
    before = len(provider.requests())
    for one in (stored.id, "conv_1"):
        assert conversing(other.http, stored.model, one, "").status_code == 404
    assert len(provider.requests()) == before


@pytest.mark.parametrize("ask", BY_ID.values(), ids=BY_ID)
def test_the_owner_finds_it_each_way(caller: Caller, stored: Stored, name: str, ask: Ask) -> None:
    """Without this, a gateway that finds nothing for anybody would pass the tests above."""
    got = ask(caller.http, stored.model, stored.id, "")
    refused = name == "anthropic" and ask in (BY_ID["cancel"], BY_ID["retrieve as a stream"])
    elsewhere = name == "openai" and ask is BY_ID["go on at another provider"]
    assert got.status_code == (400 if refused or elsewhere else 200), got.text
    if ask is BY_ID["retrieve as a stream"] and name == "openai":
        assert got.text.startswith("event: response.created\n")
        assert "event: response.completed\n" in got.text


@pytest.mark.parametrize("ask", BY_ITEM.values(), ids=BY_ITEM)
def test_the_owner_may_refer_to_an_item_at_its_provider(
    caller: Caller, provider: FakeProvider, model: str, ask: Ask
) -> None:
    provider.script(model, answer("said"))
    made = caller.http.post(RESPONSES, json={"model": f"openai/{model}", "input": "x"}).json()
    got = ask(caller.http, f"openai/{model}", "", made["output"][0]["id"])
    assert got.status_code == 200, got.text


def test_what_its_owner_deleted_is_as_if_it_never_was(caller: Caller, other: Caller, stored: Stored) -> None:
    assert caller.http.delete(f"{RESPONSES}/{stored.id}").json()["deleted"] is True
    for one in (caller, other):
        for ask in BY_ID.values():
            got = told(ask(one.http, stored.model, stored.id, ""), stored.id)
            assert got[0] == 404
            assert got == told(ask(one.http, stored.model, unlike(stored.id), ""), unlike(stored.id))


def test_what_was_not_to_be_stored_is_found_by_nobody(caller: Caller, other: Caller, model: str, name: str) -> None:
    asked = {"model": f"{name}/{model}", "input": "x", "store": False}
    made = caller.http.post(RESPONSES, json=asked).json()
    for one in (caller, other):
        assert one.http.get(f"{RESPONSES}/{made['id']}").status_code == 404


@pytest.mark.parametrize("ask", BY_ITEM.values(), ids=BY_ITEM)
def test_the_owner_may_refer_to_it(caller: Caller, stored: Stored, ask: Ask) -> None:
    assert ask(caller.http, stored.model, "", stored.item_id).status_code == 200
