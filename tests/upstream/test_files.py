"""Files and batches: each tenant finds its own at the provider that all of them share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.calls import Attempt, Call, Caller
from gateway.core.endpoints import (
    BATCH,
    BATCH_CANCEL,
    BATCHES,
    BATCHES_LIST,
    CHAT,
    FILE,
    FILE_CONTENT,
    FILE_DELETE,
    FILES,
    FILES_LIST,
    RESPONSES,
    Endpoint,
)
from gateway.core.multipart import Form
from gateway.core.pricing import Meter, Prices
from gateway.core.redaction import Redactor
from gateway.errors import InvalidRequest, ObjectNotFound, ProviderInvalid, StoreUnavailable
from gateway.storage import owned
from gateway.storage.database import Database, StorageBusy
from gateway.storage.migrate import upgrade
from gateway.storage.owned import Owned, OwnedObjects
from gateway.uploads import Upload
from gateway.upstream.direct import Direct
from gateway.upstream.failures import Failures
from gateway.upstream.files import StoredFiles
from gateway.upstream.lanes import Lanes
from gateway.upstream.scripted import Scripted
from gateway.upstream.stored import StoredResponses
from tests.builders import attempt, call
from tests.fakes.loopback import Exchange, Loopback
from tests.forms import BOUNDARY, CONTENT_TYPE, form, received

JSON = dict[str, Any]
NAME = "openai/files"


class Keeper(Loopback):
    """A provider's files and batches, newest first, in pages."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.batches: list[JSON] = []
        self.nameless = False
        super().__init__()

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        path, _, query = request.path.partition("?")
        asked = dict(pair.split("=") for pair in query.split("&") if pair)
        match request.method, path.removeprefix("/v1").split("/")[1:]:
            case "POST", ["files"]:
                self.files.insert(0, f"file-{len(self.files)}")
                exchange.respond_json(200, {} if self.nameless else {"id": self.files[0], "object": "file"})
            case "GET", ["files"]:
                exchange.respond_json(200, _page([{"id": one, "object": "file"} for one in self.files], asked))
            case "GET", ["files", id]:
                exchange.respond_json(200, {"id": id, "object": "file"})
            case "GET", ["files", _, "content"]:
                exchange.respond(200, {"Content-Type": "application/octet-stream"}, b"lines\n")
            case "DELETE", ["files", id]:
                exchange.respond_json(200, {"id": id, "object": "file", "deleted": True})
            case "POST", ["batches"]:
                made = {"id": f"batch-{len(self.batches)}", "object": "batch", "status": "validating", **request.body}
                self.batches.insert(0, made)
                exchange.respond_json(200, made)
            case "GET", ["batches"]:
                exchange.respond_json(200, _page(self.batches, asked))
            case "GET", ["batches", id]:
                exchange.respond_json(200, next(one for one in self.batches if one["id"] == id))
            case _:
                exchange.respond_json(200, {**self.batches[0], "status": "cancelling"})


def _page(items: list[JSON], asked: dict[str, str]) -> JSON:
    ids = [item["id"] for item in items]
    start = ids.index(asked["after"]) + 1 if "after" in asked else 0
    size = min(2, int(asked["limit"]))
    return {"object": "list", "data": items[start : start + size], "has_more": start + size < len(items)}


class Away(OwnedObjects):
    """A store that can fail."""

    failing = False
    claiming = True

    def claim(self, owned: Owned) -> bool:
        if not self.claiming:
            raise StorageBusy("held")
        return super().claim(owned)

    def keep(self, *objects: Owned) -> None:
        if self.failing:
            raise StorageBusy("held")
        super().keep(*objects)


