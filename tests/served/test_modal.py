"""The gateway on Modal, without Modal: the file imports offline, and Modal's own bridge serves its app."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import flask
import httpx
import psutil
import pytest
from modal._vendor import a2wsgi_wsgi

import modal_app
from gateway import assembly, modal_bridge
from gateway.settings import Settings
from tests.fakes.provider import FakeProvider, delta, hang, pause, repeat, silence, sse
from tests.served.modal_bridge import ModalBridge

TOKEN = "a-token-of-this-test"


@contextmanager
def deployed(folder: Path, settings: dict[str, str]) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The deployed app in a process of its own, since it takes the process's environment over."""
    own = {"PATH": os.environ["PATH"], "GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_DATA_DIR": str(folder / "data")}
    with (
        (folder / "stderr").open("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.served.modal_bridge"],
            cwd=folder,  # no `.env` is here
            env=own | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as served,
    ):
        assert served.stdin
        assert served.stdout
        address = served.stdout.readline().strip()
        if not address:
            stderr.seek(0)
            pytest.fail(stderr.read())
        yield address, served
        served.stdin.close()
        assert served.wait(20) == 0, "it did not end cleanly"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the deployed app answers."""
    with deployed(tmp_path_factory.mktemp("modal"), {}) as (address, _):
        yield address


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


def chat(content: str, *, stream: bool = False) -> dict[str, object]:
    return {"model": "demo/echo", "messages": [{"role": "user", "content": content}], "stream": stream}


def test_health_answers_on_modal(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200


def test_a_chat_is_answered_on_modal(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=chat("one two three"))
    assert answer.status_code == 200, answer.text
    assert "one two three" in answer.json()["choices"][0]["message"]["content"]


def test_a_chat_without_a_token_is_refused_on_modal(client: httpx.Client) -> None:
    del client.headers["authorization"]
    assert client.post("/v1/chat/completions", json=chat("hello")).status_code == 401


def test_a_chat_is_streamed_on_modal(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json=chat("one two three", stream=True)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    deltas = [choice["delta"].get("content") for event in events for choice in json.loads(event)["choices"]]
    words = [delta for delta in deltas if delta]
    assert len(words) > 1, "not word by word"
    assert "one two three" in "".join(words)


def test_a_body_that_comes_in_chunks_is_read_on_modal(client: httpx.Client) -> None:
    body = json.dumps(chat("a body of unknown length")).encode()

    def pieces() -> Iterator[bytes]:  # httpx sends an iterator chunked, with no Content-Length
        for start in range(0, len(body), 10):
            yield body[start : start + 10]

    answer = client.post("/v1/chat/completions", content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert "a body of unknown length" in answer.json()["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def provided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FakeProvider, subprocess.Popen[str]]]:
    """What would be deployed, with a provider behind it that does as it is told."""
    folder = tmp_path_factory.mktemp("modal-provided")
    with FakeProvider() as provider:
        keys = {"OPENAI_API_KEY": "sk-provider-0123456789", "OPENAI_BASE_URL": provider.base_url}
        with deployed(folder, keys) as (address, process):
            yield address, provider, process


def sent(url: str, body: dict[str, object]) -> socket.socket:
    """Send a call on a connection of its own."""
    address = urlsplit(url)
    payload = json.dumps(body).encode()
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    return connection


def leave(url: str, body: dict[str, object], after: bytes) -> None:
    """Call, and close the connection once `after` was seen."""
    with sent(url, body) as connection:
        seen = b""
        while after not in seen:
            piece = connection.recv(65536)
            assert piece, seen
            seen += piece


def wait_until(true: Callable[[], bool], timeout_s: float) -> bool:
    end_s = time.monotonic() + timeout_s
    while not true() and time.monotonic() < end_s:
        time.sleep(0.05)
    return true()


@pytest.mark.parametrize("silent", [False, True], ids=["while it streams", "in silence"])
def test_fifty_callers_that_leave_on_modal_leave_no_thread_and_no_connection_behind(
    provided: tuple[str, FakeProvider, subprocess.Popen[str]], silent: bool
) -> None:
    url, provider, process = provided
    more = (silence(),) if silent else (repeat(400, delta({"content": "more "}), pause(0.05)),)
    model = f"left-{silent}"
    provider.script(model, sse(delta({"role": "assistant"}), delta({"content": "first"}), *more))
    threads = psutil.Process(process.pid).num_threads
    before = threads()
    body = {**chat("hello", stream=True), "model": f"openai/{model}"}
    with ThreadPoolExecutor(50) as callers:
        for left in [callers.submit(leave, url, body, b"first") for _ in range(50)]:
            left.result()
    calls = provider.wait_for(50, model=model, timeout=10)
    assert all(call.closed.wait(5) for call in calls), "a provider's connection is still open"
    # the bridge keeps the threads of its pool, idle; those of the gateway's own readers end
    assert wait_until(lambda: reading(process.pid) == 0, 5), "a stream is still read"
    assert threads() <= before + 50 + 20


def reading(pid: int) -> int:
    """How many threads of a process still read a stream; the kernel has the first 15 letters of their names."""
    names = []
    for path in Path(f"/proc/{pid}/task").glob("*/comm"):
        with suppress(OSError):  # it has ended meanwhile
            names.append(path.read_text())
    return sum(name.startswith("stream-req_") for name in names)


def test_a_caller_that_leaves_on_modal_before_the_answer_frees_the_provider(
    provided: tuple[str, FakeProvider, subprocess.Popen[str]],
) -> None:
    url, provider, _ = provided
    provider.script("held", hang())
    with sent(url, {**chat("hello"), "model": "openai/held"}):
        [call] = provider.wait_for(1, model="held", timeout=10)
    assert call.closed.wait(2)


def test_fifty_callers_at_once_are_answered_on_modal(
    provided: tuple[str, FakeProvider, subprocess.Popen[str]],
) -> None:
    url, _, _ = provided
    headers = {"authorization": f"Bearer {TOKEN}"}

    def ask(number: int) -> str:
        body = {**chat(f"number {number}"), "model": "openai/any"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=60)
        return str(answer.json()["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(50) as callers:
        assert list(callers.map(ask, range(50))) == ["hello there"] * 50


def test_a_call_that_is_not_streamed_ends_on_modal_before_modal_would_end_it(tmp_path: Path) -> None:
    gateway = assembly.build(Settings.load({"GATEWAY_AUTH_TOKEN": TOKEN}), whole_answer_s=modal_app.WHOLE_ANSWER_S)
    assert (gateway.limits.whole_answer_s, gateway.limits.timeout_s) == (140, 600)


def test_a_release_of_modal_with_another_bridge_is_said_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(a2wsgi_wsgi, "WSGIResponder", object)
    assert not modal_bridge.install()
    assert "callers that leave will not be noticed" in caplog.text


def test_the_bridge_hands_over_each_chunk_before_the_next_is_made() -> None:
    app = flask.Flask(__name__)
    received = threading.Semaphore(0)

    @app.get("/")
    def stream() -> flask.Response:
        def chunks() -> Iterator[str]:
            yield "first "
            for word in ("second ", "third"):
                # A bridge that gathered chunks would never let the client release this.
                assert received.acquire(timeout=10), "the chunk before was not passed on"
                yield word

        return flask.Response(chunks(), mimetype="text/plain")

    got = []
    with ModalBridge(app) as bridge, httpx.stream("GET", bridge.url, trust_env=False) as answer:
        for chunk in answer.iter_text():
            got.append(chunk)
            received.release()
    assert got == ["first ", "second ", "third"]


def test_the_bridge_gives_a_chunked_body_no_length() -> None:
    app = flask.Flask(__name__)

    @app.post("/")
    def echo() -> dict[str, object]:
        environ = flask.request.environ
        return {
            "length": environ.get("CONTENT_LENGTH"),
            "chunked": environ.get("HTTP_TRANSFER_ENCODING"),
            "by_flask": flask.request.get_data().decode(),
            "by_hand": environ["wsgi.input"].read().decode(),
        }

    with ModalBridge(app) as bridge:
        answer = httpx.post(bridge.url, content=iter([b"one ", b"two"]), trust_env=False)
    assert answer.json() == {"length": None, "chunked": None, "by_flask": "", "by_hand": "one two"}


def test_closing_the_bridge_frees_a_thread_whose_client_left() -> None:
    app = flask.Flask(__name__)
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 65536

        def close(self) -> None:
            closed.set()

    @app.get("/")
    def stream() -> flask.Response:
        return flask.Response(Endless())

    with ModalBridge(app) as bridge, httpx.stream("GET", bridge.url, trust_env=False) as answer:
        next(answer.iter_bytes())
    assert closed.wait(10), "the thread is blocked for ever, and so is the end of the test run"


def test_the_settings_come_from_the_dotenv_beside_the_file_only(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_AUTH_TOKEN=from-the-file\n")
    below = tmp_path / "below"
    below.mkdir()
    assert "from_dotenv" in repr(modal_app.operator_secret(tmp_path))
    # Still a secret, if an empty one: Modal refuses to start a container whose file, imported there with no
    # `.env` beside it, names fewer of them than the one that was deployed.
    assert "from_dict" in repr(modal_app.operator_secret(below))
