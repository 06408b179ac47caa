"""Log lines: one a record, whatever it holds."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import logs
from gateway.core.redaction import REDACTED
from gateway.logs import configure, dict_config
from gateway.secret import Secret

NASTY = "a\r\nb\x1b[31m\u2028\u2029\x00\x7f\x85\u202e\ud800 \u00e9"
NAMES = ("", "gateway", "gunicorn.error", "gunicorn.access", "LiteLLM", "braintrust", "urllib3", "httpx")


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in dict_config("json", "info")["loggers"]] + [logging.getLogger()]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


class Written:
    """What the log of this process has written."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def start(self, log_format: str = "json", level: str = "info") -> None:
        configure(log_format, level)

    def __call__(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def only(text: str) -> dict[str, Any]:
    assert text.endswith("\n")
    [line] = text.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_record_is_one_json_object_with_its_fields(written: Written) -> None:
    written.start()
    logging.getLogger("gateway.pipeline").info("answered %s", "chat", extra={"fields": {"status": 200, "ms": 1.5}})
    got = only(written())
    moment = datetime.fromisoformat(got.pop("time"))
    assert moment.utcoffset() is not None
    assert got == {
        "level": "info",
        "logger": "gateway.pipeline",
        "message": "answered chat",
        "status": 200,
        "ms": 1.5,
    }


def test_the_time_is_utc_in_milliseconds(written: Written) -> None:
    written.start()
    record = logging.makeLogRecord({"name": "gateway", "levelno": 20, "levelname": "INFO", "msg": "m"})
    record.created = 1_767_225_600.25
    logging.getLogger("gateway").handle(record)
    assert only(written())["time"] == "2026-01-01T00:00:00.250Z"


def test_a_field_cannot_stand_in_for_what_every_line_has(written: Written) -> None:
    written.start()
    logging.getLogger("gateway").error("real", extra={"fields": {"level": "info", "message": "forged"}})
    got = only(written())
    assert (got["level"], got["message"]) == ("error", "real")


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_no_character_ends_a_line_or_reaches_the_terminal(log_format: str, written: Written) -> None:
    written.start(log_format)
    logging.getLogger("gateway").warning(NASTY, extra={"fields": {"model": NASTY, NASTY: 1}})
    text = written()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()


def test_what_json_cannot_say_is_said_as_text(written: Written) -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    written.start()
    fields = {
        "nan": float("nan"),
        "circle": circle,
        "secret": Secret("hunter2"),
        "set": {1},
        3: 4,
        "fine": [1],
    }
    logging.getLogger("gateway").info("odd", extra={"fields": fields})
    got = only(written())
    assert (got["nan"], got["secret"], got["set"], got["fine"], got["3"]) == (
        "nan",
        "Secret(…)",
        "{1}",
        [1],
        4,
    )
    assert "hunter2" not in written()


def test_arguments_that_do_not_fit_lose_no_line(written: Written) -> None:
    written.start()
    logging.getLogger("gateway").info("%d things", "three")
    assert only(written())["message"] == "%d things"


def raise_and_log(log_format: str, written: Written) -> None:
    written.start(log_format)
    try:
        raise ValueError("first\n2026-01-01T00:00:00.000Z error   gateway: forged\x1b[0m")
    except ValueError:
        logging.getLogger("gateway").exception("it failed")


def test_a_traceback_is_one_escaped_string(written: Written) -> None:
    raise_and_log("json", written)
    got = only(written())
    assert got["message"] == "it failed"
    assert got["exception"].startswith("Traceback (most recent call last):\n")
    assert "ValueError: first\n" in got["exception"]


def test_for_people_a_traceback_is_indented_so_that_it_looks_like_no_record(written: Written) -> None:
    raise_and_log("pretty", written)
    first, *rest = written().splitlines()
    assert first.endswith("error   gateway: it failed")
    assert len(rest) > 3
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_for_people_fields_follow_the_message(written: Written) -> None:
    written.start("pretty")
    logging.getLogger("gateway.api").info("answered", extra={"fields": {"status": 200, "model": "demo/echo"}})
    assert written().endswith(' info    gateway.api: answered status=200 model="demo/echo"\n')


def test_only_our_own_lines_are_written_below_a_warning(written: Written) -> None:
    written.start("json", "debug")
    for name in (
        "gateway.upstream",
        "gunicorn.error",
        "LiteLLM",
        "LiteLLM Router",
        "braintrust",
        "urllib3",
        "httpx",
    ):
        logging.getLogger(name).debug(name)
        logging.getLogger(name).info(name)
    logging.getLogger("some.library").info("no")
    assert {json.loads(line)["logger"] for line in written().splitlines()} == {
        "gateway.upstream",
        "gunicorn.error",
    }
    logging.getLogger("LiteLLM Proxy").warning("now")
    assert json.loads(written().splitlines()[-1])["logger"] == "LiteLLM Proxy"


def test_with_level_error_a_library_is_not_louder_than_we_are(written: Written) -> None:
    written.start("json", "error")
    for name in NAMES:
        logging.getLogger(name).warning("no")
    assert written() == ""


def test_a_handler_that_a_library_brought_is_taken_away(written: Written) -> None:
    logging.getLogger("LiteLLM").addHandler(logging.StreamHandler(sys.stderr))
    written.start()
    logging.getLogger("LiteLLM").warning("once")
    assert only(written())["message"] == "once"


def test_what_looks_like_a_key_in_a_librarys_line_is_blotted_out(written: Written) -> None:
    written.start()
    text = "Authorization: Bearer abcdefghijklmnop1234, key sk-proj-hunter2hunter2, api_key='hunter2hunter2'"
    logging.getLogger("LiteLLM").error(text)
    got = only(written())["message"]
    assert "hunter2" not in got
    assert "abcdefghijklmnop1234" not in got


def test_what_looks_like_a_key_in_a_traceback_is_blotted_out(written: Written) -> None:
    written.start()
    try:
        raise ValueError("401 for sk-hunter2hunter2")
    except ValueError:
        logging.getLogger("gateway").exception("a basic failure")
    got = only(written())
    assert "hunter2" not in got["exception"]
    assert got["message"] == "a basic failure"


def test_gunicorn_writes_no_line_for_a_request_since_the_app_does(written: Written) -> None:
    written.start("json", "debug")
    logging.getLogger("gunicorn.access").info('"GET / HTTP/1.1" 200')
    logging.getLogger("gateway.access").info("request", extra={"fields": {"status": 200}})
    assert only(written())["logger"] == "gateway.access"


def test_gunicorn_takes_the_same_dictionary() -> None:
    script = (
        "from gunicorn.config import Config; from gunicorn.glogging import Logger; import gateway.logs\n"
        "config = Config(); config.set('logconfig_dict', gateway.logs.dict_config('json', 'info'))\n"
        "config.set('accesslog', '-'); config.set('errorlog', '-')\n"
        "Logger(config).info('starting %s', 'now')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    got = only(done.stderr)
    assert (got["logger"], got["message"]) == ("gunicorn.error", "starting now")


def test_the_gateways_own_credentials_are_blotted_out_whatever_their_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_net", [*logs._net])
    assert logs.hide("at /v1/plain+word/") == "at /v1/plain+word/"
    logs.know(["plain+word/"])
    assert logs.hide("at /v1/plain+word/, plain%2Bword/ and plain%2Bword%2F") == (
        f"at /v1/{REDACTED}, {REDACTED} and {REDACTED}"
    )


def test_what_is_learnt_later_is_blotted_out_beside_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_net", [*logs._net])
    logs.know(["plain+word/"])
    logs.learn(["another+word/"])
    assert logs.hide("plain+word/ another%2Bword%2F") == f"{REDACTED} {REDACTED}"


PARTS = st.sampled_from(
    [
        *'ab:="\\\n\r\x7f é\ud800,{}/',
        "api_key",
        "API-key",
        "Basic ",
        "basic\t",
        "sk-",
        "Bearer ",
        "a1B2c3D4e5F6",
        "plain+word/",
    ]
)
TEXTS = st.lists(PARTS, max_size=6).map("".join)
FIELDS = st.dictionaries(
    st.one_of(st.sampled_from(["status", "model", "level", "time", "api_key"]), TEXTS),
    st.one_of(TEXTS, st.integers(), st.floats(), st.none(), st.lists(TEXTS, max_size=2)),
    max_size=4,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, FIELDS, st.sampled_from(["gateway.access", "gunicorn.error"]))
def test_a_line_that_was_only_looked_at_is_the_line_of_which_each_text_was_cleaned(
    message: str, fields: dict[str, Any], name: str
) -> None:
    net = logs._net[0]
    logs.know(["plain+word/"])
    try:
        record = logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": message, "fields": fields})
        line = logs.JSONLine()
        assert line.format(record) == line._hidden(record)
    finally:
        logs._net[0] = net


def test_the_usual_line_of_a_request_needs_one_look_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "hide", None)
    fields = {
        "request_id": "req_" + "0f" * 16,
        "path": "/v1/chat/completions",
        "status": 200,
        "cost_usd": 0.1,
        "key": None,
    }
    record = logging.makeLogRecord({"name": "gateway.access", "levelname": "INFO", "msg": "request", "fields": fields})
    assert fields.items() <= json.loads(logs.JSONLine().format(record)).items()


@given(st.floats(0, 4e9))
def test_each_moment_is_written_to_its_millisecond(moment_s: float) -> None:
    record = logging.makeLogRecord({"created": moment_s})
    exact = datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds")
    assert logs._time(record) == exact.replace("+00:00", "Z")
