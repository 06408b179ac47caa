"""Uploads and media over a served gateway: hostile forms, memory, the streams beside them, and who finds what."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import FakeProvider, close, delta, plain_json, raw, repeat, sse
from tests.fakes.provider import pause as paused
from tests.forms import BOUNDARY, CONTENT_TYPE, form, part, received
from tests.served.caller import Caller
from tests.served.process import OTHER_TOKEN, TOKEN, Served
from tests.served.traces import trace_of_request

MB = 1 << 20
HEARD = {"text": "well met", "usage": {"type": "duration", "seconds": 3}}
PATH = "/v1/audio/transcriptions"
RECORDING = b"RIFF" + bytes(range(256)) * 64


def sent(caller: Caller, raw_form: bytes, path: str = PATH, **headers: str) -> httpx.Response:
    return caller.http.post(path, content=raw_form, headers={"Content-Type": CONTENT_TYPE, **headers})


@pytest.mark.parametrize("size", [1000, 3 * MB], ids=["small", "large"])
@pytest.mark.parametrize("model_last", [False, True], ids=["model first", "model last"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "chunked"])
def test_a_recording_reaches_its_provider_whole(
    caller: Caller, provider: FakeProvider, model: str, size: int, model_last: bool, chunked: bool
) -> None:
    provider.script(model, plain_json(HEARD))
    recording = bytes(range(256)) * (size // 256)
    parts = [("model", f"openai/{model}".encode()), ("file", recording, "talk.wav")]
    whole = form(*(reversed(parts) if model_last else parts))
    content = (whole[start : start + 50_000] for start in range(0, len(whole), 50_000)) if chunked else whole
    got = caller.http.post(PATH, content=content, headers={"Content-Type": CONTENT_TYPE})
    assert (got.status_code, got.json()) == (200, HEARD)
    (asked,) = provider.requests(model)
    assert received(asked.raw, asked.headers["content-type"]) == ({"model": [model]}, {"file": [recording]})
    assert asked.headers["authorization"] != f"Bearer {TOKEN}"


def test_a_trace_has_the_text_and_the_digest_of_what_was_heard(
    caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust, model: str
) -> None:
    provider.script(model, plain_json(HEARD))
    got = sent(
        caller, form(("model", f"openai/{model}".encode()), ("prompt", b"be exact"), ("file", RECORDING, "a.wav"))
    )
    trace = trace_of_request(braintrust, got.headers["request-id"])
    assert trace.llm["span_attributes"] == {"name": "Transcription", "type": "llm"}
    asked = trace.llm["input"]
    assert (asked["prompt"], asked["file"]["bytes"], len(asked["file"]["sha256"])) == ("be exact", len(RECORDING), 64)
    assert trace.llm["output"] == {"text": "well met"}
    assert trace.root["output"] == {"text": "well met"}
    assert trace.llm["metrics"]["second_in"] == 3
    assert trace.root["metadata"]["usage"]["second_in"] == 3
    assert "RIFF" not in json.dumps([trace.root, trace.llm])


def test_speech_begins_before_the_provider_has_ended(caller: Caller, provider: FakeProvider, model: str) -> None:
    steps = [lambda turn: turn.exchange.send(b"ID3 first"), paused(1.0), lambda turn: turn.exchange.send(b" last")]
    provider.script(model, sse(*steps, headers={"Content-Type": "audio/mpeg"}))
    asked = {"model": f"openai/{model}", "input": "hello", "voice": "alloy"}
    began_s = time.monotonic()
    with caller.http.stream("POST", "/v1/audio/speech", json=asked) as got:
        pieces = got.iter_raw()
        assert next(pieces) == b"ID3 first"
        first_s = time.monotonic() - began_s
        assert b"".join(pieces) == b" last"
    assert got.headers["content-type"] == "audio/mpeg"
    assert first_s < 0.9 < time.monotonic() - began_s


def test_speech_that_breaks_off_has_no_end(caller: Caller, provider: FakeProvider, model: str) -> None:
    steps = [lambda turn: turn.exchange.send(b"ID3 half"), close()]
    provider.script(model, sse(*steps, headers={"Content-Type": "audio/mpeg"}))
    asked = {"model": f"openai/{model}", "input": "hello", "voice": "alloy"}
    with pytest.raises(httpx.RemoteProtocolError), caller.http.stream("POST", "/v1/audio/speech", json=asked) as got:
        list(got.iter_raw())


def test_what_a_browser_would_run_is_no_audio(caller: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, raw(200, {"Content-Type": "text/html"}, b"<script>"))
    got = caller.http.post("/v1/audio/speech", json={"model": f"openai/{model}", "input": "a", "voice": "b"})
    assert (got.headers["content-type"], got.content) == ("application/octet-stream", b"<script>")


def test_azures_client_sends_a_recording(caller: Caller, provider: FakeProvider, model: str) -> None:
    provider.script(model, plain_json(HEARD))
    path = f"/openai/deployments/openai/{model}/audio/transcriptions?api-version=2024-10-21"
    assert sent(caller, form(("file", RECORDING, "a.wav")), path).json() == HEARD
    assert received(provider.requests(model)[-1].raw)[0] == {"model": [model]}


MODEL = part("model", b"openai/hostile")
HOSTILE = {
    "10,000 parts": (MODEL + b"".join(part(f"n{number}", b"x") for number in range(10_000)), 400),
    "endless header": (MODEL + f"--{BOUNDARY}\r\nX: ".encode() + b"y" * (2 * MB), 400),
    "no boundary inside": (b"z" * (2 * MB), 400),
    "truncated": (form(("model", b"openai/hostile"), ("file", bytes(2 * MB), "a.wav"))[:-30], 400),
    "truncated, small": (form(("model", b"openai/hostile"), ("file", b"x", "a.wav"))[:-30], 400),
    "two models": (form(("model", b"openai/hostile"), ("file", b"x", "a.wav"), ("model", b"openai/b")), 400),
    "two models around 2 MB": (
        form(("model", b"openai/hostile"), ("file", bytes(2 * MB), "a.wav"), ("model", b"openai/b")),
        400,
    ),
    "2 MB of text": (MODEL + part("prompt", b"x" * (2 * MB)), 413),
    "no file": (form(("model", b"openai/hostile")), 400),
    "nothing": (b"", 400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_form_is_refused_and_no_whole_request_reaches_a_provider(
    caller: Caller, provider: FakeProvider, name: str
) -> None:
    body, status = HOSTILE[name]
    got = sent(caller, body)
    assert got.status_code == status, got.text
    assert got.json()["error"]["type"] == "invalid_request_error"
    assert provider.requests("hostile") == []
    assert caller.http.get("/v1/models").status_code == 200


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain"])
def test_another_content_type_is_refused(caller: Caller, content_type: str) -> None:
    got = sent(caller, form(("model", b"openai/m"), ("file", b"x", "a.wav")), **{"Content-Type": content_type})
    assert got.status_code == 400
    assert sent(caller, b"", **{"Content-Encoding": "gzip"}).status_code == 415


def test_what_is_said_to_be_too_large_is_refused_before_it_comes(gateway: Served) -> None:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {1 << 30}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_caller_that_leaves_in_the_middle_costs_the_provider_its_request(
    gateway: Served, caller: Caller, provider: FakeProvider, braintrust: FakeBraintrust
) -> None:
    before = provider.open_connections
    whole = form(("model", b"openai/left"), ("file", bytes(4 * MB), "a.wav"))
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(whole)}\r\nx-request-id: left-in-the-middle\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode() + whole[: 3 * MB])
        time.sleep(0.3)
    end_s = time.monotonic() + 5
    while provider.open_connections > before and time.monotonic() < end_s:
        time.sleep(0.05)
    assert provider.open_connections <= before
    assert provider.requests("left") == []


class Beside(threading.Thread):
    """A stream with a chunk every 20 ms; `gaps_s` between what comes of it."""

    def __init__(self, gateway: Served, model: str) -> None:
        super().__init__()
        self._gateway = gateway
        self._model = model
        self.gaps_s: list[float] = []

    def run(self) -> None:
        with Caller(self._gateway.url, TOKEN) as one:
            got = one.stream(f"openai/{self._model}")
        self.gaps_s = [after - before for before, after in zip(got.times_s, got.times_s[1:], strict=False)]


@pytest.mark.parametrize("model_last", [False, True], ids=["model first", "model last"])
def test_a_large_upload_takes_little_memory_and_holds_no_stream_up(
    gateway: Served, caller: Caller, provider: FakeProvider, model: str, model_last: bool
) -> None:
    provider.script(f"{model}-stream", sse(*repeat_deltas(150)))
    provider.script(model, plain_json(HEARD))
    parts = [("model", f"openai/{model}".encode()), ("file", bytes(64 * MB), "talk.wav")]
    whole = form(*(reversed(parts) if model_last else parts))
    (worker,) = gateway.workers()
    sent(caller, form(("model", f"openai/{model}".encode()), ("file", bytes(2 * MB), "a.wav")))
    beside = Beside(gateway, f"{model}-stream")
    beside.start()
    time.sleep(0.5)
    memory = Memory(worker)
    memory.start()
    try:
        got = sent(caller, whole)
    finally:
        grown_bytes = memory.stop()
        beside.join()
    assert got.json() == HEARD
    assert grown_bytes < 32 * MB
    assert len(beside.gaps_s) > 100
    assert max(beside.gaps_s) < 0.5, "bench/upload.py has the figures of a quiet machine"


def repeat_deltas(count: int) -> list:  # type: ignore[type-arg]
    return [repeat(count, delta({"content": "x"}), paused(0.02)), delta({}, "stop")]


class Memory(threading.Thread):
    """Looks at a process until it is stopped."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__()
        self._process = process
        self._over = threading.Event()
        self._first_bytes = self._most_bytes = process.memory_info().rss

    def run(self) -> None:
        while not self._over.wait(0.02):
            self._most_bytes = max(self._most_bytes, self._process.memory_info().rss)

    def stop(self) -> int:
        """By how many bytes it grew at most."""
        self._over.set()
        self.join()
        return self._most_bytes - self._first_bytes


