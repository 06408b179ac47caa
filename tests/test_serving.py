"""The process around the app: the first key, and who may listen where."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from gateway import serving
from gateway.app import create_app
from gateway.pipeline import Gateway
from tests.builders import TOKEN, gateway

LOCAL = [("127.0.0.1", 8000)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to start in, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "BRAINTRUST_")) or name.endswith(("_API_KEY", "_API_BASE")):
            monkeypatch.delenv(name)
    for cached in (serving.settings, serving.table):
        cached.cache_clear()
    yield tmp_path
    for cached in (serving.settings, serving.table):
        cached.cache_clear()


@pytest.fixture
def app() -> Flask:
    return create_app(gateway=gateway())


def callers(app: Flask) -> int:
    made: Gateway = app.extensions["gateway"]
    return len(made.authenticator._verifiers)


def kept(home: Path) -> Path:
    return home / ".gateway" / "auth-token"


# The address.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_that_is_taken_stops_the_start_in_one_line(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as raised:
            serving.expect_free([(host, port)], wait_s=0)
    assert raised.value.code == serving.CANNOT_START
    [said] = capsys.readouterr().err.splitlines()
    shown = f"[{host}]" if ":" in host else host
    assert said.startswith(f"gateway: {shown}:{port} is taken by another program")
    assert said.endswith(f"gunicorn wsgi:app -b {shown}:{port + 1}")


def test_an_address_that_an_earlier_gateway_still_has_is_waited_for() -> None:
    other = socket.create_server(("127.0.0.1", 0))
    leaving = threading.Timer(0.2, other.close)
    leaving.start()
    serving.expect_free([other.getsockname(), "/run/gateway.sock", 3], wait_s=20)
    assert other.fileno() == -1
    leaving.join()


def test_an_address_of_another_machine_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serving.expect_free([("203.0.113.7", 8000)])  # RFC 5737, for documentation: no machine has it
    assert "it cannot listen at 203.0.113.7:8000: " in capsys.readouterr().err


# The first key.


def test_the_first_key_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    key = serving.first_token(tmp_path / "data")
    path = tmp_path / "data" / "auth-token"
    assert key.reveal().startswith("sk-local-")
    assert len(key.reveal()) == len("sk-local-") + 48
    assert path.read_text() == key.reveal() + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_open_umask_opens_it_to_nobody(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        serving.first_token(tmp_path / "data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "data" / "auth-token").stat().st_mode) == 0o600


def test_the_next_start_has_the_same_key(tmp_path: Path) -> None:
    assert serving.first_token(tmp_path) == serving.first_token(tmp_path)
    assert serving.first_token(tmp_path / "other") != serving.first_token(tmp_path)


def test_a_file_that_stands_there_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "auth-token"
    path.write_text("sk-of-the-operator\n")
    opened: list[int] = []
    real = os.open

    def watch(file: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(flags)
        return real(file, flags, mode)

    monkeypatch.setattr(os, "open", watch)
    assert serving.first_token(tmp_path).reveal() == "sk-of-the-operator"
    assert path.read_text() == "sk-of-the-operator\n"
    assert all(flags & os.O_EXCL for flags in opened)


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n", b"\xff\xfe"])
def test_a_file_that_holds_no_key_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "auth-token").write_bytes(content)
    with pytest.raises(SystemExit) as raised:
        serving.first_token(tmp_path)
    assert raised.value.code == serving.CANNOT_START
    assert "GATEWAY_AUTH_TOKEN" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as raised:
        serving.first_token(tmp_path / "file" / "data")
    assert raised.value.code == serving.CANNOT_START
    assert "GATEWAY_DATA_DIR" in capsys.readouterr().err


# Who may listen where.


@pytest.mark.parametrize(
    "binds",
    [
        LOCAL,
        [("127.8.8.8", 1)],
        [("::1", 8000)],
        [("localhost", 8000)],
        ["/run/gateway.sock"],
        [("127.0.0.1", 8000), "/run/gateway.sock", ("::1", 8000)],
    ],
)
def test_where_only_this_machine_can_call_a_key_is_made_and_shown(
    home: Path, app: Flask, capsys: pytest.CaptureFixture[str], binds: list[tuple[str, int] | str]
) -> None:
    serving.prepare(app, binds)
    serving.greet(binds)
    key = kept(home).read_text().strip()
    response = app.test_client().get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 200
    said = capsys.readouterr().err
    if any(not isinstance(bind, str) for bind in binds):
        assert f"Authorization: Bearer {key}" in said
        assert "curl" in said


def test_where_only_this_machine_can_call_a_link_signs_the_operator_in(
    home: Path, app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    serving.prepare(app, LOCAL)
    serving.greet(LOCAL)
    path = home / ".gateway" / "admin-token"
    admin, key = path.read_text().strip(), kept(home).read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"http://127.0.0.1:8000/ui/sign-in#key={admin}&calls={key}\n" in capsys.readouterr().err
    found = app.extensions["gateway"].authenticator.identify({"Authorization": f"Bearer {admin}"})
    assert found.kind == "admin"
    assert found.id.startswith("adm_")


@pytest.mark.parametrize(
    ("environ", "link"),
    [
        ({"GATEWAY_UI": "off"}, False),
        ({"GATEWAY_ADMIN_TOKEN": "adm-of-the-operator"}, True),
        ({"GATEWAY_OIDC_ISSUER": "https://id.example", "GATEWAY_OIDC_AUDIENCE": "gateway"}, True),
    ],
)
def test_no_admin_token_is_made_where_there_is_another_way_to_manage_or_no_page(
    home: Path,
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
    link: bool,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    serving.prepare(app, LOCAL)
    serving.greet(LOCAL)
    told = capsys.readouterr().err
    assert not (home / ".gateway" / "admin-token").exists()
    assert ("/ui/sign-in#key=sk-local-" in told) is link
    assert "adm-of-the-operator" not in told


@pytest.mark.parametrize(
    "bind",
    [
        ("0.0.0.0", 8000),
        ("", 8000),
        ("::", 8000),
        ("10.0.0.1", 8000),
        ("192.168.1.2", 8000),
        ("203.0.113.7", 8000),
        ("gateway.example.com", 8000),
        ("localhost.example.com", 8000),
        ("127.0.0.1.example.com", 8000),
    ],
)
@pytest.mark.parametrize("others", [[], LOCAL])
def test_where_others_can_call_no_key_is_made_and_the_start_is_refused(
    home: Path, app: Flask, capsys: pytest.CaptureFixture[str], bind: tuple[str, int], others: list[tuple[str, int]]
) -> None:
    before = callers(app)
    with pytest.raises(SystemExit) as raised:
        serving.prepare(app, [*others, bind])
    assert raised.value.code == serving.CANNOT_START
    assert "GATEWAY_AUTH_TOKEN" in capsys.readouterr().err
    assert not kept(home).exists()
    assert callers(app) == before


@pytest.mark.parametrize(
    "environ",
    [
        {"GATEWAY_ADMIN_TOKEN": "adm"},
        {"GATEWAY_OIDC_ISSUER": "https://id.example", "GATEWAY_OIDC_AUDIENCE": "gateway"},
        {
            "GATEWAY_OIDC_ISSUER": "https://id.example",
            "GATEWAY_OIDC_CLIENT_ID": "gateway",
            "GATEWAY_OIDC_CLIENT_SECRET": "of-the-client",
            "GATEWAY_OIDC_ADMIN_EMAILS": "ann@example.com",
        },
    ],
)
def test_where_others_can_call_with_keys_of_another_kind_no_token_is_made_or_needed(
    home: Path,
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    before = callers(app)
    serving.prepare(app, [("0.0.0.0", 8000)])
    serving.greet([("0.0.0.0", 8000)])
    assert callers(app) == before
    assert not kept(home).exists()
    assert "curl" not in capsys.readouterr().err


def test_a_descriptor_that_was_handed_over_is_not_known_to_be_local(
    home: Path, app: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    """gunicorn gives `fd://3` as the number 3."""
    with pytest.raises(SystemExit):
        serving.prepare(app, [3])  # type: ignore[list-item]
    assert "GATEWAY_AUTH_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("binds", [LOCAL, [("0.0.0.0", 8000)]])
def test_with_a_key_configured_none_is_made_anywhere(
    home: Path,
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    binds: list[tuple[str, int] | str],
) -> None:
    monkeypatch.setenv("GATEWAY_AUTH_TOKEN", TOKEN)
    before = callers(app)
    serving.prepare(app, binds)
    serving.greet(binds)
    assert not kept(home).exists()
    assert callers(app) == before
    assert TOKEN not in capsys.readouterr().err


def test_the_greeting_says_where_traces_go_and_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hunter2-openai")
    monkeypatch.setenv("AZURE_API_KEY", "hunter2-azure")
    monkeypatch.delenv("UV", raising=False)
    with caplog.at_level(logging.INFO, "gateway"):
        serving.greet(LOCAL)
        monkeypatch.setenv("UV", "/usr/bin/uv")
        serving.greet(LOCAL)
    assert "(read them with: gateway traces list)" in caplog.text
    assert "(read them with: uv run gateway traces list)" in caplog.text
    assert "openai" in caplog.text
    assert "set AZURE_API_BASE" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("binds", "base"),
    [
        ([("127.0.0.1", 8001)], "http://127.0.0.1:8001"),
        (["/run/gateway.sock", ("0.0.0.0", 8000)], "http://<this machine>:8000"),
        ([("::", 8000)], "http://<this machine>:8000"),
        ([("fd00::1", 8000)], "http://[fd00::1]:8000"),
    ],
)
def test_the_greeting_says_where_clients_find_it_when_they_have_their_keys(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    binds: list[tuple[str, int] | str],
    base: str,
) -> None:
    monkeypatch.setenv("GATEWAY_AUTH_TOKEN", TOKEN)
    with caplog.at_level(logging.INFO, "gateway"):
        serving.greet(binds)
    assert f"ready: the base URL is {base}/v1 for OpenAI's clients, {base} for Anthropic's" in caplog.text
    assert f"the pages are at {base}/ui" in caplog.text
    assert TOKEN not in caplog.text


def test_the_greeting_names_a_model_that_can_be_called(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hunter2")
    serving.greet(LOCAL)
    told = capsys.readouterr().err
    assert '"model": "anthropic/<model>"' in told
    assert "openai" not in told


def test_the_greeting_says_so_where_no_model_can_be_called(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GATEWAY_DEMO", "off")
    with caplog.at_level(logging.INFO, "gateway"):
        serving.greet(LOCAL)
    assert "no model can be called" in caplog.text
    assert "demo models answer" not in caplog.text


def test_the_greeting_names_the_models_of_a_routes_file_and_calls_the_first(
    home: Path, app: Flask, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["star/*", *(f"m{number}" for number in range(30))]
    entries = (f"- {{model_name: {name}, litellm_params: {{model: openai/{name}}}}}" for name in names)
    (home / "gateway.yaml").write_text("\n".join(["model_list:", *entries, "open_catalogue: false"]))
    (home / ".env").write_text("OPENAI_API_KEY=hunter2\n")
    with caplog.at_level(logging.INFO, "gateway"):
        serving.prepare(app, LOCAL)
        serving.greet(LOCAL)
    assert f"models of {home / 'gateway.yaml'}: star/*, m0, m1" in caplog.text
    assert "m18, and 11 more; no other name is answered" in caplog.text
    assert '"model": "m0"' in capsys.readouterr().err


# Settings and workers.


def test_settings_are_read_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = serving.settings()
    monkeypatch.setenv("GATEWAY_TIMEOUT_S", "7")
    assert serving.settings() is first


def test_settings_that_cannot_be_used_stop_the_start_and_name_every_fault(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_TIMEOUT_S", "soon")
    monkeypatch.setenv("GATEWAY_AUTH_TOKEN", "")
    with pytest.raises(SystemExit) as raised:
        serving.settings()
    assert raised.value.code == serving.CANNOT_START
    said = capsys.readouterr().err
    assert "GATEWAY_TIMEOUT_S" in said
    assert "GATEWAY_AUTH_TOKEN" in said


def test_a_routes_file_that_cannot_be_used_stops_the_start_and_names_every_fault(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG_YAML", "model_lst: []")
    with pytest.raises(SystemExit) as stopped:
        serving.table()
    assert stopped.value.code == serving.CANNOT_START
    assert capsys.readouterr().err.splitlines() == [
        "gateway: GATEWAY_CONFIG_YAML:1:1: model_list is missing",
        "gateway: GATEWAY_CONFIG_YAML:1:1: model_lst: unknown key; model_list is meant?",
    ]


def test_keys_that_a_routes_file_takes_from_variables_leave_the_environment(home: Path) -> None:
    (home / "gateway.yaml").write_text(
        "model_list:\n"
        "- model_name: a\n"
        "  litellm_params: {model: azure/x, api_version: '${OWN_VERSION}', api_key: '${AZURE_EU_KEY}'}\n"
        "- {model_name: b, litellm_params: {model: azure/x, api_key: os.environ/OWN_KEY}}\n"
    )
    (home / ".env").write_text("AZURE_EU_KEY=hunter2\nAZURE_TENANT_ID=tenant\n")
    script = (
        "import os; from gateway import serving; serving.application()\n"
        "print([name for name in ('OWN_KEY', 'AZURE_EU_KEY', 'OWN_VERSION', 'AZURE_TENANT_ID') if name in os.environ])"
    )
    environ = {**os.environ, "OWN_KEY": "hunter2", "OWN_VERSION": "v", "GATEWAY_LOCAL_TRACES": "off"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=home, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['OWN_VERSION', 'AZURE_TENANT_ID']"
    assert "hunter2" not in done.stderr


def test_there_are_as_many_workers_as_processors_and_few_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_cgroup_cpus", lambda: 64)
    for processors, workers in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, count=processors: set(range(count)))
        assert serving.workers() == workers
    monkeypatch.setattr(serving, "_cgroup_cpus", lambda: 1)
    assert serving.workers() == 1


def test_a_limit_of_the_control_group_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, processors in (
        ("max 100000", 4),
        ("150000 100000", 1),
        ("350000 100000", 3),
        ("5000 100000", 1),
        ("", 4),
    ):
        monkeypatch.setattr(Path, "read_text", lambda _path, encoding, said=text: said)
        assert serving._cgroup_cpus() == processors


def test_sigterm_drains_and_then_does_what_it_did_before() -> None:
    seen: list[int] = []
    made = gateway()
    kept_handler = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    try:
        serving.drain_on_sigterm(made, 5.0)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, kept_handler)
    assert seen == [signal.SIGTERM]
    assert made.watcher.draining


def test_a_process_takes_shorter_turns_and_returns_large_blocks() -> None:
    """In a process of its own: both stand for all that runs in it."""
    script = (
        "import resource, sys; from gateway.serving import suit_many_calls; suit_many_calls()\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "for size in (30, 3, 30, 3): block = bytes(size << 20)\n"
        "before = resident()\n"
        "blocks = [bytearray(3 << 20) for _ in range(20)]; held = bytearray(100); del blocks\n"
        "assert sys.getswitchinterval() == 0.001\n"
        "assert resident() - before < 8 << 20, resident() - before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