class Shop:
    """Callers of one gateway, who share a key at the provider."""

    def __init__(self, keeper: Keeper, objects: Away) -> None:
        self.keeper = keeper
        self.objects = objects
        self.tried = attempt()
        self.direct = Direct(Failures(Redactor([])), first_byte_s=5, idle_s=5, silence_s=5)
        lanes = Lanes(self.direct, Scripted())
        self.upstream = StoredFiles(lanes, objects, StoredResponses(lanes, objects))

    def ask(self, endpoint: Endpoint, id: str | None = None, tenant: str = "a", query: str = "", **body: Any) -> JSON:
        made = self._call(endpoint, tenant, path_id=id, query=query)
        made.body = body
        answered: JSON = json.loads(self._open(made).body)
        return answered

    def content(self, id: str, tenant: str = "a") -> bytes:
        made = self._call(FILE_CONTENT, tenant, path_id=id, pieces=True)
        opened = self._open(made)
        try:
            return b"".join(chunk.data for chunk in opened.chunks())
        finally:
            opened.close()

    def upload(self, tenant: str = "a") -> str:
        raw = form(("purpose", b"batch"), ("file", b"{}\n", "a.jsonl"))
        read = [raw, b""]
        upload = Upload(Form(FILES, BOUNDARY.encode()), lambda: read.pop(0), len(raw), None)
        upload.read_until(lambda: False)
        made = self._call(FILES, tenant, upload=upload, content_type=CONTENT_TYPE)
        made.body = upload.form.document
        answered: JSON = json.loads(self._open(made).body)
        return str(answered["id"])

    def batch(self, tenant: str = "a") -> str:
        made = self._call(BATCHES, tenant)
        made.body = {"input_file_id": self.upload(tenant), "endpoint": "/v1/x"}
        return str(json.loads(self._open(made).body)["id"])

    def ids(self, endpoint: Endpoint, tenant: str = "a", query: str = "") -> list[str]:
        return [one["id"] for one in self.ask(endpoint, tenant=tenant, query=query)["data"]]

    def _call(self, endpoint: Endpoint, tenant: str, **fields: Any) -> Call:
        return call(NAME, endpoint=endpoint, caller=Caller(f"tok_{tenant}", tenant), **fields)

    def _open(self, made: Call) -> Any:
        self.tried = attempt(NAME, api_base=f"{self.keeper.origin}/v1", api_key="sk-shared")
        self.tried.transcript = made.endpoint.transcript()
        self.tried.metered = made.endpoint.metered
        return self.upstream.open(self.tried, made)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    path = tmp_path / "gateway.db"
    upgrade(path)
    with Keeper() as keeper:
        made = Shop(keeper, Away(Database(path), 30, 1 << 20))
        yield made
        made.direct.close()


def test_a_form_goes_to_the_provider_as_it_is(shop: Shop) -> None:
    shop.upload()
    asked = shop.keeper.requests()[-1]
    assert received(asked.raw) == ({"purpose": ["batch"]}, {"file": [b"{}\n"]})


def test_whoever_made_it_finds_it_and_nobody_else_does(shop: Shop) -> None:
    file, batch = shop.upload(), shop.batch()
    assert shop.ask(FILE, file)["id"] == file
    assert shop.content(file) == b"lines\n"
    assert shop.ask(BATCH, batch)["id"] == batch
    assert shop.ask(BATCH_CANCEL, batch)["status"] == "cancelling"
    count = len(shop.keeper.requests())
    for endpoint, id in ((FILE, file), (FILE_DELETE, file), (BATCH, batch), (BATCH_CANCEL, batch), (FILE, "nobody")):
        with pytest.raises(ObjectNotFound):
            shop.ask(endpoint, id, tenant="b")
    with pytest.raises(ObjectNotFound):
        shop.content(file, tenant="b")
    assert len(shop.keeper.requests()) == count, "the provider is not asked"


