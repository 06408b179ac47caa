"""The gateway on Modal, without Modal: the file imports offline, and Modal's own bridge serves its app."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import flask
import httpx
import pytest

import modal_app
from tests.served.modal_bridge import ModalBridge

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the deployed app answers: in a process of its own, since it takes the process's environment over."""
    folder = tmp_path_factory.mktemp("modal")  # no `.env` is here
    environ = {"PATH": os.environ["PATH"], "GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_DATA_DIR": str(folder / "data")}
    with (
        (folder / "stderr").open("w+") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.served.modal_bridge"],
            cwd=folder,
            env=environ,
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
        yield address
        served.stdin.close()
        assert served.wait(20) == 0, "it did not end cleanly"


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
