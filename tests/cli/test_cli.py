"""The commands, run as a shell runs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from gateway import cli
from gateway.cli import serve

GATEWAY = str(Path(sys.executable).parent / "gateway")
HEAVY = (
    *("flask", "litellm", "braintrust", "gunicorn", "gevent", "httpx", "sqlalchemy", "alembic", "rich"),
    *("gateway.app", "gateway.settings"),
)


def run(*arguments: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=directory, env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True
    )


def test_the_version_is_the_projects(tmp_path: Path) -> None:
    done = run(GATEWAY, "--version", directory=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"gateway {cli._version()}\n")


def test_help_names_the_commands(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "gateway", "--help", directory=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: gateway ")
    assert " serve " in done.stdout
    assert " check " in done.stdout


@pytest.mark.parametrize(
    ("command", "named"),
    [((), "doctor"), (("traces",), "export"), (("spool",), "drain"), (("keys",), "rotate"), (("users",), "enable")],
)
def test_without_a_command_it_shows_which_there_are_and_fails(
    command: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    done = run(GATEWAY, *command, directory=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: gateway ")
    assert f"\n    {named} " in done.stderr


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_nothing_heavy_is_imported_for_an_answer_about_itself(argument: str, tmp_path: Path) -> None:
    script = (
        "import sys; from gateway.cli import main\n"
        f"try: main([{argument!r}])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = run(sys.executable, "-c", script, directory=tmp_path)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_check_imports_no_model_library(tmp_path: Path) -> None:
    script = "import sys; from gateway.cli import main; main(['check']); print('litellm' in sys.modules)"
    done = run(sys.executable, "-c", script, directory=tmp_path)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_check_names_every_fault_one_on_a_line_and_fails(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GATEWAY_TIMEOUT_S=soon\n")
    done = run(GATEWAY, "check", directory=tmp_path, GATEWAY_AUTH_TOKEN=",", GATEWAY_DMEO="on")
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        "GATEWAY_AUTH_TOKEN",
        "GATEWAY_TIMEOUT_S",
        "GATEWAY_DMEO",
    ]


def test_check_sums_the_settings_up_without_a_secret(tmp_path: Path) -> None:
    done = run(
        GATEWAY,
        "check",
        directory=tmp_path,
        GATEWAY_AUTH_TOKEN="hunter2-a,hunter2-b",
        OPENAI_API_KEY="hunter2-c",
        AZURE_API_KEY="hunter2-d",
        BRAINTRUST_API_KEY="hunter2-e",
        BRAINTRUST_PROJECT="shop",
        GATEWAY_NEW_THING="hunter2-f",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    assert done.stdout.splitlines() == [
        "callers' keys: 2 in GATEWAY_AUTH_TOKEN",
        "providers: openai, text-completion-openai",
        "provider azure: set AZURE_API_BASE",
        "provider azure_text: set AZURE_API_BASE",
        "traces: Braintrust, project shop",
        "stored responses: kept here where no provider keeps them (30 days, 256 MB at most)",
        "demo models: off",
        "warning: GATEWAY_NEW_THING is not a setting of this release and is ignored",
        "warning: GATEWAY_AUTH_TOKEN has a token of fewer than 16 characters, which can be guessed; "
        "`openssl rand -hex 32` makes a good one",
    ]


def test_check_says_what_happens_with_nothing_set(tmp_path: Path) -> None:
    done = run(GATEWAY, "check", directory=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"callers' keys: no GATEWAY_AUTH_TOKEN: only this machine may call, with the key in "
        f"{tmp_path / '.gateway/auth-token'} (a first start makes it); a start on any other address is refused",
        "providers: none",
        "traces: kept here, read them with: gateway traces list (set BRAINTRUST_API_KEY to send them to Braintrust)",
        "stored responses: kept here where no provider keeps them (30 days, 256 MB at most)",
        "demo models: on",
    ]


def test_check_says_when_no_response_is_stored_here(tmp_path: Path) -> None:
    done = run(GATEWAY, "check", directory=tmp_path, GATEWAY_STORED_RESPONSES_DAYS="0")
    assert "stored responses: with their providers alone" in done.stdout.splitlines()


def test_check_says_what_the_names_of_a_routes_file_lead_to(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "model_list:\n"
        "- {model_name: fast, litellm_params: {model: openai/gpt-x}}\n"
        "- {model_name: fast, litellm_params: {model: hosted_vllm/llama, api_base: 'http://gpu:8000/v1', "
        "api_key: hunter2-literal}}\n"
        "open_catalogue: false\n"
    )
    done = run(GATEWAY, "check", directory=tmp_path, OPENAI_API_KEY="hunter2-c")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hunter2" not in done.stdout
    path = tmp_path / "gateway.yaml"
    assert done.stdout.splitlines()[-5:] == [
        "demo models: off",
        f"routes: {path}; names that are not in it are not answered",
        "model fast: openai/gpt-x, then hosted_vllm/llama at gpu:8000",
        "tries: 2 more after the first, then 5 fallbacks at most; a deployment is left alone for 5 s after 5 failures",
        f"warning: {path}:3:106: model_list[1].litellm_params.api_key: a key stands in the file itself: better "
        "os.environ/NAME, and the key in .env",
    ]


def test_check_says_how_a_deployment_is_chosen_and_what_is_tried_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        """
model_list:
- {model_name: fast, litellm_params: {model: openai/a, weight: 9, order: 1}}
- {model_name: fast, litellm_params: {model: openai/b, weight: 1, order: 1}}
- {model_name: fast, litellm_params: {model: openai/c, order: 2}, model_info: {when: {tags: [eu]}}}
- {model_name: slow, litellm_params: {model: openai/d}}
router_settings:
  num_retries: 1
  fallbacks: [{fast: [slow]}]
  context_window_fallbacks: [{fast: [slow, openai/e]}]
  content_policy_fallbacks: [{slow: [fast]}]