class Reached(Scripted):
    """An upstream that says what reached it."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[JSON] = []

    def open(self, attempt: Attempt, call: Call) -> Any:
        self.bodies.append(call.body)


def chat(part: Any) -> JSON:
    return {"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": [{"type": "text"}, part]}]}


#: Every place of a body in which a file can be named to a model.
NAMED: dict[str, tuple[Callable[[str], JSON], str]] = {
    "chat": (lambda id: chat({"type": "file", "file": {"file_id": id}}), "messages"),
    "input": (lambda id: {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": id}]}]}, "input"),
    "image": (lambda id: {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": id}]}]}, "input"),
    "output": (
        lambda id: {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": id}]}]},
        "input",
    ),
    "container": (
        lambda id: {"input": "x", "tools": [{"type": "code_interpreter", "container": {"file_ids": [id]}}]},
        "tools",
    ),
}


@pytest.mark.parametrize(("named", "param"), NAMED.values(), ids=NAMED)
def test_no_model_reads_the_file_of_another_caller(shop: Shop, named: Callable[[str], JSON], param: str) -> None:
    file, reached = shop.upload(), Reached()
    shop.upstream = StoredFiles(Lanes(shop.direct, Scripted()), shop.objects, reached)
    endpoint = CHAT if param == "messages" else RESPONSES
    for tenant, id in (("b", file), ("a", "file-of-nobody"), ("a", "assistant-of-nobody")):
        made = shop._call(endpoint, tenant)
        made.body = named(id)
        with pytest.raises(ObjectNotFound) as refused:
            shop._open(made)
        assert refused.value.param == param
    assert reached.bodies == []
    for id in (file, "https://files.example/a.pdf", "data:application/pdf;base64,QQ==", None, 7, [file]):
        made = shop._call(endpoint, "a")
        made.body = named(id)  # type: ignore[arg-type]
        shop._open(made)
        assert reached.bodies[-1] == made.body


@pytest.mark.parametrize("body", [{"messages": "x"}, {"input": [None, "x", 1]}, {"tools": [{"container": "auto"}]}, {}])
def test_a_body_of_any_shape_names_no_file(shop: Shop, body: JSON) -> None:
    reached = Reached()
    shop.upstream = StoredFiles(Lanes(shop.direct, Scripted()), shop.objects, reached)
    made = shop._call(CHAT, "a")
    made.body = body
    shop._open(made)
    assert reached.bodies == [body]


def test_a_file_is_no_batch(shop: Shop) -> None:
    file = shop.upload()
    with pytest.raises(ObjectNotFound):
        shop.ask(BATCH, file)


def test_what_is_deleted_is_nobodys(shop: Shop) -> None:
    file = shop.upload()
    assert shop.ask(FILE_DELETE, file)["deleted"] is True
    with pytest.raises(ObjectNotFound):
        shop.ask(FILE, file)


def test_a_list_has_the_callers_own_alone_from_as_many_pages_as_it_takes(shop: Shop) -> None:
    mine, others = [], []
    for _ in range(3):
        mine.insert(0, shop.upload("a"))
        others[:0] = [shop.upload("b"), shop.upload("b")][::-1]
    assert shop.ids(FILES_LIST) == mine
    assert shop.ids(FILES_LIST, "b") == others
    assert shop.ids(FILES_LIST, "c") == []
    first = shop.ask(FILES_LIST, query="limit=2")
    assert [one["id"] for one in first["data"]] == mine[:2]
    assert (first["has_more"], first["last_id"]) == (True, mine[1])
    last = shop.ask(FILES_LIST, query=f"limit=2&after={mine[1]}")
    assert ([one["id"] for one in last["data"]], last["has_more"]) == (mine[2:], False)


def test_a_list_begins_behind_nothing_but_the_callers_own(shop: Shop) -> None:
    shop.upload("a")
    with pytest.raises(ObjectNotFound):
        shop.ask(FILES_LIST, query=f"after={shop.upload('b')}")
    for wrong in ("limit=0", "limit=many"):
        with pytest.raises(InvalidRequest):
            shop.ask(FILES_LIST, query=wrong)


def test_what_a_batch_has_made_is_its_owners_once_it_is_seen(shop: Shop) -> None:
    batch = shop.batch()
    shop.keeper.batches[0] |= {"status": "completed", "output_file_id": "file-out", "error_file_id": "file-err"}
    with pytest.raises(ObjectNotFound):
        shop.content("file-out")
    shop.ask(BATCH, batch)
    assert shop.content("file-out") == b"lines\n"
    assert shop.ask(FILE, "file-err")["id"] == "file-err"
    with pytest.raises(ObjectNotFound):
        shop.content("file-out", tenant="b")


def test_a_list_of_batches_names_what_they_have_made_too(shop: Shop) -> None:
    mine = shop.batch("a")
    shop.keeper.batches[0] |= {"output_file_id": "file-a"}
    shop.batch("b")
    shop.keeper.batches[0] |= {"output_file_id": "file-b"}
    assert shop.ids(BATCHES_LIST) == [mine]
    assert shop.content("file-a") == b"lines\n"
    with pytest.raises(ObjectNotFound):
        shop.content("file-b")


def test_a_batch_is_billed_once_to_whoever_first_sees_it_ended(shop: Shop) -> None:
    batch = shop.batch()
    usage = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    prices = {"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 1.0, "output_cost_per_token": 1.0}}
    meter, bills = Meter(Prices(prices)), []
    for status in ("in_progress", "completed", "completed"):
        shop.keeper.batches[0] |= {"status": status, "model": "gpt-x", "usage": usage}
        shop.ask(BATCH, batch)
        bills.append(meter.bill(call(NAME, endpoint=BATCH), shop.tried))
    assert [bill.usage.total if bill.usage else None for bill in bills] == [None, 42, None]
    assert [bill.cost_usd for bill in bills] == [None, 42, None]


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_what_a_batch_has_made_is_not_had_from_a_list_before_the_batch_is_billed(shop: Shop, status: str) -> None:
    batch = shop.batch()
    usage = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    shop.keeper.batches[0] |= {"status": status, "model": "gpt-x", "usage": usage, "output_file_id": "file-out"}
    assert shop.ids(BATCHES_LIST) == [batch]
    with pytest.raises(ObjectNotFound):
        shop.content("file-out")
    shop.ask(BATCH, batch)
    assert shop.tried.transcript.usage is not None
    assert shop.content("file-out") == b"lines\n"
    assert shop.ids(BATCHES_LIST) == [batch]


def test_a_batch_that_cannot_be_billed_now_is_told_and_nothing_of_it_is_had(shop: Shop) -> None:
    batch = shop.batch()
    usage = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    shop.keeper.batches[0] |= {"status": "completed", "model": "gpt-x", "usage": usage, "output_file_id": "file-out"}
    shop.objects.claiming = False
    with pytest.raises(StoreUnavailable):
        shop.ask(BATCH, batch)
    with pytest.raises(ObjectNotFound):
        shop.content("file-out")


def test_where_nobody_can_note_whose_it_is_that_is_told(shop: Shop) -> None:
    shop.objects.failing = True
    with pytest.raises(StoreUnavailable):
        shop.upload()
    shop.objects.failing = False
    assert shop.ids(FILES_LIST) == []


def test_a_provider_that_names_nothing_has_failed(shop: Shop) -> None:
    shop.keeper.nameless = True
    with pytest.raises(ProviderInvalid):
        shop.upload()


def test_files_outlive_responses(shop: Shop) -> None:
    file = shop.upload()
    row = Owned(owned.RESPONSE, "resp-old", "a", "tok_a", NAME, "openai", NAME, 0.0)
    shop.objects.keep(row)
    day_s = 86_400.0
    found = shop.objects.find(owned.FILE, file, "a")
    assert found is not None
    shop.objects.tidy(found.made_s + 400 * day_s)
    assert shop.objects.find(owned.RESPONSE, "resp-old", "a") is None
    assert shop.objects.find(owned.FILE, file, "a") is not None
    shop.objects.tidy(found.made_s + 4000 * day_s)
    assert shop.objects.find(owned.FILE, file, "a") is None


def test_every_other_operation_goes_its_own_way(shop: Shop) -> None:
    made = call("demo/echo", endpoint=CHAT)
    tried = attempt("demo/echo")
    assert b"hi" in shop.upstream.open(tried, made).body
