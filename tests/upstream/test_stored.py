"""Responses that outlive their call: whose they are, those that the gateway keeps, and a store that is away."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call, Caller
from gateway.core.endpoints import (
    CHAT,
    INPUT_ITEMS,
    INPUT_TOKENS,
    RESPONSE,
    RESPONSE_CANCEL,
    RESPONSE_DELETE,
    RESPONSES,
    Endpoint,
)
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.errors import GatewayError, InvalidRequest, ObjectNotFound, ProviderFailed, StoreUnavailable
from gateway.storage import owned
from gateway.storage.database import Database, StorageBusy, StorageFailed
from gateway.storage.migrate import upgrade
from gateway.storage.owned import Owned, OwnedObjects
from gateway.upstream import Answer
from gateway.upstream.counting import Counting
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.lanes import Lanes
from gateway.upstream.scripted import Scripted, count
from gateway.upstream.stored import StoredResponses
from tests.builders import attempt, call
from tests.fakes.provider import FakeProvider, answer, error, event, plain_json, sse

JSON = dict[str, Any]

NATIVE, BRIDGED = "openai/m", "demo/echo"
EITHER = pytest.mark.parametrize("name", [NATIVE, BRIDGED])
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
ABOUT = [RESPONSE, RESPONSE_DELETE, RESPONSE_CANCEL, INPUT_ITEMS]


class Away(OwnedObjects):
    """A store that can fail. `writing` and `reading` are what its operations raise, or None."""

    writing: Exception | None = None
    reading: Exception | None = None

    def keep(self, *objects: Owned) -> None:
        if self.writing is not None:
            raise self.writing
        super().keep(*objects)

    def claim(self, owned: Owned) -> bool:
        if self.writing is not None:
            raise self.writing
        return super().claim(owned)

    def remove(self, kind: str, id: str, tenant: str) -> bool:
        if self.writing is not None:
            raise self.writing
        return super().remove(kind, id, tenant)

    def find(self, kind: str, id: str, tenant: str) -> Owned | None:
        if self.reading is not None:
            raise self.reading
        return super().find(kind, id, tenant)

    def known(self, kind: str, ids: Any, tenant: str) -> set[str]:
        if self.reading is not None:
            raise self.reading
        return super().known(kind, ids, tenant)


class Place:
    """The way to a provider that has responses and to a demo that has none, over one store."""

    def __init__(self, provider: FakeProvider, path: Path, days: float = 30) -> None:
        self.provider = provider
        self.objects = Away(Database(path), days, 1 << 28)
        self.direct = Direct(Failures(Redactor()), first_byte_s=5, idle_s=5)
        self.lanes = Lanes(self.direct, Counting(count), Scripted())
        self.upstream = StoredResponses(self.lanes, self.objects)
        self.number = 0
        self.tried = attempt()

    def attempt(self, name: str) -> Attempt:
        base = {} if name.startswith("demo/") else {"api_base": self.provider.base_url, "api_key": "k"}
        return attempt(name, **base)

    def call(
        self, endpoint: Endpoint, name: str, body: JSON | None = None, *, tenant: str = "a", **fields: Any
    ) -> Call:
        self.number += 1
        stream = fields.pop("stream", False)
        made = call(name, endpoint=endpoint, stream=stream, caller=Caller(f"tok_{tenant}", tenant), **fields)
        made.body = {"model": name, **body}
        if stream:
            made.body["stream"] = True
        return replace(made, id=f"req_{self.number:032x}")

    def open(self, made: Call) -> Answer:
        self.tried = self.attempt(made.model)
        self.tried.transcript = made.endpoint.transcript()
        self.tried.metered = made.endpoint.metered
        return self.upstream.open(self.tried, made)

    def make(self, name: str, asked: Any = "hi", *, stream: bool = False, tenant: str = "a", **body: Any) -> JSON:
        """Make a response; give it as its caller got it."""
        made = self.call(RESPONSES, name, {"input": asked, **body}, tenant=tenant, stream=stream)
        opened = self.open(made)
        try:
            if not stream:
                document: JSON = json.loads(opened.body)
                return document
            last = [chunk for chunk in opened.chunks() if chunk.data][-1].data
            ended: JSON = json.loads(last.split(b"\ndata: ")[1])["response"]
            return ended
        finally:
            opened.close()

    def about(self, endpoint: Endpoint, name: str, response_id: str, *, tenant: str = "a", query: str = "") -> JSON:
        made = self.call(endpoint, name, {"id": response_id}, tenant=tenant, path_id=response_id, query=query)
        document: JSON = json.loads(self.open(made).body)
        return document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    upgrade(tmp_path / "gateway.db")
    return tmp_path / "gateway.db"


@pytest.fixture
def place(provider: FakeProvider, path: Path) -> Iterator[Place]:
    provider._unscripted = lambda _request: plain_json({"id": "x", "asked": True})  # type: ignore[method-assign]
    provider.script("m", answer("said"))
    made = Place(provider, path)
    yield made
    made.direct.close()


def texts_of(items: list[JSON]) -> list[str]:
    return [part["text"] for item in items for part in item.get("content", ())]


# Whose it is.


@BOTH
def test_a_response_that_the_provider_keeps_is_asked_for_by_its_tenant_alone(place: Place, stream: bool) -> None:
    made = place.make(NATIVE, stream=stream)
    for endpoint in ABOUT:
        before = len(place.provider.requests())
        with pytest.raises(ObjectNotFound):
            place.about(endpoint, NATIVE, made["id"], tenant="b")
        assert len(place.provider.requests()) == before, "nobody else's request gets there"
    for endpoint in (RESPONSE, INPUT_ITEMS, RESPONSE_CANCEL, RESPONSE_DELETE):
        assert place.about(endpoint, NATIVE, made["id"], query="include=a") == {"id": "x", "asked": True}
        received = place.provider.requests()[-1]
        assert received.method == endpoint.method
        assert received.path == f"/v1{endpoint.provider_path.replace('{id}', made['id'])}?include=a"
    with pytest.raises(ObjectNotFound):
        place.about(RESPONSE, NATIVE, made["id"])


@BOTH
def test_a_response_that_no_provider_has_is_kept_here(place: Place, stream: bool) -> None:
    made = place.make(BRIDGED, "hello there", stream=stream, metadata={"a": "b"})
    assert made["status"] == "completed"
    assert place.about(RESPONSE, BRIDGED, made["id"]) == made
    assert texts_of(place.about(INPUT_ITEMS, BRIDGED, made["id"])["data"]) == ["hello there"]
    for endpoint in ABOUT:
        with pytest.raises(ObjectNotFound) as refused:
            place.about(endpoint, BRIDGED, made["id"], tenant="b")
        with pytest.raises(ObjectNotFound) as nowhere:
            place.about(endpoint, BRIDGED, "resp_" + "0" * 32, tenant="b")
        assert refused.value.message.replace(made["id"], "") == nowhere.value.message.replace("resp_" + "0" * 32, "")
    assert place.about(RESPONSE_DELETE, BRIDGED, made["id"]) == {
        "id": made["id"],
        "object": "response",
        "deleted": True,
    }
    for endpoint in ABOUT:
        with pytest.raises(ObjectNotFound):
            place.about(endpoint, BRIDGED, made["id"])
    assert place.provider.requests() == []


def test_what_the_gateway_keeps_was_not_made_in_the_background(place: Place) -> None:
    made = place.make(BRIDGED)
    with pytest.raises(InvalidRequest, match="background"):
        place.about(RESPONSE_CANCEL, BRIDGED, made["id"])
    again = place.call(RESPONSE, BRIDGED, {"id": made["id"]}, path_id=made["id"], stream=True)
    with pytest.raises(InvalidRequest) as refused:
        place.open(again)
    assert refused.value.param == "stream"


@EITHER
@BOTH
def test_what_is_not_to_be_stored_is_nowhere(place: Place, name: str, stream: bool) -> None:
    made = place.make(name, store=False, stream=stream)
    with pytest.raises(ObjectNotFound):
        place.about(RESPONSE, name, made["id"])
    with pytest.raises(ObjectNotFound):
        place.make(name, previous_response_id=made["id"])
    if name == NATIVE:
        assert place.provider.requests()[0].body["store"] is False


def test_what_the_provider_says_it_did_not_store_is_not_noted(place: Place) -> None:
    place.provider.script("m", answer("said", extra={"store": False}))
    made = place.make(NATIVE)
    assert place.objects.find(owned.RESPONSE, made["id"], "a") is None


def test_a_stream_is_noted_before_its_caller_knows_its_id(place: Place) -> None:
    opened = place.open(place.call(RESPONSES, NATIVE, {"input": "hi"}, stream=True))
    first = next(opened.chunks())
    opened.close()
    made = json.loads(first.data.split(b"\ndata: ")[1])["response"]
    assert place.objects.find(owned.RESPONSE, made["id"], "a") is not None


def test_a_bridged_stream_that_is_left_is_kept_nowhere(place: Place) -> None:
    opened = place.open(place.call(RESPONSES, BRIDGED, {"input": "one two three"}, stream=True))
    first = next(chunk for chunk in opened.chunks() if chunk.data)
    opened.close()
    made = json.loads(first.data.split(b"\n\n")[0].split(b"\ndata: ")[1])["response"]
    with pytest.raises(ObjectNotFound):
        place.about(RESPONSE, BRIDGED, made["id"])


def test_chats_are_no_affair_of_the_store(place: Place) -> None:
    place.objects.reading = place.objects.writing = StorageFailed("damaged")
    made = place.call(CHAT, BRIDGED, {"messages": [{"role": "user", "content": "hi"}], "previous_response_id": "x"})
    assert json.loads(place.open(made).body)["choices"][0]["message"]["content"] == "hi"


# Going on from one.


@EITHER
@BOTH
def test_a_conversation_goes_on_where_it_was(place: Place, name: str, stream: bool) -> None:
    first = place.make(name, "first", stream=stream)
    second = place.make(name, "second", stream=stream, previous_response_id=first["id"])
    if name == NATIVE:
        assert place.provider.requests()[-1].body["previous_response_id"] == first["id"]
        assert place.provider.requests()[-1].body["input"] == "second"
    else:
        assert place.tried.sent is not None
        assert [message["content"] for message in place.tried.sent["messages"]] == ["first", "first", "second"]
        assert second["previous_response_id"] == first["id"]
    with pytest.raises(ObjectNotFound) as refused:
        place.make(name, "mine now", previous_response_id=first["id"], tenant="b")
    assert refused.value.param == "previous_response_id"
    third = place.make(name, "third", previous_response_id=second["id"])
    if name == BRIDGED:
        assert place.tried.sent is not None
        assert len(place.tried.sent["messages"]) == 5
        listed = place.about(INPUT_ITEMS, name, third["id"], query="order=asc")["data"]
        assert texts_of(listed) == ["first", "first", "second", "second", "third"]


def test_what_the_gateway_keeps_goes_on_at_a_provider_with_responses_of_its_own(place: Place) -> None:
    first = place.make(BRIDGED, "first")
    place.make(NATIVE, "second", previous_response_id=first["id"])
    sent = place.provider.requests()[-1].body
    assert "previous_response_id" not in sent
    assert texts_of(sent["input"][:2]) == ["first", "first"]
    assert sent["input"][2] == {"role": "user", "content": "second"}
    assert not any("id" in item for item in sent["input"])


@pytest.mark.parametrize("elsewhere", [BRIDGED, "xai/m"])
def test_what_a_provider_keeps_goes_on_nowhere_else(place: Place, elsewhere: str) -> None:
    first = place.make(NATIVE, "first")
    before = len(place.provider.requests())
    with pytest.raises(InvalidRequest) as refused:
        place.make(elsewhere, "second", previous_response_id=first["id"])
    assert (refused.value.param, refused.value.public_code) == ("previous_response_id", "unsupported_parameter")
    assert "openai" in refused.value.message
    assert len(place.provider.requests()) == before


@EITHER
def test_conversations_are_nobodys(place: Place, name: str) -> None:
    for conversation in ("conv_1", {"id": "conv_1"}):
        with pytest.raises(ObjectNotFound) as refused:
            place.make(name, conversation=conversation)
        assert refused.value.param == "conversation"
    assert place.provider.requests() == []
    assert place.make(name, conversation=None)["status"] == "completed"


@BOTH
def test_an_item_is_referred_to_by_its_tenant_alone(place: Place, stream: bool) -> None:
    [item] = place.make(NATIVE, stream=stream)["output"]
    for reference in ({"type": "item_reference", "id": item["id"]}, {"id": item["id"]}):
        asked = [reference, {"role": "user", "content": "and?"}]
        place.make(NATIVE, asked)
        assert place.provider.requests()[-1].body["input"] == asked
        before = len(place.provider.requests())
        with pytest.raises(ObjectNotFound) as refused:
            place.make(NATIVE, asked, tenant="b")
        assert refused.value.param == "input"
        assert len(place.provider.requests()) == before


def test_an_item_that_nobody_has_is_the_callers_fault(place: Place) -> None:
    with pytest.raises(ObjectNotFound):
        place.make(NATIVE, [{"type": "item_reference", "id": "msg_" + "0" * 32}])
    with pytest.raises(ObjectNotFound):
        place.make(BRIDGED, [{"type": "item_reference", "id": "msg_" + "0" * 32}])


def test_a_count_of_a_conversation_is_checked_like_the_response_and_stores_nothing(place: Place) -> None:
    first = place.make(BRIDGED, "one two")
    made = place.call(INPUT_TOKENS, BRIDGED, {"input": "three", "previous_response_id": first["id"]})
    alone = place.call(INPUT_TOKENS, BRIDGED, {"input": "three"})
    assert json.loads(place.open(made).body)["input_tokens"] > json.loads(place.open(alone).body)["input_tokens"] + 4
    other = place.call(INPUT_TOKENS, BRIDGED, {"input": "x", "previous_response_id": first["id"]}, tenant="b")
    with pytest.raises(ObjectNotFound):
        place.open(other)


# Pages of what was asked.


def test_input_items_come_in_pages_newest_first(place: Place) -> None:
    asked = [{"role": "user", "content": f"number {number}"} for number in range(25)]
    made = place.make(BRIDGED, asked)

    def page(query: str) -> JSON:
        return place.about(INPUT_ITEMS, BRIDGED, made["id"], query=query)

    everything = page("order=asc&limit=100")
    assert texts_of(everything["data"]) == [f"number {number}" for number in range(25)]
    assert (everything["object"], everything["has_more"]) == ("list", False)
    first = page("")
    assert texts_of(first["data"]) == [f"number {number}" for number in range(24, 4, -1)]
    assert (first["first_id"], first["last_id"]) == (first["data"][0]["id"], first["data"][-1]["id"])
    assert first["has_more"] is True
    second = page(f"after={first['last_id']}&limit=99")
    assert texts_of(second["data"]) == [f"number {number}" for number in range(4, -1, -1)]
    assert second["has_more"] is False
    end = page(f"after={second['last_id']}")
    assert (end["data"], end["first_id"], end["last_id"], end["has_more"]) == ([], None, None, False)
    assert len(page("limit=1")["data"]) == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *((f"limit={limit}", "limit") for limit in ("0", "-1", "101", "x", "1.5", "٣", "1e1", "1" * 5000)),
        ("limit=000000001000000000", "limit"),
        ("order=up", "order"),
        ("after=msg_other", "after"),
        ("after=%00", "after"),
    ],
)
def test_a_page_that_cannot_be_is_the_callers_fault(place: Place, query: str, param: str) -> None:
    made = place.make(BRIDGED)
    with pytest.raises(InvalidRequest) as refused:
        place.about(INPUT_ITEMS, BRIDGED, made["id"], query=query)
    assert refused.value.param == param


# Hostile ids.

HOSTILE = ["", "\x00", "resp_\x00", "a" * 10_240, "'; DROP TABLE owned; --", "../../models", "ä😀", "\ud83d", "%", "*"]


@pytest.mark.parametrize("response_id", HOSTILE, ids=lambda text: ascii(text)[:20])
def test_no_id_is_more_than_an_id(place: Place, response_id: str) -> None:
    kept = place.make(BRIDGED)
    for endpoint in ABOUT:
        with pytest.raises(ObjectNotFound) as refused:
            place.about(endpoint, NATIVE, response_id)
        assert len(refused.value.message) < 500
    for body in ({"previous_response_id": response_id}, {"input": [{"type": "item_reference", "id": response_id}]}):
        with pytest.raises(ObjectNotFound):
            place.open(place.call(RESPONSES, NATIVE, {"input": "hi", **body}))
    assert place.provider.requests() == []
    assert place.about(RESPONSE, BRIDGED, kept["id"]) == kept


@pytest.mark.parametrize("response_id", ["..", "a/../../models", "\x00", "a" * 2000, "", 7, None, ["x"]])
@BOTH
def test_a_provider_that_gives_a_hostile_id_is_answered_from_all_the_same(
    place: Place, response_id: Any, stream: bool
) -> None:
    place.provider.script("m", answer("said", extra={"id": response_id}))
    assert place.make(NATIVE, stream=stream)["id"] == response_id
    if isinstance(response_id, str) and place.objects.find(owned.RESPONSE, response_id, "a"):
        before = len(place.provider.requests())
        for endpoint in ABOUT:
            try:
                place.about(endpoint, NATIVE, response_id)
            except ObjectNotFound:
                continue
        for received in place.provider.requests()[before:]:
            assert received.path.startswith("/v1/responses/")
            assert "/.." not in received.path


def test_two_tenants_who_are_given_one_id_do_not_share_it(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.provider.script("m", answer("said", extra={"id": "resp_same"}))
    place.make(NATIVE, tenant="a")
    with caplog.at_level(logging.WARNING):
        assert place.make(NATIVE, tenant="b")["id"] == "resp_same", "it is answered"
    assert "a response could not be stored" in caplog.text
    assert place.about(RESPONSE, NATIVE, "resp_same", tenant="a") == {"id": "x", "asked": True}
    with pytest.raises(ObjectNotFound):
        place.about(RESPONSE, NATIVE, "resp_same", tenant="b")


# Nothing is to be kept.


@BOTH
def test_a_gateway_that_keeps_nothing_says_so(provider: FakeProvider, path: Path, stream: bool) -> None:
    place = Place(provider, path, days=0)
    made = place.make(BRIDGED, "hi", stream=stream, store=True)
    assert made["store"] is False
    with pytest.raises(ObjectNotFound):
        place.about(RESPONSE, BRIDGED, made["id"])
    provider.script("m", answer("said"))
    native = place.make(NATIVE, stream=stream)
    assert native["store"] is True
    assert place.objects.find(owned.RESPONSE, native["id"], "a") is not None, "the provider keeps it"
    place.direct.close()


# A store that is away.


@EITHER
@BOTH
@pytest.mark.parametrize("fault", [StorageBusy("busy"), StorageFailed("the disk is full")], ids=["busy", "failed"])
def test_a_store_that_is_away_costs_the_stored_response_and_not_the_answer(
    place: Place, caplog: pytest.LogCaptureFixture, name: str, stream: bool, fault: Exception
) -> None:
    place.objects.writing = fault
    with caplog.at_level(logging.WARNING):
        made = place.make(name, stream=stream)
    assert made["status"] == "completed"
    assert "a response could not be stored" in caplog.text
    place.objects.writing = None
    with pytest.raises(ObjectNotFound):
        place.about(RESPONSE, name, made["id"])


def test_a_store_that_cannot_be_read_is_not_a_response_that_is_not_there(place: Place) -> None:
    made = place.make(NATIVE)
    place.objects.reading = StorageBusy("busy")
    for endpoint in ABOUT:
        with pytest.raises(StoreUnavailable) as away:
            place.about(endpoint, NATIVE, made["id"])
        assert (away.value.http_status, away.value.should_retry) == (503, True)
    for body in ({"previous_response_id": made["id"]}, {"input": [{"type": "item_reference", "id": "msg_1"}]}):
        with pytest.raises(StoreUnavailable):
            place.open(place.call(RESPONSES, NATIVE, {"input": "hi", **body}))
    assert place.make(NATIVE)["status"] == "completed", "what names nothing needs no store"


@EITHER
def test_a_store_that_cannot_be_written_deletes_nothing(place: Place, name: str) -> None:
    made = place.make(name)
    place.objects.writing = StorageBusy("busy")
    with pytest.raises(StoreUnavailable):
        place.about(RESPONSE_DELETE, name, made["id"])
    place.objects.writing = None
    assert place.objects.find(owned.RESPONSE, made["id"], "a") is not None
    place.about(RESPONSE_DELETE, name, made["id"])
    assert place.objects.find(owned.RESPONSE, made["id"], "a") is None


# Failures.


def test_a_response_that_the_provider_does_not_delete_stays(place: Place) -> None:
    made = place.make(NATIVE)
    place.provider._unscripted = lambda _request: error(500)  # type: ignore[method-assign]
    with pytest.raises(ProviderFailed):
        place.about(RESPONSE_DELETE, NATIVE, made["id"])
    assert place.objects.find(owned.RESPONSE, made["id"], "a") is not None


def test_a_bridged_response_that_failed_on_its_way_is_kept_as_it_was_told(place: Place) -> None:
    told = []
    made = place.call(RESPONSES, "demo/cut", {"input": "one two three four"}, stream=True)
    with pytest.raises(GatewayError):
        told.extend(chunk for chunk in place.open(made).chunks() if chunk.data)
    last = told[-1].piece["response"]
    assert last["status"] == "failed"
    assert place.about(RESPONSE, BRIDGED, last["id"]) == last


def test_a_response_that_failed_at_the_provider_is_found_there(place: Place) -> None:
    begun = {"id": "resp_f", "status": "in_progress", "output": []}
    failed = {**begun, "status": "failed", "error": {"code": "server_error", "message": "no"}}
    place.provider.script(
        "m",
        sse(
            event("response.created", {"type": "response.created", "response": begun}),
            event("response.failed", {"type": "response.failed", "response": failed}),
        ),
    )
    opened = place.open(place.call(RESPONSES, NATIVE, {"input": "hi"}, stream=True))
    with pytest.raises(ProviderFailed):
        list(opened.chunks())
    opened.close()
    assert place.about(RESPONSE, NATIVE, "resp_f") == {"id": "x", "asked": True}


def test_a_provider_that_has_no_more_responses_cannot_be_asked_for_one(place: Place) -> None:
    made = place.make(NATIVE)
    kept = place.call(RESPONSE, BRIDGED, {"id": made["id"]}, path_id=made["id"])
    with pytest.raises(ObjectNotFound, match="openai cannot be asked"):
        place.open(kept)


def test_a_response_that_had_to_make_room_is_gone(place: Place) -> None:
    made = place.make(BRIDGED, "x" * 10_000)
    place.objects._keep_bytes = 0
    place.objects.tidy(0)
    for endpoint in ABOUT:
        with pytest.raises(ObjectNotFound):
            place.about(endpoint, BRIDGED, made["id"])
    with pytest.raises(ObjectNotFound):
        place.make(BRIDGED, previous_response_id=made["id"])


# Made in the background: billed once, to the call that sees the end.

COUNTED = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
QUEUED: JSON = {"id": "resp_b", "object": "response", "status": "queued", "background": True, "output": []}
DONE: JSON = {**QUEUED, "status": "completed", "usage": COUNTED}
METER = Meter(Prices({"m": {"litellm_provider": "openai", "input_cost_per_token": 1, "output_cost_per_token": 1}}))


def cost(place: Place) -> Decimal | None:
    """Of the last call, US dollars."""
    return METER.bill(call(endpoint=RESPONSE), place.tried).cost_usd


def begun(place: Place) -> None:
    place.provider.script("m", plain_json(QUEUED))
    assert place.make(NATIVE, background=True)["status"] == "queued"


def streamed(*documents: JSON) -> Any:
    kinds = {"queued": "response.created", "in_progress": "response.in_progress"}
    events = [(kinds.get(one["status"], f"response.{one['status']}"), one) for one in documents]
    return sse(*(event(kind, {"type": kind, "response": one}) for kind, one in events))


def says_of_it(place: Place, document: JSON) -> None:
    """What the provider says whenever it is asked for the response."""
    place.provider._unscripted = lambda _request: plain_json(document)  # type: ignore[method-assign]


def test_a_response_in_the_background_is_billed_once_to_the_call_that_first_sees_its_end(place: Place) -> None:
    begun(place)
    told = [cost(place)]
    for status in ("in_progress", "completed", "completed"):
        says_of_it(place, {**DONE, "status": status})
        place.about(RESPONSE, NATIVE, "resp_b")
        told.append(cost(place))
    assert told == [None, None, 42, None]


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled"])
@pytest.mark.parametrize("endpoint", [RESPONSE, RESPONSE_CANCEL], ids=lambda row: row.name)
def test_however_it_ends_and_whoever_asks(place: Place, endpoint: Endpoint, status: str) -> None:
    begun(place)
    says_of_it(place, {**DONE, "status": status})
    place.about(endpoint, NATIVE, "resp_b")
    assert cost(place) == 42
    place.about(RESPONSE, NATIVE, "resp_b")
    assert cost(place) is None


def test_so_is_one_whose_end_is_streamed_again(place: Place) -> None:
    begun(place)
    place.provider._unscripted = lambda _request: streamed(QUEUED, DONE)  # type: ignore[method-assign]
    for expected in (42, None):
        made = place.call(RESPONSE, NATIVE, {"id": "resp_b"}, path_id="resp_b", stream=True, query="stream=true")
        opened = place.open(made)
        assert [chunk for chunk in opened.chunks() if chunk is not None and chunk.last]
        opened.close()
        assert cost(place) == expected


def test_one_whose_end_is_streamed_at_once_is_billed_there_and_not_again(place: Place) -> None:
    place.provider.script("m", streamed(QUEUED, DONE))
    place.make(NATIVE, stream=True, background=True)
    assert cost(place) == 42
    says_of_it(place, DONE)
    place.about(RESPONSE, NATIVE, "resp_b")
    assert cost(place) is None


def test_a_stream_of_the_background_that_is_left_is_billed_for_what_it_said(place: Place) -> None:
    text = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "four" * 7}
    created = event("response.created", {"type": "response.created", "response": {**QUEUED, "status": "in_progress"}})
    place.provider.script("m", sse(created, event("response.output_text.delta", text), b": more\n\n"))
    opened = place.open(place.call(RESPONSES, NATIVE, {"input": "hi", "background": True}, stream=True))
    said = next(chunk for chunk in opened.chunks() if chunk is not None and chunk.content)
    opened.close()
    assert said.content
    assert (cost(place) or 0) >= 7


@pytest.mark.parametrize("document", [{**DONE, "background": False}, {**DONE, "usage": None}, {"id": "x"}], ids=repr)
def test_what_was_billed_when_it_was_made_is_not_billed_when_it_is_asked_for(place: Place, document: JSON) -> None:
    place.make(NATIVE)
    made = place.make(NATIVE)
    says_of_it(place, document)
    place.about(RESPONSE, NATIVE, made["id"])
    assert cost(place) is None


def test_one_whose_owner_could_not_be_noted_is_billed_for_what_was_asked(place: Place) -> None:
    place.objects.writing = StorageBusy("held")
    place.provider.script("m", plain_json(QUEUED))
    place.make(NATIVE, "four" * 9, background=True)
    assert METER.bill(call(endpoint=RESPONSES, body={"input": "four" * 9}), place.tried).cost_usd == 9


def test_one_whose_end_cannot_be_noted_is_not_shown(place: Place) -> None:
    begun(place)
    says_of_it(place, DONE)
    place.objects.writing = StorageBusy("held")
    with pytest.raises(StoreUnavailable):
        place.about(RESPONSE, NATIVE, "resp_b")
    place.objects.writing = None
    place.about(RESPONSE, NATIVE, "resp_b")
    assert cost(place) == 42
