"""A start that would be wrong is refused with one clear line; a first start works with nothing set."""

import json
import shlex
import stat
from pathlib import Path

import httpx
import pytest

from tests.served.caller import CHAT, body
from tests.served.process import TOKEN, Served
from tests.served.wire import ask

REFUSED: dict[str, tuple[dict[str, str], str, str]] = {
    "a blank token": ({"GATEWAY_AUTH_TOKEN": " "}, "127.0.0.1", "GATEWAY_AUTH_TOKEN"),
    "a list of blank tokens": ({"GATEWAY_AUTH_TOKEN": " , ,"}, "127.0.0.1", "GATEWAY_AUTH_TOKEN"),
    "no token beyond this machine": ({}, "0.0.0.0", "set GATEWAY_AUTH_TOKEN"),
    "a misspelt setting": (
        {"GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_TIMOUT_S": "5"},
        "127.0.0.1",
        "GATEWAY_TIMOUT_S is not a setting; GATEWAY_TIMEOUT_S is meant?",
    ),
    "a setting of another kind": (
        {"GATEWAY_AUTH_TOKEN": TOKEN, "GATEWAY_TIMEOUT_S": "soon"},
        "127.0.0.1",
        "GATEWAY_TIMEOUT_S",
    ),
}


@pytest.mark.parametrize(("settings", "host", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_start_is_refused_in_one_clear_line(
    tmp_path: Path, settings: dict[str, str], host: str, sentence: str
) -> None:
    served = Served(tmp_path, {"WEB_CONCURRENCY": "1", **settings}, host=host)
    assert served.wait_exit(30) != 0
    said = [line for line in served.log.splitlines() if line.startswith("gateway: ")]
    assert len(said) == 1, served.log
    assert sentence in said[0]
    assert "Traceback" not in served.log
    assert TOKEN not in served.log


def test_a_second_start_at_the_same_port_says_where_to_start_it(tmp_path: Path, gateway: Served) -> None:
    again = Served(tmp_path, {"WEB_CONCURRENCY": "1", "GATEWAY_AUTH_TOKEN": TOKEN}, ["-b", f"127.0.0.1:{gateway.port}"])
    assert again.wait_exit(30) != 0
    [said] = [line for line in again.log.splitlines() if line.startswith("gateway: ")]
    assert f"127.0.0.1:{gateway.port} is taken by another program" in said
    assert "Connection in use" not in again.log


def test_a_database_that_cannot_be_used_stops_a_start_with_a_braintrust_key_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gateway.db").write_bytes(b"a letter to a friend" * 100)
    served = Served(tmp_path, {"WEB_CONCURRENCY": "1", "GATEWAY_AUTH_TOKEN": TOKEN, "BRAINTRUST_API_KEY": "hunter2"})
    assert served.wait_exit(30) != 0
    [said] = [line for line in served.log.splitlines() if line.startswith("gateway: ")]
    assert "gateway.db: is not a database" in said
    assert "GATEWAY_DATA_DIR" in said
    assert "Traceback" not in served.log


def test_all_faults_of_the_settings_are_named_at_once(tmp_path: Path) -> None:
    wrong = {"GATEWAY_AUTH_TOKEN": "", "GATEWAY_KEEPALIVE_S": "-1", "LOG_FORMAT": "xml", "OPENAI_BASE_URL": "nowhere"}
    served = Served(tmp_path, wrong)
    assert served.wait_exit(30) != 0
    for name in wrong:
        assert name in served.log
    assert "Traceback" not in served.log


def test_a_first_start_needs_no_setting_and_prints_a_request_that_works(tmp_path: Path) -> None:
    with Served(tmp_path, {"WEB_CONCURRENCY": "1"}) as served:
        (line,) = (line for line in served.log.splitlines() if line.lstrip().startswith("curl "))
        words = shlex.split(line)
        (url,) = (word for word in words if word.startswith("http://"))
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        asked = json.loads(words[words.index("-d") + 1])
        assert url == f"{served.url}{CHAT}"

        streamed = httpx.post(url, headers=headers, json=asked, trust_env=False, timeout=20)
        assert streamed.status_code == 200
        *events, last = (event.removeprefix("data: ") for event in streamed.text.split("\n\n") if event)
        assert last == "[DONE]"
        deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
        assert "Hello, gateway!" in "".join(delta.get("content") or "" for delta in deltas)
        whole = httpx.post(url, headers=headers, json={**asked, "stream": False}, trust_env=False, timeout=20)
        assert "Hello, gateway!" in whole.json()["choices"][0]["message"]["content"]

        for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            assert ask(served, body("demo/echo"), wrong)[0] == 401
        kept = served.data_dir / "auth-token"
        assert headers["Authorization"] == f"Bearer {kept.read_text().strip()}"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert served.stop() < 10