routing: {first_content_s: 8, names: {fast: {sticky: "header:x-session"}, slow: {strategy: cheapest}}}
"""
    )
    done = run(GATEWAY, "check", directory=tmp_path, OPENAI_API_KEY="hunter2-c")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-3:] == [
        "model fast: openai/a (weight 9) or openai/b (weight 1), then openai/c (for some calls) (weighted; "
        "the same for each x-session; fallbacks: slow; where the prompt is too long: slow, openai/e)",
        "model slow: openai/d (where a filter refuses: fast)",
        "tries: 1 more after the first, then 5 fallbacks at most; a deployment is left alone for 5 s after 5 failures; "
        "a stream without content for 8 s is tried elsewhere",
    ]


def test_check_names_every_fault_of_a_routes_file(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("model_lst: []\nopen_catalogue: maybe\n")
    done = run(GATEWAY, "check", directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    path = tmp_path / "gateway.yaml"
    assert done.stderr.splitlines() == [
        f"{path}:1:1: model_list is missing",
        f"{path}:1:1: model_lst: unknown key; model_list is meant?",
        f"{path}:2:17: open_catalogue: must be true or false",
    ]


def test_check_prints_the_schema_of_a_routes_file_whatever_the_settings_are(tmp_path: Path) -> None:
    done = run(GATEWAY, "check", "--schema", directory=tmp_path, GATEWAY_AUTH_TOKEN="")
    assert done.returncode == 0
    published = Path(__file__).resolve().parents[2] / "docs/gateway.schema.json"
    assert done.stdout == published.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "70000"),
        ("--port", "http"),
        ("--workers", "0"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
    ],
)
def test_serve_refuses_a_flag_that_cannot_be_used(arguments: tuple[str, str], tmp_path: Path) -> None:
    done = run(GATEWAY, "serve", *arguments, directory=tmp_path)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_serve_is_gunicorn_with_the_projects_configuration(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("import os\nraw_env = ['WORKERS=' + os.environ['WEB_CONCURRENCY']]\n")
    (tmp_path / "wsgi.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    names = 'WORKERS', 'LOG_LEVEL', 'LOG_FORMAT'\n"
        "    return [' '.join([*(os.environ[name] for name in names), os.getcwd()]).encode()]\n"
    )
    port = free_port()
    flags = ["--port", str(port), "--workers", "1", "--log-level", "error", "--log-format", "pretty"]
    environ = {"PATH": os.environ["PATH"]}
    with subprocess.Popen([GATEWAY, "serve", *flags], cwd=tmp_path, env=environ, stderr=subprocess.PIPE) as server:
        try:
            answer = _ask(f"http://127.0.0.1:{port}/", server)
        finally:
            server.terminate()
        server.communicate(timeout=30)
    assert answer == f"1 error pretty {tmp_path}"
    assert server.returncode == 0, "the signal reached gunicorn itself"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _ask(address: str, server: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + 30
    while time.monotonic() < until and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
        time.sleep(0.05)
    raise AssertionError("gunicorn does not answer")


def test_serve_binds_where_it_is_told_also_with_version_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gunicorn.conf.py").touch()
    (tmp_path / "wsgi.py").touch()
    monkeypatch.chdir(tmp_path)
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _path, command: commands.append(command))
    for flags in (["--host", "::1", "--port", "0"], ["--host", "0.0.0.0"], []):
        cli.main(["serve", *flags])
    assert [command[7:] for command in commands] == [
        ["-b", "[::1]:0", "wsgi:app"],
        ["-b", "0.0.0.0:8000", "wsgi:app"],
        ["wsgi:app"],
    ]


def test_serve_says_so_where_the_configuration_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "__file__", str(tmp_path / "site-packages/gateway/cli/serve.py"))
    with pytest.raises(SystemExit, match=r"no gunicorn\.conf\.py with a wsgi\.py beside it; looked in"):
        cli.main(["serve"])


def test_serve_finds_the_configuration_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "gateway").mkdir(parents=True)
    (checkout / "gunicorn.conf.py").touch()
    (checkout / "wsgi.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serve, "__file__", str(checkout / "gateway/cli/serve.py"))
    assert serve.home() == checkout
