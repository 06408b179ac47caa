"""Each command and program of the README, as it stands there, against a real start. Only the port is another."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.braintrust_server import FakeBraintrust
from tests.fakes.provider import FakeProvider, answer
from tests.served.process import TOP, Served

TRACING = (TOP / "docs/tracing.md").read_text(encoding="utf-8")
README = (TOP / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]

START = "pip install uv && uv run gunicorn wsgi:app\n"
TESTS = "pip install uv && uv run pytest\n"
#: What no test can run here, and why.
NOT_RUN = {
    START: "its last words start every gateway of these tests; .ci/run does the rest",
    TESTS: "this is that command",
    "uv run gateway traces show\n": "test_what_has_happened_is_shown_by_the_command does, by its path",
    "uv run modal deploy modal_app.py\n": "it needs an account; test_modal.py serves what it would deploy",
}
GATEWAY = str(Path(sys.executable).with_name("gateway"))
KEY = "sk-choose-a-long-random-one"


def run(command: list[str], served: Served, **environment: str) -> str:
    done = subprocess.run(
        [part.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}") for part in command],
        cwd=served.top,
        env={"PATH": os.environ["PATH"], "HOME": str(served.top), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A start with nothing set, but for where the port and the folder are."""
    folder = tmp_path_factory.mktemp("newcomer")
    with Served(folder, {"GATEWAY_DATA_DIR": ".gateway", "WEB_CONCURRENCY": "1"}) as served:
        yield served


@pytest.fixture(scope="module")
def with_keys(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], braintrust: FakeBraintrust
) -> Iterator[Served]:
    own = settings | braintrust.environment() | {"GATEWAY_AUTH_TOKEN": KEY}
    with Served(tmp_path_factory.mktemp("with-keys"), own) as served:
        yield served


def curls(key: str) -> list[str]:
    return [text for text in SHELL if text.startswith("curl") and key in text]


def test_every_command_of_the_readme_is_known_here() -> None:
    known = [*NOT_RUN, *curls(".gateway/auth-token"), *curls(KEY)]
    assert sorted(SHELL) == sorted(known)
    assert {language for language, _ in BLOCKS} <= {"sh", "python", "ini"}


def test_the_first_request_is_answered_with_no_account_streamed_and_not(first_start: Served) -> None:
    [command] = curls(".gateway/auth-token")
    streamed = run(["sh", "-c", command], first_start)
    assert "".join(re.findall(r'"content":"([^"]*)"', streamed)) == "Hello, gateway!"
    assert streamed.endswith("data: [DONE]\n\n")
    assert run([sys.executable, "-c", PYTHON[0]], first_start) == "Hello, gateway!\n"


def test_what_has_happened_is_shown_by_the_command(first_start: Served) -> None:
    run(["sh", "-c", curls(".gateway/auth-token")[0]], first_start)
    until_s = time.monotonic() + 10  # it is there within a second, and later on a busy machine
    while "Hello, gateway!" not in (told := run([GATEWAY, "traces", "show"], first_start)):
        assert time.monotonic() < until_s, told
    assert "chat demo/echo" in told


@pytest.mark.parametrize(("path", "kind"), [("/v1/responses", "output_text"), ("/v1/messages", "text")])
def test_the_newer_operations_are_answered_with_no_account(first_start: Served, path: str, kind: str) -> None:
    headers = {"x-api-key": (first_start.top / ".gateway/auth-token").read_text().strip()}
    asked = {"model": "demo/echo", "max_tokens": 64, "input": "Hello, gateway!"}
    if "messages" in path:
        asked["messages"] = [{"role": "user", "content": asked.pop("input")}]
    answered = httpx.post(f"{first_start.url}{path}", headers=headers, json=asked, trust_env=False, timeout=20)
    assert f'"type":"{kind}","text":"Hello, gateway!"' in answered.text


def test_the_line_that_the_start_prints_can_be_pasted(first_start: Served) -> None:
    [line] = [line.strip() for line in first_start.log.splitlines() if line.startswith("  curl -N ")]
    assert run(["sh", "-c", line], first_start).endswith("data: [DONE]\n\n")


def test_the_log_says_where_traces_go_without_a_braintrust_key(first_start: Served) -> None:
    assert "(read them with: gateway traces list)" in first_start.log


@pytest.mark.parametrize("program", PYTHON[1:], ids=["streamed", "anthropic"])
def test_the_programs_of_the_readme_run(
    program: str, with_keys: Served, braintrust: FakeBraintrust, provider: FakeProvider
) -> None:
    for named in ("gpt-4o-mini", "claude-sonnet-4-5"):
        provider.script(named, answer())  # other tests of the session have them say other things
    before = len(provider.requests())
    printed = run([sys.executable, "-c", program], with_keys, **braintrust.environment())
    assert len(provider.requests()) == before + 1
    assert "hello there" in printed


def test_a_call_nests_under_the_callers_own_span_as_the_guide_of_traces_shows(
    with_keys: Served, braintrust: FakeBraintrust
) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", TRACING, re.MULTILINE | re.DOTALL)
    known = {row["id"] for row in braintrust.rows()}
    run([sys.executable, "-c", program], with_keys, **braintrust.environment())
    rows = [
        row
        for row in braintrust.wait_rows(lambda rows: len({row["id"] for row in rows} - known) >= 3)
        if row["id"] not in known
    ]
    [own] = [row for row in rows if row["span_attributes"]["name"] == "answer a customer"]
    [root] = [row for row in rows if row.get("span_parents") == [own["span_id"]]]
    [llm] = [row for row in rows if row.get("span_parents") == [root["span_id"]]]
    assert root["root_span_id"] == llm["root_span_id"] == own["root_span_id"]
    assert root["project_id"] == llm["project_id"] == own["project_id"]
    assert braintrust.project_name(own["project_id"]) == "my-app"


def test_the_list_of_models_is_what_the_readme_says(with_keys: Served) -> None:
    [command] = curls(KEY)
    assert '"id":"gpt-4o-mini"' in run(["sh", "-c", command], with_keys)


def test_the_settings_are_checked_by_the_command_that_the_readme_names(tmp_path: Path) -> None:
    assert "`uv run gateway check`" in README
    done = subprocess.run(
        [Path(sys.executable).with_name("gateway"), "check"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "GATEWAY_TIMEOUT_S": "soon", "GATEWAY_MAX_BODY_MB": "-1"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "GATEWAY_TIMEOUT_S" in done.stderr
    assert "GATEWAY_MAX_BODY_MB" in done.stderr