@pytest.fixture(scope="module")
def other(gateway: Served) -> Iterator[Caller]:
    with Caller(gateway.url, OTHER_TOKEN) as one:
        yield one


def test_a_file_is_found_by_its_own_tenant_alone(caller: Caller, other: Caller, provider: FakeProvider) -> None:
    # a form without a model has the script of none
    provider.script("None", plain_json({"id": "file-mine", "object": "file", "filename": "a.jsonl"}))
    got = sent(caller, form(("purpose", b"batch"), ("file", b"{}\n", "a.jsonl")), "/v1/files")
    assert (got.status_code, got.json()["id"]) == (200, "file-mine")
    provider.script("None", raw(200, {"Content-Type": "application/octet-stream"}, b"{}\n"))
    assert caller.http.get("/v1/files/file-mine/content").content == b"{}\n"
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answered = other.http.request(method, f"/v1/files/file-mine{path}")
        assert (answered.status_code, answered.json()["error"]["code"]) == (404, "not_found")
    batch = {"input_file_id": "file-mine", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert other.http.post("/v1/batches", json=batch).status_code == 404
    provider.script("None", plain_json({"id": "batch-mine", "object": "batch", "status": "validating"}))
    assert caller.http.post("/v1/batches", json=batch).json()["id"] == "batch-mine"
    assert provider.requests()[-1].body == batch
    assert other.http.get("/v1/batches/batch-mine").status_code == 404
    provider.script("None")
